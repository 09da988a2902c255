"""What an artifact says of itself, as far as running it on a CPU needs that.

Its hashes find damage and mix-ups; they are no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_args

from vggc_runtime.errors import ArtifactError
from vggc_runtime.folder import LIBRARY, MANIFEST, WEIGHTS
from vggc_runtime.json_file import MalformedError, read_json
from vggc_runtime.outputs import HeadKind, Output

FORMAT = "vggc-artifact"
FORMAT_VERSION = 7

MOST_CLASSES = 1 << 20
MOST_AXES = 8
MOST_SIDE = 1 << 31
"""The most that a shape has of anything."""

T = TypeVar("T")


@dataclass(frozen=True)
class FileEntry:
    """A file as it was when the artifact was made."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class SizeFacts:
    """What an image of one size is, (C, H, W), and what the heads give of one."""

    input: tuple[int, int, int]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Facts:
    """What a manifest says of a net for a CPU. Of the `sizes` of images the first is the main one.

    `preprocessing` are the arguments of `vggc_runtime.preprocessing.Preprocessing`, each of its
    type; whether they fit the net is not looked at, as that takes Pillow.
    """

    net: str
    sizes: tuple[SizeFacts, ...]
    classes: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    files: Mapping[str, FileEntry]


def digest_of(written: dict[str, Any]) -> str:
    """The hash of everything in a manifest, as it is written, but its own hash."""
    text = json.dumps(written | {"sha256": ""})
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_facts(folder: Path) -> Facts:
    """What the manifest of an artifact says.

    Raises:
        ArtifactError: there is none, it is damaged, or the artifact is of another format or for a
            GPU.
    """
    if not os.path.isfile(folder / MANIFEST):
        hint = "give the folder that `vggc compile` has made"
        raise ArtifactError(folder, f"there is no {MANIFEST} in it", hint)
    try:
        value = read_json(folder / MANIFEST)
        if _item(value, "format", str) != FORMAT:
            raise MalformedError(f"{MANIFEST} is not that of an artifact")
        version = _item(value, "format_version", int)
        if version != FORMAT_VERSION:
            reason = f"it is of format {version}, and this vggc-runtime reads {FORMAT_VERSION}"
            hint = "compile the net again with the vggc of this vggc-runtime's version"
            raise ArtifactError(folder, reason, hint)
        if _item(value, "sha256", str) != digest_of(value):
            raise MalformedError(f"the SHA-256 of {MANIFEST} is not the one that it gives")
        if _item(_item(value, "target", dict), "kind", str) != "cpu":
            hint = "run it with vggc, or compile the net with `--target cpu`"
            raise ArtifactError(folder, "it is compiled for a GPU", hint)
        return _facts(value)
    except MalformedError as error:
        raise ArtifactError(folder, str(error), "copy the artifact again, whole") from None


def _facts(value: dict[str, Any]) -> Facts:
    files = _item(value, "files", dict)
    sizes = tuple(map(_size, _item(value, "sizes", list)))
    classes = tuple(_each(_item(value, "classes", list), str, "classes"))
    if not sizes:
        raise MalformedError("there is no size of images")
    named = next((each for each in sizes[0].outputs if each.kind == "classes"), None)
    if len(classes) > MOST_CLASSES or (named and classes and len(classes) != named.count):
        raise MalformedError("classes are not as many as the outputs")
    return Facts(
        net=_item(value, "net", str),
        sizes=sizes,
        classes=classes,
        preprocessing=_preprocessing(_item(value, "preprocessing", dict)),
        files={name: _file(_item(files, name, dict)) for name in (LIBRARY, WEIGHTS)},
    )


def _size(value: Any) -> SizeFacts:
    channels, *size = _shape(value, "input")
    if len(size) != 2:
        raise MalformedError("input is not of three axes")
    outputs = tuple(map(_output, _item(value, "outputs", list)))
    if not outputs:
        raise MalformedError("there is no output")
    return SizeFacts((channels, size[0], size[1]), outputs)


def _output(value: Any) -> Output:
    kind = next((each for each in get_args(HeadKind) if each == _item(value, "kind", str)), None)
    if kind is None:
        raise MalformedError("outputs: kind has a wrong value")
    return Output(_item(value, "name", str), kind, _shape(value, "shape"))


def _file(value: dict[str, Any]) -> FileEntry:
    return FileEntry(_item(value, "sha256", str), _item(value, "bytes", int))


def _preprocessing(value: dict[str, Any]) -> dict[str, Any]:
    white = _item(value, "white", dict)
    return {
        "size": _shape(value, "size", axes=2),
        "scale": _maybe(value, "scale", int),
        **{name: tuple(_each(_item(value, name, list), float, name)) for name in ("mean", "std")},
        "white": (_maybe(white, "whole", float), _maybe(white, "real", float)),
        "background": tuple(_each(_item(value, "background", list), int, "background")),
        **{name: _item(value, name, str) for name in ("fit", "interpolation", "order")},
    }


def _shape(value: Any, name: str, axes: int | None = None) -> tuple[int, ...]:
    found = tuple(_each(_item(value, name, list), int, name))
    if not 1 <= len(found) <= MOST_AXES or (axes and len(found) != axes):
        raise MalformedError(f"{name} has {len(found)} axes")
    if not all(1 <= side <= MOST_SIDE for side in found):
        raise MalformedError(f"{name} is out of range")
    return found


def _maybe(value: Any, name: str, kind: type[T]) -> T | None:
    """What an object has under a name, where that is not null."""
    if isinstance(value, dict) and name in value and value[name] is None:
        return None
    return _item(value, name, kind)


def _item(value: Any, name: str, kind: type[T]) -> T:
    """What an object has under a name, which is exactly of that type."""
    if not isinstance(value, dict) or name not in value:
        raise MalformedError(f"{name} is missing")
    return _each([value[name]], kind, name)[0]


def _each(values: list[Any], kind: type[T], name: str) -> list[T]:
    """Values that are each exactly of a type; whole numbers are floats, too, which are finite."""
    found: list[T] = []
    for value in values:
        if kind is float and type(value) is int and abs(value) < 1 << 63:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
            raise MalformedError(f"{name} has a wrong value")
        found.append(value)
    return found
