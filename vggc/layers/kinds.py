"""The vocabulary: what each word for a layer takes, and the core ops that it stands for.

A kind is a frozen dataclass. Its fields are its signature: `size` is the number in the
word (the 3 of `conv3-64`), `width` the one behind the hyphen, every other field an
option. `expand` turns one into core ops, each with the suffix of its node's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

from vggc.ir.ops import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Op,
    ReLU,
    Shape,
    Softmax,
)

Expansion: TypeAlias = tuple[tuple[str, Op], ...]

MAX_WIDTH = 1 << 20
MAX_WINDOW = 1 << 10


@dataclass(frozen=True)
class Param:
    """What may stand for one field of a kind: numbers in a range, or one of `choices`."""

    doc: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    integral: bool = True
    odd: bool = False

    @property
    def expected(self) -> str:
        if self.choices:
            return " or ".join(f"`{choice}`" for choice in self.choices)
        number = "a whole number" if self.integral else "a number"
        number = "an odd number" if self.odd else number
        return f"{number} from {self.low} to {self.high}"


def _number(doc: str, low: float, high: float, default: Any = ..., **more: Any) -> Any:
    metadata = {"param": Param(doc, low, high, **more)}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def _activation() -> Any:
    doc = "what follows; the output layer of a net has none unless it says so"
    return field(default="relu", metadata={"param": Param(doc, choices=("relu", "none"))})


class _Kind:
    """What all kinds share."""

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    doc: ClassVar[str]
    example: ClassVar[str]
    scheme: ClassVar[str] = "{kind}{nth}"
    """How a layer without a name of its own is called."""

    def expand(self, x: Shape) -> Expansion:
        raise NotImplementedError

    @classmethod
    def params(cls) -> dict[str, Param]:
        """What each field takes, `size` and `width` included."""
        return {f.name: f.metadata["param"] for f in fields(cls)}  # type: ignore[arg-type]


def _activated(name: str) -> Expansion:
    return (("relu", ReLU()),) if name == "relu" else ()


@dataclass(frozen=True)
class Conv(_Kind):
    name = "conv"
    doc = "Convolution with a square kernel, a bias and an activation."
    example = "conv3-64"
    scheme = "conv{block}_{nth_in_block}"

    size: int = _number("rows and columns of the kernel", 1, MAX_WINDOW - 1, odd=True)
    width: int = _number("output channels", 1, MAX_WIDTH)
    stride: int = _number("step of the kernel", 1, MAX_WINDOW, 1)
    padding: int | None = _number(
        "zeros on each side; half the kernel unless given, which keeps the resolution",
        0,
        MAX_WINDOW,
        None,
    )
    act: str = _activation()

    def expand(self, x: Shape) -> Expansion:
        padding = self.size // 2 if self.padding is None else self.padding
        kernel, stride = (self.size, self.size), (self.stride, self.stride)
        return (
            ("", Conv2d(self.width, kernel, stride, (padding, padding))),
            *_activated(self.act),
        )


@dataclass(frozen=True)
class Pool(_Kind):
    name = "pool"
    aliases = ("maxpool",)
    doc = "Maximum over square windows."
    example = "pool"
    scheme = "pool{block}"

    size: int = _number("rows and columns of the window", 1, MAX_WINDOW, 2)
    stride: int | None = _number("step of the window; its size unless given", 1, MAX_WINDOW, None)

    def expand(self, x: Shape) -> Expansion:
        stride = self.size if self.stride is None else self.stride
        return (("", MaxPool2d((self.size, self.size), (stride, stride))),)


@dataclass(frozen=True)
class Lrn(_Kind):
    name = "lrn"
    doc = "Local response normalisation over neighbouring channels."
    example = "lrn size=5 alpha=1e-4 beta=0.75 k=2"

    size: int = _number("channels in the sum", 1, MAX_WINDOW - 1, 5, odd=True)
    alpha: float = _number("weight of the sum of squares", 0, 1e6, 1e-4, integral=False)
    beta: float = _number("exponent", 0, 100, 0.75, integral=False)
    k: float = _number("constant beside the sum", 1e-6, 1e6, 2.0, integral=False)

    def expand(self, x: Shape) -> Expansion:
        alpha, beta, k = float(self.alpha), float(self.beta), float(self.k)
        return (("", LocalResponseNorm(self.size, alpha, beta, k)),)


@dataclass(frozen=True)
class Fc(_Kind):
    name = "fc"
    doc = "Fully-connected layer with a bias and an activation; flattens a map."
    example = "fc-4096"
    scheme = "fc{block}"

    width: int = _number("output features", 1, MAX_WIDTH)
    act: str = _activation()

    def expand(self, x: Shape) -> Expansion:
        flatten: Expansion = (("flatten", Flatten()),) if len(x) == 3 else ()
        return (*flatten, ("", Linear(self.width)), *_activated(self.act))


@dataclass(frozen=True)
class Relu(_Kind):
    name = "relu"
    doc = "Rectifier, where a layer's own activation is not enough."
    example = "relu"

    def expand(self, x: Shape) -> Expansion:
        return (("", ReLU()),)


@dataclass(frozen=True)
class DropoutKind(_Kind):
    name = "dropout"
    doc = "While training, zeroes values at random; nothing otherwise."
    example = "dropout p=0.5"

    p: float = _number("the share of values that are zeroed", 0, 0.99, 0.5, integral=False)

    def expand(self, x: Shape) -> Expansion:
        return (("", Dropout(float(self.p))),)


@dataclass(frozen=True)
class FlattenKind(_Kind):
    name = "flatten"
    doc = "A map to a vector, channels first."
    example = "flatten"

    def expand(self, x: Shape) -> Expansion:
        return (("", Flatten()),)


@dataclass(frozen=True)
class SoftmaxKind(_Kind):
    name = "softmax"
    doc = "Scores to probabilities."
    example = "softmax"

    def expand(self, x: Shape) -> Expansion:
        return (("", Softmax()),)


Kind: TypeAlias = Conv | Pool | Lrn | Fc | Relu | DropoutKind | FlattenKind | SoftmaxKind
KINDS: tuple[type[Kind], ...] = (
    Conv,
    Pool,
    Lrn,
    Fc,
    Relu,
    DropoutKind,
    FlattenKind,
    SoftmaxKind,
)
BY_WORD: dict[str, type[Kind]] = {
    word: kind for kind in KINDS for word in (kind.name, *kind.aliases)
}
ELSEWHERE = {
    "conv2d": "conv",
    "convolution": "conv",
    "dense": "fc",
    "linear": "fc",
    "max_pool": "pool",
    "drop": "dropout",
    "prob": "softmax",
    "pad": "padding",
    "s": "stride",
    "strides": "stride",
    "kernel": "size",
    "activation": "act",
}
"""What other tools call the words of this one, for suggestions."""

WITH_WEIGHTS = (Conv, Fc)
ENDS_BLOCK = (Pool, Fc)
