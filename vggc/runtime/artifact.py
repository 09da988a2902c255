"""The artifact: a folder with a library, packed weights, the spec, and their manifest.

Everything here works without TVM: an artifact is checked before anything of it is loaded.
A manifest's hashes find damage and mix-ups; they are no signature. Load a library only
from where you would run a program from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

from vggc.ir.graph import Graph
from vggc.ir.needs import Need
from vggc.ir.ops import Pair, describe
from vggc.layers.elaborate import elaborate
from vggc.layers.resolve import is_plain
from vggc.passes.dense import DenseGraph, dense_at, resized
from vggc.recipe.lengths import for_input
from vggc.runtime import diagnostics
from vggc.runtime.archs import ARCH, Capability, capability, is_specific
from vggc.support.batches import MAX_BATCH, MAX_BATCHES
from vggc.support.diagnostics import UserError
from vggc.support.paths import absence, exists, is_file, is_folder
from vggc.support.precision import ArtifactPrecision
from vggc.support.records import from_json, to_json
from vggc.support.sizes import MAX_SIZES, listed_sizes
from vggc.syntax.parse import parse, read_source
from vggc_runtime.files import sha256
from vggc_runtime.folder import LIBRARY, MANIFEST, WEIGHTS
from vggc_runtime.json_file import MalformedError, read_json
from vggc_runtime.manifest import FORMAT, FORMAT_VERSION, MOST_CLASSES, FileEntry, digest_of
from vggc_runtime.outputs import HeadKind, Output
from vggc_runtime.preprocessing import MAX_SIDE, Preprocessing
from vggc_runtime.version import __version__

MOST_CORES = 1 << 20

MAPS: tuple[HeadKind, ...] = ("boxes",)
"""The kinds of heads that stay maps where a net is compiled densely."""

SPEC = "net.vgg"
FILES = (LIBRARY, WEIGHTS, SPEC)


ChosenBy: TypeAlias = Literal["measurement", "cost model", "only"]
"""How a kernel was chosen: the fastest that was measured, the first by stated cost, or there was
nothing to choose."""


@dataclass(frozen=True)
class KernelEntry:
    """The kernel chosen for one step of one layer.

    `macs` are the multiply-adds that its code really does for the whole batch, which Winograd
    makes fewer and padding more; 0 where they are as many as the op's own.
    """

    layer: str
    step: str
    workload: str
    algorithm: str
    knobs: dict[str, int]
    chosen_by: ChosenBy
    macs: int = 0


@dataclass(frozen=True)
class ArtifactEntry:
    """A number of images of one size (H, W) that an artifact computes at once, and the kernels by
    which it does so.

    `weights` are the stored tensors that it takes, in order. `arch` is the architecture whose GPUs
    alone run it; it is empty where all others do that there is code for. It is taken for `fewest`
    images at least.
    """

    batch: int
    size: Pair
    kernels: tuple[KernelEntry, ...]
    weights: tuple[str, ...] = ()
    arch: str = ""
    fewest: int = 1

    @property
    def name(self) -> str:
        """The name of the entry in the artifact's library."""
        return entry_name(self.batch, self.size, self.arch)


def entry_name(batch: int, size: Pair, arch: str = "") -> str:
    """The name of the entry for so many images of a size (H, W) in an artifact's library, and for
    the GPUs of one architecture where they have kernels of their own: `4_224x224`,
    `4_224x224_sm_90a`.
    """
    height, width = size
    name = f"{batch}_{height}x{width}"
    return f"{name}_{arch}" if arch else name


def own_weight(name: str, arch: str) -> str:
    """The name under which a weight is stored that kernels for one architecture want packed
    otherwise than those for the others.
    """
    return f"{name}@{arch}"


def plain_weight(stored: str) -> str:
    """The name that the net has for a stored weight."""
    return stored.partition("@")[0]


def main_function(entry: str) -> str:
    """The name of the library's function that gives the outputs, by the name of an entry."""
    return f"main_{entry}"


