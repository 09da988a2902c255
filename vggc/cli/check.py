"""`vggc check`."""

from __future__ import annotations

import click

from vggc.cli import console
from vggc.support.diagnostics import Diagnostic, UserError


@click.command("check")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="As train.lr=0.001; repeatable."
)
@click.option(
    "--resolved",
    is_flag=True,
    help="Print the file with its bases, parameters, defaults and --set filled in.",
)
def command(specs: tuple[str, ...], changes: tuple[str, ...], resolved: bool) -> None:
    """Check specs: form, words, values, shapes, the recipe and the test.

    Every spec is checked before the command leaves. Exit 2 when one has a mistake.
    """
    from vggc.program import load
    from vggc.syntax.format import format_net

    found: list[Diagnostic] = []
    for spec in specs:
        try:
            program = load(spec)
            if changes:
                program = program.overridden(changes)
            program.check()
            if resolved:
                console.out(format_net(program.resolved).removesuffix("\n"))
                continue
        except UserError as error:
            found += error.diagnostics
        else:
            count = len({node.layer.name for node in program.graph.nodes[1:]})
            layers = "1 layer" if count == 1 else f"{count} layers"
            console.out(f"{spec}: ok, net {program.net.name}, {layers}")
    if found:
        raise UserError(*found)
