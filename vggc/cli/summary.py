"""`vggc summary`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.cli.options import DTYPE, IMAGE_SIZE
from vggc.program import Program, load, with_input, zoo
from vggc.support.paths import is_run
from vggc.support.precision import Precision
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.analysis.report import Report
    from vggc.cli.summary_text import SummarisedNet
    from vggc.training.run import Run


@click.command("summary")
@click.argument("specs", nargs=-1, metavar="[SPEC…]")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option(
    "--batch",
    type=click.IntRange(1, 1 << 20),
    help="Images at once.  [default: 1; of a run as many as it trains on at once]",
)
@click.option(
    "--dtype",
    type=DTYPE,
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
    specs: tuple[str, ...],
    size: tuple[int, int] | None,
    batch: int | None,
    dtype: Precision,
    style: str,
) -> None:
    """Show what nets cost: shapes, parameters, MACs, memory, receptive fields.

    One SPEC, a net or a run: layer by layer. Several: side by side, as the paper's Table 1
    lays them out. None: every net of the zoo, one row each.
    """
    from vggc.analysis.outline import outline
    from vggc.api.published import hint_at
    from vggc.cli import summary_text

    found = [found_by(spec) for spec in specs or zoo()]
    batches = {each.batch for each in found}
    batch = batch or (batches.pop() if len(batches) == 1 else 1)
    nets = []
    for spec, each in zip(specs or zoo(), found, strict=True):
        program = each.program
        if size is not None:
            program = program.replace(with_input(program.net, size))
        report = each.report(program, batch, dtype)
        told = hint_at(spec, program) if len(specs) == 1 and each.run is None else ""
        nets.append(summary_text.SummarisedNet(report, outline(program.graph, report), told))
    match style:
        case "json":
            console.out(summary_text.as_json(nets, single=len(specs) == 1))
        case "csv":
            console.out(summary_text.as_csv(nets, by_net=len(specs) != 1))
        case "markdown":
            console.out(summary_text.as_markdown(nets, named=bool(specs)))
        case _ if not specs:
            console.sheet(summary_text.totals(nets))
        case _ if len(specs) == 1:
            console.sheet(summary_text.layers(nets[0]))
        case _:
            _side_by_side(nets)


@dataclass(frozen=True)
class SummarySubject:
    """A net, and the batch that it is told for unless another is meant: of a `run` the one that it
    trains in, otherwise 1.
    """

    program: Program
    batch: int = 1
    run: Run | None = None

    def report(self, program: Program, batch: int, dtype: Precision) -> Report:
        """What the net costs, as the run trains it; `program` may have another input."""
        if self.run is None:
            return program.report(batch, dtype)
        from vggc.api.trained import cost_of

        return cost_of(self.run, program, batch, dtype)


def found_by(spec: str) -> SummarySubject:
    """What a summary tells of: the run in a folder, or else the net that `spec` names."""
    if not is_run(spec):
        return SummarySubject(load(spec))
    from vggc.api.trained import net_in, part_at_once  # which take numpy with them
    from vggc.training.run import Run

    run = Run.load(Path(spec))
    return SummarySubject(net_in(run), part_at_once(run), run)


def _side_by_side(nets: list[SummarisedNet]) -> None:
    """Tables 1 and 2 of the paper; in parts where the terminal is too narrow for all nets."""
    from rich.text import Text

    from vggc.cli.comparison import NetComparison, compare, drawn, parts
    from vggc.cli.summary_text import totals_by_net
    from vggc_runtime.text import printable

    stdout = console.stdout()
    marked = not stdout.is_terminal or stdout.is_dumb_terminal
    table = compare([(net.report, net.outline) for net in nets])
    widths = [width + 2 * marked for width in table.widths]
    for chosen in parts(widths, stdout.width):
        part = NetComparison(table.columns[chosen])
        for words in drawn(part, stdout.width, marked=marked):
            pieces = ((printable(text), "bold" if bold else "") for text, bold in words)
            stdout.print(Text.assemble(*pieces), no_wrap=True, crop=False, overflow="ignore")
    sign = "+" if marked else "bold"
    stdout.print(f"{sign}: not in the net to the left, or less often\n", style="dim")
    sheet = totals_by_net(nets)
    columns = [*zip(sheet.header, *sheet.rows, strict=True)]
    label, *rest = (max(map(len, column)) for column in columns)
    chunks = [*parts(rest, stdout.width, label=label + 3)]
    for chosen in chunks:
        header, *rows = zip(columns[0], *columns[1:][chosen], strict=True)
        numbers = (False, *sheet.numbers[1:][chosen])
        notes = sheet.notes if chosen is chunks[-1] else ()
        console.sheet(
            Sheet(title=sheet.title, header=header, rows=tuple(rows), numbers=numbers, notes=notes)
        )
