"""`vggc find-lr`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vggc.api.find_rate import FindRateOptions, plan
from vggc.api.train import TrainOptions
from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE, TRAIN_PRECISION, device_option, workers_option
from vggc.cli.train import announce, bar, read, silent
from vggc.support.files import is_one_place
from vggc.support.precision import TrainPrecision
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.api.find_rate import FindRatePlan
    from vggc.training.rate_search import SweepCurve, Tried

LEAST, MOST = 1e-12, 1e6


@click.command("find-lr")
@click.argument("spec")
@click.option(
    "--data",
    metavar="PLACE",
    help="Images, as for `vggc train`.  [default: scanned digits]",
)
@click.option("--val", metavar="PLACE", help="Images to hold out, of the same kinds.")
@click.option("--batch", type=int, help="Images in a step.")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@device_option
@click.option(
    "--precision",
    type=TRAIN_PRECISION,
    help="Type that layers compute in.  [default: float32]",
)
@workers_option
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    metavar="PATH|imagenet",
    help="Run or weights of the net that the recipe's `init-from` names; or published weights.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of all randomness.  [default: 0]")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe, as for `vggc train`.",
)
@click.option(
    "--from",
    "low",
    type=click.FloatRange(LEAST, MOST),
    default=1e-6,
    show_default=True,
    help="The rate of the first step.",
)
@click.option(
    "--to",
    "high",
    type=click.FloatRange(LEAST, MOST),
    default=10.0,
    show_default=True,
    help="The rate of the last step, if the loss bears it.",
)
@click.option(
    "--steps",
    type=click.IntRange(10, 10_000),
    default=100,
    show_default=True,
    help="Steps of training.",
)
@click.option("--csv", type=click.Path(path_type=Path), help="Write rates and losses: a new .csv.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Draw the loss over the rate: a new file, NAME.svg or NAME.png.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def command(
    spec: str,
    data: str | None,
    val: str | None,
    batch: int | None,
    size: tuple[int, int] | None,
    device: Literal["cpu", "cuda", "auto"] | None,
    precision: TrainPrecision | None,
    workers: int | None,
    init_from: Path | None,
    seed: int | None,
    changes: tuple[str, ...],
    low: float,
    high: float,
    steps: int,
    csv: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find a learning rate for the net SPEC, its recipe and its images.

    The net is trained for some steps, each at a greater rate, until the loss explodes. It leaves
    nothing behind: no run, no weights. The rate at which the loss falls most steeply is a good
    one to begin with, or to have for a peak; so is a tenth of the one at which it is least.

    Exit 1: the loss does not fall at any of the rates.
    """
    from vggc.training.learner import device_of
    from vggc.training.parallel import joined

    if low >= high:
        raise click.UsageError("--from is not below --to")
    if is_one_place([path for path in (csv, out) if path]):
        raise click.UsageError("--csv and --out cannot be written to one file")
    asked = TrainOptions(
        data=data,
        val=val,
        batch=batch,
        size=size,
        device=device,
        precision=precision,
        init_from=init_from,
        seed=seed,
        changes=changes,
    )
    options = FindRateOptions(
        train=asked, low=low, high=high, steps=steps, workers=workers, csv=csv, picture=out
    )
    planned = plan(spec, options)
    training, world = planned.training, planned.training.world
    speak = console.status if world.is_first else silent
    with joined(world, device_of(training.machine, world)):
        announce(training, speak)
        task = training.task(read(training, speak))
        speak(
            f"Trying rates from {low:g} to {high:g} in {steps} steps of "
            f"{console.count(min(task.recipe.batch, len(task.data.train)), 'image')}, "
            f"on {task.machine.device} in {task.machine.precision}."
        )
        with bar(world.is_first) as drawn:
            row = drawn.add_task("searching", total=steps, detail="")

            def show(each: Tried) -> None:
                detail = f"rate {each.lr:.2g}  loss {each.loss:.3f}"
                drawn.update(row, completed=each.step, detail=detail)

            curve = planned.search(task, show)
    if not world.is_first:
        return
    for path in planned.save(task.net, curve):
        speak(f"Written: {path}")
    report(planned, task.net, curve, as_json)


def report(planned: FindRatePlan, net: str, curve: SweepCurve, as_json: bool) -> None:
    """The rates that suggest themselves, on stdout, and how to take one.

    Raises:
        CheckFailed: there are none.
    """
    from vggc.training.rate_search import rounded

    tried, found, rates = curve.tried, curve.found, planned.rates
    exploded = len(tried) < rates.steps
    if as_json:
        record = {
            "net": net,
            "steps": len(tried),
            "exploded_at": rates.rate(len(tried)) if exploded else None,
            "steepest": found.steepest if found else None,
            "least": found.least if found else None,
            "tenth_of_least": found.tenth if found else None,
        }
        console.out(json.dumps(record))
    result = planned.result(net, curve)
    if as_json:
        return
    steepest, tenth = rounded(result.steepest), rounded(result.tenth)
    rows = (
        ("where the loss falls most steeply", steepest, f"--set lr={steepest}"),
        ("a tenth of where it is least", tenth, f"--set lr={tenth}"),
        ("where it is least", rounded(result.least), ""),
        ("where it explodes", rounded(rates.rate(len(tried))) if exploded else "–", ""),
    )
    header, numbers = ("", "rate", "to take it"), (False, True, False)
    console.sheet(
        Sheet(title=f"{net}, after {len(tried)} steps", header=header, rows=rows, numbers=numbers)
    )
    if not exploded and result.least >= rates.rate(rates.steps - 2):
        console.status("The loss still fell at the greatest rate: a greater `--to` tells more.")
