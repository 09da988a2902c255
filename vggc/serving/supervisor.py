"""A server of several processes: one that takes connections, and those among which it deals them.

Who takes them all in one place deals them evenly, however few they are and however long they live,
and loses none as processes come and go. Each process has a channel, over which its connections
come, and it tells how many it has closed; the channel's end tells it to answer what it has taken,
and to end, and so does the end of this process. None is forked: each is a program of its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

from vggc.serving import diagnostics
from vggc.serving.crew import ServerCrew
from vggc.serving.metrics import forget_waiting
from vggc.serving.server import BACKLOG, DRAIN_SECONDS, ServeLimits
from vggc.serving.worker import CONNECTION, READY, WorkerTask
from vggc.support import signals
from vggc.support.diagnostics import UserError

log = logging.getLogger("vggc.serving")

START = """
import signal, sys
for number in {ignored}:
    signal.signal(number, signal.SIG_IGN)
sys.path[:] = {path}
from vggc.serving.worker import main
main()
"""
"""What a process runs. Signals to end reach all processes of a terminal or a service, and it is the
supervisor who does what they ask.
"""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a process that has ended is started again: doubled each time that it ends before
it has lived for the longest pause.
"""

GRACE = 10
"""Seconds beyond those for draining, after which a process that has not ended is killed."""

MOST_CLOSED = 4096
"""The closed connections of which a process is heard at once."""

FULL_PAUSE = 0.005
"""Seconds between two tries to hand a connection over where no process takes one."""


@dataclass
class ServerWorker:
    """A process and this process's end of its channel."""

    process: asyncio.subprocess.Process
    channel: socket.socket
    is_ready: bool = False
    connections: int = 0

    def hand_over(self, connection: socket.socket) -> bool:
        """Whether the process has been given a connection."""
        try:
            socket.send_fds(self.channel, [CONNECTION], [connection.fileno()])
        except OSError:  # its channel is full, or it has just ended
            return False
        self.connections += 1
        return True

    def dismiss(self) -> None:
        """Lets the process answer what it has taken, and end; at once where it has begun nothing
        yet.
        """
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        if not self.is_ready:
            self.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        if self.process.returncode is None:
            self.process.kill()


