"""`vggc find-lr`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.api.train import TrainOptions, new_run
from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE, TRAIN_PRECISION
from vggc.cli.train import announce, bar, read, silent
from vggc.support.diagnostics import CheckFailed, Diagnostic, UserError
from vggc.support.files import all_or_none, check_target, is_one_place
from vggc.support.memory import keep_memory
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.training.rate_search import Sweep, SweepCurve, Tried

PICTURES = (".svg", ".png")
LEAST, MOST = 1e-12, 1e6


class UnknownCurve(Diagnostic):
    title = "{path} is no picture that vggc draws"
    label = "the end of its name tells the kind of picture: .svg or .png"
    help = "did you mean {suggestion}?"
    path: str
    suggestion: str


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
@click.option(
    "--device", type=click.Choice(["cpu", "cuda", "auto"]), help="[default: auto, CUDA if present]"
)
@click.option(
    "--precision",
    type=TRAIN_PRECISION,
    help="Type that layers compute in.  [default: float32]",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    metavar="N",
    help="Processes that decode images.  [default: one a processor, 8 at most]",
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Run or weights of the net that the recipe's `init-from` names.",
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
    workers: int | None,
    low: float,
    high: float,
    steps: int,
    csv: Path | None,
    out: Path | None,
    as_json: bool,
    **rest: object,
) -> None:
    """Find a learning rate for the net SPEC, its recipe and its images.

    The net is trained for some steps, each at a greater rate, until the loss explodes. It leaves
    nothing behind: no run, no weights. The rate at which the loss falls most steeply is a good
    one to begin with, or to have for a peak; so is a tenth of the one at which it is least.

    Exit 1: the loss does not fall at any of the rates.
    """
    from vggc.training.learner import device_of
    from vggc.training.parallel import joined
    from vggc.training.rate_search import Sweep, SweepCurve, draw_sweep, sweep, write_sweep
    from vggc.training.session import fresh

    if low >= high:
        raise click.UsageError("--from is not below --to")
    if out and out.suffix.lower() not in PICTURES:
        raise UserError(UnknownCurve(str(out), str(out.with_suffix(".svg"))))
    options = TrainOptions(**rest)  # type: ignore[arg-type]  # click has checked the types
    plan = new_run(spec, options, kept=False)
    world = plan.world
    speak = console.status if world.is_first else silent
    files = [path for path in (csv, out) if path] if world.is_first else []
    if is_one_place(files):
        raise click.UsageError("--csv and --out cannot be written to one file")
    for path in files:
        check_target(path)
    rates = Sweep(low, high, steps)
    with joined(world, device_of(plan.machine, world)):
        announce(plan, speak)
        task = plan.task(read(plan, speak))
        speak(
            f"Trying rates from {low:g} to {high:g} in {steps} steps of "
            f"{console.count(min(task.recipe.batch, len(task.data.train)), 'image')}, "
            f"on {task.machine.device} in {task.machine.precision}."
        )
        if task.machine.device == "cpu":
            keep_memory()
        with bar(world.is_first) as drawn:
            row = drawn.add_task("searching", total=steps, detail="")

            def show(each: Tried) -> None:
                detail = f"rate {each.lr:.2g}  loss {each.loss:.3f}"
                drawn.update(row, completed=each.step, detail=detail)

            tried = sweep(fresh(task), task, rates, show, workers)
    if not world.is_first:
        return
    curve = SweepCurve.of(tried, len(task.data.classes))
    with all_or_none() as made:
        if csv:
            write_sweep(csv, curve)
            made.append(csv)
        if out and tried:
            draw_sweep(out, f"{task.net}: the loss over the learning rate", curve)
            made.append(out)
    for path in made:
        speak(f"Written: {path}")
    report(task.net, curve, rates, as_json)


def report(net: str, curve: SweepCurve, rates: Sweep, as_json: bool) -> None:
    """The rates that suggest themselves, on stdout, and how to take one.

    Raises:
        CheckFailed: there are none.
    """
    from vggc.training.rate_search import rounded

    tried, result = curve.tried, curve.found
    exploded = len(tried) < rates.steps
    if as_json:
        record = {
            "net": net,
            "steps": len(tried),
            "exploded_at": rates.rate(len(tried)) if exploded else None,
            "steepest": result.steepest if result else None,
            "least": result.least if result else None,
            "tenth_of_least": result.tenth if result else None,
        }
        console.out(json.dumps(record))
    if result is None:
        raise CheckFailed(
            f"the loss of {net} does not fall at any rate from {rates.low:g} to "
            f"{tried[-1].lr if tried else rates.low:.2g}: try more `--steps`, a lower `--from`, or "
            "look at the images and their classes"
        )
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
