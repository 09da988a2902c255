"""Processes that hold TVM and do what they are told, and whose death harms nobody.

Compilers and kernels that are tried out may hang or crash. They run in processes forked from
one that has imported TVM and nothing else has happened in: a new one takes milliseconds, and
no thread of TVM's pool is lost in a fork, because none was started.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[Any], None]
"""Sends word to the one who asked, before the result."""

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["vggc.tuning.measure"])


class Failed(Exception):
    """What a worker was asked for could not be done; the message says why.

    `crashed` where what it ran did what no program may, rather than took too long or too much.
    """

    def __init__(self, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class Died(Failed):
    """The worker's process has ended, or was ended because it took too long."""


class CardCrash(Exception):
    """A kernel did on a card what no program may, and nothing runs there any more in the process
    that launched it.
    """


CRASHES = {signal.SIGSEGV, signal.SIGILL, signal.SIGFPE}
"""Signals that say so. A full disk under a mapped file is a SIGBUS, and want of memory a SIGKILL
or a SIGABRT."""


class MeasuringWorker:
    """A process that answers one question at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.connection, there = _CONTEXT.Pipe()
        arguments = there, dict(environment)
        self.process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        # Ctrl-C is for the one who asks; all that is started here inherits the mask.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self.patience = self.limit = self.deadline = float("inf")

    def ask(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        patience: float,
        first: float | None = None,
    ) -> None:
        """Starts `function(*arguments, tell)` in the process, which is ended where no word of it
        comes for `patience` seconds, or no first word for `first`.
        """
        self.patience = patience
        self._wait(first or patience)
        self.connection.send((function, arguments))

    def _wait(self, seconds: float) -> None:
        self.limit = seconds
        self.deadline = time.monotonic() + seconds

    def receive(self) -> tuple[bool, Any]:
        """Whether what the process has sent is the result, and what it has sent.

        Raises: Failed when the function raised; Died when the process did not come to its end.
        """
        try:
            if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                self.stop()
                raise Died(f"it took more than {self.limit:.0f} s")
            kind, value = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(5)
            code = self.process.exitcode or 0
            self.stop()
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise Died(f"its process ended with {reason}", crashed=-code in CRASHES) from None
        if kind in ("error", "crash"):
            raise Failed(value, crashed=kind == "crash")
        self._wait(self.patience)
        return kind == "result", value

    def result(self) -> Any:
        """What the function gave, whatever it told before."""
        while True:
            done, value = self.receive()
            if done:
                return value

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Answers until whoever asks is gone."""
    os.environ.update(environment)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    with suppress(EOFError, ConnectionError):
        while True:
            function, arguments = connection.recv()
            try:
                value = function(*arguments, lambda told: connection.send(("told", told)))
            except CardCrash as crash:
                connection.send(("crash", str(crash)))
            except Exception as error:
                connection.send(("error", reason(error)))
            else:
                connection.send(("result", value))


def reason(error: Exception) -> str:
    """The last line of an error's message: TVM puts its own stack before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


class Crew:
    """Worker processes that share out the calls of one function."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workers: dict[int, MeasuringWorker] = {}

    def map(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], patience: float
    ) -> list[Any]:
        """The function's results in order, a `Failed` in the place of each result that there is
        not.
        """
        results: list[Any] = [Failed("not done")] * len(calls)
        for index, result in self._results(function, calls, patience):
            results[index] = result
        return results

    def _results(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], patience: float
    ) -> Iterator[tuple[int, Any]]:
        waiting = list(enumerate(calls))[::-1]
        busy: dict[int, int] = {}
        while waiting or busy:
            for slot in range(self.size):
                if waiting and slot not in busy:
                    busy[slot], arguments = waiting.pop()
                    self._worker(slot).ask(function, *arguments, patience=patience)
            at_work = {slot: self._worker(slot) for slot in busy}
            rest = min(worker.deadline for worker in at_work.values()) - time.monotonic()
            ready = wait([worker.connection for worker in at_work.values()], max(0.0, rest))
            for slot, worker in at_work.items():
                if worker.connection in ready or worker.deadline <= time.monotonic():
                    try:
                        result = worker.result()
                    except Died as died:
                        result = died
                        del self.workers[slot]
                    except Failed as failed:
                        result = failed
                    yield busy.pop(slot), result

    def _worker(self, slot: int) -> MeasuringWorker:
        """The worker of a slot, started when it is first needed."""
        if slot not in self.workers:
            self.workers[slot] = MeasuringWorker({})
        return self.workers[slot]

    def stop(self) -> None:
        """Ends all workers."""
        for worker in self.workers.values():
            worker.stop()
        self.workers = {}
