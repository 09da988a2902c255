"""A compiled net as a library for C, without Python and TVM: kernels, a table of their calls, and
the runtime of `vggc/native`, which is compiled with them.

All names but those of the public header are local to the library, so that several nets may be
linked into one program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from textwrap import wrap

from vggc.compiler import diagnostics
from vggc.compiler.codegen import UNCHECKED
from vggc.compiler.link import LinkError, call, workspace
from vggc.compiler.plan_table import (
    PlanTable,
    StoredWeights,
    TableHead,
    c_source,
    prefix_of,
    symbols,
    table_entry,
)
from vggc.compiler.preprocessing_table import preprocessing_initialiser
from vggc.compiler.relax import Lowered
from vggc.compiler.targets import tvm_target
from vggc.images.preprocessing import Preprocessing
from vggc.ir.ops import describe
from vggc.runtime.artifact import Manifest, Output, Target
from vggc.support.diagnostics import UserError
from vggc.support.tvm_alone import tvm
from vggc.support.version import __version__

NATIVE = Path(__file__).parents[1] / "native"
"""The runtime's sources in C."""

ANY = "net"
"""What the runtime's sources call the net. Public functions are renamed once they are compiled, so
that a net may be called as anything in the sources is."""

PUBLIC = ("open", "input", "output", "prepare", "run", "error", "close")
"""The functions of the public header, without the net's name in front of them."""

C_FLAGS = ("-O2", "-fPIC", "-fvisibility=hidden", "-pthread")
"""What a C compiler is told when it compiles and when it links."""


@dataclass(frozen=True)
class Library:
    """The texts of a library, of which its object file is made: the table of its calls with the
    runtime around it, and what its user reads, by the names of files.
    """

    table: PlanTable
    source: str
    texts: Mapping[str, str]


def library_of(code: Lowered, manifest: Manifest, weights: Path) -> Library:
    """The library of a net for a CPU that takes the stored `weights`.

    Raises: MalformedError where these are no such file; OSError where it cannot be read.
    """
    prefix = prefix_of(manifest.net)
    stored = StoredWeights.of(weights)
    numbers = {each.name: number for number, each in enumerate(stored.tensors)}
    names = _symbols(code, prefix)
    entries = tuple(
        table_entry(
            code.calls[each.name], [names[one] for one in code.functions[each.name]], numbers
        )
        for each in manifest.entries
    )
    table = PlanTable(
        net=manifest.net,
        prefix=prefix,
        cpu=_cpu(manifest.target),
        instructions=manifest.target.instructions,
        input=manifest.input,
        heads=tuple(TableHead(each.name, each.shape) for each in manifest.outputs),
        entries=entries,
        weights=stored,
    )
    source = c_library(table, manifest.preprocessing, _texts(manifest, ANY)[f"{ANY}.h"])
    return Library(table, source, _texts(manifest, prefix))


def write_library(
    made: Library, code: Lowered, target: Target, compiler: str, folder: Path
) -> None:
    """Writes a library to a new folder: shared and static, its header, what build systems read, and
    an example.

    Raises:
        UserError: the compiler, or a tool beside it, fails.
        OSError: files cannot be written.
    """
    folder.mkdir()
    for name, text in made.texts.items():
        (folder / name).write_text(text, "utf-8")
    prefix = made.table.prefix
    try:
        with workspace(folder) as (inside, objects):
            kernels = inside / "lib0.o"
            _kernels(code, target, prefix).write_to_file(str(kernels), "o")
            source = inside / f"{prefix}.c"
            source.write_text(made.source, "utf-8")
            runtime, whole = inside / "runtime.o", inside / f"{prefix}.o"
            compiled = [compiler, "-x", "c", "-std=c11", *C_FLAGS, f"-I{NATIVE}", "-c", str(source)]
            call([*compiled, "-o", str(runtime)], inside)
            joined = [compiler, "-r", "-nostdlib", "-o", str(whole), str(runtime), str(kernels)]
            call(joined, inside, objects)
            objcopy = _tool(compiler, "objcopy", inside)
            kept = [f"--keep-global-symbol={ANY}_{name}" for name in PUBLIC]
            call([objcopy, "--strip-debug", *kept, str(whole)], inside)
            names = [f"--redefine-sym={ANY}_{name}={prefix}_{name}" for name in PUBLIC]
            call([objcopy, *names, str(whole)], inside)
            archive, shared = (str(folder / f"lib{prefix}.{kind}") for kind in ("a", "so"))
            call([_tool(compiler, "ar", inside), "rcsD", archive, str(whole)], inside)
            linked = ["-shared", "-s", f"-Wl,-soname,lib{prefix}.so", "-Wl,--as-needed,-z,defs"]
            call([compiler, *C_FLAGS, *linked, "-o", shared, str(whole), "-lm"], inside)
    except LinkError as error:
        raise UserError(diagnostics.NotLinked(compiler, str(error))) from None


