"""`vggc report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from vggc.cli import console
from vggc.cli.options import weights_option


@click.command("report")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The page, a new file or an older report of this run.  [default: RUN/report.html]",
)
@weights_option
@click.option("--errors/--no-errors", default=True, help="Whether to look for the worst errors.")
@click.option(
    "--data", metavar="PLACE", help="Where the run's images are now.  [default: where they were]"
)
@click.option("--val", metavar="PLACE", help="Where those held out are now, if not in --data.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "auto"]),
    help="What looks for errors.  [default: auto, CUDA if present]",
)
@click.option("--json", "as_json", is_flag=True, help="Tell in one line of JSON what was written.")
def command(
    folder: Path,
    out: Path | None,
    weights: Path | None,
    errors: bool,
    data: str | None,
    val: str | None,
    device: Literal["cpu", "cuda", "auto"] | None,
    as_json: bool,
) -> None:
    """Show a run as a page: one HTML file that needs no other and no network.

    It holds the course of the training as curves, the recipe and where it departs from the
    defaults, the net layer by layer, the filters of the first layer, the held-out images that
    the net got most wrong and how it confuses classes.

    RUN is a folder that `vggc train` made; one that is still going, too.
    """
    from vggc.api.report import plan
    from vggc.cli.train import bar
    from vggc.report.gather import ReportOptions

    given = {"--data": data, "--val": val, "--device": device}
    idle = [flag for flag, value in given.items() if value is not None]
    if idle and not errors:
        raise click.UsageError(f"{', '.join(idle)} is about errors, and --no-errors looks for none")
    planned = plan(folder, out, ReportOptions(errors, weights, data, val, device or "auto"))
    with bar(shown=True) as drawn:
        row = drawn.add_task("looking for errors", total=None, detail="")

        def show(done: int, total: int) -> None:
            drawn.update(row, completed=done, total=total)

        written = planned.write(show)
    findings = written.findings
    if as_json:
        last = findings.epochs[-1] if findings.epochs else None
        result = {
            "report": str(written.path),
            "bytes": written.bytes,
            "run": str(folder),
            "state": findings.run.record.state,
            "epochs": len(findings.epochs),
            "val_top1": last.val_top1 if last else None,
            "val_top5": last.val_top5 if last else None,
            "val_iou": last.val_iou if last else None,
            "val_iou50": last.val_iou50 if last else None,
            "errors_shown": written.num_errors,
            "errors_missing": written.why_no_errors,
        }
        console.out(json.dumps(result))
        return
    if written.why_no_errors and errors:
        console.status(f"No errors are shown. {written.why_no_errors}")
    console.out(f"{written.path}: {findings.run.record.net}, {written.bytes / 1e6:.2f} MB")
