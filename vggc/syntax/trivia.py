"""Comments and rows: found in the text, kept on the tree.

The grammar drops both. Every comment goes to one *anchor*, a piece that the formatter
begins a line with or ends one with: behind it on its line, or above it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vggc.syntax.ast import (
    Block,
    Body,
    Edit,
    Every,
    Group,
    Head,
    Insert,
    Item,
    Layer,
    Let,
    Net,
    Piece,
    Reference,
    Repeat,
    Replace,
    Setting,
    Trivia,
    pieces,
)

CommentedPiece = TypeVar(
    "CommentedPiece",
    bound=Net | Setting | Block | Layer | Group | Reference | Let | Every | Edit | Head,
)
NONE = Trivia()


def with_trivia(net: Net) -> Net:
    """The tree with each comment and row of its text on the piece that it belongs to."""
    found = _find(net)
    return replace(
        found.on(net),
        input=found.on(net.input) if net.input else None,
        body=_body(net.body, found, rows=True) if net.body else (),
        statements=tuple(_statement(statement, found) for statement in net.statements),
        heads=tuple(
            replace(found.on(head), body=_body(head.body, found, rows=False)) for head in net.heads
        ),
        blocks=tuple(_block(block, found) for block in net.blocks),
        below=tuple(found.below.get(net.span.start, ())),
    )


@dataclass
class _Found:
    """Comments and rows by the offset where their anchor starts."""

    above: dict[int, list[str]] = field(default_factory=dict)
    behind: dict[int, list[str]] = field(default_factory=dict)
    below: dict[int, list[str]] = field(default_factory=dict)
    rows: set[int] = field(default_factory=set)

    def on(self, piece: CommentedPiece) -> CommentedPiece:
        start = piece.span.start
        above = tuple(self.above.get(start, ()))
        behind = " ".join(filter(None, self.behind.get(start, ())))
        is_row = isinstance(piece, Layer | Group | Reference) and bool(above)
        trivia = Trivia(above, behind, start in self.rows or is_row)
        return piece if trivia == piece.trivia else replace(piece, trivia=trivia)


def _find(net: Net) -> _Found:
    text = net.span.source.text
    anchors = sorted(_anchors(net), key=lambda piece: piece.span.start)
    starts = [piece.span.start for piece in anchors]
    found = _Found(rows={piece.span.start for piece in anchors if _begins_row(text, piece)})
    if "#" not in text:
        return found
    ended = sorted(
        (piece for piece in anchors if not isinstance(piece, Net)),
        key=lambda piece: (piece.span.end, -piece.span.start),
    )
    ends = [piece.span.end for piece in ended]
    block_starts = [block.span.start for block in net.blocks]
    for comment in re.finditer(r"#[^\n]*", text):
        said = comment.group().rstrip().removeprefix("#").removeprefix(" ")
        place = comment.start()
        after = bisect_left(starts, place)
        line_start = text.rfind("\n", 0, place) + 1
        begun = anchors[after - 1] if after and starts[after - 1] >= line_start else None
        last = bisect_right(ends, place) - 1
        while last > 0 and _is_above(ended[last], line_start) and ends[last - 1] > line_start:
            last -= 1  # a chain on rows of its own: its last layer is meant
        complete = ended[last] if last >= 0 and ends[last] > line_start else None
        if begun is None and complete is None and after and anchors[after - 1].span.end > place:
            begun = anchors[after - 1]
        number = bisect_left(block_starts, place) - 1
        block = net.blocks[number] if number >= 0 else None
        if block is not None and block.span.end <= place:
            block = None
        match _behind(text[line_start:place], complete, begun):
            case Block(span=span) if span.end <= place:
                found.below.setdefault(span.start, []).append(said)
            case piece if piece is not None:
                found.behind.setdefault(piece.span.start, []).append(said)
            case _ if block and (after == len(starts) or starts[after] > block.span.end):
                found.below.setdefault(block.span.start, []).append(said)
            case _ if after == len(starts):
                found.below.setdefault(net.span.start, []).append(said)
            case _:
                found.above.setdefault(starts[after], []).append(said)
    return found


def _is_above(piece: Piece, line_start: int) -> bool:
    """Whether a piece holds a chain that it begins lines above."""
    return isinstance(piece, Head | Insert | Replace) and piece.span.start < line_start


def _behind(line: str, complete: Piece | None, begun: Piece | None) -> Piece | None:
    """The piece that a comment behind `line` belongs to; none where it stands alone.

    That is the outermost of those that end last on its line (`complete`), or else the last
    one that begins there: a net or a block, whose ends are further down.
    """
    if not line.strip(" \t|,") or line.rstrip().endswith("("):
        return None
    return complete or begun


def _anchors(net: Net) -> Iterator[Piece]:
    yield net
    if net.input:
        yield net.input
    yield from pieces(net.body)
    for statement in net.statements:
        yield statement
        if isinstance(statement, Insert | Replace):
            yield from pieces(statement.body)
    for head in net.heads:
        yield head
        yield from pieces(head.body)
    for block in net.blocks:
        yield block
        yield from block.settings


def _begins_row(text: str, piece: Piece) -> bool:
    if not isinstance(piece, Layer | Group | Reference):
        return False
    start = piece.span.start
    while start > 0 and text[start - 1] in " \t|":
        start -= 1
    return start == 0 or text[start - 1] == "\n"


def _statement(statement: Let | Every | Edit, found: _Found) -> Let | Every | Edit:
    statement = found.on(statement)
    if isinstance(statement, Insert | Replace):
        return replace(statement, body=_body(statement.body, found, rows=False))
    return statement


def _block(block: Block, found: _Found) -> Block:
    settings = tuple(found.on(setting) for setting in block.settings)
    below = tuple(found.below.get(block.span.start, ()))
    return replace(found.on(block), settings=settings, below=below)


def _body(body: Body, found: _Found, *, rows: bool) -> Body:
    """The items; one begins a row where it must: behind a comment, and first of spread ones."""
    items = [_item(item, found) for item in body]
    if rows or any(spread(item) for item in items):
        items[0] = on_own_row(items[0])
    for index, item in enumerate(items[:-1]):
        if _core(item).trivia.behind:
            items[index + 1] = on_own_row(items[index + 1])
    return tuple(items)


def _core(item: Item) -> Layer | Group | Reference:
    return item.item if isinstance(item, Repeat) else item


def _item(item: Item, found: _Found) -> Item:
    match item:
        case Layer(paths=()):
            return found.on(item)
        case Reference():
            return found.on(item)
        case Layer():
            bodies = [_body(path, found, rows=False) for path in item.paths]
            if any(spread(inner) for path in bodies for inner in path):
                bodies = [(on_own_row(path[0]), *path[1:]) for path in bodies]
            return replace(found.on(item), paths=tuple(bodies))
        case Group():
            return replace(found.on(item), body=_body(item.body, found, rows=False))
        case Repeat():
            inner = _item(item.item, found)
            assert isinstance(inner, Layer | Group)
            return item if inner is item.item else replace(item, item=inner)


def spread(item: Item) -> bool:
    """Whether the item needs lines of its own: it begins a row or holds comments."""
    match item:
        case Repeat():
            return spread(item.item)
        case Group() if any(spread(inner) for inner in item.body):
            return True
        case Layer() if tall(item):
            return True
        case Layer() | Group() | Reference():
            return item.trivia != NONE


def tall(join: Layer) -> bool:
    """Whether each path of a join stands on lines of its own."""
    return any(spread(inner) for path in join.paths for inner in path)


def on_own_row(item: Item) -> Item:
    """The item at the beginning of a row."""
    if isinstance(item, Repeat):
        inner = on_own_row(item.item)
        assert isinstance(inner, Layer | Group)
        return replace(item, item=inner)
    if item.trivia.row:
        return item
    return replace(item, trivia=replace(item.trivia, row=True))
