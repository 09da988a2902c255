"""Kernels: code for one workload on one kind of machine."""
