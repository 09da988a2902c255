"""Comments and rows: found in the text, kept on the tree.

The grammar drops both. Every comment goes to one *anchor*, a piece that the formatter
begins a line with or ends one with: behind it on its line, or above it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vggc.syntax.ast import Block, Group, Item, Layer, Net, Piece, Repeat, Setting, Trivia

Anchor = TypeVar("Anchor", Net, Setting, Block, Layer, Group)


def with_trivia(net: Net) -> Net:
    """The tree with each comment and row of its text on the piece that it belongs to."""
    found = _find(net)
    return replace(
        found.on(net),
        input=found.on(net.input),
        body=_body(net.body, found, rows=True),
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

    def on(self, piece: Anchor) -> Anchor:
        start = piece.span.start
        above = tuple(self.above.get(start, ()))
        behind = " ".join(filter(None, self.behind.get(start, ())))
        return replace(piece, trivia=Trivia(above, behind, start in self.rows))


def _find(net: Net) -> _Found:
    text = net.span.source.text
    anchors = sorted(_anchors(net), key=lambda piece: piece.span.start)
    starts = [piece.span.start for piece in anchors]
    found = _Found(rows={piece.span.start for piece in anchors if _begins_row(text, piece)})
    for comment in re.finditer(r"#[^\n]*", text):
        said = comment.group().rstrip().removeprefix("#").removeprefix(" ")
        place = comment.start()
        after = bisect_left(starts, place)
        block = next((b for b in net.blocks if b.span.start < place < b.span.end), None)
        match _behind(text, place, anchors[:after]):
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


def _behind(text: str, place: int, before: list[Piece]) -> Piece | None:
    """The piece that a comment at `place` stands behind; none where it stands alone.

    That is the outermost of those that end last on its line, or else the one that begins
    there: a net or a block, whose ends are further down.
    """
    line_start = text.rfind("\n", 0, place) + 1
    line = text[line_start:place].rstrip()
    if not line.strip(" \t|") or line.endswith("("):
        return None
    ended = [
        piece
        for piece in before
        if line_start < piece.span.end <= place and not isinstance(piece, Net)
    ]
    if ended:
        return max(ended, key=lambda piece: (piece.span.end, -piece.span.start))
    begun = [piece for piece in before if piece.span.start >= line_start]
    return begun[-1] if begun else None


def _anchors(net: Net) -> Iterator[Piece]:
    yield net
    yield net.input
    yield from _body_anchors(net.body)
    for block in net.blocks:
        yield block
        yield from block.settings


def _body_anchors(body: tuple[Item, ...]) -> Iterator[Piece]:
    for item in body:
        piece = _core(item)
        yield piece
        if isinstance(piece, Group):
            yield from _body_anchors(piece.body)


def _begins_row(text: str, piece: Piece) -> bool:
    start = piece.span.start
    line_start = text.rfind("\n", 0, start) + 1
    return isinstance(piece, Layer | Group) and not text[line_start:start].strip(" \t|")


def _block(block: Block, found: _Found) -> Block:
    settings = tuple(found.on(setting) for setting in block.settings)
    below = tuple(found.below.get(block.span.start, ()))
    return replace(found.on(block), settings=settings, below=below)


def _body(body: tuple[Item, ...], found: _Found, *, rows: bool) -> tuple[Item, ...]:
    """The items; one begins a row where it must: behind a comment, and first of spread ones."""
    items = [_item(item, found) for item in body]
    if rows or any(spread(item) for item in items):
        items[0] = _on_own_row(items[0])
    for index, item in enumerate(items[:-1]):
        if _core(item).trivia.behind:
            items[index + 1] = _on_own_row(items[index + 1])
    return tuple(items)


def _core(item: Item) -> Layer | Group:
    return item.item if isinstance(item, Repeat) else item


def _item(item: Item, found: _Found) -> Item:
    match item:
        case Layer():
            return found.on(item)
        case Group():
            return replace(found.on(item), body=_body(item.body, found, rows=False))
        case Repeat():
            inner = _item(item.item, found)
            assert not isinstance(inner, Repeat)
            return replace(item, item=inner)


def spread(item: Item) -> bool:
    """Whether the item needs lines of its own: it begins a row or holds comments."""
    match item:
        case Repeat():
            return spread(item.item)
        case Group() if any(spread(inner) for inner in item.body):
            return True
        case Layer() | Group():
            return item.trivia != Trivia()


def _on_own_row(item: Item) -> Item:
    if isinstance(item, Repeat):
        inner = _on_own_row(item.item)
        assert not isinstance(inner, Repeat)
        return replace(item, item=inner)
    return replace(item, trivia=replace(item.trivia, row=True))
