"""An artifact's kernels in TVM's virtual machine, made in this process: what libraries for C, which
call the same kernels, are compared with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.lowering import with_values_apart
from vggc.compiler.choose import kernels_for, rebuilt
from vggc.compiler.codegen import UNCHECKED
from vggc.compiler.relax import PIPELINE, PlannedCalls, lower
from vggc.compiler.targets import tvm_target
from vggc.runtime.artifact import Manifest, Target, main_function, read_manifest
from vggc.runtime.huge_pages import read_in_place
from vggc.support.affinity import apart
from vggc.support.arrays import Array
from vggc.support.tvm_alone import VirtualMachine, tvm
from vggc_runtime.folder import WEIGHTS


def compile_for(module: tvm.IRModule, target: Target) -> Any:
    """The executable for the virtual machine of a lowered net on a CPU."""
    with tvm.transform.PassContext(config=UNCHECKED):
        return tvm.compile(module, target=tvm_target(target), relax_pipeline=PIPELINE)


@dataclass(frozen=True)
class MachineNet:
    """The net of an artifact for a CPU."""

    manifest: Manifest
    machine: Any
    weights: tuple[Any, ...]
    threads: int

    @classmethod
    def of(cls, folder: Path, threads: int = 2) -> MachineNet:
        """The net in a folder. Threads are those of the first net of a process."""
        os.environ["TVM_NUM_THREADS"] = str(threads)
        os.environ["TVM_BIND_THREADS"] = "0"
        manifest = read_manifest(folder)
        module = lower(with_memory_of_their_own(rebuilt(folder, manifest), manifest.target)).module
        machine = VirtualMachine(compile_for(module, manifest.target), tvm.cpu())
        stored = read_in_place(folder / WEIGHTS, manifest.weights.keys())
        weights = tuple(tvm.runtime.from_dlpack(stored[name]) for name in manifest.weights)
        return cls(manifest, machine, weights, threads)

    def run(self, images: Array) -> dict[str, Array]:
        """Every output by the name of its head, of any number of images (N, C, H, W)."""
        parts: list[dict[str, Array]] = []
        while not parts or len(images):
            batch = self.manifest.entry_for(len(images), images.shape[2:]).batch
            parts.append(self._filled_up(images[:batch], batch))
            images = images[batch:]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _filled_up(self, images: Array, batch: int) -> dict[str, Array]:
        """Every output of images that the entry for `batch` takes, with zeros beside them."""
        full = np.zeros((batch, *images.shape[1:]), np.float32)
        full[: len(images)] = images
        return {name: value[: len(images)] for name, value in self.ready(full)().items()}

    def ready(self, images: Array) -> Callable[[], dict[str, Array]]:
        """What computes every output by its name, of as many images as an entry takes."""
        given = tvm.runtime.tensor(np.ascontiguousarray(images, np.float32), tvm.cpu())
        entry = self.manifest.entry_for(len(images), images.shape[2:])
        function = self.machine[main_function(entry.name)]
        names = [output.name for output in self.manifest.outputs]

        def call() -> dict[str, Array]:
            with apart(self.threads):
                result = function(given, *self.weights)
            values = [result] if len(names) == 1 else [*result]
            return {name: each.numpy() for name, each in zip(names, values, strict=True)}

        return call


def with_memory_of_their_own(
    calls: Mapping[str, PlannedCalls], target: Target
) -> dict[str, PlannedCalls]:
    """The calls with concatenations that copy all in place of those that grow, which the virtual
    machine knows nothing of.
    """
    kernel_of = kernels_for(target, lambda _: None)
    found = {}
    for name, planned in calls.items():
        plan = with_values_apart(planned.plan)
        steps = zip(plan.steps, planned.steps, strict=True)
        kernels = (
            kernel if step == before else kernel_of(step.workload)
            for step, (before, kernel) in steps
        )
        found[name] = PlannedCalls(plan, tuple(kernels))
    return found


@cache
def machine_of(folder: Path) -> MachineNet:
    """The net in a folder, made once."""
    return MachineNet.of(folder)


def outputs_by_machine(folder: Path, images: Array) -> dict[str, Array]:
    """Every output of an artifact by its name, for any number of images."""
    return machine_of(folder).run(images)
