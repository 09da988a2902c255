"""Images: found, checked, measured, and drawn into batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_data import RECIPE, part, picture, write_images

from vggc.diagnostics import UserError
from vggc.preprocessing import BrokenImageError, Preprocessing, decode, resize
from vggc.recipe.train import Recipe
from vggc.training import mistakes
from vggc.training.batches import (
    TrainBatches,
    num_batches,
    shift,
    train_batches,
    val_batches,
)
from vggc.training.images import Images, digits, find_images, prepare


def refused(folder: Path) -> type:
    with pytest.raises(UserError) as error:
        find_images(folder, seed=0)
    return type(error.value.diagnostics[0])


def test_the_digits_are_split_by_class_the_same_way_always() -> None:
    images = digits()
    assert (len(images.train), len(images.val)) == (1438, 359)
    assert images.classes == tuple("0123456789")
    assert not {*images.train.names} & {*images.val.names}
    assert np.bincount(images.val.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert digits().val.names == images.val.names


def test_grey_digits_become_three_equal_channels() -> None:
    data = prepare(digits(), Recipe(), 3, (32, 32))
    pixels = data.train.pixels(0)
    assert pixels.shape == (32, 32, 3)
    assert (pixels == pixels[:, :, :1]).all()
    assert len({*data.preprocessing.mean}) == len({*data.preprocessing.std}) == 1


@pytest.mark.parametrize("other", ["val", "test"])
def test_a_folder_with_parts(tmp_path: Path, other: str) -> None:
    write_images(tmp_path / "train", ("cat", "dog"), 3)
    write_images(tmp_path / other, ("cat", "dog"), 1)
    images = find_images(tmp_path, seed=0)
    assert images.classes == ("cat", "dog")
    assert images.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.val.names == ("cat/0.png", "dog/0.png")


def test_a_folder_without_parts_is_split_by_the_seed(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), 20)
    first, again, other = (find_images(tmp_path, seed) for seed in (1, 1, 2))
    assert first.val.names == again.val.names != other.val.names
    assert np.bincount(first.val.labels).tolist() == [4, 4]
    assert len(first.train) == 32


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") is mistakes.NoSuchFolder
    assert refused(tmp_path) is mistakes.NoClassFolders
    write_images(tmp_path / "one", ("cat",), 2)
    assert refused(tmp_path / "one") is mistakes.OnlyOneClass
    write_images(tmp_path / "half" / "train", ("cat", "dog"), 1)
    assert refused(tmp_path / "half") is mistakes.NoHeldOutFolder
    write_images(tmp_path / "half" / "val", ("cat", "frog"), 1)
    assert refused(tmp_path / "half") is mistakes.ClassesDiffer
    write_images(tmp_path / "few", ("cat", "dog"), 1)
    assert refused(tmp_path / "few") is mistakes.NothingHeldOut


@pytest.mark.parametrize("function", ["pathlib.Path.iterdir", "os.scandir"])
def test_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    write_images(tmp_path, ("cat", "dog"), 2)
    monkeypatch.setattr(function, refuse)
    assert refused(tmp_path) is mistakes.UnreadableFolder


def test_broken_images_are_named_and_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ("cat", "dog"), 4)
    write_images(tmp_path / "val", ("cat", "dog"), 2)
    whole = (tmp_path / "train/cat/0.png").read_bytes()
    (tmp_path / "train/cat/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train/dog/text.jpg").write_text("hello")
    (tmp_path / "train/dog/notes.txt").write_text("not an image by its name")
    (tmp_path / "val/dog/empty.png").touch()
    Image.new("1", (10_000, 9_000)).save(tmp_path / "train/cat/bomb.png")
    Image.new("L", (1, 500)).save(tmp_path / "train/cat/thread.png")
    data = prepare(find_images(tmp_path, 0), RECIPE, 3, (8, 8))
    assert (len(data.train), len(data.val)) == (8, 4)
    assert [skipped.name for skipped in data.skipped] == [
        "cat/bomb.png",
        "cat/cut.png",
        "cat/thread.png",
        "dog/text.jpg",
        "dog/empty.png",
    ]
    assert data.skipped[3].reason == "not an image"


def test_a_class_of_broken_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ("cat", "dog"), 1)
    write_images(tmp_path / "val", ("cat", "dog"), 1)
    (tmp_path / "train/cat/0.png").write_bytes(b"?")
    with pytest.raises(UserError) as error:
        prepare(find_images(tmp_path, 0), RECIPE, 3, (8, 8))
    assert isinstance(error.value.diagnostics[0], mistakes.NoReadableImages)


def test_a_net_with_two_channels_gets_no_images() -> None:
    with pytest.raises(UserError) as error:
        prepare(digits(), RECIPE, 2, (8, 8))
    assert isinstance(error.value.diagnostics[0], mistakes.UnsupportedChannels)


def images(recipe: Recipe = RECIPE, cache_bytes: int = 2**20) -> TrainBatches:
    found = Images(None, ("a", "b", "c"), part(5), part(2, first=100))
    data = prepare(found, recipe, 3, (8, 8), cache_bytes=cache_bytes)
    return TrainBatches(data.train, recipe, seed=3, epoch=1)


def test_mean_and_deviation_are_those_of_the_training_pixels() -> None:
    found = Images(None, ("a", "b", "c"), part(5), part(2, first=100))
    preprocessing = prepare(found, RECIPE, 3, (8, 8)).preprocessing
    pixels = np.stack(part(5).pictures) / 255
    assert preprocessing.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert preprocessing.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def test_an_epoch_holds_each_image_once_in_nearly_equal_batches() -> None:
    batches = images()
    assert [len(labels) for _, labels in (batches[k] for k in range(len(batches)))] == [4, 4, 4, 3]
    assert sorted(batches.order.tolist()) == [*range(15)]
    assert (num_batches(15, 4), num_batches(3, 256)) == (4, 1)


def test_a_batch_depends_on_seed_epoch_and_number_only() -> None:
    recipe = replace(RECIPE, scale=(9, 14))
    batches = images(recipe)
    batches[0]
    late, early = batches[2], images(recipe)[2]
    assert torch.equal(late[0], early[0])
    assert not torch.equal(late[0], replace(batches, epoch=2)[2][0])
    assert not torch.equal(late[0], replace(batches, seed=4)[2][0])


@pytest.mark.parametrize("shift", [None, 0.5])
@pytest.mark.parametrize("scale", [None, (12, 12), (9, 14)])
def test_worker_processes_give_the_same_batches(
    scale: tuple[int, int] | None, shift: float | None
) -> None:
    recipe = replace(RECIPE, scale=scale, rgb_shift=shift)
    found = Images(None, ("a", "b", "c"), part(5), part(2, first=100))
    kept = prepare(found, recipe, 3, (8, 8))
    read_again = prepare(found, recipe, 3, (8, 8), cache_bytes=0)
    assert kept.train.cached
    assert not read_again.train.cached
    for (x, y), (other_x, other_y) in zip(
        [*train_batches(kept, recipe, 0, 0, range(1, 4)), *val_batches(kept, recipe)],
        [*train_batches(read_again, recipe, 0, 0, range(1, 4)), *val_batches(read_again, recipe)],
        strict=True,
    ):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_flips_and_crops_happen() -> None:
    batches = images(replace(RECIPE, scale=(8, 8)))
    pixels, _ = batches[0]
    originals = [batches.stored.pixels(int(i)) for i in batches.order[:4]]
    mirrored = [
        not np.array_equal(image.permute(1, 2, 0).numpy(), original)
        for image, original in zip(pixels, originals, strict=True)
    ]
    assert 0 < sum(mirrored) < 4
    crops, _ = images(replace(RECIPE, scale=(16, 16)))[0]
    assert crops.shape == (4, 3, 8, 8)


def test_the_axes_of_colours_are_those_of_all_training_pixels() -> None:
    stored = images(replace(RECIPE, rgb_shift=0.1)).stored
    pixels = np.stack(part(5).pictures).reshape(-1, 3)
    axes = stored.colour_axes
    assert axes @ axes.T == pytest.approx(np.cov(pixels.T, bias=True), rel=1e-9)
    scaled = axes.T @ axes
    assert scaled == pytest.approx(np.diag(np.diag(scaled)), abs=1e-6)


def test_colours_shift_alike_all_over_an_image_and_along_the_axes() -> None:
    """Along an axis the shifts deviate by `rgb_shift` times the colours' own deviation."""
    plain = images(replace(RECIPE, batch=15, flip=False))
    axis = np.array([3.0, 2.0, 1.0])
    stored = replace(plain.stored, axes=np.outer(axis, [1, 0, 0]))
    shifted = replace(plain, stored=stored, recipe=replace(plain.recipe, rgb_shift=2.0))
    shifts = []
    for epoch in range(40):
        before, _ = replace(plain, epoch=epoch)[0]
        after, _ = replace(shifted, epoch=epoch)[0]
        change = (after.float() - before.float()).numpy()
        free = ((before > 20) & (before < 235)).numpy()  # neither end of the range is near
        for image, inside in zip(change, free, strict=True):
            by = [np.unique(channel[mask]) for channel, mask in zip(image, inside, strict=True)]
            assert [len(values) for values in by] == [1, 1, 1]
            shifts.append([values[0] for values in by])
    found = np.array(shifts)
    assert len({tuple(shift) for shift in shifts}) > 10
    assert found.mean(axis=0) == pytest.approx([0, 0, 0], abs=0.8)
    assert found.std(axis=0) == pytest.approx(2 * axis, rel=0.1)
    assert np.corrcoef(found.T).min() > 0.95


