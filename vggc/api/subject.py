"""Which net and weights somebody asked to work on, and telling them so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vggc.api.trained import NetOfRun, Subject, from_run, from_spec, net_in, resized
from vggc.ir.needs import Need
from vggc.ir.ops import describe
from vggc.program import Program, load
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.paths import is_run
from vggc.training.diagnostics import WeightsOfNoRun
from vggc.training.run import BEST, LAST, RUNS, Run, newest_run


class SeedOfRun(Diagnostic):
    title = "`--seed` draws random weights"
    label = "{spec} has weights"
    help = "leave `--seed` out"
    spec: str


@dataclass(frozen=True)
class Asked:
    """The net to work on, before any weight is read, and the `run` that it is of, if it is of one.

    `say` takes a line that the user should know.
    """

    program: Program
    spec: str | None
    run: Run | None
    weights: Path | None
    seed: int
    say: Callable[[str], None]
    preprocessing: str | None = None

    def subject(self) -> Subject:
        """The net together with its weights.

        Raises: UserError when there are none such, or they do not fit.
        """
        if self.run:
            subject = from_run(self.run, self.weights, self.program, self.preprocessing)
            for remark in self.run.remarks(self.weights):
                self.say(remark)
            if subject.matched:
                self.say(subject.matched)
            if subject.preprocessing_from:
                self.say(subject.preprocessing_from)
            else:
                tell_scale(self.run, subject, self.say)
            return subject
        subject = from_spec(self.program, self.weights, self.seed, self.spec, self.preprocessing)
        for told in filter(None, (subject.matched, subject.preprocessing_from)):
            self.say(told)
        if self.weights is None:
            self.say(
                f"{self.program.net.name} has no weights yet: random ones of seed {self.seed} are"
                " used. Give --weights FILE, or a run in place of the spec."
            )
        return subject


def ask(
    spec: str | Program | NetOfRun | None,
    weights: Path | None,
    seed: int | None,
    size: tuple[int, int] | None,
    need: Need | None,
    say: Callable[[str], None],
    preprocessing: str | None = None,
) -> Asked:
    """The net that the arguments name, or one that is there already; that of the newest run
    without a spec. Memory is only asked for where there is a `need`. The `preprocessing` is a
    preset or a file.

    Raises: UserError when there is no such thing, or it is malformed, or there is not the memory
    that is needed.
    """
    run = run_of(spec, say)
    if seed is not None and (run or weights):
        raise UserError(SeedOfRun(str(weights or (run and run.folder))))
    if not run and weights in (LAST, BEST):
        of = spec.net.name if isinstance(spec, Program) else str(spec)
        raise UserError(WeightsOfNoRun(str(weights), of))
    match spec:
        case Program():
            found = spec
        case NetOfRun(found):
            pass
        case _:
            found = net_in(run) if run else load(str(spec))
    program = resized(found, size)
    if need:
        need.require(program.graph)
    named = spec if isinstance(spec, str) else None
    return Asked(
        program=program,
        spec=named,
        run=run,
        weights=weights,
        seed=seed or 0,
        say=say,
        preprocessing=preprocessing,
    )


def run_of(spec: str | Program | NetOfRun | None, say: Callable[[str], None]) -> Run | None:
    """The run that a net is of: the newest one without a spec. None where it is of none.

    Raises: UserError when there is no run, or its record is not sound.
    """
    match spec:
        case None:
            run = newest_run(RUNS)
            say(f"taking the newest run, {run.folder}")
            return run
        case NetOfRun(_, run):
            return run
        case str() if is_run(spec):
            return Run.load(Path(spec))
        case _:
            return None


def tell_scale(run: Run, subject: Subject, say: Callable[[str], None]) -> None:
    """Tells the user where another input size takes another scale of the images with it."""
    before, after = run.record.preprocessing, subject.preprocessing
    if before.scale != after.scale:
        say(
            f"Images keep their proportion to the input: for {describe(after.size)} their shorter "
            f"side is brought to {after.scale} pixels, as to {before.scale} for "
            f"{describe(before.size)}."
        )
