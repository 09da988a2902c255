"""The tree of a `.vgg` file, as written: no defaults, no meaning, every place known.

Two trees are equal when they say the same; spans do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vggc.support.source import Span


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Anything that stands somewhere in a file."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Number(Piece):
    """`0.01`, `5e-4`, `256px`. The value is an int when it was written as one."""

    value: int | float
    unit: str = ""

    def __str__(self) -> str:
        return self._digits() + self.unit

    def _digits(self) -> str:
        plain = repr(self.value)
        if isinstance(self.value, int):
            return plain
        shortest = (f"{self.value:.{digits}e}" for digits in range(17))
        exact = next(text for text in shortest if float(text) == self.value)
        mantissa, exponent = exact.split("e")
        scientific = f"{mantissa}e{int(exponent)}"
        return scientific if "e" in plain or len(scientific) + 1 < len(plain) else plain


@dataclass(frozen=True)
class Word(Piece):
    """`vgg19`, `he`, `same`."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Dims(Piece):
    """`3x224x224`, `2x2`."""

    sizes: tuple[int, ...]

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes))


@dataclass(frozen=True)
class Range(Piece):
    """`256..512`, both ends included."""

    low: Number
    high: Number

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True)
class Many(Piece):
    """`0.485,0.456,0.406`."""

    items: tuple[Number | Word | Dims | Range, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.items))


Value: TypeAlias = Number | Word | Dims | Range | Many


@dataclass(frozen=True)
class Option(Piece):
    """`key=value`."""

    key: str
    value: Value

    @property
    def key_span(self) -> Span:
        """Where the key stands."""
        return self.span.part(0, len(self.key))

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


@dataclass(frozen=True)
class Trivia:
    """What says nothing to the compiler and much to the reader.

    The lines of comment above a piece and the one behind it, without their `#`, and
    whether the piece begins a row.
    """

    above: tuple[str, ...] = ()
    behind: str = ""
    row: bool = False


def plain_word(text: str) -> str:
    """A text as words are kept, in which `1×7` is `1x7`; every letter stays where it is."""
    return text.replace("×", "x")


@dataclass(frozen=True)
class Layer(Piece):
    """`conv3-64 stride=2`, with its name in `fc6: fc-4096`.

    Where paths run beside one another, they stand behind it: `add(conv3-64, skip)`.
    """

    word: str
    options: tuple[Option, ...] = ()
    name: str | None = None
    paths: tuple[Body, ...] = ()
    trivia: Trivia = Trivia()

    @property
    def word_start(self) -> int:
        """Where the word begins in the layer's text; below zero where an edit has given it another
        since.
        """
        after_name = 0 if self.name is None else self.span.text.index(":")
        return plain_word(self.span.text).find(self.word, after_name)


@dataclass(frozen=True)
class Reference(Piece):
    """`@pool3`: the output of a layer that stands elsewhere."""

    name: str
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Group(Piece):
    """`(fc-4096 | dropout)`."""

    body: Body
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Repeat(Piece):
    """`conv3-64 ×2`: the same layer or group several times, or as often as a name says."""

    item: Layer | Group
    count: int | str


Item: TypeAlias = Layer | Group | Repeat | Reference
Body: TypeAlias = tuple[Item, ...]


