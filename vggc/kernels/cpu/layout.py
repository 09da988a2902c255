"""Between the callers' NCHW and the maps' NHWC, a row of the output per task."""

from __future__ import annotations

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from ..workloads import Kernel, ToNchw, ToNhwc
from .loops import clear_halo, function


def to_nhwc(layout: ToNhwc) -> Kernel:
    out = layout.output
    planes = (out.batch, out.channels, out.height, out.width)

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with T.parallel(out.batch * out.height) as row:
            n, i = row // out.height, row % out.height
            with T.serial(out.width) as j, T.serial(out.channels) as c:
                T.buffer_store(y, x[n, c, i, j], [n, i + out.halo, j + out.halo, c])

    return Kernel("transpose", {}, function(body, x=planes, y=out.shape))


def to_nchw(layout: ToNchw) -> Kernel:
    source = layout.input
    planes = (source.batch, source.channels, source.height, source.width)

    def body(x: Buffer, y: Buffer) -> None:
        with T.parallel(source.batch * source.channels) as plane:
            n, c = plane // source.channels, plane % source.channels
            with T.serial(source.height) as i, T.serial(source.width) as j:
                value = x[n, i + source.halo, j + source.halo, c]
                T.buffer_store(y, value, [n, c, i, j])

    return Kernel("transpose", {}, function(body, x=source.shape, y=planes))
