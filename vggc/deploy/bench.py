"""An artifact's time beside other engines', in one interleaved run on the same weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from vggc.deploy.artifact import Manifest, graph_in
from vggc.deploy.peers import PEERS, Array, Engine, Setup, check_installed
from vggc.deploy.processor import num_cores
from vggc.deploy.runtime import Session
from vggc.deploy.verify import original_weights, relative_error
from vggc.diagnostics import CheckFailed
from vggc.passes.fold import fold

WARM_UP = 3
REST_SECONDS = 0.02
"""Between two engines, so that the threads of the first have stopped spinning."""
AGREEMENT = 1e-4
"""Relative L2 difference that two engines' outputs may have before they are timed."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each round of each engine, `vggc` first."""

    threads: int
    milliseconds: dict[str, tuple[float, ...]]

    @property
    def medians(self) -> dict[str, float]:
        return {name: median(times) for name, times in self.milliseconds.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """Vggc's median over each peer's: under 1 where vggc is faster."""
        medians = self.medians
        return {peer: medians["vggc"] / time for peer, time in medians.items() if peer != "vggc"}


def bench(folder: Path, peers: Sequence[str], threads: int | None, rounds: int) -> Timing:
    """Times an artifact and its peers, one call each a round, in turn.

    The peers compute the folded net, too, and every engine hands over its main output.

    Raises: UserError when the artifact is damaged or a peer unknown or not installed;
    CheckFailed when a peer gives another output.
    """
    check_installed(peers)
    count = threads or num_cores()
    session = Session.load(folder, count)
    graph = fold(graph_in(folder)).graph
    _, weights = original_weights(folder, graph, session.manifest)
    x = _input(session.manifest)
    tensor = session.tensor(x)
    engines: dict[str, Engine] = {"vggc": lambda: session.invoke(tensor)}
    setup = Setup(graph, weights, x, count, session.manifest.target.kind)
    engines |= {peer: PEERS[peer].start(setup) for peer in peers}
    _compare(engines)
    return Timing(count, _interleaved(engines, rounds))


def _input(manifest: Manifest) -> Array:
    shape = (manifest.batch, *manifest.input)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _interleaved(engines: dict[str, Engine], rounds: int) -> dict[str, tuple[float, ...]]:
    for run in engines.values():
        for _ in range(WARM_UP):
            run()
    found: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, run in engines.items():
            time.sleep(REST_SECONDS)
            started = time.perf_counter()
            run()
            found[name].append(1e3 * (time.perf_counter() - started))
    return {name: tuple(times) for name, times in found.items()}


def _compare(engines: dict[str, Engine]) -> None:
    expected = engines["vggc"]()
    for name, run in engines.items():
        error = relative_error(run(), expected)
        if not error < AGREEMENT:
            raise CheckFailed(f"{name} gives another output: relative L2 difference {error:.1e}")
