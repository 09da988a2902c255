"""Weights by name: random ones, what identifies them, and the files in which vggc keeps them.

Everything here is numpy. Weights in files of others are read by vggc.weight_files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import prod, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph
from vggc.ir.needs import LOADING
from vggc.ir.ops import Add, PRelu
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

    Vectors that start at another value vary by a tenth of it. What is added up is smaller, so that
    sums do not grow with depth: see `shares_of_sums`. The same on every machine.
    Source: He et al. 2015, equation 10.
    """
    LOADING.require(graph)
    shares = shares_of_sums(graph)
    generator = np.random.Generator(np.random.PCG64(seed))
    weights: Weights = {}
    for name, weight in graph.all_weights.items():
        scale = sqrt(2 / weight.fan_in) if len(weight.shape) > 1 else weight.start / 10 or 0.01
        values = generator.standard_normal(prod(weight.shape), dtype=np.float32)
        values *= np.float32(scale)
        values += np.float32(weight.start)
        values *= np.float32(shares.get(name, 1.0))
        weights[name] = values.reshape(weight.shape)
    return weights


def shares_of_sums(graph: Graph) -> dict[str, float]:
    """The factors by which the last weights of paths that are added up are smaller, by their names.

    Where n paths all have weights, the factor of each is 1/√n. Where a path passes on what it gets,
    the other paths have 1/√s, s being the number of sums in the net: so many sums make values
    larger by e at most.
    Source: Zhang et al. 2019, "Fixup initialization", section 3, for the idea.
    """
    sums = [node for node in graph.nodes if isinstance(node.op, Add)]
    readers = graph.readers()
    shares: dict[str, float] = {}
    for node in sums:
        last = [_last_weight(graph, readers, read) for read in node.inputs]
        count = len(sums) if None in last else len(last)
        shares |= {name: 1 / sqrt(count) for name in last if name}
    return shares


def _last_weight(graph: Graph, readers: Sequence[Sequence[int]], index: int) -> str | None:
    """The last weight by which all of a value is multiplied before its only reader adds it."""
    node = graph.nodes[index]
    while len(readers[index]) == len(node.inputs) == 1:
        name = f"{node.name}.weight"
        if name in graph.weights(node) and not isinstance(node.op, PRelu):
            return name
        (index,) = node.inputs
        node = graph.nodes[index]
    return None
