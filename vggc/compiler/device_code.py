"""Machine code for NVIDIA GPUs inside an exported library.

By itself TVM puts CUDA source into the library and compiles it, with Python and a compiler,
where the library is loaded. Here it is compiled where the library is made: for every
architecture asked for into one fatbin (a container of cubins, and of PTX), from which NVIDIA's
driver takes the part for its device.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggc.compiler.link import export_library
from vggc.compiler.relax import PIPELINE, graphs_made
from vggc.runtime.archs import capability, is_ptx, is_specific, listed
from vggc.support.tvm_alone import tvm

DEFAULT_ARCHS = ("sm_80", "sm_90a", "compute_90")
"""Ampere's GPUs, Hopper's, and PTX for newer ones; code for sm_80 also runs on sm_86 and sm_89."""

KERNEL = re.compile(r'^extern "C" __global__ [^;{}]*?\b(\w+)_kernel(?:_\d+)?\([^;{}]*\) \{\n', re.M)
"""How the code of a kernel begins, and the function that it is part of; it ends where a line begins
with a brace."""

COMPILERS = 2
"""Architectures that are compiled for at the same time."""

HOST = {"kind": "llvm"}

NO_PROMISES = """
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define __restrict__
#endif
"""
"""What code for Hopper's GPUs begins with. TVM promises that nobody writes what a kernel reads
while it runs. There a kernel begins before the one before has ended, and compilers could use the
promise to read maps before that one has written them."""

HEADERS = {
    "cuda/std/cstdint": """
        namespace cuda { namespace std {
        using uint8_t = unsigned char; using uint16_t = unsigned short;
        using uint32_t = unsigned int; using uint64_t = unsigned long long;
        using int8_t = signed char; using int16_t = short;
        using int32_t = int; using int64_t = long long;
        } }""",
    "cuda/std/type_traits": """
        namespace cuda { namespace std {
        template <class, class> struct is_same;
        template <class, class> inline constexpr bool is_same_v = false;
        template <class> struct is_integral;
        template <class> struct is_signed;
        template <class> struct is_unsigned;
        template <class> struct is_floating_point;
        template <bool, class> struct enable_if;
        template <bool, class, class> struct conditional;
        } }""",
}
"""What stands in for two headers of CCCL, which TVM's source includes for types that float32
kernels never use: the real ones take a second to parse.
"""


class CompilerError(Exception):
    """No machine code: there is no compiler, or none for an architecture."""


class NoCompilerError(CompilerError):
    """Neither NVRTC nor nvcc is installed."""


@dataclass(frozen=True)
class DeviceLibrary:
    """A compiled Relax module: its executable, and its kernels as source and as a fatbin."""

    executable: Any
    source: str
    fatbin: bytes
    archs: tuple[str, ...]

    def export(self, path: Path, linker: str = "g++") -> None:
        """Write the shared library `path`: host code and the fatbin, no CUDA source.

        Raises: as `export_library`.
        """
        export_library(self.executable.mod, path, linker, fpack_imports=self._pack_imports)

    def _pack_imports(self, module: Any, is_system_lib: bool, prefix: str, folder: str) -> str:
        """TVM's hook for what a library carries beside its own code: an object file."""
        packed = tvm.get_global_func("runtime.ModulePackImportsToTensor")(module)
        source = _source_of(self.executable)
        blob = _put_machine_code(packed.numpy().tobytes(), source.encode(), self.fatbin)
        to_object = tvm.get_global_func("codegen.codegen_blob")
        path = str(Path(folder, "imports.o"))
        to_object(blob, is_system_lib, json.dumps(HOST), prefix).write_to_file(path)
        return path


