"""Exports: read back by the tools that they are for."""

from __future__ import annotations

import json
import logging
import os
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.support.nets import program
from vggc.api.export import export, metadata
from vggc.api.trained import Subject, from_spec
from vggc.backends.onnx import to_onnx
from vggc.backends.torch import build, reference
from vggc.ir.weights import seeded
from vggc.program import Program
from vggc.support.diagnostics import UserError
from vggc.support.files import check_target
from vggc.weight_files.load import load
from vggc_runtime.preprocessing import Preprocessing

Noise = Callable[..., np.ndarray]


@pytest.fixture
def subject(tiny: Program) -> Subject:
    return from_spec(tiny, None, seed=0)


@pytest.fixture
def branched() -> Subject:
    """With joins, normalisations inside and outside of paths, and two heads."""
    text = (
        "net branched input 3x16x16\n"
        "conv3-8 norm=batch | trunk: concat(conv1-4, conv3-4 norm=batch act=prelu | conv3-4)\n"
        "| batchnorm | gap | fc-5 | softmax\n"
        "head spot: @trunk | pool | boxes"
    )
    return from_spec(program(text), None, seed=0)


def expected(subject: Subject, x: np.ndarray) -> dict[str, np.ndarray]:
    graph = subject.program.graph
    values = reference(graph, subject.weights)(x)
    return {head.name: values[graph.nodes[head.node].name] for head in graph.heads}


@pytest.mark.parametrize("batch", [1, 4])
def test_onnxruntime_gives_the_same(
    subject: Subject, tmp_path: Path, noise: Noise, batch: int
) -> None:
    path = tmp_path / "tiny.onnx"
    export(subject, "onnx", path)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = noise(batch, 3, 16, 16)
    (output,) = session.run(None, {"input": x})
    np.testing.assert_allclose(output, expected(subject, x)["output"], rtol=1e-5, atol=1e-7)


def test_onnx_holds_every_weight_as_it_is(branched: Subject, tmp_path: Path) -> None:
    """Though the file is written apart from ONNX's own library, that reads what it would write."""
    graph, weights = branched.program.graph, branched.weights
    export(branched, "onnx", path := tmp_path / "branched.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    found = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert found.keys() == graph.all_weights.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values.ravel(), weights[name].ravel())
    assert [each.name for each in model.graph.input] == ["input"]
    written = path.read_bytes()
    assert len(written) == model.ByteSize()
    again = onnx.load_from_string(model.SerializeToString())
    assert again == model


def test_onnx_copies_no_weight() -> None:
    graph = program("net a input 1x1x1024 fc-512 | fc-3").graph
    weights = seeded(graph, 0)
    size = sum(values.nbytes for values in weights.values())
    to_onnx(graph, weights)  # what libraries keep of their own is there now
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in to_onnx(graph, weights).pieces())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > size
    assert peak < size / 10


def test_onnx_has_an_output_for_each_head(branched: Subject, tmp_path: Path, noise: Noise) -> None:
    path = tmp_path / "branched.onnx"
    export(branched, "onnx", path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = noise(3, 3, 16, 16)
    outputs = session.run(["output", "spot"], {"input": x})
    for output, wanted in zip(outputs, expected(branched, x).values(), strict=True):
        np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ["subject", "branched"])
def test_torch_export_gives_the_same(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, noise: Noise, batch: int
) -> None:
    subject: Subject = request.getfixturevalue(name)
    path = tmp_path / "net.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations while it traces
        export(subject, "pt2", path)
        module = torch.export.load(path).module()
    x = noise(batch, 3, 16, 16)
    with torch.inference_mode():
        result = module(torch.from_numpy(x))
    outputs = result if isinstance(result, dict) else {"output": result}
    wanted = expected(subject, x)
    assert outputs.keys() == wanted.keys()
    for head, output in outputs.items():
        np.testing.assert_allclose(output.numpy(), wanted[head], rtol=1e-4, atol=1e-6)


LIMITS = ("lrn alpha=1e-12", "lrn beta=1e-6 k=1", "leaky slope=0", "elu slope=0", "elu slope=1000")


