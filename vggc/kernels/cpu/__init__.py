"""Kernels for CPUs, written for a machine's vector registers."""

from __future__ import annotations

from typing import assert_never

from vggc.kernels.cpu import conv, dense, elementwise, layout, lrn, pool, softmax
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Kernel,
    Lrn,
    MaxPool,
    Relu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

__all__ = ["Machine", "kernel"]


def kernel(workload: Workload, machine: Machine) -> Kernel:
    """Code for `workload`, the same function whenever both arguments are the same."""
    match workload:
        case Conv():
            return conv.kernel(workload, machine)
        case Dense():
            return dense.kernel(workload, machine)
        case MaxPool():
            return pool.kernel(workload)
        case Lrn():
            return lrn.kernel(workload)
        case Relu():
            return elementwise.kernel(workload)
        case Softmax():
            return softmax.kernel(workload)
        case ToNhwc():
            return layout.to_nhwc(workload)
        case ToNchw():
            return layout.to_nchw(workload)
    assert_never(workload)
