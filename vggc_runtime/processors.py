"""How many processors this process may keep busy, known without torch or TVM."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vggc_runtime.control_groups import ROOT, folders

THREADS = "OMP_NUM_THREADS"
"""What PyTorch, numpy and others take their number of threads from."""


def num_processors(root: Path = ROOT) -> int:
    """The processors that this process may use: those that it may run on, and of their time what
    the quota of its control groups leaves it, rounded up.
    """
    return max(1, math.ceil(min(len(allowed()), quota(root))))


def num_cores(root: Path = ROOT) -> int:
    """The physical cores that this process may keep busy, one at least.

    Two threads of one core share its arithmetic, so they count once; where the system tells
    no topology, as in many virtual machines, every processor counts.
    """
    return min(len(first_of_each_core(root)), num_processors(root))


def limit_threads(root: Path = ROOT) -> None:
    """Lets libraries that are loaded from now on start no more threads than a quota has time for.

    What the user has set stays. Without a quota they know the number by themselves.
    """
    if quota(root) < len(allowed()):
        os.environ.setdefault(THREADS, str(num_processors(root)))


def allowed() -> set[int]:
    """The processors that this process may run on; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def first_of_each_core(root: Path = ROOT) -> list[int]:
    """One processor of each physical core that this process may use, in order."""
    found: dict[str, int] = {}
    for cpu in sorted(allowed()):
        found.setdefault(_siblings(root, cpu), cpu)
    return list(found.values())


@contextmanager
def staying_on(processor: int | None) -> Iterator[None]:
    """The calling thread stays on a processor meanwhile. It stays where it wants where that is none
    of those that it may use now.
    """
    before = os.sched_getaffinity(0)
    if processor not in before:
        yield
        return
    with suppress(OSError):
        os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def _siblings(root: Path, cpu: int) -> str:
    """What names a processor's core: the processors that share it, or itself."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)


def quota(root: Path = ROOT) -> float:
    """How many processors' time the control groups of this process leave it, if they limit it."""
    return min(map(_limit, folders("cpu", root)), default=math.inf) or math.inf


def _limit(folder: Path) -> float:
    """The processors that a control group may use, of either version; infinity without limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        time, period = (folder / "cpu.max").read_text().split()
        return int(time) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        time = (folder / "cpu.cfs_quota_us").read_text()
        if int(time) > 0:
            return int(time) / int((folder / "cpu.cfs_period_us").read_text())
    return math.inf
