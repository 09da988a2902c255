"""What `features` works on: a net, the pictures that it gives features of, and the file of them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from vggc.api.evaluate import EvalOptions, possible, protocol_for, refuse_scales, usual_batch
from vggc.api.predict import FLAGS
from vggc.api.run import session_of
from vggc.api.score_table import distinct_scales, scales_told, ways
from vggc.api.subject import ask
from vggc.data.parts import Part, names_of, objects_of
from vggc.data.remote import without_secrets
from vggc.evaluation.diagnostics import NotForArtifact
from vggc.evaluation.views import views_of
from vggc.features import diagnostics
from vggc.features.layers import feature_net, usual_layer
from vggc.features.pictures import PlacePictures, Role, pictures_at
from vggc.ir.needs import TESTING
from vggc.ir.weights import digest
from vggc.passes.inference import drop_dropout
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.files import (
    check_target,
    new_file,
    refuse_irreplaceable,
    refuse_missing_folder,
    refuse_unwritable,
    replacing,
)
from vggc.support.paths import is_artifact, is_run
from vggc_runtime.version import __version__

if TYPE_CHECKING:
    from vggc.features.file import (
        Combine,
        DescribedPictures,
        FeatureTable,
        LayerColumns,
        Provenance,
    )
    from vggc.features.partial import LostPicture, PartialFile
    from vggc.features.rows import RowBlock

ROOM = 2
"""The features stand on the disk twice before the rows that they are made of are removed."""


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """How the user wants features to be taken; of what is looked at None where nothing is said."""

    layers: tuple[str, ...] = ()
    combine: Combine = "average"
    part: Role | None = None
    overwrite: bool = False
    looks: EvalOptions = field(default_factory=EvalOptions)


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """A net that gives features. `facts` are all of their provenance but what is of the pictures;
    `describe` gives the features of a part from a place on. `shown` says what is looked at.
    """

    shown: str
    facts: Callable[[PlacePictures], Provenance]
    describe: Callable[[Part, int], Iterator[RowBlock]]


@dataclass(frozen=True)
class FeaturesDone:
    """What came of it: how many rows of features, how wide, of how many pictures there are; how
    many were done before already; the first of those that were skipped, and their number.
    """

    path: Path
    rows: int
    width: int
    classes: int
    before: int
    skipped: tuple[LostPicture, ...]
    num_skipped: int
    seconds: float


# The net


def source_of(model: str, options: FeatureOptions, say: Callable[[str], None]) -> FeatureSource:
    """The net of a run, of a spec or of an artifact, as it gives features.

    Raises:
        UserError: there is no such thing, or it cannot give such features.
    """
    if is_artifact(model) and not is_run(model):
        return artifact_source(Path(model), options)
    return net_source(model, options, say)


def net_source(
    model: str, options: FeatureOptions, say: Callable[[str], None], seed: int | None = None
) -> FeatureSource:
    """The net of a run or a spec: applied to whole images and their mirror images unless the
    options say otherwise, at the scales of its `test` block.

    Raises:
        UserError: there is no such net or layer, it has no such weights, or it cannot look so.
    """
    looks = options.looks
    asked = ask(model, looks.weights, seed, None, TESTING, say, looks.preprocessing)
    program, graph = asked.program, asked.program.graph
    net = feature_net(graph, options.layers)
    recipe = asked.run.recipe if asked.run else program.recipe
    chosen = possible(
        protocol_for(program, recipe, usual_looks(looks)),
        drop_dropout(net.graph),
        is_asked=looks.protocol is not None,
    )
    if chosen.remark:
        say(chosen.remark)
    protocol = chosen.protocol
    subject = asked.subject()

    from vggc.evaluation.judge import num_workers
    from vggc.features.describe import Describer, describe, saved_after
    from vggc.features.file import NORMALISED, Provenance
    from vggc.features.rows import columns_of
    from vggc.training.learner import choose_machine, device_of
    from vggc.training.parallel import ALONE

    preprocessing = subject.preprocessing
    machine = choose_machine(looks.device or "auto", looks.precision or "float32")
    refuse_scales(looks, preprocessing)
    views = views_of(protocol, preprocessing)
    channels, height, width = graph.input
    batch = looks.batch or usual_batch(machine, (height, width))
    device = device_of(machine, ALONE)
    describer = Describer(net, subject.weights, preprocessing, views, machine, device, batch)
    block = saved_after(net.graph, views, machine.device)
    scales = distinct_scales(views)

    def facts(pictures: PlacePictures) -> Provenance:
        return Provenance(
            format=1,
            vggc=__version__,
            net=program.net.name,
            source=subject.named,
            weights_from=subject.weights_from,
            weights_sha256=digest(subject.weights),
            pictures=described(pictures),
            columns=columns_of(net, scales, options.combine),
            combine=options.combine,
            dense=protocol.dense,
            grid=protocol.crops.grid if protocol.crops else None,
            flip=views.flip,
            normalised=NORMALISED,
            input=(channels, height, width),
            preprocessing=preprocessing,
            device=machine.device,
            precision=machine.precision,
            batch=batch,
            block=block,
        )

    def rows(part: Part, start: int) -> Iterator[RowBlock]:
        workers = looks.workers
        if workers is None:
            workers = num_workers(part, len(part) - start, 1)
        return describe(describer, part, start, block, options.combine, workers)

    seen = scales_told(preprocessing, views)
    layers = " and ".join(net.layers)
    shown = f"{subject.named}: {layers}, {ways(views)}, {seen}"
    if len(scales) > 1:
        shown += f" ({options.combine})"
    return FeatureSource(shown=shown, facts=facts, describe=rows)


def usual_looks(looks: EvalOptions) -> EvalOptions:
    """What is looked at of a picture where nothing is said: all of it, and its mirror image."""
    if looks.protocol is None and looks.grid is None:
        looks = replace(looks, protocol="dense")
    if looks.flip is None and looks.protocol not in ("centre", "test"):
        looks = replace(looks, flip=True)
    return looks


def artifact_source(model: Path, options: FeatureOptions) -> FeatureSource:
    """An artifact, which gives the features of its heads, of the centre crop.

    Raises:
        UserError: it has no such heads, or is asked for what it cannot do, or is damaged.
    """
    flags = [
        flag
        for name, flag in FLAGS.items()
        if (value := getattr(options.looks, name)) is not None
        and (name, value) != ("protocol", "centre")
    ]
    if flags:
        raise UserError(NotForArtifact(", ".join(flags), str(model)))

    from vggc.runtime.artifact import graph_in, read_manifest

    manifest = read_manifest(model)
    there = tuple(each.name for each in manifest.outputs if each.kind == "features")
    if not there:
        outputs = ", ".join(f"{each.name} ({each.kind})" for each in manifest.outputs)
        layer = usual_layer(graph_in(model, manifest))
        raise UserError(diagnostics.NoFeatureHead(str(model), outputs, layer))
    for name in options.layers:
        if name not in there:
            hint = did_you_mean(name, there)
            raise UserError(diagnostics.UnknownHead(str(model), name, hint))
    heads = options.layers or there[:1]

    from vggc.features import artifacts
    from vggc.features.file import NORMALISED, LayerColumns, Provenance

    session = session_of(model)
    widths = {each.name: each.shape[0] for each in manifest.outputs}
    block = artifacts.block_of(session)
    scale = manifest.preprocessing.scale

    def columns() -> Iterator[LayerColumns]:
        start = 0
        for head in heads:
            yield LayerColumns(head, (scale,), start, start + widths[head])
            start += widths[head]

    def facts(pictures: PlacePictures) -> Provenance:
        return Provenance(
            format=1,
            vggc=__version__,
            net=manifest.net,
            source=str(model),
            weights_from=manifest.weights_from,
            weights_sha256=manifest.float32_sha256,
            pictures=described(pictures),
            columns=tuple(columns()),
            combine=options.combine,
            dense=False,
            grid=1,
            flip=False,
            normalised=NORMALISED,
            input=manifest.input,
            preprocessing=manifest.preprocessing,
            device=manifest.target.kind,
            precision=manifest.precision,
            batch=manifest.largest.batch,
            block=block,
        )

    return FeatureSource(
        shown=f"{model}: {' and '.join(heads)}, centre crop",
        facts=facts,
        describe=lambda part, start: artifacts.describe(
            session, heads, part, start, options.combine
        ),
    )


def described(pictures: PlacePictures) -> DescribedPictures:
    """What a provenance tells of pictures."""
    from vggc.features.file import DescribedPictures

    told = hashlib.sha256()
    for each in pictures.parts:
        marks = (find(pictures.classes, each.part) for find in (names_of, objects_of))
        told.update(f"{each.role} {' '.join(marks)}\n".encode())
    roles = tuple(each.role for each in pictures.parts)
    place = pictures.place
    if "://" not in place:
        place = str(Path(place).resolve())
    return DescribedPictures(without_secrets(place), roles, told.hexdigest())


# The file


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raises: UserError where features cannot be written to a place."""
    from vggc.features.file import check_ending

    check_ending(out)
    if overwrite:
        refuse_irreplaceable(out)
        refuse_missing_folder(out)
        refuse_unwritable(out.parent)
    else:
        check_target(out)


