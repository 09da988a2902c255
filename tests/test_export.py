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
from safetensors.numpy import load_file

from vggc.backends.torch import reference
from vggc.diagnostics import UserError
from vggc.driver import Program
from vggc.export import check_target, export
from vggc.subject import Subject, from_spec
from vggc.weights import load

Noise = Callable[..., np.ndarray]


@pytest.fixture
def subject(tiny: Program) -> Subject:
    return from_spec(tiny, None, seed=0)


def expected(subject: Subject, x: np.ndarray) -> np.ndarray:
    graph = subject.program.graph
    return reference(graph, subject.weights)(x)[graph.nodes[-1].name]


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
    np.testing.assert_allclose(output, expected(subject, x), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_torch_export_gives_the_same(
    subject: Subject, tmp_path: Path, noise: Noise, batch: int
) -> None:
    path = tmp_path / "tiny.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations while it traces
        export(subject, "pt2", path)
        module = torch.export.load(path).module()
    x = noise(batch, 3, 16, 16)
    with torch.inference_mode():
        output = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(output, expected(subject, x), rtol=1e-4, atol=1e-6)


def test_torchvisions_names_come_back(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    export(subject, "torchvision", path)
    assert {"features.0.weight", "classifier.6.bias"} <= load_file(path).keys()
    loaded = load(path, subject.program.graph)
    assert all(np.array_equal(loaded[name], w) for name, w in subject.weights.items())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match="exists already"):
        check_target(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="there is no folder"):
        check_target(tmp_path / "missing" / "net.onnx")
