"""Libraries for C beside the virtual machine: `python benchmarks/standalone.py NET …`.

Each net is compiled with `vggc compile --standalone`. The library has to give the outputs of the
virtual machine to the bit; both are timed in turns in one process, with as many threads. Told are
also the library's size, that of the example with it in one static file by `musl-gcc`, where there
is one, and what a process that runs it takes beside weights and activations.
"""

from __future__ import annotations

import argparse
import shutil
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
from tests.support.virtual_machine import MachineNet
from vggc.compiler.memory import lifetimes, placed
from vggc.program import zoo
from vggc.runtime.artifact import Manifest
from vggc.runtime.plans import plans_in
from vggc.runtime.session import Session
from vggc.support.arrays import Array
from vggc.support.paths import STANDALONE
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.native import prefix_of

MUSL = "musl-gcc"
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
    static: int | None
    """Of the example in one static file."""
    resident: int
    """The peak of a process that runs the net on mapped weights, without those, its input, its
    activations and its outputs.
    """

    @property
    def row(self) -> str:
        """A row of the table."""
        same = "equal" if self.equal else "**differ**"
        static = "–" if self.static is None else f"{self.static / 1e3:.0f}"
        return (
            f"| {self.net} | {same} | {self.ours:.2f} | {self.machine:.2f} "
            f"| {self.ours / self.machine:.3f} | {self.library / 1e3:.0f} | {static} "
            f"| {self.resident / 1e6:.1f} |"
        )


def measured(net: str, folder: Path, threads: int, more: list[str]) -> Measured:
    """Compiles a net and measures its library."""
    artifact = folder / net
    command = [sys.executable, "-m", "vggc", "compile", net, "--standalone", "--seed", "0"]
    options = ["--threads", str(threads), "-o", str(artifact), *more]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    library, virtual = (
        StandaloneNet.open(artifact, threads=threads),
        MachineNet.of(artifact, threads),
    )
    manifest = virtual.manifest
    equal = all(equals(library, virtual, count) for count in counts(manifest.batches))
    images = drawn(manifest, manifest.batches[0])
    ours, machine = [], []
    # As vggc calls it, with each thread on a core of its own, as the machine's are.
    session, called = Session.load(artifact, threads), virtual.ready(images)

    def call() -> dict[str, Array]:
        return session.run_all(images)

    for _ in range(ROUNDS):
        ours.append(seconds(call))
        machine.append(seconds(called))
    library.close()
    prefix, place = prefix_of(manifest.net), artifact / STANDALONE
    plan = plans_in(artifact, manifest)[manifest.entries[0].name]
    activations = placed(lifetimes(plan)).bytes
    # The program holds the input, and the library has room for it.
    known = (artifact / WEIGHTS).stat().st_size + activations + 2 * images.nbytes
    return Measured(
        net=net,
        equal=equal,
        ours=median(ours) * 1e3,
        machine=median(machine) * 1e3,
        library=(place / f"lib{prefix}.so").stat().st_size,
        static=static_bytes(place, prefix),
        resident=resident(artifact, images, threads) - known,
    )


def counts(batches: tuple[int, ...]) -> list[int]:
    """Numbers of images that each entry computes whole and with zeros beside them, and more than
    the largest takes.
    """
    return sorted({*batches, *(max(1, batch - 1) for batch in batches), batches[-1] + 1})


def drawn(manifest: Manifest, count: int) -> Array:
    """So many images of noise."""
    shape = (count, *manifest.input)
    return np.random.default_rng(count).standard_normal(shape, np.float32)


def equals(library: StandaloneNet, virtual: MachineNet, count: int) -> bool:
    """Whether both give the same of so many images, to the bit and in every head."""
    images = drawn(virtual.manifest, count)
    found, expected = library.run(images), virtual.run(images)
    return found.keys() == expected.keys() and all(
        found[name].tobytes() == value.tobytes() for name, value in expected.items()
    )


def static_bytes(place: Path, prefix: str) -> int | None:
    """The size of the example in one file that needs no other; None without musl."""
    if shutil.which(MUSL) is None:
        return None
    program = place / "static"
    command = [MUSL, "-static", "-s", "main.c", f"lib{prefix}.a", "-o", program]
    subprocess.run(command, cwd=place, check=True)
    return program.stat().st_size


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
        "| net | outputs | library, ms | virtual machine, ms | ratio | library, kB | static, kB "
        "| memory, MB |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    differing = []
    for net in chosen.nets:
        with tempfile.TemporaryDirectory() as folder:
            found = measured(net, Path(folder), chosen.threads, more)
        print(found.row, flush=True)
        differing += [] if found.equal else [net]
    sys.exit(f"outputs differ of {', '.join(differing)}" if differing else 0)


if __name__ == "__main__":
    main()
