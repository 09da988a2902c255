"""Libraries of compiled nets, called as programs in C and Python call them."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.support.nets import program
from vggc.api.trained import from_spec
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import on_threads, resolve
from vggc.runtime.artifact import Target, read_manifest
from vggc.support.arrays import Array
from vggc.support.paths import STANDALONE
from vggc.support.precision import ArtifactPrecision
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.native import NetOptions, NetValue, prefix_of

DRIVER = Path(__file__).with_name("standalone.c")

BRANCHES = """
net of_branches
input 3x19x17

every conv norm=batch
  conv3-16 | add(skip, conv3-16 act=none)
| concat(conv1-8, conv3-12 | conv3-8, pool3 stride=1 padding=1 | conv1-4)
| pool | lrn | avgpool2 | fc-24 | dropout | fc-10 | softmax

head features: @fc3
"""


def artifact(
    folder: Path,
    text: str,
    *batches: int,
    target: Target | None = None,
    precision: ArtifactPrecision = "float32",
    images: tuple[Path, ...] = (),
) -> Path:
    """The artifact of a net with its library, for two threads."""
    net = program(text)
    subject = from_spec(net, None, seed=0)
    job = Job(
        net=net.net,
        graph=net.graph,
        target=on_threads(target or resolve("cpu"), 2),
        batches=batches,
        weights=subject.weights,
        weights_from=subject.weights_from,
        preprocessing=subject.preprocessing,
        classes=(),
        precision=precision,
        images=images,
        standalone=True,
    )
    build_artifact(job, folder)
    return folder


def images_for(folder: Path, count: int) -> Array:
    """So many images of noise for the net of an artifact."""
    shape = (count, *read_manifest(folder).input)
    return np.random.default_rng(count).standard_normal(shape, np.float32)


class RefusedError(Exception):
    """What the library says of a call that failed."""


@dataclass
class StandaloneNet:
    """A net in the library of an artifact, opened in this process."""

    library: ctypes.CDLL
    prefix: str
    handle: ctypes.c_void_p

    @classmethod
    def open(
        cls, folder: Path, *, weights: Path | None = None, threads: int = 2, map_: bool = False
    ) -> StandaloneNet:
        """Opens the library of the artifact in a folder.

        Raises: RefusedError.
        """
        prefix = prefix_of(read_manifest(folder).net)
        library = ctypes.CDLL(str(folder / STANDALONE / f"lib{prefix}.so"))
        getattr(library, f"{prefix}_error").restype = ctypes.c_char_p
        for name in ("input", "output", "input_at", "output_at"):
            getattr(library, f"{prefix}_{name}").restype = NetValue
        made = cls(library, prefix, ctypes.c_void_p())
        options = NetOptions(threads=threads, map=int(map_))
        path = bytes(weights or folder / WEIGHTS)
        made.call("open", path, ctypes.byref(options), ctypes.byref(made.handle))
        return made

    def call(self, name: str, *arguments: object) -> None:
        if getattr(self.library, f"{self.prefix}_{name}")(*arguments):
            raise RefusedError(self.error())

    def value(self, name: str, *arguments: int) -> tuple[str | None, tuple[int, ...]]:
        """The name and shape of the input or an output."""
        found = getattr(self.library, f"{self.prefix}_{name}")(*arguments)
        shape = tuple(found.shape[i] for i in range(found.ndim))
        return found.name and found.name.decode(), shape

    def error(self) -> str:
        """Why the last call failed."""
        text: bytes = getattr(self.library, f"{self.prefix}_error")()
        return text.decode()

    def size(self, height: int, width: int) -> int:
        """The number of a size of images; -1 where there is none."""
        arguments = ctypes.c_int64(height), ctypes.c_int64(width)
        return int(getattr(self.library, f"{self.prefix}_size")(*arguments))

    def prepared(self, pixels: npt.NDArray[np.uint8], size: int) -> Array:
        """A picture (H, W, 3) as the net takes it at a size, by its number."""
        image = np.full(self.value("input_at", size)[1], np.nan, np.float32)
        height, width, _ = pixels.shape
        sides = (ctypes.c_int64(each) for each in (width, height, 3 * width))
        given = ctypes.c_void_p(pixels.ctypes.data), *sides
        self.call("prepare_at", size, *given, ctypes.c_void_p(image.ctypes.data))
        return image

    def run(self, images: Array, *, size: int = 0) -> dict[str, Array]:
        """Every output by its name, of images of a size, by its number."""
        return self.ready(images, size=size)()

    def ready(self, images: Array, *, size: int = 0) -> Callable[[], dict[str, Array]]:
        """What computes every output by its name, each time at the same places."""
        outputs: dict[str, Array] = {}
        while (described := self.value("output_at", size, len(outputs)))[0]:
            outputs[str(described[0])] = np.full((len(images), *described[1]), np.nan, np.float32)
        pointers = (ctypes.c_void_p * len(outputs))(*(y.ctypes.data for y in outputs.values()))

        def call() -> dict[str, Array]:
            given = ctypes.c_void_p(images.ctypes.data)
            count = len(images)
            if size:
                self.call("run_at", self.handle, size, count, given, pointers)
            else:
                self.call("run", self.handle, count, given, pointers)
            return outputs  # which live as long as this does: the library knows addresses only

        return call

    def close(self) -> None:
        getattr(self.library, f"{self.prefix}_close")(self.handle)


@dataclass(frozen=True)
class Driver:
    """`standalone.c` linked with the static library of an artifact."""

    folder: Path
    path: Path
    command: tuple[str, ...] = ()
    """What runs it."""

    @classmethod
    def of(
        cls,
        folder: Path,
        path: Path,
        *flags: str,
        compiler: str = "cc",
        command: Sequence[str] = (),
    ) -> Driver:
        prefix = prefix_of(read_manifest(folder).net)
        place = folder / STANDALONE
        defined = [f"-DNET(name)={prefix}_##name", f'-DHEADER="{prefix}.h"']
        files = [f"-I{place}", str(DRIVER), str(place / f"lib{prefix}.a"), "-lm"]
        words = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-pthread", *flags]
        subprocess.run([compiler, *words, *defined, *files, "-o", str(path)], check=True)
        return cls(folder, path, tuple(command))

    def run(
        self, images: Array, *, threads: int = 2, runners: int = 4, map_: bool = False
    ) -> tuple[bytes, str]:
        """What it gives of images, as bytes, and what it says."""
        words = map(str, (self.folder / WEIGHTS, len(images), threads, runners, int(map_)))
        done = subprocess.run(
            [*self.command, str(self.path), *words],
            input=images.tobytes(),
            capture_output=True,
            timeout=600,
        )
        said = done.stderr.decode()
        assert done.returncode == 0, said
        return done.stdout, said
