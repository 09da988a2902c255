"""Images: found, checked, measured, and drawn into batches."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from tests.support.training_data import RECIPE, found, part, picture, task, write_images
from vggc.data import diagnostics, workers
from vggc.data.crops import Cut, attempt
from vggc.data.find import digits, find_images
from vggc.data.loader import Batch, TrainBatches, ValBatches, load
from vggc.data.order import Order, Share, part_of
from vggc.data.parts import Fingerprints, Part, content_of, names_of
from vggc.data.prepare import Data, prepare
from vggc.data.strings import Strings
from vggc.recipe.augment import Cutmix, Mixup
from vggc.recipe.train import Recipe
from vggc.support.diagnostics import UserError
from vggc.training.augment import flipped, mixed, shifted
from vggc_runtime.preprocessing import BrokenImageError, Preprocessing, decode, resize

CLASSES = ("cat", "dog")


def names(part: Part) -> list[str]:
    return [part.name(index) for index in range(len(part))]


def refused(folder: Path) -> type:
    with pytest.raises(UserError) as error:
        find_images(folder, seed=0)
    return type(error.value.diagnostics[0])


def test_the_digits_are_split_by_class_the_same_way_always() -> None:
    images = digits()
    assert (len(images.train), len(images.val)) == (1438, 359)
    assert images.classes == tuple("0123456789")
    assert not {*names(images.train)} & {*names(images.val)}
    assert np.bincount(images.val.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert names(digits().val) == names(images.val)


def test_grey_digits_become_three_equal_channels() -> None:
    data = prepare(digits(), (3, 32, 32), None)
    (crop,) = data.train.centres(np.array([0]))
    assert isinstance(crop, Cut)
    pixels = crop.pixels
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
    assert names(images.val) == ["cat/0.png", "dog/0.png"]


def test_a_folder_without_parts_is_split_by_the_seed(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), 20)
    first, again, other = (find_images(tmp_path, seed) for seed in (1, 1, 2))
    assert names(first.val) == names(again.val) != names(other.val)
    assert np.bincount(first.val.labels).tolist() == [4, 4]
    assert len(first.train) == 32


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") is diagnostics.NoSuchFolder
    assert refused(tmp_path) is diagnostics.NoClassFolders
    write_images(tmp_path / "one", ("cat",), 2)
    assert refused(tmp_path / "one") is diagnostics.OnlyOneClass
    write_images(tmp_path / "half" / "train", ("cat", "dog"), 1)
    write_images(tmp_path / "half" / "val", ("cat", "frog"), 1)
    assert refused(tmp_path / "half") is diagnostics.ClassesDiffer
    write_images(tmp_path / "few", ("cat", "dog"), 1)
    assert refused(tmp_path / "few") is diagnostics.NothingHeldOut


@pytest.mark.parametrize("function", ["pathlib.Path.iterdir", "os.scandir"])
def test_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    write_images(tmp_path, ("cat", "dog"), 2)
    monkeypatch.setattr(function, refuse)
    assert refused(tmp_path) is diagnostics.UnreadableFolder


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
    data = prepare(find_images(tmp_path, 0), (3, 8, 8), None)
    assert (len(data.train), len(data.val)) == (8, 4)
    assert [(skipped.part, skipped.name) for skipped in data.skipped] == [
        ("train", "cat/bomb.png"),
        ("train", "cat/cut.png"),
        ("train", "cat/thread.png"),
        ("train", "dog/text.jpg"),
        ("val", "dog/empty.png"),
    ]
    assert data.skipped[3].reason == "not an image"


def test_what_is_trained_on_cannot_be_held_out_too(tmp_path: Path) -> None:
    write_images(tmp_path / "a", ("cat", "dog"), 4)
    (tmp_path / "b").symlink_to("a")
    for val in ("a", "b"):
        with pytest.raises(UserError) as error:
            find_images(tmp_path / "a", 0, tmp_path / val)
        assert isinstance(error.value.diagnostics[0], diagnostics.HeldOutToo)


def test_what_only_looks_like_images_is_named_and_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), 4)
    (tmp_path / "cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "dog/pipe.png")
    (tmp_path / "emu").mkdir()
    found = find_images(tmp_path, 0)
    assert found.classes == ("cat", "dog")
    assert [(each.name, each.reason) for each in found.skipped] == [
        ("cat/gone.png", "not a file, or a link to none"),
        ("dog/pipe.png", "not a file, or a link to none"),
        ("emu/", "a folder without images"),
    ]


def test_a_class_of_broken_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", ("cat", "dog"), 1)
    write_images(tmp_path / "val", ("cat", "dog"), 1)
    (tmp_path / "train/cat/0.png").write_bytes(b"?")
    with pytest.raises(UserError) as error:
        prepare(find_images(tmp_path, 0), (3, 8, 8), None)
    (mistake,) = error.value.diagnostics
    assert isinstance(mistake, diagnostics.NoReadableImages)
    assert mistake.reason == "1 left out, the first of them cat/0.png: not an image"


def test_a_net_with_two_channels_gets_no_images() -> None:
    with pytest.raises(UserError) as error:
        prepare(digits(), (2, 8, 8), None)
    assert isinstance(error.value.diagnostics[0], diagnostics.UnsupportedChannels)


def images(recipe: Recipe = RECIPE, seed: int = 3) -> TrainBatches:
    whole = task(recipe, seed=seed)
    return TrainBatches(whole.data.train, whole.order, Share())


def varied(recipe: Recipe, step: int, net: nn.Module | None = None) -> torch.Tensor:
    """What a step gives the net, in grey levels."""
    whole = task(recipe, net, seed=3)
    learner, batch = whole.learner(), TrainBatches(whole.data.train, whole.order, Share())[step]
    inputs, _ = learner.augmentation(batch, step)
    return inputs * learner.normalised.std + learner.normalised.mean


def test_mean_and_deviation_are_those_of_the_training_pixels() -> None:
    preprocessing = prepare(found(), (3, 8, 8), None).preprocessing
    pixels = part(5).store.pixels / 255
    assert preprocessing.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert preprocessing.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def test_an_epoch_holds_each_image_once_in_nearly_equal_batches() -> None:
    order = Order(15, 4, seed=3)
    steps = [order.indices(1, step) for step in range(order.num_batches)]
    assert [len(indices) for indices in steps] == [4, 4, 4, 3]
    assert sorted(np.concatenate(steps).tolist()) == [*range(15)]
    assert (Order(3, 256, 0).num_batches, order.place(9)) == (1, (2, 1))


@pytest.mark.parametrize("total", [1, 2, 7, 8, 255, 256])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_processes_share_a_step_exactly_and_part_no_pair(total: int, size: int) -> None:
    rows = [np.arange(total)[Share(rank, size).rows(total)] for rank in range(size)]
    assert np.concatenate(rows).tolist() == [*range(total)]
    assert all(share[0] % 2 == 0 for share in rows if len(share))
    assert max(map(len, rows)) - min(map(len, rows)) <= 3
    parts = [part_of(total, index, size) for index in range(size)]
    assert [row for each in parts for row in range(total)[each]] == [*range(total)]


def test_processes_together_make_the_batch_of_one() -> None:
    whole = images(replace(RECIPE, scale=(9, 14)))
    shares = [replace(whole, share=Share(rank, 3))[2] for rank in range(3)]
    one = whole[2]
    assert torch.equal(torch.cat([share.images for share in shares]), one.images)
    assert torch.equal(torch.cat([share.labels for share in shares]), one.labels)
    assert torch.equal(torch.cat([share.rows for share in shares]), one.rows)
    assert {share.total for share in shares} == {one.total}


def test_a_batch_depends_on_seed_and_step_only() -> None:
    recipe = replace(RECIPE, scale=(9, 14))
    batches = images(recipe)
    batches[0]
    late, early = batches[6], images(recipe)[6]
    assert torch.equal(late.images, early.images)
    assert not torch.equal(late.images, batches[2].images)
    assert not torch.equal(late.images, images(recipe, seed=4)[6].images)


def everything(data: Data, count: int) -> list[Batch]:
    """Three steps of a training and the held-out images."""
    training = TrainBatches(data.train, Order(15, 4, seed=0), Share())
    held_out = ValBatches(data.val, 4)
    return [
        *load(training, range(1, 4), count),
        *load(held_out, range(len(held_out)), count),
    ]


@dataclass(frozen=True)
class Stuck(Dataset[int]):
    """Its later items never come, as if a server had gone silent."""

    def __getitem__(self, step: int) -> int:
        if step:
            time.sleep(10**6)
        return os.getpid()


def test_workers_that_a_read_holds_up_are_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.2)
    before, start = {*active_children()}, time.monotonic()
    with closing(load(Stuck(), range(9), 2)) as batches:
        assert next(batches) != os.getpid()
        crew = {*active_children()} - before
        assert len(crew) == 2
    assert not crew & {*active_children()}
    assert time.monotonic() - start < 4


def test_an_error_outlives_the_workers_that_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.2)
    with pytest.raises(KeyError), closing(load(Stuck(), range(9), 2)) as batches:
        raise KeyError(next(batches))


@pytest.mark.parametrize("scale", [None, (12, 12), (9, 14)])
def test_worker_processes_give_the_same_batches(scale: tuple[int, int] | None) -> None:
    """And so do pictures that are not kept in memory, but for how they are rounded."""
    kept, again = (prepare(found(), (3, 8, 8), scale, room=room) for room in (2**20, 0))
    assert kept.train.kept is not None
    assert again.train.kept is None
    for one, same, other in zip(
        everything(kept, 0), everything(kept, 2), everything(again, 2), strict=True
    ):
        assert torch.equal(one.images, same.images)
        assert int((one.images.int() - other.images.int()).abs().max()) <= 2
        assert torch.equal(one.labels, same.labels)
        assert torch.equal(one.labels, other.labels)


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(picture(0, 0, 300, 400)).save(path)
    assert decode(path, 3).size == (400, 300)
    assert decode(path, 3, (100, (64, 64))).size == (200, 150)
    assert decode(path, 3, (None, (30, 30))).size == (50, 38)
    assert decode(path, 3, (400, (64, 64))).size == (400, 300)


def test_flips_and_crops_happen() -> None:
    recipe = replace(RECIPE, scale=(8, 8))
    before, after = images(recipe)[0].images, varied(recipe, 0).round()
    same = [torch.equal(a.float(), b) for a, b in zip(before, after, strict=True)]
    mirrored = [torch.equal(a.float().flip(2), b) for a, b in zip(before, after, strict=True)]
    assert 0 < sum(mirrored) < 4
    assert [not each for each in mirrored] == same
    assert images(replace(RECIPE, scale=(16, 16)))[0].images.shape == (4, 3, 8, 8)
    two = torch.arange(4).view(2, 1, 1, 2)
    assert flipped(two, torch.tensor([True, False])).flatten().tolist() == [1, 0, 2, 3]


def test_the_axes_of_colours_are_those_of_all_training_pixels() -> None:
    pixels = part(5).store.pixels.reshape(-1, 3)
    axes = prepare(found(), (3, 8, 8), None).colour_axes
    assert axes @ axes.T == pytest.approx(np.cov(pixels.T, bias=True), rel=1e-9)
    scaled = axes.T @ axes
    assert scaled == pytest.approx(np.diag(np.diag(scaled)), abs=1e-6)


def test_colours_shift_along_the_axes() -> None:
    """Along an axis the shifts deviate by `rgb_shift` times the colours' own deviation."""
    augmentation = task(replace(RECIPE, batch=15, rgb_shift=2.0)).learner().augmentation
    axis = np.array([3.0, 2.0, 1.0])
    along = replace(augmentation, axes=np.outer(axis, [1, 0, 0]))
    shifts = np.concatenate([along.shifts(15, step) for step in range(40)])
    assert shifts.mean(axis=0) == pytest.approx([0, 0, 0], abs=0.8)
    assert shifts.std(axis=0) == pytest.approx(2 * axis, rel=0.1)
    assert np.corrcoef(shifts.T).min() > 0.999


