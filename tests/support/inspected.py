"""Nets to look into, whose weights are set by hand or drawn, and images for them."""

from __future__ import annotations

import numpy as np
import torch

from vggc.data.crops import Framed, Framing
from vggc.data.parts import Part
from vggc.data.stores import Arrays
from vggc.inspection.net import InspectedNet
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, seeded
from vggc_runtime.preprocessing import Preprocessing


def inspected(
    graph: Graph, weights: Weights | None = None, mean: float = 0.0, std: float = 1 / 255
) -> InspectedNet:
    """The net of a graph. Its inputs are the pixels themselves, from 0 to 255, unless a mean and a
    deviation are given.
    """
    channels, *size = graph.input
    how = Preprocessing((size[0], size[1]), None, (mean,) * channels, (std,) * channels)
    return InspectedNet.of(graph, weights or seeded(graph, 0), how, torch.device("cpu"))


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Noise, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def framed(images: np.ndarray) -> Framed:
    """Images (N, H, W, C), called 0, 1, 2 …, of a net that sees all of each."""
    count, height, width, channels = images.shape
    names = tuple(map(str, range(count)))
    part = Part.all(Arrays(names, images), np.zeros(count, np.int64))
    return Framed(part, Framing((channels, height, width), None, draft=False))
