"""What a kernel must compute, said without saying how.

A workload is one call of the compiled net: a core op, the bias and the activation
fused into it, and the exact layout of what it reads and writes. The backend makes
workloads; the functions `vggc.kernels.cpu.kernel` and `vggc.kernels.cuda.kernel` turn
one into code.

Activations lie in NHWC order. A map may carry a *halo*: rows and columns of zeros kept
around it, so that the padded convolution that reads it needs neither a copy nor a bounds
check. Whoever writes a map writes its halo too.

Where nothing else is said, values are float32. Maps of fewer bits are known to `Conv`,
`MaxPool` and `Convert` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, lcm
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, assert_never, cast

from vggc.ir import ops
from vggc.ir.ops import Activation, Border, Op, Pair, Scaling, Shape, Sides, Window

if TYPE_CHECKING:
    import numpy as np
    from tvm.tirx import PrimFunc

    from vggc.kernels.builder import Argument


Format: TypeAlias = Literal["float32", "tf32", "float16", "bfloat16", "uint8"]
"""How the values of a map are written. A tf32 is a float32 whose last 13 bits are zero. A uint8 `q`
stands for `scale·(q - zero)`; the scale is data, found by calibration."""

WORD: dict[Format, int] = {"float32": 1, "tf32": 1, "float16": 2, "bfloat16": 2, "uint8": 4}
"""How many values of a format 32 bits hold."""

STORAGE: dict[Format, str] = {
    "float32": "float32",
    "tf32": "float32",
    "float16": "uint16",
    "bfloat16": "uint16",
    "uint8": "uint8",
}
"""The type of a buffer of a format. TVM would compute float32 where it is told bfloat16."""

LARGEST_FINITE: dict[Format, float] = {
    "float32": (2 - 2**-23) * 2.0**127,
    "tf32": (2 - 2**-10) * 2.0**127,
    "float16": (2 - 2**-10) * 2.0**15,
    "bfloat16": (2 - 2**-7) * 2.0**127,
    "uint8": inf,
}
"""The largest number of a format. What is rounded and is larger, by more than half of the last bit,
becomes infinity; uint8 cuts it off at the end of its range."""

MAX_INT8_TERMS = (2**31 - 1) // (255 * 127)
"""Products of a uint8 and an int8 of at most 127 that an int32 holds the sum of."""


@dataclass(frozen=True)
class Map:
    """A batch of feature maps, `(N, H + 2·halo, W + 2·halo, C)` in memory.

    `zero` is what stands for zero, in the halo too. Formats of fewer bits are multiplied in
    words of 32 bits: their C is padded to whole words with zeros, and to whole vectors of `vector`
    values, which a GPU reads at once. A map with `room` has so many values a pixel in memory, of
    which its own are the first; what the others are is not its concern.
    """

    batch: int
    height: int
    width: int
    channels: int
    halo: int = 0
    format: Format = "float32"
    zero: int = 0
    vector: int = 1
    room: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The extents in memory, halo and padding of channels included: `(N, H + 2·halo, W +
        2·halo, C)`.
        """
        border = 2 * self.halo
        unit = lcm(WORD[self.format], self.vector)
        stored = self.room or -(-self.channels // unit) * unit
        return (self.batch, self.height + border, self.width + border, stored)

    @property
    def planes(self) -> Shape:
        """The shape of the map's values as callers have them, `(N, C, H, W)`."""
        return (self.batch, self.channels, self.height, self.width)

    @property
    def storage(self) -> str:
        """The type of the elements of the map's buffer."""
        return STORAGE[self.format]


Layout: TypeAlias = Map | Shape
"""How a value lies in memory: a map, or rows of a plain shape, batch first."""


def buffer_shape(layout: Layout) -> Shape:
    """The extents of a value's buffer."""
    return layout.shape if isinstance(layout, Map) else layout


def storage(layout: Layout) -> str:
    """The type of the elements of a value's buffer."""
    return layout.storage if isinstance(layout, Map) else "float32"


class _Workload:
    """The defaults of a workload: no weights, no activation, and values of any sign."""

    act: Activation | None = None
    """What it does last."""
    keeps_sign = False
    """Whether, but for the activation, it gives nothing negative where it reads nothing
    negative."""

    @property
    def weights(self) -> dict[str, Shape]:
        """Each weight by its name, with its shape before it is packed, in the order of the kernel's
        arguments.
        """
        return {}

    def may_be_negative(self, reads: bool) -> bool:
        """Whether the workload may give negative values; `reads` is whether it may read some."""
        if self.act is not None and self.act.never_negative:
            return False
        keeps_sign = self.keeps_sign and (self.act is None or self.act.keeps_sign)
        return reads or not keeps_sign


class _OneInput(_Workload):
    """A workload that reads one map."""

    input: Map

    @property
    def inputs(self) -> tuple[Layout, ...]:
        """How each value that the workload reads lies in memory, in the order of the kernel's
        arguments.
        """
        return (self.input,)


@dataclass(frozen=True)
class Conv(_OneInput):
    """Cross-correlation in `groups` groups of channels, bias, an activation, a max pool.

    Reads the input map, the packed weight and the bias `(K,)`; writes the output map. With
    `pool` that holds the largest of each 2×2 pixels; a last odd row or column is left out.
    Windows begin at `-padding`, their elements are `dilation` apart. Guaranteed: `input.halo >=
    reach`; where it pools, it has one group and the activation never falls.

    `addend`, a second map of the output's size, is added before the activation. Guaranteed: all
    maps are in float32 then, and it has one group and no pool.

    With a tf32, float16 or bfloat16 input the weight is of that format, too; with a uint8 one it is
    int8, and the scale of the sums `(K,)` stands before the bias. A uint8 output's scale `(1,)`
    comes last.
    Inputs of fewer bits have one group, and uint8 ones at most `MAX_INT8_TERMS` terms a sum.
    """

    input: Map
    output: Map
    kernel: Pair
    stride: Pair
    padding: Pair
    act: Activation | None = None
    groups: int = 1
    pool: bool = False
    dilation: Pair = (1, 1)
    addend: Map | None = None

    def __post_init__(self) -> None:
        assert self.groups == 1 or not self.pool
        if self.addend is not None:
            assert self.groups == 1
            assert not self.pool
            assert {map_.format for map_ in (*self.inputs, self.output)} == {"float32"}

    @property
    def inputs(self) -> tuple[Map, ...]:
        """The map that windows are of, and the one that is added, if there is one."""
        return (self.input,) if self.addend is None else (self.input, self.addend)

    @property
    def beyond(self) -> Sides:
        """How far windows reach beyond each side of the input map; below zero where they end
        inside it.
        """
        window = Window(self.kernel, self.stride, (*self.padding, 0, 0), self.dilation)
        return window.beyond((self.input.height, self.input.width), self.grid)

    @property
    def reach(self) -> int:
        """The halo that windows need: how far they reach beyond the side where that is furthest."""
        return max(0, *self.beyond)

    @property
    def grid(self) -> Pair:
        """The rows and columns of pixels that the convolution computes, before it pools."""
        scale = 2 if self.pool else 1
        return scale * self.output.height, scale * self.output.width

    @property
    def weight_shape(self) -> Shape:
        """The shape of the unpacked weight, `(K, C/groups, kh, kw)`."""
        return (self.output.channels, self.input.channels // self.groups, *self.kernel)

    @property
    def weights(self) -> dict[str, Shape]:
        channels = (self.output.channels,)
        rescale = {"scale": channels} if self.input.format == "uint8" else {}
        out_scale: dict[str, Shape] = {"out_scale": (1,)} if self.output.format == "uint8" else {}
        return {"weight": self.weight_shape, **rescale, "bias": channels, **out_scale}


@dataclass(frozen=True)
class DepthToSpace(_OneInput):
    """Channels to places, then an activation: a pixel of `(N, H, W, g·s·t·K)` gives a block of s×t
    pixels of `(N, s·H, t·W, g·K)`, of which the output begins at row and column `offset`.

    Channels stand in the order of groups, rows and columns of the block, and channels of a group.
    """

    input: Map
    output: Map
    block: Pair
    offset: Pair
    groups: int = 1
    act: Activation | None = None
    keeps_sign = True


@dataclass(frozen=True)
class Dense(_Workload):
    """A dense layer, `y = x·Wᵀ + b`, and an activation.

    Reads `(N, in_features)`, or the map `source` (halo 0) that the unpacked weight
    `(out_features, C·H·W)` expects flattened in C, H, W order; the packed weight; the
    bias `(out_features,)`. Writes `(N, out_features)`.
    """

    batch: int
    in_features: int
    out_features: int
    act: Activation | None = None
    source: Map | None = None

    def __post_init__(self) -> None:
        assert self.source is None or self.source.halo == 0

    @property
    def inputs(self) -> tuple[Layout, ...]:
        """How the one input lies in memory: the map `source`, or rows `(N, in_features)`."""
        return (self.source or (self.batch, self.in_features),)

    @property
    def output(self) -> Layout:
        """How the output lies in memory: rows `(N, out_features)`."""
        return (self.batch, self.out_features)

    @property
    def weight_shape(self) -> Shape:
        """The shape of the unpacked weight, `(out_features, in_features)`."""
        return (self.out_features, self.in_features)

    @property
    def weights(self) -> dict[str, Shape]:
        return {"weight": self.weight_shape, "bias": (self.out_features,)}


@dataclass(frozen=True)
class MaxPool(_OneInput):
    """Maximum over windows; what lies beyond the map's border is no candidate.

    Windows start at `-padding`. Each overlaps the map; the last may end beyond it by more
    than `padding`. The input's halo holds zeros, which are no part of the map.
    """

    keeps_sign = True
    input: Map
    output: Map
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class AvgPool(_OneInput):
    """Mean over windows; what lies beyond the map's border is neither summed nor counted.

    Windows are placed as in `MaxPool`. A global pool is a window as large as the map. Where
    `counted` is there, zeros around the map count: all before it, and so many rows below and
    columns right of it.
    """

    keeps_sign = True
    input: Map
    output: Map
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    counted: Pair | None = None


LEAST_SUM = 2.0**-126
"""Stands for the sum of a window of zeros, which is divided by: the least normal float32."""


@dataclass(frozen=True)
class StochasticPool(_OneInput):
    """The mean of each window weighted by its own values, `Σa² / Σa`, and 0 where these are; values
    below zero count as zero, as does what lies beyond the map's border.

    Windows are placed as in `MaxPool`. Source: Zeiler & Fergus 2013, section 3.2.
    """

    input: Map
    output: Map
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def may_be_negative(self, reads: bool) -> bool:
        return False


@dataclass(frozen=True)
class Pad(_OneInput):
    """The map with rows and columns around it, of which so many above and left of it."""

    keeps_sign = True
    input: Map
    output: Map
    padding: Pair
    border: Border = "zeros"


@dataclass(frozen=True)
class Lrn(_OneInput):
    """Local response normalisation, `b_i = a_i / (k + alpha·Σ a_j²)^beta`, j over the `size`
    channels around i.

    `alpha` is not divided by `size`. Source: Krizhevsky et al. 2012, section 3.3.
    """

    keeps_sign = True
    input: Map
    output: Map
    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class GroupNorm(_OneInput):
    """Group normalisation, `(x - mean) / √(var + eps) · weight + bias`, then an activation.

    Mean and variance are those of each of `groups` groups of channels of an image. The weight and
    the bias, `(C,)` each, are not packed.
    """

    input: Map
    output: Map
    groups: int
    eps: float
    act: Activation | None = None

    @property
    def weights(self) -> dict[str, Shape]:
        return {"weight": (self.output.channels,), "bias": (self.output.channels,)}


@dataclass(frozen=True)
class LayerNorm(_OneInput):
    """Layer normalisation, `(x - mean) / √(var + eps) · weight + bias`, then an activation.

    Mean and variance are those of the channels of each pixel. The weight and the bias, `(C,)` each,
    are not packed.
    """

    input: Map
    output: Map
    eps: float
    act: Activation | None = None

    @property
    def weights(self) -> dict[str, Shape]:
        return {"weight": (self.output.channels,), "bias": (self.output.channels,)}


@dataclass(frozen=True)
class Pointwise(_OneInput):
    """An activation where no producer could take it in."""

    keeps_sign = True
    input: Map
    output: Map
    act: Activation


@dataclass(frozen=True)
class PRelu(_OneInput):
    """A rectifier, x or, below zero, slope·x, with the slopes `(C,)` as its one weight,
    not packed.
    """

    input: Map
    output: Map

    @property
    def weights(self) -> dict[str, Shape]:
        return {"slopes": (self.output.channels,)}


@dataclass(frozen=True)
class Shuffle(_OneInput):
    """The first channel of each of `groups` groups of a map, then their second ones, and so on."""

    keeps_sign = True
    input: Map
    output: Map
    groups: int


@dataclass(frozen=True)
class Take(_OneInput):
    """Neighbouring channels of a map, from number `first` on, for as many as the output has."""

    keeps_sign = True
    input: Map
    output: Map
    first: int


@dataclass(frozen=True)
class Upsample(_OneInput):
    """A map with `factors` times as many rows and columns: each value several times, or bilinear
    between the nearest four, whose centres lie as those of pixels do.
    """

    keeps_sign = True
    input: Map
    output: Map
    factors: Pair
    mode: Scaling


@dataclass(frozen=True)
class Concat(_Workload):
    """The channels of several maps behind one another; each input may have its own halo.

    One that `grows` has its first input in the memory of its output, with room for the others.
    """

    keeps_sign = True
    inputs: tuple[Map, ...]
    output: Map
    grows: bool = False

    def __post_init__(self) -> None:
        assert not self.grows or self.inputs[0].shape == self.output.shape


@dataclass(frozen=True)
class Add(_Workload):
    """The sum of maps of one size, then an activation; each input may have its own halo."""

    keeps_sign = True
    inputs: tuple[Map, ...]
    output: Map
    act: Activation | None = None


@dataclass(frozen=True)
class Mul(_Workload):
    """The product of maps of one size, then an activation; each input may have its own halo.

    Those of one pixel multiply every pixel of the others.
    """

    keeps_sign = True
    inputs: tuple[Map, ...]
    output: Map
    act: Activation | None = None

    def spreads(self, source: Map) -> bool:
        """Whether an input is one pixel for all pixels of the output."""
        return (source.height, source.width) != (self.output.height, self.output.width)


@dataclass(frozen=True)
class Softmax(_Workload):
    """Soft-max along the features of `(N, features)`, shifted by the row's maximum."""

    batch: int
    features: int

    @property
    def inputs(self) -> tuple[Layout, ...]:
        """How the one input lies in memory: rows `(N, features)`."""
        return ((self.batch, self.features),)

    @property
    def output(self) -> Layout:
        """How the output lies in memory: rows `(N, features)`."""
        return (self.batch, self.features)

    def may_be_negative(self, reads: bool) -> bool:
        return False


@dataclass(frozen=True)
class Softmax2d(_OneInput):
    """Soft-max over the channels of each pixel, shifted by their maximum."""

    input: Map
    output: Map

    def may_be_negative(self, reads: bool) -> bool:
        return False


@dataclass(frozen=True)
class Convert(_OneInput):
    """A map in another format, one of the two float32; the scale of a uint8 map is the weight
    `(1,)`.
    """

    input: Map
    output: Map

    @property
    def weights(self) -> dict[str, Shape]:
        return {"scale": (1,)} if "uint8" in (self.input.format, self.output.format) else {}


@dataclass(frozen=True)
class ToNhwc(_Workload):
    """Planes `(N, C, H, W)` without halo to the map `output`."""

    output: Map

    @property
    def inputs(self) -> tuple[Layout, ...]:
        """How the one input lies in memory: planes `(N, C, H, W)`."""
        return (self.output.planes,)


@dataclass(frozen=True)
class ToNchw(_OneInput):
    """The map `input` to `(N, C, H, W)` without halo."""

    keeps_sign = True
    input: Map

    @property
    def output(self) -> Layout:
        """How the output lies in memory: planes `(N, C, H, W)`."""
        return self.input.planes


Workload: TypeAlias = (
    Conv
    | DepthToSpace
    | Dense
    | MaxPool
    | AvgPool
    | StochasticPool
    | Pad
    | Lrn
    | GroupNorm
    | LayerNorm
    | Pointwise
    | PRelu
    | Shuffle
    | Take
    | Upsample
    | Concat
    | Add
    | Mul
    | Softmax
    | Softmax2d
    | Convert
    | ToNhwc
    | ToNchw
)


def workload_of(op: Op, inputs: tuple[Map, ...], output: Map) -> Workload:
    """The workload of an op by itself, which reads maps and writes a map.

    Ops that the planner fuses, or whose values lie otherwise, are not for here.
    """
    source = inputs[0]
    match op:
        case ops.MaxPool2d(kernel=kernel, stride=stride, padding=padding):
            return MaxPool(source, output, kernel, stride, padding[:2])
        case ops.AvgPool2d(kernel=kernel, stride=stride, padding=padding):
            counted = padding[2:] if op.counts_padding and any(padding) else None
            return AvgPool(
                input=source,
                output=output,
                kernel=kernel,
                stride=stride,
                padding=padding[:2],
                counted=counted,
            )
        case ops.StochasticPool2d(kernel=kernel, stride=stride, padding=padding):
            return StochasticPool(source, output, kernel, stride, padding[:2])
        case ops.Pad2d(padding=(top, left, _, _), border=border):
            return Pad(source, output, (top, left), border)
        case ops.GlobalAvgPool():
            whole = source.height, source.width
            return AvgPool(input=source, output=output, kernel=whole, stride=(1, 1))
        case ops.LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
            return Lrn(input=source, output=output, size=size, alpha=alpha, beta=beta, k=k)
        case Activation():
            return Pointwise(source, output, op)
        case ops.PRelu():
            return PRelu(source, output)
        case ops.Shuffle(groups=groups):
            return Shuffle(source, output, groups)
        case ops.TakePart() | ops.TakeChannels():
            first, _ = op.taken((source.channels, source.height, source.width))
            return Take(source, output, first)
        case ops.Upsample(factors=factors, mode=mode):
            return Upsample(source, output, factors, mode)
        case ops.Concat():
            return Concat(inputs, output)
        case ops.Softmax2d():
            return Softmax2d(source, output)
        case ops.Input() | ops.Conv2d() | ops.Scale() | ops.Linear() | ops.Flatten():
            raise AssertionError(f"{op} is the planner's own")
        case ops.DepthToSpace():
            raise AssertionError(f"{op} is the planner's own")
        case ops.Add() | ops.Mul() | ops.Softmax() | ops.GroupNorm() | ops.LayerNorm():
            raise AssertionError(f"{op} is the planner's own")
        case ops.BatchNorm() | ops.Dropout() | ops.ConvTranspose2d():
            raise AssertionError(f"{op} has no place in a folded graph")
        case _:
            assert_never(op)


class Packing(Protocol):
    """How a kernel wants its weight laid out.

    `unpack(pack(w))` has the values of `w` bit for bit, or up to rounding where packing computes;
    the weight of a dense layer `(O, C·H·W)` may come back as that of the convolution that covers
    its map, `(O, C, H, W)`.
    """

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """The extents of the packed weight."""
        ...

    @property
    def packed_type(self) -> str:
        """The type of the packed weight's elements."""
        ...

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """The packed weight, of an unpacked one."""
        ...

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        """What `pack` gives, in its order, a few rows at a time, so that little memory is taken."""
        ...

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """The unpacked weight, of a packed one."""
        ...


PIECE = 1 << 21
"""Bytes of a weight that are packed at once; transformed in float64 they take 35 times as many."""


def round_up(value: int, multiple: int) -> int:
    """`value` rounded up to a multiple of `multiple`."""
    return -(-value // multiple) * multiple


def by_panels(packing: Packing, panel: int, weight: np.ndarray) -> Iterator[np.ndarray]:
    """The pieces of a packed weight of which each `panel` output channels are packed by themselves.

    The `packing` is a dataclass whose `shape` is that of the weight, which may come in another
    shape of the same values.
    """
    outputs, *others = cast("Any", packing).shape
    weight = weight.reshape(outputs, *others)
    panels = max(1, PIECE // max(1, weight[:panel].nbytes))
    for start in range(0, len(weight), panel * panels):
        rows = weight[start : start + panel * panels]
        some: Packing = replace(cast("Any", packing), shape=rows.shape)
        yield some.pack(rows)


@dataclass(frozen=True)
class Choice:
    """A way to carry out a workload: an algorithm, and values for the knobs that it leaves open."""

    algorithm: str
    knobs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Kernel:
    """Code for one workload.

    `func` takes the inputs, then the weights (for Conv and Dense the packed weight and the
    bias, for PRelu the slopes), then the output, then its scratch memory. `algorithm` and `knobs`
    are what the artifact's manifest shows.
    """

    algorithm: str
    knobs: dict[str, int]
    func: PrimFunc
    packing: Packing | None = None
    macs: int | None = None
    """The multiply-adds that it really does, where that is not what the workload asks for."""
    scratch: tuple[Argument, ...] = ()
    """The memory that `func` is lent for each call, beside what the workload reads and writes."""

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The parameters of `func` but for its scratch memory: inputs, weights and output."""
        taken = tuple(self.func.params)
        return taken[: len(taken) - len(self.scratch)]
