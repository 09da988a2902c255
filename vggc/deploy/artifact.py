"""The artifact: a folder with a library, packed weights, the spec, and their manifest.

Everything here works without TVM: an artifact is checked before anything of it is loaded.
A manifest's hashes find damage and mix-ups; they are no signature. Load a library only
from where you would run a program from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vggc import __version__
from vggc.deploy import mistakes
from vggc.diagnostics import UserError
from vggc.files import sha256
from vggc.ir.graph import Graph
from vggc.layers.elaborate import elaborate
from vggc.preprocessing import Preprocessing
from vggc.records import MalformedError, from_json, read_json
from vggc.syntax.parse import parse, read_source

FORMAT = "vggc-artifact"
FORMAT_VERSION = 1

MANIFEST = "manifest.json"
LIBRARY = "lib.so"
WEIGHTS = "weights.safetensors"
SPEC = "net.vgg"
FILES = (LIBRARY, WEIGHTS, SPEC)


@dataclass(frozen=True)
class FileEntry:
    """A file as it was when the artifact was made."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class KernelEntry:
    """The kernel chosen for one step of one layer."""

    layer: str
    step: str
    workload: str
    algorithm: str
    knobs: dict[str, int]


@dataclass(frozen=True)
class TargetEntry:
    """The machine that the library is for. `archs` are those of a GPU's code."""

    name: str
    kind: Literal["cpu", "cuda"]
    attrs: dict[str, str | int | tuple[str, ...]]
    archs: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds.

    `weights` are the names and packed shapes in the order in which the library takes them.
    """

    format: str
    format_version: int
    vggc: str
    tvm: str
    net: str
    target: TargetEntry
    precision: Literal["float32"]
    batch: int
    input: tuple[int, int, int]
    output: tuple[int, ...]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    weights_from: str
    weights: dict[str, tuple[int, ...]]
    kernels: tuple[KernelEntry, ...]
    files: dict[str, FileEntry]

    def class_name(self, index: int) -> str:
        return self.classes[index] if self.classes else f"class {index}"


def entry(path: Path) -> FileEntry:
    """A file's size in bytes and its hash."""
    return FileEntry(sha256(path), path.stat().st_size)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact, the artifact itself not looked at.

    Raises: UserError when it is missing, malformed or of another version.
    """
    path = str(folder)
    if not folder.is_dir():
        reason = "it is a file, not a folder" if folder.exists() else "there is no such folder"
        raise UserError(mistakes.NoArtifact(None, path, reason))
    if not (folder / MANIFEST).exists():
        raise UserError(mistakes.NoArtifact(None, path, f"it has no {MANIFEST}"))
    try:
        value = read_json(folder / MANIFEST)
        match value:
            case {"format": "vggc-artifact", "format_version": int(version)}:
                if version != FORMAT_VERSION:
                    found, expected = f"format {version}", f"format {FORMAT_VERSION}"
                    raise UserError(mistakes.OtherVersion(None, path, found, expected))
            case _:
                raise MalformedError(f"{MANIFEST} is not that of an artifact")
        manifest = from_json(Manifest, value)
    except MalformedError as error:
        raise UserError(mistakes.NoArtifact(None, path, str(error))) from None
    if manifest.vggc != __version__:
        found, expected = f"vggc {manifest.vggc}", f"vggc {__version__}"
        raise UserError(mistakes.OtherVersion(None, path, found, expected))
    if set(manifest.files) != set(FILES):
        reason = f"its manifest must list {', '.join(FILES)} and nothing else"
        raise UserError(mistakes.NoArtifact(None, path, reason))
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises: UserError naming the first file that is missing, cut off or changed."""
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(mistakes.FileGone(None, str(folder), name))
        size = file.stat().st_size
        if size != expected.bytes:
            reason = f"it has {size:,} bytes in place of {expected.bytes:,}"
            raise UserError(mistakes.FileChanged(None, str(folder), name, reason))
    for name, expected in manifest.files.items():
        if entry(folder / name).sha256 != expected.sha256:
            reason = "its SHA-256 is not the one in the manifest"
            raise UserError(mistakes.FileChanged(None, str(folder), name, reason))


def graph_in(folder: Path) -> Graph:
    """The graph of the artifact's spec.

    Raises: UserError when the spec is malformed.
    """
    return elaborate(parse(read_source(folder / SPEC)))


def open_artifact(folder: Path) -> Manifest:
    """The manifest of an artifact whose files are all as they were compiled.

    Raises: UserError with what is missing, broken or changed.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest
