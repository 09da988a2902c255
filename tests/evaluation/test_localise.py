"""Nets whose boxes are known, looking at pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.nets import graph_of
from tests.support.op_samples import weights_of
from vggc.backends.torch import build
from vggc.data.parts import Part
from vggc.data.windows import central, centres_of, mirrored
from vggc.evaluation import diagnostics, viewer
from vggc.evaluation.images import in_memory, single
from vggc.evaluation.judge import ImageScores, judge
from vggc.evaluation.localise import LocatingNet, localising_views, sightings
from vggc.evaluation.located import Locator, PictureSights, mean_probabilities, upright
from vggc.evaluation.reading import LostImage
from vggc.evaluation.viewer import Viewer
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.training.learner import TrainMachine
from vggc_runtime.outputs import HeadKind
from vggc_runtime.preprocessing import Pixels, Preprocessing

CPU, DEVICE = TrainMachine("cpu", "float32"), torch.device("cpu")
SIZE = 16, 12
"""The height and width of the nets' input."""

HOW = Preprocessing(SIZE, None, (0.0,) * 3, (1.0,) * 3)
SHARED = np.zeros(1, np.int64)
"""Where the box of the one class is."""

BOTH = "conv3-4 | pool | b: fc-6 | fc-3 | softmax head box: @b | boxes-3"
ALL: tuple[HeadKind, ...] = ("boxes", "classes")


def observer(
    graph: Graph,
    weights: Weights,
    scales: Sequence[int | None] = (None,),
    *,
    dense: bool = True,
    flip: bool = False,
    batch: int = 4,
    kinds: Sequence[HeadKind] = ("boxes",),
    offsets: bool = False,
) -> LocatingNet:
    views = localising_views(scales, dense=dense, flip=flip)
    return LocatingNet(graph, weights, HOW, views, CPU, DEVICE, batch, kinds, offsets)


def part(*pictures: Pixels) -> Part:
    return in_memory([f"picture {number}" for number in range(len(pictures))], pictures)


def seen(nets: Sequence[LocatingNet], pictures: Part) -> list[PictureSights]:
    """What nets see in pictures, in their order."""
    found = []
    for each in sightings(nets, pictures, np.arange(len(pictures)), 0):
        assert isinstance(each, PictureSights)
        found.append(each)
    return sorted(found, key=lambda each: each.index)


def drawn(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def constant(*box: float) -> tuple[Graph, Weights]:
    """A net that says the same box of every crop."""
    graph = graph_of("pool | boxes", f"3x{SIZE[0]}x{SIZE[1]}")
    weights = {name: np.zeros(w.shape, np.float32) for name, w in graph.all_weights.items()}
    weights[f"{graph.nodes[-1].name}.bias"] = np.asarray(box, np.float32)
    return graph, weights


def following() -> tuple[Graph, Weights]:
    """A net whose box lies around the one white pixel of its crop; half as wide as the crop, and a
    quarter as high.
    """
    height, width = SIZE
    graph, weights = graph_of("boxes", f"3x{height}x{width}"), {}
    weight = np.zeros((4, 3, height, width), np.float32)
    weight[0, 0] = (np.arange(width) + 0.5) / width
    weight[1, 0] = ((np.arange(height) + 0.5) / height)[:, None]
    name = graph.nodes[-1].name
    weights[f"{name}.weight"] = weight.reshape(4, -1)
    weights[f"{name}.bias"] = np.asarray([0, 0, 0.5, 0.25], np.float32)
    return graph, weights


# Where crops and their boxes are


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(31, 47), (40, 21), (17, 60)])
def test_the_box_of_each_position_is_where_it_was_seen(size: tuple[int, int], flip: bool) -> None:
    height, width = size
    for row, column in ((0, 0), (9, 7), (height - 1, width - 1)):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[row, column] = 255
        (found,) = seen([observer(*following(), [min(size)], flip=flip)], part(picture))
        assert found.aspect == width / height
        (sights,) = found.box_nets
        assert len(sights) == 1 + flip
        for sight in sights:
            x, y = (column + 0.5) / width, (row + 0.5) / height
            left, top, right, bottom = upright(sight.windows).T
            there = (left < x) & (x < right) & (top < y) & (y < bottom)
            assert there.any()
            boxes = sight.boxes(0)[there]
            half = np.asarray([0.25 * SIZE[1] / width, 0.125 * SIZE[0] / height])
            wanted = np.clip([*(np.asarray([x, y]) - half), *(np.asarray([x, y]) + half)], 0, 1)
            np.testing.assert_allclose(boxes, np.tile(wanted, (there.sum(), 1)), atol=1e-6)


