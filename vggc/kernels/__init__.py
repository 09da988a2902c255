"""Kernels: code for one workload on one kind of machine."""

import vggc.support.tvm_alone  # noqa: F401  (before anything here imports tvm)
