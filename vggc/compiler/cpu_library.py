"""The library of a net compiled for a CPU: its kernels, a table of their calls, and the runtime of
`vggc/native`, which is compiled with them. It needs neither Python nor TVM.

All names but those of the public header are local to the library, so that several nets may be
linked into one program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vggc.compiler import diagnostics
from vggc.compiler.link import LinkError, call, tool, workspace
from vggc.compiler.plan_table import (
    PlanTable,
    StoredWeights,
    TableHead,
    TableSize,
    c_source,
    symbols,
    table_entry,
)
from vggc.compiler.preprocessing_table import preprocessing_initialiser
from vggc.compiler.relax import Lowered
from vggc.runtime.artifact import Manifest, Target
from vggc.support.diagnostics import UserError
from vggc_runtime.native import prefix_of
from vggc_runtime.preprocessing import Preprocessing

NATIVE = Path(__file__).parents[1] / "native"
"""The runtime's sources in C."""

ANY = "net"
"""What the runtime's sources call the net. Public functions are renamed once they are compiled, so
that a net may be called as anything in the sources is."""

PUBLIC = (
    *("open", "input", "output", "prepare", "run", "watch", "error", "close"),
    *("size", "input_at", "output_at", "prepare_at", "run_at"),
)
"""The functions of the public header, without the net's name in front of them."""

C_FLAGS = ("-O2", "-fPIC", "-fvisibility=hidden", "-pthread", "-U_FORTIFY_SOURCE")
"""What a C compiler is told when it compiles and when it links. The static library is linked with
other C libraries than this machine's, too: it calls none of what that alone has, as the functions
of `_FORTIFY_SOURCE`.
"""


@dataclass(frozen=True)
class CpuLibrary:
    """A library before it is linked: the text of its table and runtime, and the object file of all,
    with public names that begin with `prefix`.
    """

    prefix: str
    source: str
    object: bytes


def kernels_of(code: Lowered) -> dict[str, Any]:
    """The kernels of a lowered net by the names of their symbols."""
    return {symbol: code.module[name] for name, symbol in _symbols(code).items()}


def table_of(code: Lowered, manifest: Manifest, weights: Path) -> PlanTable:
    """The calls of a net that takes the stored `weights`.

    Raises: MalformedError where these are no such file; OSError where it cannot be read.
    """
    stored = StoredWeights.of(weights)
    numbers = {each.name: number for number, each in enumerate(stored.tensors)}
    names = _symbols(code)
    sizes = []
    for size in manifest.sizes:
        here = manifest.at(size.size)
        entries = tuple(
            replace(
                table_entry(
                    code.calls[each.name],
                    [names[one] for one in code.functions[each.name]],
                    numbers,
                ),
                fewest=each.fewest,
            )
            for each in here.entries
        )
        heads = tuple(TableHead(each.name, each.shape) for each in size.outputs)
        sizes.append(TableSize(size.input, here.preprocessing.scale, heads, entries))
    return PlanTable(
        net=manifest.net,
        cpu=cpu_of(manifest.target),
        instructions=manifest.target.instructions,
        sizes=tuple(sizes),
        weights=stored,
    )


def joined(
    table: PlanTable, how: Preprocessing, header: str, kernels: bytes, compiler: str, beside: Path
) -> CpuLibrary:
    """The kernels' object file joined with the table and the runtime, whose public `header` calls
    the net `ANY`. What is made on the way lies in the folder `beside`.

    Raises:
        UserError: the compiler, or a tool beside it, fails.
        OSError: files cannot be written.
    """
    prefix, text = prefix_of(table.net), c_library(table, how, header)
    try:
        with workspace(beside) as (inside, objects):
            source, runtime = inside / f"{prefix}.c", inside / "runtime.o"
            kernel_file, whole = inside / "kernels.o", inside / "whole.o"
            source.write_text(text, "utf-8")
            kernel_file.write_bytes(kernels)
            compiled = [compiler, "-x", "c", "-std=c11", *C_FLAGS, f"-I{NATIVE}", "-c", str(source)]
            call([*compiled, "-o", str(runtime)], inside)
            one = [compiler, "-r", "-nostdlib", "-o", str(whole), str(runtime), str(kernel_file)]
            call(one, inside, objects)
            objcopy = tool(compiler, "objcopy", inside)
            kept = [f"--keep-global-symbol={ANY}_{name}" for name in PUBLIC]
            call([objcopy, "--strip-debug", *kept, str(whole)], inside)
            names = [f"--redefine-sym={ANY}_{name}={prefix}_{name}" for name in PUBLIC]
            call([objcopy, *names, str(whole)], inside)
            return CpuLibrary(prefix, text, whole.read_bytes())
    except LinkError as error:
        raise UserError(diagnostics.NotLinked(compiler, str(error))) from None


def write_shared(library: CpuLibrary, compiler: str, path: Path) -> None:
    """Links the shared library.

    Raises:
        UserError: the compiler fails.
        OSError: files cannot be written.
    """
    name = f"-Wl,-soname,lib{library.prefix}.so"
    words = ["-shared", "-s", name, "-Wl,--as-needed,-z,defs"]
    try:
        with workspace(path.parent) as (inside, _):
            whole = inside / "whole.o"
            whole.write_bytes(library.object)
            call([compiler, *C_FLAGS, *words, "-o", str(path), str(whole), "-lm"], inside)
    except LinkError as error:
        raise UserError(diagnostics.NotLinked(compiler, str(error))) from None


def c_library(table: PlanTable, how: Preprocessing, header: str) -> str:
    """The whole library of a net but for its kernels as one file of C, with its public header, in
    which the net is called `ANY`.
    """
    parts = ("pictures", "cpu", "processors", "threads", "weights", "net")
    pictures = preprocessing_initialiser(how)
    return "\n".join(
        [
            "#define _GNU_SOURCE",
            header,
            '#include "pictures.h"',
            '#include "plan.h"',
            "",
            c_source(table),
            f"static const plan_preprocessing table_preprocessing = {pictures or '{0}'};",
            "static const plan_preprocessing *const preprocessing = "
            f"{'&table_preprocessing' if pictures else 'NULL'};",
            "",
            *(f'#include "{part}.c"' for part in parts),
            "",
        ]
    )


def cpu_of(target: Target) -> str:
    """What the code of a target is for, in a word."""
    return str(target.attrs.get("mcpu") or target.triple or "any CPU")


def _symbols(code: Lowered) -> dict[str, str]:
    return symbols(name for names in code.functions.values() for name in names)