@pytest.mark.parametrize("size", [(31, 47), (40, 21), (17, 60)])
def test_positions_are_a_stride_apart_at_each_scale(size: tuple[int, int]) -> None:
    """In pixels of the picture as it is at that scale, whose sides are rounded."""
    scales = (16, 23, 40)
    (found,) = seen([observer(*constant(0.5, 0.5, 1, 1), scales)], part(drawn(*size)))
    for scale, sight in zip(scales, found.box_nets[0], strict=True):
        height, width = (round(side * scale / min(size)) for side in size)
        counts = (height - SIZE[0]) // 2 + 1, (width - SIZE[1]) // 2 + 1
        assert len(sight.windows) == counts[0] * counts[1]
        for place, (i, j) in enumerate(np.ndindex(*counts)):
            pixels = np.asarray([2 * j, 2 * i, 2 * j + SIZE[1], 2 * i + SIZE[0]])
            wanted = pixels / [width, height, width, height]
            np.testing.assert_allclose(sight.windows[place], wanted)
            np.testing.assert_allclose(sight.boxes(0)[place], wanted, atol=1e-6)


@pytest.mark.parametrize("scale", [None, 16, 23])
def test_the_centre_crop_is_that_of_inference(scale: int | None) -> None:
    net = observer(*constant(0.25, 0.5, 0.5, 1), [scale], dense=False, flip=True)
    (found,) = seen([net], part(drawn(31, 47)))
    window = central((47, 31), scale, SIZE)
    ((plain, flipped),) = found.box_nets
    np.testing.assert_allclose(plain.windows, [window])
    np.testing.assert_allclose(flipped.windows, [mirrored(window)])
    one, two = (centres_of(sight.boxes(0))[0] for sight in (plain, flipped))
    width = window[2] - window[0]
    np.testing.assert_allclose(one[0], window[0] + width / 4, atol=1e-6)
    np.testing.assert_allclose(two[0], window[2] - width / 4, atol=1e-6)


def test_a_box_is_cut_off_where_the_picture_ends() -> None:
    (found,) = seen([observer(*constant(0.5, 0.5, 9, 9), dense=False)], part(drawn(31, 47)))
    np.testing.assert_array_equal(Locator((SHARED,)).of_class(found, 0).box, [0, 0, 1, 1])


# What nets say


def test_crops_are_what_the_net_says_of_them() -> None:
    graph = graph_of("conv3-4 padding=0 | pool | b: fc-6 | fc-3 head box: @b | boxes-3", "3x16x12")
    weights, pictures = weights_of(graph), part(drawn(25, 30))
    (found,) = seen([observer(graph, weights, [25], kinds=ALL)], pictures)
    for sights, count in ((found.box_nets, 12), (found.classifiers, 3)):
        assert sights[0][0].values.shape == (5 * 10, count)
    shown = np.asarray(pictures.fetch(np.arange(1))[0], np.float32).transpose(2, 0, 1)[None] / 255
    net = build(graph, weights).eval()
    with torch.no_grad():
        crop = net(torch.from_numpy(shown[:, :, 4:20, 6:18].copy()))
    place = 2 * 10 + 3
    for sights, name in ((found.box_nets, "box"), (found.classifiers, "output")):
        np.testing.assert_allclose(sights[0][0].values[place], crop[name][0], atol=1e-4)


OFFSETS = {
    "a pool of two": ("conv3-4 padding=0 | pool | b: fc-6 | fc-3 head box: @b | boxes-3", 1),
    "two pools": ("conv3-4 padding=0 | pool | pool | b: fc-6 | fc-3 head box: @b | boxes-3", 2),
    "a pool of three": ("avgpool3 | b: fc-6 | fc-3 head box: @b | boxes-3", 1),
    "no more than it": ("pool | b: fc-6 | fc-3 head box: @b | boxes-3", 1),
}


@pytest.mark.parametrize("size", [(16, 12), (25, 30), (23, 17)])
@pytest.mark.parametrize(("body", "stride"), OFFSETS.values(), ids=OFFSETS)
def test_from_all_offsets_the_net_sees_each_crop_a_finer_stride_on(
    body: str, stride: int, size: tuple[int, int]
) -> None:
    """Against the net on one crop after the other."""
    graph = graph_of(body, "3x16x12")
    weights, pictures = weights_of(graph), part(drawn(*size))
    net = observer(graph, weights, [min(size)], kinds=ALL, offsets=True)
    (found,) = seen([net], pictures)
    shown = np.asarray(pictures.fetch(np.arange(1))[0], np.float32).transpose(2, 0, 1)[None] / 255
    module = build(graph, weights).eval()
    height, width = size
    places = {(0, 0)}
    for sights, name in ((found.box_nets, "box"), (found.classifiers, "output")):
        for window, values in zip(sights[0][0].windows, sights[0][0].values, strict=True):
            left, top, right, bottom = np.rint(window * [width, height, width, height]).astype(int)
            assert (right - left, bottom - top) == (12, 16)
            assert left % stride == top % stride == 0
            places.add((top, left))
            if right <= width and bottom <= height:
                with torch.no_grad():
                    crop = module(torch.from_numpy(shown[:, :, top:bottom, left:right].copy()))
                np.testing.assert_allclose(values, crop[name][0], atol=1e-4)
    inside = {(y, x) for y in range(0, height - 15, stride) for x in range(0, width - 11, stride)}
    assert inside <= places


