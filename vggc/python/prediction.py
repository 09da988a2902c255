"""What a net takes an image for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggc.api.run import best_classes
from vggc.support.diagnostics import printable
from vggc.support.sheet import Sheet, as_html

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Prediction:
    """The most probable classes of an image, the best first, with their probabilities. A notebook
    shows them as a table.
    """

    image: str
    """The path of its file, or what kind of image it was."""
    best: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.best[0][0]

    @property
    def probability(self) -> float:
        """The probability of the most probable class, from 0 to 1."""
        return self.best[0][1]

    @property
    def table(self) -> Sheet:
        """The classes and their probabilities as a table."""
        rows = tuple((name, f"{value:.4f}") for name, value in self.best)
        return Sheet(
            title=self.image, header=("class", "probability"), rows=rows, numbers=(False, True)
        )

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value:.1%}" for name, value in self.best)
        return printable(f"<Prediction {self.image}: {told}>")


def predicted(
    image: str, probabilities: NDArray[np.float32], classes: Sequence[str], top: int
) -> Prediction:
    """The `top` classes of an image by their probabilities (classes,)."""
    return Prediction(image, tuple(best_classes(probabilities, classes.__getitem__, top)))
