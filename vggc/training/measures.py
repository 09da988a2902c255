"""What of a training's images rises as the net learns, in the order that people read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vggc.training.progress import Epoch
from vggc_runtime.outputs import HeadKind

MeasuredPart: TypeAlias = Literal["training", "held-out"]


@dataclass(frozen=True)
class Accuracy:
    """A figure of an epoch from 0 to 1, the higher the better: the field that holds it, which
    images it is of, its name, and the kind of heads that it is of.
    """

    field: str
    part: MeasuredPart
    name: str
    kind: HeadKind

    def of(self, row: Epoch) -> float | None:
        """The figure in an epoch; None where no head of the net is of the kind."""
        value: float | None = getattr(row, self.field)
        return value


ACCURACIES = (
    Accuracy("train_top1", "training", "top-1", "classes"),
    Accuracy("val_top1", "held-out", "top-1", "classes"),
    Accuracy("val_top5", "held-out", "top-5", "classes"),
    Accuracy("train_iou", "training", "mean IoU", "boxes"),
    Accuracy("val_iou", "held-out", "mean IoU", "boxes"),
    Accuracy("val_iou50", "held-out", "IoU > 0.5", "boxes"),
)
PANELS: dict[HeadKind, str] = {"classes": "Accuracy", "boxes": "Boxes"}
"""What pictures of accuracies are called, by the kind of heads."""


def accuracies(row: Epoch, part: MeasuredPart | None = None) -> Iterator[tuple[Accuracy, float]]:
    """The figures that an epoch has, of one part of the images if it is given."""
    for each in ACCURACIES:
        value = each.of(row)
        if value is not None and part in (None, each.part):
            yield each, value


MAIN_FIELDS = "val_top1", "val_iou"
"""The figures by which the best epoch is told, the first of each kind of heads."""


def held_out(epochs: Iterable[Epoch]) -> tuple[Accuracy, ...]:
    """The figures of held-out images that any of these epochs has; where there are no epochs those
    of classes.
    """
    rows, all_of_them = [*epochs], [each for each in ACCURACIES if each.part == "held-out"]
    if not rows:
        return tuple(each for each in all_of_them if each.kind == "classes")
    return tuple(each for each in all_of_them if any(each.of(row) is not None for row in rows))


def course(epochs: Sequence[Epoch], kind: HeadKind) -> list[tuple[Accuracy, tuple[float, ...]]]:
    """How the figures of heads of a kind went over the epochs; none where there are no such
    heads.
    """
    found = []
    for each in ACCURACIES:
        values = tuple(value for row in epochs if (value := each.of(row)) is not None)
        if each.kind == kind and epochs and len(values) == len(epochs):
            found.append((each, values))
    return found
