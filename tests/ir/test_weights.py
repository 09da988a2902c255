"""Random weights, and the files in which vggc keeps weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.nets import graph_of
from vggc.backends.torch import reference
from vggc.ir.weights import save, seeded, shares_of_sums
from vggc.support.tensors import opened

SMALL = "conv3-4 | pool | (fc-6 | dropout) ×2 | fc-3"


def test_seeded_vectors_vary_around_their_start() -> None:
    graph = graph_of("conv3-400 norm=batch act=prelu", "3x4x4")
    weights = seeded(graph, 0)
    for role, start, spread in (
        ("norm.weight", 1.0, 0.1),
        ("norm.running_var", 1.0, 0.1),
        ("norm.running_mean", 0.0, 0.01),
        ("prelu.weight", 0.25, 0.025),
    ):
        values = weights[f"conv1_1.{role}"]
        assert values.mean() == pytest.approx(start, abs=spread / 5)
        assert values.std() == pytest.approx(spread, rel=0.1)
    assert (weights["conv1_1.norm.running_var"] > 0).all()


RESIDUAL = "conv3-9 | (add(conv3-9 | conv3-9 act=none norm=batch, skip) | relu) ×{} | gap | fc-99"


def test_seeded_sums_do_not_grow_with_depth() -> None:
    """With weights as elsewhere two dozen blocks would multiply them by nearly ten thousand."""
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    spread = []
    for blocks in (1, 24):
        graph = graph_of(RESIDUAL.format(blocks), "3x8x8")
        spread.append(reference(graph, seeded(graph, 0))(x)["fc1"].std())
    assert spread[1] < 4 * spread[0]


def test_of_what_is_added_up_the_last_weights_are_smaller() -> None:
    """By the root of the sums of the net beside what is passed on, else by that of the paths."""
    graph = graph_of(
        "conv3-4 | add(skip, conv3-4 act=prelu)"
        "| add(conv1-4 norm=batch act=none, conv3-4 act=none | relu)"
        "| conv3-4 | add(skip, conv1-4 | avgpool3 stride=1 padding=1)",
        "3x8x8",
    )
    assert shares_of_sums(graph) == pytest.approx(
        {
            "add1_conv1.weight": 3**-0.5,
            "add2_conv1.norm.weight": 2**-0.5,
            "add2_conv2.weight": 2**-0.5,
            "add3_conv1.weight": 3**-0.5,
        }
    )


def test_seeded_weights_are_the_same_everywhere_and_differ_by_seed() -> None:
    graph = graph_of(SMALL)
    first, again, other = seeded(graph, 0), seeded(graph, 0), seeded(graph, 1)
    assert np.array_equal(first["conv1_1.weight"], again["conv1_1.weight"])
    assert not np.array_equal(first["conv1_1.weight"], other["conv1_1.weight"])
    row = [0.3041782081127167, -0.3775275945663452, -0.11609809100627899]
    assert first["conv1_1.weight"][0, 0, 0].tolist() == pytest.approx(row, rel=1e-6)


def test_a_file_can_be_mapped_and_its_tensors_used_where_they_lie(tmp_path: Path) -> None:
    """Tensors of whole cache lines begin at one, the data at a page; others read it as it was."""
    from safetensors.numpy import load_file

    shapes = {"odd": (5,), "empty": (0, 3), "plain": (4, 4), "bytes": (3,), "image": (2, 3, 8, 8)}
    dtypes = {"odd": "<f8", "bytes": "i1", "image": "<f2"}
    tensors = {
        name: np.arange(np.prod(shape)).reshape(shape).astype(dtypes.get(name, "<f4"))
        for name, shape in shapes.items()
    }
    path = tmp_path / "w.safetensors"
    save(path, tensors, {"maker": "a test"})
    with opened(path) as file:
        places = {name: stored.offset for name, stored in file.tensors.items()}
        own = {name: file.read(name) for name in places}
        mapped = file.mapped()
        assert file.metadata == {"maker": "a test"}
    assert min(places.values()) % 4096 == 0
    assert {name for name, place in places.items() if place % 64} == {"bytes"}
    assert list(places) == ["empty", "plain", "image", "odd", "bytes"]
    for found in (own, mapped.tensors, load_file(path)):
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert np.array_equal(found[name], tensor)


def test_tensors_that_are_forgotten_are_read_from_their_file_again(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    rows = np.arange(3 * 4096, dtype=np.float32).reshape(12, 1024)  # each fills a page
    save(path, {"rows": rows}, {})
    before = path.read_bytes()
    with opened(path) as file:
        mapped = file.mapped()
    found = mapped.tensors["rows"]
    found[:] = 7
    mapped.forget(found[2:5])
    assert np.array_equal(found[2:5], rows[2:5])
    assert (found[:2] == 7).all()
    assert (found[5:] == 7).all()
    assert path.read_bytes() == before
