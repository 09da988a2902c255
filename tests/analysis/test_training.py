"""The memory of training, beside what PyTorch keeps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.support.nets import graph_of
from vggc.analysis.training import TrainingSetup, parts_of
from vggc.backends.torch import build

Noise = Callable[..., np.ndarray]

MEMORY = {
    "plain": "(conv3-16 ×2 | pool) ×2 | (fc-64 | dropout) ×2 | fc-10",
    "normalised": "(conv3-16 norm=batch ×2 | pool) ×2 | fc-64 norm=batch | fc-10",
    "activations": "conv3-16 act=gelu | conv3-16 act=tanh | conv3-16 act=elu | conv3-16 act=none"
    " | prelu | conv3-16 act=sigmoid | conv3-16 act=silu | avgpool | fc-10",
    "inception": "conv3-16 | concat(conv1-8, conv3-8 | conv3-8, pool3 stride=1 padding=1 | conv1-8)"
    " | conv3-16 | gap | fc-10",
    "residual": "conv3-16 | add(conv3-16 norm=batch | conv3-16 norm=batch act=none, skip) | relu"
    " | gap | fc-10",
    "squeeze": "conv3-16 | mul(conv3-16 norm=batch, gap | fc-4 | fc-16 act=sigmoid) | conv3-16"
    " | gap | fc-10",
}


@pytest.mark.parametrize("name", MEMORY)
def test_the_memory_of_training_is_what_autograd_keeps(name: str, noise: Noise) -> None:
    """Distinct storages saved for the backward pass, weights aside, within a twentieth."""
    graph = graph_of(MEMORY[name], "3x32x32")
    net = build(graph).train()
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(torch.from_numpy(noise(8, *graph.input)))
    weights = {p.untyped_storage().data_ptr() for p in net.state_dict().values()}
    measured = sum(size for place, size in kept.items() if place not in weights)
    estimate = sum(layer.saved for layer in parts_of(graph, TrainingSetup(images=8)))
    assert output.requires_grad
    assert estimate == pytest.approx(measured, rel=0.05)
