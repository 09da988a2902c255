"""An artifact's time beside other engines', in one interleaved run on the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.deploy import mistakes
from vggc.deploy.artifact import SPEC, Manifest
from vggc.deploy.runtime import Session
from vggc.deploy.targets import num_cores
from vggc.deploy.verify import original_weights, relative_error
from vggc.diagnostics import CheckFailed, UserError, did_you_mean
from vggc.driver import load
from vggc.ir.graph import Graph
from vggc.weights import Weights

Array: TypeAlias = NDArray[np.float32]
Engine: TypeAlias = Callable[[], Array]
"""Computes the net once on an input that it holds already, and gives the output."""

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

    Raises: UserError when the artifact is damaged or a peer unknown or not installed;
    CheckFailed when a peer gives another output.
    """
    _check_peers(peers)
    count = threads or num_cores()
    session = Session.load(folder, count)
    graph = load(str(folder / SPEC)).graph
    _, weights = original_weights(folder, graph, session.manifest)
    x = _input(session.manifest)
    engines = {"vggc": _vggc(session, x)}
    engines |= {peer: PEERS[peer].start(graph, weights, x, count) for peer in peers}
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


# ---------------------------------------------------------------- engines


@dataclass(frozen=True)
class Peer:
    """An engine to compare with: the module it needs, and how it is started."""

    module: str
    start: Callable[[Graph, Weights, Array, int], Engine]


def _vggc(session: Session, x: Array) -> Engine:
    tensor = session.tensor(x)
    return lambda: session.invoke(tensor)


def _torch(graph: Graph, weights: Weights, x: Array, threads: int) -> Engine:
    """Eager mode in whichever memory format is faster here."""
    import torch

    from vggc.backends.torch import build

    torch.set_num_threads(threads)
    module = build(graph).eval()
    module.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})

    def engine(memory_format: torch.memory_format) -> Engine:
        net = module.to(memory_format=memory_format)  # type: ignore[call-overload]
        image = torch.from_numpy(x).to(memory_format=memory_format)

        def run() -> Array:
            with torch.inference_mode():
                output: Array = net(image).numpy()
            return output

        return run

    formats = (torch.contiguous_format, torch.channels_last)
    times = {f: min(_seconds(engine(f)) for _ in range(WARM_UP)) for f in formats}
    return engine(min(times, key=lambda f: times[f]))


def _onnxruntime(graph: Graph, weights: Weights, x: Array, threads: int) -> Engine:
    import onnxruntime

    from vggc.backends.onnx import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = to_onnx(graph, weights).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run() -> Array:
        output: Array = session.run(None, {"input": x})[0]
        return output

    return run


PEERS = {"torch": Peer("torch", _torch), "onnxruntime": Peer("onnxruntime", _onnxruntime)}


def _check_peers(peers: Sequence[str]) -> None:
    for peer in peers:
        if peer not in PEERS:
            raise UserError(mistakes.UnknownPeer(None, peer, did_you_mean(peer, list(PEERS))))
        try:
            import_module(PEERS[peer].module)
        except ImportError:
            raise UserError(mistakes.PeerMissing(None, peer, PEERS[peer].module)) from None


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