def _symbols(code: Lowered, prefix: str) -> dict[str, str]:
    return symbols(prefix, (name for names in code.functions.values() for name in names))


def _kernels(code: Lowered, target: Target, prefix: str) -> tvm.runtime.Module:
    """The machine code of the functions that plans call, without the virtual machine's."""
    functions = {
        symbol: code.module[name].with_attr("global_symbol", symbol)
        for name, symbol in _symbols(code, prefix).items()
    }
    with tvm.transform.PassContext(config=UNCHECKED):
        return tvm.compile(tvm.IRModule(functions), target=tvm_target(target)).mod


def _tool(compiler: str, name: str, folder: Path) -> str:
    """The tool that belongs to a compiler, and so to its machine."""
    return call([compiler, f"-print-prog-name={name}"], folder).strip() or name


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


def _texts(manifest: Manifest, prefix: str) -> dict[str, str]:
    """What a user of the library reads, by the names of files."""
    words = {
        "NET": prefix,
        "NAME": _comment(manifest.net),
        "VERSION": __version__,
        "COUNT": str(prod(manifest.input)),
        "HEADS": str(len(manifest.outputs)),
    }
    names = {
        "net.h.in": f"{prefix}.h",
        "main.c.in": "main.c",
        "ppm.h": "read-ppm.h",  # as no net's header is called
        "net.pc.in": f"{prefix}.pc",
        "NETConfig.cmake.in": f"{prefix}Config.cmake",
        "README.in": "README",
    }
    about = _about(manifest)
    return {
        name: _filled(
            (NATIVE / template).read_text("utf-8"),
            words | {"ABOUT": ("\n * " if name.endswith(".h") else "\n").join(about)},
        )
        for template, name in names.items()
    }


def _filled(template: str, words: Mapping[str, str]) -> str:
    """A text with each `@KEY@` replaced by what the key stands for."""
    return re.sub("@([A-Z]+)@", lambda found: words[found[1]], template)


def _about(manifest: Manifest) -> list[str]:
    """What a net is, in lines."""
    several = "images at a time" if manifest.batches != (1,) else "image at a time"
    batches = " or ".join(map(str, manifest.batches))
    heads = [f"  {n}: {_output(each)}" for n, each in enumerate(manifest.outputs)]
    text = (
        f"The net {_comment(manifest.net)}, compiled by vggc {__version__} for "
        f"{_cpu(manifest.target)} in {manifest.precision}. It computes {batches} {several}; a run "
        "takes any number."
    )
    return [*wrap(text, 96), *wrap(_pixels(manifest), 96), "Its outputs:", *heads]


def _pixels(manifest: Manifest) -> str:
    """What an image is, for those who make its floats."""
    how = manifest.preprocessing
    mean, std = (", ".join(f"{value:g}" for value in each) for each in (how.mean, how.std))
    order = "RGB" if manifest.input[0] == len("RGB") else "greys"
    return (
        f"An image is {describe(manifest.input)} floats, channels ({order}), height and width: "
        f"(v / 255 - mean) / std of its pixels v from 0 to 255, with mean {mean} and std {std}."
    )


def _output(output: Output) -> str:
    return f"{_comment(output.name)}, {output.kind}, {describe(output.shape)}"


def _comment(text: str) -> str:
    """A text that may stand in a comment of C."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("*/", "* /")


def _cpu(target: Target) -> str:
    return str(target.attrs.get("mcpu") or target.triple or "any CPU")
