"""Boxes on the device: where the objects are in a batch of crops, and how near a net's boxes come.

A net gives a box as (centre x, centre y, width, height) in shares of its crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vggc.data.loader import CropObjects
from vggc.data.windows import WHOLE, centres_of, clipped, mirrored, shares_inside, to_crop
from vggc.recipe.heads import BoxTargets, HeadLoss

FOUND = 0.5
"""A box has found an object where they overlap by more than this.
Source: Simonyan & Zisserman (2015), appendix A; Russakovsky et al. (2015), section 4.2.
"""


@dataclass(frozen=True)
class ObjectsSeen:
    """What there is to find in N crops, float32, in shares of the crops.

    `boxes` (N, M, 4) are the objects by their corners, behind them boxes of no area; `targets`
    (N, 4) is what a net is to say, and `learned` (N,) whether it is to say it from this crop;
    `pictures` (N, 4) are the edges of the pictures.
    """

    boxes: Tensor
    targets: Tensor
    learned: Tensor
    pictures: Tensor

    @classmethod
    def of(
        cls,
        located: CropObjects,
        rules: BoxTargets,
        flipped: Tensor | None = None,
        device: torch.device | None = None,
    ) -> ObjectsSeen:
        """What is to be found in crops, of which those that are `flipped` (N,) were mirrored.

        The first object of each picture is the one that is learned.
        """
        boxes, windows = located.boxes.numpy(), located.windows.numpy()
        if flipped is not None:
            windows = np.where(flipped.numpy()[:, None], mirrored(windows), windows)
        first = boxes[:, 0]
        targets = to_crop(first, windows)
        if rules.cut == "clip":
            targets = clipped(targets)
        learned = shares_inside(first, windows) >= max(rules.least_shown, 1e-9)
        found = (
            to_crop(boxes, windows[:, None]),
            centres_of(targets),
            learned,
            to_crop(WHOLE, windows),
        )
        tensors = [torch.from_numpy(each).to(device, torch.float32) for each in found]
        return cls(tensors[0], tensors[1], tensors[2] > 0, tensors[3])

    def part(self, rows: slice) -> ObjectsSeen:
        """What is to be found in some of the crops."""
        return ObjectsSeen(
            self.boxes[rows], self.targets[rows], self.learned[rows], self.pictures[rows]
        )

    def overlaps(self, given: Tensor) -> Tensor:
        """How much the boxes that a net gives (N, 4), within the pictures, overlap with that object
        which they meet best, as intersection over union (N,).
        """
        low, high = (edges.repeat(1, 2) for edges in self.pictures.tensor_split(2, dim=1))
        boxes = corners(given).clamp(low, high)
        return overlaps(boxes[:, None], self.boxes).amax(1)


def corners(given: Tensor) -> Tensor:
    """The corners (…, 4) of boxes that a net gives, in order: a negative width or height counts as
    the same of a positive.
    """
    middle, half = given[..., :2], given[..., 2:].abs() / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """The areas of boxes (…, 4) by their corners: (…)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (…, 4) by their corners, 0 of boxes without area."""
    shared, union = shared_and_union(first, second)
    return torch.where(union > 0, shared / union.clamp_min(1e-12), 0.0)


def shared_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The areas of the intersections and of the unions of boxes (…, 4) by their corners."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = areas(torch.cat([low, high], dim=-1))
    return shared, areas(first) + areas(second) - shared


def box_loss(loss: HeadLoss, given: Tensor, wanted: Tensor) -> Tensor:
    """The losses (N,) of the boxes (N, 4) that a net gives, for those wanted (N, 4): see
    `HeadLoss`.
    """
    match loss.loss:
        case "smooth-l1":
            return functional.smooth_l1_loss(given, wanted, reduction="none", beta=loss.beta).sum(1)
        case "giou":
            return 1 - generalised_overlaps(corners(given), corners(wanted))
        case _:
            return (given - wanted).square().sum(1) / 2


def generalised_overlaps(first: Tensor, second: Tensor) -> Tensor:
    """The generalised intersection over union of boxes (…, 4) by their corners: that over union,
    less the share of the least box around both that neither fills.

    Source: Rezatofighi et al. (2019), "Generalized Intersection over Union", algorithm 1.
    """
    shared, union = shared_and_union(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    around = areas(torch.cat([low, high], dim=-1)).clamp_min(1e-12)
    return shared / union.clamp_min(1e-12) - (around - union) / around
