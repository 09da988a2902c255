"""A process that serves: its models, the port that it listens on, and how it ends."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import uvicorn

from vggc.runtime.artifact import read_manifest
from vggc.serving import diagnostics
from vggc.serving.app import ServingApp
from vggc.serving.bodies import Bodies
from vggc.serving.connections import BoundedConnection, ConnectionLimits
from vggc.serving.crew import ServerCrew
from vggc.serving.metrics import Metrics
from vggc.serving.model import open_model
from vggc.support import signals
from vggc.support.diagnostics import UserError
from vggc.support.model_names import MODEL_NAME
from vggc.support.paths import exists

DRAIN_SECONDS = 60
"""How long a server that is to end waits for clients that do not take their answers."""

BACKLOG = 2048
"""The connections that the system keeps until the server takes them."""


COLLECTING = (700, 10, 10)
"""When Python looks for cycles, as it does by itself."""


@dataclass(frozen=True)
class ServeLimits:
    """How many images may wait for a model, the bytes of the largest body, the connections at once
    and the threads that run a net, all physical cores where it is None; of each process.
    """

    queue: int
    max_body: int
    connections: int
    threads: int | None


def named_artifacts(arguments: Sequence[str]) -> dict[str, Path]:
    """The artifacts that a user names, ARTIFACT or NAME=ARTIFACT, by the names of their models: the
    net's where none is given.

    Raises:
        UserError: one is none, or has a name that is taken or cannot be one.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or "/" in name or exists(argument):
            path = argument
            name = read_manifest(Path(path)).net
        if not MODEL_NAME.fullmatch(name):
            raise UserError(diagnostics.BadModelName(name))
        if name in found:
            raise UserError(diagnostics.ServedTwice(name, str(found[name]), path))
        found[name] = Path(path)
    return found


def listening(host: str, port: int) -> socket.socket:
    """A socket that has its port, 0 being any that is free, and takes no connections yet.

    Raises:
        UserError: the port is taken, or the host is not this machine.
    """
    address = f"{host}:{port}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sends what is small at once (TCP_NODELAY) where a socket names its protocol.
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        hint = "give an address of this machine with `--host`"
        raise UserError(diagnostics.CannotListen(address, _reason(error), hint)) from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
    except OSError as error:
        found.close()
        hint = "give an address of this machine with `--host`"
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            hint = "give another port with `--port`, 0 for any that is free"
        raise UserError(diagnostics.CannotListen(address, _reason(error), hint)) from None
    return found


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def address_of(listener: socket.socket) -> str:
    """The address that a browser is given."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serving_app(
    artifacts: Mapping[str, Path],
    limits: ServeLimits,
    metrics: Metrics,
    crew: ServerCrew | None = None,
) -> ServingApp:
    """Models by their names, loaded.

    Raises:
        UserError: an artifact is damaged, or not for this machine.
    """
    turn = Lock()
    models = {
        name: open_model(
            name,
            folder,
            threads=limits.threads,
            capacity=limits.queue,
            turn=turn,
            watch=partial(metrics.count_batch, name),
            mapped=crew is not None,
        )
        for name, folder in artifacts.items()
    }
    return ServingApp(models, metrics, Bodies(limits.max_body), crew)


def collect_cycles() -> None:
    """Lets Python collect cycles as often as it does by itself, which commands do rarely as they
    are short: each refused request is one that holds its body. What is there already stays.
    """
    gc.freeze()
    gc.set_threshold(*COLLECTING)


class HttpServer(uvicorn.Server):
    """What answers at a port, on which connections wait from now on. Signals, and whoever calls
    `end`, end it when it has answered what it has taken.
    """

    def __init__(
        self,
        app: ServingApp,
        listener: socket.socket | None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.app = app
        self.listeners = [] if listener is None else [listener]
        for each in self.listeners:
            each.listen(BACKLOG)
        limits = limits or ConnectionLimits(app.bodies.largest)
        config = uvicorn.Config(
            app.asgi(),
            http=partial(BoundedConnection, limits=limits),  # type: ignore[arg-type]
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)

    def answer(self) -> None:
        """Serves until it is asked to end."""
        self.run(sockets=self.listeners)

    async def on_tick(self, counter: int) -> bool:
        """Called every tenth of a second."""
        for connection in [*self.server_state.connections]:
            if isinstance(connection, BoundedConnection):
                connection.check()
        self.app.metrics.refresh()
        return await super().on_tick(counter)

    def end(self) -> None:
        """Asks it to end."""
        self.should_exit = True

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Has signals ask it to end."""
        return signals.told(self.end)