def test_shifted_colours_stay_within_their_range() -> None:
    image = torch.tensor([0, 128, 250], dtype=torch.uint8).view(1, 3, 1, 1)
    moved = shifted(image, torch.tensor([[-9.0, 0.5, 9.0]]))
    assert moved.flatten().tolist() == [0, 128.5, 255]
    assert image.flatten().tolist() == [0, 128, 250]


def test_without_a_shift_nothing_else_changes() -> None:
    with_shift, without = varied(replace(RECIPE, rgb_shift=1e-12), 1), varied(RECIPE, 1)
    assert torch.allclose(with_shift, without, atol=1e-3)


def test_neighbours_are_laid_over_each_other() -> None:
    augmentation = task(replace(RECIPE, mixup=Mixup(1.0))).learner().augmentation
    mixture = augmentation.mixture(5, step=0)
    x, labels = torch.arange(5.0).view(5, 1, 1, 1), torch.arange(5)
    result, targets = mixed(x, labels, np.arange(5), mixture)
    share = torch.from_numpy(mixture.share).float()
    expected = share * x.flatten() + (1 - share) * torch.tensor([1.0, 0, 3, 2, 4])
    assert torch.allclose(result.flatten(), expected)
    assert targets.others is not None
    assert targets.others.tolist() == [1, 0, 3, 2, 4]
    # The image without a neighbour is its own.
    assert targets.share is not None
    assert targets.share[4] == 1
    assert torch.equal(targets.share[:4], share[:4])
    part, _ = mixed(x[2:4], labels[2:4], np.array([2, 3]), mixture)
    assert torch.equal(part, result[2:4])


