"""The core operations: a closed union of frozen dataclasses.

What an op means stands here and nowhere else: its output shape, its weights, its
window on the input and its cost. Initialisers, parameter counts, checkpoint names,
receptive fields and memory follow from those. Shapes are of one sample: `(C, H, W)`
or `(features,)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd, inf, prod
from typing import Literal, TypeAlias

from vggc.ir.activations import ACTIVATIONS, ActivationFunction

MAX_TOLD = 6
"""Shapes in one message."""

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]
"""Rows and columns."""
Sides: TypeAlias = tuple[int, int, int, int]
"""Top, left, bottom and right."""

Scaling: TypeAlias = Literal["nearest", "bilinear"]
"""Whose values stand between those of a map that is made larger."""
Border: TypeAlias = Literal["zeros", "edge", "reflect", "wrap"]
"""What lies around a map: zeros; the pixel of its edge that is nearest; its reflection, in which
the edge is not repeated; or the map again, as if it were the next one."""


class Misfit(Exception):
    """An input of a shape that the op cannot take: a reason, and a way out."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Weight:
    """One tensor of an op: what it is for, its shape and how it begins.

    What is not `trained` is gathered while training, as the statistics of a normalisation
    are: it is kept with the others and counted as no parameter. `start` is the value around
    which vectors begin.
    """

    role: str
    shape: Shape
    trained: bool = True
    start: float = 0.0
    inputs: float | None = None
    """The number of inputs to one output, where the shape `(outputs, inputs, …)` does not tell."""

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)

    @property
    def fan_in(self) -> float:
        """The number of inputs to one output."""
        return prod(self.shape[1:]) if self.inputs is None else self.inputs


@dataclass(frozen=True)
class Window:
    """The part of the input that one output position sees, in input positions, per axis: `kernel`
    elements, each `dilation` positions behind the one before.

    Where the output has `spread` positions for each of the input, `stride` and `padding` count in
    these finer ones, and a window begins at the position of the input that is nearest.
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    spread: Pair = (1, 1)

    @property
    def extent(self) -> Pair:
        """The rows and columns from the first element to the last, both included."""
        rows, columns = (
            apart * (size - 1) + 1 for size, apart in zip(self.kernel, self.dilation, strict=True)
        )
        return rows, columns

    @property
    def is_even(self) -> bool:
        """Whether there is as much padding before the map as behind it."""
        return self.padding[:2] == self.padding[2:]

    def beyond(self, size: Pair, count: Pair) -> Sides:
        """How far so many rows and columns of windows reach beyond each side of a map of this size;
        below zero where they end inside it.
        """
        before = self.padding[:2]
        bottom, right = (
            (number - 1) * step + length - first - extent
            for number, step, length, first, extent in zip(
                count, self.stride, self.extent, before, size, strict=True
            )
        )
        return (*before, bottom, right)


def around(rows: int, columns: int) -> Sides:
    """Padding of as many rows above as below, and of as many columns left as right."""
    return rows, columns, rows, columns


def padded(size: Pair, padding: Sides) -> Pair:
    """Height and width of a map with padding."""
    top, left, bottom, right = padding
    return size[0] + top + bottom, size[1] + left + right


class _Op:
    """The defaults of an op: without weights, and working in place.

    Shapes come in the order in which a node reads; `others` are what stands behind the
    first, in the ops that read several.
    """

    stored = False
    """Whether an inference keeps the output beside the input."""
    elementwise = False
    """Whether a value of the output follows from those alone that the inputs have at its place, in
    vectors beside maps at its channel, and from the weights of its channel or feature."""
    joins_in_parts = False
    """Whether joining what was joined in parts is joining all of it at once."""

    def output(self, x: Shape, *others: Shape) -> Shape:
        """The shape of the op's output. Raises: Misfit."""
        return x

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        """The op's weights in order, for an input of shape `x`."""
        return ()

    def window(self, x: Shape) -> Window:
        """The part of the input that one output position sees, for an input of shape `x`."""
        return Window()

    def macs(self, x: Shape) -> int:
        """Multiply-accumulates for one sample, biases not counted."""
        return 0

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        """Bytes that training keeps of one sample for the op until the backward pass."""
        return prod(self.output(x, *others)) * element if self.stored else 0

    def passing(self, element: int, x: Shape, *others: Shape) -> int:
        """Bytes that the op's backward pass needs besides for one sample: the gradient that comes
        and those that go.
        """
        return (prod(self.output(x, *others)) + sum(map(prod, (x, *others)))) * element


