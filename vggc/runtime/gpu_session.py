"""Running an artifact on a GPU, by TVM's runtime without its compiler. Knows no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vggc.kernels.workloads import buffer_shape
from vggc.plan.plan import Plan
from vggc.runtime import diagnostics
from vggc.runtime.artifact import (
    ArtifactEntry,
    Manifest,
    layers_function,
    main_function,
    sound_manifest,
)
from vggc.runtime.device import DeviceError, capability_of, require_device
from vggc.runtime.huge_pages import read_in_place
from vggc.runtime.plans import plans_in
from vggc.runtime.session import Session, misfit, not_loaded, require_loadable
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError, first_line
from vggc.support.files import lasting
from vggc.support.tensors import ALIGNMENT
from vggc.support.tvm_alone import VirtualMachine, tvm, tvm_ffi
from vggc_runtime.folder import LIBRARY, WEIGHTS
from vggc_runtime.json_file import MalformedError
from vggc_runtime.processors import num_cores


@dataclass(frozen=True)
class GpuSession(Session):
    """A loaded artifact on a GPU: TVM's virtual machine calls its kernels."""

    device: Any
    machine: Any
    weights: tuple[Any, ...]
    calls: Mapping[str, Plan]

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> GpuSession:
        """A session for the artifact in `folder`, checked before anything is loaded.

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
        whole, manifest = manifest, manifest.variant_for(capability_of(device))
        return cls(
            folder=folder,
            manifest=manifest,
            threads=count,
            own_archs=manifest.target.archs if whole.has_variants else (),
            device=device,
            calls=plans_in(folder, manifest),
            machine=_machine(folder, device),
            weights=_read_weights(folder, manifest, device),
        )

    @property
    def plans(self) -> Mapping[str, Plan]:
        return self.calls

    def run_all(self, x: Array) -> dict[str, Array]:
        images = np.asarray(x, np.float32)
        parts: list[dict[str, Array]] = []
        while not parts or len(images):
            batch = self._entry(images).batch
            parts.append(self._filled_up(images[:batch], batch))
            images = images[batch:]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _filled_up(self, x: Array, batch: int) -> dict[str, Array]:
        """Every output for images that are no more than the entry for `batch` takes."""
        if len(x) == batch:
            return self.named(self.lent(x))
        full = np.zeros((batch, *x.shape[1:]), np.float32)
        full[: len(x)] = x
        return {name: value[: len(x)] for name, value in self.named(self.lent(full)).items()}

    def tensor(self, x: Array) -> Any:
        return tvm.runtime.tensor(np.ascontiguousarray(x, np.float32), self.device)

    def lent(self, x: Any) -> Any:
        try:
            lent = tvm_ffi.from_dlpack(x, require_alignment=ALIGNMENT, require_contiguous=True)
            if lent.device.type == self.device.type:
                return lent
        except (BufferError, RuntimeError, TypeError, ValueError):
            pass
        copied: Any = x if isinstance(x, np.ndarray) else np.from_dlpack(x)
        return self.tensor(copied)

    def named(self, x: Any) -> dict[str, Array]:
        return {name: value.numpy() for name, value in self.outputs(x).items()}

    def outputs(self, x: Any) -> dict[str, Any]:
        entry = self._entry(x)
        outputs = self.manifest.at(entry.size).outputs
        wanted = [(entry.batch, *output.shape) for output in outputs]
        values = self._call(main_function(entry.name), x, wanted)
        return dict(zip((output.name for output in outputs), values, strict=True))

    def call_each(self) -> None:
        """Calls each entry once, on nothing: a GPU that replays CUDA graphs records them here."""
        for entry in self.manifest.entries:
            shape = (entry.batch, self.manifest.input[0], *entry.size)
            self.outputs(self.tensor(np.zeros(shape, np.float32)))

    def layers(self, x: Array) -> list[Array]:
        entry = self._entry(x)
        wanted = [buffer_shape(step.output) for step in self.plans[entry.name].steps]
        function = layers_function(entry.name)
        return [value.numpy() for value in self._call(function, self.tensor(x), wanted)]

    def _entry(self, x: Any) -> ArtifactEntry:
        """The entry that takes so many images of their size; the library refuses other numbers.

        Raises: UserError where the artifact is not compiled for images of their size.
        """
        return self.manifest.entry_for(x.shape[0], self.size_of(x))

    def _call(self, function: str, x: Any, wanted: Sequence[tuple[int, ...]]) -> Sequence[Any]:
        """What a function of the library gives: as many values, of these shapes."""
        try:
            result = self.machine[function](x, *self.weights)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise misfit(self.folder, f"refuses its input: {first_line(error)}") from None
        values = [result] if isinstance(result, tvm.runtime.Tensor) else [*result]
        if [tuple(value.shape) for value in values] != [*wanted]:
            raise misfit(self.folder, "gives values of other shapes than its net")
        return values


def _read_weights(folder: Path, manifest: Manifest, device: Any) -> tuple[Any, ...]:
    """The packed weights on the device, of the shapes that the library was compiled for."""
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
    return tuple(place(stored[name]) for name in manifest.weights)


def _device(folder: Path, manifest: Manifest) -> Any:
    try:
        return require_device(manifest.target.archs)
    except DeviceError as error:
        hint = "run it where such a GPU is, or compile the net again with `--target cpu`"
        raise UserError(diagnostics.WrongMachine(str(folder), str(error), hint)) from None


def _machine(folder: Path, device: Any) -> Any:
    """The library's net, ready to be called."""
    require_loadable(folder)
    try:
        library = tvm_ffi.load_module(lasting(folder / LIBRARY))
    except (OSError, RuntimeError, ValueError) as error:
        raise not_loaded(folder, error) from None
    try:
        return VirtualMachine(library, device)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = f"there is no net in its {LIBRARY}: {first_line(error)}"
        raise UserError(diagnostics.NoArtifact(str(folder), reason)) from None
