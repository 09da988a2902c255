"""What there is to find in crops, and how near a net's boxes come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from vggc.data.loader import CropObjects
from vggc.data.objects import overlaps as exact
from vggc.recipe.heads import BoxTargets, HeadLoss
from vggc.training.augment import Targets
from vggc.training.boxes import ObjectsSeen, box_loss, corners, generalised_overlaps, overlaps
from vggc.training.objective import Objective, TrainedHead, boxes_of

WHOLE = (0.0, 0.0, 1.0, 1.0)
BOX = (0.25, 0.5, 0.75, 1.0)


def seen(
    box: tuple[float, ...],
    window: tuple[float, ...],
    rules: BoxTargets | None = None,
    flipped: bool = False,
) -> ObjectsSeen:
    """What there is to find in one crop that shows a window of a picture with one object."""
    located = CropObjects(
        torch.tensor(box, dtype=torch.float64).view(1, 1, 4),
        torch.tensor(window, dtype=torch.float64).view(1, 4),
    )
    return ObjectsSeen.of(located, rules or BoxTargets(), torch.tensor([flipped]))


def boxes(count: int, seed: int = 0) -> torch.Tensor:
    """Random boxes by their corners, float64."""
    first, second = np.random.default_rng(seed).random((2, count, 2))
    both = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)
    return torch.from_numpy(both)


def test_a_box_is_told_by_its_centre_and_sides_in_shares_of_the_crop() -> None:
    found = seen(BOX, WHOLE)
    assert found.targets.tolist() == [[0.5, 0.75, 0.5, 0.5]]
    assert found.learned.tolist() == [True]
    half = seen(BOX, (0.25, 0.5, 0.75, 1.0))
    assert half.targets.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_a_mirrored_crop_shows_the_box_mirrored() -> None:
    found = seen((0.0, 0.0, 0.25, 0.5), WHOLE, flipped=True)
    assert found.targets.tolist() == [[0.875, 0.25, 0.25, 0.5]]
    assert found.pictures.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_of_a_box_that_a_crop_cuts_all_or_what_is_inside_is_learned() -> None:
    window = (0.5, 0.0, 1.0, 1.0)
    assert seen(BOX, window).targets.tolist() == [[0.0, 0.75, 1.0, 0.5]]
    assert seen(BOX, window, BoxTargets(cut="clip")).targets.tolist() == [[0.25, 0.75, 0.5, 0.5]]


@pytest.mark.parametrize(("least", "is_learned"), [(0.4, True), (0.5, True), (0.6, False)])
def test_an_object_of_which_too_little_is_shown_is_not_learned(
    least: float, is_learned: bool
) -> None:
    found = seen(BOX, (0.5, 0.0, 1.0, 1.0), BoxTargets(least_shown=least))
    assert found.learned.tolist() == [is_learned]


def test_nothing_is_learned_from_a_crop_beside_the_object() -> None:
    assert seen(BOX, (0.0, 0.0, 1.0, 0.5), BoxTargets(least_shown=0.0)).learned.tolist() == [False]


def test_the_overlap_is_that_of_the_box_within_the_picture() -> None:
    found = seen(BOX, WHOLE)
    right = torch.tensor([[0.5, 0.75, 0.5, 0.5]])
    assert found.overlaps(right).tolist() == [1.0]
    beyond = torch.tensor([[0.5, 1.0, 0.5, 1.0]])  # half of it lies below the picture
    assert found.overlaps(beyond).tolist() == [1.0]


def test_the_overlap_is_with_that_object_which_is_met_best() -> None:
    located = CropObjects(
        torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]).double(),
        torch.tensor([WHOLE]).double(),
    )
    found = ObjectsSeen.of(located, BoxTargets())
    assert found.overlaps(torch.tensor([[0.75, 0.75, 0.5, 0.5]])).tolist() == [1.0]


def test_overlaps_are_those_of_the_data() -> None:
    first, second = boxes(200), boxes(200, 1)
    found = overlaps(first, second).numpy()
    np.testing.assert_allclose(found, exact(first.numpy(), second.numpy()), atol=1e-12)
    assert overlaps(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0.0]


def test_a_negative_side_counts_as_the_same_of_a_positive() -> None:
    assert corners(torch.tensor([0.5, 0.5, -0.5, 0.5])).tolist() == [0.25, 0.25, 0.75, 0.75]


def test_the_generalised_overlap_is_that_of_torchvision() -> None:
    """By hand: boxes side by side, of area 1 each, with a gap of 1 between them."""
    first, second = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    assert generalised_overlaps(first, second).tolist() == pytest.approx([-1 / 3])
    same = boxes(50)
    assert generalised_overlaps(same, same).tolist() == pytest.approx([1.0] * 50)


def test_the_losses_of_boxes_are_their_formulas() -> None:
    given, wanted = torch.rand(2, 7, 4, generator=torch.Generator().manual_seed(0))
    euclidean = box_loss(HeadLoss("euclidean"), given, wanted)
    # Caffe's layer: the sum over the batch of squared distances over twice the number of images.
    assert euclidean.mean().item() == pytest.approx((given - wanted).square().sum().item() / 14)
    smooth = box_loss(HeadLoss("smooth-l1", beta=0.3), given, wanted)
    theirs = functional.smooth_l1_loss(given, wanted, beta=0.3, reduction="none").sum(1)
    assert smooth.tolist() == theirs.tolist()
    giou = box_loss(HeadLoss("giou"), given, wanted)
    assert (giou >= 0).all()
    assert (giou <= 2).all()
    assert box_loss(HeadLoss("giou"), wanted, wanted).abs().max() < 1e-6


@pytest.mark.parametrize("loss", ["euclidean", "smooth-l1", "giou"])
def test_every_loss_of_boxes_leads_to_the_box(loss: str) -> None:
    wanted = torch.tensor([[0.3, 0.6, 0.2, 0.4]])
    given = torch.tensor([[0.7, 0.2, 0.5, 0.1]], requires_grad=True)
    optimiser = torch.optim.Adam([given], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        box_loss(HeadLoss(loss), given, wanted).sum().backward()  # type: ignore[arg-type, no-untyped-call]
        optimiser.step()
    assert overlaps(corners(given), corners(wanted)).item() > 0.95


def test_of_a_box_for_each_class_that_of_the_class_is_meant() -> None:
    given = torch.arange(24.0).view(2, 12)
    assert boxes_of(given, torch.tensor([2, 0])).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert boxes_of(given[:, :4], torch.tensor([2, 0])).tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]


def test_the_loss_is_the_sum_over_heads_by_their_weights() -> None:
    heads = (
        TrainedHead("what", "classes", HeadLoss("cross-entropy", "what", 0.5)),
        TrainedHead("where", "boxes", HeadLoss("euclidean", "where", 3)),
    )
    objects = seen(BOX, WHOLE)
    targets = Targets(torch.tensor([1]), objects=objects)
    given = {"what": torch.tensor([[0.0, 0.0]]), "where": torch.zeros(1, 4)}
    expected = 0.5 * np.log(2) + 3 * (0.25 + 0.5625 + 0.25 + 0.25) / 2
    assert Objective(heads).losses(given, targets).tolist() == pytest.approx([expected])


def test_what_is_not_learned_adds_nothing_to_the_loss_and_the_measures_of_steps() -> None:
    head = TrainedHead("output", "boxes", HeadLoss("euclidean"))
    objects = seen(BOX, (0.5, 0.0, 1.0, 1.0), BoxTargets(least_shown=0.9))
    targets = Targets(torch.tensor([0]), objects=objects)
    given = {"output": torch.tensor([[0.0, 0.75, 1.0, 0.5]])}
    objective = Objective((head,))
    assert objective.losses(given, targets).tolist() == [0.0]
    assert objective.hits(given, targets, learned=True).tolist() == [0, 0, 0, 0]
    assert objective.hits(given, targets, learned=False).tolist() == [0, 1, 1, 1]
