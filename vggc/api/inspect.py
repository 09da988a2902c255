"""What `inspect` works on: the net of a run, an image, and the page on how it looks at it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.published import weights_file
from vggc.api.trained import Subject, from_run, net_in, preprocessing_of
from vggc.evaluation.diagnostics import NotARunToTest, UnreadableImage
from vggc.inspection import diagnostics
from vggc.inspection.image import SeenImage, seen_image
from vggc.inspection.layers import ChosenLayer, chosen_layers
from vggc.ir.graph import Graph
from vggc.ir.needs import INSPECTING
from vggc.ir.ops import describe
from vggc.passes.heads import with_heads
from vggc.passes.inference import drop_dropout, drop_final_softmax
from vggc.preprocessing.choose import ChosenPreprocessing
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.paths import absence, is_artifact, is_file, is_folder, is_run
from vggc.training.run import Run
from vggc_runtime.preprocessing import BrokenImageError, Preprocessing

if TYPE_CHECKING:
    from vggc.data.parts import Part
    from vggc.inspection.net import InspectedNet
    from vggc.report.inspection import (
        FoundImages,
        Inspection,
        InspectOptions,
        OnSection,
    )

OF_ARTIFACT = "an artifact has no gradients: give the run that it was compiled from"
LONGEST_STEM = 50
"""Characters of an image's name that the name of its page takes."""


@dataclass(frozen=True)
class InspectPlan:
    """A page on how the net of a run looks at an image, before anything is computed: it is written
    to `path`. `graph` has one head, the scores of the run's classes.
    """

    run: Run
    graph: Graph
    image: Path
    seen: SeenImage
    chosen: ChosenPreprocessing
    layers: tuple[ChosenLayer, ...]
    explained: int | None
    path: Path
    options: InspectOptions

    @property
    def remarks(self) -> list[str]:
        """What whoever looks should know of the weights, and of what is done to pictures."""
        told = self.chosen.told
        return [*self.run.remarks(self.options.weights), *([told] if told else [])]

    def write(self, on_section: OnSection) -> WrittenInspection:
        """Looks at everything and writes the page, whole or not at all.

        Raises:
            UserError: the run has no such weights, or the images that are asked for are not there,
                or the page cannot be written.
            CheckFailed: the net's scores are not finite.
        """
        from datetime import datetime

        from vggc.report.inspection import InspectSubject, inspect
        from vggc.report.inspection_page import generator, inspection_page
        from vggc.report.write import write

        options = self.options
        from_weights = from_run(self.run, options.weights, preprocessing=options.preprocessing)
        subject = InspectSubject(
            graph=self.graph,
            weights=from_weights.weights,
            net=opened(self.graph, from_weights, self.options.device),
            classes=self.run.record.classes,
            seen=self.seen,
            layers=self.layers,
            explained=self.explained,
        )
        found = inspect(subject, self.options, self.images, on_section)
        text = inspection_page(self.run, self.image, found, self.options, datetime.now())
        num_bytes = write(self.path, generator(self.run, self.image), text)
        return WrittenInspection(self.path, num_bytes, found)

    def images(self) -> FoundImages:
        """The images to look for patches in, or, where nobody named them, why there are none.

        Raises:
            UserError: there are none in the place that somebody named.
        """
        try:
            return images_of(self.run, self.chosen.how, self.options.data)
        except UserError as error:
            if self.options.data is not None:
                raise
            fault = error.diagnostics[0]
            where = self.run.record.data.path or "the scanned digits"
            return f"The images in {where} cannot be used: {fault.fill(fault.title)}."


@dataclass(frozen=True)
class WrittenInspection:
    """A page of so many bytes, and what it shows."""

    path: Path
    bytes: int
    found: Inspection


def plan(folder: Path, image: Path, out: Path | None, options: InspectOptions) -> InspectPlan:
    """The page on how the net of a run looks at an image: in `out`, or in the run's folder.

    Raises:
        UserError: the folder is no run, its net tells no classes or has no such class or layer, the
            image cannot be read, or something else than this page is in its place.
    """
    from vggc.report.inspection_page import generator
    from vggc.report.write import refuse_others

    run = run_to_inspect(folder)
    program = net_in(run)
    whole = program.graph
    options = replace(options, weights=weights_file(program, options.weights))
    graph = scores_of(whole)
    explained = None if options.class_name is None else class_number(run, options.class_name)
    layers = chosen_layers(graph, options.layers)
    chosen = preprocessing_of(run, options.weights, whole, options.preprocessing)
    if options.window is not None:
        refuse_large(options.window, chosen.how.size)
    made_by = generator(run, image)
    path = out or usual_path(folder, image, made_by)
    refuse_others(path, made_by)
    seen = read_image(image, chosen.how)
    run.file_of(options.weights)
    INSPECTING.require(graph)
    return InspectPlan(
        run=run,
        graph=graph,
        image=image,
        seen=seen,
        chosen=chosen,
        layers=layers,
        explained=explained,
        path=path,
        options=options,
    )


