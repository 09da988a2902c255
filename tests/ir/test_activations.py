"""The table of activations: its facts follow from the meanings, and everyone's code is of them."""

from __future__ import annotations

import math
from math import inf

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.nets import graph_of
from vggc.backends.torch import build
from vggc.ir.activations import ACTIVATIONS, ActivationFunction
from vggc.ir.ops import Clip
from vggc.kernels.activation import EMITTERS

POINTS = np.concatenate([np.linspace(-r, r, 401) for r in (1e-3, 1, 8, 60)])
SLOPES = (0.0, 0.01, 0.3, 1.0, 2.5)
FACTORS = (1e-3, 0.7, 5.0)
ROUNDING = 1e-12

every_activation = pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=ACTIVATIONS)


def test_a_clip_has_the_facts_of_its_limits() -> None:
    for low in (-inf, -2.0, 0.0, 0.5):
        for high in (0.75, 3.0, inf):
            clip = Clip(low=low, high=high)
            got = values(clip.facts, np.sort(POINTS), 0.0)
            np.testing.assert_array_equal(got, np.clip(np.sort(POINTS), low, high))
            assert clip.rises
            assert clip.never_negative == (got.min() >= 0)
            assert clip.keeps_sign
    assert not Clip(low=-2.0, high=-1.0).keeps_sign
    assert [Clip(low=low, high=high).homogeneous for low, high in ((0.0, inf), (0.0, 6.0))] == [
        True,
        False,
    ]


def values(row: ActivationFunction, x: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    return np.array([row.meaning(float(each), slope) for each in x])


def slopes(row: ActivationFunction) -> tuple[float, ...]:
    """Slopes to try; those below zero are in no net, and the facts hold for them, too."""
    return (*SLOPES, -0.5) if row.slope else (0.0,)


def test_every_activation_has_its_code() -> None:
    assert list(EMITTERS) == list(ACTIVATIONS)


@every_activation
def test_one_that_rises_never_falls(row: ActivationFunction) -> None:
    x = np.sort(POINTS)
    falls = [(np.diff(values(row, x, slope)) < -ROUNDING).any() for slope in slopes(row)]
    assert row.rises == (not any(falls))


@every_activation
def test_one_that_is_never_negative_gives_nothing_below_zero(row: ActivationFunction) -> None:
    below = [(values(row, POINTS, slope) < 0).any() for slope in slopes(row)]
    assert row.never_negative == (not any(below))


@every_activation
def test_none_makes_a_negative_value_of_another(row: ActivationFunction) -> None:
    """By this a plan in int8 knows that the values behind it need no sign."""
    for slope in slopes(row):
        assert (values(row, np.abs(POINTS), slope) >= 0).all()


@every_activation
def test_a_homogeneous_one_multiplies_with_its_input(row: ActivationFunction) -> None:
    multiplies = [
        np.allclose(values(row, factor * POINTS, slope), factor * values(row, POINTS, slope), 1e-9)
        for slope in slopes(row)
        for factor in FACTORS
    ]
    assert row.homogeneous == all(multiplies)


@every_activation
def test_one_whose_gradient_follows_from_the_output_keeps_no_input(row: ActivationFunction) -> None:
    net = build(graph_of(f"conv1-3 act={row.name}", "3x4x4")).train()
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(torch.randn(2, 3, 4, 4))
    assert row.gradient_by_output == any(
        tensor.shape == output.shape and tensor.data_ptr() == output.data_ptr() for tensor in kept
    )


@every_activation
def test_in_torch_it_is_what_it_means(row: ActivationFunction) -> None:
    """PyTorch's softplus is a line from 20 on, which is off by 1e-10."""
    for slope in (s for s in slopes(row) if s >= 0):
        option = f" slope={slope}" if row.slope else ""
        net = build(graph_of(f"{row.name}{option}", f"1x1x{len(POINTS)}")).double()
        got = net(torch.from_numpy(POINTS.reshape(1, 1, 1, -1))).numpy().ravel()
        np.testing.assert_allclose(got, values(row, POINTS, slope), 1e-9, 1e-15)


@every_activation
def test_its_meaning_reaches_as_far_as_numbers_do(row: ActivationFunction) -> None:
    for x in (-1e300, -1e4, -0.0, 0.0, 1e4, 1e300):
        assert math.isfinite(row.meaning(x, 0.5))
