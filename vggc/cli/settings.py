"""`vggc settings`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from vggc.cli import console
from vggc.support.sheet import Sheet


@click.command("settings")
@click.argument("block", required=False, type=click.Choice(["train", "test"]))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
)
def command(block: str | None, form: str) -> None:
    """List the settings of `train { … }` and `test { … }`, their options and defaults."""
    from vggc.recipe.edit import SCHEMAS
    from vggc.recipe.reference import MEANINGS, entries, markdown

    blocks = [block] if block else list(SCHEMAS)
    match form:
        case "json":
            found = {block: [asdict(entry) for entry in entries(block)] for block in blocks}
            console.out(json.dumps(found, ensure_ascii=False, indent=2))
        case "markdown":
            console.out(markdown().removesuffix("\n"))
        case _:
            header = ("setting", "takes", "unless given", "what it is")
            for block in blocks:
                rows = [
                    row
                    for entry in entries(block)
                    for row in (
                        (entry.example, entry.takes, entry.default, entry.doc),
                        *(
                            (f"  {o.key}=", o.takes, o.default or "must be given", o.doc)
                            for o in entry.options
                        ),
                    )
                ]
                title = f"{block}: {MEANINGS[block]}"
                console.sheet(
                    Sheet(
                        title=title, header=header, rows=tuple(rows), numbers=(False,) * len(header)
                    )
                )
