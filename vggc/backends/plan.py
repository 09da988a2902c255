"""Graph to the calls of a compiled net: what is fused, which layout each value has.

A plan is plain data about one batch size. It knows nothing of targets; the kernels that
carry it out are chosen per workload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TypeAlias, assert_never

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Shape,
    Softmax,
)
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Lrn,
    Map,
    MaxPool,
    Relu,
    ToNchw,
    ToNhwc,
    Workload,
)
from vggc.kernels.workloads import Softmax as SoftmaxWorkload
from vggc.passes.inference import drop_dropout

Layout: TypeAlias = Map | Shape
"""How a value lies in memory: a map, or rows of a plain shape, batch first."""

INPUT = -1
"""In `Step.reads`: the input of the net, `(N, C, H, W)`."""


@dataclass(frozen=True)
class Step:
    """One kernel call: it gives the value of the node `name`, of the layer `layer`."""

    name: str
    layer: str
    workload: Workload
    reads: int
    weights: tuple[str, ...] = ()

    @property
    def output(self) -> Layout:
        return output_layout(self.workload)


@dataclass(frozen=True)
class Plan:
    """Every call in order; the last gives the output of the net."""

    net: str
    batch: int
    input: Shape
    output: Shape
    steps: tuple[Step, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of all weights in the order in which the compiled net takes them."""
        return tuple(name for step in self.steps for name in step.weights)


def buffer_shape(layout: Layout) -> Shape:
    return layout.shape if isinstance(layout, Map) else layout


def output_layout(workload: Workload) -> Layout:
    """What a workload writes."""
    match workload:
        case Conv() | MaxPool() | Lrn() | Relu() | ToNhwc():
            return workload.output
        case Dense():
            return (workload.batch, workload.out_features)
        case SoftmaxWorkload():
            return (workload.batch, workload.features)
        case ToNchw(input=map_):
            return (map_.batch, map_.channels, map_.height, map_.width)
        case _:
            assert_never(workload)


def input_shape(workload: Workload) -> Shape:
    """The shape of the buffer that a workload reads."""
    match workload:
        case Conv() | MaxPool() | Lrn() | Relu() | ToNchw():
            return workload.input.shape
        case Dense(source=Map() as source):
            return source.shape
        case Dense():
            return (workload.batch, workload.in_features)
        case SoftmaxWorkload():
            return (workload.batch, workload.features)
        case ToNhwc(output=map_):
            return (map_.batch, map_.channels, map_.height, map_.width)
        case _:
            assert_never(workload)


def plan(graph: Graph, batch: int) -> Plan:
    """The calls that compute `graph` for a batch of images."""
    planner = _Planner(drop_dropout(graph), batch)
    return planner.run()


@dataclass
class _Planner:
    """Walks the nodes in order and notes the step that gives each one's value."""

    graph: Graph
    batch: int
    steps: list[Step] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)
    """The step behind each node that has a value in memory."""

    def run(self) -> Plan:
        for index, node in enumerate(self.graph.nodes):
            if index not in self.values:
                self.visit(index, node)
        last = self.values[len(self.graph.nodes) - 1]
        layout = self.layout(last)
        if isinstance(layout, Map):
            self.emit(len(self.graph.nodes) - 1, ToNchw(layout), last)
        return Plan(
            self.graph.name, self.batch, self.graph.input, self.graph.output, tuple(self.steps)
        )

    def visit(self, index: int, node: Node) -> None:
        if isinstance(node.op, Input):
            self.emit(index, ToNhwc(self.map(index)), INPUT)
            return
        read = self.values[node.inputs[0]]
        layout = self.layout(read)
        match node.op:
            case Conv2d(kernel=kernel, stride=stride, padding=padding):
                assert isinstance(layout, Map)
                last, relu = self.fused_relu(index)
                conv = Conv(layout, self.map(last), kernel, stride, padding, relu)
                self.emit(last, conv, read, weighted=node)
            case Linear(features=features):
                last, relu = self.fused_relu(index)
                source = layout if isinstance(layout, Map) else None
                in_features = self.graph.source(node)[0]
                dense = Dense(self.batch, in_features, features, relu, source)
                self.emit(last, dense, read, weighted=node)
            case MaxPool2d(kernel=kernel, stride=stride):
                assert isinstance(layout, Map)
                self.emit(index, MaxPool(layout, self.map(index), kernel, stride), read)
            case LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
                assert isinstance(layout, Map)
                self.emit(index, Lrn(layout, self.map(index), size, alpha, beta, k), read)
            case ReLU():
                self.emit(index, Relu(self.as_map(layout), self.map(index)), read)
            case Flatten():
                self.flatten(index, layout, read)
            case Softmax():
                self.emit(index, SoftmaxWorkload(self.batch, node.shape[0]), read)
            case Dropout():
                raise AssertionError("dropout is dropped before a graph is planned")
            case _:
                assert_never(node.op)

    def emit(
        self, index: int, workload: Workload, reads: int, weighted: Node | None = None
    ) -> None:
        node = self.graph.nodes[index]
        weights = tuple(self.graph.weights(weighted)) if weighted else ()
        self.values[index] = len(self.steps)
        self.steps.append(Step(node.name, node.layer.name, workload, reads, weights))

    def flatten(self, index: int, layout: Layout, read: int) -> None:
        """A vector in C, H, W order, unless all who read it can read the map itself."""
        if isinstance(layout, Map) and not self.only_linear_reads(index):
            self.emit(index, ToNchw(layout), read)
        else:
            self.values[index] = read

    def layout(self, step: int) -> Layout:
        return self.steps[step].output

    def as_map(self, layout: Layout) -> Map:
        """A vector is a map of one row and one column."""
        if isinstance(layout, Map):
            return layout
        batch, *features = layout
        return Map(batch, 1, 1, prod(features))

    def map(self, index: int) -> Map:
        """The map that a node's value is written to, with the halo that its readers need."""
        node = self.graph.nodes[index]
        if len(node.shape) == 1:
            return Map(self.batch, 1, 1, node.shape[0])
        channels, height, width = node.shape
        halo = max((self.halo(reader) for reader in self.readers[index]), default=0)
        return Map(self.batch, height, width, channels, halo)

    def halo(self, reader: int) -> int:
        op = self.graph.nodes[reader].op
        return max(op.padding) if isinstance(op, Conv2d) else 0

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        return self.graph.readers()

    def fused_relu(self, index: int) -> tuple[int, bool]:
        """The node whose value a convolution or dense layer gives: its ReLU's, if it can."""
        match self.readers[index]:
            case (reader,) if isinstance(self.graph.nodes[reader].op, ReLU):
                return reader, True
            case _:
                return index, False

    def only_linear_reads(self, index: int) -> bool:
        readers = self.readers[index]
        return bool(readers) and all(
            isinstance(self.graph.nodes[reader].op, Linear) for reader in readers
        )
