"""Tree to text, the one way to write it: `parse(format_net(net)) == net`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vggc.syntax.ast import Block, Group, Item, Layer, Net, Option, Repeat, Setting, Trivia
from vggc.syntax.trivia import spread

INDENT = "  "


def format_net(net: Net) -> str:
    """The canonical text of a net, with its comments and rows, ended by a line break."""
    lines = [
        *_commented(f"net {net.name}", net.trivia),
        *_commented(_setting(net.input), net.input.trivia),
        "",
        *_body(net.body),
    ]
    for block in net.blocks:
        lines += ["", *_block(block)]
    if net.below:
        lines += ["", *_comments(net.below)]
    return "\n".join(lines) + "\n"


def _comments(texts: tuple[str, ...], indent: str = "") -> list[str]:
    """Lines of comment; `#!` keeps its meaning to a shell."""
    return [f"{indent}#{'' if text[:1] == '!' else ' '}{text}".rstrip() for text in texts]


def _commented(line: str, trivia: Trivia, indent: str = "") -> list[str]:
    behind = f"  # {trivia.behind}" if trivia.behind else ""
    return [*_comments(trivia.above, indent), indent + line + behind]


def _block(block: Block) -> list[str]:
    lines = _commented(f"{block.key} {{", block.trivia)
    for setting in block.settings:
        lines += _commented(_setting(setting), setting.trivia, INDENT)
    return [*lines, *_comments(block.below, INDENT), "}"]


def _setting(setting: Setting) -> str:
    return " ".join([setting.key, *map(str, setting.values), *_options(setting.options)])


def _options(options: tuple[Option, ...]) -> list[str]:
    return [str(option) for option in options]


# ---------------------------------------------------------------- rows of layers


@dataclass
class _Row:
    """What stands on one line: the pieces between its bars, comments around it."""

    cells: list[_Cell]
    above: tuple[str, ...] = ()
    behind: str = ""


@dataclass(frozen=True)
class _Cell:
    """A layer or a group, and its repeat."""

    head: str
    times: str = ""
    tall: bool = False


def _body(body: tuple[Item, ...], indent: str = "") -> list[str]:
    rows = list(_rows(body, indent))
    lines: list[str] = []
    for block in _alike(rows):
        widths = _widths(block)
        for row in block:
            bar = INDENT if row is rows[0] else "| "
            text = " | ".join(_pad(cell, i, row, widths) for i, cell in enumerate(row.cells))
            lines += _commented(bar + text, Trivia(row.above, row.behind), indent)
    return lines


def _rows(body: tuple[Item, ...], indent: str) -> Iterator[_Row]:
    row: _Row | None = None
    for item in body:
        piece = item.item if isinstance(item, Repeat) else item
        if row is None or piece.trivia.row or row.behind:
            if row is not None:
                yield row
            row = _Row([], piece.trivia.above)
        row.cells.append(_cell(piece, f"×{item.count}" if isinstance(item, Repeat) else "", indent))
        row.behind = piece.trivia.behind
    if row is not None:
        yield row


def _cell(piece: Layer | Group, times: str, indent: str) -> _Cell:
    match piece:
        case Layer():
            name = f"{piece.name}: " if piece.name is not None else ""
            return _Cell(" ".join([name + piece.word, *_options(piece.options)]), times)
        case Group() if any(spread(item) for item in piece.body):
            inner = "\n".join(_body(piece.body, indent + 2 * INDENT))
            return _Cell(f"(\n{inner}\n{indent}{INDENT})", times, tall=True)
        case Group():
            inner = " | ".join(_text(item, indent) for item in piece.body)
            return _Cell(f"({inner})", times, tall=True)


def _text(item: Item, indent: str) -> str:
    if isinstance(item, Repeat):
        return f"{_cell(item.item, '', indent).head} ×{item.count}"
    return _cell(item, "", indent).head


def _alike(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Runs of rows whose cells line up: as many in each, and no groups."""
    run: list[_Row] = []
    for row in rows:
        fits = run and len(run[0].cells) == len(row.cells) and not any(c.tall for c in row.cells)
        if run and not fits:
            yield run
            run = []
        run.append(row)
        if any(cell.tall for cell in row.cells):
            yield run
            run = []
    if run:
        yield run


def _widths(rows: list[_Row]) -> list[tuple[int, int]]:
    """For each column the width of its heads and of its repeats."""
    columns = zip(*(row.cells for row in rows), strict=True)
    return [(max(len(c.head) for c in col), max(len(c.times) for c in col)) for col in columns]


def _pad(cell: _Cell, column: int, row: _Row, widths: list[tuple[int, int]]) -> str:
    if cell.tall:
        return f"{cell.head} {cell.times}".rstrip()
    head, times = widths[column]
    text = f"{cell.head:<{head}} {cell.times:<{times}}" if times else f"{cell.head:<{head}}"
    return text.rstrip() if column == len(row.cells) - 1 else text
