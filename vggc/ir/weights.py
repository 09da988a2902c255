"""Weights by name: where they come from, what they must look like, torchvision's names.

Everything here is numpy; files are safetensors and hostile until checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph, Node
from vggc.ir.needs import LOADING
from vggc.ir.ops import Conv2d, Dropout, Flatten, Linear, Weight
from vggc.support.diagnostics import Diagnostic, UserError, nearest
from vggc.support.files import replacing
from vggc.support.tensors import FLOATS, Pieces, TensorFile, opened, write
from vggc_runtime.json_file import MalformedError

Weights: TypeAlias = dict[str, NDArray[np.float32]]

FINITE_AT_ONCE = 1 << 22

COUNTERS = ".num_batches_tracked"
"""What torch's normalisations keep beside their weights ends in this."""


class WeightsUnreadable(Diagnostic):
    title = "cannot read the weights in {path}"
    label = "{reason}"
    help = "vggc reads safetensors files; convert others with safetensors.torch.save_file"
    path: str
    reason: str


class WeightMissing(Diagnostic):
    title = "{path} has no weight `{name}`"
    label = "the net {net} needs it with shape {shape}"
    help = "{hint}"
    path: str
    name: str
    net: str
    shape: str
    hint: str


class WeightTwice(Diagnostic):
    title = "{path} has two tensors for the weight `{name}` of the net {net}"
    label = "`{native}`, and `{foreign}` by torchvision's names"
    help = "nobody can know which of them counts: leave one out of the file"
    path: str
    name: str
    net: str
    native: str
    foreign: str


class WeightUnknown(Diagnostic):
    title = "{path} has a weight `{name}` that the net {net} does not"
    label = "nothing is loaded where something would be left out"
    help = "is the file of another net?"
    path: str
    name: str
    net: str


class WeightMisshapen(Diagnostic):
    title = "the weight `{name}` in {path} has the wrong shape"
    label = "the net {net} needs {wanted}, the file holds {found}"
    help = "is the file of another net, another input size or another number of classes?"
    path: str
    name: str
    net: str
    wanted: str
    found: str


class WeightNotFinite(Diagnostic):
    title = "the weight `{name}` in {path} holds values that are not finite"
    label = "NaN or infinity would reach every output"
    path: str
    name: str


class NegativeVariance(Diagnostic):
    title = "the weight `{name}` in {path} holds variances below zero"
    label = "a normalisation divides by their square root"
    path: str
    name: str


def load(path: Path, graph: Graph) -> Weights:
    """The weights of a graph from a safetensors file, named natively or as torchvision does.

    torchvision's files count the batches that a normalisation has seen, too; nothing depends on
    that count, and it is left out. Names, types and shapes are compared before a tensor is read.

    Raises: UserError naming the first tensor that is missing, unknown, of another shape or
    type, there twice, or holds a value that it cannot.
    """
    LOADING.require(graph)
    with _opened(path) as file:
        places = _places(path, graph, file, graph.all_weights, torchvision_names(graph))
        _check(path, graph, file, places, graph.all_weights)
        unknown = {name for name in file.tensors if not name.endswith(COUNTERS)}
        for name in sorted(unknown - {*places.values()}):
            raise UserError(WeightUnknown(str(path), name, graph.name))
        return _read(path, file, places, graph.all_weights)


def load_part(
    path: Path, graph: Graph, names: Iterable[str], foreign: Mapping[str, str]
) -> Weights:
    """Weights of a graph, as `load` reads them, from a file that may hold others besides.

    `foreign` are the other names that they may have in the file, by their own.

    Raises: UserError, as `load` does.
    """
    wanted = {name: graph.all_weights[name] for name in names}
    with _opened(path) as file:
        places = _places(path, graph, file, wanted, foreign)
        _check(path, graph, file, places, wanted)
        return _read(path, file, places, wanted)


