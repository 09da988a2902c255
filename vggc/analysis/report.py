"""What a net costs, layer by layer: shapes, parameters, MACs, bytes, receptive field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from vggc.analysis.receptive import PixelSteps, receptive_fields
from vggc.analysis.training import TrainingSetup, training_need
from vggc.ir.graph import Graph
from vggc.ir.ops import Op, Shape
from vggc.support.precision import NUMBER_BYTES, TRAIN_PRECISIONS, Precision


@dataclass(frozen=True)
class Row:
    """One layer of a report, as the user wrote it; bytes and MACs are for the whole batch.

    A join has a row of its own behind those of its paths; `path` names the joins around a
    layer, the outermost first.
    """

    name: str
    kind: str
    text: str
    path: tuple[str, ...]
    output_shape: Shape
    params: int
    macs: int
    activation_bytes: int
    receptive_field: tuple[int, int]
    stride: PixelSteps


@dataclass(frozen=True)
class Totals:
    """The cost of a whole net.

    `training_bytes` are those of a process that trains it on a CPU, `training_gpu_bytes` those on a
    GPU (`analysis/training.py`); None for dtypes that nobody trains in.

    `params` are those that training changes; `weight_bytes` are those of everything that is
    stored, the statistics of normalisations included.
    """

    params: int
    weight_bytes: int
    macs: int
    flops: int
    activation_bytes: int
    training_bytes: int | None
    training_gpu_bytes: int | None


@dataclass(frozen=True)
class Report:
    """The cost of a net at a batch size and a dtype."""

    net: str
    input: Shape
    batch: int
    dtype: Precision
    rows: tuple[Row, ...]
    totals: Totals


def report(
    graph: Graph, batch: int = 1, dtype: Precision = "float32", course: TrainingSetup | None = None
) -> Report:
    """The cost of a graph; its training takes the `course`, which is for batches of this size.

    MACs count convolutions and fully-connected layers without bias; one MAC is two
    FLOPs. Activation bytes count the input and the output of each convolution, pooling
    and fully-connected layer once; everything else works in place.
    """
    element = NUMBER_BYTES[dtype]
    rows, stored = _rows(graph, batch, element)
    params = sum(row.params for row in rows)
    macs = sum(row.macs for row in rows)
    course = course or TrainingSetup(images=batch, half=element == 2)
    need = training_need(graph, course)
    on_gpu = training_need(graph, replace(course, by_columns=False)) if course.by_columns else need
    return Report(
        net=graph.name,
        input=graph.input,
        batch=batch,
        dtype=dtype,
        rows=rows,
        totals=Totals(
            params=params,
            weight_bytes=stored * element,
            macs=macs,
            flops=2 * macs,
            activation_bytes=sum(row.activation_bytes for row in rows),
            training_bytes=need.on_cpu if dtype in TRAIN_PRECISIONS else None,
            training_gpu_bytes=on_gpu.on_gpu if dtype in TRAIN_PRECISIONS else None,
        ),
    )


class _Cost(NamedTuple):
    """The cost of one node and one sample: numbers of weights, MACs and values stored."""

    params: int
    stored: int
    macs: int
    outputs: int


def _cost(op: Op, sources: tuple[Shape, ...], output: Shape) -> _Cost:
    weights = op.weights(sources[0])
    return _Cost(
        params=sum(weight.size for weight in weights if weight.trained),
        stored=sum(weight.size for weight in weights),
        macs=op.macs(sources[0]),
        outputs=prod(output) if op.stored else 0,
    )


def _rows(graph: Graph, batch: int, element: int) -> tuple[tuple[Row, ...], int]:
    """A row for each run of nodes of one layer, and the number of all weights stored."""
    nodes, fields = graph.nodes, receptive_fields(graph)
    costs: dict[tuple[Op, tuple[Shape, ...]], _Cost] = {}  # deep nets repeat themselves
    rows: list[Row] = []
    all_stored = params = macs = outputs = 0
    last = len(nodes) - 1
    for index, node in enumerate(nodes):
        sources = graph.sources(node)
        cost = costs.get((node.op, sources))
        if cost is None:
            cost = costs[node.op, sources] = _cost(node.op, sources, node.shape)
        all_stored += cost.stored
        params += cost.params
        macs += cost.macs
        outputs += cost.outputs
        layer = node.layer
        if index == last or nodes[index + 1].layer is not layer:
            field = fields[index]
            rows.append(
                Row(
                    name=layer.name,
                    kind=layer.kind,
                    text=layer.text,
                    path=layer.path,
                    output_shape=node.shape,
                    params=params,
                    macs=batch * macs,
                    activation_bytes=batch * element * outputs,
                    receptive_field=field.size,
                    stride=field.stride,
                )
            )
            params = macs = outputs = 0
    return tuple(rows), all_stored
