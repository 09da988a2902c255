"""Graph to the calls of a compiled net: what is fused, which layout each value has.

A plan is plain data about one batch size. It knows nothing of targets; the kernels that
carry it out are chosen per workload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Activation,
    Add,
    Conv2d,
    DepthToSpace,
    Flatten,
    GroupNorm,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mul,
    Scale,
    Shape,
    Softmax,
)
from vggc.kernels import workloads
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Layout,
    Map,
    ToNchw,
    ToNhwc,
    Workload,
    workload_of,
)
from vggc.passes.prepare import prepared

INPUT = -1
"""In `Step.reads`: the input of the net, `(N, C, H, W)`."""


@dataclass(frozen=True)
class Step:
    """One kernel call of a plan: it gives the value of the node `name`, of the layer `layer`."""

    name: str
    layer: str
    workload: Workload
    reads: tuple[int, ...]
    weights: tuple[str, ...] = ()

    @property
    def output(self) -> Layout:
        """How the call's value lies in memory."""
        return self.workload.output


@dataclass(frozen=True)
class PlanOutput:
    """What a head of the net gives: the value of a step, `(N, *shape)`."""

    name: str
    step: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """Every kernel call in order, and what the net's heads give of it, the main one first."""

    net: str
    batch: int
    input: Shape
    outputs: tuple[PlanOutput, ...]
    steps: tuple[Step, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of all weights in the order in which the compiled net takes them."""
        return tuple(name for step in self.steps for name in step.weights)


def plan(graph: Graph, batch: int, *, fuse_pools: bool = False) -> Plan:
    """The calls that compute `graph`, folded and with narrow joins, for a batch of images.

    `fuse_pools` lets convolutions pool what they compute, for kernels that can.
    """
    return plan_folded(prepared(graph), batch, fuse_pools=fuse_pools)


def plan_folded(graph: Graph, batch: int, *, fuse_pools: bool = False) -> Plan:
    """The calls that compute `graph`, which is folded and whose joins are narrow, for a batch of
    images.

    `fuse_pools` lets convolutions pool what they compute, for kernels that can.
    """
    return _Planner(graph=graph, batch=batch, fuse_pools=fuse_pools).run()


@dataclass
class _Planner:
    """Walks the nodes in order and notes the step that gives each one's value."""

    graph: Graph
    batch: int
    fuse_pools: bool
    steps: list[Step] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)
    """The step behind each node that has a value in memory."""
    within: set[int] = field(default_factory=set)
    """Nodes whose values stay in the registers of a step that computes more."""

    def run(self) -> Plan:
        for index, node in enumerate(self.graph.nodes):
            if index not in self.values and index not in self.within:
                self.visit(index, node)
        outputs = tuple(
            PlanOutput(head.name, self.rows(head.node), self.graph.nodes[head.node].shape)
            for head in self.graph.heads
        )
        return Plan(self.graph.name, self.batch, self.graph.input, outputs, tuple(self.steps))

    def visit(self, index: int, node: Node) -> None:
        match node.op:
            case Input():
                self.emit(index, ToNhwc(self.map(index)), (INPUT,))
            case Conv2d(groups=groups) as op:
                last, act = self.fused(index)
                pool = self.pooled(last, act) if groups == 1 else None
                if pool is not None:
                    self.within.add(last)
                    last = pool
                (source,) = self.maps(node)
                conv = Conv(
                    input=source,
                    output=self.map(last),
                    kernel=op.kernel,
                    stride=op.stride,
                    padding=op.padding[:2],
                    act=act,
                    groups=groups,
                    pool=pool is not None,
                    dilation=op.dilation,
                )
                self.emit(last, conv, self.reads(node), node)
            case Scale():
                last, act = self.fused(index)
                (source,) = self.maps(node)
                groups = source.channels
                conv = Conv(
                    input=source,
                    output=self.map(last),
                    kernel=(1, 1),
                    stride=(1, 1),
                    padding=(0, 0),
                    act=act,
                    groups=groups,
                )
                self.emit(last, conv, self.reads(node), node)
            case Linear(features=features):
                last, act = self.fused(index)
                (read,) = self.reads(node)
                layout = self.steps[read].output
                map_ = layout if isinstance(layout, Map) else None
                in_features = self.graph.source(node)[0]
                dense = Dense(self.batch, in_features, features, act, map_)
                self.emit(last, dense, (read,), node)
            case Add() | Mul():
                last, act = self.fused(index)
                join = workloads.Add if isinstance(node.op, Add) else workloads.Mul
                joined = join(self.maps(node), self.map(last), act)
                self.emit(last, joined, self.reads(node))
            case GroupNorm(groups=groups, eps=eps):
                last, act = self.fused(index)
                (source,) = self.maps(node)
                group_norm = workloads.GroupNorm(
                    input=source, output=self.map(last), groups=groups, eps=eps, act=act
                )
                self.emit(last, group_norm, self.reads(node), node)
            case LayerNorm(eps=eps):
                last, act = self.fused(index)
                (source,) = self.maps(node)
                layer_norm = workloads.LayerNorm(source, self.map(last), eps, act)
                self.emit(last, layer_norm, self.reads(node), node)
            case DepthToSpace(block=block, crop=(top, left, _, _), groups=groups):
                last, act = self.fused(index)
                (source,) = self.maps(node)
                places = workloads.DepthToSpace(
                    input=source,
                    output=self.map(last),
                    block=block,
                    offset=(top, left),
                    groups=groups,
                    act=act,
                )
                self.emit(last, places, self.reads(node))
            case Flatten():
                self.flatten(index, node)
            case Softmax():
                softmax = workloads.Softmax(self.batch, node.shape[0])
                self.emit(index, softmax, self.reads(node))
            case op:
                alone = workload_of(op, self.maps(node), self.map(index))
                self.emit(index, alone, self.reads(node), node)

    def emit(
        self, index: int, workload: Workload, reads: tuple[int, ...], weighted: Node | None = None
    ) -> None:
        node = self.graph.nodes[index]
        weights = tuple(self.graph.weights(weighted)) if weighted else ()
        self.values[index] = len(self.steps)
        layer = (weighted or node).layer.name
        self.steps.append(Step(node.name, layer, workload, reads, weights))

    def flatten(self, index: int, node: Node) -> None:
        """A vector in C, H, W order, unless all who read it can read the map itself."""
        (read,) = self.reads(node)
        layout = self.steps[read].output
        if (
            isinstance(layout, Map)
            and not _is_rows(layout)
            and (layout.halo or not self.only_linear_reads(index))
        ):
            self.emit(index, ToNchw(layout), (read,))
        else:
            self.values[index] = read

    def rows(self, index: int) -> int:
        """The step that gives a node's value in the order in which a caller expects it."""
        layout = self.steps[self.values[index]].output
        if isinstance(layout, Map) and not _is_rows(layout):
            self.emit(index, ToNchw(layout), (self.values[index],))
        return self.values[index]

    def reads(self, node: Node) -> tuple[int, ...]:
        return tuple(self.values[read] for read in node.inputs)

    def maps(self, node: Node) -> tuple[Map, ...]:
        """What a node reads, as maps; a vector is a map of one row and one column."""
        return tuple(as_map(self.steps[read].output) for read in self.reads(node))

    def map(self, index: int) -> Map:
        """The map that a node's value is written to, with the halo that its readers need."""
        node = self.graph.nodes[index]
        if len(node.shape) == 1:
            return Map(batch=self.batch, height=1, width=1, channels=node.shape[0])
        channels, height, width = node.shape
        halo = max((self.halo(reader) for reader in self.readers[index]), default=0)
        return Map(batch=self.batch, height=height, width=width, channels=channels, halo=halo)

    def halo(self, reader: int) -> int:
        """How far the windows of a node that reads a map reach beyond it, where it is one that
        reads the zeros around it.
        """
        node = self.graph.nodes[reader]
        if not isinstance(node.op, Conv2d):
            return 0
        source, (_, *count) = self.graph.source(node), node.shape
        window = node.op.window(source)
        return max(0, *window.beyond((source[1], source[2]), (count[0], count[1])))

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        return self.graph.readers()

    @cached_property
    def head_nodes(self) -> frozenset[int]:
        return frozenset(head.node for head in self.graph.heads)

    def fused(self, index: int) -> tuple[int, Activation | None]:
        """The node whose value a kernel gives, and the activation that makes it: the only reader of
        the kernel's node, if that is an activation.
        """
        reader = self.only_reader(index)
        if reader is not None and isinstance(op := self.graph.nodes[reader].op, Activation):
            return reader, op
        return index, None

    def pooled(self, index: int, act: Activation | None) -> int | None:
        """The pool that a convolution whose value is that of node `index` can take in."""
        reader = self.only_reader(index) if self.fuse_pools else None
        if reader is None or not (act is None or act.rises):
            return None
        node = self.graph.nodes[reader]
        halves = tuple(extent // 2 for extent in self.graph.nodes[index].shape[1:])
        match node.op:
            case MaxPool2d(kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0)):
                return reader if node.shape[1:] == halves else None
            case _:
                return None

    def only_reader(self, index: int) -> int | None:
        """The one node that reads a node's value, if no other and no head does."""
        readers = self.readers[index]
        return readers[0] if len(readers) == 1 and index not in self.head_nodes else None

    def only_linear_reads(self, index: int) -> bool:
        readers = self.readers[index]
        return (
            bool(readers)
            and index not in self.head_nodes
            and all(isinstance(self.graph.nodes[reader].op, Linear) for reader in readers)
        )


def _is_rows(map_: Map) -> bool:
    """Whether the map is a vector an image, as it lies in memory."""
    return map_.shape == (map_.batch, 1, 1, map_.channels)


def as_map(layout: Layout) -> Map:
    """A layout as a map; rows are maps of one pixel."""
    if isinstance(layout, Map):
        return layout
    batch, *features = layout
    return Map(batch=batch, height=1, width=1, channels=prod(features))
