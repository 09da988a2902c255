"""In the place of NVIDIA's bindings where a process finds this folder first: a compiler for the
emulated GPU.
"""
