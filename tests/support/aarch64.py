"""Run kernels compiled for aarch64, under qemu; `aarch64.cpp` stands in for TVM's runtime."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("aarch64.cpp")
TARGET = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}

COMPILER = shutil.which("aarch64-linux-gnu-g++")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
LIBRARIES = "/usr/aarch64-linux-gnu"
MISSING = [
    package
    for package, found in (("g++-aarch64-linux-gnu", COMPILER), ("qemu-user-static", QEMU))
    if found is None
]


@dataclass(frozen=True)
class Program:
    """A program for aarch64 that holds compiled functions."""

    path: Path
    code: str
    """What it was assembled of."""

    def call(
        self, index: int, inputs: Sequence[NDArray[Any]], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """What function `index` writes to an output of this shape, which begins as NaN."""
        arrays = [*inputs, np.full(shape, np.nan, np.float32)]
        parts = [np.int64(len(arrays)).tobytes()]
        for array in arrays:
            kind = {"i": 0, "f": 2}[array.dtype.kind]
            parts.append(np.array([kind, array.ndim, *array.shape], np.int64).tobytes())
            parts.append(np.ascontiguousarray(array).tobytes())
        command = [str(QEMU), str(self.path), str(index)]
        done = subprocess.run(command, input=b"".join(parts), capture_output=True, timeout=300)
        assert done.returncode == 0, (done.returncode, done.stderr)
        return np.frombuffer(done.stdout, np.float32).reshape(shape)


def program(functions: Sequence[Any], folder: Path) -> Program:
    """A program that calls each of `functions` by its index."""
    names = [f"f{index}" for index in range(len(functions))]
    module = {
        name: each.with_attr("global_symbol", name)
        for name, each in zip(names, functions, strict=True)
    }
    compiled = tvm.compile(tvm.IRModule(module), target=tvm.target.Target(TARGET)).mod
    code, path = folder / "functions.o", folder / "kernels"
    compiled.write_to_file(str(code), "o")
    lines = "".join(f"FUNCTION(__tvm_ffi_{name})\n" for name in names)
    (folder / "functions.inc").write_text(lines)
    headers = [tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()]
    flags = [f"-I{header}" for header in (folder, *headers)]
    command = [str(COMPILER), "-std=c++17", "-O1", "-static", *flags, str(SOURCE), str(code)]
    subprocess.run([*command, "-o", str(path)], check=True)
    return Program(path, compiled.inspect_source("asm"))


def loads(library: Path, symbols: Sequence[str], folder: Path) -> None:
    """That an aarch64 process can load a library and finds `symbols` in it."""
    source, path = folder / "load.c", folder / "load"
    source.write_text(
        """
#include <dlfcn.h>
#include <stdio.h>
void TVMFFIErrorSetRaisedFromCStrParts() {}
int main(int argc, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) return fputs(dlerror(), stderr), 1;
  for (int i = 2; i < argc; ++i) {
    if (!dlsym(library, argv[i])) return fputs(dlerror(), stderr), 2;
  }
  return 0;
}
"""
    )
    command = [str(COMPILER), "-x", "c", "-rdynamic", str(source), "-o", str(path), "-ldl"]
    subprocess.run(command, check=True)
    run = [str(QEMU), "-L", LIBRARIES, str(path), str(library), *symbols]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
