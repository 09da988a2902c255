"""Which part of the input one value of a layer can see.

Source: the recurrence r' = r + (k - 1)·j, j' = j·s over a chain of windows (Dumoulin &
Visin 2016, section 4), r and j being the field and the stride in input pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from vggc.ir.graph import Graph


@dataclass(frozen=True)
class Field:
    """Receptive field and stride in input pixels, `(rows, columns)`.

    The field counts what lies beyond the image's border, too.
    """

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)


def receptive_fields(graph: Graph) -> tuple[Field, ...]:
    """The field of each node."""
    fields: list[Field] = []
    for node in graph.nodes:
        if not node.inputs:
            fields.append(Field())
            continue
        before = fields[node.inputs[0]]
        window = node.op.window(graph.source(node))
        sizes = zip(before.size, before.stride, window.kernel, strict=True)
        steps = zip(before.stride, window.stride, strict=True)
        rows, columns = (r + (k - 1) * j for r, j, k in sizes)
        down, right = (j * s for j, s in steps)
        fields.append(Field((rows, columns), (down, right)))
    return tuple(fields)
