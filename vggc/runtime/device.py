"""The GPU that a library's machine code runs on."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from vggc.support.tvm_alone import tvm

Capability: TypeAlias = tuple[int, int]
"""Compute capability, major and minor."""


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
    major, minor = map(int, str(device.compute_version).split("."))
    if not any(runs_on(arch, (major, minor)) for arch in archs):
        raise DeviceError(f"{held}; {device.device_name} is sm_{major}{minor}")
    return device


def runs_on(arch: str, device: Capability) -> bool:
    """Whether a device of this capability runs code for `arch`: machine code for one of its major
    version and no higher minor one, or where the name ends in `a`, for itself only; PTX for any
    that is no newer.
    """
    if is_ptx(arch):
        return capability(arch) <= device
    if is_specific(arch):
        return capability(arch) == device
    major, minor = capability(arch)
    return major == device[0] and minor <= device[1]


def is_ptx(arch: str) -> bool:
    """Whether code for `arch` is PTX, which the driver makes machine code of."""
    return arch.startswith("compute_")


def is_specific(arch: str) -> bool:
    """Whether code for `arch` may have instructions of its architecture that no later one has."""
    return arch.endswith("a")


def capability(arch: str) -> Capability:
    """`(8, 0)` for "sm_80" and "compute_80", `(9, 0)` for "sm_90a".

    Raises:
        ValueError: `arch` is not the name of an architecture.
    """
    found = re.fullmatch(r"(?:sm_(?=\d+a?$)|compute_(?=\d+$))(\d+)(\d)a?", arch)
    if found is None:
        raise ValueError(f"{arch!r} is not a GPU architecture; they are named sm_80, sm_90, …")
    return int(found[1]), int(found[2])


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


def listed(archs: Sequence[str]) -> str:
    """Architectures in words: `sm_80, sm_86 and sm_90`."""
    *most, last = archs
    return f"{', '.join(most)} and {last}" if most else last
