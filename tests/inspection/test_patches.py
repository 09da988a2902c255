"""The patches that excite filters most, held to a search by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.inspected import framed, inspected, pixels
from tests.support.nets import graph_of
from vggc.inspection import net as inspection_net
from vggc.inspection.layers import map_layers
from vggc.inspection.patches import (
    Strongest,
    WantedFilters,
    patch_here,
    spread_out,
    strongest_filters,
    strongest_patches,
)

GRAPH = graph_of("conv3-4 | pool | conv3-6 | pool | fc-2", "3x13x11")


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_the_patches_are_those_of_a_search_by_hand(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(inspection_net, "MOST_AT_ONCE", at_once)
    net, images = inspected(GRAPH, std=0.3), pixels(30, 13, 11, 3)
    layers = map_layers(GRAPH)
    wanted = [WantedFilters(layers["conv1_1"], (3, 0)), WantedFilters(layers["conv2_1"], (5, 1))]
    indices = np.arange(0, 30, 2)
    found = strongest_patches(net, framed(images), indices, wanted, 4)
    assert (found.images, found.unread) == (15, 0)
    assert {*found.by_filter} == {("conv1_1", 3), ("conv1_1", 0), ("conv2_1", 5), ("conv2_1", 1)}
    for (name, number), patches in found.by_filter.items():
        layer = layers[name]
        maps = {i: net.maps(images[i], {layer.node})[layer.node][number] for i in indices}
        best = sorted(maps, key=lambda i: -maps[i].max())[:4]
        best = [i for i in best if maps[i].max() > 0]
        assert [patch.name for patch in patches] == [str(i) for i in best]
        for index, patch in zip(best, patches, strict=True):
            row, column = np.unravel_index(maps[index].argmax(), maps[index].shape)
            assert patch.value == pytest.approx(maps[index].max(), rel=1e-5)
            assert patch.box == layer.seen(int(row), int(column), (13, 11))
            assert (patch.pixels == images[index]).all()


def test_two_names_of_one_layer_are_both_answered() -> None:
    graph = graph_of("conv3-4 act=none | relu | pool | fc-2", "3x13x11")
    layers = map_layers(graph)
    wanted = [WantedFilters(layers[name], (0, 1, 2, 3)) for name in ("conv1_1", "relu1")]
    found = strongest_patches(
        inspected(graph), framed(pixels(3, 13, 11, 3)), np.arange(3), wanted, 2
    )
    for number in range(4):
        first, second = (found.by_filter[name, number] for name in ("conv1_1", "relu1"))
        assert [each.value for each in first] == [each.value for each in second]


def test_images_come_once_each_and_the_first_of_equals_first() -> None:
    stream = Strongest([0], 3)
    maps = torch.zeros(5, 1, 2, 2)
    maps[0, 0, 1, 0] = maps[0, 0, 1, 1] = maps[2, 0, 0, 1] = maps[4, 0, 0, 0] = 7.0
    maps[1, 0] = 3.0
    stream.add(maps[:2], torch.tensor([10, 11]))
    stream.add(maps[2:], torch.tensor([12, 13, 14]))
    (found,) = stream.found().values()
    assert [(e.image, e.value, e.row, e.column) for e in found] == [
        (10, 7.0, 1, 0),
        (12, 7.0, 0, 1),
        (14, 7.0, 0, 0),
    ]


def test_what_excites_nothing_is_left_out() -> None:
    stream = Strongest([0, 1], 3)
    stream.add(torch.tensor([[[[0.0]], [[2.0]]], [[[-1.0]], [[0.0]]]]), torch.tensor([4, 5]))
    assert {n: [e.image for e in found] for n, found in stream.found().items()} == {0: [], 1: [4]}


def test_images_that_cannot_be_read_are_counted_and_passed_over() -> None:
    images = framed(pixels(4, 13, 11, 3))
    broken = framed(pixels(4, 13, 11, 3))
    real = broken.part.store

    class Store:
        names = real.names

        def fetch(self, numbers: list[int]) -> list[object]:
            return [
                b"no image" if n == 2 else found
                for n, found in zip(numbers, real.fetch(numbers), strict=True)
            ]

    object.__setattr__(broken.part, "store", Store())
    wanted = [WantedFilters(map_layers(GRAPH)["conv1_1"], (0, 1, 2, 3))]
    found = strongest_patches(inspected(GRAPH), broken, np.arange(4), wanted, 4)
    assert (found.images, found.unread) == (3, 1)
    names = {patch.name for patches in found.by_filter.values() for patch in patches}
    assert "2" not in names
    assert strongest_patches(inspected(GRAPH), images, np.arange(0), wanted, 4).images == 0


def test_the_filters_of_an_image_are_those_of_its_greatest_values() -> None:
    maps = np.zeros((4, 2, 2), np.float32)
    maps[1, 0, 1], maps[3, 1, 1], maps[2, 0, 0] = 5, 6, -1
    assert strongest_filters(maps, 3) == (3, 1)
    assert strongest_filters(maps, 1) == (3,)


def test_the_patch_of_the_image_itself_is_where_the_map_is_greatest() -> None:
    net, image = inspected(GRAPH), pixels(13, 11, 3)
    layer = map_layers(GRAPH)["conv1_1"]
    found = net.maps(image, {layer.node})[layer.node][0]
    patch = patch_here("image", image, layer, found)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert patch.value == found.max()
    assert patch.box == layer.seen(int(row), int(column), (13, 11))


@pytest.mark.parametrize(
    ("total", "most", "indices"), [(10, 3, [0, 3, 6]), (3, 10, [0, 1, 2]), (0, 5, [])]
)
def test_images_are_taken_evenly_spread(total: int, most: int, indices: list[int]) -> None:
    assert spread_out(total, most).tolist() == indices
