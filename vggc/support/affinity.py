"""Keeps the threads of kernels that TVM calls apart, each on a core of its own.

Left alone they share one now and then: a thread that wakes another is followed by it to its own
core, and milliseconds pass before the system moves either. A net is done by then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vggc.support.tvm_alone import tvm
from vggc_runtime.processors import first_of_each_core, staying_on

ALL_BIG_CORES = 1
"""TVM's word for threads on the fastest cores; it binds none while TVM_BIND_THREADS is 0."""

# TVM has a pool of workers for each thread that calls it.
_OF_THREAD = threading.local()


@contextmanager
def apart(threads: int) -> Iterator[None]:
    """The calling thread stays on one core meanwhile, the workers of its pool on the others.

    That is so where they are as many as the cores; of fewer nobody knows which cores are free.
    Where the caller has narrowed the cores that it may use since, it stays where it wants, and
    so it does where the environment says TVM_BIND_THREADS otherwise than 0.
    """
    if not hasattr(_OF_THREAD, "core"):
        _OF_THREAD.core = _settle(threads)
    with staying_on(_OF_THREAD.core):
        yield


def _settle(threads: int) -> int | None:
    """Makes the calling thread's pool and gives each worker its core; the one that is left.

    None where the pool was there before, so that nobody knows its workers.
    """
    cores = first_of_each_core()
    ours = os.environ.get("TVM_BIND_THREADS") == "0"
    if threads != len(cores) or threads == 1 or not ours:
        return None
    before = _threads()
    tvm.get_global_func("runtime.config_threadpool")(ALL_BIG_CORES, threads)
    workers = sorted(_threads() - before)
    if len(workers) != threads - 1:
        return None
    for worker, core in zip(workers, cores[1:], strict=True):
        with suppress(OSError):
            os.sched_setaffinity(worker, {core})
    return cores[0]


def _threads() -> set[int]:
    """The threads of this process, as far as the system tells."""
    folder = Path("/proc/self/task")
    return {int(path.name) for path in folder.iterdir()} if folder.is_dir() else set()
