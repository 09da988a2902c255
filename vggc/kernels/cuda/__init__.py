"""Kernels for NVIDIA GPUs: float32, any architecture from sm_75 on, at most 48 KiB shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, assert_never

from tvm.tirx import PrimFunc

from vggc.kernels.cuda import dense, gemm, grouped, small
from vggc.kernels.cuda.emit import function
from vggc.kernels.cuda.packing import (
    ChannelOrder,
    DensePanelPacking,
    RowPacking,
    TapsFirst,
)
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Convert,
    Dense,
    Kernel,
    Lrn,
    Map,
    MaxPool,
    Pointwise,
    PRelu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

EmitBody: TypeAlias = Callable[..., None]


def kernel(workload: Workload) -> Kernel:
    """The thread-bound code of `workload`; it may launch more than one CUDA kernel."""
    match workload:
        case Conv(groups=1):
            return _conv(workload)
        case Conv():
            return _grouped_conv(workload)
        case Dense(batch=1):
            return _dense_vector(workload)
        case Dense():
            return _dense_batch(workload)
        case MaxPool():
            return _small("max_pool", partial(small.pool, workload), workload)
        case AvgPool() if _covers_map(workload):
            return _small("global_mean", partial(small.global_mean, workload), workload)
        case AvgPool():
            return _small("avg_pool", partial(small.pool, workload), workload)
        case Lrn():
            return _small("lrn", partial(small.lrn, workload), workload)
        case Pointwise():
            return _small("pointwise", partial(small.pointwise, workload), workload)
        case PRelu():
            shapes = {"x": workload.input.shape, "slopes": (workload.input.channels,)}
            body = partial(small.prelu, workload)
            return Kernel("prelu", {}, function(body, **shapes, y=workload.output.shape))
        case Concat():
            return _join("concat", partial(small.concat, workload), workload)
        case Add():
            return _join("add", partial(small.add, workload), workload)
        case Softmax():
            shape = (workload.batch, workload.features)
            func = function(partial(small.softmax, workload), x=shape, y=shape)
            return Kernel("softmax", {}, func)
        case Convert():
            raise AssertionError("plans for GPUs are float32 throughout")
        case ToNhwc(output=map):
            func = function(partial(small.to_nhwc, workload), x=_nchw(map), y=map.shape)
            return Kernel("to_nhwc", {}, func)
        case ToNchw(input=map):
            func = function(partial(small.to_nchw, workload), x=map.shape, y=_nchw(map))
            return Kernel("to_nchw", {}, func)
        case _:
            assert_never(workload)


def _conv(conv: Conv) -> Kernel:
    tiling = gemm.tiling(conv)
    packing = gemm.packing(conv, tiling.tile)
    func = function(
        partial(gemm.convolve, conv, tiling),
        x=conv.input.shape,
        weight=packing.packed_shape,
        bias=(conv.output.channels,),
        y=conv.output.shape,
    )
    return Kernel("implicit_gemm", tiling.knobs, func, packing)


def _grouped_conv(conv: Conv) -> Kernel:
    packing = TapsFirst(conv.weight_shape)
    func = function(
        partial(grouped.convolve, conv),
        x=conv.input.shape,
        weight=packing.packed_shape,
        bias=(conv.output.channels,),
        y=conv.output.shape,
    )
    algorithm = "depthwise" if conv.groups == conv.input.channels else "grouped"
    return Kernel(algorithm, {}, func, packing)


def _dense_batch(layer: Dense) -> Kernel:
    """A 1×1 convolution over a map of one pixel an image."""
    conv = Conv(
        input=Map(layer.batch, 1, 1, layer.in_features),
        output=Map(layer.batch, 1, 1, layer.out_features),
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        act=layer.act,
    )
    tiling = gemm.tiling(conv)
    packing = DensePanelPacking(gemm.packing(conv, tiling.tile), ChannelOrder(layer.source))
    func = _dense_function(partial(gemm.convolve, conv, tiling), layer, packing.packed_shape)
    return Kernel("gemm", tiling.knobs, func, packing)


def _dense_vector(layer: Dense) -> Kernel:
    packing = RowPacking(layer.weight_shape, ChannelOrder(layer.source))
    func = _dense_function(partial(dense.multiply_vector, layer), layer, packing.packed_shape)
    return Kernel("gemv", dense.KNOBS, func, packing)


def _dense_function(body: EmitBody, layer: Dense, weight_shape: tuple[int, ...]) -> PrimFunc:
    source = layer.source
    return function(
        body,
        x=(layer.batch, layer.in_features) if source is None else source.shape,
        weight=weight_shape,
        bias=(layer.out_features,),
        y=(layer.batch, layer.out_features),
    )


def _covers_map(pool: AvgPool) -> bool:
    """Whether the one window is the map."""
    return pool.kernel == (pool.input.height, pool.input.width) and pool.padding == (0, 0)


def _small(algorithm: str, body: EmitBody, layer: MaxPool | AvgPool | Lrn | Pointwise) -> Kernel:
    return Kernel(algorithm, {}, function(body, x=layer.input.shape, y=layer.output.shape))


def _join(algorithm: str, body: EmitBody, layer: Concat | Add) -> Kernel:
    inputs = {f"x{index}": map.shape for index, map in enumerate(layer.inputs)}
    return Kernel(algorithm, {}, function(body, **inputs, y=layer.output.shape))


def _nchw(map: Map) -> tuple[int, int, int, int]:
    return (map.batch, map.channels, map.height, map.width)