def test_a_rectangle_of_the_neighbour_is_pasted_in_and_its_area_counts() -> None:
    augmentation = task(replace(RECIPE, cutmix=Cutmix(1.0))).learner().augmentation
    mixture = augmentation.mixture(40, step=0)
    x = (torch.arange(40) % 2).float().view(40, 1, 1, 1).expand(40, 1, 8, 8)
    result, targets = mixed(x, torch.arange(40) % 2, np.arange(40), mixture)
    assert {*result.flatten().tolist()} == {0.0, 1.0}
    own = (result == x).float().mean(dim=(1, 2, 3))
    assert targets.share is not None
    assert torch.allclose(own, targets.share)
    assert 0.2 < float(own.mean()) < 0.9


def test_targets_of_a_mixture_weigh_both_classes() -> None:
    from vggc.training.augment import Targets

    logits, labels = torch.randn(3, 5), torch.tensor([0, 1, 2])
    others, share = torch.tensor([3, 4, 2]), torch.tensor([0.25, 1.0, 0.5])
    losses = Targets(labels, others, share).loss(logits, smoothing=0.1)
    one_hot = torch.eye(5)
    target = share[:, None] * one_hot[labels] + (1 - share[:, None]) * one_hot[others]
    smoothed = 0.9 * target + 0.1 / 5
    assert torch.allclose(losses, -(smoothed * logits.log_softmax(1)).sum(1))


