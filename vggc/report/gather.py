"""What there is to tell of a run, whatever it has come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from vggc.ir.needs import TESTING
from vggc.ir.weights import Weights
from vggc.passes.inference import drop_final_softmax
from vggc.program import Program, load
from vggc.recipe.train import TRAIN, default_recipe
from vggc.report.filters import Filters, drawn, first_filters
from vggc.support.diagnostics import UserError
from vggc.training import diagnostics
from vggc.training.metrics import read_metrics
from vggc.training.progress import Epoch, StepRow
from vggc.training.run import Run, moment_of
from vggc.training.steps import read_steps
from vggc.weight_files.load import load as load_weights

if TYPE_CHECKING:
    from vggc.data.crops import Framed
    from vggc.data.stores import Numbers
    from vggc.training.judgement import BoxJudgement, Judgement, MissedBox, WrongGuess

WORST = 24
"""Errors that are shown as pictures."""
CONFUSED = 20
"""Up to so many classes are held against each other in a table; of more the worst are told."""

OnProgress: TypeAlias = Callable[[int, int], None]
"""Is told how many images of how many have been looked at."""


@dataclass(frozen=True)
class ReportOptions:
    """Which weights are shown (None: the last); whether to look for errors; where the run's images
    are now (None: where they were), and those held out, if they are in another place; what
    computes.
    """

    errors: bool = True
    weights: Path | None = None
    data: str | None = None
    val: str | None = None
    device: Literal["cpu", "cuda", "auto"] = "auto"


@dataclass(frozen=True)
class UsedSetting:
    """A setting of the recipe as used; `default` is None where that is the same."""

    key: str
    value: str
    default: str | None


@dataclass(frozen=True)
class ClassRow:
    """How a class fares: its held-out images, how many of them were right at the first guess,
    and for which class most of the others were taken.
    """

    name: str
    images: int
    right: int
    taken_for: str | None

    @property
    def accuracy(self) -> float:
        """The share of the class's images that are classified rightly, from 0 to 1."""
        return self.right / max(1, self.images)


@dataclass(frozen=True)
class Judged:
    """The held-out images, judged by the net. `confusion[i][j]` counts images of class i that
    were taken for class j; it is None where there are more than CONFUSED classes.
    """

    images: int
    unreadable: int
    num_wrong: int
    worst: tuple[WrongGuess, ...]
    scores: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...] | None


@dataclass(frozen=True)
class JudgedBoxes:
    """The boxes that the net gives of the held-out images: how much they overlap with the objects
    in the mean, how many by more than a half, and the worst.
    """

    images: int
    unreadable: int
    mean_overlap: float
    num_found: int
    worst: tuple[MissedBox, ...]


@dataclass(frozen=True)
class JudgedImages:
    """What the net makes of the held-out images, by what its heads give; None where none does."""

    classes: Judged | None
    boxes: JudgedBoxes | None


STEPS_SHOWN = 200
"""Points of a curve over the steps of a single epoch."""


@dataclass(frozen=True)
class Findings:
    """A run and all that is known of it, of a single epoch its `steps`, too. `judged` is text where
    that says why the images are not.
    """

    run: Run
    program: Program
    epochs: tuple[Epoch, ...]
    steps: tuple[StepRow, ...]
    num_epochs: int
    settings: tuple[UsedSetting, ...]
    weights_from: str | None
    filters: Filters | None
    judged: JudgedImages | str


