"""Nets as modules of PyTorch: which maps they keep, and what dropout drops."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.nets import graph_of
from vggc.backends import torch as torch_backend
from vggc.backends.torch import BatchRows, build
from vggc.ir.weights import save, seeded
from vggc.support import tensors

Noise = Callable[..., np.ndarray]


@pytest.mark.parametrize("training", [False, True])
def test_the_torch_module_lets_go_of_maps_that_nobody_reads(
    training: bool, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training those stay that the backward pass reads: none from before a ReLU."""
    made: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal most
        output = apply(*arguments)
        made.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in made))
        return output

    apply = torch_backend._apply
    monkeypatch.setattr(torch_backend, "_apply", counted)
    num_layers, in_flight = 6, 3
    graph = graph_of(f"conv3-4 ×{num_layers}")
    with torch.inference_mode(not training):
        build(graph).train(training)(torch.from_numpy(noise(1, *graph.input)))
    assert most <= in_flight + (num_layers if training else 0)


def test_a_net_of_mapped_weights_gives_what_the_same_in_memory_does(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "PIECE", 4096)
    graph = graph_of("conv3-8 norm=batch | gap | fc-500 | fc-9 bias=off", "3x4x4")
    weights = seeded(graph, 0)
    save(tmp_path / "w.safetensors", weights, {})
    with tensors.opened(tmp_path / "w.safetensors") as file:
        mapped = build(graph, file.mapped())
    x = torch.from_numpy(noise(1, *graph.input))
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(mapped.eval()(x), build(graph, weights).eval()(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("p", [0.001, 0.25, 0.3, 0.5, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, layout: torch.memory_format) -> None:
    net = build(graph_of(f"dropout p={p}", "8x32x32"))
    torch.manual_seed(1)
    images = torch.ones(64, 8, 32, 32).to(memory_format=layout)
    result = net.train()(images)
    deviation = (p * (1 - p) / images.numel()) ** 0.5
    assert float((result == 0).float().mean()) == pytest.approx(p, abs=5 * deviation)
    assert float(result.mean()) == pytest.approx(1, abs=5 * deviation / (1 - p))
    assert result[result > 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=0.02)
    assert result.is_contiguous(memory_format=layout)
    # Neighbours in each direction are dropped as if they knew nothing of each other.
    dropped = (result == 0).double()
    for dim in range(4):
        both = (dropped * dropped.roll(1, dim)).mean()
        assert float(both) == pytest.approx(p * p, abs=5 * deviation)


def test_a_part_drops_what_it_would_within_the_whole() -> None:
    net = build(graph_of("dropout p=0.4", "8x4x4")).train()
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.ones(6, 8, 4, 4).to(memory_format=layout)
        torch.manual_seed(1)
        net.whole = None
        whole = net(images)
        torch.manual_seed(1)
        net.whole = BatchRows(torch.tensor([1, 4, 5]), 6)
        assert torch.equal(net(images[[1, 4, 5]].to(memory_format=layout)), whole[[1, 4, 5]])


def test_dropout_is_active_in_training_only() -> None:
    net = build(graph_of("dropout p=0.5", "1x8x8"))
    x = torch.ones(1, 1, 8, 8)
    assert sorted(net.train()(x).unique().tolist()) == [0.0, 2.0]
    assert net.eval()(x).equal(x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_stochastic_pool_draws_values_as_often_as_they_are_large(
    layout: torch.memory_format,
) -> None:
    net = build(graph_of("stochasticpool", "4x6x6")).train()
    torch.manual_seed(1)
    window = torch.tensor([[0.0, 1.0], [3.0, -2.0]])
    images = window.repeat(500, 4, 3, 3).to(memory_format=layout).requires_grad_()
    result = net(images)
    assert result.unique().tolist() == [1, 3]
    deviation = (0.25 * 0.75 / result.numel()) ** 0.5
    assert float((result == 3).float().mean()) == pytest.approx(0.75, abs=5 * deviation)
    drawn = (result == 3).double().detach() - 0.75  # neighbours know nothing of each other
    for dim in range(4):
        assert float((drawn * drawn.roll(1, dim)).mean()) == pytest.approx(0, abs=5 * deviation)
    result.sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad.sum((2, 3)), torch.full((500, 4), 9.0))
    assert not images.grad[images == 0].any()


def test_a_stochastic_pool_of_nothing_above_zero_is_zero_and_moves_nothing() -> None:
    net = build(graph_of("stochasticpool3 padding=1", "2x5x5"))
    for training in (True, False):
        images = -torch.rand(2, 2, 5, 5).requires_grad_()
        result = net.train(training)(images)
        (grad,) = torch.autograd.grad(result.sum(), images)
        assert not result.any()
        assert not grad.any()


def test_a_part_of_a_batch_is_drawn_as_within_the_whole() -> None:
    net = build(graph_of("stochasticpool3 stride=2", "3x9x8")).train()
    images = torch.rand(6, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    whole = net(images)
    torch.manual_seed(5)
    net.whole = BatchRows(torch.tensor([1, 4, 5]), 6)
    assert torch.equal(net(images[[1, 4, 5]]), whole[[1, 4, 5]])
