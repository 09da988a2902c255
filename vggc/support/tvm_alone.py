"""TVM without PyTorch.

TVM imports PyTorch wherever it is installed, to exchange tensors with it. vggc never
does, and a compiled net must start quickly and run where there is no PyTorch; so TVM is
told that there is none. Whoever needs TVM imports it from here; the kernels, which need
many of its submodules, import those behind it (see vggc/kernels/__init__.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vggc.support.signals import Ended


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


with _hidden("torch"):
    import tvm
    import tvm_ffi
    from tvm import relax
    from tvm.runtime.vm import VirtualMachine

# Signals in what TVM calls would come out of it as a RuntimeError without a word.
tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)
tvm_ffi.register_error("Ended", Ended)

__all__ = ["VirtualMachine", "relax", "tvm", "tvm_ffi"]
