"""A compiled net, opened from the folder that `vggc compile` has made of it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc_runtime.errors import ArtifactError
from vggc_runtime.files import sha256
from vggc_runtime.folder import LIBRARY, WEIGHTS
from vggc_runtime.library import unfit
from vggc_runtime.manifest import Facts, FileEntry, read_facts
from vggc_runtime.native import NativeError, Value
from vggc_runtime.outputs import Output, best_classes
from vggc_runtime.pinned import PinnedNet

if TYPE_CHECKING:
    from PIL import Image

    from vggc_runtime.preprocessing import Preprocessing

PictureLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"
"""The path of an image file, its bytes, or an image of Pillow's."""

AGAIN = "copy the artifact again, whole, or compile the net again"


@dataclass(frozen=True)
class Net:
    """A compiled net that is open. Several threads may call it at once.

    `input` is the shape (C, H, W) of an image, of several sizes the main one; `outputs` are what
    the net gives of such an image, the main one first. The names `classes`, which may be missing,
    are those of the first output of classes.
    """

    name: str
    input: tuple[int, int, int]
    outputs: tuple[Output, ...]
    classes: tuple[str, ...]
    folder: Path
    _pinned: PinnedNet = field(repr=False)
    _preprocessing: Mapping[str, Any] = field(repr=False)

    @property
    def threads(self) -> int:
        """How many threads compute one call, the caller's own among them."""
        return self._pinned.threads

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What makes of a picture the net's input.

        Raises:
            ArtifactError: the artifact tells of none that fits the net.
        """
        from vggc_runtime.greys import Greys
        from vggc_runtime.preprocessing import Preprocessing

        told = dict(self._preprocessing)
        made = Preprocessing(**told | {"white": Greys(*told["white"])})
        if problem := made.problem(self.input):
            raise ArtifactError(self.folder, problem, AGAIN)
        return made

    def __call__(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Every output for images (N, C, H, W) of one of the net's sizes, float32 and normalised, N
        any number: arrays (N, …) by the outputs' names, the main one first.

        Raises:
            ArtifactError: they are no such images, memory is short, or the net was loaded before
                this process was forked.
        """
        try:
            values = self._pinned.run(np.asarray(images))
        except ValueError as error:
            hint = "`prepared` makes of a picture what the net takes"
            raise ArtifactError(self.folder, str(error), hint) from None
        except NativeError as error:
            raise ArtifactError(self.folder, str(error), "load the net again") from None
        return dict(zip((each.name for each in self.outputs), values, strict=True))

    def prepared(self, picture: PictureLike) -> NDArray[np.float32]:
        """What the net takes of a picture, float32 (1, C, H, W): resized, cut out and normalised as
        in training.

        Raises:
            ArtifactError: it is no usable picture.
        """
        from PIL import Image

        from vggc_runtime.preprocessing import BrokenImageError

        how = self.preprocessing
        place: str | Path = "the picture"
        try:
            match picture:
                case Image.Image():
                    return how.of_picture(picture)
                case bytes():
                    return how.of(how.open(io.BytesIO(picture)))
                case str() | os.PathLike():
                    place = Path(picture)
                    return how.read(place)
        except BrokenImageError as error:
            raise ArtifactError(place, str(error), "give a whole image file") from None
        what = f"{type(picture).__name__} is no picture"
        raise ArtifactError(place, what, "give a path, bytes or an image of Pillow's")

    def classify(self, picture: PictureLike, top: int = 5) -> list[tuple[str, float]]:
        """The names of the `top` classes with the greatest values for a picture, and the values,
        greatest first.

        Raises:
            ArtifactError: it is no usable picture, or the net tells no classes.
        """
        named = self.named
        if named is None:
            kinds = " and ".join(dict.fromkeys(each.kind for each in self.outputs))
            hint = "call the net with what `prepared` gives"
            raise ArtifactError(self.folder, f"it tells no classes, but {kinds}", hint)
        values = self(self.prepared(picture))[named.name]
        return best_classes(values, self.class_name, top)

    @property
    def named(self) -> Output | None:
        """The output whose classes have names: the first of classes."""
        return next((each for each in self.outputs if each.kind == "classes"), None)

    def class_name(self, index: int) -> str:
        """The name of a class; `class 7` where the net was compiled without names."""
        return self.classes[index] if self.classes else f"class {index}"


def load(folder: str | os.PathLike[str], threads: int | None = None, mapped: bool = True) -> Net:
    """The compiled net in an artifact's folder, checked before anything of it is loaded.

    It computes on so many `threads`, all physical cores unless told. Its weights stay `mapped` in
    the pages of their file, which processes share and which are there at once; otherwise they are
    read to pages from which kernels read faster.

    A library that is loaded may do what any program may: load an artifact only from where you would
    run a program from.

    Raises:
        ArtifactError: there is none, it is damaged, or not for this machine.
    """
    place = Path(folder)
    if threads is not None and threads < 1:
        raise ArtifactError(place, f"{threads} threads run no net", "give a number from 1 on")
    facts = read_facts(place)
    for name, entry in facts.files.items():
        if flaw := _flaw(place / name, entry):
            raise ArtifactError(place / name, flaw, AGAIN)
    pinned = _opened(place, facts, threads, mapped)
    told = [(each.input, _shapes(each.outputs)) for each in facts.sizes]
    if told != [(each.input.shape, _shapes(each.outputs)) for each in pinned.native.sizes]:
        raise ArtifactError(place, f"{LIBRARY} is of another net than the manifest", AGAIN)
    return Net(
        name=facts.net,
        input=facts.sizes[0].input,
        outputs=facts.sizes[0].outputs,
        classes=facts.classes,
        folder=place,
        _pinned=pinned,
        _preprocessing=facts.preprocessing,
    )


def _shapes(values: Iterable[Output | Value]) -> list[tuple[str, tuple[int, ...]]]:
    return [(each.name, each.shape) for each in values]


def _flaw(path: Path, expected: FileEntry) -> str | None:
    """Why a file is not as the manifest says, if it is not: of a library all of it is looked at, of
    weights the size, as the library has the hashes of their contents.
    """
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            return f"it has {size:,} bytes in place of {expected.bytes:,}"
        if path.name != LIBRARY:
            return None
        if sha256(path) != expected.sha256:
            return "its SHA-256 is not the one in the manifest"
        return unfit(path)
    except OSError as error:
        return error.strerror or str(error)


def _opened(folder: Path, facts: Facts, threads: int | None, mapped: bool) -> PinnedNet:
    # A loader may take what has the path of a library for that library: these are absolute.
    library, weights = (folder.resolve() / name for name in (LIBRARY, WEIGHTS))
    here = "compile the net on this machine with `--target cpu`"
    try:
        return PinnedNet.open(library, facts.net, weights, threads, mapped=mapped)
    except OSError as error:
        raise ArtifactError(folder, f"loading {LIBRARY} failed: {error}", here) from None
    except AttributeError as error:
        raise ArtifactError(folder, f"there is no net in {LIBRARY}: {error}", AGAIN) from None
    except NativeError as error:
        reason = str(error).removeprefix(f"{weights}: ")
        if reason != str(error):
            raise ArtifactError(folder / WEIGHTS, reason, AGAIN) from None
        raise ArtifactError(folder, reason, here) from None