def test_shifted_colours_stay_within_their_range() -> None:
    image = np.array([[[0, 128, 250]]], np.uint8)
    assert shift(image, np.array([-9.0, 0.6, 9.0])).tolist() == [[[0, 129, 255]]]
    assert image.tolist() == [[[0, 128, 250]]]


def test_without_a_shift_nothing_else_changes() -> None:
    with_shift, without = images(replace(RECIPE, rgb_shift=1e-12)), images()
    assert torch.equal(with_shift[1][0], without[1][0])


def test_an_image_that_vanishes_is_an_explained_end(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), 5)
    data = prepare(find_images(tmp_path, 0), RECIPE, 3, (8, 8), cache_bytes=0)
    for path in tmp_path.glob("*/*.png"):
        path.unlink()
    with pytest.raises(UserError) as error:
        list(train_batches(data, RECIPE, 0, 0, range(2)))
    assert isinstance(error.value.diagnostics[0], mistakes.ImageLost)


def test_inference_can_repeat_the_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(picture(0, 0, 20, 30)).save(path)
    x = Preprocessing((8, 8), 10, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)).read(path)
    assert (x.shape, x.dtype) == ((1, 3, 8, 8), np.float32)
    resized = resize(decode(path, 3), 10, (8, 8))
    assert resized.shape == (10, 15, 3)
    centre = resized[1:9, 3:11] / 255
    expected = (centre - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.1]
    np.testing.assert_allclose(x[0].transpose(1, 2, 0), expected, atol=1e-5)


