"""Which kernels are the fastest, by measurement."""
