"""An algorithm for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from vggc.kernels.algorithm import Algorithm, Cost, Fixed, K, NoKnobs, W
from vggc.kernels.cuda.card import H200, Card


@dataclass(frozen=True)
class CudaAlgorithm(Algorithm[W, K]):
    """One way to compute a workload on a GPU; it may launch more than one CUDA kernel.

    What it costs is told for a card, whose shared memory bounds its knobs, too.
    """

    attributes = {"tirx.is_scheduled": True}  # noqa: RUF012  (nobody writes to it)

    card: Card = H200

    def cost(self, knobs: K) -> Cost:
        return (0.0,)


@dataclass(frozen=True)
class FixedCudaAlgorithm(CudaAlgorithm[W, NoKnobs], Fixed[W]):
    """An algorithm for a GPU that has no knobs."""
