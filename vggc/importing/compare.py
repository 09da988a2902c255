"""An imported net beside the original in its own engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from vggc.importing.items import ForeignOutput
from vggc.importing.net import ImportedNet
from vggc.importing.views import settled
from vggc.ir.graph import Head
from vggc.ir.ops import Activation, Softmax, Softmax2d
from vggc.ir.weights import Weights
from vggc.support.tensors import MappedTensors

TOLERANCE = 1e-5
"""The largest relative L2 difference of two engines that compute the same in float32."""

OF_ROUNDING, MOST_ROUNDING = 10, 1e-3
"""How many times as far from the original as from itself in float64 a net may be, and how far at
most. Engines add in different orders, and a net can enlarge what they round: a layer normalisation
of values that are all the same but for rounding does.
"""

OF_HALVES = 5e-3
"""The largest such difference where the original rounds to float16 or bfloat16."""
HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

OF_SHARES = 1e-6
"""Difference of a single value, where all are shares of one, that is still agreement."""
SHARES = ("sigmoid", "hardsigmoid")
"""Activations that give shares of one, as a soft-max does."""


@dataclass(frozen=True)
class OutputDifference:
    """How far an output is from the original's on one input: the largest difference of a value,
    and the L2 norm of the difference over that of the original. `is_share` where all values are
    shares of one: those near zero are the difference of larger ones, and known less well.

    `rounding` is the relative difference of our output from that in float64, which is found where
    two engines differ by more than the tolerance.
    """

    input: str
    output: str
    largest: float
    relative: float
    is_share: bool = False
    tolerance: float = TOLERANCE
    rounding: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether the two are the same but for rounding."""
        most = OF_SHARES * self.tolerance / TOLERANCE
        return (
            self.relative <= self.tolerance
            or (self.is_share and self.largest <= most)
            or self.is_rounding
        )

    @property
    def is_rounding(self) -> bool:
        """Whether they differ by more than the tolerance, but no more than float32 explains."""
        explained = min(OF_ROUNDING * self.rounding, MOST_ROUNDING)
        return self.tolerance < self.relative <= explained


@dataclass(frozen=True)
class ImportComparison:
    """An imported net beside the original, whose `engine` has computed it."""

    engine: str
    differences: tuple[OutputDifference, ...]

    @property
    def worst(self) -> OutputDifference:
        """The largest relative difference."""
        return max(self.differences, key=lambda each: each.relative)

    @property
    def agrees(self) -> bool:
        """Whether the two compute the same."""
        return all(each.agrees for each in self.differences)


def compare(
    net: ImportedNet,
    weights: Callable[[], Weights | MappedTensors],
    inputs: Mapping[str, NDArray[np.float32]],
) -> ImportComparison | None:
    """The imported net with its weights beside the original, on inputs `(1, C, H, W)` by name; None
    where there is no engine for it.

    The original is computed first and given up then, so that the weights are in memory once; where
    they are mapped, no more than a layer's are.

    Raises: ForeignEngineError where the engine cannot compute the original.
    """
    if net.foreign.engine is None:
        return None
    inputs = {name: _as_taken(images, net.items.input_type) for name, images in inputs.items()}
    wanted, title = _of_original(net, inputs)
    halves = _computes_in_halves(net)
    tolerance = OF_HALVES if halves else TOLERANCE
    ours = _of_ours(net, weights(), inputs)
    shares = {head.name for head in net.graph.heads if _gives_shares(net, head)}
    found = []
    for name in inputs:
        for output, head in heads_of(net):
            laid = _as_output(ours[name][head], output, net.items.batch)
            original = np.asarray(wanted[name][output.name], np.float64).reshape(laid.shape)
            relative = _relative(laid, original)
            largest = float(np.abs(laid - original).max(initial=0)) if relative < inf else inf
            is_share = head in shares and not output.after
            told = OutputDifference(
                input=name,
                output=output.name,
                largest=largest,
                relative=relative,
                is_share=is_share,
                tolerance=tolerance,
            )
            found.append(told)
    if not all(each.agrees for each in found):
        found = _with_rounding(net, weights(), inputs, ours, found)
    return ImportComparison(f"{title}, in 16 bits" if halves else title, tuple(found))


