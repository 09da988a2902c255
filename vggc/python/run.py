"""Training and testing in Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, overload

from vggc.api import evaluate as tests
from vggc.api import train as trainings
from vggc.api.evaluate import EvalOptions, EvalPlan, EvalResult, ProtocolName, UntestedNet
from vggc.api.predict import run_predictor
from vggc.api.score_table import score_table
from vggc.api.train import RunFinished, TrainOptions
from vggc.api.trained import NetOfRun, net_in
from vggc.program import Program
from vggc.python.net import Network, load
from vggc.python.prediction import ImageLike, Prediction, predictions
from vggc.python.told import log
from vggc.support.diagnostics import UserError
from vggc.support.precision import TRAIN_PRECISIONS, TrainPrecision, parse_precision
from vggc.support.sheet import Sheet, as_html, as_text
from vggc.training.best import said
from vggc.training.measures import accuracies
from vggc.training.metrics import read_metrics
from vggc.training.progress import Epoch, EpochDone, Event, Interrupted, Outcome, Stopped
from vggc.training.run import Run, RunRecord
from vggc_runtime.processors import limit_threads

if TYPE_CHECKING:
    from vggc.backends.torch import TorchNet
    from vggc.data.prepare import Data
    from vggc.evaluation.counts import Errors
    from vggc.evaluation.images import Labelled
    from vggc.features.read import Features

Place: TypeAlias = str | os.PathLike[str]
"""Where images or weights are."""

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class TrainingRun:
    """A run: a net that is trained, or as far as it got. A notebook shows its epochs."""

    run: Run

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.folder

    @property
    def record(self) -> RunRecord:
        """What the run's `run.json` holds."""
        return self.run.record

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the run's classes, in the order of its scores."""
        return self.record.classes

    @cached_property
    def net(self) -> Network:
        """The net as trained, fitted to the run's images, with the run's weights.

        Raises:
            UserError: its file is not that of the run.
        """
        return Network(net_in(self.run), self.run)

    @cached_property
    def history(self) -> tuple[Epoch, ...]:
        """The run's epochs in order: losses, accuracies, rate, speed."""
        return tuple(read_metrics(self.path))

    @property
    def best(self) -> Epoch | None:
        """The best epoch by the recipe's `best-by`; None before the first has ended."""
        return self.record.best

    def module(self, weights: Place | None = None) -> TorchNet:
        """The net as a torch module in eval mode, with the run's last weights, with its `"best"`,
        or with those in a file.

        Raises:
            UserError: there are no such weights.
        """
        return self.net.module(weights)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is several texts, too
        self,
        images: ImageLike,
        top: int = 5,
        *,
        weights: Place | None = None,
        preprocessing: str | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        images: Iterable[ImageLike],
        top: int = 5,
        *,
        weights: Place | None = None,
        preprocessing: str | None = None,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        top: int = 5,
        *,
        weights: Place | None = None,
        preprocessing: str | None = None,
    ) -> Prediction | list[Prediction]:
        """The `top` classes of an image, or of each of several, with their probabilities, by the
        centre crop; those of the run's last weights, of its `"best"`, or of those in a file, whose
        pictures may go through another `preprocessing`, a preset or a file.

        Images are the paths of files, or Pillow's.

        Raises:
            UserError: with every image that cannot be read; the run has no such weights.
            CheckFailed: the net gives values that are not finite.
        """
        options = EvalOptions(weights=optional(Path, weights), preprocessing=preprocessing)
        return predictions(run_predictor(self.path, options), images, top)

    def features(
        self,
        data: Place,
        out: Place,
        *,
        layers: str | Sequence[str] = (),
        combine: Literal["average", "stack"] = "average",
        part: Literal["train", "val", "test"] | None = None,
        scales: str | None = None,
        weights: Place | None = None,
        overwrite: bool = False,
    ) -> Features:
        """The features that the net gives of images, which are written to a file, too: see `vggc
        features`, whose options these are.

        Raises:
            UserError: something does not fit, or cannot be read or written.
            CheckFailed: the net gives values that are not finite.
        """
        from vggc.python.features import features

        return features(
            self.path,
            data,
            out,
            layers=layers,
            combine=combine,
            part=part,
            scales=scales,
            weights=weights,
            overwrite=overwrite,
        )

    @property
    def table(self) -> Sheet:
        """The run's epochs as a table."""
        rising = [each for each, _ in accuracies(self.history[0])] if self.history else []
        trained, held_out = (
            [f"{before}{each.name}" for each in rising if each.part == part]
            for part, before in (("training", ""), ("held-out", "held-out "))
        )
        names = ("epoch", "loss", *trained, "held-out loss", *held_out, "seconds")
        rows = tuple(
            (
                str(epoch.epoch),
                f"{epoch.train_loss:.4f}",
                *(f"{value:.1%}" for _, value in accuracies(epoch, "training")),
                f"{epoch.val_loss:.4f}",
                *(f"{value:.1%}" for _, value in accuracies(epoch, "held-out")),
                f"{epoch.seconds:.1f}",
            )
            for epoch in self.history
        )
        title = f"{self.record.net}, {self.record.state}: {self.path}"
        return Sheet(title=title, header=names, rows=rows, numbers=(True,) * len(names))

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        best = f", best {said(self.best, self.run.recipe.best_by)}" if self.best else ""
        epochs = f"{len(self.history)} epoch{'s' * (len(self.history) != 1)}"
        return f"<TrainingRun {self.path}: {self.record.net}, {self.record.state}, {epochs}{best}>"