@pytest.mark.parametrize("layer", LIMITS)
def test_onnxruntime_takes_values_as_small_as_they_may_be(
    tmp_path: Path, noise: Noise, layer: str
) -> None:
    subject = from_spec(program(f"net a input 3x8x8 conv3-4 | {layer} | gap | fc-3"), None, 0)
    export(subject, "onnx", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x = noise(2, 3, 8, 8)
    (output,) = session.run(None, {"input": x})
    np.testing.assert_allclose(output, expected(subject, x)["output"], rtol=1e-4, atol=1e-6)


NAMES = (
    *("forward", "training", "modules", "parameters", "T_destination", "call_super_init", "train"),
    *("nodes", "heads", "outputs", "whole", "weight", "roles", "moved", "layer_a", "graph", "code"),
    *("keys", "pop", "x", "self", "main", "bias", "norm", "running_mean", "é-2"),
    *("fi", "\ufb01", "\u00b5", "\u03bc", "K", "\u212a"),
    *("a-b", "a_b", "A-b", "a-", "None", "lambda"),
)
"""What PyTorch's modules, ours, and those that a program becomes call things of their own; names
that Python reads as others, or not at all."""


def test_layers_may_be_called_as_they_like(tmp_path: Path, noise: Noise) -> None:
    body = " | ".join(f"{name}: conv1-2" for name in NAMES)
    body += " | conv1-2 norm=batch act=prelu | gap | fc-3\nhead forward2: @forward | gap"
    text = f"net a input 3x4x4 {body}"
    subject = from_spec(program(text), None, seed=0)
    graph, x = subject.program.graph, noise(2, 3, 4, 4)
    net = build(graph, subject.weights).eval()
    assert net.state_dict().keys() == graph.all_weights.keys()
    assert {*dict(net.named_parameters()), *dict(net.named_buffers())} == graph.all_weights.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(subject, "pt2", tmp_path / "net.pt2")
        module = torch.export.load(tmp_path / "net.pt2").module()
    export(subject, "onnx", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    names = [output.name for output in session.get_outputs()]
    wanted, found = expected(subject, x), module(torch.from_numpy(x))
    for head, output in zip(names, session.run(names, {"input": x}), strict=True):
        np.testing.assert_allclose(output, wanted[head], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[head].detach(), wanted[head], rtol=1e-4, atol=1e-6)


def test_torch_export_has_nothing_to_complain_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("torch", "torch.export", "torch.export.pt2_archive"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    subject = from_spec(program("net a input 3x4x4 gap | fc-3"), None, seed=0)
    torch.set_warn_always(True)
    try:
        export(subject, "pt2", tmp_path / "net.pt2")
    finally:
        torch.set_warn_always(False)
    assert "Warning" not in capfd.readouterr().err
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_torchvisions_names_come_back(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    export(subject, "torchvision", path)
    assert {"features.0.weight", "classifier.6.bias"} <= load_file(path).keys()
    loaded = load(path, subject.program.graph).weights
    assert all(np.array_equal(loaded[name], w) for name, w in subject.weights.items())


def test_a_folder_that_takes_no_file_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_target(tmp_path / "x.onnx")
    monkeypatch.setattr("os.access", lambda path, how: False)  # which root may always
    with pytest.raises(UserError, match="may not be written to"):
        check_target(tmp_path / "x.onnx")


def test_a_net_that_branches_has_no_torchvision_names(branched: Subject, tmp_path: Path) -> None:
    path = tmp_path / "branched.safetensors"
    with pytest.raises(UserError, match="torchvision has no names for the weights of branched"):
        export(branched, "torchvision", path)
    assert not path.exists()


@pytest.mark.parametrize("style", ["onnx", "pt2", "torchvision"])
@pytest.mark.filterwarnings("ignore")  # torch's, of the end of a name
def test_a_file_may_have_a_name_that_is_no_text(
    subject: Subject, tmp_path: Path, style: str
) -> None:
    (folder := tmp_path / os.fsdecode(b"dossier\xe9")).mkdir()
    for name in (b"net.pt2", b"caf\xe9.pt2"):
        export(subject, style, folder / os.fsdecode(name))
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert len(sizes) == 2
    assert min(sizes) > 1000


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match="exists already"):
        check_target(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="there is no folder"):
        check_target(tmp_path / "missing" / "net.onnx")


# What travels with a net


ODD = ('"a", b\n', "猫 \u202e", "\udcff", "", "e")


@pytest.fixture
def trained(branched: Subject) -> Subject:
    how = Preprocessing((16, 16), None, (0.5, 0.25, 1 / 3), (0.2, 0.3, 0.1))
    return replace(branched, preprocessing=how, classes=ODD)


def known(subject: Subject) -> dict[str, object]:
    """What every format has to tell, checked by hand once."""
    values = metadata(subject)
    assert values["input"] == [3, 16, 16]
    assert (values["scale"], values["std"]) == (None, [0.2, 0.3, 0.1])
    assert values["outputs"] == {"output": "probabilities", "spot": "boxes"}
    assert values["classes"] == [*ODD]
    assert "RGB, upright, laid over white; resized in proportion" in values["preprocessing"]
    return values


def test_onnx_says_what_it_must_be_fed(trained: Subject, tmp_path: Path) -> None:
    """And names of classes survive, whatever their characters."""
    path = tmp_path / "net.onnx"
    export(trained, "onnx", path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    texts = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(text) for key, text in texts.items()} == known(trained)


def test_torch_export_says_what_it_must_be_fed(trained: Subject, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    files = {"metadata.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations while it traces
        export(trained, "pt2", path)
        torch.export.load(path, extra_files=files)
    assert json.loads(files["metadata.json"]) == known(trained)


def test_safetensors_say_what_they_were_trained_on(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    named = replace(subject, classes=(*ODD, *"fghij"))
    export(named, "torchvision", path)
    with safe_open(path, framework="np") as file:
        texts = file.metadata()
    assert {key: json.loads(text) for key, text in texts.items()} == metadata(named)
    assert load(path, subject.program.graph).weights.keys() == subject.weights.keys()


def test_what_has_no_soft_max_gives_scores(tmp_path: Path) -> None:
    bare = from_spec(program("net bare input 1x8x8 fc-3"), None, seed=0)
    assert metadata(bare)["outputs"] == {"output": "scores"}
    assert metadata(bare)["classes"] == []
