"""Machine code for a lowered net, by LLVM for CPUs and by NVIDIA's compiler for GPUs."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vggc.compiler import diagnostics
from vggc.compiler.link import LinkError, object_file
from vggc.compiler.targets import tvm_target
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc.support.tvm_alone import tvm

if TYPE_CHECKING:
    from vggc.compiler.device_code import DeviceLibrary

UNCHECKED = {"tirx.disable_assert": True}
"""Whoever calls the kernels knows what the net is given. What kernels are given follows from that,
and their own checks of each buffer would be four fifths of the code of a small kernel."""

Linkable: TypeAlias = "bytes | DeviceLibrary"
"""The object file of a CPU's kernels, or a GPU's kernels with the code that launches them."""


@dataclass(frozen=True)
class Code:
    """Machine code that is not linked yet."""

    source: Callable[[], Mapping[str, str]]
    """What it was made from, by the name of a file: LLVM IR, or CUDA C++."""
    linkable: Linkable


def cpu_code(functions: Mapping[str, Any], target: Target) -> Code:
    """The machine code of kernels for a CPU, by the names of their symbols."""
    named = {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    with tvm.transform.PassContext(config=UNCHECKED):
        module = tvm.compile(tvm.IRModule(named), target=tvm_target(target)).mod
    return Code(partial(_llvm, module), object_file(module))


def _llvm(module: Any) -> Mapping[str, str]:
    return {"kernels.ll": str(module.inspect_source("ll"))}


def require_device_compiler() -> None:
    """Raises: UserError where there is no compiler for GPUs."""
    from vggc.compiler.device_code import NoCompilerError, require_compiler

    try:
        require_compiler()
    except NoCompilerError as error:
        hint = "`pip install 'vggc[cuda]'` brings NVIDIA's compiler; no GPU is needed"
        raise UserError(diagnostics.NoDeviceCode(str(error), hint)) from None


def device_code(module: tvm.IRModule, target: Target, archs: Mapping[str, Collection[str]]) -> Code:
    """The machine code of a lowered net for GPUs; of its functions each for the architectures that
    `archs` has under its name.

    Raises: UserError where there is no compiler for the GPUs asked for.
    """
    from vggc.compiler.device_code import CompilerError, compile_device

    require_device_compiler()
    try:
        library = compile_device(module, target.archs, archs, graphs=target.graphs)
    except CompilerError as error:
        hint = "name other architectures with `--arch`, such as sm_80,sm_90"
        raise UserError(diagnostics.NoDeviceCode(str(error), hint)) from None
    return Code(lambda: {"kernels.cu": library.source}, library)


def export_device_code(code: DeviceLibrary, path: Path, compiler: str) -> None:
    """Links a GPU's code to the shared library `path`.

    Raises: UserError where it cannot be linked.
    """
    try:
        code.export(path, compiler)
    except LinkError as error:
        raise UserError(diagnostics.NotLinked(compiler, str(error))) from None


def linker(target: Target) -> str:
    """The C++ compiler that links a library for the target."""
    tried, package = ["g++", "clang++", "c++"], "g++"
    if target.triple and not target.triple.startswith(platform.machine()):
        tried, package = [f"{target.triple}-g++"], f"g++-{target.triple}"
    if os.environ.get("CXX"):
        tried = [os.environ["CXX"]]
    for name in tried:
        if found := shutil.which(name):
            return found
    raise UserError(diagnostics.NoLinker(" and ".join(tried), package))
