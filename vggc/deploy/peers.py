"""The engines that an artifact is timed against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.deploy import mistakes
from vggc.diagnostics import UserError, did_you_mean
from vggc.ir.graph import Graph
from vggc.weights import Weights

Array: TypeAlias = NDArray[np.float32]
Engine: TypeAlias = Callable[[], Array]
"""Computes the net once on an input that it holds already, and gives the main output."""

TRIALS = 3
"""Calls from which the faster memory format is told."""


@dataclass(frozen=True)
class Setup:
    """What every engine is given. `threads` count on the CPU only."""

    graph: Graph
    weights: Weights
    x: Array
    threads: int
    device: Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Peer:
    """An engine: the module it needs, and how it is started.

    `start` raises UserError where the engine cannot use the device.
    """

    module: str
    start: Callable[[Setup], Engine]


def _torch(setup: Setup) -> Engine:
    """Eager mode in whichever memory format is faster here."""
    import torch

    from vggc.backends.torch import build

    if setup.device == "cuda" and not torch.cuda.is_available():
        raise UserError(mistakes.PeerWithoutDevice(None, "torch", setup.device))
    torch.set_num_threads(setup.threads)

    def engine(memory_format: torch.memory_format) -> Engine:
        net = build(setup.graph, setup.weights).eval().to(setup.device)
        net = net.to(memory_format=memory_format)  # type: ignore[call-overload]
        image = torch.from_numpy(setup.x).to(setup.device, memory_format=memory_format)

        def run() -> Array:
            with torch.inference_mode():
                result = net(image)
            main = next(iter(result.values())) if isinstance(result, dict) else result
            output: Array = main.cpu().numpy()
            return output

        return run

    engines = [engine(torch.contiguous_format), engine(torch.channels_last)]
    return min(engines, key=lambda run: min(_seconds(run) for _ in range(TRIALS)))


def _onnxruntime(setup: Setup) -> Engine:
    import onnxruntime

    from vggc.backends.onnx import to_onnx

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[setup.device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(mistakes.PeerWithoutDevice(None, "onnxruntime", setup.device))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    model = to_onnx(setup.graph, setup.weights).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=[provider])

    def run() -> Array:
        output: Array = session.run(None, {"input": setup.x})[0]
        return output

    return run


PEERS = {"torch": Peer("torch", _torch), "onnxruntime": Peer("onnxruntime", _onnxruntime)}


def check_installed(peers: Sequence[str]) -> None:
    """Raises: UserError for a peer that is unknown or not installed."""
    for peer in peers:
        if peer not in PEERS:
            raise UserError(mistakes.UnknownPeer(None, peer, did_you_mean(peer, list(PEERS))))
        if not is_installed(peer):
            raise UserError(mistakes.PeerMissing(None, peer, PEERS[peer].module))


def is_installed(peer: str) -> bool:
    return find_spec(PEERS[peer].module) is not None


def _seconds(run: Engine) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
