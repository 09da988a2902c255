"""What a report of a fault begins with: versions, system, processors, memory, GPUs."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vggc.runtime.cpu_info import instructions
from vggc.support.memory import memory
from vggc_runtime.control_groups import ROOT
from vggc_runtime.processors import num_cores, num_processors
from vggc_runtime.version import __version__

PACKAGES = (
    *("torch", "apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "numpy", "safetensors"),
    *("pillow", "scikit-learn", "matplotlib", "fsspec", "lark", "click", "rich"),
)
TELLING = ("avx2", "fma", "avx512f", "avx512bf16", "avx512vnni", "neon", "dotprod", "i8mm")
"""The instruction sets that decide which kernels there are."""


def everything(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """What there is to tell, by name. Loads none of the packages."""
    yield "vggc", __version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", f"{system(root)}, {platform.system()} {platform.release()}"
    yield "CPU", f"{cpu(root)}, {platform.machine()}"
    has = instructions(root) or frozenset()
    yield "instructions", ", ".join(each for each in TELLING if each in has) or "none that count"
    yield "processors", f"{num_processors()} to use, {num_cores()} cores"
    yield "memory", f"{memory(root) / 1e9:.1f} GB"
    yield "GPUs", ", ".join(gpus(root)) or "none"
    for name in PACKAGES:
        yield name, installed(name)


def installed(package: str) -> str:
    """The version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def system(root: Path) -> str:
    """The distribution, as it calls itself."""
    return _found(root / "etc/os-release", r'(?m)^PRETTY_NAME="?(.*?)"?$') or platform.system()


def cpu(root: Path) -> str:
    """What Linux calls the processor."""
    return _found(root / "proc/cpuinfo", r"(?m)^(?:model name|Model)\s*:\s*(.*)$") or "unknown"


def gpus(root: Path) -> Iterator[str]:
    """The models of NVIDIA's GPUs and their driver, as the driver tells."""
    models = [
        _found(path, r"(?m)^Model:\s*(.*)$") or "unknown"
        for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    ]
    yield from models
    if models and (driver := _found(root / "proc/driver/nvidia/version", r"\b(\d+\.\d+[.\d]*)\b")):
        yield f"driver {driver}"


def _found(path: Path, pattern: str) -> str | None:
    with suppress(OSError):
        if match := re.search(pattern, path.read_text(errors="replace")):
            return match[1].strip()
    return None
