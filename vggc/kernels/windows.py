"""Where the windows of a pool lie, for kernels that keep to the map."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.workloads import AvgPool, MaxPool, StochasticPool


@dataclass(frozen=True)
class WindowAxis:
    """`positions` windows of `kernel` elements along an axis of `extent` elements.

    They start at `-padding`, and each overlaps the axis. Where `counted` is there, what is before
    the axis and so many elements behind it count in a mean, as zeros.
    """

    kernel: int
    stride: int
    padding: int
    extent: int
    positions: int
    counted: int | None = None

    @property
    def overhangs(self) -> bool:
        """Whether a window reaches beyond either end of the axis."""
        return self.padding > 0 or self._last_end > self.extent

    def start(self, position: Expr) -> Expr:
        """Where window `position` begins, which may be before the axis."""
        return position * self.stride - self.padding

    def clamped(self, position: Expr, offset: Expr | int) -> Expr:
        """Element `offset` of window `position` or, where that is beyond an end of the axis, the
        one at the end.

        What stands there is in the window, because the window overlaps the axis.
        """
        at = self.start(position) + offset
        if self.padding > 0:
            at = T.max(at, 0)
        return T.min(at, self.extent - 1) if self._last_end > self.extent else at

    def span(self, position: Expr) -> tuple[Expr, Expr | int]:
        """The part of window `position` that is on the axis: its first element and their number."""
        start = self.start(position)
        if not self.overhangs:
            return start, self.kernel
        first = T.max(start, 0)
        return first, T.min(start + self.kernel, self.extent) - first

    def count(self, position: Expr) -> Expr | int:
        """How many elements of window `position` count in its mean."""
        if self.counted is None:
            return self.span(position)[1]
        if self._last_end <= self.extent + self.counted:
            return self.kernel
        start = self.start(position)
        return T.min(start + self.kernel, self.extent + self.counted) - start

    @property
    def _last_end(self) -> int:
        return (self.positions - 1) * self.stride - self.padding + self.kernel


def axes(pool: MaxPool | AvgPool | StochasticPool) -> tuple[WindowAxis, WindowAxis]:
    """Where the windows of a pool lie along rows and along columns."""
    return _axis(pool, 0), _axis(pool, 1)


def _axis(pool: MaxPool | AvgPool | StochasticPool, axis: int) -> WindowAxis:
    source, out = pool.input, pool.output
    counted = pool.counted if isinstance(pool, AvgPool) else None
    return WindowAxis(
        kernel=pool.kernel[axis],
        stride=pool.stride[axis],
        padding=pool.padding[axis],
        extent=(source.height, source.width)[axis],
        positions=(out.height, out.width)[axis],
        counted=counted[axis] if counted else None,
    )
