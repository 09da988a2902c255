"""`vggc summary`."""

from __future__ import annotations

import click

from vggc.analysis.report import ELEMENT_BYTES
from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE
from vggc.driver import load, with_input, zoo


@click.command("summary")
@click.argument("specs", nargs=-1, metavar="[SPEC…]")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option("--batch", type=click.IntRange(1, 1 << 20), default=1, show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(list(ELEMENT_BYTES)),
    default="float32",
    show_default=True,
    help="Type of weights and activations.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json", "csv", "markdown"]),
    default="table",
    show_default=True,
)
def command(
    specs: tuple[str, ...], size: tuple[int, int] | None, batch: int, dtype: str, style: str
) -> None:
    """Show what nets cost: shapes, parameters, MACs, memory, receptive fields.

    One SPEC: layer by layer. Several: side by side, as the paper's Table 1 lays them
    out. None: every net of the zoo, one row each.
    """
    from vggc.cli import summary_text

    programs = [load(spec) for spec in specs or zoo()]
    if size is not None:
        programs = [program.replace(with_input(program.net, size)) for program in programs]
    reports = [program.report(batch, dtype) for program in programs]
    match style:
        case "json":
            console.out(summary_text.as_json(reports, single=len(specs) == 1))
        case "csv":
            console.out(summary_text.as_csv(reports, by_net=len(specs) != 1))
        case "markdown":
            console.out(summary_text.as_markdown(summary_text.tables(reports, specs)))
        case _:
            for part in summary_text.tables(reports, specs):
                console.sheet(part)
