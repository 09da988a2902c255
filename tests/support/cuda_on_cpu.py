"""Run TVM's CUDA code on the CPU: g++ compiles it against `cuda_on_cpu.h`.

It shows what a kernel computes, that it stays within its buffers, and that its barriers
suffice; it shows nothing about speed.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm.tirx.build import split_host_device_mods

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
COMPILER = ["g++", "-std=c++17", "-O1", "-w", "-fPIC"]
# Floats of NaN around every buffer. A multiple of 16, so that buffers stay aligned.
GUARD = 4096


@dataclass(frozen=True)
class Launch:
    """One CUDA kernel: its buffers by name with their sizes, its grid and its threads."""

    name: str
    buffers: dict[str, int]
    grid: tuple[int, int, int]
    threads: int


@dataclass(frozen=True)
class CudaCode:
    """What TVM makes of a function: CUDA C++ and the kernels in the order of their launch."""

    parameters: list[str]
    source: str
    launches: list[Launch]


def generate(func: Any, arch: str = "sm_80") -> CudaCode:
    """TVM's CUDA code for a thread-bound function."""
    target = tvm.target.Target({"kind": "cuda", "arch": arch, "host": {"kind": "llvm"}})
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    pipeline, _, finish = tvm.tirx.get_default_tir_pipeline(target)
    _, devices = split_host_device_mods(pipeline(tvm.tirx.transform.BindTarget(target)(module)))
    ((device, kernels),) = devices.items()
    kernels = finish()(kernels)
    source = tvm.get_global_func("target.build.cuda")(kernels, device).inspect_source("cuda")
    launches = sorted(map(_launch, kernels.functions.values()), key=_order)
    return CudaCode([str(param.name) for param in func.params], source, launches)


def run(code: CudaCode, folder: Path, *arrays: np.ndarray) -> None:
    """Call a function on `arrays`, in place; `folder` takes the compiled code."""
    library = ctypes.CDLL(str(compile_kernels(code.source, folder)))
    memory = {}
    for name, array in zip(code.parameters, arrays, strict=True):
        memory[name] = _guarded(array.size)
        memory[name][GUARD:-GUARD] = array.ravel()
    for launch in code.launches:
        for name, size in launch.buffers.items():
            memory.setdefault(name, _guarded(size))
        _call(library, launch, [memory[name] for name in launch.buffers])
    for name, array in zip(code.parameters, arrays, strict=True):
        guards = np.concatenate([memory[name][:GUARD], memory[name][-GUARD:]])
        assert np.isnan(guards).all(), f"a kernel wrote outside {name}"
        array[...] = memory[name][GUARD:-GUARD].reshape(array.shape)


def _guarded(size: int) -> np.ndarray:
    """`size` floats of NaN on a boundary of 64 bytes, with `GUARD` more on either side."""
    store = np.full(size + 2 * GUARD + 16, np.nan, np.float32)
    start = -(store.ctypes.data // 4) % 16
    return store[start : start + size + 2 * GUARD]


def _launch(func: Any) -> Launch:
    extents: dict[str, int] = {}

    def visit(node: Any) -> None:
        if node.attr_key == "thread_extent":
            extents[str(node.node.thread_tag)] = int(node.value)

    tvm_ffi.structural_walk(func.body, (tvm.tirx.AttrStmt, visit))
    declared = [stmt for stmt in func.body.seq if isinstance(stmt, tvm.tirx.DeclBuffer)]
    sizes = {str(stmt.data.name): math.prod(map(int, stmt.buffer.shape)) for stmt in declared}
    buffers = {str(p.name).removesuffix("_ptr"): sizes[str(p.name)] for p in func.params}
    x, y, z = (extents.get(f"blockIdx.{axis}", 1) for axis in "xyz")
    return Launch(str(func.attrs["global_symbol"]), buffers, (x, y, z), extents["threadIdx.x"])


def _order(launch: Launch) -> int:
    """TVM numbers the kernels of a function: `main_kernel`, `main_kernel_1`, …"""
    return int(launch.name.removeprefix("main_kernel").removeprefix("_") or 0)


def compile_kernels(source: str, folder: Path) -> Path:
    """A shared library with a function `run_K(grid, threads, arguments)` for each kernel K.

    As in a launch, `arguments` points to pointers to the arguments.
    """
    path, library = folder / "kernels.cpp", folder / "kernels.so"
    (folder / "cuda.h").touch()
    path.write_text("\n".join([f'#include "{HEADER.name}"', source, *_entries(source)]))
    command = [*COMPILER, "-shared", f"-I{_precompiled()}", f"-I{folder}"]
    subprocess.run([*command, "-o", str(library), str(path)], check=True)
    return library


@cache
def _precompiled() -> str:
    """A folder with the header as g++ reads it fastest; it goes when this process ends."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    command = [*COMPILER, "-x", "c++-header", "-o", f"{folder.name}/{HEADER.name}.gch"]
    subprocess.run([*command, str(HEADER)], check=True)
    return folder.name


def _entries(source: str) -> Iterator[str]:
    for name, parameters in re.findall(r"__launch_bounds__\(\d+\) (\w+)\((.*)\) \{", source):
        arguments = ", ".join(f"*arguments[{i}]" for i in range(len(parameters.split(","))))
        yield (
            f'extern "C" void run_{name}(const int* grid, int threads, float*** arguments) {{'
            f" fibers::run_grid(grid, threads, [=] {{ {name}({arguments}); }}); }}"
        )


def _call(library: ctypes.CDLL, launch: Launch, memory: list[np.ndarray]) -> None:
    buffers = [ctypes.c_void_p(array.ctypes.data + array.itemsize * GUARD) for array in memory]
    arguments = (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers))
    entry = getattr(library, f"run_{launch.name}")
    entry((ctypes.c_int * 3)(*launch.grid), ctypes.c_int(launch.threads), arguments)