def _with_rounding(
    net: ImportedNet,
    weights: Weights | MappedTensors,
    inputs: Mapping[str, NDArray[np.float32]],
    ours: Mapping[str, Mapping[str, NDArray[np.floating]]],
    found: list[OutputDifference],
) -> list[OutputDifference]:
    """The differences with how far our own outputs are from those in float64."""
    exact = _of_ours(net, weights, inputs, in_double=True)
    rounding = {
        (name, output.name): _relative(
            *(_as_output(values[name][head], output, net.items.batch) for values in (ours, exact))
        )
        for name in inputs
        for output, head in heads_of(net)
    }
    return [replace(each, rounding=rounding[each.input, each.output]) for each in found]


def _as_taken(images: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Images in numbers that the original can take: those of its type."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(images), limits.min, limits.max).astype(np.float32)
    return images.astype(dtype).astype(np.float32)


def _computes_in_halves(net: ImportedNet) -> bool:
    """Whether the original takes, gives or makes numbers of 16 bits, and rounds to them."""
    graph = net.foreign.model.graph
    types = {each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)}
    made = {
        attribute.i
        for node in graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    }
    return not {*HALVES}.isdisjoint(types | made)


def _gives_shares(net: ImportedNet, head: Head) -> bool:
    match net.graph.nodes[head.node].op:
        case Softmax() | Softmax2d():
            return True
        case Activation(function=function):
            return function in SHARES
        case _:
            return False


class ForeignEngineError(Exception):
    """What an engine says that cannot compute the net that it was made for."""


def heads_of(net: ImportedNet) -> list[tuple[ForeignOutput, str]]:
    """Each output of the original that can be compared, and the head of ours that gives it."""
    pairs = zip(net.items.outputs, net.heads, strict=True)
    return [(output, head) for output, head in pairs if output.after != "argmax"]


def _of_original(
    net: ImportedNet, inputs: Mapping[str, NDArray[np.float32]]
) -> tuple[dict[str, dict[str, NDArray[np.floating]]], str]:
    assert net.foreign.engine is not None
    view, shape = net.items.input_view, net.graph.input
    given = view.shape
    try:
        engine = net.foreign.engine()
        found = {}
        for name, images in inputs.items():
            laid = np.repeat(images, net.items.batch, axis=0)
            turned = settled(laid, shape, view, net.items.batch).reshape(given)
            found[name] = dict(engine.run(np.ascontiguousarray(turned)))
        return found, engine.title
    except Exception as fault:  # whatever an engine does on a net that it cannot compute
        raise ForeignEngineError((str(fault).splitlines() or ["without a reason"])[0]) from None


def _of_ours(
    net: ImportedNet,
    weights: Weights | MappedTensors,
    inputs: Mapping[str, NDArray[np.float32]],
    *,
    in_double: bool = False,
) -> dict[str, dict[str, NDArray[np.floating]]]:
    import torch

    from vggc.backends.torch import build

    dtype = torch.float64 if in_double else torch.float32
    if in_double and isinstance(weights, MappedTensors):
        weights = weights.tensors  # what is mapped is computed as it lies in the file
    module = build(net.graph, weights).eval().to(dtype)
    names = [head.name for head in net.graph.heads]
    found = {}
    with torch.inference_mode():
        for name, images in inputs.items():
            given = module(torch.from_numpy(images).to(dtype))
            outputs = given if isinstance(given, dict) else {names[0]: given}
            found[name] = {head: value.numpy() for head, value in outputs.items()}
    return found


def _as_output(
    ours: NDArray[np.floating], output: ForeignOutput, batch: int
) -> NDArray[np.float64]:
    """What we give, laid out as the original's output is."""
    shape = ours.shape[1:]
    laid = settled(np.repeat(ours, batch, axis=0), shape, output.view, batch).astype(np.float64)
    if output.after == "log":
        return np.log(np.maximum(laid, np.finfo(np.float64).tiny))
    return laid


def _relative(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """The L2 norm of the difference over that of what is wanted; infinite where either is not
    finite.
    """
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return inf
    norm = float(np.sqrt(np.sum(wanted**2))) or 1.0
    return float(np.sqrt(np.sum((found - wanted) ** 2))) / norm
