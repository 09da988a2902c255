"""Which net and weights a command was asked to work on, and telling the user so."""

from __future__ import annotations

from pathlib import Path

from vggc.cli import console
from vggc.driver import load, with_input
from vggc.subject import Subject, from_run, from_spec, is_run
from vggc.training.run import Run, newest_run

RUNS = Path("runs")


def choose(
    spec: str | None, weights: Path | None, seed: int, size: tuple[int, int] | None
) -> Subject:
    """The net and weights that the arguments name; the newest run without a spec.

    Raises: UserError when there is no such thing, or it is malformed.
    """
    if spec is None:
        run = newest_run(RUNS)
        console.status(f"taking the newest run, {run.folder}")
        return from_run(run, weights)
    if is_run(spec):
        return from_run(Run.load(Path(spec)), weights)
    program = load(spec)
    if size is not None:
        program = program.replace(with_input(program.net, size))
    subject = from_spec(program, weights, seed)
    if weights is None:
        console.status(
            f"{program.net.name} has no weights yet: random ones of seed {seed} are used."
            " Give --weights FILE, or a run in place of the spec."
        )
    return subject