@dataclass(frozen=True)
class Name(Piece):
    """A parameter or a constant in a sum."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Binary(Piece):
    """`64 * width`; the operator is one of `+ - * /`."""

    left: Sum
    operator: str
    right: Sum

    def __str__(self) -> str:
        return f"{_operand(self, self.left)} {self.operator} {_operand(self, self.right, 1)}"


@dataclass(frozen=True)
class Rounded(Piece):
    """`round(64 * width)`: the nearest whole number, the half rounded up."""

    sum: Sum

    def __str__(self) -> str:
        return f"round({self.sum})"


Sum: TypeAlias = Number | Name | Binary | Rounded


def _operand(around: Binary, inner: Sum, right: int = 0) -> str:
    """The text of an operand, in parentheses where it would bind less than what is around."""
    strength = {"+": 0, "-": 0, "*": 1, "/": 1}
    weak = isinstance(inner, Binary) and (
        strength[inner.operator] < strength[around.operator] + right
    )
    return f"({inner})" if weak else str(inner)


@dataclass(frozen=True)
class Base(Piece):
    """A net with values for its parameters: `vgg16(classes=10, width=0.5)`."""

    name: str
    arguments: tuple[Option, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.name}({', '.join(map(str, self.arguments))})" if self.arguments else self.name
        )


@dataclass(frozen=True)
class Let(Piece):
    """`let wide = 64 * width`: a constant."""

    name: str
    value: Sum
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Every(Piece):
    """`every conv norm=batch`: for the layers of a kind that do not say otherwise."""

    kind: str
    options: tuple[Option, ...]
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Selector(Piece):
    """Which layers: `fc8`, `fc6..fc8`, or with `every` all of a kind or of one word."""

    word: str
    every: bool = False

    def __str__(self) -> str:
        return f"every {self.word}" if self.every else self.word


@dataclass(frozen=True)
class Set(Piece):
    """`set conv1_1 stride=2`."""

    selector: Selector
    options: tuple[Option, ...]
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Insert(Piece):
    """`after every conv insert dropout`; `before` the selected layers if not `after`."""

    after: bool
    selector: Selector
    body: Body
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Replace(Piece):
    """`replace fc8 with fc-10`."""

    selector: Selector
    body: Body
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Remove(Piece):
    """`remove every dropout`."""

    selector: Selector
    trivia: Trivia = Trivia()


Edit: TypeAlias = Set | Insert | Replace | Remove
Statement: TypeAlias = Let | Every | Edit


@dataclass(frozen=True)
class Head(Piece):
    """`head boxes: @fc7 | boxes`: a chain of its own to one of several outputs."""

    name: str
    body: Body
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Setting(Piece):
    """One line of a block: `batch 256`, `sgd lr=0.01 momentum=0.9`."""

    key: str
    values: tuple[Value, ...] = ()
    options: tuple[Option, ...] = ()
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Block(Piece):
    """`train { … }`."""

    key: str
    settings: tuple[Setting, ...] = ()
    trivia: Trivia = Trivia()
    below: tuple[str, ...] = ()


def block_of(blocks: Sequence[Block], key: str) -> Block | None:
    """The `train` or the `test` block, if it is there."""
    return next((block for block in blocks if block.key == key), None)


@dataclass(frozen=True)
class Net(Piece):
    """A whole file: one net, written out or built on another.

    One that is built on another has a base and edits, and no body; it may leave out its
    input. *Plain* is a net without parameters, base, constants and edits, whose repeats all
    have numbers.
    """

    name: str
    input: Setting | None
    body: Body
    blocks: tuple[Block, ...] = ()
    parameters: tuple[Option, ...] = ()
    base: Base | None = None
    statements: tuple[Statement, ...] = ()
    heads: tuple[Head, ...] = ()
    trivia: Trivia = Trivia()
    below: tuple[str, ...] = ()

    def block(self, key: str) -> Block | None:
        """The block that begins with a word, such as `train`, if the net has it."""
        return block_of(self.blocks, key)

    @property
    def bodies(self) -> Iterator[Body]:
        """The main chain and those of the heads."""
        yield self.body
        yield from (head.body for head in self.heads)


def pieces(body: Body) -> Iterator[Layer | Group | Reference]:
    """What is written, each once, in the order of the text; paths and groups are entered."""
    for item in body:
        piece = item.item if isinstance(item, Repeat) else item
        yield piece
        match piece:
            case Group():
                yield from pieces(piece.body)
            case Layer():
                for path in piece.paths:
                    yield from pieces(path)
            case Reference():
                pass
