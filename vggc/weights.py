"""Weights by name: where they come from, what they must look like, torchvision's names.

Everything here is numpy; files are safetensors and hostile until checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.diagnostics import Diagnostic, UserError, nearest
from vggc.files import replacing
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, Dropout, Flatten, Linear, Weight
from vggc.memory import memory

Weights: TypeAlias = dict[str, NDArray[np.float32]]

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


class TooLarge(Diagnostic):
    title = "the net {net} is too large for this machine"
    label = "its weights alone take {needed:.1f} GB, and there are {present:.1f} GB of memory"
    help = "`vggc summary` shows which layer the weights are in"
    net: str
    needed: float
    present: float


def check_size(graph: Graph) -> None:
    """Raises: UserError when the weights of a graph do not fit into memory as float32."""
    needed = 4 * sum(weight.size for weight in graph.all_weights.values())
    present = memory()
    if needed > present:
        raise UserError(TooLarge(None, graph.name, needed / 1e9, present / 1e9))


def load(path: Path, graph: Graph) -> Weights:
    """The weights of a graph from a safetensors file, named natively or as torchvision does.

    torchvision's files count the batches that a normalisation has seen, too; nothing depends on
    that count, and it is left out.

    Raises: UserError naming the first tensor that is missing, unknown, of another shape or
    type, or holds a value that it cannot.
    """
    check_size(graph)
    stored = read_tensors(path)
    foreign = torchvision_names(graph)
    if set(foreign.values()) & stored.keys():
        native = {theirs: ours for ours, theirs in foreign.items()}
        stored = {native.get(name, name): tensor for name, tensor in stored.items()}
    for name, weight in graph.all_weights.items():
        check_weight(path, graph.name, name, weight, stored)
    for name in sorted(stored.keys() - graph.all_weights.keys()):
        raise UserError(WeightUnknown(None, str(path), name, graph.name))
    return {name: stored[name] for name in graph.all_weights}


def check_weight(path: Path, net: str, name: str, weight: Weight, stored: Weights) -> None:
    """Raises: UserError unless one of these tensors can be a net's weight of this name."""
    if name not in stored:
        near = nearest(name, stored)
        hint = f"the nearest name in the file is `{near}`" if near else "is it of another net?"
        problem = WeightMissing(None, str(path), name, net, str(weight.shape), hint)
        raise UserError(problem)
    tensor = stored[name]
    if tensor.shape != weight.shape:
        wanted, found = str(weight.shape), str(tensor.shape)
        raise UserError(WeightMisshapen(None, str(path), name, net, wanted, found))
    if not np.isfinite(tensor).all():
        raise UserError(WeightNotFinite(None, str(path), name))
    if weight.role == "running_var" and (tensor < 0).any():
        raise UserError(NegativeVariance(None, str(path), name))


def read_tensors(path: Path) -> Weights:
    """Every tensor of a safetensors file but `COUNTERS`, as float32.

    Raises: UserError when the file is missing, broken, or holds anything but floats.
    """
    tensors = {name: t for name, t in stored_tensors(path).items() if not name.endswith(COUNTERS)}
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            reason = f"the tensor `{name}` is of type {tensor.dtype}, not of floats"
            raise UserError(WeightsUnreadable(None, str(path), reason))
    with np.errstate(over="ignore"):  # what is too large for float32 is found not finite
        return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}


def stored_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a safetensors file as it is stored.

    Raises: UserError when the file is missing or broken.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        path.open("rb").close()  # whose reason is the true one; safetensors' is always the same
        return load_file(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(WeightsUnreadable(None, str(path), reason)) from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(WeightsUnreadable(None, str(path), str(error))) from None


def save(
    path: Path, weights: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises: UserError when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in weights.items()}
        try:
            save_file(arrays, temporary, metadata=metadata)
        except SafetensorError as fault:  # a full disk, say, and nothing of ours
            raise OSError(str(fault)) from None


def seeded(graph: Graph, seed: int) -> Weights:
    """Random weights that keep the size of activations: N(0, 2/fan_in), biases N(0, 0.01²).

    Vectors that start at another value vary by a tenth of it. The same on every machine.
    Source: He et al. 2015, equation 10.
    """
    check_size(graph)
    generator = np.random.Generator(np.random.PCG64(seed))
    weights: Weights = {}
    for name, weight in graph.all_weights.items():
        scale = sqrt(2 / weight.fan_in) if len(weight.shape) > 1 else weight.start / 10 or 0.01
        drawn = generator.standard_normal(prod(weight.shape), dtype=np.float32)
        values = drawn * np.float32(scale) + np.float32(weight.start)
        weights[name] = values.reshape(weight.shape)
    return weights


def torchvision_names(graph: Graph) -> dict[str, str]:
    """Our name to torchvision's for each weight of a chain of layers; none for other nets.

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
            case _:
                pass
        if len(node.shape) == 3 or part == "classifier":
            for full in graph.weights(node):
                role = full.rpartition(".")[2]
                names[full] = f"{part}.{counts[part]}.{role}"
            counts[part] += 1
    return names


def _classifies(following: tuple[Node, ...]) -> bool:
    """Whether a dropout before these layers is one of the classifier's: AlexNet's first is."""
    rest = (node.op for node in following if not isinstance(node.op, Dropout | Flatten))
    return isinstance(next(rest, None), Linear)
