"""What a training makes small, and what it counts on the way: by the heads of a net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from vggc.ir.graph import BOX, Graph
from vggc.recipe.heads import HeadLoss, trained_heads
from vggc.training.augment import Targets
from vggc.training.boxes import FOUND, box_loss
from vggc_runtime.outputs import HeadKind

BEST = 5
"""The guesses among which a class is looked for."""


@dataclass(frozen=True)
class TrainedHead:
    """A head that is trained: its name, what it gives, and by which loss."""

    name: str
    kind: HeadKind
    loss: HeadLoss


@dataclass(frozen=True)
class Objective:
    """The heads that are trained, the main one first; `smoothing` is that of labels."""

    heads: tuple[TrainedHead, ...]
    smoothing: float = 0.0

    @classmethod
    def of(cls, losses: tuple[HeadLoss, ...], graph: Graph) -> Objective:
        """The objective of a net with these losses."""
        found = trained_heads(losses, graph)
        kinds = {head.name: head.kind for head in graph.heads}
        heads = tuple(TrainedHead(name, kinds[name], loss) for name, loss in found.items())
        return cls(heads)

    @property
    def plain(self) -> Objective:
        """The objective by which held-out images are measured: without smoothing."""
        return replace(self, smoothing=0.0)

    @cached_property
    def classes(self) -> str | None:
        """The head whose first guesses are counted; None where none tells classes."""
        return self.first("classes")

    @cached_property
    def boxes(self) -> str | None:
        """The head whose boxes are measured; None where none gives any."""
        return self.first("boxes")

    def first(self, kind: HeadKind) -> str | None:
        """The name of the first head of a kind."""
        return next((head.name for head in self.heads if head.kind == kind), None)

    def by_head(self, found: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a module gives of images, float32, by the names of the heads."""
        if isinstance(found, Tensor):
            return {self.heads[0].name: found.float()}
        return {head.name: found[head.name].float() for head in self.heads}

    def losses(self, given: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """The loss of each image (N,): the sum over heads, each by its weight.

        `given` are the outputs (N, …) of the heads by their names. The box of an object that is not
        learned from a crop adds nothing.
        """
        found = [self.loss(head, given[head.name], targets) for head in self.heads]
        return torch.stack(found).sum(0) if len(found) > 1 else found[0]

    def loss(self, head: TrainedHead, given: Tensor, targets: Targets) -> Tensor:
        """What one head adds to the loss of each image (N,)."""
        if head.kind == "classes":
            losses = targets.loss(given, self.smoothing)
        else:
            assert targets.objects
            boxes = boxes_of(given, targets.labels)
            each = box_loss(head.loss, boxes, targets.objects.targets)
            losses = torch.where(targets.objects.learned, each, 0.0)
        return losses if head.loss.weight == 1 else head.loss.weight * losses

    def hits(self, given: Mapping[str, Tensor], targets: Targets, *, learned: bool) -> Tensor:
        """Sums over the images (4,), float64: first guesses that were right; boxes that were
        measured, how much they overlap with objects, and by how many those are found.

        Where only what is `learned` counts, boxes of other crops are left out.
        """
        sums = torch.zeros(4, dtype=torch.float64, device=targets.labels.device)
        if self.classes:
            sums[0] = (given[self.classes].argmax(1) == targets.labels).sum()
        if self.boxes and targets.objects:
            boxes = boxes_of(given[self.boxes], targets.labels)
            overlap = targets.objects.overlaps(boxes).double()
            counted = targets.objects.learned
            counted = counted if learned else torch.ones_like(counted)
            sums[1] = counted.sum()
            sums[2] = (overlap * counted).sum()
            sums[3] = ((overlap > FOUND) & counted).sum()
        return sums

    def best(self, given: Mapping[str, Tensor], labels: Tensor) -> int:
        """How many images have their class among the first five guesses."""
        if self.classes is None:
            return 0
        scores = given[self.classes]
        guesses = scores.topk(min(BEST, scores.shape[1]), dim=1).indices
        return int((guesses == labels[:, None]).sum().item())


def boxes_of(given: Tensor, labels: Tensor) -> Tensor:
    """The box (N, 4) that a head gives of each image: the only one of (N, 4), or of (N, 4·classes)
    that of the image's class.

    Source: Simonyan & Zisserman (2015), appendix A, for one box (SCR) and one for each class (PCR).
    """
    boxes = given.view(len(given), -1, BOX)
    if boxes.shape[1] == 1:
        return boxes[:, 0]
    return boxes[torch.arange(len(boxes), device=boxes.device), labels]


CLASSIFYING = Objective((TrainedHead("output", "classes", HeadLoss("cross-entropy")),))
"""The objective of a net whose only head tells classes."""
