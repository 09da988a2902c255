"""How images are varied: by the seed and the step alone, and as the recipe says."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.support.training_data import RECIPE, found, module, picture, task
from vggc.data.crops import TRIES, CropWindow, Framing
from vggc.data.draws import Stream, generator
from vggc.data.loader import Batch, TrainBatches, load, num_workers
from vggc.data.order import Classes, Order, Share
from vggc.data.prepare import prepare
from vggc.data.vary import OPS, Jitter, RandomOps, Rotation, changed
from vggc.recipe.augment import ColourJitter, Cutmix, Erasing, Mixup, RandAugment, ResizedCrop
from vggc.recipe.train import Recipe
from vggc.training.augment import Targets, Weighing, changes_of, erased, erasures, window_of
from vggc.training.learner import Learner
from vggc_runtime.preprocessing import Pixels

JITTER = ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
EVERYTHING = replace(
    RECIPE,
    resized_crop=ResizedCrop(),
    rotate=20.0,
    colour_jitter=JITTER,
    randaugment=RandAugment(),
    rgb_shift=0.1,
    erasing=Erasing(0.5),
    mixup=Mixup(0.2, 0.7),
    cutmix=Cutmix(1.0, 0.7),
    class_weights=(1.0, 2.0, 3.0),
    sampler="balanced",
)
RECIPES = {
    "resized-crop": replace(RECIPE, resized_crop=ResizedCrop()),
    "rotate": replace(RECIPE, rotate=20.0),
    "colour-jitter": replace(RECIPE, colour_jitter=JITTER),
    "randaugment": replace(RECIPE, randaugment=RandAugment(3, 15)),
    "erasing": replace(RECIPE, erasing=Erasing(0.5)),
    "mixup": replace(RECIPE, mixup=Mixup(0.2, 0.9)),
    "cutmix": replace(RECIPE, cutmix=Cutmix(1.0, 0.9)),
    "balanced": replace(RECIPE, sampler="balanced"),
    "everything": EVERYTHING,
}
ALONE = Share()
EACH = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def batches(recipe: Recipe, share: Share = ALONE, room: int = 2**20) -> TrainBatches:
    whole = task(recipe, seed=3)
    data = prepare(found(), (3, 8, 8), recipe.scale, room=room, window=window_of(recipe))
    return TrainBatches(data.train, whole.order, share, changes_of(recipe))


def given(recipe: Recipe, batch: Batch, step: int) -> tuple[Tensor, Targets]:
    """What a step gives the net of a batch, and wants of it."""
    return task(recipe, seed=3).learner().augmentation(batch, step)


def image(height: int = 12, width: int = 16) -> Pixels:
    return picture(1, 1, height, width)


# ---------------------------------------------------------------- the same whoever makes it


@EACH
def test_a_varied_batch_depends_on_seed_and_step_only(recipe: Recipe) -> None:
    ahead, late = batches(recipe), batches(recipe)
    ahead[0], ahead[1]
    one, same = ahead[6], late[6]
    assert torch.equal(one.images, same.images)
    assert torch.equal(given(recipe, one, 6)[0], given(recipe, same, 6)[0])
    plain = given(RECIPE, batches(RECIPE)[6], 6)[0]
    assert not torch.equal(given(recipe, one, 6)[0], plain)
    assert not torch.equal(given(recipe, one, 6)[0], given(recipe, ahead[2], 2)[0])


@EACH
def test_worker_processes_vary_a_batch_alike(recipe: Recipe) -> None:
    steps = range(1, 5)
    for one, other in zip(
        load(batches(recipe), steps, 0), load(batches(recipe), steps, 2), strict=True
    ):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@EACH
def test_processes_together_vary_the_batch_of_one(recipe: Recipe) -> None:
    whole = batches(recipe)[2]
    shares = [batches(recipe, Share(rank, 2))[2] for rank in range(2)]
    assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
    inputs, targets = given(recipe, whole, 2)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    parts = [given(recipe, share, 2) for share in shares]
    assert torch.equal(torch.cat([part for part, _ in parts]), inputs)
    logits = torch.randn(4, 3)
    losses = [
        wanted.loss(logits[share.rows]) for share, (_, wanted) in zip(shares, parts, strict=True)
    ]
    torch.testing.assert_close(torch.cat(losses), targets.loss(logits))


@EACH
def test_parts_of_a_step_are_varied_as_the_whole(recipe: Recipe) -> None:
    """Gradients of a step in parts are those of the whole, up to the order of sums."""
    gradients = []
    for parts in (1, 3):
        net = module()
        net[6] = torch.nn.Identity()
        torch.manual_seed(0)
        for parameter in net.parameters():
            torch.nn.init.uniform_(parameter, -0.5, 0.5)
        taught = learner(replace(recipe, accumulate=parts), net)
        taught.step(batches(recipe)[2], 2, lr=0.0)
        gradients.append([p.grad for p in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def learner(recipe: Recipe, net: torch.nn.Module) -> Learner:
    return task(recipe, net, seed=3).learner()


def test_pictures_in_memory_and_on_disk_are_varied_alike() -> None:
    kept, read = batches(EVERYTHING), batches(EVERYTHING, room=0)
    assert kept.framed.kept is not None
    assert read.framed.kept is None
    assert torch.equal(kept[1].images, read[1].images)


def test_pictures_in_memory_that_are_varied_are_work_for_processes() -> None:
    kept = batches(RECIPE).framed
    assert num_workers(kept) == 0
    assert num_workers(kept, 1, changes_of(EVERYTHING)) >= 1
    assert num_workers(batches(EVERYTHING).framed) >= 1


# ---------------------------------------------------------------- parts of whole pictures


def sizes(window: CropWindow, whole: tuple[int, int], count: int = 4000) -> np.ndarray:
    tries = generator(0, Stream.WINDOW).random((count, TRIES, 2))
    return np.array([window.size(whole, each) for each in tries])


def test_parts_have_the_areas_and_ratios_that_are_asked_for() -> None:
    """Of a picture that holds every such part both are drawn evenly, the ratio by its logarithm."""
    width, height = sizes(CropWindow((0.1, 0.4), (0.5, 2.0)), (1000, 1000)).T
    areas, ratios = width * height / 1e6, np.log(width / height)
    assert (areas.min(), areas.max()) == pytest.approx((0.1, 0.4), abs=2e-3)
    assert (areas.mean(), areas.std()) == pytest.approx((0.25, 0.3 / sqrt(12)), abs=4e-3)
    assert (ratios.min(), ratios.max()) == pytest.approx((-log(2), log(2)), abs=1e-2)
    assert (ratios.mean(), ratios.std()) == pytest.approx((0, 2 * log(2) / sqrt(12)), abs=2e-2)


def test_a_part_that_no_try_gives_is_the_largest_whose_ratio_is_allowed() -> None:
    square = CropWindow((1.0, 1.0), (1.0, 1.0))
    tries = np.full((TRIES, 2), 0.5)
    assert square.box((300, 100), tries, 0.5, 0.5) == (100, 0, 200, 100)
    assert square.size((100, 300), tries) == (100, 100)
    assert CropWindow((1.0, 1.0), (2.0, 3.0)).size((100, 300), tries) == (100, 50)
    assert square.size((7, 7), tries) == (7, 7)
    assert CropWindow((1e-9, 1e-9), (1.0, 1.0)).size((9, 9), tries) == (9, 9)


def test_every_place_of_a_part_is_as_likely() -> None:
    quarter, tries = CropWindow((0.25, 0.25), (1.0, 1.0)), np.full((TRIES, 2), 0.5)
    places = [quarter.box((6, 4), tries, 0, place / 40)[0] for place in range(40)]
    width = quarter.size((6, 4), tries)[0]
    assert np.bincount(places).tolist() == [40 // (6 - width + 1)] * (6 - width + 1)


def test_a_part_is_cut_from_the_whole_picture_and_resized() -> None:
    """Whatever the scale, which images are held out at."""
    window = CropWindow((0.25, 0.25), (1.0, 1.0))
    framing = Framing((3, 8, 8), (200, 200), draft=False, window=window)
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[16:, 16:] = 200
    tries = np.full((TRIES, 2), 0.5)
    assert (framing.cut_part(pixels, tries, 0.999, 0.999).pixels == 200).all()
    assert (framing.cut_part(pixels, tries, 0, 0).pixels == 0).all()
    half = framing.cut_part(pixels, tries, 0.999, 0.5).pixels[:, :, 0]
    assert half.shape == (8, 8)
    assert (half[:, :3] == 0).all()
    assert (half[:, 5:] == 200).all()


def test_pictures_that_parts_are_cut_from_are_kept_as_they_are() -> None:
    recipe = replace(RECIPE, scale=(9, 9), resized_crop=ResizedCrop())
    data = prepare(found(), (3, 8, 8), recipe.scale, window=window_of(recipe))
    assert data.train.kept is not None
    assert {pixels.shape for pixels in data.train.kept} == {(8, 8, 3)}
    assert data.preprocessing.scale == 9


# ---------------------------------------------------------------- turned and recoloured


def test_a_turn_by_a_right_angle_moves_each_pixel() -> None:
    square = image(9, 9)
    turned = changed(square, [Rotation(90)], [[1.0]])
    assert (turned == np.rot90(square)).all()
    assert (changed(square, [Rotation(90)], [[0.5]]) == square).all()


def one_change(**strengths: float) -> Jitter:
    return Jitter(**{"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, **strengths})


def jittered(pixels: Pixels, draw: float, **strengths: float) -> Pixels:
    """Pixels after a jitter whose strengths are all drawn alike."""
    return changed(pixels, [one_change(**strengths)], [[0, 0.1, 0.2, 0.3, *[draw] * 4]])


def test_without_strength_colours_stay() -> None:
    assert (jittered(image(), 0.9) == image()).all()
    for key in ("brightness", "contrast", "saturation"):
        assert (jittered(image(), 0.5, **{key: 0.8}) == image()).all()


def test_colours_are_varied_as_their_factors_say() -> None:
    """A strength of 1 reaches from the factor 0 to the factor 2."""
    pixels = (image() // 2).astype(np.uint8)
    assert (jittered(pixels, 1.0, brightness=1) == 2 * pixels).all()
    assert not jittered(pixels, 0.0, brightness=1).any()
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    assert (jittered(pixels, 0.0, saturation=1) == grey[:, :, None]).all()
    assert (jittered(pixels, 0.0, contrast=1) == round(float(grey.mean()))).all()
    wide = jittered(pixels, 1.0, contrast=0.5).astype(float)
    mean = round(float(grey.mean()))
    expected = np.clip(mean + 1.5 * (pixels.astype(float) - mean), 0, 255)
    assert np.abs(wide - expected).max() <= 1


def test_hues_turn_on_the_circle() -> None:
    red, green, blue = (np.full((2, 2, 3), colour, np.uint8) for colour in np.eye(3) * 255)
    third = 1 / 3
    assert (jittered(red, 1.0, hue=third) == green).all()
    assert (jittered(red, 0.0, hue=third) == blue).all()
    assert (jittered(blue, 1.0, hue=third) == red).all()


def test_the_order_of_the_jitter_is_drawn() -> None:
    strengths = {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.2}
    rest = [0.9, 0.1, 0.8, 0.7]
    first, second = (
        changed(image(), [one_change(**strengths)], [[*order, *rest]])
        for order in ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1])
    )
    assert not (first == second).all()


def test_operations_of_no_strength_leave_an_image_be() -> None:
    pixels = np.minimum(image(), 254)
    before = Image.fromarray(pixels)
    for index, op in enumerate(OPS[:-2]):
        assert (np.asarray(op.change(before, 0.0)) == pixels).all(), index


def test_operations_are_those_of_randaugment() -> None:
    """At the greatest magnitude; by one draw for the operation and one for the way it goes."""
    pixels = image(331, 331)
    before = Image.fromarray(pixels)

    def after(index: int, sign: float) -> Pixels:
        return changed(pixels, [RandomOps(1, 30)], [[(index + 0.5) / len(OPS), sign]])

    assert len(OPS) == 14
    assert (after(0, 0.9) == pixels).all()
    for sign, step in ((0.9, 1), (0.1, -1)):
        shear = (1, 0.3 * step, 0, 0, 1, 0)
        sheared = before.transform(before.size, Image.Transform.AFFINE, shear)
        assert (after(1, sign) == np.asarray(sheared)).all()
        assert (after(5, sign) == np.asarray(before.rotate(30 * step))).all()
    assert (after(3, 0.9)[:, :181] == pixels[:, 150:]).all()
    assert not after(3, 0.9)[:, 181:].any()
    assert (after(4, 0.1)[150:] == pixels[:181]).all()
    dark = np.abs(after(6, 0.1).astype(float) - pixels * 0.1)
    assert dark.max() <= 1
    assert (after(10, 0.9) == pixels // 16 * 16).all()
    assert (after(11, 0.9) == 255 - pixels).all()


def test_operations_are_drawn_evenly() -> None:
    draws = generator(0, Stream.RANDAUGMENT).random(14_000)
    counts = np.bincount((draws * len(OPS)).astype(int))
    assert counts.min() > 880
    assert RandomOps(3, 9).num_draws == 6


def test_grey_images_are_varied_too() -> None:
    grey = image()[:, :, :1]
    changes = [Rotation(30), one_change(brightness=0.4, contrast=0.4), RandomOps(14, 9)]
    draws = [generator(1, each.stream).random(each.num_draws).tolist() for each in changes]
    assert changed(grey, changes, draws).shape == grey.shape


# ---------------------------------------------------------------- erased


def boxes(erasing: Erasing, size: tuple[int, int], batch: int = 5000) -> np.ndarray:
    return erasures(erasing, Order(batch, batch, seed=0), 0, size)


def test_what_is_erased_has_the_areas_and_ratios_that_are_asked_for() -> None:
    top, bottom, left, right = boxes(Erasing(1.0), (500, 500)).T
    height, width = bottom - top, right - left
    areas, ratios = height * width / 500**2, np.log(height / width)
    assert (areas.min(), areas.max()) == pytest.approx((0.02, 0.33), abs=3e-3)
    # Large areas at extreme ratios do not fit, and are drawn again: a little less than the middle.
    assert areas.mean() == pytest.approx(0.173, abs=6e-3)
    assert (ratios.min(), ratios.max()) == pytest.approx((log(0.3), log(3.3)), abs=2e-2)
    assert top.min() == left.min() == 0
    assert bottom.max() == right.max() == 500


def test_it_is_erased_by_chance() -> None:
    found = boxes(Erasing(0.25), (32, 32))
    assert (found[:, 1] > 0).mean() == pytest.approx(0.25, abs=0.02)
    assert not boxes(Erasing(1.0, area=(1.0, 1.0)), (32, 32)).any()  # never less than the whole


def test_a_rectangle_gets_the_mean_and_the_rest_stays() -> None:
    images = (torch.rand(2, 3, 4, 5) + 1).to(memory_format=torch.channels_last)
    result = erased(images, torch.tensor([[1, 3, 2, 5], [0, 0, 0, 0]]))
    assert torch.equal(result[1], images[1])
    assert result.stride() == images.stride()
    assert not result[0, :, 1:3, 2:5].any()
    assert int((result[0] == images[0]).sum()) == 3 * (20 - 6)


# ---------------------------------------------------------------- mixed by chance


def test_pairs_are_mixed_by_chance() -> None:
    recipe = replace(RECIPE, mixup=Mixup(1.0, chance=0.3))
    mixture = task(recipe).learner().augmentation.mixture(8000, step=0)
    is_mixed = mixture.share < 1
    assert is_mixed.mean() == pytest.approx(0.3, abs=0.02)
    assert (is_mixed[::2] == is_mixed[1::2]).all()
    assert not mixture.is_cut.any()


def test_of_both_each_mixes_its_half_by_its_own_chance() -> None:
    recipe = replace(RECIPE, mixup=Mixup(1.0, 0.2), cutmix=Cutmix(1.0, 0.8))
    mixture = task(recipe).learner().augmentation.mixture(20_000, step=0)
    assert mixture.is_cut.mean() == pytest.approx(0.4, abs=0.02)
    assert ((mixture.share < 1) & ~mixture.is_cut).mean() == pytest.approx(0.1, abs=0.02)


def test_a_chance_of_one_mixes_what_was_mixed_without_it() -> None:
    for recipe in (
        replace(RECIPE, mixup=Mixup(0.4), cutmix=Cutmix(1.0)),
        replace(RECIPE, mixup=Mixup(0.4)),
    ):
        random = generator(0, Stream.MIXTURE, 0, 0)
        cut = random.random(50) < (0.5 if recipe.cutmix else 0)
        beta, other = random.beta(1.0, 1.0, 50), random.beta(0.4, 0.4, 50)
        mixture = task(recipe).learner().augmentation.mixture(100, step=0)
        assert (mixture.is_cut[::2] == cut).all()
        assert (mixture.share[::2] == np.where(cut, beta, other)).all()


# ---------------------------------------------------------------- classes


LABELS = np.array([0] * 50 + [1] * 10 + [2] * 3)


def epoch(order: Order, number: int) -> np.ndarray:
    return np.concatenate([order.indices(number, step) for step in range(order.num_batches)])


def test_a_balanced_epoch_takes_each_class_equally_often() -> None:
    order = Order(63, 8, 5, Classes.of(LABELS))
    assert order.num_batches == Order(63, 8, 5).num_batches
    steps = [len(order.indices(2, step)) for step in range(order.num_batches)]
    assert steps == [order.size(2 * order.num_batches + step) for step in range(len(steps))]
    taken = [epoch(order, number) for number in range(20)]
    assert all(np.bincount(LABELS[each]).tolist() == [21, 21, 21] for each in taken)
    counts = np.bincount(np.concatenate(taken))
    for label in range(3):
        mine = counts[label == LABELS]
        assert mine.max() - mine.min() <= 1  # each image of a class as often as any other
    assert not (taken[0] == taken[1]).all()
    assert (epoch(Order(63, 8, 5, Classes.of(LABELS)), 7) == taken[7]).all()


def test_classes_that_do_not_divide_an_epoch_are_equal_over_all() -> None:
    order = Order(64, 8, 0, Classes.of(LABELS))
    counts = [np.bincount(LABELS[epoch(order, number)]) for number in range(6)]
    assert all(each.max() - each.min() == 1 for each in counts)
    assert sum(counts).tolist() == [128] * 3


def test_a_class_of_one_image_among_many_is_balanced_fast() -> None:
    labels = np.array([0] + [1] * 200_000)
    taken = epoch(Order(len(labels), 256, 0, Classes.of(labels)), 1)
    assert np.bincount(labels[taken]).tolist() == [100_000, 100_001]


def test_balanced_weights_make_classes_count_the_same() -> None:
    weighing = Weighing.of(replace(RECIPE, class_weights="balanced"), LABELS, 3)
    assert weighing
    assert weighing.weights == pytest.approx(63 / 3 / np.array([50, 10, 3]))
    assert np.bincount(LABELS, weighing.weights[LABELS]) == pytest.approx([21, 21, 21])
    assert Weighing.of(RECIPE, LABELS, 3) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_step_is_pytorchs_weighted_mean(smoothing: float) -> None:
    recipe = replace(RECIPE, batch=15, class_weights=(1.0, 2.0, 5.0), label_smoothing=smoothing)
    batch = batches(recipe)[0]
    _, targets = given(recipe, batch, 0)
    logits = torch.randn(len(batch.labels), 3)
    weights = torch.tensor([1.0, 2.0, 5.0])
    theirs = torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing)(logits, batch.labels)
    mine = targets.loss(logits, smoothing).sum() / batch.total
    torch.testing.assert_close(mine, theirs)


def test_equal_weights_change_nothing() -> None:
    recipe = replace(RECIPE, class_weights=(3.0, 3.0, 3.0), mixup=Mixup(1.0))
    batch, logits = batches(recipe)[1], torch.randn(4, 3)
    plain = given(replace(recipe, class_weights=None), batch, 1)[1].loss(logits)
    torch.testing.assert_close(given(recipe, batch, 1)[1].loss(logits), plain)


def test_held_out_images_are_not_weighted() -> None:
    net = module()
    plain, weighted = (
        task(replace(RECIPE, class_weights=weights), net).learner()
        for weights in (None, (1.0, 20.0, 300.0))
    )
    batch = batches(RECIPE)[0]
    assert plain.evaluate([batch], lambda: False) == weighted.evaluate([batch], lambda: False)
