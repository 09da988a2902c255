"""Kernels for NVIDIA GPUs: float32, any architecture from sm_75 on, at most 48 KiB shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, assert_never

from tvm.tirx import PrimFunc

from vggc.kernels.cuda import dense, gemm, small
from vggc.kernels.cuda.emit import function
from vggc.kernels.cuda.packing import ChannelOrder, DensePanelPacking, RowPacking
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Kernel,
    Lrn,
    Map,
    MaxPool,
    Relu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

Body: TypeAlias = Callable[..., None]


def kernel(workload: Workload) -> Kernel:
    """The thread-bound code of `workload`; it may launch more than one CUDA kernel."""
    match workload:
        case Conv():
            return _conv(workload)
        case Dense(batch=1):
            return _dense_vector(workload)
        case Dense():
            return _dense_batch(workload)
        case MaxPool():
            body = partial(small.max_pool, workload)
            return _small("max_pool", body, workload.input.shape, workload.output.shape)
        case Lrn():
            body = partial(small.lrn, workload)
            return _small("lrn", body, workload.input.shape, workload.output.shape)
        case Relu():
            body = partial(small.relu, workload)
            return _small("relu", body, workload.input.shape, workload.output.shape)
        case Softmax():
            shape = (workload.batch, workload.features)
            return _small("softmax", partial(small.softmax, workload), shape, shape)
        case ToNhwc():
            body = partial(small.to_nhwc, workload)
            return _small("to_nhwc", body, _nchw(workload.output), workload.output.shape)
        case ToNchw():
            body = partial(small.to_nchw, workload)
            return _small("to_nchw", body, workload.input.shape, _nchw(workload.input))
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


def _dense_batch(layer: Dense) -> Kernel:
    """A 1×1 convolution over a map of one pixel an image."""
    conv = Conv(
        input=Map(layer.batch, 1, 1, layer.in_features),
        output=Map(layer.batch, 1, 1, layer.out_features),
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        relu=layer.relu,
    )
    tiling = gemm.tiling(conv)
    packing = DensePanelPacking(gemm.packing(conv, tiling.tile), ChannelOrder(layer.source))
    func = _dense_function(partial(gemm.convolve, conv, tiling), layer, packing.packed_shape)
    return Kernel("gemm", tiling.knobs, func, packing)


def _dense_vector(layer: Dense) -> Kernel:
    packing = RowPacking(layer.weight_shape, ChannelOrder(layer.source))
    func = _dense_function(partial(dense.multiply_vector, layer), layer, packing.packed_shape)
    return Kernel("gemv", dense.KNOBS, func, packing)


def _dense_function(body: Body, layer: Dense, weight_shape: tuple[int, ...]) -> PrimFunc:
    source = layer.source
    return function(
        body,
        x=(layer.batch, layer.in_features) if source is None else source.shape,
        weight=weight_shape,
        bias=(layer.out_features,),
        y=(layer.batch, layer.out_features),
    )


def _small(
    algorithm: str, body: Body, source_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> Kernel:
    return Kernel(algorithm, {}, function(body, x=source_shape, y=output_shape))


def _nchw(map: Map) -> tuple[int, int, int, int]:
    return (map.batch, map.channels, map.height, map.width)
