"""Nets of packages by their names, of which a small stand-in is installed here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from vggc.importing.readers import is_module, read_net
from vggc.importing.torch_module import read_module
from vggc.support.diagnostics import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TIMM = '''
"""As timm is seen from outside."""
from types import SimpleNamespace
import torch
from torch import nn

__version__ = "1.2.3"

def list_models():
    return ["vgg_small", "odd"]

def create_model(name, pretrained):
    assert not pretrained
    if name == "odd":
        return Odd()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 2))
    net.pretrained_cfg = {"url": "https://example.com/vgg_small-12345678.pth"}
    return net

class Odd(nn.Module):
    def forward(self, x):
        return x.relu() if x.sum() > 0 else x

data = SimpleNamespace(resolve_model_data_config=lambda module: {
    "input_size": (3, 8, 8), "crop_pct": 0.8, "crop_mode": "center", "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})
'''


@pytest.fixture(autouse=True)
def timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("timm", None)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *map(nn.Identity, range(3)), nn.Linear(4, 2))


def state(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(each, value) for name, each in net().state_dict().items()}


def mistake(spec: str, weights: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_module(spec, weights)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("torchvision:vgg16", True), ("timm:a", True), ("timm", False), ("c:/net.onnx", False)],
)
def test_a_word_with_a_package_names_a_module(word: str, meant: bool) -> None:
    assert is_module(word) is meant


def test_a_net_without_weights_at_hand_has_random_ones_and_says_so() -> None:
    foreign, again = read_module("timm:vgg_small"), read_module("timm:vgg_small")
    assert foreign.name == "vgg_small"
    assert foreign.notes == (
        "the weights are random: no file is given, and timm has none in its cache",
    )
    assert np.array_equal(foreign.tensors["0.weight"].read(), again.tensors["0.weight"].read())
    how = foreign.facts.preprocessing
    assert how is not None
    assert (how.size, how.scale, how.interpolation) == ((8, 8), 10, "bicubic")
    assert (how.mean, how.std) == ((0.5,) * 3, (0.25,) * 3)
    assert foreign.facts.source == "timm 1.2.3, random weights"


def test_another_size_of_pictures_is_traced() -> None:
    foreign = read_module("timm:vgg_small", size=(9, 10))
    sides = foreign.model.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_value for each in sides] == [1, 3, 9, 10]
    assert foreign.facts.preprocessing is None


def test_its_own_engine_computes_the_module() -> None:
    foreign = read_module("timm:vgg_small")
    assert foreign.engine is not None
    engine = foreign.engine()
    assert engine.title == f"torch {torch.__version__}"
    found = engine.run(np.ones((1, 3, 8, 8), np.float32))
    assert [*found] == [foreign.model.graph.output[0].name]
    assert found[foreign.model.graph.output[0].name].shape == (1, 2)


def test_weights_in_the_cache_are_taken(tmp_path: Path) -> None:
    cache = tmp_path / "home" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state(3), cache / "vgg_small-12345678.pth")
    foreign = read_module("timm:vgg_small")
    assert (foreign.tensors["0.weight"].read() == 3).all()
    assert "in timm's cache" in foreign.notes[0]
    assert len(foreign.sha256) == 64


def test_weights_of_a_file_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    whole = {f"module.{name}": each for name, each in state(5).items()}
    torch.save({"state_dict": whole, "epoch": 3}, path)
    assert (read_module("timm:vgg_small", path).tensors["4.bias"].read() == 5).all()
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(state(6), path)
    assert (read_module("timm:vgg_small", path).tensors["4.bias"].read() == 6).all()


def test_a_module_is_named_where_files_are(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(state(6), path)
    assert read_net(["timm:vgg_small"]).name == "vgg_small"
    assert (read_net(["timm:vgg_small", str(path)]).tensors["4.bias"].read() == 6).all()
    with pytest.raises(UserError):
        read_net([str(path), "timm:vgg_small"])


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({name.replace("4.bias", "4.bios"): each for name, each in state(1).items()}, path)
    assert "it has no `4.bias`" in mistake("timm:vgg_small", path)
    torch.save(state(1) | {"4.bias": torch.zeros(9)}, path)
    assert "`4.bias` is of 9 there, of 2 in the net" in mistake("timm:vgg_small", path)
    torch.save([1, 2], path)
    assert "it is no table of tensors" in mistake("timm:vgg_small", path)
    path.write_bytes(b"nothing")
    assert "does not hold the weights of timm:vgg_small" in mistake("timm:vgg_small", path)
    assert "does not hold" in mistake("timm:vgg_small", tmp_path / "missing.pth")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("timm:vgg_smal", "did you mean `vgg_small`?"),
        ("timm:hf-hub:somebody/net", "give the name of an architecture"),
        ("timm:local-dir:/tmp", "give the name of an architecture"),
        ("timm:odd", "torch cannot trace this module"),
    ],
)
def test_no_other_nets_are_built(spec: str, told: str) -> None:
    assert told in mistake(spec)


def test_a_package_that_is_missing_or_broken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggc.importing.torch_module.find_spec", lambda name: None)
    assert "pip install torchvision" in mistake("torchvision:vgg16")
    monkeypatch.undo()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "timm.py").write_text("raise RuntimeError('operator does not exist')")
    monkeypatch.syspath_prepend(broken)
    sys.modules.pop("timm", None)
    assert "operator does not exist" in mistake("timm:vgg_small")