def gather(
    folder: Path, options: ReportOptions, on_progress: OnProgress = lambda done, total: None
) -> Findings:
    """Reads a run, and lets its net judge the held-out images.

    Raises:
        UserError: the folder is no run, or something in it is not sound, or the images that
            are asked for are not the run's.
    """
    run = Run.load(folder)
    epochs = read_metrics(folder)
    program = load(str(run.net_path))
    run.require_fit(program.graph)
    recipe, batches = run.recipe, -(-run.record.data.train // run.recipe.batch)
    before = {
        k: old
        for k, old, _ in TRAIN.differences(default_recipe(program.graph, recipe.loss), recipe)
    }
    settings = tuple(
        UsedSetting(key, str(value), before.get(key))
        for key, value in TRAIN.flatten(recipe).items()
    )
    weights, weights_from = shown_weights(run, program, options.weights)
    first = first_filters(program.graph)
    return Findings(
        run=run,
        program=program,
        epochs=epochs,
        steps=read_steps(folder, STEPS_SHOWN) if len(epochs) == 1 else (),
        num_epochs=recipe.num_epochs(max(1, batches)),
        settings=settings,
        weights_from=weights_from,
        filters=drawn(first, weights[first]) if weights and first else None,
        judged=judged(run, program, weights, options, on_progress),
    )


# Weights


def shown_weights(
    run: Run, program: Program, which: Path | None
) -> tuple[Weights | None, str | None]:
    """The weights that are meant, and in words whose they are; None where the run has none yet.

    Raises:
        UserError: they are damaged, or there are none of those that were named.
    """
    if which is None and not run.has_weights:
        return None, None
    path = run.file_of(which)
    TESTING.require(program.graph)
    weights, moment = load_weights(path, program.graph).weights, moment_of(path)
    match which:
        case None if moment is None or run.ended:
            told = "the run's last weights"
        case None:
            told = f"the weights {moment}"
        case _ if path == run.best_path:
            told = f"the run's best weights{f', those {moment}' if moment else ''}"
        case _:
            told = f"the weights in {path}"
    return weights, told


# Errors


def judged(
    run: Run,
    program: Program,
    weights: Weights | None,
    options: ReportOptions,
    on_progress: OnProgress,
) -> JudgedImages | str:
    """The held-out images judged, or why they are not."""
    if not options.errors:
        return "This page was made without looking for them (--no-errors)."
    if weights is None:
        if run.record.state == "stopped":
            return "The run has no weights: it was stopped before there were sound ones."
        return "The run has no weights yet: they come with its first checkpoint."
    try:
        images = held_out(run, options)
    except UserError as error:
        if options.data is not None or options.val is not None:
            raise
        fault = error.diagnostics[0]
        where = run.record.data.path or "the scanned digits"
        return f"The images in {where} cannot be used: {fault.fill(fault.title)}."

    from vggc.backends.torch import build
    from vggc.training.judgement import judge, worst
    from vggc.training.learner import choose_machine, device_of
    from vggc.training.objective import Objective
    from vggc.training.parallel import ALONE

    device = device_of(choose_machine(options.device, "float32", False), ALONE)
    module = build(drop_final_softmax(program.graph), weights)
    judgements = judge(
        module,
        images,
        run.record.preprocessing,
        device,
        min(run.recipe.batch, len(images)),
        on_progress,
        Objective.of(run.recipe.loss, program.graph),
    )
    classes, boxes = judgements.classes, judgements.boxes
    names = run.record.classes
    return JudgedImages(
        told(classes, worst(classes, images, WORST), names, len(images) - len(classes.labels))
        if classes
        else None,
        told_of_boxes(boxes, images) if boxes else None,
    )


def told_of_boxes(judgement: BoxJudgement, images: Framed) -> JudgedBoxes:
    """A judgement of boxes in counts, with the worst of them."""
    from vggc.training.boxes import FOUND
    from vggc.training.judgement import worst_boxes

    overlaps = judgement.overlaps
    return JudgedBoxes(
        images=len(overlaps),
        unreadable=len(images) - len(overlaps),
        mean_overlap=float(overlaps.mean()),
        num_found=int((overlaps > FOUND).sum()),
        worst=worst_boxes(judgement, images, WORST),
    )


def held_out(run: Run, options: ReportOptions) -> Framed:
    """The images that the run was tested with, as it was.

    Raises:
        UserError: they are not there, or they are others.
    """
    from vggc.data.crops import Framed, Framing
    from vggc.evaluation.images import aimed_at, held_out_by

    if options.val is not None and options.data is None:
        raise UserError(diagnostics.ValWithoutData())
    if options.data is not None:
        origin = replace(run.record.data, path=options.data, val_path=options.val)
        run = replace(run, record=replace(run.record, data=origin))
    preprocessing = run.record.preprocessing
    framing = Framing.of(preprocessing, run.record.input, preprocessing.scale)
    return Framed(aimed_at(run, held_out_by(run).part), framing)


def told(
    judgement: Judgement, errors: tuple[WrongGuess, ...], names: Sequence[str], unreadable: int
) -> Judged:
    """A judgement in counts and names."""
    count = len(names)
    labels, guesses = judgement.labels, judgement.guesses
    confusion = judgement.confusion(count) if count <= CONFUSED else None
    images = np.bincount(labels, minlength=count)
    right = np.bincount(labels[labels == guesses], minlength=count)
    taken = mostly_taken_for(labels, guesses, count)
    scores = tuple(
        ClassRow(names[c], int(images[c]), int(right[c]), names[taken[c]] if c in taken else None)
        for c in range(count)
    )
    return Judged(
        images=len(labels),
        unreadable=unreadable,
        num_wrong=int((labels != guesses).sum()),
        worst=errors,
        scores=scores,
        confusion=None if confusion is None else tuple(map(tuple, confusion.tolist())),
    )


def mostly_taken_for(labels: Numbers, guesses: Numbers, num_classes: int) -> dict[int, int]:
    """For each class with errors the one that most of its images were taken for."""
    wrong = labels != guesses
    pairs, counts = np.unique(labels[wrong] * num_classes + guesses[wrong], return_counts=True)
    rarest_first = pairs[np.argsort(counts, kind="stable")]
    return {int(pair) // num_classes: int(pair) % num_classes for pair in rarest_first}
