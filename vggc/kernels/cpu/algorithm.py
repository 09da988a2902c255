"""An algorithm for a CPU, whose vector registers and caches decide what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from vggc.kernels.algorithm import Algorithm, Fixed, K, NoKnobs, W
from vggc.kernels.cpu.machine import Machine


@dataclass(frozen=True)
class CpuAlgorithm(Algorithm[W, K]):
    """One way to compute a workload on a CPU."""

    machine: Machine

    def arithmetic(self, knobs: K) -> str | None:
        """The algorithm: its kernels add up the terms of an element in the same order, whatever
        their knobs and the batch.

        Those of another algorithm round otherwise. One whose knobs or batch decide how a sum is cut
        says here how.
        """
        return self.names[0]


@dataclass(frozen=True)
class FixedCpuAlgorithm(CpuAlgorithm[W, NoKnobs], Fixed[W]):
    """An algorithm for a CPU that leaves nothing to choose."""
