"""Running an artifact, on whichever machine it is for.

A CPU's takes numpy alone (`cpu_session.py`), a GPU's TVM's runtime (`gpu_session.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggc.ir.ops import Pair
from vggc.runtime import diagnostics
from vggc.runtime.artifact import Manifest, no_such_size, read_manifest
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError
from vggc_runtime.folder import LIBRARY
from vggc_runtime.library import unfit

if TYPE_CHECKING:
    from vggc.plan.plan import Plan


@dataclass(frozen=True)
class Session(ABC):
    """A loaded artifact: the library, and the weights in the device's memory.

    Where a GPU has kernels of its own, the manifest is what the artifact's says of these.
    """

    folder: Path
    manifest: Manifest
    threads: int
    own_archs: tuple[str, ...]
    """The architectures that its kernels are for, where other GPUs have others in the artifact."""

    @staticmethod
    def load(folder: Path, threads: int | None = None, *, mapped: bool = False) -> Session:
        """A session for the artifact in `folder`, checked before anything is loaded.

        A net on a CPU computes on so many `threads`, all physical cores unless told. Its weights
        may stay `mapped` in the pages of their file, which processes share and which are there at
        once; otherwise they are read to pages from which kernels read faster.

        Raises: UserError when the artifact is damaged or not for this machine.
        """
        if read_manifest(folder).target.kind == "cpu":
            from vggc.runtime.cpu_session import CpuSession

            return CpuSession.open(folder, threads, mapped=mapped)
        from vggc.runtime.gpu_session import GpuSession

        return GpuSession.open(folder, threads)

    @property
    @abstractmethod
    def plans(self) -> Mapping[str, Plan]:
        """The calls of each entry, by its name.

        Raises: UserError where the manifest tells of others than the net has.
        """

    def run(self, x: Array) -> Array:
        """The main output for images of one of the manifest's sizes, `(N, C, H, W)`."""
        return next(iter(self.run_all(x).values()))

    @abstractmethod
    def run_all(self, x: Array) -> dict[str, Array]:
        """Every output by the name of its head, the main one first, for images of one of the
        manifest's sizes, `(N, C, H, W)`.

        They go to the entries in turn that `Manifest.entry_for` tells; beside those that are fewer
        than an entry takes it gets zeros.
        """

    @abstractmethod
    def lent(self, x: Any) -> Any:
        """An input where it lies, for as long as it is used, where the library can read it there;
        otherwise a copy. `x` is an array of an entry's batch and size in float32,
        of numpy or of whoever speaks DLPack and lies on the session's device or, in numpy's reach,
        a CPU.
        """

    @abstractmethod
    def tensor(self, x: Array) -> Any:
        """An input where the library can read it."""

    @abstractmethod
    def outputs(self, x: Any) -> dict[str, Any]:
        """Every output where it lies, which speaks DLPack, by the name of its head, the main one
        first, for a tensor that is there.
        """

    @abstractmethod
    def named(self, x: Any) -> dict[str, Array]:
        """Every output by the name of its head, the main one first, for a tensor that is there."""

    def invoke(self, x: Any) -> Array:
        """The main output for a tensor that is there already."""
        return next(iter(self.named(x).values()))

    def size_of(self, x: Any) -> Pair:
        """The height and width of images (N, C, H, W), which the net takes.

        Raises: UserError where the artifact is not compiled for images of their size.
        """
        match tuple(x.shape):
            case (_, _, height, width):
                if (height, width) in (each.size for each in self.manifest.sizes):
                    return height, width
                raise no_such_size(str(self.folder), self.manifest, (height, width))
            case shape:
                raise misfit(self.folder, f"refuses its input: it is of shape {shape}")

    @abstractmethod
    def layers(self, x: Array) -> list[Array]:
        """What each step gives of an entry's batch, in the order of its kernels, in its own
        layout.
        """


def require_loadable(folder: Path) -> None:
    """Raises: UserError where an artifact's library is none, which loading it would not survive."""
    if reason := unfit(folder / LIBRARY):
        raise UserError(diagnostics.NoArtifact(str(folder), f"{LIBRARY}: {reason}"))


def not_loaded(folder: Path, error: Exception) -> UserError:
    """The error of a library that the system does not load."""
    first = (str(error).splitlines() or [""])[-1]
    hint = "compile it on this machine with `--target cpu`"
    return UserError(diagnostics.WrongMachine(str(folder), f"loading it failed: {first}", hint))


def misfit(folder: Path, reason: str) -> UserError:
    """The error of a library that is not that of its net."""
    return UserError(diagnostics.NoArtifact(str(folder), f"its library {reason}"))
