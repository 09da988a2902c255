"""Run TVM's CUDA code on the CPU: g++ compiles it against `cuda_on_cpu.h`.

It shows what a kernel computes, that it stays within its buffers, and that its barriers
suffice. It counts what accesses cost (`counting`), and shows nothing else about speed.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
# Bytes around every buffer that make NaN in any type; a multiple of 64, for alignment.
GUARD = 16384


@dataclass(frozen=True)
class Launch:
    """One CUDA kernel: its buffers by name with their sizes and types, its grid, its threads, and
    the bytes of shared memory that it asks for at its launch.
    """

    name: str
    buffers: dict[str, tuple[int, str]]
    grid: tuple[int, int, int]
    threads: int
    shared: int


@dataclass(frozen=True)
class CudaCode:
    """What TVM makes of a function: CUDA C++ and the kernels in the order of their launch.

    `parameters` are those of the function but for its scratch memory: all up to its output `y`.
    """

    parameters: list[str]
    source: str
    launches: list[Launch]


def generate(func: Any, arch: str = "sm_80") -> CudaCode:
    """TVM's CUDA code for a thread-bound function."""
    return generate_all({"main": func}, arch)["main"]


def generate_all(functions: Mapping[str, Any], arch: str = "sm_80") -> dict[str, CudaCode]:
    """TVM's CUDA code for thread-bound functions, by their names: one source for all."""
    target = tvm.target.Target({"kind": "cuda", "arch": arch, "host": {"kind": "llvm"}})
    named = {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    module = tvm.tirx.transform.BindTarget(target)(tvm.IRModule(named))
    pipeline, _, finish = tvm.tirx.get_default_tir_pipeline(target)
    host, devices = split_host_device_mods(pipeline(module))
    ((device, kernels),) = devices.items()
    kernels = finish()(kernels)
    source = tvm.get_global_func("target.build.cuda")(kernels, device).inspect_source("cuda")
    asked = {name: int(size) for name, size in SHARED_OF_LAUNCH.findall(host.script())}
    found = [_launch(kernel, asked) for kernel in kernels.functions.values()]
    return {
        name: CudaCode(
            _up_to_output([str(param.name) for param in func.params]),
            source,
            sorted((each for each in found if _function_of(each) == name), key=_order),
        )
        for name, func in functions.items()
    }


SHARED_OF_LAUNCH = re.compile(
    r"call_ffi_kernel\(\"(\w+)\"[^\n]*?T\.int64\((\d+)\), launch_params=[^\n]*use_dyn_shared"
)
"""The name of a kernel, and the bytes of shared memory that its launch asks for."""


def run(code: CudaCode, folder: Path, *arrays: np.ndarray) -> None:
    """Call a function on `arrays`, in place; `folder` takes the compiled code."""
    call(ctypes.CDLL(str(compile_kernels(code.source, folder))), code, *arrays)


def call(library: ctypes.CDLL, code: CudaCode, *arrays: np.ndarray) -> None:
    """Call a function whose code is compiled on `arrays`, in place."""
    _call_all(library, code, arrays)


def touched_sectors(
    library: ctypes.CDLL, code: CudaCode, *arrays: np.ndarray
) -> dict[str, np.ndarray]:
    """What the blocks of a function's only kernel touch of each buffer: rows of a block's number in
    the order of launch, whether it writes, and the number of a sector of 32 bytes, in order.

    What PTX reads and writes is noted, and by index where the kernels are compiled so.
    """
    (launch,) = code.launches
    library.note_touches(1)
    memory = _call_all(library, code, [array.copy() for array in arrays])
    library.num_touches.restype = ctypes.c_size_t
    found = np.empty((library.num_touches(), 4), np.int64)
    library.copy_touches(ctypes.c_void_p(found.ctypes.data))
    library.note_touches(0)
    sectors = {}
    for name in launch.buffers:
        first, size = memory[name].content.ctypes.data, memory[name].content.nbytes
        here = found[(found[:, 2] >= first) & (found[:, 2] < first + size)]
        rows = [
            np.stack([here[:, 0], here[:, 1], byte // SECTOR], axis=1)
            for byte in (here[:, 2] - first, here[:, 2] - first + here[:, 3] - 1)
        ]
        sectors[name] = np.unique(np.concatenate(rows), axis=0)
    return sectors


SECTOR = 32
"""Bytes of global memory that are read or written together."""


def _call_all(
    library: ctypes.CDLL, code: CudaCode, arrays: Sequence[np.ndarray]
) -> dict[str, _Guarded]:
    """Calls a function on `arrays`, in place, and gives its memory by the buffers' names."""
    memory = {}
    for name, array in zip(code.parameters, arrays, strict=True):
        memory[name] = _guarded(array.size, str(array.dtype))
        memory[name].content[...] = array.ravel()
    for launch in code.launches:
        for name, (size, dtype) in launch.buffers.items():
            if name not in memory:
                memory[name] = _guarded(size, dtype)
        _call(library, launch, memory, code.parameters)
    for name, each in memory.items():
        assert each.is_whole, f"a kernel wrote outside {name}"
    for name, array in zip(code.parameters, arrays, strict=True):
        array[...] = memory[name].content.reshape(array.shape)
    return memory


@dataclass(frozen=True)
class Counted:
    """What the accesses of kernels cost on a GPU, all blocks together.

    A pass serves eight lanes of 16 bytes, and conflicts of banks take more of them than there are
    accesses. A sector is 32 bytes of global memory.
    """

    shared_accesses: int
    shared_passes: int
    global_bytes: int
    global_sectors: int


@contextmanager
def counting(library: ctypes.CDLL) -> Iterator[list[Counted]]:
    """Counts what is called within; the list has the result afterwards."""
    found: list[Counted] = []
    library.count_accesses(1)
    yield found
    result = (ctypes.c_uint64 * 5)()
    library.counted(result)
    library.count_accesses(0)
    found.append(Counted(*result[:4]))


@dataclass(frozen=True)
class _Guarded:
    """Memory within bytes that nobody may write to."""

    store: np.ndarray
    content: np.ndarray

    @property
    def is_whole(self) -> bool:
        first = self.content.ctypes.data - self.store.ctypes.data
        behind = self.store[first + self.content.nbytes :]
        return bool((self.store[:first] == 0xFF).all() and (behind == 0xFF).all())


def _guarded(size: int, dtype: str) -> _Guarded:
    """`size` elements that hold NaN, on a boundary of 64 bytes, with `GUARD` bytes on either
    side.
    """
    count = size * np.dtype(dtype).itemsize
    store = np.full(count + 2 * GUARD + 64, 0xFF, np.uint8)
    start = GUARD + -(store.ctypes.data + GUARD) % 64
    return _Guarded(store, store[start : start + count].view(dtype))


def _up_to_output(names: list[str]) -> list[str]:
    return names[: names.index("y") + 1]


def _launch(func: Any, asked: Mapping[str, int]) -> Launch:
    extents: dict[str, int] = {}

    def visit(node: Any) -> None:
        if node.attr_key == "thread_extent":
            extents[str(node.node.thread_tag)] = int(node.value)

    tvm_ffi.structural_walk(func.body, (tvm.tirx.AttrStmt, visit))
    declared = [stmt for stmt in func.body.seq if isinstance(stmt, tvm.tirx.DeclBuffer)]
    sizes = {
        str(stmt.data.name): (math.prod(map(int, stmt.buffer.shape)), str(stmt.buffer.dtype))
        for stmt in declared
    }
    name = str(func.attrs["global_symbol"])
    buffers = {str(p.name).removesuffix("_ptr"): sizes[str(p.name)] for p in func.params}
    x, y, z = (extents.get(f"blockIdx.{axis}", 1) for axis in "xyz")
    return Launch(
        name=name,
        buffers=buffers,
        grid=(x, y, z),
        threads=extents["threadIdx.x"],
        shared=asked.get(name, 0),
    )


def _function_of(launch: Launch) -> str:
    """TVM numbers the kernels of a function: `main_kernel`, `main_kernel_1`, …"""
    return launch.name.rpartition("_kernel")[0]


def _order(launch: Launch) -> int:
    return int(launch.name.rpartition("_kernel")[2].removeprefix("_") or 0)


def compile_kernels(
    source: str,
    folder: Path,
    headers: str | None = None,
    arch: str = "sm_80",
    *,
    noted: bool = False,
) -> Path:
    """A shared library with a function `run_K(grid, threads, arguments)` for each kernel K that
    there is for an architecture, and the number `num_arguments_K`.

    As in a launch, `arguments` points to pointers to the arguments, each of which has 8 bytes.
    `headers` is what `precompiled` has made in another process. What is read and written by index
    is noted, too, where `noted`; kernels may then do nothing else with what they read than take its
    value.
    """
    path, library = folder / "kernels.cpp", folder / "kernels.so"
    (folder / "cuda.h").touch()
    macros = f"#define {MACROS[arch]}" if arch in MACROS else ""
    head = [f'#include "{HEADER.name}"', macros]
    kernels = adapted(source)
    if noted:
        kernels = ARGUMENT.sub(r"touched::Argument<\1> \2", kernels)
    path.write_text("\n".join([*head, kernels, *_entries(source)]))
    command = [*COMPILER, "-shared", f"-I{headers or precompiled()}", f"-I{folder}"]
    subprocess.run([*command, "-o", str(library), str(path)], check=True)
    return library


def adapted(source: str) -> str:
    """CUDA C++ with the emulator's helpers in the place of those that hold PTX, and its memory in
    the place of what a launch gives.
    """
    source = HELPER.sub("", source)
    return DYNAMIC.sub(r"\1* \2 = (\1*)fibers::dynamic_shared;", source)


HELPER = re.compile(
    r"^__forceinline__ __device__ [\w ]+ (tvm_builtin_|vggc_await_)\w+\([^{]*\) \{\n.*?\n\}\n",
    re.M | re.S,
)
DYNAMIC = re.compile(r"extern __shared__ __align__\(\d+\) (\w+) (\w+)\[\];")
KERNEL = re.compile(
    r'(?:^#if (.*)\n)?^extern "C" __global__ void __launch_bounds__\((\d+)[\d, ]*\) '
    r"(\w+)\((.*)\) \{",
    re.M,
)
"""A kernel, the most threads of its blocks, and the condition under which it is there."""
ARGUMENT = re.compile(r"((?:signed |unsigned )?\w+)\* __restrict__ (\w+)")
MACROS = {"sm_90a": "__CUDA_ARCH_FEAT_SM90_ALL"}
"""What NVIDIA's compilers define where they compile for an architecture."""


@cache
def precompiled() -> str:
    """A folder with the header as g++ reads it fastest; it goes when this process ends."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    command = [*COMPILER, "-x", "c++-header", "-o", f"{folder.name}/{HEADER.name}.gch"]
    subprocess.run([*command, str(HEADER)], check=True)
    return folder.name


def _entries(source: str) -> Iterator[str]:
    for condition, threads, name, parameters in KERNEL.findall(source):
        types = [parameter.split("*")[0].strip() for parameter in parameters.split(",")]
        arguments = ", ".join(f"*({kind}**)arguments[{i}]" for i, kind in enumerate(types))
        yield (
            f"#if {condition or 1}\n"
            f'extern "C" void run_{name}(const int* grid, int threads, void** arguments) {{'
            f" fibers::run_grid(grid, threads, [=] {{ {name}({arguments}); }}); }}\n"
            f'extern "C" const int num_arguments_{name} = {len(types)};\n'
            f'extern "C" const int most_threads_{name} = {threads};\n'
            "#endif"
        )


def _call(
    library: ctypes.CDLL, launch: Launch, memory: Mapping[str, _Guarded], parameters: list[str]
) -> None:
    """Launches a kernel while the one before has not ended: what that one writes, and what it may
    still read, is not what it shall be until somebody waits for it.
    """
    arrays = {name: memory[name].content for name in launch.buffers}
    written = {name: array for name, array in arrays.items() if _changes(name, parameters)}
    contents = {name: array.copy() for name, array in written.items()}
    for name, array in written.items():
        array.view(np.uint8)[...] = 0xFF
        content = contents[name]
        target, source = ctypes.c_void_p(array.ctypes.data), ctypes.c_void_p(content.ctypes.data)
        library.kernel_before_writes(target, source, ctypes.c_size_t(array.nbytes))
    buffers = [ctypes.c_void_p(array.ctypes.data) for array in arrays.values()]
    arguments = (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers))
    entry = getattr(library, f"run_{launch.name}")
    entry((ctypes.c_int * 3)(*launch.grid), ctypes.c_int(launch.threads), arguments)
    assert not library.has_failed(), "threads waited for one another in vain"


def _changes(name: str, parameters: list[str]) -> bool:
    """Whether kernels write to a buffer: to inputs of a function, its output and its scratch
    memory, not to its weights.
    """
    return name not in parameters or re.fullmatch(r"x\d*|y", name) is not None
