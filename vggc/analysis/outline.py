"""A net as a person reads it: chains of layers, joins with their paths, heads, repeats.

A graph knows only which node reads which. Tables and pictures need the way the net is
written; it is found again from the joins that each layer stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from vggc.analysis.report import Report, Row
from vggc.ir.graph import Graph
from vggc.ir.ops import Op, Shape
from vggc_runtime.outputs import HeadKind

MAX_PERIOD = 12
"""How many items in a row are looked at as one that repeats."""


@dataclass(frozen=True)
class OutlineStep:
    """One layer of a net, and the ops that it stands for."""

    row: Row
    ops: tuple[Op, ...]


@dataclass(frozen=True)
class Join:
    """The paths beside one another in a net, and the layer that joins them."""

    row: Row
    op: Op
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class OutlineRepeat:
    """Items of a path that stand several times behind one another, alike but for their names."""

    first: tuple[OutlineItem, ...]
    last: tuple[OutlineItem, ...]
    count: int


@dataclass(frozen=True)
class Path:
    """A chain of layers; `source` names the layer that it begins at, and is empty where that stands
    before it.

    Without items it gives on what it reads.
    """

    source: str
    items: tuple[OutlineItem, ...]


@dataclass(frozen=True)
class Branch:
    """A path of a net that ends in one of its heads."""

    head: str
    kind: HeadKind
    shape: Shape
    path: Path


OutlineItem: TypeAlias = OutlineStep | Join | OutlineRepeat


@dataclass(frozen=True)
class Outline:
    """A whole net as branches: the longest first; the others begin somewhere on it."""

    branches: tuple[Branch, ...]

    @property
    def trunk(self) -> Branch:
        """The longest branch, which the others begin on."""
        return self.branches[0]

    @property
    def is_plain(self) -> bool:
        """Whether the net has one output only, and no name for it."""
        return len(self.branches) == 1 and self.trunk.head == "output"


def outline(graph: Graph, report: Report) -> Outline:
    """The chains, joins and heads of a graph whose report this is."""
    reader = _OutlineReader(graph, {row.name: row for row in report.rows}, set())
    longest = max(graph.heads, key=lambda head: reader.ancestors(head.node))
    branches = []
    for head in (longest, *(head for head in graph.heads if head is not longest)):
        items, source = reader.chain(head.node, ())
        path = Path("" if source is None else graph.nodes[source].layer.name, items)
        branches.append(Branch(head.name, head.kind, graph.nodes[head.node].shape, path))
    return Outline(tuple(branches))


@dataclass(frozen=True)
class _OutlineReader:
    graph: Graph
    rows: dict[str, Row]
    taken: set[int]
    """The nodes that stand in the outline."""

    def ancestors(self, node: int) -> int:
        """The number of nodes that a node needs."""
        needed = {node}
        for index in range(node, -1, -1):
            if index in needed:
                needed.update(self.graph.nodes[index].inputs)
        return len(needed)

    def chain(
        self, end: int, around: tuple[str, ...]
    ) -> tuple[tuple[OutlineItem, ...], int | None]:
        """The items up to a node, as far as they stand within the joins around them; and the
        node that the first of them reads, if any.
        """
        nodes = self.graph.nodes
        items: list[OutlineItem] = []
        at: int | None = end
        while at is not None and at not in self.taken:
            layer = nodes[at].layer
            if layer.path[: len(around)] != around:
                break
            self.taken.add(at)
            if len(nodes[at].inputs) > 1:
                join, at = self.join(at)
                items.append(join)
                continue
            ops = [nodes[at].op]
            while (before := nodes[at].inputs) and nodes[before[0]].layer is layer:
                at = before[0]
                self.taken.add(at)
                ops.append(nodes[at].op)
            items.append(OutlineStep(self.rows[layer.name], tuple(reversed(ops))))
            at = before[0] if before else None
        return tuple(reversed(items)), at

    def join(self, at: int) -> tuple[Join, int]:
        """A join, and the node that its paths fork from."""
        node = self.graph.nodes[at]
        inside = (*node.layer.path, node.layer.name)
        found = [self.chain(end, inside) for end in node.inputs]
        sources = [source for _, source in found if source is not None]
        # What a path refers to stands earlier than the fork, or in the outline already.
        fork = max([source for source in sources if source not in self.taken] or sources)
        paths = [
            Path("" if source in (fork, None) else self.graph.nodes[source].layer.name, items)
            for items, source in found
        ]
        return Join(self.rows[node.layer.name], node.op, tuple(paths)), fork


# ---------------------------------------------------------------- repeats


def folded(path: Path) -> Path:
    """A path with items that repeat as one `OutlineRepeat`, in the paths of its joins, too."""
    return Path(path.source, _folded(tuple(_inside_folded(item) for item in path.items)))


def _inside_folded(item: OutlineItem) -> OutlineItem:
    match item:
        case Join(paths=paths):
            return Join(item.row, item.op, tuple(map(folded, paths)))
        case OutlineStep() | OutlineRepeat():
            return item
        case _:
            assert_never(item)


def _folded(items: tuple[OutlineItem, ...]) -> tuple[OutlineItem, ...]:
    numbers: dict[Any, int] = {}
    alike = [numbers.setdefault(_signature(item), len(numbers)) for item in items]
    result: list[OutlineItem] = []
    at = 0
    while at < len(items):
        period, count = max(
            ((period, _turns(alike, at, period)) for period in range(1, MAX_PERIOD + 1)),
            key=lambda found: (found[0] * found[1] if found[1] > 1 else 1, -found[0]),
        )
        if count == 1:
            result.append(items[at])
            at += 1
            continue
        # A turn begins with a join, where that leaves no fewer of them.
        for later in range(at, at + period):
            if isinstance(items[later], Join) and _turns(alike, later, period) >= count:
                result += items[at:later]
                at = later
                break
        end = at + period * count
        result.append(OutlineRepeat(items[at : at + period], items[end - period : end], count))
        at = end
    return tuple(result)


def _turns(alike: list[int], at: int, period: int) -> int:
    """How often the items from `at` on stand behind one another."""
    end = at + period
    while end < len(alike) and alike[end] == alike[end - period]:
        end += 1
    return max((end - at) // period, 1)


def _signature(item: OutlineItem) -> Any:
    """A value that is equal for items that are alike but for their names and what they can see."""
    match item:
        case OutlineStep(row, ops):
            return row.text, ops, row.output_shape, row.params
        case Join(row, op, paths):
            inside = [(path.source, *map(_signature, path.items)) for path in paths]
            return row.text, op, row.output_shape, tuple(inside)
        case OutlineRepeat(first, _, count):
            return count, tuple(map(_signature, first))
        case _:
            assert_never(item)
