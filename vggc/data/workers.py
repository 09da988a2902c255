"""Processes that make things ahead of time, and hand them over in order.

What they make comes through memory that has no name (`memfd_create`), of which only its descriptor
is sent. So nothing depends on /dev/shm, which containers keep small, and which PyTorch's loader
fills without noticing.
"""

from __future__ import annotations

import atexit
import io
import mmap
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from time import monotonic
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from vggc.data import diagnostics
from vggc.support.diagnostics import CheckFailed, UserError, render

T = TypeVar("T")

AHEAD = 2
"""Things that a worker makes before the first of them is taken."""
GRACE = 3.0
"""Seconds that workers have to end by themselves."""
LOOK = 0.2
"""Seconds between two looks at whether anyone wants to stop, while a thing is waited for."""
SMALL = 2**16
"""Up to so many bytes go through a worker's pipe."""
ALIGNED = 64
"""What the places of arrays in memory are multiples of."""

_CONTEXT = get_context("fork")
# This process's ends of its workers' pipes, which later workers inherit and must let go of.
_open: set[Connection] = set()


class WorkerLost(CheckFailed):
    """A worker has ended that should not have."""

    def __init__(self, problem: diagnostics.WorkerEnded) -> None:
        self.problem = problem
        super().__init__(render(problem).removeprefix("error: "))


def never() -> bool:
    """False: the answer, whether to stop, of who never wants to."""
    return False


def made_ahead(
    make: Callable[[int], T],
    steps: Sequence[int],
    workers: int,
    stop: Callable[[], bool] = never,
) -> Generator[T]:
    """`make(step)` for each step in order, made by so many processes, one at least.

    It ends early where `stop` says so while a thing is waited for. What `make` raises is raised
    here, too.

    Raises:
        WorkerLost: a worker was killed, or has crashed.
        UserError: the system starts no process.
    """
    crew: list[Worker] = []
    try:
        for _ in range(min(workers, len(steps))):
            crew.append(Worker.start(make))
        waiting = iter(steps)
        for worker, step in zip(cycle(crew), islice(waiting, AHEAD * len(crew)), strict=False):
            worker.ask(step)
        for worker, _ in zip(cycle(crew), steps, strict=False):
            while not worker.connection.poll(LOOK):
                if stop():
                    return
            made = worker.answer()
            for step in islice(waiting, 1):
                worker.ask(step)
            yield made
    finally:
        end(crew)


@dataclass(frozen=True)
class Worker:
    """A process that makes what it is asked for, and this process's end of the pipe to it."""

    process: BaseProcess
    connection: Connection

    @classmethod
    def start(cls, make: Callable[[int], object]) -> Worker:
        """Raises: UserError when the system lets no process or pipe be made."""
        try:
            here, there = _CONTEXT.Pipe()
        except OSError as fault:
            raise no_worker(fault) from None
        process = _CONTEXT.Process(target=serve, args=(make, there), daemon=True)
        worker = cls(process, here)
        _open.add(here)
        try:
            with there, warnings.catch_warnings():
                # That the threads of this process are not in the forked one is known.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        except OSError as fault:
            _open.discard(here)
            here.close()
            raise no_worker(fault) from None
        # Before Python waits for its children, one that hangs would keep it for ever.
        atexit.register(worker.kill)
        return worker

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()

    def ask(self, step: int) -> None:
        """Asks for the batch of a step. Raises: WorkerLost."""
        try:
            self.connection.send(step)
        except ConnectionError:
            raise self.lost() from None

    def answer(self) -> Any:
        """What was asked for first of what has not come yet."""
        try:
            return received(self.connection)
        except (EOFError, ConnectionError):
            raise self.lost() from None

    def lost(self) -> WorkerLost:
        """The error that says how the process ended; waits for its end."""
        self.process.join(GRACE)
        return WorkerLost(ended(self.process.exitcode))


def no_worker(fault: OSError) -> UserError:
    """The mistake of a system that starts no process."""
    return UserError(diagnostics.NoWorker(fault.strerror or str(fault)))


def ended(code: int | None) -> diagnostics.WorkerEnded:
    """What is said of a worker that has ended with an exit code, or by a signal, -code."""
    if code is None or code >= 0:
        return diagnostics.WorkerEnded(f"it ended with exit code {code}", "")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        return diagnostics.WorkerEnded(
            f"{name} killed it", "the system does so when memory runs out"
        )
    return diagnostics.WorkerEnded(f"{name} ended it", "what decodes images may have crashed")


