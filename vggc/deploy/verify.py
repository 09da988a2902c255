"""An artifact's outputs against PyTorch in float64, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc.backends.plan import Layout, Plan
from vggc.backends.torch import reference
from vggc.deploy.artifact import WEIGHTS, Manifest, graph_in
from vggc.deploy.build import lowered_again, unpack
from vggc.deploy.runtime import Session
from vggc.ir.graph import Graph
from vggc.ir.ops import Softmax
from vggc.kernels.workloads import Map
from vggc.passes.fold import fold
from vggc.preprocessing import Preprocessing
from vggc.weights import Weights, read_tensors

TOLERANCE = 1e-5
"""Relative L2 error that float32 may have over a whole net."""

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Comparison:
    """One input: the relative L2 errors, and whether all heads of classes have the same top-1.

    `error` is the largest of the heads'. That of a soft-max is divided by the largest of its
    scores where that is over one: so many times does it enlarge a rounding of them.
    """

    input: str
    error: float
    top1_agrees: bool
    head_errors: tuple[tuple[str, float], ...]
    """Head and relative L2 error, in order."""
    step_errors: tuple[tuple[str, str, float], ...]
    """Layer, step and relative L2 error, in order."""

    @property
    def passed(self) -> bool:
        return self.error < TOLERANCE and self.top1_agrees

    @property
    def first_departure(self) -> str | None:
        """The first layer whose value is off by more than the tolerance."""
        wrong = (layer for layer, _, error in self.step_errors if not error < TOLERANCE)
        return next(wrong, None)


def verify(folder: Path, threads: int | None = None) -> list[Comparison]:
    """Compares an artifact with PyTorch in float64 on random and on real inputs.

    The reference is the folded net with the artifact's own weights, unpacked.

    Raises: UserError when the artifact is damaged or not for this machine.
    """
    session = Session.load(folder, threads)
    graph = fold(graph_in(folder)).graph
    calls, weights = original_weights(folder, graph, session.manifest)
    run = reference(graph, weights)
    return [
        _compare(session, calls, graph, run(x), name, x)
        for name, x in inputs(session.manifest).items()
    ]


def original_weights(folder: Path, graph: Graph, manifest: Manifest) -> tuple[Plan, Weights]:
    """The artifact's calls, and the folded graph's weights as they were before packing."""
    calls, code = lowered_again(folder, graph, manifest)
    return calls, unpack(calls, code.kernels, read_tensors(folder / WEIGHTS))


def inputs(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """Batches to compare on: normal noise, and photographs that come with scikit-learn."""
    shape = (manifest.batch, *manifest.input)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found = {"random": noise}
    for name, image in photographs(manifest.preprocessing).items():
        found[name] = np.repeat(image, manifest.batch, axis=0)
    return found


def photographs(preprocessing: Preprocessing) -> dict[str, NDArray[np.float32]]:
    """Two photographs as a net's input, `(1, C, H, W)`."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    return {name: preprocessing.read(folder / name) for name in ("china.jpg", "flower.jpg")}


def _compare(
    session: Session,
    calls: Plan,
    graph: Graph,
    expected: Mapping[str, Array],
    name: str,
    x: NDArray[np.float32],
) -> Comparison:
    got = session.run_all(x)
    growth = _growth(graph, expected)

    def error(value: Array, node: str) -> float:
        return relative_error(value, expected[node]) / growth.get(node, 1.0)

    heads = tuple(
        (head.name, error(got[head.name], graph.nodes[head.node].name)) for head in graph.heads
    )
    same = all(
        _same_top1(got[head.name], expected[graph.nodes[head.node].name])
        for head in graph.heads
        if head.kind == "classes"
    )
    errors = tuple(
        (step.layer, step.name, error(as_nchw(value, step.output), step.name))
        for step, value in zip(calls.steps, session.layers(x), strict=True)
    )
    return Comparison(name, max(error for _, error in heads), same, heads, errors)


def _growth(graph: Graph, expected: Mapping[str, Array]) -> dict[str, float]:
    """By the name of a soft-max its largest score, one at least.

    The derivative of its logarithm by a score is one at most, so an error relative to the
    scores becomes one that is as many times larger as they are.
    """
    return {
        node.name: max(1.0, float(np.abs(expected[graph.nodes[node.inputs[0]].name]).max()))
        for node in graph.nodes
        if isinstance(node.op, Softmax)
    }


def as_nchw(value: Array, layout: Layout) -> Array:
    """A step's value without its halo, channels first."""
    if not isinstance(layout, Map):
        return value
    rows = slice(layout.halo, layout.halo + layout.height)
    columns = slice(layout.halo, layout.halo + layout.width)
    return value[:, rows, columns].transpose(0, 3, 1, 2)


def relative_error(got: Array, wanted: Array) -> float:
    """The L2 norm of the difference over that of `wanted`; infinity where one is not finite."""
    got64, wanted64 = got.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    if not np.isfinite(got64).all():
        return float("inf")
    norm = float(np.linalg.norm(wanted64))
    return float(np.linalg.norm(got64 - wanted64)) / (norm or 1.0)


def _same_top1(got: Array, wanted: Array) -> bool:
    """Whether the best score of each image is at the same place."""
    return bool((got.argmax(axis=1) == wanted.argmax(axis=1)).all())
