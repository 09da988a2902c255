"""Where everything stands in the picture of a net.

Every layer is a block: as high and as deep as its map has rows and columns, as wide as it
has channels, both to their square roots (in proportion a 7×7 map beside one of 224×224
would be a speck). Paths of a join stand above one another; what is too long for a row goes
on in the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from math import sqrt
from typing import Literal, TypeAlias, assert_never

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
from vggc.analysis.report import Report, Row
from vggc.analysis.traits import Traits, steps_of
from vggc.ir.ops import Add, Mul, Op, Shape
from vggc.pictures.shapes import (
    Circle,
    Line,
    Mark,
    Picture,
    Polygon,
    Rectangle,
    Text,
    shortened,
    text_width,
)
from vggc.support.diagnostics import Diagnostic, UserError

MARGIN = 32.0
WIDEST_ROW, NARROWEST_ROW = 1136.0, 840.0
"""A page of 1200 pixels; and room for the words below a short net."""
FEW_BLOCKS = 48
"""Up to so many blocks every one is drawn; of more, those that repeat are drawn once."""
MAX_BLOCKS = 400

HIGHEST, WIDEST = 112.0, 84.0
LEAST = 2.5
SLANT_X, SLANT_Y = 0.32, 0.22
"""How far a block's depth runs to the right and upwards, of its length."""
PLATE = 4.0
SIGN_RADIUS = 9.0

NAME_SIZE, LABEL_SIZE, LEADING = 11.0, 10.0, 12.5
LABEL_ROOM = 130.0
CELL_GAP, PATH_GAP, FORK = 14.0, 16.0, 14.0
BAND_PAD, BAND_GAP, BAND_HEAD = 8.0, 8.0, 22.0
WIDEST_PATH = 900.0
ROW_GAP = 26.0
NEARLY_FULL = 0.7

INK, FAINT, WIRE, BAND, ACCENT = "#1f2933", "#67727e", "#8a949e", "#f4f5f7", "#6b4fa0"
BoxLook: TypeAlias = Literal["input", "conv", "pool", "fc", "join", "resize", "plain"]
COLOURS: dict[BoxLook, str] = {
    "input": "#d5d9de",
    "conv": "#8db0d6",
    "pool": "#e0a182",
    "fc": "#93c09e",
    "join": "#b9a8d4",
    "resize": "#dcc27e",
    "plain": "#b8bec5",
}
MEANINGS: dict[BoxLook, str] = {
    "input": "input",
    "conv": "convolution",
    "pool": "pooling",
    "fc": "fully connected",
    "join": "join",
    "resize": "upsampling, padding",
    "plain": "shape unchanged, in place",
}
LOOKS: dict[str, BoxLook] = {
    "input": "input",
    "conv": "conv",
    "deconv": "conv",
    "pool": "pool",
    "avgpool": "pool",
    "stochasticpool": "pool",
    "gap": "pool",
    "upsample": "resize",
    "pad": "resize",
    "fc": "fc",
    "boxes": "fc",
    "concat": "join",
    "add": "join",
    "mul": "join",
}
SIGNS: dict[type[Op], str] = {Add: "+", Mul: "×"}
"""The joins that are a circle with a sign."""


class TooManyBlocks(Diagnostic):
    title = "a picture of {net} would show {blocks:,} blocks"
    label = "it would be unreadable: {most} are drawn at most, a repeat counting once"
    help = "`vggc summary` lists every layer"
    net: str
    blocks: int
    most: int


@dataclass(frozen=True)
class _Drawn:
    """A part of the picture: from x = 0 to `width`, the line that data runs along at y = 0.

    One of several lines has a line for its data itself, and gives it on at y = `exit`.
    """

    width: float
    above: float
    below: float
    marks: tuple[Mark, ...]
    exit: float = 0.0


@dataclass(frozen=True)
class _Band:
    """Neighbours of one resolution on one row."""

    title: str
    parts: tuple[_Part, ...]
    least: float = 0.0

    @property
    def width(self) -> float:
        title = text_width(self.title, LABEL_SIZE, bold=True)
        return max(max(self.inside, title) + 2 * BAND_PAD, self.least)

    @property
    def inside(self) -> float:
        return sum(part.width for part in self.parts)

    @property
    def margin(self) -> float:
        """What is free before the first part, and behind the last."""
        return (self.width - self.inside) / 2