def usual_path(folder: Path, image: Path, made_by: str) -> Path:
    """Where the page on an image goes: into the folder, with the image's name. Where something else
    is in that place, as the page on another image of that name, a number is added.
    """
    from vggc.report.write import is_made_by

    stem = f"inspect-{image.stem[:LONGEST_STEM]}"
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    paths = (folder / f"{name}.html" for name in names)
    return next(path for path in paths if not os.path.lexists(path) or is_made_by(path, made_by))


def run_to_inspect(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        UserError: it is none; of an artifact the message says so.
    """
    if is_artifact(folder) and not is_run(folder):
        raise UserError(NotARunToTest(str(folder), "it is an artifact", OF_ARTIFACT))
    return Run.load(folder)


def scores_of(graph: Graph) -> Graph:
    """The part of a net that gives the scores of classes, as its only head: of several such heads
    the first.

    Raises:
        UserError: there is none.
    """
    for head in graph.heads:
        if head.kind == "classes" and len(graph.nodes[head.node].shape) == 1:
            return drop_final_softmax(drop_dropout(with_heads(graph, [head.name])))
    kinds = ", ".join(
        f"{head.kind} ({describe(graph.nodes[head.node].shape)})" for head in graph.heads
    )
    place = graph.nodes[graph.heads[0].node].layer.span
    raise UserError(diagnostics.NoClassesToInspect(graph.name, kinds, place=place))


def class_number(run: Run, name: str) -> int:
    """The number of a run's class of a name.

    Raises:
        UserError: it has none.
    """
    classes = run.record.classes
    if name not in classes:
        hint = did_you_mean(name, classes)
        raise UserError(diagnostics.UnknownClass(name, str(run.folder), hint))
    return classes.index(name)


def refuse_large(window: int, size: tuple[int, int]) -> None:
    """Raises: UserError where a square covers all of an image of a size (H, W) at once."""
    if window >= max(size):
        suggested = max(1, min(size) // 7)
        raise UserError(diagnostics.SquareTooLarge(window, describe(size), suggested))


def read_image(path: Path, preprocessing: Preprocessing) -> SeenImage:
    """The image in a file as the net of a run sees it.

    Raises:
        UserError: the file is no usable image.
    """
    if not is_file(path):
        hint = "name the file of an image behind the run"
        raise UserError(UnreadableImage(str(path), absence(path), hint))
    try:
        image = preprocessing.open(path)
    except BrokenImageError as fault:
        raise UserError(UnreadableImage(str(path), str(fault))) from None
    return seen_image(path.name, image, preprocessing)


def opened(graph: Graph, subject: Subject, device: str) -> InspectedNet:
    """The net on a device: `cpu`, `cuda` or `auto`.

    Raises:
        UserError: there is no such device.
    """
    from vggc.inspection.net import InspectedNet
    from vggc.training.learner import choose_machine, device_of
    from vggc.training.parallel import ALONE

    machine = choose_machine(device, "float32", False)
    where = device_of(machine, ALONE)
    return InspectedNet.of(graph, subject.weights, subject.preprocessing, where)


def images_of(run: Run, how: Preprocessing, data: str | None) -> FoundImages:
    """All images in a place, or those that a run held out, as the net of the run sees them by a
    preprocessing.

    Whether those held out are still the same is not asked: nothing is counted. Nor are classes: a
    place may be a folder of images without any.

    Raises:
        UserError: there are none.
    """
    from vggc.data.crops import Framed, Framing
    from vggc.evaluation.images import found_again

    part = found_again(run).part if data is None else part_in(data, run.record.classes)
    return Framed(part, Framing.of(how, run.record.input, how.scale))


def part_in(place: str, classes: Sequence[str]) -> Part:
    """All images in a place; shards that only number their classes mean these.

    Raises:
        UserError: there are none.
    """
    from vggc.data.diagnostics import UnreadableFolder
    from vggc.data.listing import holds
    from vggc.evaluation.images import pictures, single
    from vggc.evaluation.named import Places

    try:
        if is_folder(place) and holds(Path(place)) == "images":
            return single(Places([place]).names)
        return pictures(place, classes).part
    except OSError as fault:
        path, reason = str(fault.filename or place), fault.strerror or str(fault)
        raise UserError(UnreadableFolder(path, reason)) from None


def with_sections(options: InspectOptions, words: str | None) -> InspectOptions:
    """The options with the sections that somebody names, `saliency,occlusion`; the image is always
    shown.

    Raises:
        UserError: the page has none of that name.
    """
    from vggc.report.inspection import SECTIONS

    if words is None:
        return options
    asked = [word.strip() for word in words.split(",")]
    wrong = [word for word in asked if word not in SECTIONS]
    if wrong:
        raise UserError(
            *(diagnostics.UnknownSection(word, did_you_mean(word, SECTIONS)) for word in wrong)
        )
    kept = tuple(name for name in SECTIONS if name in ("image", *asked))
    return replace(options, sections=kept)
