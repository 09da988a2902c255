"""`vggc layers`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.support.diagnostics import Diagnostic, UserError, did_you_mean
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.layers.reference import KindEntry


class NoSuchKind(Diagnostic):
    title = "there is no layer `{word}`"
    help = "{hint}"
    word: str
    hint: str


@click.command("layers")
@click.argument("kind", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
)
def command(kind: str | None, form: str) -> None:
    """List the kinds of layers; with KIND its options, their defaults, and an example."""
    from vggc.layers.kinds import BY_WORD, ELSEWHERE
    from vggc.layers.reference import entries, entry, markdown

    if kind is not None and kind not in BY_WORD:
        meant = ELSEWHERE.get(kind.lower())
        hint = f"did you mean `{meant}`?" if meant in BY_WORD else did_you_mean(kind, [*BY_WORD])
        raise UserError(NoSuchKind(kind, hint))
    chosen = entries() if kind is None else (entry(BY_WORD[kind]),)
    match form:
        case "json":
            console.out(json.dumps([asdict(each) for each in chosen], ensure_ascii=False, indent=2))
        case "markdown":
            console.out(markdown().removesuffix("\n"))
        case _ if kind is None:
            rows = tuple((each.form, each.doc) for each in chosen)
            note = "`vggc layers KIND` shows options, defaults and an example"
            console.sheet(
                Sheet(
                    title="",
                    header=("layer", "what it is"),
                    rows=rows,
                    numbers=(False, False),
                    notes=(note,),
                )
            )
        case _:
            _show(chosen[0])


def _show(entry: KindEntry) -> None:
    console.out(f"{entry.form}\n  {entry.doc}")
    if entry.aliases:
        console.out(f"  Also written {' or '.join(entry.aliases)}.")
    console.out(f"\n  example: {entry.example}")
    if entry.options:
        rows = tuple((o.key, o.takes, o.default or "must be given", o.doc) for o in entry.options)
        console.sheet(
            Sheet(
                title="",
                header=("option", "takes", "unless given", "what it is"),
                rows=rows,
                numbers=(False,) * 4,
            )
        )