@dataclass(frozen=True)
class _Part:
    """What is never torn apart: an item, or words."""

    item: OutlineItem | str
    width: float
    shape: Shape


def layout(outline: Outline, report: Report) -> Picture:
    """The picture of a net.

    Raises: UserError where it would hold too much to be read.
    """
    blocks = sum(_count(branch.path) for branch in outline.branches)
    if blocks > FEW_BLOCKS:
        branches = tuple(replace(b, path=folded(b.path)) for b in outline.branches)
        outline = Outline(branches)
        blocks = sum(_count(branch.path) for branch in branches)
    if blocks > MAX_BLOCKS:
        raise UserError(TooManyBlocks(report.net, blocks, MAX_BLOCKS))
    return _Layout.of(outline, report).picture()


def _count(path: Path) -> int:
    """How many blocks are drawn."""
    return sum(map(_count_of, path.items))


def _count_of(item: OutlineItem) -> int:
    match item:
        case OutlineStep():
            return 1
        case Join(paths=paths):
            return 1 + sum(map(_count, paths))
        case OutlineRepeat(first=first):
            return sum(map(_count_of, first))
        case _:
            assert_never(item)


def _rows(path: Path) -> list[Row]:
    """The rows of all blocks that are drawn."""
    return [row for item in path.items for row in _rows_of(item)]


def _rows_of(item: OutlineItem) -> list[Row]:
    match item:
        case OutlineStep(row):
            return [row]
        case Join(row, _, paths):
            return [row, *(inner for path in paths for inner in _rows(path))]
        case OutlineRepeat(first=first):
            return [row for inner in first for row in _rows_of(inner)]
        case _:
            assert_never(item)


def _references(path: Path, reader: str) -> list[tuple[str, str]]:
    """Each layer that is referred to, and who does."""
    found = [(path.source, reader)] if path.source else []
    for item in path.items:
        for inner in item.first if isinstance(item, OutlineRepeat) else (item,):
            if isinstance(inner, Join):
                for each in inner.paths:
                    found += _references(each, inner.row.name)
    return found