def end(crew: Sequence[Worker]) -> None:
    """Ends workers, after `GRACE` seconds also those that a read holds up."""
    for worker in crew:
        _open.discard(worker.connection)
        worker.connection.close()  # at which one that waits or answers ends
    deadline = monotonic() + GRACE
    for worker in crew:
        worker.process.join(max(0.0, deadline - monotonic()))
        worker.kill()
        worker.process.join()
        worker.process.close()
        atexit.unregister(worker.kill)


# In the worker


def serve(make: Callable[[int], object], connection: Connection) -> None:
    """Makes what is asked for, until whoever asks is gone."""
    prepare_worker()
    with suppress(EOFError, ConnectionError):
        while True:
            step = connection.recv()
            try:
                made = True, make(step)
            except Exception as fault:
                made = False, portable(fault)
            send(connection, made)


def prepare_worker() -> None:
    """Leaves signals to the main process, which finishes its step and then ends its workers:
    both a terminal and `torchrun` send theirs to all processes of a group.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for connection in _open:
        connection.close()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def portable(fault: Exception) -> Exception:
    """The fault, with where it was raised, as it can be sent."""
    fault.add_note("".join(traceback.format_exception(fault)))
    try:
        pickle.loads(pickle.dumps(fault))
    except Exception:
        return RuntimeError("".join(traceback.format_exception_only(fault)))
    return fault


# On the way

ByteRange: TypeAlias = tuple[int, int]
"""Where an array begins and ends in memory."""

MessageHead: TypeAlias = tuple[bytes, list[ByteRange], list[bytes] | None]
"""A pickled thing, the places of its arrays in memory, and the arrays themselves where they are
small.
"""


class _Pickler(pickle.Pickler):
    """Takes tensors apart into arrays, which it need not copy."""

    def reducer_override(self, thing: object) -> Any:
        if not isinstance(thing, Tensor):
            return NotImplemented
        whole = as_it_lies(thing)
        if not whole.is_contiguous():
            thing = whole = thing.contiguous()
        return tensor, (whole.numpy(), tuple(thing.shape), thing.stride())


def as_it_lies(thing: Tensor) -> Tensor:
    """The tensor with its slowest axis first and its fastest last."""
    return thing.permute(sorted(range(thing.dim()), key=thing.stride, reverse=True))


def tensor(array: np.ndarray[Any, Any], shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """The tensor of this shape and these strides whose memory is the array's."""
    return torch.from_numpy(array).as_strided(shape, strides)


def send(connection: Connection, thing: object) -> None:
    """Sends a thing to `received`, its arrays through memory where there is any."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, 5, buffer_callback=buffers.append).dump(thing)
    arrays = [buffer.raw() for buffer in buffers]
    places, size = [], 0
    for array in arrays:
        places.append((size, size + array.nbytes))
        size += -(-array.nbytes // ALIGNED) * ALIGNED
    memory = filled(arrays, places) if size > SMALL else None
    if memory is None:
        connection.send((stream.getvalue(), places, [bytes(array) for array in arrays]))
        return
    connection.send((stream.getvalue(), places, None))
    send_handle(connection, memory, None)
    os.close(memory)


def filled(arrays: Sequence[memoryview], places: Sequence[ByteRange]) -> int | None:
    """The descriptor of memory that holds the arrays; None where the system gives none."""
    if not hasattr(os, "memfd_create"):
        return None
    with suppress(OSError):
        memory = os.memfd_create("vggc")
        try:
            for array, (start, _) in zip(arrays, places, strict=True):
                while array.nbytes:
                    written = os.pwrite(memory, array, start)
                    array, start = array[written:], start + written
        except OSError:
            os.close(memory)
            raise
        return memory
    return None


def received(connection: Connection) -> Any:
    """What `send` was given. Raises what it says was raised there."""
    head: MessageHead = connection.recv()
    data, places, held = head
    if held is None:
        memory = recv_handle(connection)
        try:
            size = os.fstat(memory).st_size
            whole = memoryview(mmap.mmap(memory, size, mmap.MAP_SHARED | mmap.MAP_POPULATE))
        finally:
            os.close(memory)
        well, made = pickle.loads(data, buffers=[whole[start:end] for start, end in places])
    else:
        well, made = pickle.loads(data, buffers=map(bytearray, held))
    if not well:
        raise made
    return made
