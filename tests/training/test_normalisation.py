"""Batch normalisation while training: statistics, first values, and batches of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.nets import graph_of
from vggc.backends.torch import build
from vggc.ir.weights import save
from vggc.recipe.train import He
from vggc.training.initialise import initialise
from vggc.weight_files.load import load

BODY = "conv3-4 norm=batch act=prelu | gap | batchnorm | fc-5"


def test_modules_begin_where_their_weights_start() -> None:
    graph = graph_of(BODY)
    state = build(graph).state_dict()
    assert state.keys() == graph.all_weights.keys()
    for name, weight in graph.all_weights.items():
        assert (state[name] == weight.start).all()


def test_first_weights_leave_normalisations_and_slopes_at_their_start() -> None:
    graph = graph_of(BODY)
    net = build(graph)
    initialise(net, He(), seed=0)
    state = net.state_dict()
    for name, weight in graph.all_weights.items():
        drawn = len(weight.shape) > 1
        assert (state[name] == weight.start).all() != drawn, name


def test_statistics_are_buffers_and_all_else_is_trained() -> None:
    graph = graph_of(BODY)
    net = build(graph)
    trained = {name for name, weight in graph.all_weights.items() if weight.trained}
    assert {name for name, _ in net.named_parameters()} == trained
    assert {name for name, _ in net.named_buffers()} == graph.all_weights.keys() - trained


def test_statistics_move_by_the_momentum_in_training_only() -> None:
    net = build(graph_of("n: batchnorm", "2x4x4"))
    x = 3 + 2 * torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    net.eval()(x)
    assert net.state_dict()["n.running_mean"].tolist() == [0, 0]
    output = net.train()(x)
    assert output.mean().item() == pytest.approx(0, abs=1e-5)
    assert output.std().item() == pytest.approx(1, abs=1e-2)
    mean = x.mean(dim=(0, 2, 3))
    assert torch.allclose(net.state_dict()["n.running_mean"], 0.1 * mean)
    variance = x.transpose(0, 1).flatten(1).var(dim=1)
    assert torch.allclose(net.state_dict()["n.running_var"], 0.9 + 0.1 * variance)


def test_one_value_a_channel_is_normalised_by_the_running_statistics() -> None:
    net = build(graph_of("n: batchnorm", "3x1x1")).train()
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    assert torch.allclose(net(x), x, atol=1e-4)
    assert torch.isfinite(net.state_dict()["n.running_var"]).all()


def test_trained_statistics_come_back_from_a_file(tmp_path: Path) -> None:
    graph = graph_of(BODY)
    net = build(graph).train()
    initialise(net, He(), seed=0)
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        net(torch.randn(8, *graph.input, generator=random))
    path = tmp_path / "weights.safetensors"
    save(path, {name: tensor.numpy() for name, tensor in net.state_dict().items()})
    again = build(graph, load(path, graph).weights)
    x = torch.randn(2, *graph.input, generator=random)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), net.eval()(x))
