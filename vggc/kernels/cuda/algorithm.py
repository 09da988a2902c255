"""An algorithm for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from vggc.kernels.algorithm import Algorithm, Cost, Fixed, K, NoKnobs, W
from vggc.kernels.cuda.accesses import Accesses
from vggc.kernels.cuda.card import H200, LAUNCH, Card
from vggc.kernels.cuda.hopper import ARCH
from vggc.kernels.workloads import Layout, Workload, buffer_shape, storage

OVERLAPPING = {"tirx.kernel_launch_params": ["tirx.use_programtic_dependent_launch"]}
"""Lets a kernel begin early; so TVM spells it."""


@dataclass(frozen=True)
class CudaAlgorithm(Algorithm[W, K]):
    """One way to compute a workload on a GPU; it may launch more than one CUDA kernel.

    What it costs is told for a card, whose shared memory bounds its knobs, too.
    """

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What TVM is told of its functions."""
        scheduled = {"tirx.is_scheduled": True}
        return scheduled | OVERLAPPING if self.overlaps else scheduled

    @property
    def overlaps(self) -> bool:
        """Whether a kernel begins before the one before it has ended, as Hopper's GPUs may
        (`emit.await_kernel_before`).
        """
        return self.card.arch == ARCH

    only_on: ClassVar[str | None] = None
    """The architecture that code must be for, where it has instructions that no other has."""

    card: Card = H200

    def seconds(self, knobs: K) -> float:
        """What the kernel is thought to take on the card; here, to move what it must move."""
        return LAUNCH + moved_bytes(self.workload) / self.card.memory_rate

    def accesses(self, knobs: K) -> Accesses | None:
        """Which bytes of its buffers the kernel touches; None where nothing tells it."""
        return None

    def cost(self, knobs: K) -> Cost:
        return (self.seconds(knobs),)


@dataclass(frozen=True)
class FixedCudaAlgorithm(CudaAlgorithm[W, NoKnobs], Fixed[W]):
    """An algorithm for a GPU that has no knobs."""


def moved_bytes(workload: Workload) -> int:
    """What a workload must read and write at least: inputs, weights in the format of the inputs,
    and output, each once.
    """
    size = np.dtype(storage(workload.inputs[0])).itemsize
    weights = sum(prod(shape) for shape in workload.weights.values()) * size
    return weights + sum(map(_bytes, (*workload.inputs, workload.output)))


def _bytes(layout: Layout) -> int:
    return prod(buffer_shape(layout)) * np.dtype(storage(layout)).itemsize
