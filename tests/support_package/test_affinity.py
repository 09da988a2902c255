"""Threads of a running net: each on a core of its own, and nobody else's moved."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from vggc.support.affinity import apart
from vggc_runtime.processors import first_of_each_core

T = TypeVar("T")
CORES = first_of_each_core()


def in_a_thread_of_its_own(call: Callable[[], T]) -> T:
    """TVM has a pool for each thread that calls it, so a new thread has none yet."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result()


def places() -> dict[int, set[int]]:
    """Where each thread of this process may run."""
    found = {}
    for path in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            found[int(path.name)] = os.sched_getaffinity(int(path.name))
    return found


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core only")
def test_caller_and_workers_have_a_core_each_and_the_caller_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", str(len(CORES)))
    monkeypatch.setenv("TVM_BIND_THREADS", "0")

    def run() -> None:
        before = places()
        allowed = os.sched_getaffinity(0)
        with apart(len(CORES)):
            assert os.sched_getaffinity(0) == {CORES[0]}
            new = [place for thread, place in places().items() if thread not in before]
            assert sorted(map(sorted, new)) == [[core] for core in CORES[1:]]
        assert os.sched_getaffinity(0) == allowed
        after = places()
        assert all(after.get(thread, place) == place for thread, place in before.items())

    in_a_thread_of_its_own(run)


@pytest.mark.parametrize("threads", {1, len(CORES) + 1})
def test_fewer_or_more_threads_than_cores_go_where_the_system_wants(threads: int) -> None:
    def run() -> None:
        before = places()
        with apart(threads):
            assert places().items() <= before.items()  # a thread of another test may have ended

    in_a_thread_of_its_own(run)


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core only")
def test_who_narrows_his_cores_stays_where_he_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", str(len(CORES)))
    monkeypatch.setenv("TVM_BIND_THREADS", "0")

    def run() -> None:
        with apart(len(CORES)):
            pass
        os.sched_setaffinity(0, {CORES[-1]})
        with apart(len(CORES)):
            assert os.sched_getaffinity(0) == {CORES[-1]}

    in_a_thread_of_its_own(run)
