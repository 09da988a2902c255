"""What TVM's virtual machine makes of an artifact's kernels: the reference for its library."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vggc.compiler.choose import rebuilt
from vggc.compiler.codegen import compile_for
from vggc.compiler.relax import lower
from vggc.runtime.artifact import WEIGHTS, main_function, read_manifest
from vggc.runtime.huge_pages import read_in_place
from vggc.support.arrays import Array
from vggc.support.tvm_alone import VirtualMachine, tvm


@cache
def machine_of(folder: Path) -> Any:
    """The very kernels of an artifact for this CPU, compiled once more, with what calls them."""
    manifest = read_manifest(folder)
    code = lower(rebuilt(folder, manifest))
    return VirtualMachine(compile_for(code.module, manifest.target), tvm.cpu())


def outputs_by_machine(folder: Path, images: Array) -> dict[str, Array]:
    """Every output of an artifact by its name, for any number of images."""
    manifest = read_manifest(folder)
    stored = read_in_place(folder / WEIGHTS, manifest.weights.keys())
    weights = [tvm.runtime.tensor(stored[name]) for name in manifest.weights]
    parts: list[list[Array]] = []
    start = 0
    while start < len(images):
        entry = manifest.entry_for(len(images) - start)
        some = images[start : start + entry.batch]
        full = np.zeros((entry.batch, *manifest.input), np.float32)
        full[: len(some)] = some
        given = machine_of(folder)[main_function(entry.name)](tvm.runtime.tensor(full), *weights)
        values = [given] if isinstance(given, tvm.runtime.Tensor) else [*given]
        parts.append([value.numpy()[: len(some)] for value in values])
        start += len(some)
    together = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return {out.name: value for out, value in zip(manifest.outputs, together, strict=True)}
