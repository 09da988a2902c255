"""A process of a server that has several: it serves the connections that its supervisor hands it.

They come over a channel, a socket that both have. Where that ends, as the supervisor wants it or
is no more, the process answers what it has taken, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vggc.serving.app import ServingApp
from vggc.serving.connections import ConnectionLimits
from vggc.serving.crew import ServerCrew
from vggc.serving.metrics import CrewMetrics
from vggc.serving.server import HttpServer, ServeLimits, collect_cycles, serving_app
from vggc.support.diagnostics import UserError, render

READY = b"r"
"""What a worker sends its supervisor once it can answer."""

CONNECTION = b"c"
"""What comes with each connection."""

CLOSED = b"x"
"""What a worker sends for each connection that is closed."""


@dataclass(frozen=True)
class WorkerTask:
    """What a process serves, as the process with a number in a crew; `channel` is its end of it."""

    number: int
    channel: int
    crew: ServerCrew
    artifacts: Mapping[str, Path]
    limits: ServeLimits

    def as_json(self) -> str:
        """The task as an argument of a command."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> WorkerTask:
        """The task that `as_json` gave."""
        record = json.loads(text)
        crew = record["crew"]
        return cls(
            number=record["number"],
            channel=record["channel"],
            crew=ServerCrew(Path(crew["folder"]), crew["size"]),
            artifacts={name: Path(path) for name, path in record["artifacts"].items()},
            limits=ServeLimits(**record["limits"]),
        )


class WorkerServer(HttpServer):
    """Answers on the connections that come over a channel, until that ends."""

    def __init__(
        self, app: ServingApp, limits: ConnectionLimits, task: WorkerTask, channel: socket.socket
    ) -> None:
        super().__init__(app, None, limits)
        self._task = task
        self._channel = channel
        self._beginning: set[asyncio.Task[object]] = set()
        self._unreported = 0
        """The connections that came, but for those whose end the supervisor knows of."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes connections from here on."""
        await super().startup(sockets)
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._take)
        self._task.crew.note(self._task.number)
        self._channel.send(READY)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leaves them as they are: the supervisor has them ignored here."""
        return nullcontext()

    async def on_tick(self, counter: int) -> bool:
        """Tells the supervisor of connections that are closed."""
        is_open = len(self.server_state.connections) + len(self._beginning)
        with suppress(OSError):  # the channel is full, or there is no supervisor any more
            self._unreported -= self._channel.send(CLOSED * (self._unreported - is_open))
        return await super().on_tick(counter)

    def _take(self) -> None:
        """Serves one connection that has come, if one has."""
        try:
            came, descriptors, _, _ = socket.recv_fds(self._channel, len(CONNECTION), 1)
        except BlockingIOError:
            return
        except ConnectionError:
            came, descriptors = b"", []
        loop = asyncio.get_running_loop()
        if not came:
            loop.remove_reader(self._channel)
            self.end()
        for descriptor in descriptors:
            self._unreported += 1
            beginning = loop.create_task(self._serve_one(socket.socket(fileno=descriptor)))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)

    async def _serve_one(self, connection: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        with suppress(OSError):  # of a client that is gone
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)


def main() -> None:
    """Serves what the argument says.

    Exit 0: the channel has ended, and all is answered; 2: a mistake of the user's, which is told.
    """
    task = WorkerTask.from_json(sys.argv[1])
    supervisor = os.getppid()
    channel = socket.socket(fileno=task.channel)
    try:
        metrics = CrewMetrics(task.crew, task.number)
        app = serving_app(task.artifacts, task.limits, metrics, task.crew)
    except UserError as error:
        for problem in error.diagnostics:
            print(render(problem), file=sys.stderr)
        sys.exit(2)
    limits = ConnectionLimits(task.limits.max_body, task.limits.connections)
    collect_cycles()
    WorkerServer(app, limits, task, channel).answer()
    if os.getppid() != supervisor:
        shutil.rmtree(task.crew.folder, ignore_errors=True)