def test_an_image_that_vanishes_is_left_out_and_named(tmp_path: Path) -> None:
    write_images(tmp_path, CLASSES, 5)
    data = prepare(find_images(tmp_path, 0), (3, 8, 8), None, room=0)
    order = Order(len(data.train), 8, seed=0)
    first = data.train.part.name(int(order.indices(0, 0)[0]))
    (tmp_path / first).unlink()
    batch = TrainBatches(data.train, order, Share())[0]
    assert [(lost.name, lost.reason) for lost in batch.lost] == [
        (first, "No such file or directory")
    ]
    assert (batch.rows.tolist(), batch.total) == ([*range(1, 8)], 8)
    assert len(batch.images) == len(batch.labels) == 7


def test_nobody_looks_twice_at_images_that_memory_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    write_images(folder, CLASSES, 5)
    (folder / "cat/0.png").write_bytes(b"?")
    first = prepare(find_images(folder, 0), (3, 8, 8), None, room=0)
    with monkeypatch.context() as patch:
        patch.setattr("vggc.data.survey.glance", None)
        again = prepare(find_images(folder, 0), (3, 8, 8), None, room=0)
    assert again.preprocessing == first.preprocessing
    assert again.skipped == first.skipped
    assert again.fingerprints == first.fingerprints
    (folder / "dog/0.png").write_bytes(b"?")
    assert len(prepare(find_images(folder, 0), (3, 8, 8), None, room=0).skipped) == 2