def written(
    source: FeatureSource,
    pictures: PlacePictures,
    out: Path,
    on_progress: Callable[[int, int], None],
    *,
    overwrite: bool = False,
    on_begin: Callable[[int], None] = lambda done: None,
) -> FeaturesDone:
    """Takes the features of pictures and writes them to a file, which is there when all are.

    What is finished lies beside it, and whoever asks for the same again goes on from there.
    `on_begin` is told how many pictures were done before, `on_progress` how many of how many are.

    Raises:
        UserError: something else was begun there, the disk has no room, or no picture can be read.
        CheckFailed: the net gives what is no number.
    """
    from vggc.features.partial import Journal, partial_file

    check_out(out, overwrite=overwrite)
    start, total = perf_counter(), len(pictures)
    work = Journal(format=1, work=source.facts(pictures), stamp=stamp_of(pictures))
    with partial_file(out, work, anew=overwrite) as kept:
        check_out(out, overwrite=overwrite)  # another process may have ended since
        before = kept.journal.done
        require_disk(kept, total)
        on_begin(before)
        on_progress(before, total)
        for stop, block in blocks(source, pictures, before):
            offset = stop - block.stop
            lost = {offset + index: each for index, each in block.lost.items()}
            kept.add(block.rows, stop, lost)
            on_progress(stop, total)
        journal = kept.journal
        if journal.rows == 0:
            first = next(f"{each.name}: {each.reason}" for each in journal.named)
            raise UserError(diagnostics.NothingToDescribe(pictures.place, total, first))
        save(kept, pictures, out, overwrite=overwrite)
    return FeaturesDone(
        path=out,
        rows=journal.rows,
        width=journal.work.width,
        classes=len(pictures.classes),
        before=before,
        skipped=journal.named,
        num_skipped=len(journal.lost),
        seconds=perf_counter() - start,
    )


