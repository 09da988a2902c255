"""What a net costs, layer by layer: shapes, parameters, MACs, bytes, receptive field."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vggc.analysis.receptive import Field, receptive_fields
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Shape

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
TRAINING_FORMULA = (
    "training memory = 4 bytes × 3 × parameters (float32 weights, gradients, momentum)"
    " + batch × saved activations (what the backward pass reads: each layer's output once,"
    " the places of pooled maxima, dropout masks)"
)


@dataclass(frozen=True)
class Row:
    """One layer as the user wrote it. Bytes and MACs are for the whole batch."""

    name: str
    kind: str
    text: str
    output_shape: Shape
    params: int
    macs: int
    activation_bytes: int
    receptive_field: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True)
class Totals:
    """A whole net. `training_bytes` is None for dtypes that nobody trains in."""

    params: int
    weight_bytes: int
    macs: int
    flops: int
    activation_bytes: int
    training_bytes: int | None


@dataclass(frozen=True)
class Report:
    """The cost of a net at a batch size and a dtype."""

    net: str
    input: Shape
    batch: int
    dtype: str
    rows: tuple[Row, ...]
    totals: Totals


def report(graph: Graph, batch: int = 1, dtype: str = "float32") -> Report:
    """The cost of a graph.

    MACs count convolutions and fully-connected layers without bias; one MAC is two
    FLOPs. Activation bytes count the input and the output of each convolution, pooling
    and fully-connected layer once; everything else works in place.
    """
    element = ELEMENT_BYTES[dtype]
    fields = receptive_fields(graph)
    rows = tuple(_row(graph, nodes, fields[last], batch, element) for last, nodes in _layers(graph))
    params = sum(row.params for row in rows)
    macs = sum(row.macs for row in rows)
    return Report(
        graph.name,
        graph.input,
        batch,
        dtype,
        rows,
        Totals(
            params=params,
            weight_bytes=params * element,
            macs=macs,
            flops=2 * macs,
            activation_bytes=sum(row.activation_bytes for row in rows),
            training_bytes=None if dtype == "int8" else _training_bytes(graph, batch, element),
        ),
    )


def _layers(graph: Graph) -> list[tuple[int, list[Node]]]:
    """The nodes of each layer, and the index of the last of them."""
    found: list[tuple[int, list[Node]]] = []
    for index, node in enumerate(graph.nodes):
        if found and found[-1][1][0].layer is node.layer:
            found[-1] = (index, [*found[-1][1], node])
        else:
            found.append((index, [node]))
    return found


def _row(graph: Graph, nodes: list[Node], field: Field, batch: int, element: int) -> Row:
    layer = nodes[0].layer
    stored = sum(prod(node.shape) for node in nodes if node.op.stored)
    return Row(
        name=layer.name,
        kind=layer.kind,
        text=layer.text,
        output_shape=nodes[-1].shape,
        params=sum(w.size for node in nodes for w in node.op.weights(graph.source(node))),
        macs=batch * sum(node.op.macs(graph.source(node)) for node in nodes),
        activation_bytes=batch * element * stored,
        receptive_field=field.size,
        stride=field.stride,
    )


def _training_bytes(graph: Graph, batch: int, element: int) -> int:
    params = sum(w.size for w in graph.all_weights.values())
    saved = sum(node.op.saved(graph.source(node), element) for node in graph.nodes)
    return 4 * 3 * params + batch * saved
