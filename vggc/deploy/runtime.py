"""Running an artifact. Needs TVM and numpy, no PyTorch."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggc.deploy import mistakes
from vggc.deploy.artifact import LIBRARY, WEIGHTS, Attr, Manifest, open_artifact
from vggc.deploy.targets import host, num_cores
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
        """The main output for an input of the manifest's batch and shape, `(N, C, H, W)`."""
        return self.invoke(self.tensor(x))

    def run_all(self, x: Array) -> dict[str, Array]:
        """Every output by the name of its head, the main one first."""
        values = self._outputs(self.tensor(x))
        names = (output.name for output in self.manifest.outputs)
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    def tensor(self, x: Array) -> Any:
        """An input where the library can read it."""
        return tvm.runtime.tensor(np.ascontiguousarray(x, np.float32), self.device)

    def invoke(self, x: Any) -> Array:
        """The main output for a tensor that is there already."""
        output: Array = self._outputs(x)[0].numpy()
        return output

    def layers(self, x: Array) -> list[Array]:
        """What each step gives, in the order of the manifest's kernels, in its own layout."""
        return [value.numpy() for value in self._call("layers", self.tensor(x))]

    def _outputs(self, x: Any) -> Sequence[Any]:
        result = self._call("main", x)
        values: Sequence[Any] = result if len(self.manifest.outputs) > 1 else [result]
        return values

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
    if reason := _obstacle(manifest.target.attrs):
        hint = "compile it on this machine with `--target cpu`"
        raise UserError(mistakes.WrongMachine(None, str(folder), reason, hint))


def _obstacle(attrs: dict[str, Attr]) -> str | None:
    """Why code for a CPU does not run on this one, if it does not."""
    triple = str(attrs.get("mtriple", platform.machine()))
    model = str(attrs.get("mcpu", "any CPU"))
    if not triple.startswith(platform.machine()):
        return f"it is compiled for {triple}, and this is {platform.machine()}"
    known = tvm.get_global_func("target.llvm_get_cpu_archlist")(tvm.target.Target("llvm"))
    if "mcpu" in attrs and model not in set(map(str, known)):
        return f"it is compiled for {model}, a CPU that this TVM does not know"
    missing = sorted(_instructions(attrs) - _instructions(host()))
    if missing:
        return f"it is compiled for {model}, and this CPU lacks {', '.join(missing[:3])}"
    return None


# Names of LLVM's CPU features that are instructions; the others are tuning.
INSTRUCTIONS = re.compile(
    "(sse|ssse|avx|fma|bmi|f16c|lzcnt|popcnt|movbe|adx|sha|gfni|v?aes|v?pclmul"
    "|neon|sve|dotprod|fullfp16|i8mm|bf16|lse|crc).*"
)


def _instructions(attrs: dict[str, Attr]) -> set[str]:
    """The instruction sets that code for a CPU may use.

    Raises: ValueError where TVM knows no such CPU.
    """
    features = tvm.get_global_func("target.llvm_get_cpu_features")(tvm.target.Target(attrs))
    return {name for name in map(str, features) if INSTRUCTIONS.fullmatch(name)}


def _load_library(folder: Path) -> Any:
    try:
        return tvm.runtime.load_module(str(folder / LIBRARY))
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [""])[-1]
        hint = "compile it on this machine with `--target cpu`"
        problem = mistakes.WrongMachine(None, str(folder), f"loading it failed: {first}", hint)
        raise UserError(problem) from None
