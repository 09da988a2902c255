"""What an upsampled map has at a place, for CPUs and GPUs alike."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.workloads import Upsample


def upsampled(layer: Upsample, value: Callable[[Expr, Expr], Expr], y: Expr, x: Expr) -> Expr:
    """The value in row `y` and column `x` of the output, from those of the input by their rows and
    columns.
    """
    down, across = layer.factors
    if layer.mode == "nearest":
        return value(y // down, x // across)
    (upper, lower, below) = _between(y, down, layer.input.height)
    (left, right, behind) = _between(x, across, layer.input.width)

    def in_row(row: Expr) -> Expr:
        return _mixed(value(row, left), value(row, right), behind)

    return _mixed(in_row(upper), in_row(lower), below)


def _between(position: Expr, factor: int, extent: int) -> tuple[Expr, Expr, Expr]:
    """The two elements of an axis between whose centres that of a position lies, of which there are
    `factor` for each of the `extent` elements, and the share of the second.

    Before the first centre and behind the last one both are the element there.
    """
    # From the first centre, in halves of a position.
    distance = T.max(2 * position + 1 - factor, 0)
    first = distance // (2 * factor)
    share = T.Cast("float32", distance % (2 * factor)) * T.float32(1 / (2 * factor))
    return first, T.min(first + 1, extent - 1), share


def _mixed(first: Expr, second: Expr, share: Expr) -> Expr:
    return (T.float32(1) - share) * first + share * second
