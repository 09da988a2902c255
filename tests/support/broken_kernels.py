"""Kernels that are not what they should be, for `vggc tune` to find: built by its worker processes
in the place of those that are asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from vggc.ir.ops import RELU
from vggc.kernels.algorithm import _arguments
from vggc.kernels.builder import Buffer, function
from vggc.kernels.cuda.emit import flat, launch
from vggc.kernels.workloads import Choice, Kernel, Workload
from vggc.tuning import measure
from vggc.tuning.machines import TunedCard
from vggc.tuning.space import Task

WRONG, CRASHING = 2, 3
"""The places, in the order of stated cost, of the choices that are built badly."""


def build_badly(task: Task, choice: Choice, library: Path, linker: str, tell: Any) -> str | None:
    """Builds a choice as `vggc.tuning.measure.build` does; of two choices something else."""
    broken = {task.choices[WRONG]: _wrong, task.choices[CRASHING]: _crashing}.get(choice)
    if broken is None:
        return measure.build(task, choice, library, linker, tell)
    right = TunedCard.kernel

    def kernel(card: TunedCard, workload: Workload, choice: Choice) -> Kernel:
        return broken(right, card, workload, choice)

    with patch.object(TunedCard, "kernel", kernel):
        return measure.build(task, choice, library, linker, tell)


def _wrong(right: Any, card: TunedCard, workload: Any, choice: Choice) -> Kernel:
    """It computes something else."""
    kernel: Kernel = right(card, replace(workload, act=RELU), choice)
    return kernel


def _crashing(right: Any, card: TunedCard, workload: Any, choice: Choice) -> Kernel:
    """It writes far beyond its output."""
    kernel: Kernel = right(card, workload, choice)

    def body(*buffers: Buffer) -> None:
        y = buffers[-1]
        with launch((1,), 32) as (_, thread):
            flat(y)[thread + 2**20 * math.prod(y.shape)] = buffers[0][0, 0, 0, 0]

    arguments = _arguments(workload, kernel.packing)
    func = function(body, arguments, {"tirx.is_scheduled": True})
    return replace(kernel, func=func, scratch=())
