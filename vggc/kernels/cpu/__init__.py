"""Kernels for CPUs, written for a machine's vector registers."""

from __future__ import annotations

from typing import assert_never

from vggc.kernels.cpu import conv, dense, depthwise, elementwise, layout, lrn, pool, softmax
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Kernel,
    Lrn,
    MaxPool,
    Pointwise,
    PRelu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

__all__ = ["Machine", "kernel"]


def kernel(workload: Workload, machine: Machine) -> Kernel:
    """Code for `workload`, the same function whenever both arguments are the same."""
    match workload:
        case Conv() if depthwise.applies(workload):
            return depthwise.kernel(workload, machine)
        case Conv():
            return conv.kernel(workload, machine)
        case Dense():
            return dense.kernel(workload, machine)
        case MaxPool() | AvgPool():
            return pool.kernel(workload, machine)
        case Lrn():
            return lrn.kernel(workload)
        case Pointwise():
            return elementwise.pointwise(workload)
        case PRelu():
            return elementwise.prelu(workload)
        case Concat():
            return elementwise.concat(workload)
        case Add():
            return elementwise.add(workload)
        case Softmax():
            return softmax.kernel(workload)
        case ToNhwc():
            return layout.to_nhwc(workload)
        case ToNchw():
            return layout.to_nchw(workload)
    assert_never(workload)
