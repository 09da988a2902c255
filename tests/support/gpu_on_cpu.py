"""Run an exported library on the CPU, through TVM's CUDA runtime and a stand-in for NVIDIA's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import ROOT
from tests.support.cuda_on_cpu import compile_kernels, precompiled
from vggc.runtime.archs import capability

SOURCE = Path(__file__).with_name("gpu_on_cpu.cpp")
COMPILER = Path(__file__).with_name("emulated_compiler")


def environment(source: str, folder: Path, arch: str = "sm_80") -> dict[str, str]:
    """For a process that is to find a GPU of an architecture, which knows those kernels of `source`
    that are for it. What is launched is written to `folder/launched`; see `launched`.
    """
    kernels = compile_kernels(source, folder, arch=arch)
    major, minor = capability(arch)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": driver(folder),
        "KERNELS": str(kernels),
        "EMULATED_CAPABILITY": str(10 * major + minor),
        "EMULATED_LAUNCHES": str(folder / "launched"),
    }


def launched(folder: Path) -> list[str]:
    """What processes in an `environment` have launched so far, in order: `kernel` for each kernel
    by itself, `capture 3` for three that a CUDA graph took in, `capture 3 overlapping 2` where two
    of them may begin before the one before has ended, and `graph 3` for a graph of three.
    """
    return (folder / "launched").read_text().splitlines()


def with_compiler(folder: Path) -> dict[str, str]:
    """For a process that is to find an sm_80 GPU, and a compiler of kernels for it, which writes
    them to `folder`.
    """
    return {
        **os.environ,
        "LD_LIBRARY_PATH": driver(folder),
        "PYTHONPATH": f"{COMPILER}:{ROOT}",
        "EMULATED_CODE": str(folder),
        "EMULATED_HEADERS": precompiled(),
    }


def driver(folder: Path) -> str:
    """A folder with libraries by the names of NVIDIA's driver and runtime."""
    version = folder / "version.map"
    version.write_text("libcudart.so.13 { global: *; };")
    for name in ("libcuda.so.1", "libcudart.so.13"):
        flags = f"-Wl,-soname,{name},--version-script,{version}"
        command = ["g++", "-std=c++17", "-shared", "-fPIC", flags, "-o", str(folder / name)]
        subprocess.run([*command, str(SOURCE)], check=True)
    return str(folder)