def compile_device(
    module: Any,
    archs: Sequence[str] = DEFAULT_ARCHS,
    functions: Mapping[str, Collection[str]] | None = None,
    *,
    graphs: bool = False,
) -> DeviceLibrary:
    """Compile a Relax module whose PrimFuncs are bound to CUDA threads, with `graphs` to functions
    that replay CUDA graphs.

    `functions` tells by the names of PrimFuncs for which of the `archs` they are, where that is not
    all; only architectures whose names end in `a` can be told from the others.

    `archs` are names such as "sm_80"; a device runs the code of one of the same major version
    and a minor version no higher than its own. "compute_90" is PTX, for it and all newer ones.

    Raises:
        CompilerError: neither NVRTC nor nvcc is installed, or it does not know an architecture.
    """
    try:
        ordered = tuple(sorted(set(archs), key=code_order))
    except ValueError as error:
        raise CompilerError(str(error)) from None
    with _source_only(), graphs_made(graphs):
        executable = tvm.compile(module, target=target(ordered[0]), relax_pipeline=PIPELINE)
    source = with_conditions(_source_of(executable), ordered, functions or {})
    return DeviceLibrary(executable, source, compile_fatbin(source, ordered), ordered)


def with_conditions(
    source: str, archs: Sequence[str], functions: Mapping[str, Collection[str]]
) -> str:
    """CUDA C++ whose kernels the preprocessor keeps for the architectures that need them."""
    parts, end = [], 0
    for kernel in KERNEL.finditer(source):
        condition = _condition(functions.get(kernel[1], archs), archs)
        parts.append(source[end : kernel.start()])
        end = source.index("\n}\n", kernel.end()) + len("\n}\n")
        code = source[kernel.start() : end]
        parts.append(f"#if {condition}\n{code}#endif\n" if condition else code)
    return "".join([*parts, source[end:]])


def _condition(needed: Collection[str], archs: Sequence[str]) -> str:
    """What tells the architectures that need code from the others; nothing where all do.

    The macros are those that NVRTC and nvcc define for code that may have instructions of its
    architecture alone.
    """
    told = {arch: f"defined({_macro(arch)})" for arch in archs if is_specific(arch)}
    if any(arch in needed for arch in archs if arch not in told):
        return " && ".join(f"!{each}" for arch, each in told.items() if arch not in needed)
    return " || ".join(each for arch, each in told.items() if arch in needed)


def _macro(arch: str) -> str:
    return f"__CUDA_ARCH_FEAT_SM{arch.removeprefix('sm_').removesuffix('a')}_ALL"


def code_order(arch: str) -> tuple[int, int, bool, bool]:
    """The order of architectures: older ones first, machine code before PTX.

    Raises:
        ValueError: as `capability`.
    """
    return (*capability(arch), is_ptx(arch), is_specific(arch))


def target(arch: str) -> Any:
    """TVM's target for `arch`, with the host's code for any CPU of this kind."""
    number = arch.rpartition("_")[2]
    return tvm.target.Target({"kind": "cuda", "arch": f"sm_{number}", "host": HOST})


def compile_fatbin(source: str, archs: Sequence[str]) -> bytes:
    """CUDA C++ to machine code for `archs`: by NVRTC where it is installed, else by nvcc.

    Raises:
        CompilerError: as `compile_device`.
    """
    require_compiler()
    return (_fatbin_by_nvrtc if _has_nvrtc() else _fatbin_by_nvcc)(source, archs)


def require_compiler() -> None:
    """Raises: NoCompilerError where neither NVRTC nor nvcc is installed."""
    if not _has_nvrtc() and shutil.which("nvcc") is None:
        raise NoCompilerError("neither NVRTC nor nvcc is installed")


@contextmanager
def _source_only() -> Iterator[None]:
    """Make TVM keep kernels as source, as it does where it finds no GPU, in every case."""
    name = "TVM_COMPILE_FORCE_FALLBACK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _import_tree(module: Any) -> Iterator[Any]:
    yield module
    for imported in module.imports:
        yield from _import_tree(imported)


def _source_of(executable: Any) -> str:
    """The CUDA C++ that TVM has made of all kernels."""
    (device,) = (m for m in _import_tree(executable.mod) if m.kind == "cuda")
    return str(device.inspect_source())


def _has_nvrtc() -> bool:
    try:
        from cuda.bindings import nvfatbin, nvrtc

        nvrtc.nvrtcVersion()
        nvfatbin.version()
    except (ImportError, RuntimeError):  # the bindings are not there, or the libraries are not
        return False
    return True


