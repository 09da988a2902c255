"""A server in a thread of the test, and nets that run when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread

import numpy as np

from vggc.serving.app import ServingApp
from vggc.serving.bodies import Bodies
from vggc.serving.connections import ConnectionLimits
from vggc.serving.metrics import Metrics
from vggc.serving.model import ServedModel
from vggc.serving.queue import ModelQueue, NetOutputs
from vggc.serving.server import HttpServer, address_of, listening
from vggc.support.arrays import Array

PATIENCE = 30
"""Seconds after which a test has failed."""

LARGEST_BODY = 1 << 18


@dataclass
class BlockedNet:
    """A net that begins and ends each run when the test says so; of an image of zeros it fails."""

    batches: list[int] = field(default_factory=list)
    has_begun: Event = field(default_factory=Event)
    may_end: Event = field(default_factory=Event)

    def run(self, images: Array) -> NetOutputs:
        self.batches.append(len(images))
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE)
        if not images.any():
            raise ZeroDivisionError("a secret of /the/server")
        return {"output": np.full((len(images), 10), 0.1, np.float32)}

    def model(self, model: ServedModel, capacity: int) -> ServedModel:
        """A model of another's shapes that gives what this net does."""
        return replace(model, queue=ModelQueue(self.run, 4, capacity))


@contextmanager
def served(
    app: ServingApp, limits: ConnectionLimits | None = None
) -> Iterator[tuple[str, HttpServer, Thread]]:
    """A server of an app and its address, which ends behind the block."""
    with listening("127.0.0.1", 0) as listener:
        server = HttpServer(app, listener, limits)
        address = address_of(listener)
        thread = Thread(target=server.answer)
        thread.start()
        try:
            yield address, server, thread
        finally:
            server.end()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def app_of(*models: ServedModel, body_seconds: float = 30) -> ServingApp:
    """An app of models whose queues live as long as it is served."""
    named = {model.name: model for model in models}
    return ServingApp(named, Metrics(), Bodies(LARGEST_BODY, body_seconds))


def png(folder: Path, *size: int) -> bytes:
    """A picture of noise."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return (folder / "noise.png").read_bytes()