@pytest.mark.parametrize("room", [0, 2**30])
def test_a_file_written_anew_with_its_size_and_time_is_another(tmp_path: Path, room: int) -> None:
    write_images(tmp_path / "train", CLASSES, 2)
    write_images(tmp_path / "val", CLASSES, 2)
    path = tmp_path / "val/dog/1.bmp"
    Image.fromarray(picture(1, 1)).save(path)

    def fingerprints() -> Fingerprints:
        return prepare(find_images(tmp_path, 0), (3, 8, 8), None, room=room).fingerprints

    first, times = fingerprints(), path.stat()
    Image.fromarray(picture(1, 2)).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    later = fingerprints()
    assert later.train == first.train
    assert later.val.names == first.val.names
    assert later.val.content != first.val.content


def test_a_fingerprint_is_that_of_the_files_as_they_are_read_again(tmp_path: Path) -> None:
    write_images(tmp_path / "images", CLASSES, 10)
    for images in (digits(), find_images(tmp_path / "images", 0)):
        data = prepare(images, (3, 8, 8), None, room=0)
        for each, mark in (
            (images.train, data.fingerprints.train),
            (images.val, data.fingerprints.val),
        ):
            assert content_of(each) == mark.content
            assert names_of(images.classes, each) == mark.names


def test_images_that_memory_turns_out_not_to_hold_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would fit at the size of the net's input, and do not at the scale of the training."""
    write_images(tmp_path / "train", CLASSES, 3)
    write_images(tmp_path / "val", CLASSES, 3)
    images, size = find_images(tmp_path, 0), 3 * 8 * 8

    def looked(scale: int) -> Data:
        return prepare(images, (3, 8, 8), (scale, scale), room=12 * size)

    small, large = looked(8), looked(16)
    assert (small.train.kept is None, large.train.kept is None) == (False, True)
    monkeypatch.setattr("vggc.data.survey.glance", None)
    assert looked(16).preprocessing == large.preprocessing
    with pytest.raises(TypeError):
        looked(8)


