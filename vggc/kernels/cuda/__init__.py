"""Kernels for NVIDIA GPUs: float32, any architecture from sm_75 on, at most 48 KiB shared."""

from __future__ import annotations

from typing import Any

from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.dense import Gemv
from vggc.kernels.cuda.gemm import Gemm, ImplicitGemm
from vggc.kernels.cuda.grouped import GroupedThreads
from vggc.kernels.cuda.small import (
    AddThreads,
    ConcatThreads,
    GlobalMean,
    LrnThreads,
    PointwiseThreads,
    PoolThreads,
    PReluThreads,
    SoftmaxBlocks,
    ToNchwThreads,
    ToNhwcThreads,
)
from vggc.kernels.workloads import Kernel, Workload

__all__ = ["ALGORITHMS", "kernel"]

ALGORITHMS: tuple[type[CudaAlgorithm[Any, Any]], ...] = (
    ImplicitGemm,
    GroupedThreads,
    Gemv,
    Gemm,
    PoolThreads,
    GlobalMean,
    LrnThreads,
    PointwiseThreads,
    PReluThreads,
    AddThreads,
    ConcatThreads,
    SoftmaxBlocks,
    ToNhwcThreads,
    ToNchwThreads,
)
"""Every algorithm; one applies to each workload in float32."""


def kernel(workload: Workload) -> Kernel:
    """The thread-bound code of `workload`, which is of a plan in float32."""
    (algorithm,) = (
        algorithm(workload)
        for algorithm in ALGORITHMS
        if isinstance(workload, algorithm.computes) and algorithm.applies(workload)
    )
    (knobs,) = algorithm.knobs()
    return algorithm.kernel(knobs)
