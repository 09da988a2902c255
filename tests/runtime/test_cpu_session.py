"""An artifact on a CPU among what else a program does: callbacks, threads, other files, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vggc.runtime.artifact import sound_manifest
from vggc.runtime.cpu_session import CpuSession
from vggc.support.diagnostics import UserError
from vggc_runtime.native import NativeStep

Make = Callable[..., Path]
Noise = Callable[..., np.ndarray]


def test_a_watcher_may_run_the_net_that_it_watches(tiny_artifact: Make, noise: Noise) -> None:
    session = CpuSession.open(tiny_artifact())
    outer, inner = noise(1, 3, 16, 16), noise(1, 3, 16, 16) + 1
    expected = [session.run(x) for x in (outer, inner)]
    found: list[np.ndarray] = []

    def run_another(_: NativeStep) -> None:
        found.append(session.run(inner))

    (given,) = session.watch(outer, run_another).values()
    assert len(found) > 1
    np.testing.assert_array_equal(given, expected[0])
    for each in found:
        np.testing.assert_array_equal(each, expected[1])


RUNS_WHEN_ALL_ENDS = """
import atexit, sys

atexit.register(lambda: print(*net.run(x)[0].shape))  # before any other: it is called the last
from pathlib import Path
import numpy as np
from vggc_runtime.native import NativeNet

folder, x = Path(sys.argv[1]), np.zeros((1, 3, 16, 16), np.float32)
net = NativeNet.open(folder / "lib.so", "tiny", folder / "weights.safetensors")
"""


def test_a_net_is_open_until_the_process_has_ended(tiny_artifact: Make) -> None:
    """Threads that nobody waits for may run it until then."""
    call = [sys.executable, "-c", RUNS_WHEN_ALL_ENDS, str(tiny_artifact())]
    ended = subprocess.run(call, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "1 10\n"), ended.stderr


def test_an_artifact_that_takes_the_place_of_an_open_one_is_loaded(
    tiny_artifact: Make, noise: Noise
) -> None:
    """A loader knows libraries by their paths, and would give the old one."""
    x = noise(4, 3, 16, 16)
    folder = tiny_artifact()
    before = CpuSession.open(folder)
    expected = before.run(x)
    shutil.rmtree(folder)
    after = CpuSession.open(tiny_artifact(1, 4))
    steps: list[NativeStep] = []
    after.watch(x, steps.append)
    assert len(steps) == len(sound_manifest(folder).entries[-1].kernels)
    np.testing.assert_array_equal(before.run(x), expected)


def test_an_interrupt_leaves_the_caller_the_processors_that_it_had(
    tiny_artifact: Make, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come when the caller has just been put on its core."""
    allowed = os.sched_getaffinity(0)
    session = CpuSession.open(tiny_artifact())
    session = replace(session, net=replace(session.net, core=min(allowed)))
    places: list[set[int]] = []
    put = os.sched_setaffinity

    def interrupted(thread: int, processors: set[int]) -> None:
        put(thread, processors)
        places.append(processors)
        if len(places) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "sched_setaffinity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run(noise(1, 3, 16, 16))
    assert places == [{min(allowed)}, allowed]
    session.run(noise(1, 3, 16, 16))
    assert places[2:] == [{min(allowed)}, allowed]
    assert os.sched_getaffinity(0) == allowed


def test_an_interrupt_of_a_run_that_is_watched_comes_at_its_end(
    tiny_artifact: Make, noise: Noise
) -> None:
    session = CpuSession.open(tiny_artifact())
    x = noise(1, 3, 16, 16)
    count = len(session.layers(x))
    steps: list[NativeStep] = []

    def interrupt(step: NativeStep) -> None:
        steps.append(step)
        if len(steps) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        session.watch(x, interrupt)
    assert len(steps) == count


def test_what_hinders_a_run_is_not_put_down_to_the_artifact(tiny_artifact: Make) -> None:
    with pytest.raises(UserError, match="cannot be run now\n  a net cannot run on -1 threads"):
        CpuSession.open(tiny_artifact(), threads=-1)
