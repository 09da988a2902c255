"""How a value of ours lies in a tensor of a foreign net, which may turn, flatten and split it.

A value of ours is a map `(C, H, W)` or a vector `(C,)`. A foreign tensor holds it with its axes in
any order (N, H, W, C for TensorFlow), several of them as one dimension (flattened), or one as
several (a channel shuffle). So each dimension of the tensor is a list of parts of axes, outermost
first, and turning and reshaping is arithmetic on these lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir.ops import Shape

Axis: TypeAlias = Literal["n", "c", "h", "w"]


@dataclass(frozen=True)
class AxisPart:
    """A part of an axis of a value: `size` steps of `step` positions each. A whole axis has steps
    of 1 and its own size; split in two, the outer part steps by the inner one's size.
    """

    axis: Axis
    size: int
    step: int = 1


Dimension: TypeAlias = tuple[AxisPart, ...]


@dataclass(frozen=True)
class TensorView:
    """The dimensions of a foreign tensor, as what they hold of a value. One of size 1 holds
    nothing; nor does the batch of a net that takes one image.
    """

    dims: tuple[Dimension, ...]

    @classmethod
    def of_parts(cls, dims: Iterable[Iterable[AxisPart]]) -> TensorView:
        """A view of these parts, those of size 1 left out and neighbours put together."""
        return cls(tuple(_joined(part for part in dim if part.size > 1) for dim in dims))

    @property
    def shape(self) -> Shape:
        """The shape of the foreign tensor."""
        return tuple(prod(part.size for part in dim) for dim in self.dims)

    @property
    def parts(self) -> Dimension:
        """All parts in the order in which the tensor's numbers lie."""
        return _joined(part for dim in self.dims for part in dim)

    def turned(self, order: Sequence[int]) -> TensorView:
        """The view with its dimensions in another order."""
        return TensorView(tuple(self.dims[i] for i in order))

    def reshaped(self, shape: Sequence[int]) -> TensorView | None:
        """A view of the same numbers in another shape; None where that splits an axis unevenly."""
        if prod(shape) != prod(self.shape):
            return None
        rest = [part for dim in self.dims for part in dim][::-1]
        dims: list[list[AxisPart]] = []
        for size in shape:
            dim: list[AxisPart] = []
            while size > 1:
                part = rest.pop()
                if size % part.size == 0:
                    dim.append(part)
                    size //= part.size
                elif part.size % size == 0:
                    inner = part.size // size
                    dim.append(AxisPart(part.axis, size, part.step * inner))
                    rest.append(AxisPart(part.axis, inner, part.step))
                    size = 1
                else:
                    return None
            dims.append(dim)
        return TensorView.of_parts(dims)


def view_of(shape: Shape, batch: int, order: str = "nchw") -> TensorView:
    """A value of ours as tensors hold it, with its axes in this order."""
    axes: tuple[Axis, ...] = ("n", "c", "h", "w")
    parts = {axis: AxisPart(axis, size) for axis, size in zip(axes, (batch, *shape), strict=False)}
    return TensorView.of_parts((parts[axis],) for axis in sorted(parts, key=order.index))


def settled(
    values: NDArray[np.generic], shape: Shape, view: TensorView, batch: int
) -> NDArray[np.generic]:
    """Values of ours `(N, C, H, W)` as the foreign tensor of this view holds them."""
    sizes = dict(zip("nchw", (batch, *shape), strict=False))
    split: list[tuple[str, int, int]] = []
    for axis, size in sizes.items():
        steps = sorted((p for p in view.parts if p.axis == axis), key=lambda p: -p.step)
        split += [(axis, part.step, part.size) for part in steps] if size > 1 else []
    flat = values.reshape([size for _, _, size in split])
    places = {(axis, step): index for index, (axis, step, _) in enumerate(split)}
    order = [places[part.axis, part.step] for dim in view.dims for part in dim]
    return flat.transpose(order).reshape(view.shape)


def _joined(parts: Iterable[AxisPart]) -> Dimension:
    """Parts with those neighbours put together that are one stretch of an axis."""
    found: list[AxisPart] = []
    for part in parts:
        if found and found[-1].axis == part.axis and found[-1].step == part.step * part.size:
            size = found[-1].size * part.size
            found[-1] = replace(part, size=size)
        else:
            found.append(part)
    return tuple(found)
