"""Running an artifact. Needs TVM and numpy, no PyTorch."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggc.deploy import mistakes
from vggc.deploy.artifact import LIBRARY, WEIGHTS, Manifest, open_artifact
from vggc.deploy.targets import Attr, host, num_cores
from vggc.diagnostics import UserError
from vggc.tvm_alone import relax, tvm
from vggc.weights import Weights, read_tensors

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Session:
    """A loaded artifact: the library, and the weights in the device's memory."""

    folder: Path
    manifest: Manifest
    device: Any
    machine: Any
    weights: tuple[Any, ...]

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> Session:
        """A session for the artifact in `folder`, checked before anything is loaded.

        `threads` is taken once in a process, by the first session that runs.

        Raises: UserError when the artifact is damaged or not for this machine.
        """
        manifest = open_artifact(folder)
        if manifest.tvm != tvm.__version__:
            found, expected = f"TVM {manifest.tvm}", f"TVM {tvm.__version__}"
            raise UserError(mistakes.OtherVersion(None, str(folder), found, expected))
        os.environ["TVM_NUM_THREADS"] = str(threads or num_cores())
        # TVM nails its workers to processors but not the calling thread, which then often
        # shares one with a worker.
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        device = _device(folder, manifest)
        library = _load_library(folder)
        stored = _read_weights(folder, manifest)
        weights = tuple(tvm.runtime.tensor(stored[name], device) for name in manifest.weights)
        return cls(folder, manifest, device, relax.VirtualMachine(library, device), weights)

    def run(self, x: Array) -> Array:
        """The output for an input of the manifest's batch and shape, `(N, C, H, W)`."""
        return self.invoke(self.tensor(x))

    def tensor(self, x: Array) -> Any:
        """An input where the library can read it."""
        return tvm.runtime.tensor(np.ascontiguousarray(x, np.float32), self.device)

    def invoke(self, x: Any) -> Array:
        """The output for a tensor that is there already."""
        output: Array = self._call("main", x).numpy()
        return output

    def layers(self, x: Array) -> list[Array]:
        """What each step gives, in the order of the manifest's kernels, in its own layout."""
        return [value.numpy() for value in self._call("layers", self.tensor(x))]

    def _call(self, function: str, x: Any) -> Any:
        try:
            return self.machine[function](x, *self.weights)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = f"its library refuses its input: {str(error).splitlines()[0]}"
            raise UserError(mistakes.NoArtifact(None, str(self.folder), reason)) from None


def _read_weights(folder: Path, manifest: Manifest) -> Weights:
    """The packed weights, each of the shape that the library was compiled for."""
    stored = read_tensors(folder / WEIGHTS)
    for name, shape in manifest.weights.items():
        found = stored[name].shape if name in stored else None
        if found != shape:
            reason = f"its weight `{name}` has the shape {found}, and its library takes {shape}"
            raise UserError(mistakes.NoArtifact(None, str(folder), reason))
    return stored


def _device(folder: Path, manifest: Manifest) -> Any:
    if manifest.target.kind == "cuda":
        from vggc.deploy.device_code import DeviceError, require_device

        try:
            return require_device(manifest.target.archs)
        except DeviceError as error:
            hint = "run it where such a GPU is, or compile the net again with `--target cpu`"
            raise UserError(mistakes.WrongMachine(None, str(folder), str(error), hint)) from None
    _check_cpu(folder, manifest)
    return tvm.cpu()


def _check_cpu(folder: Path, manifest: Manifest) -> None:
    """Code for a CPU with more instructions than this one would end the process."""
    attrs = manifest.target.attrs
    missing = sorted(_features(attrs) - _features(host()))
    triple = str(attrs.get("mtriple", platform.machine()))
    model = attrs.get("mcpu", "another CPU")
    reason = ""
    if not triple.startswith(platform.machine()):
        reason = f"it is compiled for {triple}, and this is {platform.machine()}"
    elif missing:
        reason = f"it is compiled for {model}, and this CPU lacks {', '.join(missing[:3])}"
    if reason:
        hint = "compile it on this machine with `--target cpu`"
        raise UserError(mistakes.WrongMachine(None, str(folder), reason, hint))


VECTOR_FEATURES = ("sse4.1", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "neon")


def _features(attrs: dict[str, Attr]) -> set[str]:
    target = tvm.target.Target(attrs)
    has_feature = tvm.get_global_func("target.target_has_feature")
    return {name for name in VECTOR_FEATURES if has_feature(name, target)}


def _load_library(folder: Path) -> Any:
    try:
        return tvm.runtime.load_module(str(folder / LIBRARY))
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [""])[-1]
        hint = "compile it on this machine with `--target cpu`"
        problem = mistakes.WrongMachine(None, str(folder), f"loading it failed: {first}", hint)
        raise UserError(problem) from None
