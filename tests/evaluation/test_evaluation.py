"""Testing: which views an image is given, what is averaged, what is counted."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.nets import program
from tests.support.training_data import CPU, write_images
from vggc.data.crops import Framing
from vggc.data.find import digits
from vggc.data.parts import Part
from vggc.data.stores import Arrays, Files
from vggc.data.strings import Strings
from vggc.evaluation import diagnostics, viewer
from vggc.evaluation.classes import ClassScore, class_scores
from vggc.evaluation.counts import UNREAD, AllErrors, Counts, Errors, Guesses
from vggc.evaluation.judge import ImageScores, judge, num_workers
from vggc.evaluation.reading import CHUNK, Chunk, Chunks, ImageGroup, LostImage, gathered
from vggc.evaluation.viewer import Viewer, cut
from vggc.evaluation.views import View, Views, places, views_of
from vggc.ir.weights import Weights, seeded
from vggc.program import Program
from vggc.recipe.protocol import Crops, Protocol
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.training.learner import TrainMachine
from vggc_runtime.preprocessing import Preprocessing, centre, decode, resize

NET = "net small input 3x8x8 conv3-4 | pool | fc-6 norm=batch | dropout | fc-3 | softmax"
PREPROCESSING = Preprocessing((8, 8), 10, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
DENSE = Views((View(10, None, 1.0),), flip=True)
BOTH = views_of(Protocol(scales=(9, 12), dense=True, crops=Crops(2), flip=True), PREPROCESSING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of several sizes, as JPEG and PNG, and one that is broken."""
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate([(20, 31), (24, 16), (20, 31), (9, 9), (40, 17)] * 4):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.{'jpg' if index % 2 else 'png'}")
    (tmp_path / "07.jpg").write_bytes(b"?")
    return tmp_path


def part_of(folder: Path) -> Part:
    names = sorted(path.name for path in folder.iterdir())
    labels = np.arange(len(names)) % 3
    return Part.all(Files(folder, Strings.of(names)), labels)


def net(text: str = NET, seed: int = 0) -> tuple[Program, Weights]:
    made = program(text)
    return made, seeded(made.graph, seed)


def made(
    views: Views, batch: int = 4, seed: int = 0, text: str = NET, machine: TrainMachine = CPU
) -> Viewer:
    spec, weights = net(text, seed)
    preprocessing = PREPROCESSING
    if spec.graph.input != (3, 8, 8):
        channels, *size = spec.graph.input
        preprocessing = Preprocessing((size[0], size[1]), 14, (0.5,) * channels, (0.3,) * channels)
    device = torch.device("cpu")
    return Viewer(spec.graph, weights, preprocessing, views, machine, device, batch)


