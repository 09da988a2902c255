"""NVIDIA's runtime compiler, as far as vggc calls it.

Its machine code is the path of a library that g++ has made of the kernels, which the emulated
driver loads.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.support.cuda_on_cpu import compile_kernels


class nvrtcResult(IntEnum):  # noqa: N801
    NVRTC_SUCCESS = 0
    NVRTC_ERROR_COMPILATION = 6


@dataclass
class Program:
    source: str
    log: bytes = b"\0"
    code: bytes = b""


def nvrtcVersion() -> tuple[nvrtcResult, int, int]:
    return nvrtcResult.NVRTC_SUCCESS, 13, 0


def nvrtcCreateProgram(source: bytes, *_: Any) -> tuple[nvrtcResult, Program]:
    return nvrtcResult.NVRTC_SUCCESS, Program(source.decode())


def nvrtcCompileProgram(program: Program, *_: Any) -> tuple[nvrtcResult]:
    # The same source is compiled once, whoever asks for it.
    name = hashlib.sha256(program.source.encode()).hexdigest()[:16]
    library = Path(os.environ["EMULATED_CODE"], f"{name}.so")
    if not library.exists():
        folder = Path(mkdtemp(dir=library.parent))
        try:
            made = compile_kernels(program.source, folder, os.environ["EMULATED_HEADERS"])
        except subprocess.CalledProcessError as error:
            program.log = f"{error}\0".encode()
            return (nvrtcResult.NVRTC_ERROR_COMPILATION,)
        made.replace(library)
    program.code = f"{library}\0".encode()
    return (nvrtcResult.NVRTC_SUCCESS,)


def nvrtcGetProgramLogSize(program: Program) -> tuple[nvrtcResult, int]:
    return nvrtcResult.NVRTC_SUCCESS, len(program.log)


def nvrtcGetProgramLog(program: Program, log: bytes) -> None:
    ctypes.memmove(log, program.log, len(log))


def nvrtcGetCUBINSize(program: Program) -> tuple[nvrtcResult, int]:
    return nvrtcResult.NVRTC_SUCCESS, len(program.code)


def nvrtcGetCUBIN(program: Program, code: bytes) -> None:
    ctypes.memmove(code, program.code, len(code))


def nvrtcDestroyProgram(program: Program) -> None: ...
