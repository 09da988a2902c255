"""What `report` works on: a run, and the page that shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.training.run import Run

if TYPE_CHECKING:
    from vggc.report.gather import Findings, ReportOptions


@dataclass(frozen=True)
class ReportPlan:
    """A page on the run in a folder, before anything is looked at; it is written to `path`."""

    folder: Path
    path: Path
    options: ReportOptions

    def write(self, on_progress: Callable[[int, int], None]) -> WrittenReport:
        """Gathers what is known of the run and writes the page, whole or not at all; `on_progress`
        is told how many images of how many have been judged.

        Raises:
            UserError: something in the run is not sound, or the images that are asked for are not
                the run's, or the page cannot be written.
        """
        from vggc.analysis.layer_table import layer_table
        from vggc.analysis.outline import outline
        from vggc.api.trained import cost_of
        from vggc.report.gather import gather
        from vggc.report.page import generator, page
        from vggc.report.write import write

        findings = gather(self.folder, self.options, on_progress)
        report = cost_of(findings.run, findings.program)
        sheet = layer_table(report, outline(findings.program.graph, report))
        text = page(findings, sheet, datetime.now())
        return WrittenReport(self.path, write(self.path, generator(findings.run), text), findings)


@dataclass(frozen=True)
class WrittenReport:
    """A page of so many bytes, and what it shows."""

    path: Path
    bytes: int
    findings: Findings

    @property
    def num_errors(self) -> int:
        """How many images are shown that the net got wrong, or whose boxes it gave worst."""
        judged = self.findings.judged
        if isinstance(judged, str):
            return 0
        return sum(len(each.worst) for each in (judged.classes, judged.boxes) if each)

    @property
    def why_no_errors(self) -> str | None:
        """Why no images were looked at, in words; None where they were."""
        judged = self.findings.judged
        return judged if isinstance(judged, str) else None


def plan(folder: Path, out: Path | None, options: ReportOptions) -> ReportPlan:
    """The page on the run in a folder: in `out`, or in the folder itself.

    Raises:
        UserError: the folder is no run, or something else than its report is in the page's place.
    """
    from vggc.report.page import generator
    from vggc.report.write import refuse_others

    path = out or folder / "report.html"
    refuse_others(path, generator(Run.load(folder)))
    return ReportPlan(folder, path, options)