def by_hand(path: Path, views: Views, seed: int = 0) -> np.ndarray:
    """The probabilities of an image, one view after the other: the plain way."""
    spec, weights = net(seed=seed)
    module = spec.logits_module().double().eval()
    module.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    dense = viewer.dense(viewer.drop_final_softmax(spec.graph))
    spread = viewer.build(dense.graph, dense.weights(weights)).double().eval()
    total = np.zeros(3)
    for view in views.views:
        pixels = resize(decode(path, 3), view.scale, (8, 8))
        if view.grid is None:
            parts = [pixels]
        else:
            height, width, _ = pixels.shape
            steps = range(view.grid)
            parts = [
                pixels[y : y + 8, x : x + 8]
                for y in (i * (height - 8) // (view.grid - 1) for i in steps)
                for x in (i * (width - 8) // (view.grid - 1) for i in steps)
            ]
        mirrored = [part[:, ::-1] for part in parts] if views.flip else []
        found = []
        for part in [*parts, *mirrored]:
            x = torch.from_numpy(PREPROCESSING.normalise(part[None])).double()
            with torch.inference_mode():
                found.append((spread if view.grid is None else module)(x).softmax(1)[0].numpy())
        total += view.share * np.mean(found, axis=0)
    return total


def verdicts(viewers: list[Viewer], part: Part, workers: int = 0) -> dict[int, np.ndarray]:
    found = judge(viewers, part, np.arange(len(part)), workers)
    return {v.index: v.probabilities.numpy() for v in found if isinstance(v, ImageScores)}


# Views


def test_the_whole_image_and_its_crops_count_the_same_and_so_do_scales() -> None:
    protocol = Protocol(scales=(256, 384), dense=True, crops=Crops(3), flip=False)
    assert views_of(protocol, PREPROCESSING) == Views(
        (
            View(256, None, 1 / 4),
            View(384, None, 1 / 4),
            View(256, 3, 1 / 4),
            View(384, 3, 1 / 4),
        ),
        flip=False,
    )
    only_crops = Protocol(scales=(256,), dense=False, crops=Crops(5), flip=True)
    assert views_of(only_crops, PREPROCESSING) == Views((View(256, 5, 1.0),), flip=True)


@pytest.mark.parametrize("usual", [None, 300])
def test_without_scales_images_are_looked_at_as_in_training(usual: int | None) -> None:
    how = replace(PREPROCESSING, scale=usual)
    assert views_of(Protocol(), how).views == (View(usual, None, 1.0),)


def test_what_is_squashed_is_seen_at_one_scale() -> None:
    how = replace(PREPROCESSING, scale=None, fit="squash")
    assert views_of(Protocol(scales=(256, 512)), how).views == (View(None, None, 1.0),)


def test_crops_lie_regularly_from_edge_to_edge() -> None:
    assert places(256, 224, 5) == (0, 8, 16, 24, 32)
    assert places(341, 224, 5) == (0, 29, 58, 87, 117)
    assert places(224, 224, 5) == (0, 0, 0, 0, 0)
    assert places(257, 224, 2) == (0, 33)


@pytest.mark.parametrize("length", [224, 256, 257, 341, 500])
@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_the_middle_crop_is_the_one_that_inference_takes(length: int, count: int) -> None:
    line = np.arange(length, dtype=np.uint8 if length < 256 else np.int64)[:, None, None]
    first = int(centre(line, (224, 1))[0, 0, 0])
    found = places(length, 224, count)
    assert found[count // 2] == first
    if count > 1:
        assert (found[0], found[-1]) == (0, length - 224)
        steps = np.diff(found)
        assert steps.max() - steps.min() <= 1


def test_crops_come_row_by_row_and_begin_with_a_corner() -> None:
    pixels = torch.arange(2 * 3 * 10 * 14).view(2, 3, 10, 14)
    crops = cut(pixels, (4, 6), 3)
    assert crops.shape == (2, 9, 3, 4, 6)
    for number, (y, x) in enumerate((y, x) for y in (0, 3, 6) for x in (0, 4, 8)):
        assert torch.equal(crops[:, number], pixels[:, :, y : y + 4, x : x + 6])


# Reading


def test_images_are_read_as_inference_reads_them_never_by_drafts(folder: Path) -> None:
    part = part_of(folder)
    framing = Framing((3, 8, 8), (10, 10), draft=False)
    chunks = Chunks(part, np.arange(len(part)), (framing,))
    seen = 0
    for chunk in (chunks[number] for number in range(len(chunks))):
        for group in chunk.groups:
            for index, pixels in zip(group.indices.tolist(), group.pixels.numpy(), strict=True):
                path = folder / part.name(index)
                assert np.array_equal(pixels, resize(decode(path, 3), 10, (8, 8)))
                seen += 1
    assert seen == len(part) - 1


def test_images_of_one_size_go_together_and_none_is_lost(folder: Path) -> None:
    part = part_of(folder)
    framings = tuple(Framing((3, 8, 8), (scale, scale), draft=False) for scale in (9, 12))
    chunks = Chunks(part, np.arange(len(part)), framings)
    read = [chunks[number] for number in range(len(chunks))]
    assert len(read) == -(-len(part) // CHUNK) > 1
    items = list(gathered(read, (500, 500)))
    groups = [item for item in items if isinstance(item, ImageGroup)]
    (lost,) = [item for item in items if isinstance(item, LostImage)]
    assert (part.name(lost.index), lost.skipped.reason) == ("07.jpg", "not an image")
    for number in range(len(framings)):
        seen = [i for g in groups if g.framing == number for i in g.indices.tolist()]
        assert sorted(seen) == [i for i in range(len(part)) if i != lost.index]
    largest = max(len(group.indices) for group in groups)
    assert largest > max(len(group.indices) for chunk in read for group in chunk.groups)


def test_what_waits_for_images_of_its_size_is_bounded() -> None:
    def chunk(number: int) -> Chunk:
        pixels = torch.zeros(1, 10, 10 + number, 3, dtype=torch.uint8)
        return Chunk((ImageGroup(0, torch.tensor([number]), pixels),), ())

    asked: list[int] = []

    def chunks() -> object:
        for number in range(200):
            asked.append(number)
            yield chunk(number)

    first = next(gathered(chunks(), (1000,)))  # type: ignore[arg-type]
    assert isinstance(first, ImageGroup)
    assert len(asked) < 70  # 8 batches of 1000 pixels hold no more
    assert first.indices.tolist() == [asked[-1]]


# What is averaged


@pytest.mark.parametrize(
    "views",
    [
        DENSE,
        Views((View(10, None, 1.0),), flip=False),
        Views((View(13, 3, 1.0),), flip=True),
        Views((View(None, None, 1.0),), flip=True),
        BOTH,
    ],
    ids=["dense", "no flips", "crops", "just covering", "both at two scales"],
)
def test_probabilities_are_the_average_over_views_of_a_loop(folder: Path, views: Views) -> None:
    part = part_of(folder)
    found = verdicts([made(views)], part)
    assert len(found) == len(part) - 1
    for index, probabilities in found.items():
        expected = by_hand(folder / part.name(index), views)
        np.testing.assert_allclose(probabilities[0], expected, 0, 2e-6)
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_batches_change_nothing(folder: Path, batch: int) -> None:
    part = part_of(folder)
    expected = verdicts([made(BOTH, batch=4)], part)
    found = verdicts([made(BOTH, batch=batch)], part)
    assert found.keys() == expected.keys()
    for index, probabilities in found.items():
        np.testing.assert_allclose(probabilities, expected[index], 0, 1e-6)


def test_worker_processes_change_nothing(folder: Path) -> None:
    part = part_of(folder)
    expected, found = (verdicts([made(BOTH)], part, workers) for workers in (0, 2))
    assert found.keys() == expected.keys()
    for index, probabilities in found.items():
        assert np.array_equal(probabilities, expected[index])


def test_nets_with_inputs_of_their_own_are_judged_side_by_side(folder: Path) -> None:
    """Another input size, grey images, another scale, another protocol."""
    part = part_of(folder)
    grey = "net grey input 1x12x12 conv3-4 | pool | fc-3"
    views = Views((View(14, 2, 0.5), View(16, 2, 0.5)), flip=False)
    alone = [verdicts([made(DENSE)], part), verdicts([made(views, text=grey)], part)]
    together = verdicts([made(DENSE), made(views, text=grey)], part)
    assert len(together) == len(part) - 1
    for index, probabilities in together.items():
        for number in range(2):
            np.testing.assert_allclose(probabilities[number], alone[number][index][0], 0, 1e-6)
    assert any(not np.allclose(p[0], p[1], atol=1e-2) for p in together.values())


def test_layers_compute_in_the_precision_asked_for(folder: Path) -> None:
    part = part_of(folder)
    exact = verdicts([made(BOTH)], part)
    rounded = verdicts([made(BOTH, machine=TrainMachine("cpu", "bfloat16"))], part)
    differences = [np.abs(rounded[i] - exact[i]).max() for i in exact]
    assert 1e-5 < max(differences) < 0.05


def test_a_net_that_gives_no_numbers_is_told(folder: Path) -> None:
    broken = made(DENSE)
    broken.dense = lambda images: {"output": torch.full((len(images), 3), float("nan"))}
    with pytest.raises(CheckFailed, match="not finite"):
        verdicts([broken], part_of(folder))


def test_what_memory_does_not_hold_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "memory", lambda: 5_000)
    with pytest.raises(UserError) as error:
        verdicts([made(DENSE)], part_of(folder))
    assert isinstance(error.value.diagnostics[0], diagnostics.NoRoom)


def test_a_net_leaves_the_device_with_its_viewer(folder: Path) -> None:
    """At once: a device has room for the next only then, and cycles wait for a collector."""
    looking = made(BOTH)
    verdicts([looking], part_of(folder))
    held = weakref.ref(looking)
    gc.disable()
    try:
        del looking
        assert held() is None
    finally:
        gc.enable()


def test_workers_are_for_work() -> None:
    pixels = np.zeros((1000, 8, 8), np.uint8)
    in_memory = Part.all(Arrays(("a",) * 1000, pixels), np.zeros(1000, np.int64))
    on_disk = Part.all(Files(Path(), Strings.of(["a"] * 1000)), np.zeros(1000, np.int64))
    assert num_workers(in_memory, 1000, 1) == 0
    assert num_workers(on_disk, 3, 1) == 0
    assert num_workers(on_disk, 1000, 1) >= 1


# What is counted


def test_errors_are_counted_by_hand() -> None:
    counts = Counts(1, fused=1)
    table = torch.tensor([[0.1, 0.3, 0.05, 0.2, 0.15, 0.12, 0.08]])
    for label in range(7):
        counts.add(table, label)
    # From the best: 1, 3, 4, 5, 0, 6, 2.
    assert counts.images == 7
    assert counts.errors() == AllErrors((Errors(top1=6 / 7, top5=2 / 7),), None)


def test_of_equally_probable_classes_the_first_comes_first() -> None:
    counts = Counts(1, fused=1)
    for label in range(7):
        counts.add(torch.full((1, 7), 1 / 7), label)
    assert counts.errors() == AllErrors((Errors(top1=6 / 7, top5=2 / 7),), None)


def test_fused_nets_are_judged_by_the_average_of_their_probabilities() -> None:
    counts = Counts(2, fused=2)
    sure, unsure = [0.0, 1.0, 0.0], [0.4, 0.25, 0.35]
    counts.add(torch.tensor([sure, unsure]), 1)
    counts.add(torch.tensor([unsure, [0.1, 0.2, 0.7]]), 2)
    found = counts.errors()
    (first, second), fused = found.each, found.fused
    assert fused is not None
    assert (first.top1, second.top1, fused.top1) == (0.5, 0.5, 0.0)
    assert {first.top5, second.top5, fused.top5} == {0.0}


def test_one_net_alone_is_not_fused() -> None:
    counts = Counts(1, fused=1)
    counts.add(torch.tensor([[0.2, 0.8]]), 0)
    assert counts.errors().fused is None


def test_what_is_looked_at_beside_is_not_fused() -> None:
    counts = Counts(3, fused=2)
    counts.add(torch.tensor([[0.4, 0.6], [0.7, 0.3], [1.0, 0.0]]), 0)
    assert [errors.top1 for errors in counts.errors().each] == [1, 0, 0]
    assert counts.errors().fused == Errors(top1=0, top5=0)


# Classes


def test_classes_are_scored_by_hand() -> None:
    """Three of `a`, one of them taken for `b`; two of `b`, both for `d`; none of `c` and `d`."""
    labels = np.asarray([0, 0, 0, 1, 1, 0])
    found = class_scores(labels, np.asarray([0, 1, 0, 3, 3, UNREAD]), ("a", "b", "c", "d"))
    assert found.confusion.tolist() == [[2, 1, 0, 0], [0, 0, 0, 2], [0] * 4, [0] * 4]
    assert found.scores == (
        ClassScore("a", 1.0, 2 / 3, 0.8, 3, 2, 2, "b"),
        ClassScore("b", 0.0, 0.0, 0.0, 2, 1, 0, "d"),
        ClassScore("c", None, None, None, 0, 0, 0, None),
        ClassScore("d", 0.0, None, None, 0, 2, 0, None),
    )
    assert [score.name for score in found.worst_first] == ["b", "a", "c", "d"]
    assert (found.mean_recall, found.mean_f1) == (pytest.approx(1 / 3), pytest.approx(0.4))


def test_a_class_that_nothing_is_taken_for_has_no_precision() -> None:
    first, _ = class_scores(np.asarray([0, 1]), np.asarray([1, 1]), ("a", "b")).scores
    assert (first.precision, first.recall, first.f1) == (None, 0.0, 0.0)


def test_what_images_were_taken_for_is_noted_of_each_net_and_of_all_together() -> None:
    guesses = Guesses(2, 3)
    guesses.add(2, torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]))
    assert guesses.classes.tolist() == [[UNREAD, UNREAD, label] for label in (1, 2, 1)]
    assert guesses.probabilities[:, 2].tolist() == [1.0, 0.5, 0.625]


# Data


def test_held_out_digits_are_the_same_every_time() -> None:
    assert np.array_equal(digits().val.numbers, digits().val.numbers)


Write = Callable[[Path, tuple[str, ...], int], None]


def test_single_images_are_read_where_they_lie(tmp_path: Path) -> None:
    from vggc.evaluation.images import single

    write_images(tmp_path, ("a",), 2)
    paths = [tmp_path / "a" / "0.png", tmp_path / "a" / "1.png"]
    part = single([*map(str, paths)])
    assert part.fetch(np.arange(2)) == paths
    assert [part.name(index) for index in range(2)] == [str(path) for path in paths]
