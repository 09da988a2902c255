"""What a trained net makes of the held-out images, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from vggc.data.crops import Cut, Framed, attempt
from vggc.data.loader import CropObjects, ValBatches, load, num_workers
from vggc.data.objects import Corners, overlaps
from vggc.data.stores import Numbers
from vggc.data.windows import clipped, corners_of, to_picture
from vggc.training.augment import Normaliser
from vggc.training.objective import CLASSIFYING, Objective, boxes_of
from vggc.training.prefetch import prefetched
from vggc_runtime.preprocessing import Pixels, Preprocessing

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """A net's first guesses, one for each held-out image that could be read.

    `indices` are the images' places in the held-out part, `labels` and `guesses` classes,
    `losses` in nats, `sure` the probability of the guess, `right` that of the true class; all
    are (N,).
    """

    indices: Numbers
    labels: Numbers
    guesses: Numbers
    losses: Floats
    sure: Floats
    right: Floats

    @property
    def errors(self) -> Numbers:
        """Rows of the wrong guesses, the greatest loss first."""
        wrong = np.flatnonzero(self.labels != self.guesses)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")]

    def confusion(self, num_classes: int) -> Numbers:
        """How often images of a class (rows) were taken for each class (columns)."""
        pairs = self.labels * num_classes + self.guesses
        counts = np.bincount(pairs, minlength=num_classes**2)
        return counts.reshape(num_classes, num_classes).astype(np.int64)


@dataclass(frozen=True)
class BoxJudgement:
    """The boxes that a net gives, one for each held-out image that could be read.

    `indices` are the images' places in the held-out part; `boxes` (N, 4) lie within the pictures,
    in their shares; `overlaps` (N,) are those with that object which is met best.
    """

    indices: Numbers
    boxes: Corners
    overlaps: Floats

    @property
    def worst_first(self) -> Numbers:
        """Rows of the boxes, the least overlap first."""
        return np.argsort(self.overlaps, kind="stable")


@dataclass(frozen=True)
class Judgements:
    """What a net makes of the held-out images, by what its heads give; None where none does."""

    classes: Judgement | None
    boxes: BoxJudgement | None


@dataclass(frozen=True)
class WrongGuess:
    """An image that was taken for another class, as the net saw it: (H, W, C)."""

    name: str
    pixels: Pixels
    label: int
    guess: int
    loss: float
    sure: float
    right: float


@torch.no_grad()
def judge(
    module: nn.Module,
    held_out: Framed,
    preprocessing: Preprocessing,
    device: torch.device,
    batch: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    objective: Objective = CLASSIFYING,
) -> Judgements:
    """Asks a net for its guess at the centre of each held-out image, in float32.

    `module` maps images float32 (N, C, H, W) to what the objective's heads give. `on_progress` is
    told how many images of how many are done.
    """
    batches = ValBatches(held_out, batch)
    steps = range(len(batches))
    normalised = Normaliser.of(preprocessing, device)
    module = module.to(device).eval()
    classes: list[Judgement] = []
    boxes: list[BoxJudgement] = []
    # Processes that are started for a few batches only would not pay.
    workers = min(num_workers(held_out), len(batches) // 8) if held_out.kept is None else 0
    with closing(load(batches, steps, workers, pin=device.type == "cuda")) as loaded:
        for step, moved in enumerate(prefetched(loaded, device)):
            given = objective.by_head(module(normalised(moved.images)))
            indices = step * batch + moved.rows.cpu().numpy()
            if objective.classes:
                classes.append(of_classes(given[objective.classes], moved.labels, indices))
            if objective.boxes and moved.objects:
                found = boxes_of(given[objective.boxes], moved.labels)
                boxes.append(of_boxes(found, moved.objects, indices))
            on_progress(min((step + 1) * batch, len(held_out)), len(held_out))
    return Judgements(
        together(Judgement, classes) if classes else None,
        together(BoxJudgement, boxes) if boxes else None,
    )


def of_classes(scores: Tensor, labels: Tensor, indices: Numbers) -> Judgement:
    """What scores (N, classes) come to for the images at these places."""
    logits = scores.double()
    logs = functional.log_softmax(logits, 1)
    guesses = logits.argmax(1)
    of_label, of_guess = (logs.gather(1, each[:, None])[:, 0] for each in (labels, guesses))
    losses, sure, right = torch.stack([-of_label, of_guess.exp(), of_label.exp()]).cpu().numpy()
    return Judgement(
        indices=indices,
        labels=labels.cpu().numpy(),
        guesses=guesses.cpu().numpy(),
        losses=losses,
        sure=sure,
        right=right,
    )


def of_boxes(given: Tensor, located: CropObjects, indices: Numbers) -> BoxJudgement:
    """What boxes (N, 4), as a net gives them, come to for the images at these places."""
    windows = located.windows.numpy()
    boxes = clipped(to_picture(corners_of(given.double().cpu().numpy()), windows))
    overlap = overlaps(boxes[:, None], located.boxes.numpy()).max(axis=1)
    return BoxJudgement(indices, boxes, overlap)


J = TypeVar("J", Judgement, BoxJudgement)


def together(kind: type[J], parts: Sequence[J]) -> J:
    """Judgements of some images each as one of all."""
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(kind)
    }
    return kind(**columns)


@dataclass(frozen=True)
class MissedBox:
    """An image whose box a net gave badly, the whole of it: (H, W, C).

    `objects` (M, 4) and `box` (4,) are in shares of the picture; `overlap` is that of the box with
    the object which it meets best.
    """

    name: str
    pixels: Pixels
    label: int
    objects: Corners
    box: Corners
    overlap: float


def worst_boxes(judgement: BoxJudgement, held_out: Framed, most: int) -> tuple[MissedBox, ...]:
    """The images whose boxes overlap least with their objects, at most so many."""
    rows = judgement.worst_first[:most]
    indices, part = judgement.indices[rows], held_out.part
    assert part.objects
    whole = [attempt(held_out.framing.whole, each) for each in held_out.fetch(indices)]
    return tuple(
        MissedBox(
            name=part.name(index),
            pixels=pixels,
            label=int(part.labels[index]),
            objects=part.objects[index].boxes,
            box=judgement.boxes[row],
            overlap=float(judgement.overlaps[row]),
        )
        for row, index, pixels in zip(rows.tolist(), indices.tolist(), whole, strict=True)
        if isinstance(pixels, np.ndarray)
    )


def worst(judgement: Judgement, held_out: Framed, most: int) -> tuple[WrongGuess, ...]:
    """The wrong guesses with the greatest losses, at most so many."""
    rows = judgement.errors[:most]
    crops = held_out.centres(judgement.indices[rows])
    return tuple(
        WrongGuess(
            name=held_out.part.name(int(judgement.indices[row])),
            pixels=crop.pixels,
            label=int(judgement.labels[row]),
            guess=int(judgement.guesses[row]),
            loss=float(judgement.losses[row]),
            sure=float(judgement.sure[row]),
            right=float(judgement.right[row]),
        )
        for row, crop in zip(rows.tolist(), crops, strict=True)
        if isinstance(crop, Cut)
    )
