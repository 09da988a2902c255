"""The tree of a `.vgg` file, as written: no defaults, no meaning, every place known.

Two trees are equal when they say the same; spans do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from vggc.source import Span


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Anything that stands somewhere in a file."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Number(Piece):
    """`0.01`, `5e-4`, `256`. The value is an int when it was written as one."""

    value: int | float

    def __str__(self) -> str:
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


@dataclass(frozen=True)
class Layer(Piece):
    """`conv3-64 stride=2`, with its name in `fc6: fc-4096`."""

    word: str
    options: tuple[Option, ...] = ()
    name: str | None = None
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Group(Piece):
    """`(fc-4096 | dropout)`."""

    body: tuple[Item, ...]
    trivia: Trivia = Trivia()


@dataclass(frozen=True)
class Repeat(Piece):
    """`conv3-64 ×2`: the same layer or group several times."""

    item: Layer | Group
    count: int


Item: TypeAlias = Layer | Group | Repeat


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


@dataclass(frozen=True)
class Net(Piece):
    """A whole file: one net."""

    name: str
    input: Setting
    body: tuple[Item, ...]
    blocks: tuple[Block, ...] = ()
    trivia: Trivia = Trivia()
    below: tuple[str, ...] = ()

    def block(self, key: str) -> Block | None:
        return next((block for block in self.blocks if block.key == key), None)


def layers(body: tuple[Item, ...]) -> Iterator[Layer]:
    """Every layer as it will be built, repeats unrolled, in order."""
    for item in body:
        match item:
            case Layer():
                yield item
            case Group():
                yield from layers(item.body)
            case Repeat():
                for _ in range(item.count):
                    yield from layers((item.item,))