@dataclass
class Supervisor:
    """Keeps so many processes that serve artifacts, and deals the connections of a listening
    socket among them. `tell` is given lines for the user, and `ready` is called when the server
    answers.
    """

    artifacts: Mapping[str, Path]
    limits: ServeLimits
    processes: int
    listener: socket.socket
    tell: Callable[[str], None]
    ready: Callable[[], None]
    _workers: dict[int, ServerWorker] = field(default_factory=dict)
    _is_ending: asyncio.Event = field(default_factory=asyncio.Event)
    _is_any_ready: asyncio.Event = field(default_factory=asyncio.Event)
    _may_deal: asyncio.Event = field(default_factory=asyncio.Event)
    """All processes are ready, or one has failed, for which nobody waits."""
    _dealt: int = 0

    def answer(self) -> None:
        """Serves until a signal asks it to end, and then until all is answered.

        Raises:
            UserError: no process can serve. What is wrong with artifacts they have told.
        """
        with tempfile.TemporaryDirectory(
            prefix="vggc-serve-", ignore_cleanup_errors=True
        ) as folder:
            asyncio.run(self._answer(ServerCrew(Path(folder), self.processes)))

    async def _answer(self, crew: ServerCrew) -> None:
        loop = asyncio.get_running_loop()
        with signals.told(partial(self._ask_to_end, loop)):
            keepers = [
                asyncio.create_task(self._keep(crew, number)) for number in range(self.processes)
            ]
            dealing = asyncio.create_task(self._deal())
            ending = asyncio.create_task(self._is_ending.wait())
            try:
                done, _ = await asyncio.wait(
                    [ending, dealing, *keepers], return_when=asyncio.FIRST_COMPLETED
                )
                dealing.cancel()
                for task in done:
                    task.result()
                await self._drain(keepers)
            finally:
                for worker in self._workers.values():
                    worker.kill()
                for task in (ending, dealing, *keepers):
                    task.cancel()

    def _ask_to_end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self._is_ending.set)

    # Processes

    async def _keep(self, crew: ServerCrew, number: int) -> None:
        """Has a process with this number at all times until the server ends.

        Raises:
            UserError: it cannot begin, and there is no other.
        """
        if number > 0:  # the first says for all of them what is wrong
            await until_either(self._is_any_ready, self._is_ending)
        pause = FIRST_PAUSE
        while not self._is_ending.is_set():
            begin = monotonic()
            worker = await self._started(crew, number)
            code = await self._until_its_end(worker)
            del self._workers[number]
            self._may_deal.set()
            worker.channel.close()
            crew.strike(number)
            forget_waiting(crew, number)
            if self._is_ending.is_set():
                return
            if not (worker.is_ready or self._workers):
                raise UserError(diagnostics.NoServingProcess(end_of(code)))
            if monotonic() - begin > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self.tell(f"process {number} {end_of(code)}: another follows in {pause:g} seconds")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _started(self, crew: ServerCrew, number: int) -> ServerWorker:
        """A process that begins to load what it serves."""
        here, there = socket.socketpair()
        here.setblocking(False)
        task = WorkerTask(number, there.fileno(), crew, self.artifacts, self.limits)
        start = START.format(ignored=[*map(int, signals.ENDING)], path=sys.path)
        with there:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", start, task.as_json()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[there.fileno()],
            )
        self._workers[number] = ServerWorker(process, here)
        return self._workers[number]

    async def _until_its_end(self, worker: ServerWorker) -> int:
        """The exit code of a process, or minus the signal that ended it."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            if await loop.sock_recv(worker.channel, len(READY)):
                worker.is_ready = True
                self._is_any_ready.set()
                if len(self._ready()) == self.processes:
                    self._may_deal.set()
            while closed := await loop.sock_recv(worker.channel, MOST_CLOSED):
                worker.connections -= len(closed)
        return await worker.process.wait()

    def _ready(self) -> list[ServerWorker]:
        return [worker for _, worker in sorted(self._workers.items()) if worker.is_ready]

    async def _drain(self, keepers: Iterable[asyncio.Task[None]]) -> None:
        """Takes no more connections, and comes back when all processes have ended."""
        while self._hand_over_one_that_waits():
            pass
        self.listener.close()
        for worker in self._workers.values():
            worker.dismiss()
        await asyncio.wait(keepers, timeout=DRAIN_SECONDS + GRACE)
        for number, worker in self._workers.items():
            self.tell(f"process {number} has not ended by itself: it is killed")
            worker.kill()

    # Connections

    async def _deal(self) -> None:
        """Hands each connection to the process that has the fewest."""
        await self._is_any_ready.wait()
        await self._may_deal.wait()
        self.listener.setblocking(False)
        self.listener.listen(BACKLOG)
        self.ready()
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self.listener)
            except OSError as error:  # no descriptor is left, or the client has gone
                log.error("a connection could not be taken: %s", error)
                await asyncio.sleep(FULL_PAUSE)
                continue
            with connection:
                while not self._hand_over(connection):
                    await asyncio.sleep(FULL_PAUSE)
            await asyncio.sleep(0)  # others have their turn, however many connect

    def _hand_over_one_that_waits(self) -> bool:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return False
        with connection:
            return self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> bool:
        """Whether a process has taken a connection: of those that are ready the one that has the
        fewest, of several the next in turn, unless its channel is full.
        """
        ready, turn = self._ready(), self._dealt
        in_turn = [ready[(turn + number) % len(ready)] for number in range(len(ready))]
        self._dealt += 1
        fewest_first = sorted(in_turn, key=lambda worker: worker.connections)
        return any(worker.hand_over(connection) for worker in fewest_first)


async def until_either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Waits until one of two things has come."""
    waiting = [asyncio.ensure_future(each.wait()) for each in (one, other)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


def end_of(code: int) -> str:
    """What is said of a process that has ended with an exit code, or by a signal, -code."""
    if code >= 0:
        return f"has ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
