"""An algorithm for a CPU, whose vector registers and caches decide what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from vggc.kernels.algorithm import Algorithm, Fixed, K, NoKnobs, W
from vggc.kernels.cpu.machine import Machine


@dataclass(frozen=True)
class CpuAlgorithm(Algorithm[W, K]):
    """One way to compute a workload on a CPU."""

    machine: Machine


@dataclass(frozen=True)
class FixedCpuAlgorithm(CpuAlgorithm[W, NoKnobs], Fixed[W]):
    """An algorithm for a CPU that leaves nothing to choose."""
