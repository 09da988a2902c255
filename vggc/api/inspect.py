"""What `inspect` works on: a net with weights, an image, and the page on how it looks at it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.evaluate import UntestedNet, unnamed_classes, untested
from vggc.api.published import weights_file
from vggc.api.trained import Subject, called, facts_of, preprocessing_of
from vggc.evaluation.class_match import match_classes
from vggc.evaluation.diagnostics import NotARunToTest, UnreadableImage
from vggc.inspection import diagnostics
from vggc.inspection.image import SeenImage, seen_image
from vggc.inspection.layers import ChosenLayer, chosen_layers
from vggc.ir.graph import Graph
from vggc.ir.needs import INSPECTING
from vggc.ir.ops import describe
from vggc.passes.heads import with_heads
from vggc.passes.inference import drop_dropout, drop_final_softmax
from vggc.preprocessing.choose import ChosenPreprocessing, choose
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.paths import absence, is_artifact, is_file, is_folder, is_run
from vggc.training.run import BEST, LAST
from vggc.weight_files.facts import WeightFacts
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
    from vggc.report.inspection_page import PageSubject

OF_ARTIFACT = "an artifact has no gradients: give the run that it was compiled from"
NONE_HELD_OUT = "A net that is no run has held no images out: `--data PLACE` names some."
LONGEST_STEM = 50
"""Characters of an image's name that the name of its page takes."""


@dataclass(frozen=True)
class InspectPlan:
    """A page on how a net looks at an image, before anything is computed: it is written to `path`.
    `graph` has one head, the scores of these `classes`.
    """

    net: UntestedNet
    graph: Graph
    classes: tuple[str, ...]
    page: PageSubject
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
        told, run = self.chosen.told, self.net.run
        of_run = run.remarks(self.net.weights) if run else []
        return [*of_run, *([told] if told else [])]

    def write(self, on_section: OnSection) -> WrittenInspection:
        """Looks at everything and writes the page, whole or not at all.

        Raises:
            UserError: there are no such weights, or the images that are asked for are not there,
                or the page cannot be written.
            CheckFailed: the net's scores are not finite.
        """
        from datetime import datetime

        from vggc.report.inspection import InspectSubject, inspect
        from vggc.report.inspection_page import inspection_page
        from vggc.report.write import write

        from_weights = self.net.subject()
        subject = InspectSubject(
            graph=self.graph,
            weights=from_weights.weights,
            net=opened(self.graph, from_weights, self.options.device),
            classes=self.classes,
            seen=self.seen,
            layers=self.layers,
            explained=self.explained,
        )
        found = inspect(subject, self.options, self.images, on_section)
        text = inspection_page(self.page, found, self.options, datetime.now())
        num_bytes = write(self.path, self.page.generator, text)
        return WrittenInspection(self.path, num_bytes, found, from_weights.matched)

    def images(self) -> FoundImages:
        """The images to look for patches in, or, where nobody named them, why there are none.

        Raises:
            UserError: there are none in the place that somebody named.
        """
        run, data = self.net.run, self.options.data
        if run is None and data is None:
            return NONE_HELD_OUT
        try:
            return images_of(self, data)
        except UserError as error:
            if run is None or data is not None:
                raise
            fault = error.diagnostics[0]
            where = run.record.data.path or "the scanned digits"
            return f"The images in {where} cannot be used: {fault.fill(fault.title)}."


@dataclass(frozen=True)
class WrittenInspection:
    """A page of so many bytes, and what it shows; `matched` says how weights of other names or
    forms were read.
    """

    path: Path
    bytes: int
    found: Inspection
    matched: str


def plan(place: Path, image: Path, out: Path | None, options: InspectOptions) -> InspectPlan:
    """The page on how a net looks at an image: that of a run, or one that a spec names, with
    weights from elsewhere. It goes to `out`, else into the run's folder, else into this one.

    Raises:
        UserError: there is no such net, it has no such weights, tells no classes or has no such
            class or layer, the image cannot be read, or something else than this page is in its
            place.
    """
    from vggc.report.write import refuse_others

    net = net_to_inspect(place, options)
    whole = net.program.graph
    graph = scores_of(whole)
    layers = chosen_layers(graph, options.layers)
    refuse_missing(image)
    net = replace(net, weights=weights_file(net.program, net.weights))
    facts = facts_in(net)
    classes = facts.classes if len(facts.classes) == graph.num_classes else unnamed_classes(graph)
    explained = None
    if options.class_name is not None:
        explained = class_number(net.named, classes, options.class_name)
    chosen = preprocessing_for(net, facts)
    if options.window is not None:
        refuse_large(options.window, chosen.how.size)
    page = page_on(net, len(classes), image, facts)
    path = out or usual_path(net, image, page.generator)
    refuse_others(path, page.generator)
    seen = read_image(image, chosen.how)
    if net.run:
        net.run.file_of(net.weights)
    INSPECTING.require(graph)
    return InspectPlan(
        net=net,
        graph=graph,
        classes=classes,
        page=page,
        image=image,
        seen=seen,
        chosen=chosen,
        layers=layers,
        explained=explained,
        path=path,
        options=options,
    )


