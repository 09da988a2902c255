"""A template: code for a kind of workload with sizes left open, its knobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

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

    def choice(self, knobs: Knobs) -> Choice:
        return Choice(self.algorithm, tuple(asdict(knobs).items()))
