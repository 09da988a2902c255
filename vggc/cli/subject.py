"""Which net and weights a command was asked to work on, and telling the user so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggc.api.trained import Subject, from_run, from_spec, is_run, net_in, resized
from vggc.cli import console
from vggc.ir.needs import Need
from vggc.ir.ops import describe
from vggc.program import Program, load
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.training.diagnostics import WeightsOfNoRun
from vggc.training.run import BEST, LAST, Run, newest_run

RUNS = Path("runs")


class SeedOfRun(Diagnostic):
    title = "`--seed` draws random weights"
    label = "{spec} has weights"
    help = "leave `--seed` out"
    spec: str


@dataclass(frozen=True)
class Asked:
    """What a command was asked to work on, before any weight is read: a net, and the `run` that it
    is of, if it is.
    """

    program: Program
    spec: str | None
    run: Run | None
    weights: Path | None
    seed: int
    size: tuple[int, int] | None

    def subject(self) -> Subject:
        """The net with its weights.

        Raises: UserError when there are none such, or they do not fit.
        """
        if self.run:
            subject = from_run(self.run, self.weights, self.size)
            for remark in self.run.remarks(self.weights):
                console.status(remark)
            tell_scale(self.run, subject)
            return subject
        subject = from_spec(self.program, self.weights, self.seed, self.spec)
        if self.weights is None:
            console.status(
                f"{self.program.net.name} has no weights yet: random ones of seed {self.seed} are"
                " used. Give --weights FILE, or a run in place of the spec."
            )
        return subject


def ask(
    spec: str | None,
    weights: Path | None,
    seed: int | None,
    size: tuple[int, int] | None,
    need: Need,
) -> Asked:
    """The net that the arguments name; that of the newest run without a spec.

    Raises: UserError when there is no such thing, or it is malformed, or there is not the memory
    that is needed.
    """
    run = None
    if spec is None:
        run = newest_run(RUNS)
        console.status(f"taking the newest run, {run.folder}")
    elif is_run(spec):
        run = Run.load(Path(spec))
    if seed is not None and (run or weights):
        raise UserError(SeedOfRun(str(weights or (run and run.folder))))
    if not run and weights in (LAST, BEST):
        raise UserError(WeightsOfNoRun(str(weights), str(spec)))
    program = resized(net_in(run) if run else load(str(spec)), size)
    need.require(program.graph)
    return Asked(program=program, spec=spec, run=run, weights=weights, seed=seed or 0, size=size)


def tell_scale(run: Run, subject: Subject) -> None:
    """Says so where another input takes another scale of the images with it."""
    before, after = run.record.preprocessing, subject.preprocessing
    if before.scale != after.scale:
        console.status(
            f"Images keep their proportion to the input: for {describe(after.size)} their shorter "
            f"side is brought to {after.scale} pixels, as to {before.scale} for "
            f"{describe(before.size)}."
        )
