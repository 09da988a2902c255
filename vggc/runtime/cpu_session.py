"""Running an artifact on a CPU, by its library in C. Knows neither TVM nor PyTorch."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vggc.runtime import diagnostics
from vggc.runtime.artifact import Target, sound_manifest
from vggc.runtime.cpu_info import instructions, plain
from vggc.runtime.session import Session, misfit, not_loaded, require_loadable
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError
from vggc.support.files import lasting
from vggc.support.signals import held
from vggc_runtime.folder import LIBRARY, WEIGHTS
from vggc_runtime.native import NativeError, NativeStep, Value
from vggc_runtime.outputs import Output
from vggc_runtime.pinned import PinnedNet

if TYPE_CHECKING:
    from vggc.plan.plan import Plan


COMPILED_FOR = "the net is compiled for "
"""What a library's words begin with where it is not for this machine."""


@dataclass(frozen=True)
class CpuSession(Session):
    """A loaded artifact on a CPU. Several threads may run it at once."""

    net: PinnedNet

    @classmethod
    def open(cls, folder: Path, threads: int | None = None, *, mapped: bool = False) -> CpuSession:
        """A session for the artifact in `folder`, checked before anything is loaded; of its weights
        the hashes that the library has of them.

        Raises: UserError when the artifact is damaged or not for this machine.
        """
        manifest = sound_manifest(folder, hashed_elsewhere=(WEIGHTS,))
        if reason := obstacle(manifest.target):
            # Code for a CPU with more instructions than this one would end the process.
            hint = "compile it on this machine with `--target cpu`"
            raise UserError(diagnostics.WrongMachine(str(folder), reason, hint))
        require_loadable(folder)
        weights = lasting(folder / WEIGHTS)
        try:
            library = lasting(folder / LIBRARY)
            net = PinnedNet.open(library, manifest.net, weights, threads, mapped=mapped)
        except OSError as error:
            raise not_loaded(folder, error) from None
        except AttributeError as error:
            reason = f"there is no net in its {LIBRARY}: {error}"
            raise UserError(diagnostics.NoArtifact(str(folder), reason)) from None
        except NativeError as error:
            raise _not_opened(folder, str(error), os.fspath(weights)) from None
        told = [(each.input, shapes_of(each.outputs)) for each in manifest.sizes]
        found = net.native.sizes
        if told != [(each.input.shape, shapes_of(each.outputs)) for each in found]:
            raise misfit(folder, "is of another net than its manifest")
        return cls(
            folder=folder,
            manifest=manifest.variant_for(None),
            threads=net.threads,
            own_archs=(),
            net=net,
        )

    @cached_property
    def plans(self) -> Mapping[str, Plan]:
        from vggc.runtime.plans import plans_in

        return plans_in(self.folder, self.manifest)

    def run_all(self, x: Array) -> dict[str, Array]:
        return self.named(np.asarray(x, np.float32))

    def tensor(self, x: Array) -> Array:
        return np.ascontiguousarray(x, np.float32)

    def lent(self, x: Any) -> Array:
        seen: Any = x if isinstance(x, np.ndarray) else np.from_dlpack(x)
        return self.tensor(seen)

    def outputs(self, x: Any) -> dict[str, Any]:
        return self.named(x)

    def named(self, x: Array) -> dict[str, Array]:
        return self._called(x, self.net.run)

    def watch(self, x: Array, watcher: Callable[[NativeStep], None]) -> dict[str, Array]:
        """Every output by its name, as `named` gives them, where `watcher` is shown each step when
        it has ended. Signals wait for the end of the run: what they raise would be lost in the C
        code that calls the watcher.
        """
        with held():
            return self._called(x, lambda images: self.net.watch(images, watcher))

    def layers(self, x: Array) -> list[Array]:
        found: list[Array] = []
        self.watch(x, lambda step: found.append(step.values()))
        return found

    def _called(self, x: Array, call: Callable[[Array], tuple[Array, ...]]) -> dict[str, Array]:
        self.size_of(x)
        try:
            values = call(x)
        except ValueError as error:
            raise misfit(self.folder, f"refuses its input: {error}") from None
        except NativeError as error:
            raise UserError(diagnostics.NotRun(str(self.folder), str(error))) from None
        return dict(zip((each.name for each in self.manifest.outputs), values, strict=True))


def shapes_of(values: Iterable[Output | Value]) -> list[tuple[str, tuple[int, ...]]]:
    """The name and shape of each of several values."""
    return [(each.name, each.shape) for each in values]


def _not_opened(folder: Path, reason: str, weights: str) -> UserError:
    """The error of a net that its library does not open, mostly for what is in its weights."""
    if reason.startswith(f"{weights}: "):
        reason = reason.removeprefix(f"{weights}: ")
        return UserError(diagnostics.FileChanged(str(folder), WEIGHTS, reason))
    if not reason.startswith(COMPILED_FOR):
        return UserError(diagnostics.NotRun(str(folder), reason))
    hint = "compile it on this machine with `--target cpu`"
    return UserError(diagnostics.WrongMachine(str(folder), reason, hint))


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
