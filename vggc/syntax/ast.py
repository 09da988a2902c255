"""The tree of a `.vgg` file, as written: no defaults, no meaning, every place known.

Two trees are equal when they say the same; spans do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from vggc.source import Span


def _span() -> Span:
    return field(compare=False, repr=False)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Number:
    """`0.01`, `5e-4`, `256`. The value is an int when it was written as one."""

    value: int | float
    span: Span = _span()

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Word:
    """`vgg19`, `he`, `same`."""

    text: str
    span: Span = _span()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Dims:
    """`3x224x224`, `2x2`."""

    sizes: tuple[int, ...]
    span: Span = _span()

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes))


@dataclass(frozen=True)
class Range:
    """`256..512`, both ends included."""

    low: Number
    high: Number
    span: Span = _span()

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True)
class Many:
    """`0.485,0.456,0.406`."""

    items: tuple[Number | Word | Dims | Range, ...]
    span: Span = _span()

    def __str__(self) -> str:
        return ",".join(map(str, self.items))


Value: TypeAlias = Number | Word | Dims | Range | Many


@dataclass(frozen=True)
class Option:
    """`key=value`."""

    key: str
    value: Value
    span: Span = _span()

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


@dataclass(frozen=True)
class Comments:
    """The lines of comment above a piece and the one behind it, without their `#`."""

    above: tuple[str, ...] = ()
    behind: str = ""


@dataclass(frozen=True)
class Layer:
    """`conv3-64 stride=2`, with its name in `fc6: fc-4096`."""

    word: str
    options: tuple[Option, ...] = ()
    name: str | None = None
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True)
class Group:
    """`(fc-4096 | dropout)`."""

    body: tuple[Item, ...]
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True)
class Repeat:
    """`conv3-64 ×2`: the same layer or group several times."""

    item: Layer | Group
    count: int
    span: Span = _span()


Item: TypeAlias = Layer | Group | Repeat


@dataclass(frozen=True)
class Setting:
    """One line of a block: `batch 256`, `sgd lr=0.01 momentum=0.9`."""

    key: str
    values: tuple[Value, ...] = ()
    options: tuple[Option, ...] = ()
    comments: Comments = Comments()
    span: Span = _span()


@dataclass(frozen=True)
class Block:
    """`train { … }`."""

    key: str
    settings: tuple[Setting, ...] = ()
    comments: Comments = Comments()
    end_comments: tuple[str, ...] = ()
    span: Span = _span()


@dataclass(frozen=True)
class Net:
    """A whole file: one net."""

    name: str
    input: Setting
    body: tuple[Item, ...]
    blocks: tuple[Block, ...] = ()
    comments: Comments = Comments()
    end_comments: tuple[str, ...] = ()
    span: Span = _span()

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