def test_without_a_scale_the_image_just_covers_the_input(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(picture(0, 0, 10, 30)).save(path)
    assert resize(decode(path, 1), None, (8, 8)).shape == (8, 24, 1)
    assert resize(decode(path, 1), None, (8, 30)).shape == (10, 30, 1)


def test_a_file_that_is_no_image_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError):
        decode(tmp_path / "none.png", 3)


def test_sixteen_bits_are_scaled_to_eight_and_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 400).reshape(20, 20).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray((values / 65_535).astype(np.float32)).save(tmp_path / "float.tiff")
    pixels = np.asarray(decode(tmp_path / "grey.png", 1))
    np.testing.assert_allclose(pixels, values / 257, atol=0.5)
    with pytest.raises(BrokenImageError, match="neither of 8 nor of 16 bits"):
        decode(tmp_path / "float.tiff", 1)


def test_images_have_one_channel_or_three(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(picture(0, 0)).save(path)
    with pytest.raises(BrokenImageError, match="this net takes 2"):
        Preprocessing((8, 8), None, (0.5,) * 2, (0.5,) * 2).read(path)


SOUND = Preprocessing((8, 9), 12, (0.5, 0.4), (0.2, 0.3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"scale": None}, None),
        ({"size": (9, 8)}, "height and width"),
        ({"scale": 0}, "scale"),
        ({"scale": 10**6}, "scale"),
        ({"mean": (0.5,)}, "each channel"),
        ({"std": (0.5,) * 3}, "each channel"),
        ({"mean": (0.5, float("nan"))}, "mean is out"),
        ({"std": (0.5, 0.0)}, "std is not"),
        ({"std": (0.5, float("nan"))}, "std is not"),
        ({"std": (0.5, float("inf"))}, "std is not"),
    ],
)
def test_preprocessing_that_fits_no_net(changes: dict[str, Any], words: str | None) -> None:
    problem = replace(SOUND, **changes).problem((2, 8, 9))
    assert words in problem if words and problem else problem is words
