"""Samples of the workloads that no tile divides, and what their buffers hold."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir import activations
from vggc.ir.ops import RELU, Activation, AvgPool2d, Clip, Conv2d, MaxPool2d, Pair
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Concat,
    Conv,
    DepthToSpace,
    GroupNorm,
    LayerNorm,
    Layout,
    Map,
    MaxPool,
    Mul,
    Pad,
    Pointwise,
    PRelu,
    Shuffle,
    Softmax2d,
    StochasticPool,
    Take,
    Upsample,
    Workload,
)

Array: TypeAlias = NDArray[np.floating[Any]]
Shape: TypeAlias = tuple[int, int, int, int]

SLOPES = {"leaky": 0.1, "elu": 1.5}
ACTIVATIONS: dict[str, Activation] = {
    **{name: Activation(name, SLOPES.get(name, 0.0)) for name in activations.ACTIVATIONS},
    "clip": Clip(low=-0.4, high=1.3),
}


# Samples


def grouped(
    shape: Shape,
    channels: int,
    groups: int,
    kernel: Pair = (3, 3),
    stride: Pair = (1, 1),
    padding: Pair = (1, 1),
    halos: Pair = (1, 0),
    act: Activation | None = None,
    dilation: Pair = (1, 1),
    behind: Pair | None = None,
) -> Conv:
    """A convolution of the map `(N, H, W, C)`; `halos` of its input and output. What pads below and
    right of the map is as much as above and left of it, or `behind`.
    """
    batch, height, width, in_channels = shape
    op = Conv2d(
        channels=channels,
        kernel=kernel,
        stride=stride,
        padding=(*padding, *(behind or padding)),
        groups=groups,
        dilation=dilation,
    )
    _, *out = op.output((in_channels, height, width))
    conv = Conv(
        input=Map(*shape, halo=halos[0]),
        output=Map(batch, out[0], out[1], channels, halos[1]),
        kernel=kernel,
        stride=stride,
        padding=padding,
        act=act,
        groups=groups,
        dilation=dilation,
    )
    return replace(conv, input=replace(conv.input, halo=max(halos[0], conv.reach)))


def pool(
    kind: type[MaxPool | AvgPool | StochasticPool],
    shape: Shape,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil: bool = False,
    halos: Pair = (0, 0),
    behind: Pair | None = None,
    *,
    counts: bool = False,
) -> MaxPool | AvgPool | StochasticPool:
    """A pool of the map `(N, H, W, C)`; `halos` of its input and output. What pads below and right
    of the map is as much as above and left of it, or `behind`; a mean may count it.
    """
    batch, height, width, channels = shape
    sides = (*padding, *(behind or padding))
    op = (MaxPool2d if kind is MaxPool else AvgPool2d)(kernel, stride, sides, ceil)
    _, *out = op.output((channels, height, width))
    output = Map(batch, out[0], out[1], channels, halos[1])
    work = kind(Map(*shape, halo=halos[0]), output, kernel, stride, padding)
    return replace(work, counted=sides[2:]) if counts and isinstance(work, AvgPool) else work


def group_norm(
    shape: Shape, groups: int, halos: Pair = (0, 0), act: Activation | None = None
) -> GroupNorm:
    """A group normalisation of the map `(N, H, W, C)`; `halos` of its input and output."""
    source, out = (Map(*shape, halo=halo) for halo in halos)
    return GroupNorm(input=source, output=out, groups=groups, eps=1e-3, act=act)


def layer_norm(shape: Shape, halos: Pair = (0, 0), act: Activation | None = None) -> LayerNorm:
    """A layer normalisation of the map `(N, H, W, C)`; `halos` of its input and output."""
    source, out = (Map(*shape, halo=halo) for halo in halos)
    return LayerNorm(source, out, 1e-3, act)


def maps(shape: Pair, channels: tuple[int, ...], halos: tuple[int, ...]) -> tuple[Map, ...]:
    """Maps of two images with these channels and halos."""
    pairs = zip(channels, halos, strict=True)
    return tuple(Map(2, *shape, count, halo) for count, halo in pairs)


def maps_of(source: Pair, result: Pair, halos: Pair) -> tuple[Map, Map]:
    """Maps of two images and 19 channels, of these heights and widths and halos."""
    return Map(2, *source, 19, halos[0]), Map(2, *result, 19, halos[1])


GROUPED = {
    "two groups": grouped((1, 9, 7, 40), 70, 2, halos=(1, 2), act=RELU),
    "groups of four": grouped((2, 7, 6, 32), 32, 8, act=Activation("silu")),
    "groups of one output": grouped((1, 5, 5, 12), 3, 3),
    "a group per output and two inputs": grouped(
        (1, 6, 5, 6), 3, 3, (1, 5), (1, 2), (0, 2), (3, 1)
    ),
    "groups with long reductions": grouped((1, 5, 4, 130), 6, 2, (5, 5), (1, 1), (2, 2), (2, 0)),
    "groups with reductions in pieces": grouped((1, 3, 3, 1200), 4, 2, (1, 1), (1, 1), (0, 0)),
    "groups of 1×1": grouped((3, 4, 5, 24), 36, 4, (1, 1), (1, 1), (0, 0), (0, 1)),
    "depthwise": grouped((1, 14, 11, 35), 35, 35, act=Activation("relu6"), halos=(1, 1)),
    "depthwise of few channels": grouped((2, 5, 9, 3), 3, 3, halos=(1, 2)),
    "depthwise, stride 2": grouped((1, 15, 12, 64), 64, 64, (3, 3), (2, 2), act=RELU),
    "depthwise 5×5 of a batch": grouped((3, 7, 7, 20), 20, 20, (5, 5), (1, 1), (2, 2), (2, 1)),
    "depthwise 7×7, stride 2": grouped((1, 13, 20, 9), 9, 9, (7, 7), (2, 2), (3, 3), (3, 0)),
    "depthwise 1×21": grouped((1, 3, 30, 17), 17, 17, (1, 21), (1, 1), (0, 10), (10, 0)),
    "depthwise of a pixel": grouped((1, 1, 1, 130), 130, 130, act=Activation("gelu")),
    "depthwise with a multiplier": grouped((1, 6, 7, 10), 30, 10, halos=(1, 1)),
    "depthwise, dilated": grouped(
        (1, 15, 12, 35), 70, 35, (3, 4), (2, 1), (2, 3), dilation=(2, 3), behind=(1, 6)
    ),
    "groups, dilated": grouped((1, 9, 8, 12), 18, 3, (3, 2), dilation=(1, 4), behind=(0, 3)),
    "depthwise without padding": grouped((1, 6, 7, 18), 18, 18, padding=(0, 0), halos=(2, 1)),
}

POOLS = {
    f"{'max' if kind is MaxPool else 'mean'} {name}": pool(kind, *arguments)
    for kind in (MaxPool, AvgPool)
    for name, arguments in {
        "2×2": ((2, 8, 6, 20), (2, 2), (2, 2), (0, 0), False, (0, 1)),
        "2×2, the rest a window": ((1, 7, 5, 33), (2, 2), (2, 2), (0, 0), True, (1, 2)),
        "3×3, stride 2, padded": ((1, 13, 12, 16), (3, 3), (2, 2), (1, 1), False, (1, 0)),
        "3×3, padded, the rest a window": ((2, 8, 9, 5), (3, 3), (2, 2), (1, 1), True, (0, 2)),
        "3×3, every pixel": ((1, 5, 6, 35), (3, 3), (1, 1), (1, 1), False, (0, 1)),
        "3×2 with another stride": ((1, 5, 9, 4), (3, 2), (1, 2), (1, 0), True, (1, 0)),
        "5×5, every pixel": ((2, 9, 7, 70), (5, 5), (1, 1), (2, 2), False, (2, 1)),
        "13×13 of a smaller map": ((1, 7, 9, 9), (13, 13), (1, 1), (6, 6), False, (0, 2)),
        "6×5, the rest a window": ((1, 9, 13, 3), (6, 5), (5, 4), (2, 1), True, (0, 1)),
        "1×30": ((1, 2, 40, 12), (1, 30), (1, 4), (0, 3), True, (1, 1)),
        "3×2, unevenly padded": ((1, 8, 7, 33), (3, 2), (2, 1), (2, 0), True, (0, 1), (0, 1)),
        "of a pixel": ((3, 1, 1, 5), (1, 1), (1, 1), (0, 0), False, (0, 1)),
        "of a padded pixel": ((1, 1, 1, 24), (3, 3), (2, 2), (1, 1), False, (2, 0)),
        "of the whole map": ((2, 7, 7, 130), (7, 7), (1, 1), (0, 0), False, (1, 0)),
        "of a large map": ((1, 55, 55, 20), (55, 55), (55, 55), (0, 0), False, (0, 1)),
    }.items()
}

POOLS["mean of padding"] = pool(
    AvgPool, (2, 7, 9, 20), (3, 3), (2, 2), (1, 0), True, (0, 1), (1, 2), counts=True
)
POOLS["mean of much padding"] = pool(
    AvgPool, (1, 6, 7, 9), (5, 4), (3, 2), (4, 3), True, (1, 0), (2, 0), counts=True
)

ELEMENTWISE: dict[str, Workload] = {
    **{
        name: Pointwise(*maps((5, 3), (18, 18), (1, 2)), ACTIVATIONS[name])
        for name in ("relu", "leaky", "gelu", "silu", "mish", "clip")
    },
    "activation of a vector": Pointwise(Map(3, 1, 1, 33), Map(3, 1, 1, 33), Activation("tanh")),
    "prelu": PRelu(*maps((5, 3), (19, 19), (1, 2))),
    "prelu of a vector": PRelu(Map(1, 1, 1, 5), Map(1, 1, 1, 5)),
    "pad": Pad(*maps_of((4, 3), (7, 9), (0, 1)), (1, 2)),
    "pad of the edge": Pad(*maps_of((4, 3), (9, 4), (2, 0)), (1, 0), "edge"),
    "pad by reflection": Pad(*maps_of((4, 3), (10, 6), (1, 2)), (3, 2), "reflect"),
    "pad by wrapping around": Pad(*maps_of((4, 3), (11, 8), (0, 0)), (4, 2), "wrap"),
    "concat": Concat(maps((4, 3), (5, 16, 1), (0, 1, 2)), Map(2, 4, 3, 22, 1)),
    "concat of one": Concat(maps((2, 3), (5,), (1,)), Map(2, 2, 3, 5)),
    "concat of vectors": Concat(maps((1, 1), (7, 40), (0, 0)), Map(2, 1, 1, 47)),
    "add": Add(maps((4, 3), (19, 19), (0, 1)), Map(2, 4, 3, 19, 2)),
    "add, relu": Add(maps((4, 3), (32, 32), (1, 1)), Map(2, 4, 3, 32, 1), RELU),
    "add four, silu": Add(
        maps((1, 5), (3,) * 4, (0, 2, 1, 0)), Map(2, 1, 5, 3), Activation("silu")
    ),
    "mul": Mul(maps((4, 3), (19, 19, 19), (0, 1, 2)), Map(2, 4, 3, 19, 2)),
    "mul by a vector, relu": Mul(
        (Map(2, 1, 1, 35), *maps((4, 3), (35, 35), (1, 0))), Map(2, 4, 3, 35, 1), RELU
    ),
    "softmax2d": Softmax2d(*maps((4, 3), (35, 35), (1, 2))),
    "softmax2d of few channels": Softmax2d(*maps((5, 7), (2, 2), (0, 0))),
    "shuffle": Shuffle(*maps((4, 3), (36, 36), (1, 2)), 3),
    "shuffle of a channel each": Shuffle(*maps((2, 3), (5, 5), (0, 0)), 5),
    "take": Take(*maps((4, 3), (36, 19), (1, 2)), 5),
    "upsample": Upsample(Map(2, 4, 3, 18, 1), Map(2, 8, 9, 18, 2), (2, 3), "nearest"),
    "upsample, bilinear": Upsample(Map(2, 4, 3, 18, 1), Map(2, 8, 15, 18, 2), (2, 5), "bilinear"),
    "mul of vectors": Mul(maps((1, 1), (40, 40), (0, 0)), Map(2, 1, 1, 40)),
}

NORMS: dict[str, Workload] = {
    "groups of a few channels": group_norm((2, 5, 7, 70), 14, (1, 2), RELU),
    "groups of single channels": group_norm((1, 4, 3, 18), 18, (0, 1)),
    "one group": group_norm((2, 3, 9, 75), 1, (2, 0), Activation("gelu")),
    "groups of a vector": group_norm((3, 1, 1, 96), 3, (0, 0)),
    "pixels": layer_norm((2, 3, 7, 37), (1, 2), Activation("gelu")),
    "pixels of many channels": layer_norm((1, 2, 3, 300), (0, 1)),
    "pixels of few channels": layer_norm((1, 5, 2, 3), (1, 0), RELU),
    "vectors": layer_norm((5, 1, 1, 64)),
}

STOCHASTIC_POOLS: dict[str, Workload] = {
    f"weighted {name}": pool(StochasticPool, *arguments)
    for name, arguments in {
        "2×2": ((2, 8, 6, 20), (2, 2), (2, 2), (0, 0), False, (0, 1)),
        "3×2, padded, the rest a window": ((1, 8, 9, 37), (3, 2), (2, 2), (1, 0), True, (1, 2)),
        "of the whole map": ((1, 7, 7, 70), (7, 7), (1, 1), (0, 0), False, (1, 0)),
    }.items()
}
PLACES: dict[str, Workload] = {
    "places of two rows and three columns": DepthToSpace(
        input=Map(2, 3, 4, 6 * 19, 1), output=Map(2, 5, 10, 19, 2), block=(2, 3), offset=(1, 2)
    ),
    "places of groups": DepthToSpace(
        input=Map(1, 4, 2, 4 * 15),
        output=Map(1, 8, 3, 15, 1),
        block=(2, 2),
        offset=(0, 1),
        groups=3,
        act=Activation("silu"),
    ),
}


def draws(seed: int, count: int) -> Iterator[Workload]:
    """Grouped convolutions, pools and element-wise workloads of random shapes."""
    rng = random.Random(seed)
    size = rng.randint
    acts = [None, *ACTIVATIONS.values()]
    for index in range(count):
        shape = (size(1, 3), size(1, 12), size(1, 12), 0)
        kernel, stride, halo = (size(1, 6), size(1, 6)), (size(1, 3), size(1, 3)), size(0, 2)
        if index % 2:
            least = [math.ceil((k - n) / 2) for k, n in zip(kernel, shape[1:3], strict=True)]
            padding = (size(max(0, least[0]), 5), size(max(0, least[1]), 5))
            groups = size(1, 20)
            per_group = rng.choice([1, 1, 2, 3, 20])
            outputs = groups * rng.choice([1, 1, 2, 9, 40])
            yield grouped(
                (*shape[:3], groups * per_group),
                outputs,
                groups,
                kernel,
                stride,
                padding,
                (max(padding) + size(0, 1), halo),
                rng.choice(acts),
            )
        else:
            padding = (size(0, kernel[0] // 2), size(0, kernel[1] // 2))
            fitting = (max(shape[1], kernel[0]), max(shape[2], kernel[1]))
            kind = rng.choice([MaxPool, AvgPool])
            whole = (shape[0], *fitting, size(1, 70))
            yield pool(kind, whole, kernel, stride, padding, size(0, 1) == 1, (size(0, 2), halo))


# Their buffers


@dataclass(frozen=True)
class Side:
    """An input or output: the shape of its buffer, and the halo around its content."""

    shape: tuple[int, ...]
    halo: int = 0

    @classmethod
    def of(cls, layout: Layout) -> Side:
        return cls(layout.shape, layout.halo) if isinstance(layout, Map) else cls(layout)

    def content(self, buffer: Array) -> Array:
        if self.halo == 0:
            return buffer
        inside = slice(self.halo, -self.halo)
        return buffer[:, inside, inside]


def sides(workload: Workload) -> tuple[list[Side], Side]:
    """The inputs and the output."""
    return [Side.of(each) for each in workload.inputs], Side.of(workload.output)


def weight_shapes(workload: Workload) -> list[tuple[int, ...]]:
    """The weights that `workload` takes behind its inputs, none packed."""
    return list(workload.weights.values())