class Faulty:
    """A disk that cannot read some files for so many times, with an error of a number."""

    def __init__(self, name: str, times: int, number: int) -> None:
        self.name, self.times, self.number, self.open = name, times, number, Image.open

    def __call__(self, file: object, **more: Any) -> Image.Image:
        if str(getattr(file, "name", file)).endswith(self.name) and self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number), str(file))
        return self.open(file, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_an_image_that_cannot_be_read_now_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """At the end of the look, and at the next start: no cache says that it is broken."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    write_images(folder, CLASSES, 5)
    images = find_images(folder, 0)
    sound = prepare(images, (3, 8, 8), None, room=2**20)
    name = sound.train.part.name(2)

    def looked(times: int, room: int) -> Data:
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", Faulty(name, times, number))
            return prepare(images, (3, 8, 8), None, room=room)

    failed = looked(2, 0)
    assert [(each.name, each.reason) for each in failed.skipped] == [(name, os.strerror(number))]
    for again in (looked(1, 2**20), looked(1, 0)):
        assert again.skipped == ()
        assert again.preprocessing == sound.preprocessing
        assert again.fingerprints == sound.fingerprints
        if again.train.kept and sound.train.kept:
            pairs = zip(again.train.kept, sound.train.kept, strict=True)
            assert all((one == other).all() for one, other in pairs)


def test_bytes_that_lead_a_decoder_astray_are_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, CLASSES, 5)
    images = find_images(tmp_path, 0)
    name = images.train.store.names[0]
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", Faulty(name, 99, errno.EINVAL))
        assert len(prepare(images, (3, 8, 8), None, room=0).skipped) == 1
    monkeypatch.setattr("vggc.data.survey.glance", None)
    assert len(prepare(images, (3, 8, 8), None, room=0).skipped) == 1


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}'])
def test_a_cache_that_is_none_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    write_images(folder, CLASSES, 5)
    first = prepare(find_images(folder, 0), (3, 8, 8), None, room=0)
    for path in (tmp_path / "cache/vggc/data").glob("*.json"):
        path.write_text(content)
    assert prepare(find_images(folder, 0), (3, 8, 8), None, room=0).skipped == first.skipped == ()


@pytest.mark.parametrize(
    "lie",
    [
        {"counts": [[0] * 256] * 3},
        {"counts": [[-1] + [2] * 255] * 3},
        {"counts": [[1] * 256, [2] * 256, [1] * 256]},
        {"counts": [[10**30] * 256] * 3},
        {"products": [[-1.0] * 3] * 3},
        {"products": [[1e300] * 3] * 3},
    ],
)
def test_a_cache_of_colours_that_there_cannot_be_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: dict[str, object]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_images(tmp_path / "images", CLASSES, 5)
    images = find_images(tmp_path / "images", 0)
    first = prepare(images, (3, 8, 8), None, room=0)
    for path in (tmp_path / "cache/vggc/data").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | lie))
    again = prepare(images, (3, 8, 8), None, room=0)
    assert again.preprocessing == first.preprocessing
    assert (again.colour_axes == first.colour_axes).all()


def test_many_names_are_one_text() -> None:
    texts = ["", "ä/b.jpg", "\udcff", "c"]
    packed = Strings.of(texts)
    assert [*packed] == texts
    assert (len(packed), packed[1]) == (4, "ä/b.jpg")
    assert [*Strings.of([])] == []


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
    pixels = np.asarray(decode(tmp_path / "grey.png", 1))
    np.testing.assert_allclose(pixels, values / 257, atol=0.5)


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
        ({"fit": "squash", "scale": None}, None),
        ({"fit": "squash"}, "pictures have that are cut"),
        ({"fit": "fill"}, "fit is none of"),
        ({"interpolation": "cubic"}, "interpolation is none of"),
        ({"background": (0, 0, -1)}, "from 0 to 255"),
        ({"order": "bgr"}, "three channels"),
    ],
)
def test_preprocessing_that_fits_no_net(changes: dict[str, Any], words: str | None) -> None:
    problem = replace(SOUND, **changes).problem((2, 8, 9))
    assert words in problem if words and problem else problem is words


def test_why_a_picture_is_none_keeps_nothing_else_alive() -> None:
    """No frame of those who asked for it, and so no net that they hold on a device."""

    def opened(picture: object) -> None:
        raise BrokenImageError("empty") from ValueError()

    fault = attempt(opened, b"")
    assert isinstance(fault, BrokenImageError)
    assert fault.__traceback__ is fault.__context__ is None