@pytest.mark.parametrize("flip", [False, True])
def test_classes_are_as_probable_as_a_test_of_classes_says(flip: bool) -> None:
    graph = graph_of("conv3-4 | pool | fc-6 | fc-3 | softmax", "3x16x12")
    weights, pictures = weights_of(graph), part(drawn(31, 47), drawn(20, 20, 1))
    scales = (16, 25)
    net = observer(graph, weights, scales, flip=flip, kinds=["classes"])
    views = localising_views(scales, dense=True, flip=flip)
    tested = Viewer(graph, weights, HOW, views, CPU, DEVICE, 4)
    wanted = {
        each.index: each.probabilities[0]
        for each in judge([tested], pictures, np.arange(2), 0)
        if isinstance(each, ImageScores)
    }
    for each in seen([net], pictures):
        assert each.box_nets == ()
        found = mean_probabilities(each.classifiers)
        np.testing.assert_allclose(found, wanted[each.index], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_how_many_are_computed_at_once_changes_nothing(batch: int) -> None:
    graph = graph_of(BOTH, "3x16x12")
    weights = weights_of(graph)
    pictures = part(*(drawn(20 + n % 2, 33, n) for n in range(5)))
    nets = [observer(graph, weights, (16, 20), flip=True, batch=batch, kinds=ALL)]
    wanted = [observer(graph, weights, (16, 20), flip=True, batch=2, kinds=ALL)]
    for one, two in zip(seen(nets, pictures), seen(wanted, pictures), strict=True):
        for mine, other in zip(one.box_nets[0], two.box_nets[0], strict=True):
            np.testing.assert_allclose(mine.values, other.values, atol=1e-5)
            np.testing.assert_array_equal(mine.windows, other.windows)


def test_box_nets_and_classifiers_look_together() -> None:
    """A net of boxes, one of both, and a classifier at a scale of its own, which shares a class's
    probability out to boxes by place.
    """
    both, classes = graph_of(BOTH, "3x16x12"), graph_of("conv3-4 | pool | fc-3", "3x16x12")
    nets = [
        observer(*constant(0.5, 0.5, 1, 1), (20,)),
        observer(both, weights_of(both), (16, 20), kinds=ALL),
        observer(classes, weights_of(classes), (24,), flip=True, kinds=["classes"]),
    ]
    (found,) = seen(nets, part(drawn(20, 33)))
    assert [len(sights) for sights in found.box_nets] == [1, 2]
    assert [len(sights) for sights in found.classifiers] == [2, 2]
    located = Locator((np.zeros(3, np.int64), np.arange(3))).best(found)
    assert sorted(each.class_index for each in located) == [0, 1, 2]
    assert sum(each.probability for each in located) == pytest.approx(1)
    total = sum(len(sight.windows) for sights in found.box_nets for sight in sights)
    assert all(0 < each.score < total for each in located)


# What goes wrong


def test_a_net_that_gives_no_numbers_is_told() -> None:
    net = observer(*constant(0.5, 0.5, float("nan"), 1))
    with pytest.raises(CheckFailed, match="not finite"):
        seen([net], part(drawn(20, 20)))


def test_a_picture_that_cannot_be_read_is_told_beside_the_others(tmp_path: Path) -> None:
    Image.fromarray(drawn(20, 20)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    files = single([str(tmp_path / "bad.png"), str(tmp_path / "good.png")])
    found = [*sightings([observer(*constant(0.5, 0.5, 1, 1))], files, np.arange(2), 0)]
    lost, kept = sorted(found, key=lambda each: each.index)
    assert isinstance(lost, LostImage)
    assert isinstance(kept, PictureSights)
    assert "not an image" in lost.skipped.reason


def test_what_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "memory", lambda: 5_000)
    with pytest.raises(UserError) as error:
        seen([observer(*constant(0.5, 0.5, 1, 1))], part(drawn(20, 20)))
    assert isinstance(error.value.diagnostics[0], diagnostics.NoRoom)


def test_a_net_that_cannot_slide_looks_at_the_centre() -> None:
    graph = graph_of("conv3-4 | flatten | batchnorm | boxes", "3x16x12")
    weights = weights_of(graph)
    with pytest.raises(UserError, match="--protocol centre"):
        observer(graph, weights)
    (found,) = seen([observer(graph, weights, dense=False)], part(drawn(20, 20)))
    assert len(found.box_nets[0][0].windows) == 1
