"""Tree to text, the one way to write it: `parse(format_net(net)) == net`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from vggc.syntax.ast import (
    Block,
    Body,
    Every,
    Group,
    Head,
    Insert,
    Item,
    Layer,
    Let,
    Net,
    Option,
    Reference,
    Remove,
    Repeat,
    Replace,
    Set,
    Setting,
    Statement,
    Trivia,
)
from vggc.syntax.trivia import spread, tall

INDENT = "  "
MAX_ALIGNED = 100
"""Characters of a cell that others are padded to."""


def format_net(net: Net) -> str:
    """The canonical text of a net, with its comments and rows, ended by a line break."""
    sections = [
        _head_lines(net),
        [line for statement in net.statements for line in _statement(statement)],
        _body(net.body) if net.body else [],
        [line for head in net.heads for line in _head(head)],
        *(_block(block) for block in net.blocks),
        _comments(net.below),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head_lines(net: Net) -> list[str]:
    parameters = f"({', '.join(_options(net.parameters))})" if net.parameters else ""
    base = f" from {net.base}" if net.base else ""
    lines = _commented(f"net {net.name}{parameters}{base}", net.trivia)
    if net.input:
        lines += _commented(_setting(net.input), net.input.trivia)
    return lines


def _comments(texts: tuple[str, ...], indent: str = "") -> list[str]:
    """Lines of comment; `#!` keeps its meaning to a shell, and `##` its weight."""
    return [f"{indent}#{'' if text[:1] in ('!', '#') else ' '}{text}".rstrip() for text in texts]


def _commented(line: str, trivia: Trivia, indent: str = "") -> list[str]:
    return [*_comments(trivia.above, indent), indent + line + _behind(trivia.behind)]


def _behind(comment: str) -> str:
    return f"  {_comments((comment,))[0]}" if comment else ""


def _block(block: Block) -> list[str]:
    lines = _commented(f"{block.key} {{", block.trivia)
    for setting in block.settings:
        lines += _commented(_setting(setting), setting.trivia, INDENT)
    return [*lines, *_comments(block.below, INDENT), "}"]


def _setting(setting: Setting) -> str:
    return " ".join([setting.key, *map(str, setting.values), *_options(setting.options)])


def _options(options: tuple[Option, ...]) -> list[str]:
    return [str(option) for option in options]


def _statement(statement: Statement) -> list[str]:
    match statement:
        case Let(name=name, value=value):
            return _commented(f"let {name} = {value}", statement.trivia)
        case Every(kind=kind, options=options):
            return _commented(" ".join(["every", kind, *_options(options)]), statement.trivia)
        case Set(selector=selector, options=options):
            line = " ".join([f"set {selector}", *_options(options)])
            return _commented(line, statement.trivia)
        case Insert(after=after, selector=selector, body=body):
            place = "after" if after else "before"
            return _with_body(f"{place} {selector} insert", body, statement.trivia)
        case Replace(selector=selector, body=body):
            return _with_body(f"replace {selector} with", body, statement.trivia)
        case Remove(selector=selector):
            return _commented(f"remove {selector}", statement.trivia)


def _head(head: Head) -> list[str]:
    return _with_body(f"head {head.name}:", head.body, head.trivia)


def _with_body(start: str, body: Body, trivia: Trivia) -> list[str]:
    """A line that ends in a chain, or one above the rows of the chain."""
    if not any(spread(item) for item in body):
        return _commented(f"{start} {_line(body, '')}", trivia)
    return [*_commented(start, trivia), *_body(body, INDENT)]


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


def _body(body: Body, indent: str = "") -> list[str]:
    rows = list(_rows(body, indent))
    lines: list[str] = []
    for block in _alike(rows):
        widths = _widths(block)
        for row in block:
            bar = INDENT if row is rows[0] else "| "
            text = " | ".join(_pad(cell, i, row, widths) for i, cell in enumerate(row.cells))
            lines += _commented(bar + text, Trivia(row.above, row.behind), indent)
    return lines


def _rows(body: Body, indent: str) -> Iterator[_Row]:
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


def _cell(piece: Layer | Group | Reference, times: str, indent: str) -> _Cell:
    match piece:
        case Reference(name=name):
            return _Cell(f"@{name}", times)
        case Layer(paths=()):
            return _Cell(_layer(piece), times)
        case Layer(paths=paths) if tall(piece):
            inner = "\n".join(_paths(paths, indent))
            return _Cell(f"{_opened(piece)}\n{inner}\n{indent}{INDENT})", times, tall=True)
        case Layer(paths=paths):
            inner = ", ".join(_line(path, indent) for path in paths)
            return _Cell(f"{_opened(piece)}{inner})", times, tall=True)
        case Group(body=body) if any(spread(item) for item in body):
            inner = "\n".join(_body(body, indent + 2 * INDENT))
            return _Cell(f"(\n{inner}\n{indent}{INDENT})", times, tall=True)
        case Group(body=body):
            return _Cell(f"({_line(body, indent)})", times, tall=True)


def _layer(layer: Layer) -> str:
    """The layer itself, without its paths."""
    name = f"{layer.name}: " if layer.name is not None else ""
    return " ".join([name + layer.word, *_options(layer.options)])


def _opened(join: Layer) -> str:
    """A join up to its paths; behind an option the parenthesis keeps its distance."""
    return _layer(join) + (" (" if join.options else "(")


def _paths(paths: tuple[Body, ...], indent: str) -> Iterator[str]:
    """Each path on lines of its own, all but the last with a comma behind it."""
    bars = any(map(_has_rows, paths))
    for path in paths:
        comma = "" if path is paths[-1] else ","
        *rows, last = _body(path, indent + (2 * INDENT if bars else INDENT))
        yield from rows
        behind = _last_comment(path)
        yield last.removesuffix(behind) + comma + behind


def _has_rows(body: Body) -> bool:
    """Whether a chain stands in several rows, told without writing them: joins in one another would
    be written twice as often with each level.
    """
    pieces = [item.item if isinstance(item, Repeat) else item for item in body]
    return any(piece.trivia.row or before.trivia.behind for before, piece in pairwise(pieces))


def _last_comment(body: Body) -> str:
    last = body[-1].item if isinstance(body[-1], Repeat) else body[-1]
    return _behind(last.trivia.behind)


def _line(body: Body, indent: str) -> str:
    """A chain that needs no line of its own."""
    return " | ".join(_text(item, indent) for item in body)


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
    return [(_width(c.head for c in col), _width(c.times for c in col)) for col in columns]


def _width(texts: Iterable[str]) -> int:
    """The length of the longest text; those that are too long to line up with stick out."""
    return max((len(text) for text in texts if len(text) <= MAX_ALIGNED), default=0)


def _pad(cell: _Cell, column: int, row: _Row, widths: list[tuple[int, int]]) -> str:
    if cell.tall:
        return f"{cell.head} {cell.times}".rstrip()
    head, times = widths[column]
    text = f"{cell.head:<{head}} {cell.times:<{times}}" if times else f"{cell.head:<{head}}"
    return text.rstrip() if column == len(row.cells) - 1 else text
