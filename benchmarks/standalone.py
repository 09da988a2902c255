"""Libraries for C beside the virtual machine: `python benchmarks/standalone.py NET …`.

Each net is compiled with `vggc compile --standalone`. The library has to give the outputs of the
virtual machine to the bit; both are timed in turns in one process, with as many threads. Told are
also the library's size, and what a process that runs it takes beside weights and activations.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # what calls libraries is among the tests

from tests.support.standalone import Driver, StandaloneNet
from vggc.compiler.memory import lifetimes, placed
from vggc.program import zoo
from vggc.runtime.artifact import WEIGHTS
from vggc.runtime.session import Session
from vggc.support.paths import STANDALONE
from vggc_runtime.native import prefix_of

ROUNDS = 15
PAUSE = 0.02
"""Seconds in which idle threads stop looking for work."""


@dataclass(frozen=True)
class Measured:
    """What was found of a net: milliseconds, bytes, and whether all outputs were equal."""

    net: str
    equal: bool
    ours: float
    machine: float
    """Of the virtual machine, whose threads suffer more where others want the processors."""
    library: int
    resident: int
    """The peak of a process that runs the net on mapped weights, without those, its input, its
    activations and its outputs.
    """

    @property
    def row(self) -> str:
        """A row of the table."""
        same = "equal" if self.equal else "**differ**"
        return (
            f"| {self.net} | {same} | {self.ours:.2f} | {self.machine:.2f} "
            f"| {self.ours / self.machine:.3f} | {self.library / 1e3:.0f} "
            f"| {self.resident / 1e6:.1f} |"
        )


def measured(net: str, folder: Path, threads: int, more: list[str]) -> Measured:
    """Compiles a net and measures its library."""
    artifact = folder / net
    command = [sys.executable, "-m", "vggc", "compile", net, "--standalone", "--seed", "0"]
    options = ["--threads", str(threads), "-o", str(artifact), *more]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    session, library = (
        Session.load(artifact, threads),
        StandaloneNet.open(artifact, threads=threads),
    )
    shape = (session.manifest.batches[0], *session.manifest.input)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    ours, machine = [], []
    expected, found = session.run_all(images), library.run(images)
    lent, call = session.lent(images), library.ready(images)
    for _ in range(ROUNDS):
        ours.append(seconds(call))
        machine.append(seconds(lambda: session.named(lent)))
    library.close()
    prefix = prefix_of(session.manifest.net)
    activations = max(placed(lifetimes(plan)).bytes for plan in session.plans.values())
    # The program holds the input, and the library has room for it.
    known = (artifact / WEIGHTS).stat().st_size + activations + 2 * images.nbytes
    return Measured(
        net=net,
        equal=all(found[name].tobytes() == expected[name].tobytes() for name in expected),
        ours=median(ours) * 1e3,
        machine=median(machine) * 1e3,
        library=(artifact / STANDALONE / f"lib{prefix}.so").stat().st_size,
        resident=resident(artifact, images, threads) - known,
    )


def seconds(call: Callable[[], object]) -> float:
    """What a call takes behind one that has woken its threads and filled the caches, when those of
    others have gone to sleep.
    """
    sleep(PAUSE)
    call()
    started = perf_counter()
    call()
    return perf_counter() - started


def resident(artifact: Path, images: np.ndarray, threads: int) -> int:
    """The peak of the bytes that a process of C takes."""
    driver = Driver.of(
        artifact, artifact / "driver", "-O2", command=["/usr/bin/env", "time", "-f%M"]
    )
    _, said = driver.run(images, threads=threads, runners=1, map_=True)
    return int(said.split()[-1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=sorted(zoo()))
    parser.add_argument("--threads", type=int, default=2)
    chosen, more = parser.parse_known_args()
    print(
        "| net | outputs | library, ms | virtual machine, ms | ratio | library, kB | memory, MB |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for net in chosen.nets:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(net, Path(folder), chosen.threads, more).row, flush=True)


if __name__ == "__main__":
    main()
