"""A table of features as a folder: which nets are trained, what was taken and measured.

reproduce.json          a `FeatureStudyRecord`: how the nets are trained, and what was measured
images/known, other     the images, half of the classes each, as shards
runs/NAME               the runs of the trainings
features/NAME           the features that lines are measured of
table11.md              the tables, as they are so far
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vggc.data.parts import CHUNK, Images, Part
from vggc.data.stores import Numbers, PictureSource
from vggc.reproduce import diagnostics
from vggc.reproduce.feature_tables import FeatureColumn, FeatureLine, FeatureSet, Learnt
from vggc.reproduce.study import RECORD
from vggc.support.diagnostics import UserError
from vggc.support.files import new_folder, refuse_full
from vggc.support.paths import exists, is_folder, is_run
from vggc.support.records import read_record, write_record
from vggc.training.run import Run
from vggc_runtime.files import open_file
from vggc_runtime.json_file import MalformedError
from vggc_runtime.preprocessing import FORMATS, BrokenImageError

Half = Literal["known", "other"]

EPOCHS, TUNING_EPOCHS = 5, 2
TRAINED_BY = (
    "scale=34",
    "batch=64",
    "schedule=one-cycle",
    "init=he",
    "rgb-shift=off",
)
LR, TUNING_LR = 0.05, 0.01
SCALES, MIDDLE = (32, 40, 48), 48
"""The scales at which images are seen whole, and that of which the middle 32×32 are a box."""
PER_CLASS, SPLITS, FOLDS = 30, 3, 5
"""Images of a class that are trained on, in so many splits, which are the paper's on Caltech-101,
and parts in cross-validation.
"""
GRID = (0.1, 1.0, 10.0)
"""The constants of the classifier among which cross-validation chooses."""
POOL = {"train": 200, "test": 400}
"""So many images of each of the other classes features are taken of, at most."""


@dataclass(frozen=True)
class LineScore:
    """The accuracy of a line in %, its mean over the splits and its standard deviation, of so many
    features.
    """

    accuracy: float
    deviation: float
    width: int


@dataclass(frozen=True)
class FeatureStudyRecord:
    """What `reproduce.json` holds of a table of features. `scores` are those of lines by their
    keys.
    """

    format: Literal[1]
    setting: Literal["features"]
    data: str
    val: str | None
    epochs: int
    seed: int
    scores: dict[str, LineScore]


@dataclass(frozen=True)
class FeatureStudy:
    """Runs, features and results in a folder."""

    folder: Path
    record: FeatureStudyRecord

    def images(self, half: Half) -> Path:
        """Where the images of half of the classes are."""
        return self.folder / "images" / half

    def run_folder(self, column: FeatureColumn, learnt: Learnt) -> Path:
        """The folder of a net's run."""
        return self.folder / "runs" / f"{column}-{learnt}"

    def features(self, name: str) -> Path:
        """The file of some features."""
        return self.folder / "features" / f"{name}.safetensors"

    def run_of(self, column: FeatureColumn, learnt: Learnt) -> Run | None:
        """The run of a training, as far as it has come; None before it has begun.

        Raises:
            UserError: it is none, or that of something else.
        """
        folder = self.run_folder(column, learnt)
        if not is_run(folder):
            return None
        run = Run.load(folder)
        net = f"small_{column.lower()}"
        pairs = {"net": (run.record.net, net), "seed": (run.record.seed, self.record.seed)}
        for name, (there, due) in pairs.items():
            if there != due:
                shown = str(folder), name, str(there), str(due)
                raise UserError(diagnostics.RunOfSomethingElse(*shown))
        return run

    def failure(self, line: FeatureLine) -> str | None:
        """Why a training that a line needs was stopped."""
        for each in line.sets:
            for learnt in ("known", each.learnt):
                run = self.run_of(each.column, learnt) if learnt != "nothing" else None
                if run and run.record.state == "stopped":
                    return f"{run.folder.name}: {run.record.reason}"
        return None

    def with_score(self, line: FeatureLine, score: LineScore) -> FeatureStudy:
        """The study that knows the score of a line."""
        scores = {**self.record.scores, line.key: score}
        return replace(self, record=replace(self.record, scores=scores))

    def save(self) -> None:
        """Writes how the nets are trained, and what was measured.

        Raises:
            UserError: that cannot be done.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_record(self.folder / RECORD, self.record)


def net_learnt_by(each: FeatureSet) -> Learnt:
    """What the run has learnt whose net gives some features; random weights take that net, too."""
    return "known" if each.learnt == "nothing" else each.learnt


def begun(folder: Path, wanted: FeatureStudyRecord) -> FeatureStudy:
    """The study in a folder: that which was begun there the same way, or a new one, of which
    nothing is written yet.

    Raises:
        UserError: the folder holds something else.
    """
    path = folder / RECORD
    if not exists(path):
        refuse_full(folder)
        return FeatureStudy(folder, wanted)
    try:
        record = read_record(path, FeatureStudyRecord)
    except MalformedError as fault:
        raise UserError(diagnostics.NotAStudy(str(folder), str(fault))) from None
    for name in ("data", "val", "epochs", "seed"):
        before, now = getattr(record, name), getattr(wanted, name)
        if before != now:
            shown = str(folder), name, str(before), str(now)
            raise UserError(diagnostics.BegunOtherwise(*shown))
    return FeatureStudy(folder, record)


# The images


def halves(images: Images) -> dict[Half, range]:
    """The classes that nets learn first, the first half, and the others.

    Raises:
        UserError: they are too few.
    """
    count = len(images.classes)
    if count < 4:
        raise UserError(diagnostics.TooFewClasses(str(images.path), count))
    return {"known": range((count + 1) // 2), "other": range((count + 1) // 2, count)}


def write_halves(study: FeatureStudy, images: Images) -> None:
    """Writes the images of both halves of the classes as shards, unless they are there.

    Raises:
        UserError: they cannot be written, or there are too few classes.
    """
    for half, classes in halves(images).items():
        folder = study.images(half)
        if is_folder(folder):
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as inside:
            names = "".join(f"{images.classes[number]}\n" for number in classes)
            (inside / "classes.txt").write_text(names, "utf-8")
            for role, part in (("train", images.train), ("test", images.val)):
                write_shard(inside / f"{role}-0000.tar", part, classes)


def write_shard(path: Path, part: Part, classes: range) -> None:
    """Writes the pictures of some classes of a part as a shard, their labels from 0 on."""
    chosen = np.flatnonzero((part.labels >= classes.start) & (part.labels < classes.stop))
    with tarfile.open(path, "w") as shard:
        for start in range(0, len(chosen), CHUNK):
            indices = chosen[start : start + CHUNK]
            for index, picture in zip(indices.tolist(), part.fetch(indices), strict=True):
                label = str(int(part.labels[index]) - classes.start).encode()
                try:
                    ending, content = file_of(picture)
                except (BrokenImageError, OSError):
                    continue
                add(shard, f"{index:07d}{ending}", content)
                add(shard, f"{index:07d}.cls", label)


def file_of(picture: PictureSource | BrokenImageError) -> tuple[str, bytes]:
    """The ending and the bytes of a picture's file; pixels become a PNG.

    Raises:
        BrokenImageError: there is none. OSError: it cannot be read.
    """
    match picture:
        case BrokenImageError():
            raise picture
        case Path():
            with open_file(picture) as file:
                return picture.suffix.lower(), file.read()
        case bytes():
            found = Image.open(io.BytesIO(picture), formats=tuple({*FORMATS.values()})).format
            endings = {kind: ending for ending, kind in FORMATS.items()}
            return endings[str(found)], picture
        case pixels:
            made = io.BytesIO()
            Image.fromarray(pixels).save(made, "PNG")
            return ".png", made.getvalue()


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file to a tar, as of 1970."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def pool_of(part: Part, role: str) -> Numbers:
    """The places of the first pictures of each class of a part, of which features are taken."""
    most = POOL["train" if role == "train" else "test"]
    chosen = [np.flatnonzero(part.labels == number)[:most] for number in np.unique(part.labels)]
    return np.sort(np.concatenate(chosen))
