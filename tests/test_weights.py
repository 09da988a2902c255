"""Weights: torchvision's names and shapes, typed by hand, and files that are hostile."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import graph_of

from vggc.diagnostics import UserError
from vggc.driver import load as load_program
from vggc.weights import load, save, seeded, torchvision_names

# torchvision.models.vgg16().state_dict(), names and shapes, as torchvision prints them.
TORCHVISION_VGG16 = {
    "features.0": (64, 3, 3, 3),
    "features.2": (64, 64, 3, 3),
    "features.5": (128, 64, 3, 3),
    "features.7": (128, 128, 3, 3),
    "features.10": (256, 128, 3, 3),
    "features.12": (256, 256, 3, 3),
    "features.14": (256, 256, 3, 3),
    "features.17": (512, 256, 3, 3),
    "features.19": (512, 512, 3, 3),
    "features.21": (512, 512, 3, 3),
    "features.24": (512, 512, 3, 3),
    "features.26": (512, 512, 3, 3),
    "features.28": (512, 512, 3, 3),
    "classifier.0": (4096, 25088),
    "classifier.3": (4096, 4096),
    "classifier.6": (1000, 4096),
}
# The indices of the convolutions of torchvision's other nets; classifiers are the same.
TORCHVISION_FEATURES = {
    "vgg11": [0, 3, 6, 8, 11, 13, 16, 18],
    "vgg13": [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
}

SMALL = "conv3-4 | pool | (fc-6 | dropout) ×2 | fc-3"


def test_vgg16_has_torchvisions_names_and_shapes() -> None:
    graph = load_program("vgg16").graph
    names = torchvision_names(graph)
    shapes = {names[ours]: weight.shape for ours, weight in graph.all_weights.items()}
    expected = {f"{layer}.weight": shape for layer, shape in TORCHVISION_VGG16.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in TORCHVISION_VGG16.items()}
    assert shapes == expected


@pytest.mark.parametrize("net", TORCHVISION_FEATURES)
def test_the_other_nets_have_torchvisions_names(net: str) -> None:
    names = torchvision_names(load_program(net).graph).values()
    layers = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    features = [f"features.{index}" for index in TORCHVISION_FEATURES[net]]
    assert layers == [*features, "classifier.0", "classifier.3", "classifier.6"]


def test_a_file_under_either_names_loads_the_same(tmp_path: Path) -> None:
    graph = graph_of(SMALL)
    weights = seeded(graph, 0)
    names = torchvision_names(graph)
    save(tmp_path / "ours.safetensors", weights)
    save(tmp_path / "theirs.safetensors", {names[name]: w for name, w in weights.items()})
    for file in ("ours", "theirs"):
        loaded = load(tmp_path / f"{file}.safetensors", graph)
        assert list(loaded) == list(weights)
        assert all(np.array_equal(loaded[name], weights[name]) for name in weights)


def test_seeded_weights_are_the_same_everywhere_and_differ_by_seed() -> None:
    graph = graph_of(SMALL)
    first, again, other = seeded(graph, 0), seeded(graph, 0), seeded(graph, 1)
    assert np.array_equal(first["conv1_1.weight"], again["conv1_1.weight"])
    assert not np.array_equal(first["conv1_1.weight"], other["conv1_1.weight"])
    row = [0.3041782081127167, -0.3775275945663452, -0.11609809100627899]
    assert first["conv1_1.weight"][0, 0, 0].tolist() == pytest.approx(row, rel=1e-6)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path, graph_of(SMALL))
    return str(caught.value)


def changed(tmp_path: Path, **tensors: np.ndarray | None) -> Path:
    """A file of the small net's weights with some replaced, added or (None) left out."""
    weights = {**seeded(graph_of(SMALL), 0), **tensors}
    path = tmp_path / "weights.safetensors"
    save(path, {name: tensor for name, tensor in weights.items() if tensor is not None})
    return path


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    assert "has no weight `fc2.weight`" in refusal(changed(tmp_path, **{"fc2.weight": None}))


def test_an_unknown_weight_is_named(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, **{"fc9.weight": np.zeros(3, np.float32)}))
    assert "has a weight `fc9.weight` that the net sample does not" in text


def test_a_weight_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, **{"fc4.bias": np.zeros(7, np.float32)}))
    assert "`fc4.bias`" in text
    assert "needs (3,), the file holds (7,)" in text


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, **{"fc4.bias": np.full(3, np.nan, np.float32)}))
    assert "`fc4.bias`" in text
    assert "not finite" in text


def test_integers_are_no_weights(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, **{"fc4.bias": np.zeros(3, np.int64)}))
    assert "not of floats" in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 8) + b"not json",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", len(b'{"a":{}}')) + b'{"a":{}}',
        b"\x80\x04\x95pickle",
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    assert refusal(path).startswith(f"error: cannot read the weights in {path}")


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(header).encode()
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert "cannot read the weights" in refusal(path)
