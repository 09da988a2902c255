"""Which part of the input one value of a layer can see.

Source: the recurrence r' = r + (k - 1)·j, j' = j·s, b' = b - p·j over windows (Dumoulin &
Visin 2016, section 4; Araujo et al. 2019, section 2), r, j and b being the field, the stride
and the place of the first field in input pixels, k the extent of a window, dilation included.
"""

from __future__ import annotations

from dataclasses import dataclass

from vggc.ir.graph import Graph
from vggc.ir.ops import Pair


@dataclass(frozen=True)
class Field:
    """Receptive field and stride of a layer's values in input pixels, `(rows, columns)`.

    Position `i` of a map sees the `size` pixels from `start + i·stride` on. Pixels count from
    the image's corner; those beyond its border, the first of which is -1, count, too.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    start: Pair = (0, 0)


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
        (rows, columns), (down, right), (top, left, *_) = (
            window.extent,
            window.stride,
            window.padding,
        )
        height, width = before.size
        y, x = before.stride
        first_y, first_x = before.start
        fields.append(
            Field(
                (min(height + (rows - 1) * y, FAR), min(width + (columns - 1) * x, FAR)),
                (min(y * down, FAR), min(x * right, FAR)),
                (max(first_y - top * y, -FAR), max(first_x - left * x, -FAR)),
            )
        )
    return tuple(fields)


def _union(fields: list[Field]) -> Field:
    rows, columns = (
        (min(f.start[axis] for f in fields), max(f.start[axis] + f.size[axis] for f in fields))
        for axis in (0, 1)
    )
    return Field(
        (rows[1] - rows[0], columns[1] - columns[0]),
        (max(f.stride[0] for f in fields), max(f.stride[1] for f in fields)),
        (rows[0], columns[0]),
    )
