"""An artifact on a CPU among what else a program does: callbacks, threads, other files, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vggc.runtime.cpu_session import CpuSession
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
