"""Weights: torchvision's names and shapes, typed by hand, and files that are hostile."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.support.nets import graph_of
from vggc.ir.weights import save, seeded
from vggc.program import load as load_program
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load, load_part
from vggc.weight_files.names import torchvision_names

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

# torchvision.models.vgg11_bn(): convolutions, and the normalisation one behind each.
TORCHVISION_VGG11_BN = [0, 4, 8, 11, 15, 18, 22, 25]
VGG11_BN = " | pool | ".join(
    f"conv3-{width} norm=batch ×{times}"
    for width, times in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))
)
# torchvision.models.alexnet(): its classifier begins with a dropout.
TORCHVISION_ALEXNET = ["features." + index for index in ("0", "3", "6", "8", "10")]
TORCHVISION_ALEXNET += ["classifier." + index for index in ("1", "4", "6")]
ALEXNET = (
    "conv11-64 stride=4 padding=2 | pool3 stride=2 | conv5-192 | pool3 stride=2 | conv3-384"
    " | conv3-256 ×2 | pool3 stride=2 | dropout | fc-4096 | dropout | fc-4096 | fc-1000"
)

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
        loaded = load(tmp_path / f"{file}.safetensors", graph).weights
        assert list(loaded) == list(weights)
        assert all(np.array_equal(loaded[name], weights[name]) for name in weights)


def test_normalisations_have_torchvisions_names() -> None:
    names = torchvision_names(graph_of(VGG11_BN, "3x32x32"))
    expected = []
    for index in TORCHVISION_VGG11_BN:
        expected += [f"features.{index}.{role}" for role in ("weight", "bias")]
        roles = ("weight", "bias", "running_mean", "running_var")
        expected += [f"features.{index + 1}.{role}" for role in roles]
    assert list(names.values()) == expected


def test_alexnet_has_torchvisions_names() -> None:
    names = torchvision_names(graph_of(ALEXNET, "3x224x224")).values()
    assert [name.removesuffix(".weight") for name in names if ".weight" in name] == (
        TORCHVISION_ALEXNET
    )


def test_an_activation_with_weights_is_numbered_as_any_other() -> None:
    names = torchvision_names(graph_of("conv3-4 act=prelu | conv3-4 | fc-6 act=prelu | fc-5"))
    slopes = {ours: theirs for ours, theirs in names.items() if "prelu" in ours}
    assert slopes == {
        "conv1_1.prelu.weight": "features.1.weight",
        "fc1.prelu.weight": "classifier.1.weight",
    }


@pytest.mark.parametrize("layer", ["batchnorm", "prelu"])
def test_what_is_trained_behind_a_global_average_is_of_the_classifier(layer: str) -> None:
    graph = graph_of(f"conv3-4 | gap | dropout | {layer} | fc-5 | {layer}")
    names = torchvision_names(graph)
    assert names.keys() == graph.all_weights.keys()
    assert names[f"{layer}1.weight"] == "classifier.0.weight"
    assert names["fc1.weight"] == "classifier.1.weight"
    assert names[f"{layer}2.weight"] == "classifier.2.weight"


@pytest.mark.parametrize(
    "body", ["conv3-4 | concat(conv1-2, skip)", "a: conv3-4 | fc-5 head features: @a"]
)
def test_nets_that_are_no_chain_have_no_torchvision_names(body: str, tmp_path: Path) -> None:
    graph = graph_of(body)
    assert torchvision_names(graph) == {}
    weights = seeded(graph, 0)
    save(tmp_path / "ours.safetensors", weights)
    assert load(tmp_path / "ours.safetensors", graph).weights.keys() == weights.keys()


@pytest.mark.parametrize("style", ["ours", "theirs"])
def test_the_counters_of_torchs_normalisations_are_left_out(style: str, tmp_path: Path) -> None:
    graph = graph_of("conv3-4 norm=batch | fc-5")
    weights, names = seeded(graph, 0), torchvision_names(graph)
    named = {name if style == "ours" else names[name]: w for name, w in weights.items()}
    counter = next(n for n in named if "running_var" in n).replace(
        "running_var", "num_batches_tracked"
    )
    save(tmp_path / "file.safetensors", {**named, counter: np.array(7, np.int64)})
    loaded = load(tmp_path / "file.safetensors", graph).weights
    assert loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)


def refusal(path: Path, body: str = SMALL) -> str:
    with pytest.raises(UserError) as caught:
        load(path, graph_of(body))
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


def test_a_variance_below_zero_is_named(tmp_path: Path) -> None:
    body = "conv3-4 norm=batch | fc-3"
    weights = seeded(graph_of(body), 0)
    weights["conv1_1.norm.running_var"][2] = -1e-6
    save(tmp_path / "weights.safetensors", weights)
    text = refusal(tmp_path / "weights.safetensors", body)
    assert "`conv1_1.norm.running_var`" in text
    assert "variances below zero" in text


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


# Types, names and sizes of what lies in a file


def stored_as(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> Path:
    """A file of these tensors in a type that numpy may not have, written by PyTorch."""
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    save_file({name: torch.from_numpy(each).to(kind) for name, each in tensors.items()}, path)
    return path


@pytest.mark.parametrize(
    ("dtype", "digits"), [("float64", 0), ("float32", 0), ("float16", 11), ("bfloat16", 8)]
)
def test_floats_of_any_width_are_read(tmp_path: Path, dtype: str, digits: int) -> None:
    """Values are rounded to so many binary digits by the type; those read are the rounded ones."""
    import torch

    graph = graph_of(SMALL)
    weights = seeded(graph, 0)
    loaded = load(stored_as(tmp_path / "w.safetensors", weights, dtype), graph).weights
    for name, tensor in weights.items():
        rounded = torch.from_numpy(tensor).to(getattr(torch, dtype)).float().numpy()
        assert loaded[name].dtype == np.float32
        assert np.array_equal(loaded[name], rounded)
        assert np.array_equal(loaded[name], tensor) == (digits == 0)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("float8_e4m3fn", "F8_E4M3"),
        ("float8_e5m2", "F8_E5M2"),
        ("int8", "I8"),
        ("bool", "BOOL"),
        ("complex64", "C64"),
    ],
)
def test_other_types_are_refused_with_the_tensors_name(
    tmp_path: Path, dtype: str, kind: str
) -> None:
    weights = {name: abs(each) for name, each in seeded(graph_of(SMALL), 0).items()}
    text = refusal(stored_as(tmp_path / "w.safetensors", weights, dtype))
    assert f"the tensor `conv1_1.weight` is of type {kind}, not of floats" in text


def test_a_large_foreign_tensor_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Of a file of 6 GiB, nearly all of it a hole, the header alone is read."""
    import tracemalloc

    size = 6 << 30
    header = {"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    tracemalloc.start()
    assert "are not those of the net sample" in refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_two_tensors_for_one_weight_are_refused_with_both_names(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, **{"classifier.3.bias": np.zeros(6, np.float32)}))
    assert "has two tensors for the weight `fc3.bias`" in text
    assert "`fc3.bias`, and `classifier.3.bias` by torchvision's names" in text


