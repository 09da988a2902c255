"""Kernels for CPUs, written for a machine's vector registers."""

from __future__ import annotations

from math import inf
from typing import Any, TypeAlias

from vggc.kernels.algorithm import Fixed
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.block_float import DenseBlockFloat20, DenseBlockFloat24
from vggc.kernels.cpu.conv import Direct, Grouped
from vggc.kernels.cpu.convert import ConvertRows
from vggc.kernels.cpu.dense import DenseStreams
from vggc.kernels.cpu.depthwise import Depthwise
from vggc.kernels.cpu.dot import DirectBfloat16, DirectUint8
from vggc.kernels.cpu.elementwise import (
    AddRows,
    ConcatRows,
    MulRows,
    PointwiseRows,
    PReluRows,
    ShuffleRows,
    TakeRows,
    UpsampleRows,
)
from vggc.kernels.cpu.layout import ToNchwPlanes, ToNhwcRows
from vggc.kernels.cpu.lrn import LrnRows
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.cpu.norm import NormGroups, NormPixels
from vggc.kernels.cpu.pad import PadRows
from vggc.kernels.cpu.places import PlacesRows
from vggc.kernels.cpu.pool import LargeWindow, SmallWindow
from vggc.kernels.cpu.softmax import Softmax2dRows, SoftmaxRows
from vggc.kernels.cpu.stochastic import StochasticWindows
from vggc.kernels.cpu.winograd import Winograd2, Winograd4, Winograd6
from vggc.kernels.cpu.winograd_bf16 import Winograd2Bfloat16
from vggc.kernels.cpu.winograd_int16 import Winograd4Int16
from vggc.kernels.cpu.word_columns import ColumnsBfloat16, ColumnsUint8
from vggc.kernels.workloads import Choice, Kernel, Workload

__all__ = ["ALGORITHMS", "Machine", "algorithms", "alternatives", "choices", "kernel"]

AnyAlgorithm: TypeAlias = CpuAlgorithm[Any, Any]

ALGORITHMS: tuple[type[AnyAlgorithm], ...] = (
    Direct,
    Grouped,
    Depthwise,
    Winograd2,
    Winograd4,
    Winograd6,
    DirectBfloat16,
    DirectUint8,
    Winograd2Bfloat16,
    Winograd4Int16,
    DenseStreams,
    DenseBlockFloat24,
    DenseBlockFloat20,
    ColumnsBfloat16,
    ColumnsUint8,
    SmallWindow,
    LargeWindow,
    StochasticWindows,
    PadRows,
    LrnRows,
    NormGroups,
    NormPixels,
    PlacesRows,
    PointwiseRows,
    PReluRows,
    AddRows,
    MulRows,
    ConcatRows,
    ShuffleRows,
    TakeRows,
    UpsampleRows,
    SoftmaxRows,
    Softmax2dRows,
    ConvertRows,
    ToNhwcRows,
    ToNchwPlanes,
)
"""Every algorithm; of those for one workload the simplest first, with which others must agree."""


def algorithms(workload: Workload, machine: Machine) -> tuple[AnyAlgorithm, ...]:
    """The algorithms that apply to `workload`, the simplest first; at least one."""
    return tuple(
        algorithm(workload, machine)
        for algorithm in ALGORITHMS
        if isinstance(workload, algorithm.computes) and algorithm.applies(workload)
    )


def alternatives(workload: Workload, machine: Machine) -> tuple[AnyAlgorithm, ...]:
    """The algorithms for `workload`, the simplest first; none where there is nothing to choose."""
    found = algorithms(workload, machine)
    return () if isinstance(found[0], Fixed) else found


def choices(workload: Workload, machine: Machine, max_error: float = inf) -> tuple[Choice, ...]:
    """Every way to carry out `workload` that adds a relative L2 error of at most `max_error`, the
    one of least stated cost first.

    Empty where there is nothing to choose.
    """
    found = [
        (algorithm.cost(knobs), algorithm.choice(knobs))
        for algorithm in alternatives(workload, machine)
        for knobs in algorithm.knobs()
        if algorithm.error <= max_error
    ]
    return tuple(choice for _, choice in sorted(found, key=lambda pair: pair[0]))


def kernel(
    workload: Workload,
    machine: Machine,
    choice: Choice | None = None,
    max_error: float = inf,
) -> Kernel:
    """Code for `workload`, the same function whenever all arguments are the same.

    `choice` is any way to carry it out, by default the first of `choices` within `max_error`.

    Raises: ValueError for a choice that is none.
    """
    found = algorithms(workload, machine)
    if choice is not None and isinstance(found[0], Fixed):
        raise ValueError(f"{type(workload).__name__} leaves nothing to choose")
    offers = ((algorithm, knobs) for algorithm in found for knobs in algorithm.knobs())
    if choice is None:
        within = (offer for offer in offers if offer[0].error <= max_error)
        algorithm, knobs = min(within, key=lambda offer: offer[0].cost(offer[1]))
        return algorithm.kernel(knobs)
    for algorithm, knobs in offers:
        if algorithm.name == choice.algorithm and algorithm.choice(knobs) == choice:
            return algorithm.kernel(knobs)
    raise ValueError(f"there is no {choice}")