def _fatbin_by_nvrtc(source: str, archs: Sequence[str]) -> bytes:
    from cuda.bindings import nvfatbin

    options = ["-64", "-compress=false"]
    container = nvfatbin.create(options, len(options))
    with ThreadPoolExecutor(COMPILERS) as compilers:
        codes = list(compilers.map(lambda arch: code_by_nvrtc(source, arch), archs))
    for arch, code in zip(archs, codes, strict=True):
        number = arch.rpartition("_")[2]
        if is_ptx(arch):
            nvfatbin.add_ptx(container, code, len(code), number, "vggc", "")
        else:
            nvfatbin.add_cubin(container, code, len(code), number, "vggc")
    fatbin = bytearray(nvfatbin.size(container))
    nvfatbin.get(container, fatbin)
    nvfatbin.destroy(container)
    return bytes(fatbin)


def code_by_nvrtc(
    source: str,
    arch: str,
    more: Sequence[str] = (),
    tell: Callable[[str], object] = lambda log: None,
) -> bytes:
    """The cubin of CUDA C++ for an architecture, or its PTX, with `more` options; what the compiler
    says is told.

    Raises:
        CompilerError: NVRTC does not know the architecture.
    """
    from cuda.bindings import nvrtc

    names = [name.encode() for name in HEADERS]
    texts = [text.encode() for text in HEADERS.values()]
    options = [f"--gpu-architecture={arch}".encode(), b"--device-as-default-execution-space"]
    text = (NO_PROMISES + source).encode()
    _, program = nvrtc.nvrtcCreateProgram(text, b"", len(names), texts, names)
    options += [each.encode() for each in more]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytes(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    said = log.decode().rstrip(chr(0)).strip()
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompilerError(f"NVRTC on {arch}: {said}")
    tell(said)
    if is_ptx(arch):
        _, size = nvrtc.nvrtcGetPTXSize(program)
        code = bytes(size)
        nvrtc.nvrtcGetPTX(program, code)
    else:
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        code = bytes(size)
        nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code


def _fatbin_by_nvcc(source: str, archs: Sequence[str]) -> bytes:
    codes = [f"-gencode=arch=compute_{arch.rpartition('_')[2]},code={arch}" for arch in archs]
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "kernels.cu"), Path(folder, "kernels.fatbin")
        path.write_text(NO_PROMISES + source)
        command = ["nvcc", "--fatbin", "--no-compress", *codes, "-o", str(output), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise CompilerError(f"nvcc on {listed(archs)}: {done.stderr.strip()}")
        return output.read_bytes()


def _put_machine_code(blob: bytes, source: bytes, fatbin: bytes) -> bytes:
    """What a library carries, with `fatbin` in place of the CUDA module's source.

    The layout is TVM's (tvm_ffi, library_module.cc): its size, the tree of imports as two vectors,
    then each module's kind and, but for the library's own code, its bytes.
    """
    stream = io.BytesIO(blob)
    stream.seek(8)
    (rows,) = struct.unpack("<Q", stream.read(8))
    stream.seek(8 * rows, io.SEEK_CUR)
    (children,) = struct.unpack("<Q", stream.read(8))
    stream.seek(8 * children, io.SEEK_CUR)
    parts = [blob[8 : stream.tell()]]
    for _ in range(rows - 1):
        kind = _read_string(stream)
        parts.append(_string(kind))
        if kind != b"_lib":
            content = _read_string(stream)
            if kind == b"cuda":
                content = _cuda_module(content, source, fatbin)
            parts.append(_string(content))
    body = b"".join(parts)
    return struct.pack("<Q", len(body)) + body


def _cuda_module(content: bytes, source: bytes, fatbin: bytes) -> bytes:
    """A CUDA module's bytes: the format of its code, the kernels' signatures, the code."""
    form, code = _string(b"cuda"), _string(source)
    if not (content.startswith(form) and content.endswith(code)):
        raise AssertionError("TVM no longer saves a CUDA module as format, signatures, code")
    signatures = content[len(form) : -len(code)]
    return _string(b"fatbin") + signatures + _string(fatbin)


def _string(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _read_string(stream: io.BytesIO) -> bytes:
    (size,) = struct.unpack("<Q", stream.read(8))
    return stream.read(size)
