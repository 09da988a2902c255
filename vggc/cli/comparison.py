"""Several nets beside one another, as table 1 of the paper lays them out.

A column a net. Its blocks stand where the others' blocks of the same stride stand: rows of
the table are levels of resolution relative to the input. Layers that the column to the left
has not are told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TypeAlias, assert_never

from rich.cells import cell_len, set_cell_size

from vggc.analysis.layer_table import num_weight_layers
from vggc.analysis.outline import (
    Branch,
    Join,
    Outline,
    OutlineItem,
    OutlineRepeat,
    OutlineStep,
    Path,
    folded,
)
from vggc.analysis.receptive import PixelSteps
from vggc.analysis.report import Report
from vggc.analysis.traits import Traits, one, steps_of
from vggc.ir.ops import AvgPool2d, MaxPool2d, Pool2d, describe

MANY_ALIKE = 8
"""More equal layers in a row are written once, with their number."""


@dataclass(frozen=True)
class LayerCell:
    """One line of one net; `new` where the net to the left has it not, or less often."""

    text: str = ""
    new: bool = False


@dataclass(frozen=True)
class ComparisonLine:
    """One line of all nets. Where it `spans`, it is the same in each."""

    cells: tuple[LayerCell, ...]
    spans: bool = False
    ends_block: bool = False


@dataclass
class _Column:
    """A net: the lines of its blocks by their stride, and the pooling that ends them."""

    name: str
    depth: str
    everywhere: str
    """What all its convolutions have in common, if anything."""
    input: str
    blocks: dict[PixelSteps, list[LayerCell]] = field(default_factory=dict)
    pools: dict[PixelSteps, LayerCell] = field(default_factory=dict)
    vectors: list[LayerCell] = field(default_factory=list)
    heads: list[list[LayerCell]] = field(default_factory=list)


@dataclass(frozen=True)
class NetComparison:
    """The columns of table 1."""

    columns: tuple[_Column, ...]

    @property
    def widths(self) -> list[int]:
        """The longest line of each column."""
        columns = zip(*self._cells, strict=True)
        return [max(cell_len(cell.text) for cell in cells) for cells in columns]

    @property
    def _cells(self) -> list[tuple[LayerCell, ...]]:
        return [line.cells for line in self.lines()]

    def lines(self) -> list[ComparisonLine]:
        """The rows of the table, its head first."""
        columns = self.columns
        head = [(column.name, column.depth, column.everywhere, column.input) for column in columns]
        *notes, inputs = (
            ComparisonLine(tuple(map(LayerCell, texts))) for texts in zip(*head, strict=True)
        )
        lines = _closed([note for note in notes if any(cell.text for cell in note.cells)])
        lines += _shared([inputs])
        strides = {stride for c in columns for stride in (*c.blocks, *c.pools)}
        for stride in sorted(strides, key=lambda s: (s[0] * s[1], s)):
            lines += _closed(_aligned([column.blocks.get(stride, []) for column in columns]))
            pool = ComparisonLine(
                tuple(column.pools.get(stride, LayerCell()) for column in columns)
            )
            if any(cell.text for cell in pool.cells):
                lines += _shared([pool])
        lines += _shared(_aligned([column.vectors for column in columns], at_bottom=True))
        for heads in zip_longest(*(column.heads for column in columns), fillvalue=[]):
            lines += _closed(_aligned(heads))
        return lines


def compare(nets: Sequence[tuple[Report, Outline]]) -> NetComparison:
    """The table of several nets, in their order."""
    columns = [_column(report, outline) for report, outline in nets]
    return NetComparison(
        tuple(
            _marked(column, columns[index - 1]) if index else column
            for index, column in enumerate(columns)
        )
    )


# ---------------------------------------------------------------- lines


def _aligned(blocks: Sequence[list[LayerCell]], *, at_bottom: bool = False) -> list[ComparisonLine]:
    if at_bottom:
        most = max(map(len, blocks))
        blocks = [[LayerCell()] * (most - len(block)) + block for block in blocks]
    return [ComparisonLine(cells) for cells in zip_longest(*blocks, fillvalue=LayerCell())]


def _closed(lines: list[ComparisonLine]) -> list[ComparisonLine]:
    return [*lines[:-1], replace(lines[-1], ends_block=True)] if lines else []


def _shared(lines: list[ComparisonLine]) -> list[ComparisonLine]:
    """The lines, those that are the same in every column across all of them."""
    for index, line in enumerate(lines):
        texts = {cell.text for cell in line.cells}
        if len(texts) == 1 and len(line.cells) > 1:
            lines[index] = replace(line, spans=True)
    return _closed(lines)


def _marked(column: _Column, left: _Column) -> _Column:
    """The column with what is new in it."""
    blocks, pools, heads = column.blocks.items(), column.pools.items(), column.heads
    heads_before = [*left.heads, *([] for _ in heads)]
    return replace(
        column,
        blocks={stride: _new(cells, left.blocks.get(stride, [])) for stride, cells in blocks},
        pools={
            stride: replace(pool, new=pool.text != left.pools.get(stride, LayerCell()).text)
            for stride, pool in pools
        },
        vectors=_new(column.vectors, left.vectors),
        heads=[_new(head, before) for head, before in zip(heads, heads_before, strict=False)],
    )


def _new(cells: list[LayerCell], before: list[LayerCell]) -> list[LayerCell]:
    left = Counter(cell.text for cell in before)
    found = []
    for cell in cells:
        left[cell.text] -= 1
        found.append(replace(cell, new=left[cell.text] < 0))
    return found


# ---------------------------------------------------------------- as text

StyledText: TypeAlias = list[tuple[str, bool]]
"""A line of text in pieces, and whether each is bold."""
BETWEEN = 3
"""Characters between two cells."""


def parts(widths: Sequence[int], room: int, *, label: int = 0) -> Iterator[slice]:
    """Columns in parts of which each fits into so many characters, if any column does.

    `label` is the width of a column of labels before them.
    """
    start, used = 0, 0
    for index, width in enumerate(widths):
        needs = width + BETWEEN
        if index > start and label + used + needs + 1 > room:
            yield slice(start, index)
            start, used = index, 0
        used += needs
    yield slice(start, len(widths))


def drawn(comparison: NetComparison, room: int, *, marked: bool) -> Iterator[StyledText]:
    """The table in text, cut at the right where even one column has no room.

    What is new is bold and, where `marked`, has a `+` before it.
    """
    lines = comparison.lines()
    mark = 2 if marked else 0
    most = max(room - 4, 1)
    widths = [min(width + mark, most) for width in comparison.widths]
    nothing = ComparisonLine(tuple(LayerCell() for _ in widths), spans=True)
    before = nothing
    for number, line in enumerate(lines):
        if number == 0 or before.ends_block or before.spans != line.spans:
            yield _rule(widths, before, line, "┌┐" if number == 0 else "├┤")
        if line.spans:
            room = sum(widths) + BETWEEN * (len(widths) - 1)
            text = _cut(line.cells[0].text, room)
            before_it = " " * ((room - cell_len(text)) // 2)
            yield [(f"│ {set_cell_size(before_it + text, room)} │", False)]
        else:
            words: StyledText = [("│", False)]
            for cell, width in zip(line.cells, widths, strict=True):
                sign = "+ " if cell.new and cell.text else "  "
                text = _cut(sign[:mark] + cell.text, width)
                words += [
                    (f" {set_cell_size(text, width)} ", cell.new or number == 0),
                    ("│", False),
                ]
            yield words
        before = line
    yield _rule(widths, before, nothing, "└┘")


def _rule(widths: list[int], above: ComparisonLine, below: ComparisonLine, ends: str) -> StyledText:
    crossing = {(False, False): "┼", (False, True): "┴", (True, False): "┬", (True, True): "─"}
    strokes = ("─" * (width + 2) for width in widths)
    inside = crossing[above.spans, below.spans].join(strokes)
    return [(f"{ends[0]}{inside}{ends[1]}", False)]


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


# ---------------------------------------------------------------- one net


def _column(report: Report, outline: Outline) -> _Column:
    words = _Words(Traits.of(outline))
    column = _Column(
        name=report.net,
        depth=f"{num_weight_layers(report)} weight layers",
        everywhere=f"every conv {everywhere}" if (everywhere := words.traits.everywhere) else "",
        input=f"input {describe(report.input)}",
    )
    trunk = outline.trunk
    stride: PixelSteps = (1, 1)
    for item in folded(trunk.path).items[1:]:
        cells = [LayerCell(text) for text in words.lines(item)]
        last = _last(item)
        if len(last.row.output_shape) != 3:
            column.vectors += cells
        elif isinstance(item, OutlineStep) and _is_pool(item) and last.row.stride != stride:
            column.pools[stride] = cells[0]
        else:
            column.blocks.setdefault(last.row.stride, []).extend(cells)
        stride = last.row.stride
    if not outline.is_plain:
        end = LayerCell(f"→ {trunk.head}")
        on_map = len(trunk.shape) == 3
        (column.blocks.setdefault(stride, []) if on_map else column.vectors).append(end)
    for branch in outline.branches[1:]:
        column.heads.append([LayerCell(text) for text in words.head(branch)])
    return column


def _last(item: OutlineItem) -> OutlineStep | Join:
    match item:
        case OutlineRepeat(last=last):
            return _last(last[-1])
        case OutlineStep() | Join():
            return item
        case _:
            assert_never(item)


def _is_pool(step: OutlineStep) -> bool:
    return isinstance(step.ops[0], Pool2d)


@dataclass(frozen=True)
class _Words:
    """How the layers of one net are written."""

    traits: Traits

    def head(self, branch: Branch) -> list[str]:
        path = folded(branch.path)
        found = [f"@{path.source}"]
        for item in path.items:
            found += self.lines(item)
        return [*found, f"→ {branch.head}"]

    def lines(self, item: OutlineItem) -> list[str]:
        """An item as the language has it, a line a path."""
        match item:
            case OutlineStep():
                return [self.word(item)]
            case Join(row=row, paths=paths):
                found = [f"{row.text}("]
                for index, path in enumerate(paths, 1):
                    inner = self.path(path)
                    inner[-1] += "," if index < len(paths) else ")"
                    found += [f"  {line}" for line in inner]
                return found
            case OutlineRepeat(first=first, count=count):
                unit = [line for each in first for line in self.lines(each)]
                if _is_chain(item) and count * len(first) <= MANY_ALIKE:
                    return unit * count
                if _is_chain(item):
                    unit = [" | ".join(unit)]
                if len(first) > 1:
                    unit = [f"({unit[0]}", *(f" {line}" for line in unit[1:])]
                    unit[-1] += ")"
                return [*unit[:-1], f"{unit[-1]} ×{count}"]
            case _:
                assert_never(item)

    def path(self, path: Path) -> list[str]:
        """Layers behind one another on one line, each join on its own."""
        pieces = [[f"@{path.source}"]] if path.source else []
        in_chain = bool(path.source)
        for item in path.items:
            lines = self.lines(item)
            is_chain = _is_chain(item)
            if is_chain:
                lines = [" | ".join(lines)]
            if is_chain and in_chain:
                pieces[-1][-1] += f" | {lines[0]}"
            else:
                pieces.append(lines)
            in_chain = is_chain
        for piece in pieces[:-1]:
            piece[-1] += " |"
        return [line for piece in pieces for line in piece] or ["skip"]

    def word(self, step: OutlineStep) -> str:
        """A layer, with what of it is out of the ordinary."""
        row, op = step.row, step.ops[0]
        said = " ".join([*steps_of(step.ops), *self.traits.manner(step)])
        match op:
            case MaxPool2d(kernel=kernel) | AvgPool2d(kernel=kernel):
                kind = "maxpool" if isinstance(op, MaxPool2d) else "avgpool"
                size = "" if kernel == (2, 2) else one(kernel)
                return f"{kind}{size} {said}".rstrip()
            case _ if row.kind == "softmax":
                return "soft-max"
            case _:
                return f"{row.text} {said}".rstrip()


def _is_chain(item: OutlineItem) -> bool:
    """Whether there is no join in an item."""
    match item:
        case OutlineRepeat(first=first):
            return all(map(_is_chain, first))
        case OutlineStep():
            return True
        case Join():
            return False
        case _:
            assert_never(item)