@dataclass(frozen=True)
class Input(_Op):
    """The image that a net reads."""

    shape: Shape
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        return self.shape

    def passing(self, element: int, x: Shape, *others: Shape) -> int:
        return 0


@dataclass(frozen=True)
class Conv2d(_Op):
    """Cross-correlation: weight `(K, C/groups, kh, kw)` and, with `bias`, bias `(K,)`.

    The channels of each of `groups` groups see those of their own group only.
    """

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    groups: int = 1
    bias: bool = True
    dilation: Pair = (1, 1)
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, height, width = _map(x)
        for count, what in ((channels, "come in"), (self.channels, "go out")):
            _divide(self.groups, count, what, gcd(channels, self.channels))
        return (self.channels, *_slide(self.window(x), (height, width)))

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        weight = Weight("weight", (self.channels, x[0] // self.groups, *self.kernel))
        return (weight, Weight("bias", (self.channels,))) if self.bias else (weight,)

    def window(self, x: Shape) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    def macs(self, x: Shape) -> int:
        return prod(self.output(x)) * (x[0] // self.groups) * prod(self.kernel)

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return super().saved(element, x) + _copied(self.window(x), x) * element


@dataclass(frozen=True)
class ConvTranspose2d(_Op):
    """Transposed convolution: weight `(C, K/groups, kh, kw)` and, with `bias`, bias `(K,)`.

    Each value of the input adds its multiple of the kernel to the output, those of neighbours
    `stride` apart; `padding` is what is then taken away on each side. Source: Dumoulin & Visin
    2016, chapter 4.
    """

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    groups: int = 1
    bias: bool = True
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, *size = _map(x)
        _divide(self.groups, channels, "come in", gcd(channels, self.channels))
        rows, columns = (
            (extent - 1) * stride + kernel - before - behind
            for extent, stride, kernel, before, behind in zip(
                size, self.stride, self.kernel, self.padding[:2], self.padding[2:], strict=True
            )
        )
        if min(rows, columns) < 1:
            raise Misfit("its padding takes all of its output away", "leave `padding` out")
        return (self.channels, rows, columns)

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        shape = (x[0], self.channels // self.groups, *self.kernel)
        terms = x[0] // self.groups * prod(self.kernel) / prod(self.stride)
        weight = Weight("weight", shape, inputs=max(1.0, terms))
        return (weight, Weight("bias", (self.channels,))) if self.bias else (weight,)

    def window(self, x: Shape) -> Window:
        taps = tuple(-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))
        top, left = (
            k - s - before + (s - 1) // 2
            for k, s, before in zip(self.kernel, self.stride, self.padding[:2], strict=True)
        )
        return Window((taps[0], taps[1]), padding=(top, left, 0, 0), spread=self.stride)

    def macs(self, x: Shape) -> int:
        return prod(x) * (self.channels // self.groups) * prod(self.kernel)


@dataclass(frozen=True)
class DepthToSpace(_Op):
    """Channels to places: `(g·s·t·K, H, W)` to `(g·K, s·H, t·W)` for a `block` of s×t places, less
    what `crop` takes away on each side.

    Channels stand in the order of groups, rows and columns of the block, and channels of a group.
    No word of the language stands for it: what a transposed convolution ends in where a net is
    compiled.
    """

    block: Pair
    crop: Sides = (0, 0, 0, 0)
    groups: int = 1
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, height, width = _map(x)
        (down, across), (top, left, bottom, right) = self.block, self.crop
        assert channels % (self.groups * down * across) == 0
        rows, columns = height * down - top - bottom, width * across - left - right
        return (channels // (down * across), rows, columns)

    def window(self, x: Shape) -> Window:
        top, left = ((s - 1) // 2 - cut for s, cut in zip(self.block, self.crop[:2], strict=True))
        return Window(padding=(top, left, 0, 0), spread=self.block)


@dataclass(frozen=True)
class Linear(_Op):
    """A fully-connected layer, `y = x·Wᵀ + b`: weight `(features, in_features)` and, with `bias`,
    bias `(features,)`.
    """

    features: int
    bias: bool = True
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        if len(x) != 1:
            raise Misfit(f"needs a vector, and a map of {describe(x)} comes in")
        return (self.features,)

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        weight = Weight("weight", (self.features, x[0]))
        return (weight, Weight("bias", (self.features,))) if self.bias else (weight,)

    def macs(self, x: Shape) -> int:
        return x[0] * self.features


@dataclass(frozen=True)
class _Pool2d(_Op):
    """A pool: windows over each channel.

    With `ceil` a last window that begins inside the map, or its padding on the left, and
    ends beyond it counts as one; without, it is left out. Padding is less than the window on
    each side, so that every window overlaps the map.
    """

    kernel: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    ceil: bool = False
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, height, width = _map(x)
        return (channels, *_slide(self.window(x), (height, width), self.ceil))

    def window(self, x: Shape) -> Window:
        return Window(self.kernel, self.stride, self.padding)

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return super().saved(element, x) + _copied(self.window(x), x) * element


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """The maximum over each window; what lies beyond the border is no candidate."""

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        index = 8  # the place of each maximum, as torch keeps it
        return super().saved(element, x) + prod(self.output(x)) * index


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """The mean over each window; what lies beyond the border is neither summed nor counted.

    With `counts_padding` the padding is counted, as zeros; what a last window has beyond it is
    not.
    """

    counts_padding: bool = False


@dataclass(frozen=True)
class Pad2d(_Op):
    """A map with rows and columns around it, `(C, H, W)` to `(C, top + H + bottom, left + W +
    right)`.
    """

    padding: Sides
    border: Border = "zeros"
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, height, width = _map(x)
        for axis, (extent, what) in enumerate(((height, "rows"), (width, "columns"))):
            wanted = max(self.padding[axis::2])
            most = {"reflect": extent - 1, "wrap": extent}.get(self.border, wanted)
            if wanted > most:
                how = "reflected" if self.border == "reflect" else "wrapped around"
                raise Misfit(
                    f"{wanted} {what} of padding cannot be {how} from a map of {extent}: "
                    f"{most} can at most",
                    "pad less, give the net a larger input, or use `border=edge`",
                )
        return (channels, *padded((height, width), self.padding))

    def window(self, x: Shape) -> Window:
        return Window(padding=self.padding)


@dataclass(frozen=True)
class StochasticPool2d(_Pool2d):
    """While training, a value of each window that is drawn with a probability in proportion to
    itself; else the mean of the window weighted by its own values, `Σa² / Σa`, and 0 where these
    are. Values below zero count as zero, as does what lies beyond the border.

    Source: Zeiler & Fergus 2013, sections 3.1 and 3.2.
    """

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        index = 8  # the place of each value that is drawn; beside it what is at least zero
        return prod(self.output(x)) * (element + index) + prod(x) * element


Pool2d: TypeAlias = MaxPool2d | AvgPool2d | StochasticPool2d
"""What takes one value of each window."""


@dataclass(frozen=True)
class GlobalAvgPool(_Op):
    """The mean of each whole channel: `(C, H, W)` to `(C,)`. Source: Lin et al. 2014, 3.2."""

    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        return _map(x)[:1]

    def window(self, x: Shape) -> Window:
        return Window(kernel=(x[1], x[2]))


@dataclass(frozen=True)
class BatchNorm(_Op):
    """Batch normalisation, `(x - mean) / √(var + eps) · weight + bias`, each a number per channel
    `(C,)`.

    While training, mean and variance are the batch's own, and the running ones move by
    `momentum` towards them. Source: Ioffe & Szegedy 2015, algorithms 1 and 2.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    elementwise = True

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return (
            Weight("weight", x[:1], start=1.0),
            Weight("bias", x[:1]),
            Weight("running_mean", x[:1], trained=False),
            Weight("running_var", x[:1], trained=False, start=1.0),
        )

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element  # the output; the input is kept by what made it


@dataclass(frozen=True)
class Scale(_Op):
    """`x·weight + bias`, without `bias` `x·weight`, with a number of each per channel of a map or
    feature of a vector `(C,)`.

    The factors begin around `start`. It is also what a normalisation is once its statistics are
    fixed.
    """

    start: float = 1.0
    bias: bool = True
    elementwise = True

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        weight = Weight("weight", x[:1], start=self.start)
        return (weight, Weight("bias", x[:1])) if self.bias else (weight,)

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element  # the output; the input is kept by what made it


@dataclass(frozen=True)
class LocalResponseNorm(_Op):
    """Local response normalisation, `b_i = a_i / (k + alpha·Σ a_j²)^beta`, j over the `size`
    channels around i.

    `alpha` is not divided by `size`. Source: Krizhevsky et al. 2012, section 3.3.
    """

    size: int
    alpha: float
    beta: float
    k: float

    def output(self, x: Shape, *others: Shape) -> Shape:
        _map(x)
        return x

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        kept = 4  # a², k + alpha·Σ a², that to the power of beta, and the quotient
        return kept * prod(x) * element

    def passing(self, element: int, x: Shape, *others: Shape) -> int:
        # The gradients of quotient, power, sum and input, and a product on the way to one.
        return 5 * prod(x) * element


@dataclass(frozen=True)
class GroupNorm(_Op):
    """Group normalisation, `(x - mean) / √(var + eps) · weight + bias`: mean and variance are those
    of each of `groups` groups of channels of a sample, weight and bias a number per channel `(C,)`.

    Its window is the value's own place, as that of other normalisations: that mean and variance are
    taken of the whole map counts in no receptive field. Source: Wu & He 2018, section 3.1.
    """

    groups: int
    eps: float = 1e-5

    def output(self, x: Shape, *others: Shape) -> Shape:
        if x[0] % self.groups:
            raise Misfit(
                f"{x[0]} {_counted(x)} come in, which {self.groups} groups do not divide",
                "`groupnorm groups=N`, a layer by itself, takes another number of groups",
            )
        if prod(x) == self.groups:
            raise Misfit(
                "each group is a single value, of which normalising leaves nothing",
                "take fewer groups",
            )
        return x

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return _scale_and_shift(x)

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element  # the output; the input is kept by what made it


@dataclass(frozen=True)
class LayerNorm(_Op):
    """Layer normalisation, `(x - mean) / √(var + eps) · weight + bias`: mean and variance are those
    of all channels at each place of a map, or of all features of a vector; weight and bias a number
    per channel or feature `(C,)`.

    Source: Ba et al. 2016, section 3; by places as Liu et al. 2022 (ConvNeXt), section 2.6.
    """

    eps: float = 1e-6

    def output(self, x: Shape, *others: Shape) -> Shape:
        if x[0] == 1:
            raise Misfit(
                "a single value at each place comes in, of which normalising leaves nothing",
                "`batchnorm` normalises a channel by its other places",
            )
        return x

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return _scale_and_shift(x)

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element  # the output; the input is kept by what made it


@dataclass(frozen=True)
class Activation(_Op):
    """An activation, a function of each value by itself: one of `ACTIVATIONS`, by its name.

    The slope means something to those only that have one.
    """

    function: str
    slope: float = 0.0
    elementwise = True

    @property
    def facts(self) -> ActivationFunction:
        """What is known of the activation's function, whatever the slope."""
        return ACTIVATIONS[self.function]

    @property
    def rises(self) -> bool:
        """Whether the function never falls: the largest input gives the largest output."""
        return self.facts.rises

    @property
    def never_negative(self) -> bool:
        """Whether the function gives nothing below zero."""
        return self.facts.never_negative

    @property
    def homogeneous(self) -> bool:
        """Whether `f(c·x) = c·f(x)` for every positive `c`."""
        return self.facts.homogeneous

    @property
    def keeps_sign(self) -> bool:
        """Whether the function gives nothing below zero of what is not."""
        return True

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return 0 if self.facts.gradient_by_output else prod(x) * element


@dataclass(frozen=True)
class Clip(Activation):
    """The nearest number from `low` to `high`, either of which may be infinite."""

    function: str = "clip"
    low: float = -inf
    high: float = inf

    @property
    def facts(self) -> ActivationFunction:
        """What is known of the function with these limits."""
        return ActivationFunction(
            name="clip",
            doc="The nearest number within limits.",
            meaning=lambda x, _: min(max(x, self.low), self.high),
            torch="clamp",
            onnx="Clip",
            rises=True,
            never_negative=self.low >= 0,
            homogeneous={abs(self.low), abs(self.high)} <= {0, inf},
        )

    @property
    def keeps_sign(self) -> bool:
        """Whether the function gives nothing below zero of what is not."""
        return self.high >= 0


RELU = Activation("relu")


@dataclass(frozen=True)
class PRelu(_Op):
    """A trained rectifier: x or, below zero, weight·x, the weight `(C,)`. Source: He et al. 2015,
    2.1.
    """

    elementwise = True

    def weights(self, x: Shape) -> tuple[Weight, ...]:
        return (Weight("weight", x[:1], start=0.25),)

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element


@dataclass(frozen=True)
class Dropout(_Op):
    """Dropout: while training, zero each value with probability `p` and scale the others by
    1/(1-p).
    """

    p: float
    elementwise = True

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        kept = 2  # the mask and the output
        return kept * prod(x) * element


@dataclass(frozen=True)
class Flatten(_Op):
    """`(C, H, W)` to `(C·H·W,)`; what reads the result sees the whole map."""

    def output(self, x: Shape, *others: Shape) -> Shape:
        return (prod(x),)

    def window(self, x: Shape) -> Window:
        return Window(kernel=(x[1], x[2])) if len(x) == 3 else Window()


@dataclass(frozen=True)
class Softmax(_Op):
    """Scores to probabilities that sum to one."""

    def output(self, x: Shape, *others: Shape) -> Shape:
        if len(x) != 1:
            raise Misfit(
                f"needs a vector of scores, and a map of {describe(x)} comes in",
                "put `fc-CLASSES` before it, or `gap` behind `conv1-CLASSES`; over the channels at "
                "each place of a map it is `softmax2d`",
            )
        return x

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element


@dataclass(frozen=True)
class Softmax2d(_Op):
    """At each place of a map the scores of its channels to probabilities that sum to one."""

    def output(self, x: Shape, *others: Shape) -> Shape:
        if len(x) != 3:
            raise Misfit(
                f"needs a map of scores, and a vector of {x[0]} comes in",
                "`softmax` is the one for vectors",
            )
        return x

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        return prod(x) * element


@dataclass(frozen=True)
class Shuffle(_Op):
    """Channel shuffle: the first channel of each of `groups` groups, then their second ones, and so
    on. Source: Zhang et al. 2018, "ShuffleNet", section 3.1.
    """

    groups: int
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, _, _ = _map(x)
        _divide(self.groups, channels, "come in", channels)
        return x


class _Take(_Op):
    """What the ops share that take neighbouring channels of a map, or features of a vector."""

    stored = True

    def taken(self, x: Shape) -> Pair:
        """The first channel that is taken of an input of shape `x`, counted from 0, and the one
        behind the last.
        """
        raise NotImplementedError

    def output(self, x: Shape, *others: Shape) -> Shape:
        first, end = self.taken(x)
        return (end - first, *x[1:])


@dataclass(frozen=True)
class TakePart(_Take):
    """One of the parts of equal size that the channels of a map, or the features of a vector, are
    cut into: number `part`, counted from 1, of `parts`.
    """

    part: int
    parts: int

    def taken(self, x: Shape) -> Pair:
        size, rest = divmod(x[0], self.parts)
        if rest:
            raise Misfit(
                f"{x[0]} {_counted(x)} come in, which {self.parts} parts of one size do not divide",
                f"a range takes as many as it says: `take channels=0..{size}`",
            )
        return (self.part - 1) * size, self.part * size


@dataclass(frozen=True)
class TakeChannels(_Take):
    """The channels of a map, or the features of a vector, from `first` to `last`, both included,
    counted from 0.
    """

    first: int
    last: int

    def taken(self, x: Shape) -> Pair:
        if self.last >= x[0]:
            end = x[0] - 1
            raise Misfit(
                f"{x[0]} {_counted(x)} come in, 0 to {end}, and none is number {self.last}",
                f"up to the last one it is `channels={min(self.first, end)}..{end}`",
            )
        return self.first, self.last + 1


Take: TypeAlias = TakePart | TakeChannels
"""What takes some of the channels of a map."""


@dataclass(frozen=True)
class Upsample(_Op):
    """A map with `factors` times as many rows and columns: each value several times, or `bilinear`
    between the nearest four, whose centres lie as those of pixels do.
    """

    factors: Pair
    mode: Scaling = "nearest"
    stored = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        channels, height, width = _map(x)
        down, across = self.factors
        return (channels, height * down, width * across)

    def window(self, x: Shape) -> Window:
        if self.mode == "nearest":
            return Window(spread=self.factors)
        rows, columns = (min(factor, 2) for factor in self.factors)
        top, left = (factor // 2 for factor in self.factors)
        return Window((rows, columns), padding=(top, left, 0, 0), spread=self.factors)


@dataclass(frozen=True)
class Concat(_Op):
    """Maps of one resolution, channels behind channels; or vectors behind one another."""

    stored = True
    joins_in_parts = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        for other in others:
            if len(other) != len(x):
                raise Misfit(
                    f"its paths end in {_list(x, *others)}, maps and vectors",
                    "`flatten` or `gap` makes a vector of a map",
                )
            if other[1:] != x[1:]:
                raise Misfit(
                    f"its paths end in {_list(x, *others)}, and only maps of one height and "
                    "width can be concatenated",
                    _of_one_size(x, other) or "do all paths have the same strides and pools?",
                )
        return (sum(shape[0] for shape in (x, *others)), *x[1:])


@dataclass(frozen=True)
class Add(_Op):
    """The sum of values of one shape, into the first of them."""

    elementwise = True
    joins_in_parts = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        for other in others:
            if other != x:
                raise Misfit(
                    f"its paths end in {_list(x, *others)}, and only equal shapes can be added",
                    _of_one_size(x, other)
                    or "a `conv1-WIDTH` with a stride, if need be, brings a path to another's "
                    "shape",
                )
        return x


@dataclass(frozen=True)
class Mul(_Op):
    """The product of maps of one shape, of vectors of one length, or of both: a vector `(C,)` then
    multiplies each whole channel of the maps. Source of that: Hu et al. 2018, equation 4.
    """

    elementwise = True
    joins_in_parts = True

    def output(self, x: Shape, *others: Shape) -> Shape:
        shapes = (x, *others)
        maps, vectors = ([s for s in shapes if len(s) == rank] for rank in (3, 1))
        told = f"its paths end in {_list(*shapes)}"
        if any(each != maps[0] for each in maps):
            hint = "a `conv1-WIDTH` with a stride, if need be, brings a path to another's shape"
            if any(each[1:] == (1, 1) for each in maps):
                hint = "`flatten` makes a vector of a map of one pixel, which multiplies channels"
            raise Misfit(f"{told}, and only maps of equal shapes can be multiplied", hint)
        if any(each != vectors[0] for each in vectors):
            raise Misfit(
                f"{told}, and only vectors of one length can be multiplied",
                "an `fc-WIDTH` at the end of a path gives a vector of any length",
            )
        if maps and vectors and maps[0][:1] != vectors[0]:
            channels = maps[0][0]
            raise Misfit(
                f"{told}, and a vector multiplies the channels of a map, which are {channels}",
                f"`fc-{channels}` at the end of the vector's path gives as many",
            )
        return maps[0] if maps else x

    def saved(self, element: int, x: Shape, *others: Shape) -> int:
        # The output; the factors are kept by what made them.
        return prod(self.output(x, *others)) * element


Op: TypeAlias = (
    Input
    | Conv2d
    | ConvTranspose2d
    | DepthToSpace
    | Linear
    | MaxPool2d
    | AvgPool2d
    | StochasticPool2d
    | Pad2d
    | GlobalAvgPool
    | BatchNorm
    | Scale
    | LocalResponseNorm
    | GroupNorm
    | LayerNorm
    | Activation
    | Clip
    | PRelu
    | Dropout
    | Flatten
    | Softmax
    | Softmax2d
    | Shuffle
    | TakePart
    | TakeChannels
    | Upsample
    | Concat
    | Add
    | Mul
)


def describe(shape: Iterable[object]) -> str:
    """A shape, or other numbers, as a person writes it: `64×112×112`."""
    return "×".join(map(str, shape))


def _list(*shapes: Shape) -> str:
    words = [describe(shape) for shape in shapes[:MAX_TOLD]]
    if len(shapes) > MAX_TOLD:
        return ", ".join(words) + ", …"
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _divide(groups: int, channels: int, what: str, both: int) -> None:
    """Raises: Misfit unless channels can be parted into so many groups of one size; `both` is the
    greatest number that divides those that come in and those that go out.
    """
    if channels % groups:
        fitting = (number for number in range(2, both + 1) if both % number == 0)
        near = min(fitting, key=lambda number: abs(number - groups), default=1)
        reason = f"{channels} channels {what}, which {groups} groups do not divide"
        raise Misfit(reason, f"the nearest number that does is {near}: `groups={near}`")


def _counted(x: Shape) -> str:
    """What the first extent of a shape counts."""
    return "channels" if len(x) == 3 else "features"


def _scale_and_shift(x: Shape) -> tuple[Weight, ...]:
    """The weights of a normalisation: what its values are multiplied by, and what is added."""
    return (Weight("weight", x[:1], start=1.0), Weight("bias", x[:1]))


def _of_one_size(x: Shape, other: Shape) -> str:
    """What makes maps as high and as wide as one another that differ by a row or a column."""
    apart = {abs(a - b) for a, b in zip(x[1:], other[1:], strict=False)}  # none of vectors
    if 1 not in apart or max(apart) > 1:
        return ""
    return (
        "leave out the `padding=` of an even kernel, which then keeps the resolution, or pad one "
        "side, as in `padding=0x0x1x1`; of a pool, `round=up` or `round=down` may fit"
    )


def _map(x: Shape) -> tuple[int, int, int]:
    if len(x) != 3:
        raise Misfit(
            f"needs a map (channels × height × width), and a vector of {x[0]} comes in",
            "after `fc`, `gap` or `flatten` there are no rows and columns left: move it before",
        )
    return x[0], x[1], x[2]


def _copied(window: Window, x: Shape) -> int:
    """The values of the copy of an input that is made where its padding is uneven."""
    return 0 if window.is_even else x[0] * prod(padded((x[1], x[2]), window.padding))


def _slide(window: Window, size: Pair, ceil: bool = False) -> Pair:
    """How many positions a window has along each axis, the rest rounded down unless `ceil`."""
    room = padded(size, window.padding)
    spare = [n - length for n, length in zip(room, window.extent, strict=True)]
    if min(spare) < 0:
        dilated = ""
        hint = "give the net a larger input, or take away a `pool` before it"
        if window.dilation != (1, 1):
            dilated = f", which its dilation makes {describe(window.extent)},"
            hint = f"dilate it less, leave `padding` out, {hint}"
        raise Misfit(
            f"its {describe(window.kernel)} window{dilated} is larger than the {describe(size)} "
            "map",
            hint,
        )
    rows, columns = (
        _positions(rest, stride, length + before, ceil)
        for rest, stride, length, before in zip(
            spare, window.stride, size, window.padding[:2], strict=True
        )
    )
    return rows, columns


def _positions(spare: int, stride: int, end: int, ceil: bool) -> int:
    """Positions along one axis; `end` counts from the start of the padding to the map's end."""
    count = (spare + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= end else count
