"""What each workload means, in float64 numpy: what its kernels are held to.

No command needs it. It is written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias, assert_never

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vggc.ir.ops import Activation, Pair, Window
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Convert,
    Dense,
    DepthToSpace,
    GroupNorm,
    LayerNorm,
    Lrn,
    Map,
    MaxPool,
    Mul,
    Pad,
    Pointwise,
    PRelu,
    Shuffle,
    Softmax,
    Softmax2d,
    StochasticPool,
    Take,
    ToNchw,
    ToNhwc,
    Upsample,
    Workload,
)

Exact: TypeAlias = NDArray[np.float64]


def reference(
    workload: Workload, inputs: Sequence[NDArray[Any]], weights: Sequence[NDArray[Any]]
) -> Exact:
    """What `workload` gives of these inputs and of weights that are not packed, in float64.

    Maps are `(N, H, W, C)` without halo, and hold the numbers that are meant where a format of
    fewer bits stands for them.
    """
    x, *others = (each.astype(float) for each in inputs)
    match workload:
        case Conv():
            weight, bias = weights
            y = activate(workload.act, sum(others, products(workload, x, weight) + bias))
            return halved(y, workload.output) if workload.pool else y
        case DepthToSpace():
            return activate(workload.act, _placed(workload, x))
        case Dense(source=source):
            weight, bias = weights
            rows = x if source is None else x.transpose(0, 3, 1, 2).reshape(source.batch, -1)
            return activate(workload.act, rows @ weight.T + bias)
        case MaxPool() | AvgPool():
            return _pooled(workload, x)
        case Pad():
            return _padded(workload, x)
        case StochasticPool():
            return _pooled(workload, x)
        case Lrn(size=size, alpha=alpha, beta=beta, k=k):
            before = size // 2
            squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (before, size - 1 - before)))
            total = sliding_window_view(squares, size, axis=3).sum(-1)
            return _exact(x / (k + alpha * total) ** beta)
        case GroupNorm(groups=groups):
            batch, height, width, channels = x.shape
            parts = x.reshape(batch, height, width, groups, channels // groups)
            normal = _normal(parts, (1, 2, 4), workload.eps).reshape(x.shape)
            return activate(workload.act, normal * weights[0] + weights[1])
        case LayerNorm():
            normal = _normal(x, (3,), workload.eps)
            return activate(workload.act, normal * weights[0] + weights[1])
        case Pointwise():
            return activate(workload.act, x)
        case PRelu():
            return np.where(x < 0, weights[0] * x, x)
        case Shuffle(groups=groups):
            table = x.reshape(*x.shape[:3], groups, -1)
            return table.swapaxes(3, 4).reshape(x.shape)
        case Take(first=first, output=output):
            return x[..., first : first + output.channels]
        case Upsample(factors=(down, across), mode="nearest"):
            return x.repeat(down, axis=1).repeat(across, axis=2)
        case Upsample(factors=(down, across)):
            return _stretched(_stretched(x, 1, down), 2, across)
        case Concat():
            return np.concatenate([x, *others], axis=3)
        case Add():
            return activate(workload.act, sum(others, x))
        case Mul():
            return activate(workload.act, reduce(np.multiply, others, x))
        case Softmax() | Softmax2d():
            exponentials = np.exp(x - x.max(-1, keepdims=True))
            return _exact(exponentials / exponentials.sum(-1, keepdims=True))
        case Convert():
            return x
        case ToNhwc():
            return x.transpose(0, 2, 3, 1)
        case ToNchw():
            return x.transpose(0, 3, 1, 2)
        case _:
            assert_never(workload)


def activate(act: Activation | None, x: Exact) -> Exact:
    """The activation of each of the values `x`, in float64."""
    if act is None or not x.size:
        return x
    meaning, slope = act.facts.meaning, act.slope
    return np.array([meaning(each, slope) for each in x.ravel().tolist()]).reshape(x.shape)


def windows(x: Exact, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Exact:
    """The windows of a map `(N, H, W, C)` as `(N, H', W', C, kh, kw)`."""
    extent = Window(kernel, dilation=dilation).extent
    found = sliding_window_view(x, extent, axis=(1, 2))[:, :: stride[0], :: stride[1]]
    return found[..., :: dilation[0], :: dilation[1]]


def halved(y: Exact, out: Map) -> Exact:
    """The largest of each 2×2 pixels of `(N, H, W, C)`; a last odd row or column is left out."""
    whole = y[:, : 2 * out.height, : 2 * out.width]
    blocks = whole.reshape(out.batch, out.height, 2, out.width, 2, out.channels)
    return _exact(blocks.max((2, 4)))


def products(conv: Conv, x: Exact, weight: NDArray[Any]) -> Exact:
    """The sums of a convolution, each group of channels by itself."""
    top, left, bottom, right = (max(0, side) for side in conv.beyond)
    groups = conv.groups
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    pairs = zip(np.split(padded, groups, axis=3), np.split(weight, groups), strict=True)
    sums = [
        np.einsum(
            "nyxcij,kcij->nyxk",
            windows(part, conv.kernel, conv.stride, conv.dilation),
            own,
            optimize=True,
        )
        for part, own in pairs
    ]
    return np.concatenate(sums, axis=3)


def _placed(workload: DepthToSpace, x: Exact) -> Exact:
    """The places that are made of channels, place by place."""
    (down, across), (top, left), out = workload.block, workload.offset, workload.output
    groups = np.split(x, workload.groups, axis=3)
    y = np.empty((out.batch, out.height, out.width, out.channels))
    for i, j in np.ndindex(out.height, out.width):
        (row, within), (column, beside) = divmod(i + top, down), divmod(j + left, across)
        blocks = [np.split(group[:, row, column], down * across, axis=1) for group in groups]
        y[:, i, j] = np.concatenate([block[within * across + beside] for block in blocks], axis=1)
    return y


def _pooled(pool: MaxPool | AvgPool | StochasticPool, x: Exact) -> Exact:
    out = pool.output
    combine: Callable[..., Any] = np.max if isinstance(pool, MaxPool) else np.mean
    if isinstance(pool, StochasticPool):
        combine = _weighted
    y = np.empty((out.batch, out.height, out.width, out.channels))
    for i, j in np.ndindex(out.height, out.width):
        top = i * pool.stride[0] - pool.padding[0]
        left = j * pool.stride[1] - pool.padding[1]
        bottom, right = top + pool.kernel[0], left + pool.kernel[1]
        window = x[:, max(top, 0) : bottom, max(left, 0) : right]
        y[:, i, j] = combine(window, axis=(1, 2))
        if isinstance(pool, AvgPool) and pool.counted:
            ends = np.add(x.shape[1:3], pool.counted)
            count = (min(bottom, ends[0]) - top) * (min(right, ends[1]) - left)
            y[:, i, j] = window.sum((1, 2)) / count
    return y


def _weighted(x: Exact, axis: tuple[int, ...]) -> Exact:
    """The mean along axes of values, weighted by themselves, of which those below zero are zero."""
    values = np.maximum(x, 0)
    total = values.sum(axis)
    return _exact((values**2).sum(axis) / np.where(total > 0, total, 1))


def _padded(pad: Pad, x: Exact) -> Exact:
    """A map with rows and columns around it; numpy says `edge`, `reflect` and `wrap`, too."""
    before, after = pad.padding, (pad.output.height, pad.output.width)
    sides = [
        (first, whole - extent - first)
        for first, whole, extent in zip(before, after, x.shape[1:3], strict=True)
    ]
    mode: Any = "constant" if pad.border == "zeros" else pad.border
    return _exact(np.pad(x, ((0, 0), *sides, (0, 0)), mode))


def _normal(x: Exact, axes: tuple[int, ...], eps: float) -> Exact:
    """The values with mean 0 and variance 1 along axes."""
    centred = x - x.mean(axes, keepdims=True)
    return _exact(centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps))


def _stretched(x: Exact, axis: int, factor: int) -> Exact:
    """`factor` values for each along an axis, linear between the centres of two neighbours."""
    extent = x.shape[axis]
    centres = np.maximum((np.arange(extent * factor) + 0.5) / factor - 0.5, 0)
    first = centres.astype(int)
    second = np.minimum(first + 1, extent - 1)
    share = np.expand_dims(centres - first, [*range(1, x.ndim - axis)])
    return _exact(x.take(first, axis) * (1 - share) + x.take(second, axis) * share)


def _exact(values: Any) -> Exact:
    """Any numbers as a float64 array: numpy's types call them anything."""
    return np.asarray(values, np.float64)