@contextmanager
def _opened(path: Path) -> Iterator[TensorFile]:
    try:
        with opened(path) as file:
            yield file
    except OSError as error:
        raise UserError(WeightsUnreadable(str(path), error.strerror or str(error))) from None
    except MalformedError as fault:
        raise UserError(WeightsUnreadable(str(path), str(fault))) from None


def _places(
    path: Path,
    graph: Graph,
    file: TensorFile,
    wanted: Iterable[str],
    foreign: Mapping[str, str],
) -> dict[str, str]:
    """The name that each of these weights has in a file, by its own, where the file has such a
    tensor.

    Raises: UserError where a file has a tensor for both names of a weight.
    """
    places: dict[str, str] = {}
    for name in wanted:
        found = [each for each in {name, foreign.get(name, name)} if each in file.tensors]
        if len(found) > 1:
            raise UserError(WeightTwice(str(path), name, graph.name, name, foreign[name]))
        if found:
            (places[name],) = found
    return places


def _check(
    path: Path,
    graph: Graph,
    file: TensorFile,
    places: Mapping[str, str],
    wanted: Mapping[str, Weight],
) -> None:
    """Raises: UserError unless a file has each of these weights in its shape, of floats."""
    net = graph.name
    for name, weight in wanted.items():
        if name not in places:
            near = nearest(name, file.tensors)
            hint = f"the nearest name in the file is `{near}`" if near else "is it of another net?"
            shape = str(weight.shape)
            raise UserError(WeightMissing(str(path), name, net, shape, hint))
        place = places[name]
        stored = file.tensors[place]
        if stored.shape != weight.shape:
            shapes = str(weight.shape), str(stored.shape)
            raise UserError(WeightMisshapen(str(path), place, net, *shapes))
        if stored.kind not in FLOATS:
            known = ", ".join(FLOATS)
            reason = f"the tensor `{place}` is of type {stored.kind}, not of floats ({known})"
            raise UserError(WeightsUnreadable(str(path), reason))


def _read(
    path: Path, file: TensorFile, places: Mapping[str, str], wanted: Mapping[str, Weight]
) -> Weights:
    """Raises: UserError where a weight holds values that it cannot."""
    found: Weights = {}
    for name, weight in wanted.items():
        found[name] = tensor = file.floats(places[name])
        if not all_finite(tensor):
            raise UserError(WeightNotFinite(str(path), places[name]))
        if weight.role == "running_var" and (tensor < 0).any():
            raise UserError(NegativeVariance(str(path), places[name]))
    return found


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


def torchvision_names(graph: Graph) -> dict[str, str]:
    """For each weight of a chain of layers torchvision's name, by ours; empty for other nets.

    torchvision numbers the modules of `features` (convolution, normalisation, activation and
    pooling each count one) and of `classifier` (fully-connected, activation and dropout). Nets
    that torchvision does not have are numbered by the same rule.
    """
    if len(graph.heads) > 1 or any(
        node.inputs != (index,) for index, node in enumerate(graph.nodes[1:])
    ):
        return {}
    names: dict[str, str] = {}
    counts = {"features": 0, "classifier": 0}
    part = "features"
    for index, node in enumerate(graph.nodes[1:], start=1):
        match node.op:
            case Linear():
                part = "classifier"
            case Conv2d():
                part = "features"
            case Dropout() if _classifies(graph.nodes[index + 1 :]):
                part = "classifier"
            case Flatten():
                continue  # torchvision flattens between the two
            case _ if len(node.shape) == 1 and graph.weights(node):
                part = "classifier"  # a normalisation of what a global average gives
            case _:
                pass
        if len(node.shape) == 3 or part == "classifier":
            for full in graph.weights(node):
                role = full.rpartition(".")[2]
                names[full] = f"{part}.{counts[part]}.{role}"
            counts[part] += 1
    return names


def _classifies(following: tuple[Node, ...]) -> bool:
    """Whether a dropout before these layers is one of the classifier's, as AlexNet's first is."""
    rest = (node.op for node in following if not isinstance(node.op, Dropout | Flatten))
    return isinstance(next(rest, None), Linear)
