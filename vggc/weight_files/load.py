"""Weights of a net from a file of any form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph
from vggc.ir.needs import LOADING
from vggc.ir.ops import Linear, Shape
from vggc.ir.weights import Weights, all_finite
from vggc.support.diagnostics import UserError, listed
from vggc.weight_files.diagnostics import NegativeVariance, WeightNotFinite
from vggc.weight_files.facts import WeightFacts
from vggc.weight_files.forms import open_weights
from vggc.weight_files.match import Match, flattened, match, match_part
from vggc.weight_files.weight_file import WeightFile, WeightForm


@dataclass(frozen=True)
class Loaded:
    """Weights from a file at `path`, how they were known there, what was left out, and what the
    file says of them. `matched_by` is empty where they bear our own names.
    """

    weights: Weights
    path: Path
    form: WeightForm
    matched_by: str
    left_out: tuple[str, ...]
    facts: WeightFacts

    @property
    def told(self) -> str:
        """What the user should know, in a line; nothing where all is as vggc writes it."""
        if not self.matched_by and not self.left_out:
            return ""
        by = f"matched by {self.matched_by or 'their names'}"
        left = f"; left out: {listed(self.left_out)}" if self.left_out else ""
        return f"weights: those in {self.path} ({self.form}) are {by}{left}"


def load(path: Path, graph: Graph) -> Loaded:
    """The weights of a graph from a file, by names that are known or by order and shape.

    Names, types and shapes are compared before a tensor is read; they are read one by one.

    Raises: UserError naming the first tensor that is missing, unknown, of another shape or
    type, there twice, or holds a value that it cannot.
    """
    LOADING.require(graph)
    with open_weights(path) as file:
        return _read(path, graph, graph, file, match(path, graph, file))


def load_part(path: Path, graph: Graph, names: Iterable[str], other: Graph | None) -> Loaded:
    """Weights of a graph, as `load` reads them, from a file that may hold others besides; `other`
    is the net that the file is of, where it is known.

    Raises: UserError, as `load` does.
    """
    with open_weights(path) as file:
        found = match_part(path, graph, names, other, file)
        return _read(path, graph, other or graph, file, found)


def _read(path: Path, graph: Graph, source: Graph, file: WeightFile, found: Match) -> Loaded:
    """Raises: UserError where a weight holds values that it cannot; MalformedError, OSError."""
    maps: dict[str, tuple[int, int, int]] = {}
    if file.flat_order == "HWC":
        dense = (node for node in source.nodes if isinstance(node.op, Linear))
        maps = {f"{n.name}.weight": seen for n in dense if (seen := flattened(source, n))}
    weights: Weights = {}
    for name, place in found.places.items():
        weight = graph.all_weights[name]
        tensor = shaped(file.read(place), weight.shape, file.flat_order == "HWC", maps.get(name))
        if not all_finite(tensor):
            raise UserError(WeightNotFinite(str(path), file.tensors[place].name))
        if weight.role == "running_var" and (tensor < 0).any():
            raise UserError(NegativeVariance(str(path), file.tensors[place].name))
        weights[name] = tensor
    return Loaded(
        weights=weights,
        path=path,
        form=file.form,
        matched_by=found.matched_by,
        left_out=(*found.left_out, *file.left_out),
        facts=file.facts,
    )


def shaped(
    tensor: NDArray[np.float32],
    shape: Shape,
    channels_last: bool,
    seen: tuple[int, int, int] | None,
) -> NDArray[np.float32]:
    """A tensor in the shape of a weight: a dense layer and a convolution over a whole map are one
    another's. With `channels_last` a dense layer of the file reads the values of a map, which for a
    weight of a dense layer is `seen` (C, H, W), by rows, columns, channels.
    """
    if channels_last and tensor.ndim == 2:
        if len(shape) == 4:
            seen = shape[1], shape[2], shape[3]
        if seen and prod(seen) == tensor.shape[1]:
            channels, height, width = seen
            maps = tensor.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
            return np.ascontiguousarray(maps).reshape(shape)
    return tensor.reshape(shape)