@dataclass(frozen=True, repr=False)
class EvalScores:
    """The errors of runs on images, as shares from 0 to 1. A notebook shows the table."""

    planned: EvalPlan
    images: Labelled
    result: EvalResult

    @property
    def num_images(self) -> int:
        """How many images were looked at."""
        return self.result.images

    @property
    def each(self) -> tuple[Errors, ...]:
        """The errors of each run by its protocol."""
        return self.result.each

    @property
    def centre(self) -> tuple[Errors, ...]:
        """The errors of each run by the centre crop, where no protocol was asked for."""
        return self.result.centres

    @property
    def fused(self) -> Errors | None:
        """The errors of all runs together; None where there is one only."""
        return self.result.fused

    @property
    def top1_error(self) -> float:
        """The share of images whose class was not the first guess, of all runs together."""
        return (self.fused or self.each[0]).top1

    @property
    def top5_error(self) -> float:
        """The share of images whose class was not among the first five guesses."""
        return (self.fused or self.each[0]).top5

    @property
    def table(self) -> Sheet:
        """The errors as a table, a row for each run and one for all together."""
        return score_table(self.planned, self.images, self.result)

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        return as_text(self.table)


def open_run(path: Place) -> TrainingRun:
    """The run in a folder that a training made.

    Raises:
        UserError: it is none, or its record is not sound.
    """
    return TrainingRun(Run.load(Path(path)))


def train(
    net: Network | Place | None = None,
    *,
    data: Place | None = None,
    val: Place | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    size: tuple[int, int] | None = None,
    device: Literal["cpu", "cuda", "auto"] | None = None,
    precision: TrainPrecision | None = None,
    compiled: bool | None = None,
    out: Place | None = None,
    init_from: Place | None = None,
    weights: Literal["last", "best"] | None = None,
    seed: int | None = None,
    changes: Iterable[str] = (),
    resume: TrainingRun | Place | None = None,
    save_steps: int | None = None,
    keep: int = 2,
    workers: int | None = None,
    on_progress: Callable[[Event], None] | None = None,
) -> TrainingRun:
    """Trains a net by its recipe, or goes on with the run `resume`; the run that it ends as. A net
    of a run begins anew, too; one that was loaded with `weights` begins with these, as
    `init_from` would have it.

    Each option is that of `vggc train`: without `data` it trains on scikit-learn's digits, `size`
    is (H, W), and `changes` are those of `--set`: `["schedule=one-cycle", "flip=off"]`.
    `on_progress` is told every step and epoch as it ends.

    Ctrl-C saves before it is raised; `resume` goes on from there.

    Raises:
        UserError: something does not fit or cannot be read, or a loss is not finite; what was
            saved until then is kept.
        KeyboardInterrupt: all is saved.
    """
    limit_threads()
    if init_from is None and isinstance(net, Network) and net.run is None:
        init_from = net.weights
    options = TrainOptions(
        data=optional(text_of, data),
        val=optional(text_of, val),
        epochs=epochs,
        batch=batch,
        lr=lr,
        size=size,
        device=device,
        precision=precision and parse_precision(precision, TRAIN_PRECISIONS),
        compiled=compiled,
        out=optional(Path, out),
        init_from=optional(Path, init_from),
        weights=optional(Path, weights),
        seed=seed,
        changes=several(changes),
    )
    try:
        if resume is None:
            plan = trainings.new_run(spec_of(net), options)
        else:
            folder = resume.path if isinstance(resume, TrainingRun) else Path(resume)
            named = spec_of(net)
            plan = trainings.resume_run(
                named.net.name if isinstance(named, Program) else named, folder, options
            )
    except RunFinished as finished:
        return TrainingRun(finished.run)
    run, outcome = trained(plan, save_steps, keep, workers, on_progress or note)
    match outcome:
        case Interrupted():
            raise KeyboardInterrupt
        case Stopped(_, reason):
            raise UserError(reason)
        case _:
            return open_run(run.folder)


