"""Files whose blocks have a scale of their own, which PyTorch writes before the layers in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.nets import graph_of
from vggc.ir.weights import seeded
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load

CONVNEXT = (
    "conv4-8 stride=4 padding=0 act=none | layernorm"
    "| add(conv3-8 groups=8 act=none | layernorm | conv1-16 act=gelu"
    "| conv1-8 act=none | scale bias=off, skip) ×2 | gap | fc-3"
)
BLOCK = {"conv1": "0", "layernorm1": "2", "conv2": "3", "conv3": "5"}
"""Of torchvision's blocks: permutations and activations are numbered, too."""
OTHERS = {"conv1_1": "features.0.0", "layernorm1": "features.0.1", "fc1": "classifier.2"}


def torchvisions(name: str) -> str:
    """What torchvision's class of ConvNeXt calls a weight of ours."""
    layer, role = name.split(".")
    if layer.startswith("add"):
        block, inner = layer.split("_")
        place = f"features.1.{int(block.removeprefix('add')) - 1}"
        return f"{place}.{'layer_scale' if inner == 'scale1' else f'block.{BLOCK[inner]}.{role}'}"
    return f"{OTHERS[layer]}.{role}"


def scales_first(named: Mapping[str, Tensor], scale: str) -> dict[str, Tensor]:
    """The tensors as a class makes them: a block's scale before its layers."""
    order = list(named)
    for name in [name for name in named if name.endswith(scale)]:
        block = name.removesuffix(scale)
        order.remove(name)
        order.insert(next(i for i, each in enumerate(order) if each.startswith(block)), name)
    return {name: named[name] for name in order}


@pytest.mark.parametrize("scale", ["layer_scale", "gamma"])
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_scale_of_a_block_is_matched_behind_its_layers(
    tmp_path: Path, form: str, scale: str
) -> None:
    graph = graph_of(CONVNEXT, "3x16x16")
    weights = seeded(graph, 0)
    named = {torchvisions(name): torch.from_numpy(tensor) for name, tensor in weights.items()}
    named = {
        name.replace("layer_scale", scale): tensor[:, None, None] if "scale" in name else tensor
        for name, tensor in named.items()
    }
    file = tmp_path / f"weights.{form}"
    if form == "pth":
        torch.save(scales_first(named, scale), file)
    else:
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, file)
    found = load(file, graph)
    assert found.weights.keys() == weights.keys()
    for name, tensor in weights.items():
        assert np.array_equal(found.weights[name], tensor), name


@pytest.mark.parametrize("names", [(".weight", ".bias"), ("a..weight", "a..bias")])
def test_a_name_with_an_empty_part_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(dict(zip(names, (torch.ones(3, 3), torch.ones(3)), strict=True)), file)
    with pytest.raises(UserError, match="has an empty part"):
        load(file, graph_of("gap | fc-3", "3x8x8"))
