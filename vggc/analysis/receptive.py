"""Which part of the input one value of a layer can see.

Source: the recurrence r' = r + (k - 1)·j, j' = j·s, b' = b - p·j over windows (Dumoulin &
Visin 2016, section 4; Araujo et al. 2019, section 2), r, j and b being the field, the stride
and the place of the first field in input pixels, k the extent of a window, dilation included.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TypeAlias

from vggc.ir.graph import Graph
from vggc.ir.ops import Pair, Window

PixelStep: TypeAlias = int | Fraction
"""From one position of a map to the next, in input pixels; a fraction where there are fewer."""
PixelSteps: TypeAlias = tuple[PixelStep, PixelStep]


@dataclass(frozen=True)
class Field:
    """Receptive field and stride of a layer's values in input pixels, `(rows, columns)`.

    Position `i` of a map sees the `size` pixels from `start + i·stride` on. Pixels count from
    the image's corner; those beyond its border, the first of which is -1, count, too. Behind a
    layer that gives more positions than it reads, such as a transposed convolution, fields begin
    half a stride of what that layer reads before or behind it at most.
    """

    size: Pair = (1, 1)
    stride: PixelSteps = (1, 1)
    start: PixelSteps = (0, 0)

    def first(self, position: Pair) -> Pair:
        """The first row and column of pixels that a position sees."""
        row, column = (
            floor(start + place * step)
            for start, place, step in zip(self.start, position, self.stride, strict=True)
        )
        return row, column


FAR = 1 << 40
"""Further than any image reaches: fields end there, so that no number grows without bound."""


def receptive_fields(graph: Graph) -> tuple[Field, ...]:
    """The receptive field of each node of a graph.

    What joins several paths sees whatever one of them sees, and all between. Paths whose
    strides differ are joined by what their first positions see, under the largest stride.
    """
    fields: list[Field] = []
    nodes = graph.nodes
    for node in nodes:
        if not node.inputs:
            fields.append(Field())
            continue
        before = fields[node.inputs[0]]
        if len(node.inputs) > 1:
            before = _union([fields[read] for read in node.inputs])
        window = node.op.window(nodes[node.inputs[0]].shape)
        fields.append(_through(window, before))
    return tuple(fields)


def _through(window: Window, before: Field) -> Field:
    """What the positions of a map see that are windows of another."""
    axes = [
        _along(*each)
        for each in zip(
            before.size,
            before.stride,
            before.start,
            window.extent,
            window.stride,
            window.padding[:2],
            window.spread,
            strict=True,
        )
    ]
    sizes, strides, starts = zip(*axes, strict=True)
    return Field((sizes[0], sizes[1]), (strides[0], strides[1]), (starts[0], starts[1]))


def _along(
    size: int,
    step: PixelStep,
    start: PixelStep,
    extent: int,
    stride: int,
    padding: int,
    spread: int,
) -> tuple[int, PixelStep, PixelStep]:
    """Size, step and start of fields along one axis, behind windows of those before."""
    finer = step if spread == 1 else _whole(Fraction(step, spread))
    return (
        ceil(min(size + (extent - 1) * step, FAR)),
        min(_whole(finer * stride), FAR),
        max(_whole(start - padding * finer), -FAR),
    )


def _whole(step: PixelStep) -> PixelStep:
    """A number, as an int where it is one."""
    return step.numerator if step.denominator == 1 else step


def _union(fields: list[Field]) -> Field:
    rows, columns = (
        (min(f.start[axis] for f in fields), max(f.start[axis] + f.size[axis] for f in fields))
        for axis in (0, 1)
    )
    return Field(
        (ceil(rows[1] - rows[0]), ceil(columns[1] - columns[0])),
        (max(f.stride[0] for f in fields), max(f.stride[1] for f in fields)),
        (rows[0], columns[0]),
    )