def test_a_header_that_names_a_tensor_twice_is_refused(tmp_path: Path) -> None:
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    text = f"{{{entry}, {entry}}}".encode()
    path = tmp_path / "twice.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert "its header has the key `a` twice in one object" in refusal(path)


def test_a_part_of_a_file_is_read_under_either_names(tmp_path: Path) -> None:
    graph = graph_of(SMALL)
    weights, names = seeded(graph, 0), torchvision_names(graph)
    broken = {**weights, "fc4.bias": np.full(3, np.nan, np.float32), "more": weights["fc4.bias"]}
    save(tmp_path / "ours.safetensors", broken)
    theirs = {names.get(name, name): each for name, each in broken.items()}
    save(tmp_path / "theirs.safetensors", theirs)
    for file in ("ours", "theirs"):
        path = tmp_path / f"{file}.safetensors"
        found = load_part(path, graph, ["conv1_1.weight"], graph).weights
        assert found.keys() == {"conv1_1.weight"}
        assert np.array_equal(found["conv1_1.weight"], weights["conv1_1.weight"])
        with pytest.raises(UserError, match="not finite"):
            load_part(path, graph, ["fc4.bias"], graph)


@pytest.mark.parametrize("place", ["pipe", "device", "folder", "nowhere"])
def test_weights_that_are_no_file_are_refused_at_once(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    match place:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    assert refusal(path).startswith(f"error: cannot read the weights in {path}")
