"""Which element of an axis lies where padding is, for kernels that write maps with rows and columns
around them.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.ir.ops import Border
from vggc.kernels.workloads import Pad


def source_pixel(pad: Pad, y: Expr, x: Expr) -> tuple[Expr, Expr]:
    """The row and the column of the input that a pixel of the output has; one that is zero, any."""
    (top, left), source = pad.padding, pad.input
    return (
        _element(pad.border, y - top, source.height),
        _element(pad.border, x - left, source.width),
    )


def is_inside(pad: Pad, y: Expr, x: Expr) -> Expr:
    """Whether a pixel of the output is one of the input, and not one around it."""
    (top, left), source = pad.padding, pad.input
    rows = T.And(y >= top, y < top + source.height)
    columns = T.And(x >= left, x < left + source.width)
    return T.And(rows, columns)


def _element(border: Border, at: Expr, extent: int) -> Expr:
    """The element of an axis that stands for one at `at`, which may be before its first or behind
    its last by less than `extent`, or by any number where the border is of zeros or an edge.
    """
    match border:
        case "zeros" | "edge":
            return T.max(0, T.min(at, extent - 1))
        case "reflect":
            distance = T.max(at, -at)
            return T.min(distance, 2 * (extent - 1) - distance)
        case "wrap":
            return (at + extent) % extent
