"""Kernels for NVIDIA GPUs: in float32 for any architecture from sm_75 on, in fewer bits on tensor
cores from sm_80 on.
"""

from __future__ import annotations

from math import inf
from typing import Any, TypeAlias

from vggc.kernels.algorithm import Fixed
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.card import A100, CARDS, H200, RTX4090, Card
from vggc.kernels.cuda.dense import Gemv
from vggc.kernels.cuda.gemm import Gemm, ImplicitGemm
from vggc.kernels.cuda.grouped import GroupedThreads
from vggc.kernels.cuda.mma import MmaWindows
from vggc.kernels.cuda.mma_dense import MmaDense
from vggc.kernels.cuda.mma_image import MmaImage
from vggc.kernels.cuda.mma_patches import MmaPatches
from vggc.kernels.cuda.norm import NormRows, NormWarps
from vggc.kernels.cuda.pad import PadThreads
from vggc.kernels.cuda.places import PlacesThreads
from vggc.kernels.cuda.segment_dense import SegmentGemv
from vggc.kernels.cuda.segments import ConvertSegments, MaxPoolSegments
from vggc.kernels.cuda.small import (
    AddThreads,
    ConcatThreads,
    GlobalMean,
    LrnThreads,
    MulThreads,
    PointwiseThreads,
    PoolThreads,
    PReluThreads,
    ShuffleThreads,
    Softmax2dThreads,
    SoftmaxBlocks,
    TakeThreads,
    ToNchwThreads,
    ToNhwcThreads,
    UpsampleThreads,
)
from vggc.kernels.cuda.stochastic import StochasticThreads
from vggc.kernels.cuda.wgmma import WgmmaPatches
from vggc.kernels.workloads import Choice, Kernel, Workload

__all__ = [
    "A100",
    "ALGORITHMS",
    "CARDS",
    "H200",
    "RTX4090",
    "AnyCudaAlgorithm",
    "Card",
    "algorithms",
    "alternatives",
    "choices",
    "kernel",
]

AnyCudaAlgorithm: TypeAlias = CudaAlgorithm[Any, Any]

ALGORITHMS: tuple[type[AnyCudaAlgorithm], ...] = (
    ImplicitGemm,
    GroupedThreads,
    MmaWindows,
    MmaPatches,
    MmaImage,
    WgmmaPatches,
    SegmentGemv,
    Gemv,
    Gemm,
    MmaDense,
    PoolThreads,
    MaxPoolSegments,
    GlobalMean,
    StochasticThreads,
    PadThreads,
    LrnThreads,
    NormRows,
    NormWarps,
    PlacesThreads,
    PointwiseThreads,
    PReluThreads,
    AddThreads,
    MulThreads,
    ConcatThreads,
    ShuffleThreads,
    TakeThreads,
    UpsampleThreads,
    SoftmaxBlocks,
    Softmax2dThreads,
    ConvertSegments,
    ToNhwcThreads,
    ToNchwThreads,
)
"""Every algorithm; in float32 one applies to each workload. Of those for one workload that leave a
choice the simplest first, with which others must agree."""


def algorithms(workload: Workload, card: Card = H200) -> tuple[AnyCudaAlgorithm, ...]:
    """The algorithms that apply to `workload`; at least one."""
    return tuple(
        algorithm(workload, card)
        for algorithm in ALGORITHMS
        if isinstance(workload, algorithm.computes)
        and algorithm.only_on in (None, card.arch)
        and algorithm.applies(workload)
    )


def alternatives(workload: Workload, card: Card = H200) -> tuple[AnyCudaAlgorithm, ...]:
    """The algorithms for `workload`; none where there is nothing to choose."""
    found = algorithms(workload, card)
    return () if isinstance(found[0], Fixed) else found


def choices(workload: Workload, card: Card = H200, max_error: float = inf) -> tuple[Choice, ...]:
    """Every way to carry out `workload` that adds a relative L2 error of at most `max_error`, the
    one of least stated cost on the card first.

    Empty where there is nothing to choose.
    """
    found = [
        (algorithm.cost(knobs), algorithm.choice(knobs))
        for algorithm in alternatives(workload, card)
        for knobs in algorithm.knobs()
        if algorithm.error <= max_error
    ]
    return tuple(choice for _, choice in sorted(found, key=lambda pair: pair[0]))


def kernel(
    workload: Workload,
    card: Card = H200,
    choice: Choice | None = None,
    max_error: float = inf,
) -> Kernel:
    """The thread-bound code of `workload`, the same function whenever all arguments are the same.

    `choice` is any way to carry it out, by default that of least stated cost on the card of those
    that add a relative L2 error of at most `max_error`.

    Raises: ValueError for a choice that is none.
    """
    found = algorithms(workload, card)
    offers = ((algorithm, knobs) for algorithm in found for knobs in algorithm.knobs())
    if choice is None:
        within = (offer for offer in offers if offer[0].error <= max_error)
        algorithm, knobs = min(within, key=lambda offer: offer[0].cost(offer[1]))
        return algorithm.kernel(knobs)
    for algorithm, knobs in offers:
        if algorithm.name == choice.algorithm and algorithm.choice(knobs) == choice:
            return algorithm.kernel(knobs)
    raise ValueError(f"there is no {choice}")
