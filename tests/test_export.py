"""Exports: read back by the tools that they are for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import program
from safetensors.numpy import load_file

from vggc.backends.torch import reference
from vggc.diagnostics import UserError
from vggc.driver import Program
from vggc.export import export
from vggc.files import check_target
from vggc.subject import Subject, from_spec
from vggc.weights import load

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


def test_torchvisions_names_come_back(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    export(subject, "torchvision", path)
    assert {"features.0.weight", "classifier.6.bias"} <= load_file(path).keys()
    loaded = load(path, subject.program.graph)
    assert all(np.array_equal(loaded[name], w) for name, w in subject.weights.items())


def test_a_net_that_branches_has_no_torchvision_names(branched: Subject, tmp_path: Path) -> None:
    path = tmp_path / "branched.safetensors"
    with pytest.raises(UserError, match="torchvision has no names for the weights of branched"):
        export(branched, "torchvision", path)
    assert not path.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match="exists already"):
        check_target(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="there is no folder"):
        check_target(tmp_path / "missing" / "net.onnx")
