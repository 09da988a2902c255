"""Kernels of GPUs compiled for the CPU, whole and with a wait taken away."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TypeAlias

from tests.support.cuda_on_cpu import CudaCode, compile_kernels, generate, generate_all
from tests.support.tensor_core_kernels import TensorCase, TensorDraw, case, check
from vggc.kernels.workloads import Kernel, Workload

Made: TypeAlias = tuple[ctypes.CDLL, CudaCode, Kernel]

ARCH = "sm_90a"
"""The architecture that has all instructions."""


def compiled(cases: Mapping[str, TensorDraw], folder: Path) -> Callable[[str], Made]:
    """The kernels of some cases, in one library."""
    kernels = {name: draw.kernel() for name, draw in cases.items()}
    numbered = {name: f"f{index}" for index, name in enumerate(cases)}
    codes = generate_all({numbered[name]: made.func for name, made in kernels.items()}, ARCH)
    source = next(iter(codes.values())).source
    library = ctypes.CDLL(str(compile_kernels(source, folder, noted=True)))
    return lambda name: (library, codes[numbered[name]], kernels[name])


WAITS = re.compile(
    r"tvm_builtin_ptx_cp_async_wait_group_async_wait_group_\d\(\);"
    r"|tvm_builtin_ptx_cp_async_commit_group_async_commit_group\(\);"
    r"|__syncthreads\(\);|__threadfence\(\);|vggc_await_kernel_before\(\);"
    r"|tvm_builtin_ptx_(wgmma_(fence|commit_group|wait_group)|mbarrier_arrive|fence_proxy)_\w+\(.*\);"
    r"|tvm_builtin_cuda_mbarrier_wait_raw_u32\(.*\);"
)
"""What threads wait for others by, and what is waited for."""

LAST = "\n  return is_last;"
OWN = ("vggc_is_last", "vggc_arrivals", "vggc_address")
"""What a source defines beside its kernels that the emulator does not."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """The source without one of its waits, fences, groups and arrivals, and which that was.

    The fence of the last block is left where it is: blocks follow one another here, so that it
    cannot be missed.
    """
    found = [
        match for match in WAITS.finditer(source) if not source[match.end() :].startswith(LAST)
    ]
    for match in found:
        yield f"{match[0]} at {match.start()}", source[: match.start()] + source[match.end() :]


def unnoticed(draw: TensorDraw, folder: Path) -> list[str]:
    """The waits of a kernel without which its results are right all the same."""
    kernel = draw.kernel()
    code, example = generate(kernel.func, ARCH), case(draw.workload, kernel)
    names, sources = zip(("", code.source), *mutants(code.source), strict=True)
    numbered = [_numbered(source, code, number) for number, source in enumerate(sources)]
    whole = compile_kernels("\n".join(each.source for each in numbered), folder)
    found = []
    for which, mutant in zip(names, numbered, strict=True):
        # Threads that wait for ever stay in the emulator: each has one of its own.
        own = shutil.copy(whole, folder / f"{mutant.launches[0].name}.so")
        if passes(ctypes.CDLL(own), mutant, draw.workload, example):
            found.append(which)
    assert found[:1] == [""], "the kernel is wrong as it is"
    return found[1:]


def _numbered(source: str, code: CudaCode, number: int) -> CudaCode:
    """A source whose names are unlike those of other numbers."""
    names = [launch.name for launch in code.launches]
    pattern = re.compile("|".join([*map(re.escape, names), *OWN]))
    launches = [replace(each, name=f"{each.name}_{number}") for each in code.launches]
    source = pattern.sub(lambda found: f"{found[0]}_{number}", source)
    return replace(code, source=source, launches=launches)


def passes(library: ctypes.CDLL, code: CudaCode, workload: Workload, example: TensorCase) -> bool:
    """Whether a kernel computes its workload; see `check_always`."""
    try:
        check_always(library, code, workload, example)
    except AssertionError:
        return False
    return True


def check_always(
    library: ctypes.CDLL, code: CudaCode, workload: Workload, example: TensorCase
) -> None:
    """A kernel computes its workload, whether copies, and products of warpgroups, happen as late or
    as soon as they may.

    Raises: AssertionError where not.
    """
    at_once = (False, True) if "wgmma" in code.source else (False,)
    for copies, products in product((False, True), at_once):
        library.copy_at_once(copies)
        library.multiply_at_once(products)
        check(library, code, workload, example)