def trained(
    plan: trainings.TrainPlan,
    save_steps: int | None,
    keep: int,
    workers: int | None,
    on_progress: Callable[[Event], None],
) -> tuple[Run, Outcome]:
    """Carries out a training, and gives its run and how it ended."""
    from vggc.training.learner import device_of
    from vggc.training.parallel import joined
    from vggc.training.session import Keeping, proceed

    def read() -> Data:
        return plan.read(lambda done, total: None)

    with (
        joined(plan.world, device_of(plan.machine, plan.world)),
        trainings.training(plan, read, log.info) as ready,
    ):
        log.info("training into %s", ready.run.folder)
        keeping = Keeping(save_steps, keep)
        run, task, progress = ready.run, ready.task, ready.progress
        return run, proceed(run, ready.learner, task, progress, on_progress, keeping, workers)


def note(event: Event) -> None:
    """Tells the log of each epoch."""
    if isinstance(event, EpochDone):
        epoch = event.epoch
        figures = epoch.train_loss, epoch.val_loss, epoch.accuracy
        log.info("epoch %d: loss %.4f, held-out %.4f, accuracy %.3f", epoch.epoch, *figures)


def evaluate(
    runs: Network | TrainingRun | Place | Sequence[Network | TrainingRun | Place],
    data: Place | None = None,
    *,
    weights: Place | None = None,
    preprocessing: str | None = None,
    scales: str | None = None,
    protocol: ProtocolName | None = None,
    grid: str | None = None,
    flip: bool | None = None,
    batch: int | None = None,
    device: Literal["cpu", "cuda", "auto"] | None = None,
    precision: TrainPrecision | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvalScores:
    """The errors of a run, or of several and of all together: on images in a place, or on those
    that they held out. Nets that were loaded with weights are tested on images in a place.

    Each option is that of `vggc eval`: `scales="256,384"`, `grid="5x5"`. Without any, each is
    looked at by the centre crop and by the `test` block of its file. `on_progress` is told how
    many images of how many are done.

    Raises:
        UserError: one is no run, there are no images, or the net cannot look so.
    """
    limit_threads()
    nets = [runs] if isinstance(runs, Network | TrainingRun | str | os.PathLike) else [*runs]
    given = [tested(net, weights, preprocessing) for net in nets]
    options = EvalOptions(
        weights=optional(Path, weights),
        preprocessing=preprocessing,
        scales=scales,
        protocol=protocol,
        grid=grid,
        flip=flip,
        batch=batch,
        device=device,
        precision=precision and parse_precision(precision, TRAIN_PRECISIONS),
        workers=workers,
    )
    planned = tests.plan(given, options)
    images = tests.images_for(planned, optional(text_of, data))
    for line in images.notes:
        log.info(line)
    result = tests.measure(planned, images, on_progress or (lambda done, total: None))
    return EvalScores(planned, images, result)


def tested(
    net: Network | TrainingRun | Place, weights: Place | None, preprocessing: str | None
) -> Path | UntestedNet:
    """A net or a run as functions of `api/` take it that test nets."""
    match net:
        case Network():
            path, how = weights_meant(net, weights, preprocessing)
            return replace(net, weights=path, preset=how).untested
        case TrainingRun():
            return net.path
        case _:
            return Path(net)


def weights_meant(
    net: object, weights: Place | None, preprocessing: str | None
) -> tuple[Path | None, str | None]:
    """The weights that are meant, and what their pictures go through: those that are named, else
    those that a net was loaded with.
    """
    if weights is None and isinstance(net, Network):
        return net.weights, preprocessing or net.preset
    return optional(Path, weights), preprocessing


def spec_of(net: Network | Place | None) -> str | Program | None:
    """A net as functions of `api/` take it; a name is read first, so that its mistakes are all
    found.
    """
    match net:
        case None:
            return None
        case Network(program):
            return program
        case _:
            return load(net).program


def known(net: Network | TrainingRun | Place) -> str | Program | NetOfRun:
    """A net or a run as functions of `api/` take it that want its weights, too."""
    match net:
        case Network():
            return net.known
        case TrainingRun():
            return os.fspath(net.path)
        case _:
            return os.fspath(net)


def text_of(place: Place) -> str:
    """A place as a text, since it may be a pattern, or on a server."""
    return os.fspath(place)


def several(texts: str | Iterable[str]) -> tuple[str, ...]:
    """One text or several, as several."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def optional(make: Callable[[Place], T], value: Place | None) -> T | None:
    """What `make` makes of a value; None where there is none."""
    return None if value is None else make(value)