@dataclass
class _Layout:
    outline: Outline
    report: Report
    most_rows: int
    most_channels: int
    readers: dict[str, list[str]]
    """For each layer that something refers to, the names of what does."""
    looks: set[BoxLook]
    traits: Traits
    repeats: bool = False
    marks: list[Mark] = field(default_factory=list)

    @classmethod
    def of(cls, outline: Outline, report: Report) -> _Layout:
        rows = [row for branch in outline.branches for row in _rows(branch.path)]
        readers: dict[str, list[str]] = {}
        for branch in outline.branches:
            for source, reader in _references(branch.path, branch.head):
                readers.setdefault(source, []).append(reader)
        return cls(
            outline,
            report,
            max(side for row in rows for side in (*row.output_shape[1:], 1)),
            max(row.output_shape[0] for row in rows),
            readers,
            {LOOKS.get(row.kind, "plain") for row in rows},
            Traits.of(outline),
        )

    # ------------------------------------------------------------ the scale

    def side(self, count: int) -> float:
        """Pixels of rows or columns."""
        return max(HIGHEST * sqrt(count / self.most_rows), LEAST)

    def thickness(self, channels: int) -> float:
        return max(WIDEST * sqrt(channels / self.most_channels), LEAST)

    # ------------------------------------------------------------ the page

    def picture(self) -> Picture:
        parts = [self.parts(branch) for branch in self.outline.branches]
        widest = max(part.width for branch in parts for part in branch)
        one_row = max(_length(_bands(branch)) for branch in parts)
        room = max(min(one_row, WIDEST_ROW), NARROWEST_ROW, widest + 2 * BAND_PAD)
        y = self.heading(room)
        for branch, its_parts in zip(self.outline.branches, parts, strict=True):
            if branch is not self.outline.trunk:
                y += 26
                title = f"head {branch.head}, from {branch.path.source}"
                self.marks.append(
                    Text(x=MARGIN, y=y, text=title, size=NAME_SIZE, colour=INK, bold=True)
                )
                y += 8
            y = self.rows(its_parts, room, y)
        y = self.legend(y)
        title = f"{self.report.net}: layers to scale"
        return Picture(title, room + 2 * MARGIN, y + 10, tuple(self.marks))

    def heading(self, room: float) -> float:
        totals, shape = self.report.totals, self.report.input
        words = [
            f"{totals.params:,} parameters",
            f"{totals.macs:,} MACs",
            f"input {_spaced(shape)}",
            *([f"batch {self.report.batch}"] if self.report.batch > 1 else []),
            *([f"every conv {self.traits.everywhere}"] if self.traits.everywhere else []),
        ]
        name = shortened(self.report.net, 20, room, bold=True)
        self.marks.append(Text(x=MARGIN, y=38, text=name, size=20, colour=INK, bold=True))
        self.marks.append(Text(x=MARGIN, y=58, text="  ·  ".join(words), size=12, colour=FAINT))
        return 74

    def parts(self, branch: Branch) -> list[_Part]:
        """What stands in the rows of a branch, in order."""
        found: list[_Part] = []
        source, shape = branch.path.source, branch.shape
        if source:
            drawn = _tag(f"@{source}")
            first = branch.path.items[:1]
            found.append(_Part(f"@{source}", drawn.width, _shape(first[0]) if first else shape))
        for item in branch.path.items:
            found.append(_Part(item, self.draw(item, item, 0).width, _shape(item)))
        if not self.outline.is_plain:
            words = f"{branch.head}: {branch.kind}"
            found.append(_Part(words, _tag(words).width, shape))
        return found

    def rows(self, parts: list[_Part], room: float, y: float) -> float:
        """Draws a branch from `y` on; where it ends."""
        rows = [_spread(row, room) for row in _broken(_bands(parts), room)]
        exit_: tuple[float, float] | None = None
        for row in rows:
            if exit_ is not None:
                y += ROW_GAP
            drawn = [self.band(band, row) for band in row]
            above = max(each.above for each in drawn)
            height = BAND_HEAD + above + max(each.below for each in drawn) + BAND_PAD
            axis = y + BAND_HEAD + above
            x = MARGIN
            bands: list[Mark] = []
            inside: list[Mark] = []
            for band, each in zip(row, drawn, strict=True):
                bands.append(
                    Rectangle(
                        x=x, y=y, width=band.width, height=height, fill=BAND, stroke=BAND, radius=5
                    )
                )
                title = Text(
                    x=x + BAND_PAD,
                    y=y + 15,
                    text=band.title,
                    size=LABEL_SIZE,
                    colour=FAINT,
                    bold=True,
                )
                bands.append(title)
                inside += _moved(each.marks, x + band.margin, axis)
                x += band.width + BAND_GAP
            end = x - BAND_GAP
            if exit_ is not None:
                between = y - ROW_GAP / 2
                points = (
                    exit_,
                    (exit_[0] + 12, exit_[1]),
                    (exit_[0] + 12, between),
                    (MARGIN - 12, between),
                    (MARGIN - 12, axis),
                    (MARGIN, axis),
                )
                bands.append(Line(points, WIRE))
            # The first and the last row begin and end at a block, the others at their borders.
            start = MARGIN + (row[0].margin + row[0].parts[0].width / 2 if exit_ is None else 0)
            stop = end - (row[-1].margin + row[-1].parts[-1].width / 2 if row is rows[-1] else 0)
            self.marks += [*bands, Line(((start, axis), (stop, axis)), WIRE), *inside]
            exit_ = (end, axis)
            y += height
        return y

    def band(self, band: _Band, row: list[_Band]) -> _Drawn:
        items = [part.item for each in row for part in each.parts]
        floor = self.floor(items)
        drawn = []
        for part in band.parts:
            if isinstance(part.item, str):
                each = _tag(part.item)
            else:
                each = self.draw(part.item, part.item, floor)
            spare = (part.width - each.width) / 2
            drawn.append(replace(each, width=part.width, marks=(*_moved(each.marks, spare, 0),)))
        return _beside(drawn)

    def legend(self, y: float) -> float:
        y += 34
        x = MARGIN
        for look in COLOURS:
            if look in self.looks:
                colour = COLOURS[look]
                self.marks.append(
                    Rectangle(
                        x=x,
                        y=y - 9,
                        width=11,
                        height=11,
                        fill=colour,
                        stroke=_mixed(colour, INK, 0.4),
                        radius=2,
                    )
                )
                self.marks.append(
                    Text(x=x + 17, y=y, text=MEANINGS[look], size=LABEL_SIZE, colour=INK)
                )
                x += 17 + text_width(MEANINGS[look], LABEL_SIZE) + 18
        y += 20
        x = MARGIN
        for what, length, counts in (
            ("rows and columns", self.side, (self.most_rows, self.most_rows // 4)),
            (
                "channels and features",
                self.thickness,
                (self.most_channels, self.most_channels // 4),
            ),
        ):
            for count in counts:
                if count >= 1:
                    bar = length(count)
                    ends = ((x, y - 7), (x, y - 1), (x, y - 4), (x + bar, y - 4))
                    self.marks.append(Line((*ends, (x + bar, y - 7), (x + bar, y - 1)), INK))
                    self.marks.append(
                        Text(x=x + bar + 6, y=y, text=f"{count:,}", size=LABEL_SIZE, colour=INK)
                    )
                    x += bar + 6 + text_width(f"{count:,}", LABEL_SIZE) + 12
            self.marks.append(Text(x=x - 6, y=y, text=what, size=LABEL_SIZE, colour=FAINT))
            x += text_width(what, LABEL_SIZE) + 24
        y += 18
        notes = [
            "Heights and depths go with the square root of rows and columns, widths with that of"
            f" channels; nothing is thinner than {LEAST:g} px.",
            "Under each block: name, layer, channels × rows × columns, parameters, and the"
            " receptive field: how many pixels of the input, along each side, one value sees.",
            "Hidden layers with weights end in a relu unless they say otherwise; outputs do not.",
        ]
        if self.repeats:
            notes.append("A dashed frame with ×n stands n times; parameters are those of each.")
        for note in notes:
            self.marks.append(Text(x=MARGIN, y=y, text=note, size=LABEL_SIZE, colour=FAINT))
            y += 15
        return y

    # ------------------------------------------------------------ items

    def floor(self, items: list[OutlineItem | str]) -> float:
        """Where the labels of neighbours begin, below the lowest of their blocks."""
        lows = [0.0]
        for item in items:
            match item:
                case str():
                    pass
                case OutlineStep(row) | Join(row):
                    lows.append(self.height(row.output_shape, item) / 2)
                case OutlineRepeat(first=first):
                    lows.append(self.floor([*first]))
                case _:
                    assert_never(item)
        return max(lows)

    def height(self, shape: Shape, item: OutlineStep | Join) -> float:
        if isinstance(item, Join) and type(item.op) in SIGNS:
            return 2 * SIGN_RADIUS
        return self.side(shape[1] if len(shape) == 3 else 1)

    def draw(self, first: OutlineItem, last: OutlineItem, floor: float) -> _Drawn:
        """An item; `last` is the same on the last turn of a repeat around it."""
        match first, last:
            case OutlineStep(), OutlineStep():
                return self.block(first, last, floor)
            case Join(), Join():
                paths = self.paths(first, last)
                return _beside([paths, self.block(first, last, floor)])
            case OutlineRepeat(), OutlineRepeat():
                return self.repeat(OutlineRepeat(first.first, last.last, first.count), floor)
            case _:
                raise AssertionError("items of unequal turns")

    def sequence(
        self, first: tuple[OutlineItem, ...], last: tuple[OutlineItem, ...]
    ) -> list[_Drawn]:
        floor = self.floor([*first])
        return [self.draw(a, b, floor) for a, b in zip(first, last, strict=True)]

    def repeat(self, item: OutlineRepeat, floor: float) -> _Drawn:
        self.repeats = True
        pairs = zip(item.first, item.last, strict=True)
        inside = _beside([self.draw(a, b, floor) for a, b in pairs])
        pad, head = 6.0, 16.0
        width = inside.width + 2 * pad
        frame = Rectangle(
            x=pad / 2,
            y=-inside.above - head,
            width=width - pad,
            height=inside.above + inside.below + head + pad,
            fill="none",
            stroke=ACCENT,
            radius=5,
            dashed=True,
        )
        badge = Text(
            x=width - pad - 4,
            y=-inside.above - head + 13,
            text=f"×{item.count}",
            size=NAME_SIZE + 1,
            colour=ACCENT,
            anchor="end",
            bold=True,
        )
        marks = (*_moved(inside.marks, pad, 0), frame, badge)
        return _Drawn(width, inside.above + head, inside.below + pad, marks)

    def paths(self, first: Join, last: Join) -> _Drawn:
        """The paths of a join above one another, forked from the left, joined at the right."""
        drawn = [self.path(a, b) for a, b in zip(first.paths, last.paths, strict=True)]
        axes = [0.0]
        for upper, lower in pairwise(drawn):
            axes.append(axes[-1] + upper.below + PATH_GAP + lower.above)
        middle = (axes[0] + axes[-1]) / 2
        axes = [axis - middle for axis in axes]
        width = max(each.width for each in drawn) + 2 * FORK
        left, right = FORK / 2, width - FORK / 2
        forked = [axis for axis, path in zip(axes, first.paths, strict=True) if not path.source]
        ends_at = [0.0, *(axis + each.exit for axis, each in zip(axes, drawn, strict=True))]
        wires: list[Mark] = [Line(((right, min(ends_at)), (right, max(ends_at))), WIRE)]
        if forked:
            ends = ((left, min(0.0, *forked, 0.0)), (left, max(0.0, *forked, 0.0)))
            wires.append(Line(ends, WIRE))
        blocks: list[Mark] = []
        for axis, path, each in zip(axes, first.paths, drawn, strict=True):
            begin = FORK + CELL_GAP if path.source else left
            if each.exit:
                wires.append(Line(((begin, axis), (FORK, axis)), WIRE))
                begin, axis_out = FORK + each.width, axis + each.exit
                wires.append(Line(((begin, axis_out), (right, axis_out)), WIRE))
            else:
                wires.append(Line(((begin, axis), (right, axis)), WIRE))
            blocks += _moved(each.marks, FORK, axis)
        # The row's own line runs through here: it is covered between fork and join.
        cover = Rectangle(x=left, y=-1, width=right - left, height=2, fill=BAND, stroke=BAND)
        return _Drawn(
            width,
            drawn[0].above - axes[0],
            drawn[-1].below + axes[-1],
            (cover, *wires, *blocks),
        )

    def path(self, first: Path, last: Path) -> _Drawn:
        tags = [_tag(f"@{first.source}")] if first.source else []
        if not first.items:
            words = "" if first.source else "skip"
            label = Text(x=CELL_GAP / 2, y=-4, text=words, size=LABEL_SIZE, colour=FAINT)
            size = text_width(words, LABEL_SIZE) + CELL_GAP
            return _beside([*tags, _Drawn(size, 12, 6, (label,) if words else ())])
        return _lines([*tags, *self.sequence(first.items, last.items)])

    # ------------------------------------------------------------ blocks

    def block(self, first: OutlineStep | Join, last: OutlineStep | Join, floor: float) -> _Drawn:
        """The rectangle of one layer, and its labels."""
        row, shape = first.row, first.row.output_shape
        look = LOOKS.get(row.kind, "plain")
        labels = self.labels(row, last.row, look, self.options(first))
        height = self.height(shape, first)
        deep = self.side(shape[2] if len(shape) == 3 else 1)
        thick = PLATE if look == "plain" else self.thickness(shape[0])
        sign = SIGNS.get(type(first.op), "") if isinstance(first, Join) else ""
        across, up = (0.0, 0.0) if sign else (SLANT_X * deep, SLANT_Y * deep)
        thick = 2 * SIGN_RADIUS if sign else thick
        body = thick + across
        width = max(body, *(text_width(t.text, t.size, t.bold) for t in labels)) + CELL_GAP
        left = (width - body) / 2
        tip = _tip(row)
        marks: list[Mark] = []
        if sign:
            colour = COLOURS[look]
            edge = _mixed(colour, INK, 0.4)
            marks.append(Circle(width / 2, 0, SIGN_RADIUS, colour, edge))
            marks.append(
                Text(x=width / 2, y=4.6, text=sign, size=14, colour=INK, anchor="middle", bold=True)
            )
        else:
            marks += _cuboid(left, -height / 2, thick, height, across, up, COLOURS[look], tip)
        top = floor + 6
        for number, label in enumerate(labels, 1):
            marks.append(replace(label, x=width / 2, y=top + number * LEADING - 3))
        return _Drawn(width, height / 2 + up, top + len(labels) * LEADING, tuple(marks))

    def options(self, item: OutlineStep | Join) -> list[str]:
        """What of a layer neither its word nor the heading says, in lines that have room."""
        if isinstance(item, Join):
            return []
        lines: list[str] = []
        for option in (*steps_of(item.ops), *self.traits.manner(item)):
            longer = f"{lines[-1]} {option}" if lines else option
            if lines and text_width(longer, LABEL_SIZE) <= LABEL_ROOM:
                lines[-1] = longer
            else:
                lines.append(option)
        return lines

    def labels(self, row: Row, last: Row, look: BoxLook, options: list[str]) -> list[Text]:
        """The lines under a block, their places still open."""
        names = [row.name] if row is last else [f"{row.name} …", last.name]
        if text_width(" ".join(names), NAME_SIZE, bold=True) <= LABEL_ROOM:
            names = [" ".join(names)]
        lines = [(name, NAME_SIZE, INK, True) for name in names]
        if row.text != row.kind or row.kind not in row.name:
            lines.append((row.text, LABEL_SIZE, FAINT, False))
        lines += [(option, LABEL_SIZE, FAINT, False) for option in options]
        if look != "plain":
            lines.append((_spaced(row.output_shape), LABEL_SIZE, INK, False))
        if row.params:
            each = "params" if row is last else "each"
            lines.append((f"{row.params:,} {each}", LABEL_SIZE, INK, False))
        if look not in ("plain", "input"):
            seen = [" × ".join(map(str, dict.fromkeys(r.receptive_field))) for r in (row, last)]
            lines.append((f"field {' … '.join(dict.fromkeys(seen))}", LABEL_SIZE, INK, False))
        for reader in self.readers.get(row.name, ()):
            lines.append((f"→ {reader}", LABEL_SIZE, ACCENT, False))
        return [
            Text(
                x=0,
                y=0,
                text=shortened(text, size, LABEL_ROOM, bold),
                size=size,
                colour=colour,
                anchor="middle",
                bold=bold,
            )
            for text, size, colour, bold in lines
        ]


def _tip(row: Row) -> str:
    lines = [f"{row.name}: {row.text}", f"output {_spaced(row.output_shape)}"]
    lines += [f"{row.params:,} parameters"] if row.params else []
    lines += [f"{row.macs:,} MACs"] if row.macs else []
    lines.append("receptive field {} × {}".format(*row.receptive_field))
    return "\n".join(lines)


def _shape(item: OutlineItem) -> Shape:
    match item:
        case OutlineStep(row) | Join(row):
            return row.output_shape
        case OutlineRepeat(last=last):
            return _shape(last[-1])
        case _:
            assert_never(item)


def _spaced(shape: Shape) -> str:
    return " × ".join(map(str, shape))


# ---------------------------------------------------------------- rows


def _bands(parts: list[_Part]) -> list[_Band]:
    def title(part: _Part) -> str:
        return _spaced(part.shape[1:]) if len(part.shape) == 3 else "vectors"

    return [_Band(words, tuple(group)) for words, group in groupby(parts, title)]


def _broken(bands: list[_Band], room: float) -> list[list[_Band]]:
    """Rows of bands, broken between bands where that leaves no row half empty."""
    rows: list[list[_Band]] = [[]]
    left = room
    for band in bands:
        if band.width > left and rows[-1] and (band.width <= room and left < room / 2):
            rows.append([])
            left = room
        if band.width <= left:
            rows[-1].append(band)
            left -= band.width + BAND_GAP
            continue
        for part in band.parts:
            alone = _Band(band.title, (part,))
            joined = rows[-1][-1] if rows[-1] and rows[-1][-1].title == band.title else None
            longer = part.width if joined else alone.width
            if longer > left and rows[-1]:
                rows.append([])
                left, joined = room, None
            if joined is None:
                rows[-1].append(alone)
                left -= alone.width + BAND_GAP
            else:
                rows[-1][-1] = _Band(band.title, (*joined.parts, part))
                left -= rows[-1][-1].width - joined.width
    return rows


def _length(row: list[_Band]) -> float:
    return sum(band.width for band in row) + BAND_GAP * (len(row) - 1)


def _spread(row: list[_Band], room: float) -> list[_Band]:
    """A row that is nearly full, spread over all of it."""
    spare = room - _length(row)
    if not 0 < spare < (1 - NEARLY_FULL) * room:
        return row
    more = spare / sum(len(band.parts) for band in row)
    return [
        replace(
            band,
            parts=tuple(replace(part, width=part.width + more) for part in band.parts),
            least=band.width + more * len(band.parts),
        )
        for band in row
    ]


# ---------------------------------------------------------------- pieces


def _beside(drawn: list[_Drawn]) -> _Drawn:
    x, marks = 0.0, []
    for each in drawn:
        marks += _moved(each.marks, x, 0)
        x += each.width
    above, below = max(each.above for each in drawn), max(each.below for each in drawn)
    return _Drawn(x, above, below, tuple(marks))


def _lines(drawn: list[_Drawn]) -> _Drawn:
    """Parts beside one another; below one another, in the way of lines, where they are many."""
    rows: list[list[_Drawn]] = [[]]
    for each in drawn:
        if rows[-1] and sum(other.width for other in rows[-1]) + each.width > WIDEST_PATH:
            rows.append([])
        rows[-1].append(each)
    lines = [_beside(row) for row in rows]
    if len(lines) == 1:
        return lines[0]
    width = max(line.width for line in lines) + 2 * FORK
    y, marks = 0.0, [*_moved(lines[0].marks, FORK, 0)]
    wires: list[Mark] = [Line(((0, 0), (FORK + lines[0].width, 0)), WIRE)]
    for upper, lower in pairwise(lines):
        between = y + upper.below + PATH_GAP / 2
        below = between + PATH_GAP / 2 + lower.above
        right, left = width - FORK / 2, FORK / 2
        way = ((FORK + upper.width, y), (right, y), (right, between), (left, between))
        wires.append(Line((*way, (left, below), (FORK + lower.width, below)), WIRE))
        marks += _moved(lower.marks, FORK, below)
        y = below
    wires.append(Line(((FORK + lines[-1].width, y), (width, y)), WIRE))
    return _Drawn(width, lines[0].above, y + lines[-1].below, (*wires, *marks), y)


def _tag(words: str) -> _Drawn:
    """Words in a frame on the line: where data comes from, or what it is in the end."""
    words = shortened(words, LABEL_SIZE, LABEL_ROOM, bold=True)
    inner = text_width(words, LABEL_SIZE, bold=True) + 12
    frame = Rectangle(
        x=CELL_GAP / 2, y=-9, width=inner, height=18, fill="#ffffff", stroke=ACCENT, radius=9
    )
    label = Text(
        x=CELL_GAP / 2 + inner / 2,
        y=3.5,
        text=words,
        size=LABEL_SIZE,
        colour=ACCENT,
        anchor="middle",
        bold=True,
    )
    return _Drawn(inner + CELL_GAP, 9, 9, (frame, label))


def _cuboid(
    x: float, y: float, width: float, height: float, dx: float, dy: float, colour: str, tip: str
) -> list[Mark]:
    """A block by its front's upper left corner and its size; `dx`, `dy`: where its depth runs."""
    edge = _mixed(colour, INK, 0.4)
    right, bottom = x + width, y + height
    front = ((x, y), (right, y), (right, bottom), (x, bottom))
    top = ((x, y), (x + dx, y - dy), (right + dx, y - dy), (right, y))
    side = ((right, y), (right + dx, y - dy), (right + dx, bottom - dy), (right, bottom))
    return [
        Polygon(top, _mixed(colour, "#ffffff", 0.45), edge, tip),
        Polygon(side, _mixed(colour, INK, 0.18), edge, tip),
        Polygon(front, colour, edge, tip),
    ]


def _mixed(colour: str, other: str, part: float) -> str:
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def _moved(marks: tuple[Mark, ...], dx: float, dy: float) -> list[Mark]:
    return [_moved_mark(mark, dx, dy) for mark in marks]


def _moved_mark(mark: Mark, dx: float, dy: float) -> Mark:
    match mark:
        case Polygon(points) | Line(points):
            return replace(mark, points=tuple((x + dx, y + dy) for x, y in points))
        case Rectangle(x, y) | Circle(x, y) | Text(x, y):
            return replace(mark, x=x + dx, y=y + dy)
        case _:
            assert_never(mark)
