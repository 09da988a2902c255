"""What `verify` works on: an artifact, beside its net in float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.published import of_artifact
from vggc.ir.needs import VERIFYING
from vggc.ir.ops import describe
from vggc.runtime.archs import in_words
from vggc.support.sheet import Sheet, as_html, as_text

if TYPE_CHECKING:
    from vggc.measure.verify import PrecisionLimits, Verification


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What the user asks `verify` for; None where nothing is said.

    `images` is a folder, of which `num_images` are compared; `weights` what the artifact
    was compiled from.
    """

    threads: int | None = None
    images: Path | None = None
    num_images: int | None = None
    weights: Path | None = None


@dataclass(frozen=True, repr=False)
class Verdict:
    """The comparisons of an artifact with its net, one for each kind of input, size and batch, and
    what its precision may cost.

    A notebook shows the table.
    """

    artifact: Path
    results: tuple[Verification, ...]
    limits: PrecisionLimits

    @property
    def passed(self) -> bool:
        """Whether the artifact computes its net on every input."""
        return self.fault is None

    @property
    def fault(self) -> str | None:
        """What is wrong with the artifact's outputs, in words; None where nothing is."""
        for result in self.results:
            if not result.passed:
                where = None if result.not_finite else result.first_departure
                tail = f"; the first layer that departs is {where}" if where else ""
                own = f" with its {self.kernels}" if self.kernels else ""
                input = self.told_input(result)
                what = f"{self.artifact} does not compute its net{own} on {input}"
                return f"{what}: {result.fault}{tail}"
        return None

    @property
    def kernels(self) -> str:
        """Which of the artifact's kernels were compared; nothing where it has one for all GPUs."""
        return in_words(self.results[0].archs)

    def told_input(self, result: Verification) -> str:
        """What an artifact was compared on, with the size and the batch where it has several."""
        told = result.input
        if len({each.size for each in self.results}) > 1:
            told += f" of {describe(result.size)}"
        if len({each.batch for each in self.results}) > 1:
            told += f", batch {result.batch}"
        return told

    @property
    def table(self) -> Sheet:
        """The comparisons as a table, a row for each kind of input, size and batch."""
        header = ("input", "verdict", "relative L2 error", "same top-1")
        rows = tuple(
            (
                self.told_input(each),
                "ok" if each.passed else "FAILED",
                f"{each.error:.2e}",
                f"{each.agreeing} of {each.images}" if each.has_classes else "",
            )
            for each in self.results
        )
        return Sheet(
            title=str(self.artifact), header=header, rows=rows, numbers=(False, False, True, True)
        )

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        return as_text(self.table)


def verify(artifact: Path, options: VerifyOptions) -> Verdict:
    """Compares an artifact with its net in float64.

    Raises:
        UserError: it is damaged or not for this machine, does not fit into memory, or images or
            weights are missing.
    """
    from vggc.runtime.artifact import require_memory

    require_memory(artifact, VERIFYING)

    from vggc.measure.verify import LIMITS, verify

    results = verify(
        artifact,
        options.threads,
        images=options.images,
        num_images=options.num_images,
        weights=of_artifact(artifact, options.weights),
    )
    return Verdict(artifact, tuple(results), LIMITS[results[0].precision])