def layers_function(entry: str) -> str:
    """The name of the library's function that gives every step's value, by the name of an entry."""
    return f"layers_{entry}"


Attr: TypeAlias = str | int | tuple[str, ...]

CPU_ATTRS = ("mtriple", "mcpu", "mattr", "num-cores")
"""What describes a CPU; TVM's other attributes follow from these."""


@dataclass(frozen=True)
class Target:
    """The machine that a library is for.

    `kind` decides on the kernels, `attrs` is TVM's description, `archs` are the
    architectures of a GPU that there is code for, `instructions` the sets of them that code
    for a CPU may use. With `graphs` a GPU's kernels are replayed in CUDA graphs.
    """

    name: str
    kind: Literal["cpu", "cuda"]
    attrs: dict[str, Attr]
    archs: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    graphs: bool = False

    @property
    def triple(self) -> str | None:
        """The platform of the code where it is not this machine's own."""
        triple = self.attrs.get("mtriple")
        return triple if isinstance(triple, str) else None


@dataclass(frozen=True)
class InputSize:
    """A size of images that an artifact takes: what an image is (C, H, W), and what the heads give
    of one, the main one first. The net is `dense` where it is applied to all of an image that may
    be larger than the net's own input: its boxes are maps then.
    """

    input: tuple[int, int, int]
    outputs: tuple[Output, ...]
    dense: bool = False

    @property
    def size(self) -> Pair:
        """Height and width."""
        return self.input[1:]


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds.

    `sha256` is its own `digest`. `weights` are the names and packed shapes in the order in
    which the library takes them. Of the `sizes` the first is the main one, which is meant where
    none is named; those that are dense stand behind the others. The first of the `outputs` is the
    main one; the names `classes`, where there are any, are those of the `named` one. Packed weights
    cannot be brought back bit for bit, so `float32_sha256` tells which ones they were made of. The
    `entries` are each batch, ascending, for each size in its turn, and take the same weights; those
    for one architecture stand behind the others, are for the same sizes and batches, and may have
    weights of their own. The `preprocessing` is that of the main size.
    """

    format: str
    format_version: int
    vggc: str
    tvm: str
    net: str
    target: Target
    precision: ArtifactPrecision
    sizes: tuple[InputSize, ...]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    weights_from: str
    float32_sha256: str
    weights: dict[str, tuple[int, ...]]
    entries: tuple[ArtifactEntry, ...]
    files: dict[str, FileEntry]
    sha256: str = ""

    @property
    def digest(self) -> str:
        """The hash of everything in the manifest but its own, its order included."""
        return digest_of(to_json(self))

    @property
    def input(self) -> tuple[int, int, int]:
        """What an image of the main size is, (C, H, W)."""
        return self.sizes[0].input

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the heads give of an image of the main size."""
        return self.sizes[0].outputs

    @property
    def dense(self) -> bool:
        """Whether the net is applied densely to images of the main size."""
        return self.sizes[0].dense

    @property
    def inputs(self) -> tuple[tuple[int, int, int], ...]:
        """What an image is, (C, H, W), of each size, the main one first."""
        return tuple(each.input for each in self.sizes)

    def at(self, size: Pair) -> Manifest:
        """What it says of images of one of its sizes (H, W) alone, which is the main one then.

        Raises: KeyError where it is not for that size.
        """
        found = {each.size: each for each in self.sizes}[size]
        entries = tuple(entry for entry in self.entries if entry.size == size)
        how = self.preprocessing
        if size != how.size:
            how = replace(how, size=size, scale=None) if found.dense else for_input(how, size)
        return replace(self, sizes=(found,), entries=entries, preprocessing=how)

    @property
    def batches(self) -> tuple[int, ...]:
        """The numbers of images that are computed at once, ascending."""
        return tuple(dict.fromkeys(entry.batch for entry in self.entries))

    @property
    def largest(self) -> ArtifactEntry:
        """The entry that computes the most images of the main size at once."""
        return self.entry_for(max(self.batches))

    def entry_for(self, images: int, size: Pair | None = None) -> ArtifactEntry:
        """The entry that comes next where so many images of a size, the main one unless told, are
        to be computed: the largest that is taken for as many. What it leaves over goes to others in
        the same way.
        """
        size = size or self.sizes[0].size
        entries = [each for each in self.entries if each.size == size]
        taken = (each for each in reversed(entries) if each.fewest <= images)
        return next(taken, entries[0])

    @property
    def variants(self) -> dict[str, Manifest]:
        """What it says of each choice of kernels alone, by the architecture that the choice is for;
        under the empty name of that for all others.
        """
        own = dict.fromkeys(entry.arch for entry in self.entries)
        others = tuple(arch for arch in self.target.archs if arch not in own)
        return {arch: self._variant(arch, (arch,) if arch else others) for arch in own}

    @property
    def entries_by_size(self) -> tuple[tuple[ArtifactEntry, ...], ...]:
        """The entries of each size in each choice of kernels."""
        found: dict[tuple[str, Pair], list[ArtifactEntry]] = {}
        for entry in self.entries:
            found.setdefault((entry.arch, entry.size), []).append(entry)
        return tuple(map(tuple, found.values()))

    @property
    def has_variants(self) -> bool:
        """Whether some of its GPUs have kernels of their own."""
        return len(self.variants) > 1

    def variant_for(self, device: Capability | None) -> Manifest:
        """What it says of the kernels that a GPU of this capability runs, or where it is none, a
        CPU.
        """
        variants = self.variants
        return next(
            (each for arch, each in variants.items() if arch and capability(arch) == device),
            variants[""],
        )

    def _variant(self, arch: str, archs: tuple[str, ...]) -> Manifest:
        entries = tuple(entry for entry in self.entries if entry.arch == arch)
        weights = {name: self.weights[name] for name in entries[0].weights}
        target = replace(self.target, archs=archs)
        return replace(self, target=target, entries=entries, weights=weights)

    @property
    def main(self) -> Output:
        """The first output, which `run` and `predict` show."""
        return self.outputs[0]

    @property
    def named(self) -> Output:
        """The output whose classes have names: the first of classes, else the main one."""
        return next((each for each in self.outputs if each.kind == "classes"), self.main)

    def class_name(self, index: int) -> str:
        """The name of a class; `class 7` where the net was compiled without names."""
        return self.classes[index] if self.classes else f"class {index}"


