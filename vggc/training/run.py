"""The folder that a training leaves, and what others may know of it. Imports no torch.

net.vgg               the net and the recipe as trained
NAME.vgg              other nets that it names, for the same images
run.json              a `RunRecord`
metrics.csv           one row an epoch
steps.csv             one row a step
curves.png            the epochs as a picture
skipped.csv           the images that were left out, if some were, with their part and why
weights.safetensors   the last weights that were saved, by the graph's names
weights-best.safetensors   those after the best epoch
checkpoint/           what a training goes on from
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from vggc.data.parts import Fingerprints
from vggc.ir.graph import Graph
from vggc.recipe.edit import unflatten
from vggc.recipe.train import Recipe
from vggc.support.diagnostics import UserError, in_command
from vggc.support.files import refuse_full, replacing
from vggc.support.paths import exists
from vggc.support.precision import TrainPrecision
from vggc.support.records import read_record, write_record
from vggc.syntax.values import MAX_SIDE
from vggc.training import diagnostics
from vggc.training.best import said
from vggc.training.progress import Epoch, Progress
from vggc_runtime.json_file import MalformedError, read_json
from vggc_runtime.preprocessing import IMAGE_CHANNELS, Preprocessing

NET = "net.vgg"
RUNS = Path("runs")
"""Where runs are made and looked for unless a folder is named."""

MOMENT = "saved after"
"""Where the metadata of a run's weights tell of their `Moment`: in one entry, since safetensors
writes several in any order, and the same weights are to make the same file.
"""

LAST, BEST = Path("last"), Path("best")
"""What names weights of a run, where a file of weights could be named, too."""

RunState: TypeAlias = Literal["running", "finished", "interrupted", "stopped"]


@dataclass(frozen=True)
class Origin:
    """The images of a run: where they are from, a path or a URL, or None for the embedded digits,
    their counts, and by what they are known again. `val_path` says where those held out are from,
    if it is another place; `pictures` are the bytes of them that the training has in memory.
    """

    path: str | None
    train: int
    val: int
    skipped: int
    fingerprints: Fingerprints
    val_path: str | None = None
    pictures: int = 0


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` holds. `input` is (C, H, W); `recipe` is `TRAIN.flatten`'s table;
    `metrics` are those of the last epoch, `best` those of the best; `reason` says why a run was
    stopped, or finished before the last epoch of its recipe.
    """

    format: Literal[2]
    net: str
    state: RunState
    reason: str | None
    started: str
    seed: int
    device: Literal["cpu", "cuda"]
    precision: TrainPrecision
    input: tuple[int, int, int]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: dict[str, str | int | float]
    data: Origin
    versions: dict[str, str]
    metrics: Epoch | None
    best: Epoch | None = None


@dataclass(frozen=True)
class Moment:
    """When weights were saved: after so many whole epochs and steps of a training."""

    epochs: int
    step: int

    @classmethod
    def of(cls, progress: Progress) -> Moment:
        """The moment that a training has come to."""
        return cls(len(progress.epochs), progress.step)

    @property
    def metadata(self) -> dict[str, str]:
        """The moment in the words that weights' files hold."""
        return {MOMENT: f"{self.epochs} epochs, {self.step} steps"}

    def __str__(self) -> str:
        return f"after epoch {self.epochs}, step {self.step}"