def blocks(
    source: FeatureSource, pictures: PlacePictures, done: int
) -> Iterator[tuple[int, RowBlock]]:
    """The features of all pictures but the first that are `done`, block by block, each with the
    place among all pictures where it ends.
    """
    offset = 0
    for each in pictures.parts:
        count = len(each.part)
        if done < offset + count:
            for block in source.describe(each.part, max(0, done - offset)):
                yield offset + block.stop, block
        offset += count


def stamp_of(pictures: PlacePictures) -> str:
    """What changes when the files of the pictures do."""
    told = "\n".join(each.part.store.stamp() for each in pictures.parts)
    return hashlib.sha256(told.encode()).hexdigest()


def require_disk(kept: PartialFile, total: int) -> None:
    """Raises: UserError where the disk has no room for all that is to be written."""
    needed = kept.row_bytes * (ROOM * total - kept.journal.rows)
    free = shutil.disk_usage(kept.target.absolute().parent).free
    if needed > free:
        raise UserError(diagnostics.NoRoomOnDisk(str(kept.target), needed / 1e9, free / 1e9))


def save(kept: PartialFile, pictures: PlacePictures, out: Path, *, overwrite: bool) -> None:
    """Writes the file of features by its finished rows, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    from vggc.features.file import write_table

    table = table_of(kept, pictures)
    writing: AbstractContextManager[Path] = replacing(out) if overwrite else new_file(out)
    with writing as temporary, temporary.open("wb") as file:
        write_table(file, table, out.suffix)


def table_of(kept: PartialFile, pictures: PlacePictures) -> FeatureTable:
    """The rows of finished features, and what they are of."""
    import numpy as np

    from vggc.features.file import FeatureTable, TextColumn
    from vggc.features.labels import multilabels_of

    there = np.ones(len(pictures), bool)
    there[[*kept.journal.lost]] = False
    ends = np.cumsum([len(each.part) for each in pictures.parts])
    chosen = [
        (each, np.flatnonzero(places))
        for each, places in zip(pictures.parts, np.split(there, ends[:-1]), strict=True)
    ]

    def names() -> Iterator[str]:
        for each, places in chosen:
            yield from map(each.part.name, places.tolist())

    def parts() -> Iterator[str]:
        for each, places in chosen:
            yield from (each.role for _ in range(len(places)))

    taken = [each.part.take(places) for each, places in chosen]
    return FeatureTable(
        features=kept.pieces(),
        labels=np.concatenate([part.labels for part in taken]),
        multilabels=multilabels_of(taken, len(pictures.classes)),
        names=TextColumn(names),
        parts=TextColumn(parts),
        classes=TextColumn(partial(iter, pictures.classes)),
        provenance=kept.journal.work,
    )


def pictures_for(place: str, part: Role | None) -> PlacePictures:
    """The pictures in a place, of all its parts or of one.

    Raises:
        UserError: there are none.
    """
    found = pictures_at(place, part)
    if len(found) == 0:
        raise UserError(diagnostics.PicturesWanted(place))
    return found


def layers_in(text: str | None) -> Sequence[str]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
