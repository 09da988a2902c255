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

from vggc.syntax.ast import Block, Group, Item, Layer, Net, Repeat, Setting, Trivia

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
    anchors = sorted(_anchors(net))
    starts = [start for start, _ in anchors]
    found = _Found(rows={start for start, piece in anchors if _begins_row(text, start, piece)})
    for comment in re.finditer(r"#[^\n]*", text):
        said = comment.group().rstrip().removeprefix("#").removeprefix(" ")
        after = bisect_left(starts, comment.start())
        line_start = text.rfind("\n", 0, comment.start()) + 1
        alone = not text[line_start : comment.start()].strip(" \t|(")
        block = next((b for b in net.blocks if b.span.start < comment.start() < b.span.end), None)
        if after > 0 and not alone and not isinstance(anchors[after - 1][1], Group):
            found.behind.setdefault(starts[after - 1], []).append(said)
        elif block and (after == len(starts) or starts[after] > block.span.end):
            found.below.setdefault(block.span.start, []).append(said)
        elif after == len(starts):
            found.below.setdefault(net.span.start, []).append(said)
        else:
            found.above.setdefault(starts[after], []).append(said)
    return found


def _anchors(net: Net) -> Iterator[tuple[int, Net | Setting | Block | Layer | Group]]:
    yield net.span.start, net
    yield net.input.span.start, net.input
    yield from _body_anchors(net.body)
    for block in net.blocks:
        yield block.span.start, block
        yield from ((setting.span.start, setting) for setting in block.settings)


def _body_anchors(body: tuple[Item, ...]) -> Iterator[tuple[int, Layer | Group]]:
    for item in body:
        piece = item.item if isinstance(item, Repeat) else item
        yield piece.span.start, piece
        if isinstance(piece, Group):
            yield from _body_anchors(piece.body)


def _begins_row(text: str, start: int, piece: object) -> bool:
    line_start = text.rfind("\n", 0, start) + 1
    return isinstance(piece, Layer | Group) and not text[line_start:start].strip(" \t|")


def _block(block: Block, found: _Found) -> Block:
    settings = tuple(found.on(setting) for setting in block.settings)
    below = tuple(found.below.get(block.span.start, ()))
    return replace(found.on(block), settings=settings, below=below)


def _body(body: tuple[Item, ...], found: _Found, *, rows: bool) -> tuple[Item, ...]:
    items = tuple(_item(item, found) for item in body)
    if not rows and not any(spread(item) for item in items):
        return items
    return (_on_own_row(items[0]), *items[1:])


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