def usual_path(net: UntestedNet, image: Path, made_by: str) -> Path:
    """Where the page on an image goes, with the image's name: into the folder of a run, or with the
    name of a net that is of none into this one. Where something else is in that place, as the page
    on another image of that name, a number is added.
    """
    from vggc.report.write import is_made_by

    folder = net.run.folder if net.run else Path()
    of_net = "" if net.run else f"{net.program.net.name[:LONGEST_STEM]}-"
    stem = f"inspect-{of_net}{image.stem[:LONGEST_STEM]}"
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    paths = (folder / f"{name}.html" for name in names)
    return next(path for path in paths if not os.path.lexists(path) or is_made_by(path, made_by))


def net_to_inspect(place: Path, options: InspectOptions) -> UntestedNet:
    """The net of a run, or one that a spec names, for which weights are given.

    Raises:
        UserError: it is neither; of an artifact the message says so.
    """
    if is_artifact(place) and not is_run(place):
        raise UserError(NotARunToTest(str(place), "it is an artifact", OF_ARTIFACT))
    return untested(place, options.weights, options.preprocessing)


def facts_in(net: UntestedNet) -> WeightFacts:
    """What is known of the weights that are meant. The classes of a run are its own, whatever
    weights it is given.

    Raises:
        UserError: their file cannot be read.
    """
    weights = net.weights
    facts = WeightFacts() if weights in (None, LAST, BEST) else facts_of(weights)
    return replace(facts, classes=net.run.record.classes) if net.run else facts


def preprocessing_for(net: UntestedNet, facts: WeightFacts) -> ChosenPreprocessing:
    """What pictures go through before a net with the weights that are meant.

    Raises:
        UserError: there is none such, or the weights are a run's own.
    """
    graph, word = net.program.graph, net.preprocessing
    if net.run:
        return preprocessing_of(net.run, net.weights, graph, word)
    return choose(word, facts.preprocessing, called(net.weights), graph.input)


def page_on(net: UntestedNet, num_classes: int, image: Path, facts: WeightFacts) -> PageSubject:
    """What a page is on: the net of a run or of a spec, and an image."""
    from vggc.report.inspection_page import PageSubject
    from vggc.report.page import mark_of

    mark = mark_of(net.run) if net.run else net.named
    return PageSubject(net.program.net.name, mark, num_classes, image, facts.source)


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


def class_number(named: str, classes: Sequence[str], name: str) -> int:
    """The number of the class of a name among those of a net that commands call `named`. Classes of
    ImageNet may be called by their numbers in WordNet, too.

    Raises:
        UserError: it has none.
    """
    (number,) = match_classes((name,), classes, is_named=True).numbers
    if number < 0:
        raise UserError(diagnostics.UnknownClass(name, named, did_you_mean(name, classes)))
    return number


def refuse_large(window: int, size: tuple[int, int]) -> None:
    """Raises: UserError where a square covers all of an image of a size (H, W) at once."""
    if window >= max(size):
        suggested = max(1, min(size) // 7)
        raise UserError(diagnostics.SquareTooLarge(window, describe(size), suggested))


def refuse_missing(image: Path) -> None:
    """Raises: UserError where there is no file of an image."""
    if not is_file(image):
        hint = "name the file of an image behind the run or the spec"
        raise UserError(UnreadableImage(str(image), absence(image), hint))


def read_image(path: Path, preprocessing: Preprocessing) -> SeenImage:
    """The image in a file as a net sees it.

    Raises:
        UserError: the file is no usable image.
    """
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


def images_of(plan: InspectPlan, data: str | None) -> FoundImages:
    """All images in a place, or those that a run held out, as the net sees them.

    Whether those held out are still the same is not asked: nothing is counted. Nor are classes: a
    place may be a folder of images without any.

    Raises:
        UserError: there are none.
    """
    from vggc.data.crops import Framed, Framing
    from vggc.evaluation.images import found_again

    how, run = plan.chosen.how, plan.net.run
    if data is None:
        assert run is not None
        part = found_again(run).part
    else:
        part = part_in(data, plan.classes)
    return Framed(part, Framing.of(how, (plan.graph.input[0], *how.size), how.scale))


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
