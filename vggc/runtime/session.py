"""Running an artifact. Needs TVM's runtime and numpy, neither its compiler nor PyTorch.

A process takes little more memory than the weights if it imports `vggc.support.tvm_runtime` first.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vggc.kernels.workloads import buffer_shape
from vggc.plan.plan import Plan
from vggc.runtime import diagnostics
from vggc.runtime.affinity import apart
from vggc.runtime.artifact import (
    LIBRARY,
    WEIGHTS,
    ArtifactEntry,
    Manifest,
    Target,
    layers_function,
    main_function,
    sound_manifest,
)
from vggc.runtime.cpu_info import instructions, plain
from vggc.runtime.huge_pages import read_in_place
from vggc.runtime.library import unfit
from vggc.runtime.plans import plans_in
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError, first_line
from vggc.support.files import lasting
from vggc.support.processors import num_cores
from vggc.support.records import MalformedError
from vggc.support.tensors import ALIGNMENT
from vggc.support.tvm_alone import VirtualMachine, tvm, tvm_ffi


@dataclass(frozen=True)
class Session:
    """A loaded artifact: the library, and the weights in the device's memory.

    Where a GPU has kernels of its own, the manifest is what the artifact's says of these.
    """

    folder: Path
    manifest: Manifest
    device: Any
    machine: Any
    weights: tuple[Any, ...]
    threads: int
    plans: Mapping[str, Plan]
    """The calls of each entry, by its name."""
    own_archs: tuple[str, ...] = ()
    """The architectures that its kernels are for, where other GPUs have others in the artifact."""

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> Session:
        """A session for the artifact in `folder`, checked before anything is loaded.

        `threads`, all physical cores unless told, counts for those threads of the caller that
        have not run a net yet: TVM has a pool of workers for each, which stays as it is.

        Raises: UserError when the artifact is damaged or not for this machine.
        """
        manifest = sound_manifest(folder)
        if manifest.tvm != tvm.__version__:
            found, expected = f"TVM {manifest.tvm}", f"TVM {tvm.__version__}"
            raise UserError(diagnostics.OtherVersion(str(folder), found, expected))
        count = threads or num_cores()
        os.environ["TVM_NUM_THREADS"] = str(count)
        # TVM would nail its workers to processors, allowed or not, and leave out their caller.
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        device = _device(folder, manifest)
        whole, manifest = manifest, _suited(manifest, device)
        own_archs = manifest.target.archs if whole.has_variants else ()
        plans = plans_in(folder, manifest)
        machine = _machine(folder, device)
        weights = _read_weights(folder, manifest, device)
        return cls(
            folder=folder,
            manifest=manifest,
            device=device,
            machine=machine,
            weights=weights,
            threads=count,
            plans=plans,
            own_archs=own_archs,
        )

    def run(self, x: Array) -> Array:
        """The main output for images of the manifest's shape, `(N, C, H, W)`."""
        return next(iter(self.run_all(x).values()))

    def run_all(self, x: Array) -> dict[str, Array]:
        """Every output by the name of its head, the main one first, for images of the manifest's
        shape, `(N, C, H, W)`.

        They are computed by the entry that takes them with the fewest others, beside which it gets
        zeros; where they are more than the largest takes, so many at a time.
        """
        images = np.asarray(x, np.float32)
        size = self.manifest.largest.batch
        starts = range(0, max(1, len(images)), size)
        parts = [self._filled_up(images[start : start + size]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _filled_up(self, x: Array) -> dict[str, Array]:
        """Every output for images that are no more than an entry takes."""
        batch = self.manifest.entry_for(len(x)).batch
        if len(x) == batch:
            return self.named(self.lent(x))
        full = np.zeros((batch, *x.shape[1:]), np.float32)
        full[: len(x)] = x
        return {name: value[: len(x)] for name, value in self.named(self.lent(full)).items()}

    def tensor(self, x: Array) -> Any:
        """An input where the library can read it."""
        return tvm.runtime.tensor(np.ascontiguousarray(x, np.float32), self.device)

    def lent(self, x: Any) -> Any:
        """An input where it lies, for as long as it is used, where the library can read it there;
        otherwise a copy. `x` is an array of an entry's batch and the manifest's shape in float32,
        of numpy or of whoever speaks DLPack and lies on the session's device or, in numpy's reach,
        a CPU.
        """
        try:
            lent = tvm_ffi.from_dlpack(x, require_alignment=ALIGNMENT, require_contiguous=True)
            if lent.device.type == self.device.type:
                return lent
        except (BufferError, RuntimeError, TypeError, ValueError):
            pass
        copied: Any = x if isinstance(x, np.ndarray) else np.from_dlpack(x)
        return self.tensor(copied)

    def named(self, x: Any) -> dict[str, Array]:
        """Every output by the name of its head, the main one first, for a tensor that is there."""
        return {name: value.numpy() for name, value in self.outputs(x).items()}

    def invoke(self, x: Any) -> Array:
        """The main output for a tensor that is there already."""
        output: Array = next(iter(self.outputs(x).values())).numpy()
        return output

    def outputs(self, x: Any) -> dict[str, Any]:
        """Every output where it lies, which speaks DLPack, by the name of its head, the main one
        first, for a tensor that is there.
        """
        entry = self._entry(x)
        wanted = [(entry.batch, *output.shape) for output in self.manifest.outputs]
        values = self._call(main_function(entry.name), x, wanted)
        names = (output.name for output in self.manifest.outputs)
        return dict(zip(names, values, strict=True))

    def call_each(self) -> None:
        """Calls each entry once, on nothing: a GPU that replays CUDA graphs records them here."""
        for entry in self.manifest.entries:
            self.outputs(self.tensor(np.zeros((entry.batch, *self.manifest.input), np.float32)))

    def watched(self, watch: Callable[..., int]) -> Session:
        """Another session of this net on the same weights, with its own room for activations.

        Its machine calls `watch(function, name, before, result, *arguments)` before and after
        every call; 0 lets it go on. It sees the kernels of a CUDA graph only as that is recorded.
        """
        machine = _machine(self.folder, self.device)
        machine.set_instrument(watch)
        return replace(self, machine=machine)

    def layers(self, x: Array) -> list[Array]:
        """What each step gives of an entry's batch, in the order of its kernels, in its own
        layout.
        """
        entry = self._entry(x)
        wanted = [buffer_shape(step.output) for step in self.plans[entry.name].steps]
        function = layers_function(entry.name)
        return [value.numpy() for value in self._call(function, self.tensor(x), wanted)]

    def _entry(self, x: Any) -> ArtifactEntry:
        """The entry that takes so many images; the library refuses them where there is none."""
        return self.manifest.entry_for(x.shape[0])

    def _call(self, function: str, x: Any, wanted: Sequence[tuple[int, ...]]) -> Sequence[Any]:
        """What a function of the library gives: as many values, of these shapes."""
        try:
            with apart(self.threads) if self.manifest.target.kind == "cpu" else nullcontext():
                result = self.machine[function](x, *self.weights)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise self._misfit(f"refuses its input: {first_line(error)}") from None
        values = [result] if isinstance(result, tvm.runtime.Tensor) else [*result]
        if [tuple(value.shape) for value in values] != [*wanted]:
            raise self._misfit("gives values of other shapes than its net")
        return values

    def _misfit(self, reason: str) -> UserError:
        return UserError(diagnostics.NoArtifact(str(self.folder), f"its library {reason}"))


def _read_weights(folder: Path, manifest: Manifest, device: Any) -> tuple[Any, ...]:
    """The packed weights where the library reads them, of the shapes that it was compiled for.

    On a CPU they stay where they were read to: there is never a second copy.
    """
    try:
        stored = read_in_place(folder / WEIGHTS, manifest.weights.keys())
    except (MalformedError, OSError) as error:
        reason = f"its {WEIGHTS} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise UserError(diagnostics.NoArtifact(str(folder), reason)) from None
    for name, shape in manifest.weights.items():
        found = stored[name].shape if name in stored else None
        if found != shape:
            reason = f"its weight `{name}` has the shape {found}, and its library takes {shape}"
            raise UserError(diagnostics.NoArtifact(str(folder), reason))
    place = partial(tvm.runtime.tensor, device=device)
    if manifest.target.kind == "cpu":
        place = tvm.runtime.from_dlpack
    return tuple(place(stored[name]) for name in manifest.weights)


def _device(folder: Path, manifest: Manifest) -> Any:
    if manifest.target.kind == "cuda":
        from vggc.runtime.device import DeviceError, require_device

        try:
            return require_device(manifest.target.archs)
        except DeviceError as error:
            hint = "run it where such a GPU is, or compile the net again with `--target cpu`"
            raise UserError(diagnostics.WrongMachine(str(folder), str(error), hint)) from None
    _check_cpu(folder, manifest)
    return tvm.cpu()


def _suited(manifest: Manifest, device: Any) -> Manifest:
    """What a manifest says of the kernels that a device runs."""
    if manifest.target.kind == "cpu":
        return manifest.variant_for(None)
    from vggc.runtime.device import capability_of

    return manifest.variant_for(capability_of(device))


def _check_cpu(folder: Path, manifest: Manifest) -> None:
    """Code for a CPU with more instructions than this one would end the process."""
    if reason := obstacle(manifest.target):
        hint = "compile it on this machine with `--target cpu`"
        raise UserError(diagnostics.WrongMachine(str(folder), reason, hint))


def obstacle(target: Target) -> str | None:
    """Why code for a CPU does not run on this one, if it does not."""
    triple = target.triple or platform.machine()
    if not triple.startswith(platform.machine()):
        return f"it is compiled for {triple}, and this is {platform.machine()}"
    present = instructions()
    if present is None:
        return None
    missing = [name for name in target.instructions if plain(name) not in present]
    if missing:
        model = target.attrs.get("mcpu", "a CPU")
        return f"it is compiled for {model}, and this CPU lacks {', '.join(missing[:3])}"
    return None


def _machine(folder: Path, device: Any) -> Any:
    """The library's net, ready to be called."""
    library = _load_library(folder)
    try:
        return VirtualMachine(library, device)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = f"there is no net in its {LIBRARY}: {first_line(error)}"
        raise UserError(diagnostics.NoArtifact(str(folder), reason)) from None


def _load_library(folder: Path) -> Any:
    if reason := unfit(folder / LIBRARY):
        raise UserError(diagnostics.NoArtifact(str(folder), f"{LIBRARY}: {reason}"))
    try:
        return tvm_ffi.load_module(lasting(folder / LIBRARY))
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [""])[-1]
        hint = "compile it on this machine with `--target cpu`"
        problem = diagnostics.WrongMachine(str(folder), f"loading it failed: {first}", hint)
        raise UserError(problem) from None
