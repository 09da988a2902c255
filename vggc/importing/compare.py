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

TOLERANCE = 1e-5
"""The largest relative L2 difference of two engines that compute the same in float32."""

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
    """

    input: str
    output: str
    largest: float
    relative: float
    is_share: bool = False
    tolerance: float = TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether the two are the same but for rounding."""
        most = OF_SHARES * self.tolerance / TOLERANCE
        return self.relative <= self.tolerance or (self.is_share and self.largest <= most)


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
    weights: Callable[[], Weights],
    inputs: Mapping[str, NDArray[np.float32]],
) -> ImportComparison | None:
    """The imported net with its weights beside the original, on inputs `(1, C, H, W)` by name; None
    where there is no engine for it.

    The original is computed first and given up then, so that the weights are in memory once.

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
            values = ours[name][head], wanted[name][output.name]
            told = _difference(name, output, net.items.batch, *values)
            is_share = head in shares and not output.after
            found.append(replace(told, is_share=is_share, tolerance=tolerance))
    return ImportComparison(f"{title}, in 16 bits" if halves else title, tuple(found))


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
    net: ImportedNet, weights: Weights, inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, dict[str, NDArray[np.float32]]]:
    import torch

    from vggc.backends.torch import build

    module = build(net.graph, weights).eval()
    names = [head.name for head in net.graph.heads]
    found = {}
    with torch.inference_mode():
        for name, images in inputs.items():
            given = module(torch.from_numpy(images))
            outputs = given if isinstance(given, dict) else {names[0]: given}
            found[name] = {head: value.numpy() for head, value in outputs.items()}
    return found


def _difference(
    name: str,
    output: ForeignOutput,
    batch: int,
    ours: NDArray[np.float32],
    theirs: NDArray[np.floating],
) -> OutputDifference:
    shape = ours.shape[1:]
    laid = settled(np.repeat(ours, batch, axis=0), shape, output.view, batch).astype(np.float64)
    if output.after == "log":
        laid = np.log(np.maximum(laid, np.finfo(np.float64).tiny))
    wanted = np.asarray(theirs, np.float64).reshape(laid.shape)
    if not (np.isfinite(laid).all() and np.isfinite(wanted).all()):
        return OutputDifference(input=name, output=output.name, largest=inf, relative=inf)
    difference = laid - wanted
    norm = float(np.sqrt(np.sum(wanted**2))) or 1.0
    largest = float(np.abs(difference).max(initial=0))
    relative = float(np.sqrt(np.sum(difference**2))) / norm
    return OutputDifference(input=name, output=output.name, largest=largest, relative=relative)
