"""Between the callers' NCHW and the maps' NHWC, a row or a plane per task."""

from __future__ import annotations

from vggc.kernels.builder import Buffer, parallel, serial
from vggc.kernels.cpu.loops import clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Kernel, ToNchw, ToNhwc


def to_nhwc(layout: ToNhwc) -> Kernel:
    out = layout.output
    planes = (out.batch, out.channels, out.height, out.width)

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with (
            parallel_rows(out) as (n, i),
            serial("j", out.width) as j,
            serial("c", out.channels) as c,
        ):
            y[inside(out, n, i, j, c)] = x[n, c, i, j]

    return Kernel("transpose", {}, function(body, x=planes, y=out.shape))


def to_nchw(layout: ToNchw) -> Kernel:
    source = layout.input
    planes = (source.batch, source.channels, source.height, source.width)

    def body(x: Buffer, y: Buffer) -> None:
        with parallel("plane", source.batch * source.channels) as plane:
            n, c = plane // source.channels, plane % source.channels
            with serial("i", source.height) as i, serial("j", source.width) as j:
                y[n, c, i, j] = x[inside(source, n, i, j, c)]

    return Kernel("transpose", {}, function(body, x=source.shape, y=planes))
