"""Tuning in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api import tune as tunings
from vggc.api.trained import NetOfRun
from vggc.api.tune import TuneOptions, TuningPlan
from vggc.api.tuning_table import tuning_table
from vggc.python.net import Network
from vggc.python.run import Place, TrainingRun, known, optional
from vggc.support.batches import checked_batches
from vggc.support.precision import ARTIFACT_PRECISIONS, ArtifactPrecision, parse_precision
from vggc.support.sheet import Sheet, as_html, as_text
from vggc.support.sizes import HeightWidth, sizes_of

if TYPE_CHECKING:
    from vggc.tuning.tuner import TuningProgress


@dataclass(frozen=True, repr=False)
class TuningResult:
    """Which kernels of a net were measured to be the fastest. A notebook shows the table."""

    planned: TuningPlan
    course: TuningProgress

    @property
    def db(self) -> Path:
        """The folder of the database that holds the measurements."""
        return self.planned.folder

    @property
    def measured(self) -> int:
        """How many choices were timed; what the database knew is not timed again."""
        return self.course.measured

    @property
    def seconds(self) -> tuple[float, float] | None:
        """The seconds of a batch in the kernels that leave a choice, as the cost model chooses and
        as measured to be the fastest, of several batches and sizes those of all; None where no
        kernel was measured in both ways.
        """
        return self.course.seconds

    @property
    def table(self) -> Sheet:
        """The kernels as a table, and all together."""
        return tuning_table(self.planned.program.net.name, self.course)

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        return as_text(self.table)


def tune(
    net: Network | TrainingRun | Place,
    *,
    target: str = "cpu",
    mcpu: str | None = None,
    budget: float = 600.0,
    batch: int | Sequence[int] = 1,
    size: HeightWidth | Sequence[HeightWidth] | None = None,
    dense: HeightWidth | Sequence[HeightWidth] | None = None,
    precision: ArtifactPrecision = "float32",
    max_error: float | None = None,
    threads: int | None = None,
    db: Place | None = None,
    rpc: str | None = None,
    key: str | None = None,
    on_progress: Callable[[TuningProgress, str], None] | None = None,
) -> TuningResult:
    """Measures which kernels of a net or a run are the fastest, for `compile`, which finds them in
    the database.

    Each option is that of `vggc tune`; `budget` is in seconds, `batch` a number of images or those
    of one artifact, `[1, 8, 32]`, whose kernels are chosen together. `on_progress` is told how it
    goes and what comes next, in words. What was measured is kept when Ctrl-C is pressed, too.

    Raises:
        UserError: there is no such net, target or server, what is asked for does not go together,
            or the database cannot be written.
        CheckFailed: no kernel leaves a choice, nothing could be measured, or all servers are lost.
        KeyboardInterrupt: all measurements are in the database.
    """
    options = TuneOptions(
        target=target,
        mcpu=mcpu,
        budget=budget,
        batches=checked_batches([batch] if isinstance(batch, int) else batch),
        sizes=sizes_of(size),
        dense=sizes_of(dense),
        precision=parse_precision(precision, ARTIFACT_PRECISIONS),
        max_error=max_error,
        threads=threads,
        db=optional(Path, db),
        rpc=rpc,
        key=key,
    )
    found = known(net)
    planned = tunings.plan(found.program if isinstance(found, NetOfRun) else found, options)
    with tunings.tuning(planned) as run:
        course = run(on_progress or (lambda course, doing: None))
    if course.interrupted:
        raise KeyboardInterrupt
    tunings.require_measured(course)
    tunings.require_servers(course)
    return TuningResult(planned, course)