def input_size(graph: Graph, *, dense: bool = False) -> InputSize:
    """What a manifest says of the size of images that a graph takes, of which it may be that of a
    net applied densely.
    """
    shapes = graph.outputs
    outputs = tuple(Output(head.name, head.kind, shapes[head.name]) for head in graph.heads)
    channels, height, width = graph.input
    return InputSize((channels, height, width), outputs, dense)


def entry(path: Path) -> FileEntry:
    """A file's size in bytes and its hash."""
    return FileEntry(sha256(path), path.stat().st_size)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact, the artifact itself not looked at.

    Raises: UserError when it is missing, malformed or of another version.
    """
    path = str(folder)
    if not is_folder(folder):
        raise UserError(diagnostics.NoArtifact(path, absence(folder, "folder")))
    if not exists(folder / MANIFEST):
        raise UserError(diagnostics.NoArtifact(path, f"it has no {MANIFEST}"))
    try:
        value = read_json(folder / MANIFEST)
        match value:
            case {"format": str(name), "format_version": int(version)} if name == FORMAT:
                if version != FORMAT_VERSION:
                    found, expected = f"format {version}", f"format {FORMAT_VERSION}"
                    raise UserError(diagnostics.OtherVersion(path, found, expected))
            case _:
                raise MalformedError(f"{MANIFEST} is not that of an artifact")
        manifest = from_json(Manifest, value)
    except MalformedError as error:
        raise UserError(diagnostics.NoArtifact(path, str(error))) from None
    if manifest.vggc != __version__:
        found, expected = f"vggc {manifest.vggc}", f"vggc {__version__}"
        raise UserError(diagnostics.OtherVersion(path, found, expected))
    if manifest.sha256 not in (manifest.digest, digest_of(value)):
        reason = "its SHA-256 is not the one that it gives"
        raise UserError(diagnostics.FileChanged(path, MANIFEST, reason))
    if problem := _problem(manifest):
        raise UserError(diagnostics.NoArtifact(path, f"{MANIFEST}: {problem}"))
    return manifest


def _problem(manifest: Manifest) -> str | None:
    """What in a manifest cannot be, though each value by itself is of the right kind."""
    kinds = {"cpu": "llvm", "cuda": "cuda"}
    target, batches = manifest.target, manifest.batches
    archs = tuple(entry.arch for entry in manifest.entries)
    sizes = [each.size for each in manifest.sizes]
    cores = target.attrs.get("num-cores", 1)
    problems = {
        f"it must list {', '.join(FILES)} and nothing else": set(manifest.files) != set(FILES),
        f"it is not for from 1 to {MAX_BATCHES} batches": not 1 <= len(batches) <= MAX_BATCHES,
        "its batches do not ascend": batches != tuple(sorted(batches)),
        "kernels are for an architecture that has no code of its own": any(
            arch and not (is_specific(arch) and arch in target.archs) for arch in archs
        ),
        f"it is not for from 1 to {MAX_SIZES} sizes": not 1 <= len(sizes) <= MAX_SIZES,
        "a size stands twice": len({*sizes}) != len(sizes),
        f"a size is not from 1 to {MAX_SIDE} pixels": any(
            not 1 <= side <= MAX_SIDE for size in sizes for side in size
        ),
        "images of other sizes have other channels": (
            len({channels for channels, _, _ in manifest.inputs}) > 1
        ),
        "a size that is not dense stands behind one that is": (
            sorted(manifest.sizes, key=lambda each: each.dense) != [*manifest.sizes]
        ),
        "sizes differ in the heads of the net": (
            len({tuple((o.name, o.kind) for o in each.outputs) for each in manifest.sizes}) > 1
        ),
        "its entries are not each size with each batch for each choice of kernels": (
            [(entry.arch, entry.size, entry.batch) for entry in manifest.entries]
            != [
                (arch, size, batch)
                for arch in dict.fromkeys(archs)
                for size in sizes
                for batch in batches
            ]
        ),
        "there are no kernels for all other architectures, or no such architecture": (
            archs[:1] != ("",) or 1 < len({*archs}) > len(target.archs)
        ),
        f"batch is not from 1 to {MAX_BATCH}": any(not 1 <= each <= MAX_BATCH for each in batches),
        "an entry is not taken for the images for which it must be": any(
            not _is_taken_in_turn(each) for each in manifest.entries_by_size
        ),
        "there is no output": not all(each.outputs for each in manifest.sizes),
        "classes are not as many as the outputs": not _are_classes(manifest),
        "target and attrs differ": target.attrs.get("kind") != kinds[target.kind],
        "attrs say what no target says": not _are_attrs(target),
        "a GPU's code has no architecture": target.kind == "cuda" and not target.archs,
        "code for a CPU has CUDA graphs": target.kind == "cpu" and target.graphs,
        "an architecture is none": not all(map(ARCH.fullmatch, target.archs)),
        "an architecture stands twice": len({*target.archs}) != len(target.archs),
        "its weights are not those that its entries take": not _take_weights(manifest),
        "a kernel multiplies less than nothing": any(
            kernel.macs < 0 for each in manifest.entries for kernel in each.kernels
        ),
        "num-cores is no number from 1 on": not isinstance(cores, int) or cores < 1,
        f"num-cores is over {MOST_CORES}": isinstance(cores, int) and cores > MOST_CORES,
    }
    found = next((text for text, is_so in problems.items() if is_so), None)
    if found:
        return found
    # That of the main size is looked at first: those of the others are made of it.
    looks = (manifest.at(each.size).preprocessing.problem(each.input) for each in manifest.sizes)
    return manifest.preprocessing.problem(manifest.input) or next(filter(None, looks), None)


def _is_taken_in_turn(entries: tuple[ArtifactEntry, ...]) -> bool:
    """Whether the first entry is taken for any images, and each other for as many as it computes,
    or for fewer, but for more than the one before computes.
    """
    return entries[0].fewest == 1 and all(
        before.batch < each.fewest <= each.batch for before, each in pairwise(entries)
    )


def _take_weights(manifest: Manifest) -> bool:
    """Whether the stored weights are those that the entries take, in their order; those of one
    choice of kernels take the same ones, each once.
    """
    taken: dict[str, tuple[str, ...]] = {}
    for each in manifest.entries:
        if taken.setdefault(each.arch, each.weights) != each.weights:
            return False
        if len({*each.weights}) != len(each.weights):
            return False
    names = dict.fromkeys(name for names in taken.values() for name in names)
    return tuple(names) == tuple(manifest.weights)


def _are_classes(manifest: Manifest) -> bool:
    """Whether the names of classes are as many as what they name. One box may be that of any."""
    if not manifest.classes or not manifest.sizes or not manifest.outputs:
        return True
    named, count = manifest.named, len(manifest.classes)
    if named.kind == "boxes" and named.count == 1:
        return count <= MOST_CLASSES
    return count == named.count


def _are_attrs(target: Target) -> bool:
    """Whether the attributes of a target are such as vggc writes, which TVM can read."""
    words = [
        word
        for value in target.attrs.values()
        for word in (value if isinstance(value, tuple) else [value])
        if isinstance(word, str)
    ]
    known = CPU_ATTRS if target.kind == "cpu" else ()
    return target.attrs.keys() <= {"kind", *known} and all(
        re.fullmatch(r"[\w.+-]{1,64}", word) for word in words
    )


def check_files(folder: Path, manifest: Manifest, hashed_elsewhere: Collection[str] = ()) -> None:
    """Raises: UserError naming the first file that is missing, cut off or changed; the contents of
    those `hashed_elsewhere` are not looked at.
    """
    for name, expected in manifest.files.items():
        file = folder / name
        if not is_file(file):
            raise UserError(diagnostics.FileGone(str(folder), name))
        size = file.stat().st_size
        if size != expected.bytes:
            reason = f"it has {size:,} bytes in place of {expected.bytes:,}"
            raise UserError(diagnostics.FileChanged(str(folder), name, reason))
    for name, expected in manifest.files.items():
        if name not in hashed_elsewhere and sha256(folder / name) != expected.sha256:
            reason = "its SHA-256 is not the one in the manifest"
            raise UserError(diagnostics.FileChanged(str(folder), name, reason))


def spec_graph(folder: Path) -> Graph:
    """The graph of the artifact's spec.

    Raises: UserError when the spec is malformed, or would need other files.
    """
    net = parse(read_source(folder / SPEC))
    if net.input is None or not is_plain(net):
        reason = f"{SPEC} builds on other nets or values, and compiled nets are kept filled in"
        raise UserError(diagnostics.NoArtifact(str(folder), reason))
    return elaborate(net)


def as_compiled(graph: Graph, size: InputSize) -> DenseGraph:
    """The graph of an artifact's spec as the artifact computes it for images of a size, and what it
    makes of weights.

    Raises: UserError when the net cannot be applied to such images.
    """
    if size.dense:
        return dense_at(graph, size.size, MAPS)
    return DenseGraph(graph if size.input == graph.input else resized(graph, size.size), {})


def graphs_in(folder: Path, manifest: Manifest) -> dict[Pair, Graph]:
    """The graphs that an artifact computes, by the sizes (H, W) of images.

    Raises: UserError when its spec is malformed, would need other files, or is of another net.
    """
    graph = spec_graph(folder)
    return {each.size: as_compiled(graph, each).graph for each in manifest.sizes}


def graph_in(folder: Path, manifest: Manifest) -> Graph:
    """The graph that an artifact computes for images of the main size.

    Raises: UserError when its spec is malformed, would need other files, or is of another net.
    """
    return as_compiled(spec_graph(folder), manifest.sizes[0]).graph


def manifest_at(folder: Path, manifest: Manifest, size: Pair | None) -> Manifest:
    """What the manifest of an artifact says of images of one size; of the main one where none is
    named.

    Raises: UserError where the artifact is not compiled for it.
    """
    if size is None:
        return manifest.at(manifest.sizes[0].size)
    try:
        return manifest.at(size)
    except KeyError:
        raise no_such_size(str(folder), manifest, size) from None


def no_such_size(artifact: str, manifest: Manifest, size: Pair) -> UserError:
    """The error of asking an artifact for images of a size that it is not compiled for."""
    return UserError(
        diagnostics.NoSuchSize(
            artifact=artifact,
            size=describe(size),
            sizes=told_sizes(manifest),
            more=options_with(manifest, size),
        )
    )


def told_sizes(manifest: Manifest) -> str:
    """The sizes of images that an artifact takes, in words: `224×224 or 256×320`."""
    return " or ".join(describe(each.size) for each in manifest.sizes)


def options_with(manifest: Manifest, size: Pair) -> str:
    """The options by which `vggc compile` makes an artifact for one more size, too."""
    spread = [each.size for each in manifest.sizes if each.dense]
    built = [each.size for each in manifest.sizes if not each.dense]
    (spread or built).append(size)
    options = {"--input": built, "--dense": spread}
    return " ".join(f"{name} {listed_sizes(of)}" for name, of in options.items() if of)


def entry_in(folder: Path, manifest: Manifest, batch: int | None) -> ArtifactEntry:
    """The entry of an artifact for a batch of images of the main size; the largest one where none
    is named.

    Raises: UserError where the artifact is not compiled for it.
    """
    if batch is None:
        return manifest.largest
    if batch in manifest.batches:
        return manifest.entry_for(batch)
    known, more = manifest.batches, sorted({*manifest.batches, batch})
    batches, wanted = ", ".join(map(str, known)), ",".join(map(str, more))
    raise UserError(diagnostics.NoSuchBatch(str(folder), batch, batches, wanted))


def require_memory(folder: Path, need: Need, batch: int | None = None) -> None:
    """Raises: UserError when there is less memory than is needed for an artifact. Nothing of it is
    read but its manifest and its spec; what else is wrong with these is told when it is opened.

    On a CPU a process has the room of the largest batch, which the others use, too. On a GPU it
    keeps that of each batch, if not only one is called.
    """
    manifest = read_manifest(folder)
    try:
        graphs = graphs_in(folder, manifest)
    except UserError:
        return
    images = batch or sum(manifest.batches)
    if manifest.target.kind == "cpu":
        images = manifest.largest.batch
    for graph in graphs.values():
        need.require(graph, images, manifest.files[WEIGHTS].bytes)


def _check_spec(folder: Path, manifest: Manifest) -> None:
    """Raises: UserError where the spec is of another net than the manifest."""
    graphs = [*graphs_in(folder, manifest).values()]
    told = tuple(
        input_size(graph, dense=each.dense)
        for graph, each in zip(graphs, manifest.sizes, strict=True)
    )
    if told != manifest.sizes or not take_same_weights(graphs):
        reason = f"{MANIFEST} and {SPEC} are of nets of other shapes or heads"
        raise UserError(diagnostics.NoArtifact(str(folder), reason))


def take_same_weights(graphs: Sequence[Graph]) -> bool:
    """Whether all graphs have weights of the same names and numbers of values."""
    first, *others = ({n: w.size for n, w in each.all_weights.items()} for each in graphs)
    return all(each == first for each in others)


def sound_manifest(folder: Path, hashed_elsewhere: Collection[str] = ()) -> Manifest:
    """The manifest of an artifact whose files are all as they were compiled; the contents of those
    `hashed_elsewhere` are not looked at.

    Raises: UserError with what is missing, broken or changed.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest, hashed_elsewhere)
    _check_spec(folder, manifest)
    return manifest
