"""`vggc fmt`."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from vggc.cli import console
from vggc.support.diagnostics import CheckFailed, Diagnostic, UserError


@click.command("fmt")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--check", is_flag=True, help="Write nothing; show what would change, exit 1.")
def command(files: tuple[str, ...], check: bool) -> None:
    """Write spec files the canonical way, comments and rows kept.

    A file with a mistake is left as it is.
    """
    from vggc.support.files import CannotWrite, replacing
    from vggc.syntax.format import format_net
    from vggc.syntax.parse import parse, read_source

    found: list[Diagnostic] = []
    changed = 0
    for name in files:
        try:
            source = read_source(Path(name))
            text = format_net(parse(source))
        except UserError as error:
            found += error.diagnostics
            continue
        if text == source.text:
            continue
        changed += 1
        if check:
            before, after = source.text.splitlines(), text.splitlines()
            names = name, f"{name}, formatted"
            for line in difflib.unified_diff(before, after, *names, lineterm=""):
                console.out(line)
        else:
            with replacing(Path(name).resolve()) as temporary:
                temporary.write_text(text, "utf-8", newline="\n")
                if read_source(Path(name)).text != source.text:
                    raise UserError(CannotWrite(name, "it has been changed meanwhile"))
            console.status(f"{name}: formatted")
    if found:
        raise UserError(*found)
    if check and changed:
        raise CheckFailed(f"{changed} of {len(files)} files are not formatted; run `vggc fmt`")