@dataclass(frozen=True)
class Run:
    """A run folder whose record has been read and checked."""

    folder: Path
    record: RunRecord

    @classmethod
    def load(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            UserError: it is not one, or its record is not sound.
        """
        try:
            refuse_old(folder)
            record = read_record(folder / "run.json", RunRecord)
            check(record)
        except MalformedError as fault:
            raise UserError(diagnostics.NotARun(str(folder), str(fault))) from None
        return cls(folder, record)

    @property
    def net_path(self) -> Path:
        """The file of the net."""
        return self.folder / NET

    @property
    def weights_path(self) -> Path:
        """The file of the last weights."""
        return self.folder / "weights.safetensors"

    @property
    def best_path(self) -> Path:
        """The file of the best weights."""
        return self.folder / "weights-best.safetensors"

    @property
    def has_weights(self) -> bool:
        """Whether weights were saved."""
        return self.weights_path.is_file()

    def require_weights(self) -> None:
        """Raises: UserError when the run was killed, or failed, before it wrote weights."""
        if not self.has_weights:
            hint = f"go on with it: `vggc train --resume {in_command(self.folder)}`"
            if self.record.state == "stopped":
                hint = f"train anew, with other settings: {self.record.reason}"
            raise UserError(diagnostics.NoWeights(str(self.folder), self.record.state, hint))

    def file_of(self, which: Path | None) -> Path:
        """The file of weights that somebody means: LAST, which is meant where nothing is said,
        BEST, or another file.

        Raises: UserError when the run has no such weights.
        """
        if which == BEST:
            if not self.best_path.is_file():
                raise UserError(diagnostics.NoBestWeights(str(self.folder)))
            return self.best_path
        if which not in (None, LAST):
            return which
        self.require_weights()
        return self.weights_path

    def remarks(self, which: Path | None) -> list[str]:
        """What whoever takes these weights of the run should know of them."""
        if which not in (None, LAST, BEST):
            return []
        moment = moment_of(self.file_of(which))
        if self.record.state == "running" and moment:
            return [
                f"{self.folder} has not ended (it is still going, or was killed): "
                f"its {which or LAST} weights are those {moment}."
            ]
        best, last = self.record.best, self.record.metrics
        if which != BEST and best and last and best.epoch != last.epoch and self.best_path.exists():
            measure = self.recipe.best_by
            return [
                f"These are the last weights of {self.folder}, of epoch {last.epoch}; the best "
                f"are of epoch {best.epoch}, {said(best, measure)}: --weights best"
            ]
        return []

    @property
    def ended(self) -> bool:
        """Whether training has ended, well or not."""
        return self.record.state != "running"

    @property
    def has_progress(self) -> bool:
        """Whether an epoch was finished, or weights were saved."""
        return self.has_weights or (self.folder / "metrics.csv").exists()

    def require_fit(self, graph: Graph) -> None:
        """Raises: UserError unless a graph takes the run's images and tells its classes."""
        classes = len(self.record.classes)
        told = graph.num_classes in (classes, None)
        if graph.input != self.record.input or not told:
            reason = "net.vgg is not the net that run.json describes"
            raise UserError(diagnostics.NotARun(str(self.folder), reason))

    @property
    def skipped_path(self) -> Path:
        """The table of images that were left out."""
        return self.folder / "skipped.csv"

    @property
    def checkpoint_path(self) -> Path:
        """The folder of what `--resume` goes on from."""
        return self.folder / "checkpoint"

    @property
    def recipe(self) -> Recipe:
        """The recipe as used.

        Raises:
            UserError: the record holds no such recipe.
        """
        return unflatten(self.record.recipe, str(self.folder / "run.json"))


def refuse_old(folder: Path) -> None:
    """Raises: UserError when a run is of before there was a fingerprint of each part."""
    value = read_json(folder / "run.json")
    if isinstance(value, dict) and value.get("format") == 1:
        raise UserError(diagnostics.OldRun(str(folder)))


def moment_of(path: Path) -> Moment | None:
    """When the weights in a file were saved; None where it does not say, or cannot be read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            told = (file.metadata() or {}).get(MOMENT, "")
    except (OSError, SafetensorError):
        return None
    found = re.fullmatch(r"(\d{1,18}) epochs, (\d{1,18}) steps", told)
    return Moment(int(found[1]), int(found[2])) if found else None


def check(record: RunRecord) -> None:
    """Refuses numbers that nothing could come of."""
    channels, *size = record.input
    problems = {
        "input is out of range": not all(1 <= side <= MAX_SIDE for side in size),
        "input has neither 1 nor 3 channels": channels not in IMAGE_CHANNELS,
        "seed is out of range": not 0 <= record.seed < 2**63,
        "there are no classes": not record.classes,
        "two classes have one name": len({*record.classes}) < len(record.classes),
    }
    found = next((text for text, is_so in problems.items() if is_so), None)
    found = found or record.preprocessing.problem(record.input)
    if found:
        raise MalformedError(f"run.json: {found}")


def refuse_moved(run: Run, place: str | None) -> None:
    """Raises: UserError where a run's images were in a folder that is not there any more."""
    from vggc.data.place import is_gone

    if place and is_gone(place):
        raise UserError(diagnostics.ImagesMoved(str(run.folder), place))


def runs_in(folder: Path) -> list[Run]:
    """The runs right below a folder; what is none is passed over."""
    runs = []
    for path in folder.glob("*/run.json"):
        with suppress(UserError):
            runs.append(Run.load(path.parent))
    return runs


def newest_run(folder: Path) -> Run:
    """The run with weights under a folder that started last.

    Raises:
        UserError: there is none. Folders that are no runs are passed over.
    """
    runs = runs_in(folder)
    if not runs:
        raise UserError(diagnostics.NoRuns(str(folder)))
    newest = max(runs, key=lambda r: (r.has_weights, r.ended, r.record.started, r.folder.name))
    newest.require_weights()
    return newest


def place_for(out: Path | None, net: str, now: datetime) -> Path:
    """Where a new run is made: `out`, or a folder under `runs/` with the net's name and time.

    Raises:
        UserError: `out` is there and not an empty folder.
    """
    folder = out or unused(RUNS / f"{net}-{now:%Y%m%d-%H%M%S}")
    refuse_full(folder)
    return folder


def unused(folder: Path) -> Path:
    """The folder, or the first of `folder-2`, `folder-3`, … that does not exist."""
    candidate, count = folder, 1
    while exists(candidate):
        count += 1
        candidate = folder.with_name(f"{folder.name}-{count}")
    return candidate


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_run(folder: Path, record: RunRecord) -> None:
    """Writes `run.json`.

    Raises:
        UserError: it cannot be written.
    """
    write_record(folder / "run.json", record)
