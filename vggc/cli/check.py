"""`vggc check`."""

from __future__ import annotations

import click

from vggc.cli import console
from vggc.diagnostics import Diagnostic, UserError


@click.command("check")
@click.argument("specs", nargs=-1, required=True, metavar="FILE…")
def command(specs: tuple[str, ...]) -> None:
    """Check spec files: form, words, values, shapes and the recipe.

    Every file is checked before the command leaves. Exit 2 when one has a mistake.
    """
    from vggc.driver import load

    found: list[Diagnostic] = []
    for spec in specs:
        try:
            program = load(spec)
            program.check()
        except UserError as error:
            found += error.diagnostics
        else:
            layers = {node.layer.name for node in program.graph.nodes[1:]}
            console.out(f"{spec}: ok, net {program.net.name}, {len(layers)} layers")
    if found:
        raise UserError(*found)
