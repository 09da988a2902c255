"""Everything that is printed: results to stdout, the rest to stderr."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import click

from vggc.cli.sheet import fitted
from vggc.support.diagnostics import Diagnostic, render
from vggc.support.sheet import Sheet
from vggc_runtime.text import printable

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160
"""Columns for tables that go to a file or a pipe, where nobody can widen the window."""


class NotPrinted(Exception):
    """The result cannot be written to stdout."""

    def __init__(self, fault: OSError) -> None:
        self.is_gone = isinstance(fault, BrokenPipeError)
        super().__init__(fault.strerror or str(fault))


def prepare() -> None:
    """Makes of stdin, stdout and stderr what commands can rely on.

    A stream that is closed is /dev/null: otherwise the next file that is opened would be in its
    place. A terminal that lacks a character shows another one. A result that cannot be written is
    `NotPrinted`; what is said to stderr is lost where nobody can hear it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # it stays open
    for name, kind in (("stdout", _Stdout), ("stderr", _Stderr)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _around(kind(stream.fileno(), "wb", closefd=False), stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class _Stdout(io.FileIO):
    """Says once that nothing can be written."""

    failed = False

    def write(self, data: Any) -> int:
        try:
            return len(data) if self.failed else super().write(data)
        except OSError as fault:
            self.failed = True
            raise NotPrinted(fault) from None


class _Stderr(io.FileIO):
    """Passes over what cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _around(raw: io.FileIO, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A text stream to `raw` that is otherwise as `stream` is."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        "replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def out(text: str) -> None:
    """A line of the result."""
    click.echo(printable(text))


class RawOutput:
    """Standard output for what another program reads: every byte as it is. A terminal is shown what
    is printable, as ever. Whoever has written flushes.
    """

    def write(self, text: str) -> int:
        """Writes text to stdout: in a terminal what can be shown, else its bytes as they are."""
        if sys.stdout.isatty():
            click.echo(printable(text), nl=False)
        else:
            # As text it would have the stream's own encoding, in which a file's name may have none.
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        return len(text)


def status(text: str) -> None:
    """A line about what is being done."""
    click.echo(printable(text), err=True)


def failure(text: str) -> None:
    """Prints a mistake that has no diagnostic to stderr."""
    click.echo(_coloured(printable(f"error: {text}")), err=True)


def diagnostics(problems: Iterable[Diagnostic]) -> None:
    """Prints mistakes to stderr, an empty line between each two."""
    click.echo("\n\n".join(_coloured(render(problem)) for problem in problems), err=True)


def sheet(content: Sheet) -> None:
    """A table of the result, its notes below, as wide as there is room for."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    rows = tuple(tuple(map(printable, row)) for row in content.rows)
    table = fitted(replace(content, rows=rows), console.width)
    drawn = Table(
        title=printable(content.title) or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    columns = zip(table.sheet.header, table.sheet.numbers, table.widths, strict=True)
    for index, (name, number, width) in enumerate(columns):
        side: Literal["left", "right"] = "right" if number else "left"
        whole = index == 0 or number
        header = Text(name, no_wrap=False)
        drawn.add_column(header, justify=side, width=width, overflow="ellipsis", no_wrap=whole)
    for index, row in enumerate(table.sheet.rows):
        drawn.add_row(*row, end_section=index in content.rules)
    console.print(drawn, width=max(table.width, console.width), crop=False)
    for note in content.notes:
        console.print(printable(note), style="dim")
    if table.left_out:
        left_out = ", ".join(table.left_out)
        console.print(f"No room for: {left_out}. A wider window shows more.", style="dim")


def stdout() -> Console:
    """The console of standard output, with colours where that is a terminal."""
    return _console(sys.stdout.isatty(), stderr=False)


def stderr() -> Console:
    """The console of standard error, with colours where that is a terminal."""
    return _console(sys.stderr.isatty(), stderr=True)


def _console(terminal: bool, *, stderr: bool) -> Console:
    from rich.console import Console

    width = _width_asked_for() or (None if terminal else PIPED_WIDTH)
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, markup=False)


def _width_asked_for() -> int | None:
    """What the environment says of the width, as users of a pipe or a log may want it, too."""
    said = os.environ.get("COLUMNS", "")
    return int(said) or None if said.isascii() and said.isdigit() and len(said) < 6 else None


def _coloured(text: str) -> str:
    if os.environ.get("NO_COLOR"):
        return text
    text = re.sub(r"^error:", click.style("error:", fg="red", bold=True), text)
    text = re.sub(r"(?m)^( *\| +)((\^+|-+)(?: .*)?)$", _styled_marks, text)
    return re.sub(r"(?m)^( *(?:= )?)help:", r"\1" + click.style("help:", fg="cyan"), text)


def _styled_marks(match: re.Match[str]) -> str:
    """The marks below a place and what is said of it: `^` below the first, `-` below the second."""
    return match[1] + click.style(match[2], fg="red" if match[3][0] == "^" else "blue")
