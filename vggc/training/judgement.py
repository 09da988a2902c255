"""What a trained net makes of the held-out images, one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from vggc.data.crops import Framed
from vggc.data.loader import ValBatches, load, num_workers
from vggc.data.stores import Numbers
from vggc.images.preprocessing import Pixels, Preprocessing
from vggc.training.augment import Normaliser
from vggc.training.prefetch import prefetched

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
) -> Judgement:
    """Asks a net for its guess at the centre of each held-out image, in float32.

    `module` maps images float32 (N, C, H, W) to class scores. `on_progress` is told how many
    images of how many are done.
    """
    batches = ValBatches(held_out, batch)
    steps = range(len(batches))
    normalised = Normaliser.of(preprocessing, device)
    module = module.to(device).eval()
    found: list[tuple[Numbers, ...]] = []
    values: list[Floats] = []
    # Processes that are started for a few batches only would not pay.
    workers = min(num_workers(held_out), len(batches) // 8) if held_out.kept is None else 0
    with closing(load(batches, steps, workers, pin=device.type == "cuda")) as loaded:
        for step, moved in enumerate(prefetched(loaded, device)):
            logits = module(normalised(moved.images)).double()
            logs = functional.log_softmax(logits, 1)
            guesses = logits.argmax(1)
            of_label, of_guess = (
                logs.gather(1, classes[:, None])[:, 0] for classes in (moved.labels, guesses)
            )
            values.append(torch.stack([-of_label, of_guess.exp(), of_label.exp()]).cpu().numpy())
            rows = step * batch + moved.rows.cpu().numpy()
            found.append((rows, moved.labels.cpu().numpy(), guesses.cpu().numpy()))
            on_progress(min((step + 1) * batch, len(held_out)), len(held_out))
    indices, labels, guesses = (np.concatenate(column) for column in zip(*found, strict=True))
    losses, sure, right = np.concatenate(values, axis=1)
    return Judgement(
        indices=indices, labels=labels, guesses=guesses, losses=losses, sure=sure, right=right
    )


def worst(judgement: Judgement, held_out: Framed, most: int) -> tuple[WrongGuess, ...]:
    """The wrong guesses with the greatest losses, at most so many."""
    rows = judgement.errors[:most]
    crops = held_out.centres(judgement.indices[rows])
    return tuple(
        WrongGuess(
            name=held_out.part.name(int(judgement.indices[row])),
            pixels=pixels,
            label=int(judgement.labels[row]),
            guess=int(judgement.guesses[row]),
            loss=float(judgement.losses[row]),
            sure=float(judgement.sure[row]),
            right=float(judgement.right[row]),
        )
        for row, pixels in zip(rows.tolist(), crops, strict=True)
        if isinstance(pixels, np.ndarray)
    )
