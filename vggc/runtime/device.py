"""The GPU that a library's machine code runs on."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vggc.runtime.archs import Capability, listed, runs_on
from vggc.support.tvm_alone import tvm


class DeviceError(Exception):
    """The machine has no device that the code runs on."""


def require_device(archs: Sequence[str], index: int = 0) -> Any:
    """TVM's device for the GPU `index`, once it is sure that code for `archs` runs on it.

    Call it before the library is loaded: without a CUDA runtime TVM cannot load one.

    Raises:
        DeviceError: there is no such GPU, or it is of another architecture.
    """
    held = f"this artifact holds code for {listed(archs)} GPUs"
    problem = load_cuda_runtime()
    device = tvm.cuda(index)
    if problem or not device.exist:
        detail = f" ({problem})" if problem else ""
        raise DeviceError(f"{held}; no CUDA device was found on this machine{detail}")
    major, minor = capability_of(device)
    if not any(runs_on(arch, (major, minor)) for arch in archs):
        raise DeviceError(f"{held}; {device.device_name} is sm_{major}{minor}")
    return device


def capability_of(device: Any) -> Capability:
    """The compute capability of a GPU, by TVM's device for it."""
    major, minor = map(int, str(device.compute_version).split("."))
    return major, minor


def load_cuda_runtime() -> str | None:
    """Load TVM's CUDA runtime if `import tvm` could not; what hinders it, if anything does.

    It needs libcudart, which pip puts where the loader does not look.
    """
    if tvm.get_global_func("ffi.Module.load_from_bytes.cuda", allow_missing=True):
        return None
    runtime = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    try:
        with suppress(ImportError, RuntimeError):
            from cuda.pathfinder import load_nvidia_dynamic_lib

            load_nvidia_dynamic_lib("cudart")
        ctypes.CDLL(str(runtime))
    except OSError as error:
        return str(error)
    return None
