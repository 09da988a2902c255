"""Which net and weights a command was asked to work on, and telling the user so."""

from __future__ import annotations

from pathlib import Path

from vggc.cli import console
from vggc.diagnostics import Diagnostic, UserError
from vggc.driver import load, with_input
from vggc.ir.ops import describe
from vggc.subject import Subject, from_run, from_spec, is_run
from vggc.training.mistakes import WeightsOfNoRun
from vggc.training.run import BEST, LAST, Run, newest_run

RUNS = Path("runs")


class SeedOfRun(Diagnostic):
    title = "`--seed` draws random weights"
    label = "{spec} has weights"
    help = "leave `--seed` out"
    spec: str


def choose(
    spec: str | None, weights: Path | None, seed: int | None, size: tuple[int, int] | None
) -> Subject:
    """The net and weights that the arguments name; the newest run without a spec.

    Raises: UserError when there is no such thing, or it is malformed.
    """
    run = None
    if spec is None:
        run = newest_run(RUNS)
        console.status(f"taking the newest run, {run.folder}")
    elif is_run(spec):
        run = Run.load(Path(spec))
    if seed is not None and (run or weights):
        raise UserError(SeedOfRun(None, str(weights or (run and run.folder))))
    if run:
        subject = from_run(run, weights, size)
        for remark in run.remarks(weights):
            console.status(remark)
        tell_scale(run, subject)
        return subject
    assert spec is not None
    if weights in (LAST, BEST):
        raise UserError(WeightsOfNoRun(None, str(weights), spec))
    program = load(spec)
    if size is not None:
        program = program.replace(with_input(program.net, size))
    subject = from_spec(program, weights, seed or 0, spec)
    if weights is None:
        console.status(
            f"{program.net.name} has no weights yet: random ones of seed {seed or 0} are used."
            " Give --weights FILE, or a run in place of the spec."
        )
    return subject


def tell_scale(run: Run, subject: Subject) -> None:
    """Says so where another input takes another scale of the images with it."""
    before, after = run.record.preprocessing, subject.preprocessing
    if before.scale != after.scale:
        console.status(
            f"Images keep their proportion to the input: for {describe(after.size)} their shorter "
            f"side is brought to {after.scale} pixels, as to {before.scale} for "
            f"{describe(before.size)}."
        )
