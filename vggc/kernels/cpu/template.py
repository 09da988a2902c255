"""A template: code for a kind of workload with sizes left open, its knobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.kernels.workloads import Choice, Kernel

Knobs: TypeAlias = Any
"""A frozen dataclass of integers; each template has its own."""

Cost: TypeAlias = tuple[float, ...]
"""The order of preference, least first: half cycles of all cores, then what breaks ties."""


@dataclass(frozen=True)
class Template:
    """What one algorithm offers for one workload on one machine."""

    algorithm: str
    knobs: Iterable[Knobs]
    """All that there is code for."""
    cost: Callable[[Knobs], Cost]
    kernel: Callable[[Knobs], Kernel]
    error: float = 0.0
    """The relative L2 error that its arithmetic adds, beyond that of plain sums."""
    error_of: Callable[[NDArray[np.float32]], float] | None = None
    """The same with a given weight, where that makes a difference."""

    def error_with(self, weight: NDArray[np.float32]) -> float:
        """The error that it adds with a weight, at least that with usual ones."""
        return max(self.error, self.error_of(weight)) if self.error_of else self.error

    def choice(self, knobs: Knobs) -> Choice:
        return Choice(self.algorithm, tuple(asdict(knobs).items()))
