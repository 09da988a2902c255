"""Run an exported library on the CPU, through TVM's CUDA runtime and a stand-in for NVIDIA's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.cuda_on_cpu import compile_kernels

SOURCE = Path(__file__).with_name("gpu_on_cpu.cpp")


def environment(source: str, folder: Path) -> dict[str, str]:
    """For a process that is to find an sm_80 GPU which knows the kernels of `source`."""
    version = folder / "version.map"
    version.write_text("libcudart.so.13 { global: *; };")
    for name in ("libcuda.so.1", "libcudart.so.13"):
        flags = f"-Wl,-soname,{name},--version-script,{version}"
        command = ["g++", "-shared", "-fPIC", flags, "-o", str(folder / name), str(SOURCE)]
        subprocess.run(command, check=True)
    kernels = compile_kernels(source, folder)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "KERNELS": str(kernels)}
