"""The core operations: a closed union of frozen dataclasses.

What an op means stands here and nowhere else: its output shape, its weights, its
window on the input and its cost. Initialisers, parameter counts, checkpoint names,
receptive fields and memory follow from those. Shapes are of one sample: `(C, H, W)`
or `(features,)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]


class Misfit(Exception):
    """An input of a shape that the op cannot take: a reason, and a way out."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Weight:
    """One trained tensor of an op. `fan_in` is the number of inputs to one output."""

    role: str
    shape: Shape

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        return prod(self.shape[1:])


@dataclass(frozen=True)
class Window:
    """What one output position sees of the input, in input positions, per axis."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)


class _Op:
    """The defaults: an element-wise op without weights that works in place."""

    stored = False
    """Whether an inference keeps the output beside the input."""

    def output(self, x: Shape) -> Shape:
        """The output's shape. Raises: Misfit."""
        return x

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return ()

    def window(self, x: Shape) -> Window:
        return Window()

    def macs(self, x: Shape) -> int:
        """Multiply-accumulates for one sample, biases not counted."""
        return 0

    def saved(self, x: Shape, element: int) -> int:
        """Bytes that training keeps of one sample until the backward pass."""
        return prod(self.output(x)) * element if self.stored else 0


@dataclass(frozen=True)
class Input(_Op):
    """The image."""

    shape: Shape
    stored = True

    def output(self, x: Shape) -> Shape:
        return self.shape


@dataclass(frozen=True)
class Conv2d(_Op):
    """Cross-correlation with a bias: weight `(K, C, kh, kw)`, bias `(K,)`."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    stored = True

    def output(self, x: Shape) -> Shape:
        _, height, width = _map(x)
        return (self.channels, *_slide(self.window(x), (height, width)))

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return (
            Weight("weight", (self.channels, x[0], *self.kernel)),
            Weight("bias", (self.channels,)),
        )

    def window(self, x: Shape) -> Window:
        return Window(self.kernel, self.stride, self.padding)

    def macs(self, x: Shape) -> int:
        return prod(self.output(x)) * x[0] * prod(self.kernel)


@dataclass(frozen=True)
class Linear(_Op):
    """`y = x·Wᵀ + b`: weight `(features, in_features)`, bias `(features,)`."""

    features: int
    stored = True

    def output(self, x: Shape) -> Shape:
        if len(x) != 1:
            raise Misfit(f"needs a vector, and a map of {describe(x)} comes in")
        return (self.features,)

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return (Weight("weight", (self.features, x[0])), Weight("bias", (self.features,)))

    def macs(self, x: Shape) -> int:
        return x[0] * self.features


@dataclass(frozen=True)
class MaxPool2d(_Op):
    """The maximum over each window."""

    kernel: Pair
    stride: Pair
    stored = True

    def output(self, x: Shape) -> Shape:
        channels, height, width = _map(x)
        return (channels, *_slide(self.window(x), (height, width)))

    def window(self, x: Shape) -> Window:
        return Window(self.kernel, self.stride)

    def saved(self, x: Shape, element: int) -> int:
        index = 8  # the place of each maximum, as torch keeps it
        return prod(self.output(x)) * (element + index)


@dataclass(frozen=True)
class LocalResponseNorm(_Op):
    """`b_i = a_i / (k + alpha·Σ a_j²)^beta`, j over the `size` channels around i.

    `alpha` is not divided by `size`. Source: Krizhevsky et al. 2012, section 3.3.
    """

    size: int
    alpha: float
    beta: float
    k: float

    def output(self, x: Shape) -> Shape:
        _map(x)
        return x

    def saved(self, x: Shape, element: int) -> int:
        kept = 4  # a, Σ a², (k + alpha·Σ a²)^beta and the quotient
        return kept * prod(x) * element


@dataclass(frozen=True)
class ReLU(_Op):
    """`max(x, 0)`. In place: its output stands for its input in the backward pass."""


@dataclass(frozen=True)
class Dropout(_Op):
    """While training, zero each value with probability `p` and scale the others by 1/(1-p)."""

    p: float

    def saved(self, x: Shape, element: int) -> int:
        kept = 2  # the mask and the output
        return kept * prod(x) * element


@dataclass(frozen=True)
class Flatten(_Op):
    """`(C, H, W)` to `(C·H·W,)`; what reads the result sees the whole map."""

    def output(self, x: Shape) -> Shape:
        return (prod(x),)

    def window(self, x: Shape) -> Window:
        return Window(kernel=(x[1], x[2])) if len(x) == 3 else Window()


@dataclass(frozen=True)
class Softmax(_Op):
    """Scores to probabilities that sum to one."""

    def output(self, x: Shape) -> Shape:
        if len(x) != 1:
            raise Misfit(
                f"needs a vector of scores, and a map of {describe(x)} comes in",
                "put `fc-CLASSES` before it",
            )
        return x

    def saved(self, x: Shape, element: int) -> int:
        return prod(x) * element


Op: TypeAlias = (
    Input | Conv2d | Linear | MaxPool2d | LocalResponseNorm | ReLU | Dropout | Flatten | Softmax
)


def describe(shape: Shape) -> str:
    """`64×112×112`, as a person writes it."""
    return "×".join(map(str, shape))


def _map(x: Shape) -> tuple[int, int, int]:
    if len(x) != 3:
        raise Misfit(
            f"needs a map (channels × height × width), and a vector of {x[0]} comes in",
            "after `fc` or `flatten` there are no rows and columns left: move it before them",
        )
    return x[0], x[1], x[2]


def _slide(window: Window, size: Pair) -> Pair:
    """How many positions a window has along each axis, the rest rounded down."""
    spare = [n + 2 * p - k for n, k, p in zip(size, window.kernel, window.padding, strict=True)]
    if min(spare) < 0:
        raise Misfit(
            f"its {describe(window.kernel)} window is larger than the {describe(size)} map",
            "give the net a larger input, or take away a `pool` before it",
        )
    return (spare[0] // window.stride[0] + 1, spare[1] // window.stride[1] + 1)
