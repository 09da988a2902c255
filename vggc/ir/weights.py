"""Weights by name: random ones, what identifies them, and the files in which vggc keeps them.

Everything here is numpy. Weights in files of others are read by vggc.weight_files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph
from vggc.ir.needs import LOADING
from vggc.support.files import replacing
from vggc.support.tensors import Pieces, write

Weights: TypeAlias = dict[str, NDArray[np.float32]]

FINITE_AT_ONCE = 1 << 22


def all_finite(tensor: NDArray[np.float32]) -> bool:
    """Whether all values of a tensor are finite, found in little memory beside it."""
    values = tensor.reshape(-1)
    steps = range(0, len(values), FINITE_AT_ONCE)
    return all(np.isfinite(values[start : start + FINITE_AT_ONCE]).all() for start in steps)


def save(
    path: Path,
    weights: Mapping[str, NDArray[Any] | Pieces],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises: UserError when it cannot be written.
    """
    pieces = {
        name: tensor if isinstance(tensor, Pieces) else Pieces.of(tensor)
        for name, tensor in weights.items()
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file, pieces, metadata or {})


def digest(weights: Weights) -> str:
    """The SHA-256 of weights, of their names, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.ascontiguousarray(weights[name], "<f4")
        found.update(f"{name} {tensor.shape}\n".encode())
        found.update(tensor.data)
    return found.hexdigest()


def seeded(graph: Graph, seed: int) -> Weights:
    """Random weights that keep the size of activations: N(0, 2/fan_in), biases N(0, 0.01²).

    Vectors that start at another value vary by a tenth of it. The same on every machine.
    Source: He et al. 2015, equation 10.
    """
    LOADING.require(graph)
    generator = np.random.Generator(np.random.PCG64(seed))
    weights: Weights = {}
    for name, weight in graph.all_weights.items():
        scale = sqrt(2 / weight.fan_in) if len(weight.shape) > 1 else weight.start / 10 or 0.01
        values = generator.standard_normal(prod(weight.shape), dtype=np.float32)
        values *= np.float32(scale)
        values += np.float32(weight.start)
        weights[name] = values.reshape(weight.shape)
    return weights
