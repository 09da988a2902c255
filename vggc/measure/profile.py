"""Where the time of a compiled net goes, kernel by kernel, and what bounds each.

The net's library tells the time of every call, which costs a few microseconds a call outside of
what is timed. In the same rounds run the net without that clock and two kernels of our own that
show what this machine can do at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import numpy as np

from vggc.ir.graph import Graph
from vggc.measure import diagnostics
from vggc.measure.bench import rest
from vggc.measure.roofline import arithmetic, bandwidth
from vggc.passes.fold import fold
from vggc.runtime.artifact import (
    ArtifactEntry,
    KernelEntry,
    entry_in,
    graph_in,
    manifest_at,
)
from vggc.runtime.cpu_session import CpuSession
from vggc.runtime.session import Session
from vggc.support.diagnostics import UserError
from vggc_runtime.native import NativeStep
from vggc_runtime.processors import num_cores

WARM_UP = 3
HALF = 0.5
"""The share of a limit from which on that limit is what bounds a kernel."""

Bound: TypeAlias = Literal["compute", "memory", "overhead"]


@dataclass(frozen=True)
class MachinePeaks:
    """What a machine can do at most, each the best of a run's rounds.

    `flops` are those of multiply-adds in the artifact's precision, `float32_flops` those in
    float32; `bandwidth` is bytes read a second from memory.
    """

    flops: float
    float32_flops: float
    bandwidth: float


@dataclass(frozen=True)
class Call:
    """One kernel call of a profile: its median time in seconds, its work, and the share of the
    limits.

    `macs` are the multiply-adds that the op asks for, `real_macs` those that the code does.
    `bytes` are those of inputs, weights and output, each counted once.
    """

    layer: str
    step: str
    kernel: str
    seconds: float
    macs: int
    real_macs: int
    bytes: int
    compute_share: float
    """Real FLOPs over those that the machine could do in the time."""
    memory_share: float
    """Bytes over those that memory could give in the time; over 1 where they come from caches
    or need not be read."""

    @property
    def useful_flops(self) -> float:
        """FLOPs a second, counting two for each multiply-add that the op asks for."""
        return 2 * self.macs / self.seconds

    @property
    def real_flops(self) -> float:
        """FLOPs a second, counting two for each multiply-add that the code does."""
        return 2 * self.real_macs / self.seconds

    @property
    def bandwidth(self) -> float:
        """The bytes a second that the call reads and writes."""
        return self.bytes / self.seconds

    @property
    def bound(self) -> Bound:
        """The limit that the call is nearer to; overhead where it is far from both."""
        if max(self.compute_share, self.memory_share) < HALF:
            return "overhead"
        return "compute" if self.compute_share >= self.memory_share else "memory"


@dataclass(frozen=True)
class Profile:
    """A profile of a batch in medians of seconds: each call, the whole net, and the whole net with
    the clock.
    """

    threads: int
    batch: int
    calls: tuple[Call, ...]
    limits: MachinePeaks
    whole: float
    watched: float

    @property
    def sum(self) -> float:
        """The seconds in kernels, all together."""
        return sum(call.seconds for call in self.calls)


def profile(
    folder: Path,
    threads: int | None,
    rounds: int,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
) -> Profile:
    """Times every kernel call of an artifact on noise, for one of its batches and sizes (H, W): the
    largest batch and the main size unless told.

    Raises: UserError when the artifact is damaged, not for this machine or such images, or for a
    GPU.
    """
    count = threads or num_cores()
    session = Session.load(folder, count)
    manifest = session.manifest
    if not isinstance(session, CpuSession):
        raise UserError(diagnostics.LayersOfGpu(str(folder)))
    _ = session.plans  # the manifest's kernels are those of the net
    manifest = manifest_at(folder, manifest, size)
    entry = entry_in(folder, manifest, batch)
    shape = (entry.batch, *manifest.input)
    x = session.tensor(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    own = arithmetic(manifest.target, count, manifest.precision)
    float32 = arithmetic(manifest.target, count, "float32")
    memory = bandwidth(manifest.target, count)
    steps: list[NativeStep] = []
    for _ in range(WARM_UP):
        session.invoke(x)
        steps.clear()
        session.watch(x, steps.append)
    sizes = [step.moved for step in steps]
    passes, whole, with_clock, limits = [], [], [], []
    for _ in range(rounds):
        rest()
        whole.append(_seconds(lambda: session.named(x)))
        rest()
        steps.clear()
        with_clock.append(_seconds(lambda: session.watch(x, steps.append)))
        passes.append([step.seconds for step in steps])
        limits.append((own.measure(), float32.measure(), memory.measure()))
    best = MachinePeaks(*map(max, zip(*limits, strict=True)))
    seconds = [median(times) for times in zip(*passes, strict=True)]
    calls = _calls(entry, fold(graph_in(folder, manifest)).graph, seconds, sizes, best)
    return Profile(
        threads=count,
        batch=entry.batch,
        calls=calls,
        limits=best,
        whole=median(whole),
        watched=median(with_clock),
    )


def _calls(
    entry: ArtifactEntry,
    graph: Graph,
    seconds: list[float],
    sizes: list[int],
    limits: MachinePeaks,
) -> tuple[Call, ...]:
    calls = []
    useful = useful_macs(entry, graph)
    rows = zip(entry.kernels, useful, seconds, sizes, strict=True)
    for kernel, macs, time_, size in rows:
        real = kernel.macs or macs
        peak = _peak(kernel, limits)
        calls.append(
            Call(
                layer=kernel.layer,
                step=kernel.step,
                kernel=kernel.algorithm,
                seconds=time_,
                macs=macs,
                real_macs=real,
                bytes=size,
                compute_share=2 * real / time_ / peak,
                memory_share=size / time_ / limits.bandwidth,
            )
        )
    return tuple(calls)


def _peak(kernel: KernelEntry, limits: MachinePeaks) -> float:
    """The arithmetic that is there for a kernel, in FLOPs a second, by what it multiplies in."""
    match kernel.algorithm.rpartition("-"):
        case ("columns", _, _):  # reads fewer bits, and multiplies floats
            return limits.float32_flops
        case (_, _, "bfloat16" | "uint8"):
            return limits.flops
        case (_, _, "int16"):  # half as many in an instruction as of eight bits
            return limits.flops / 2
        case _:
            return limits.float32_flops


def useful_macs(entry: ArtifactEntry, graph: Graph) -> list[int]:
    """The multiply-adds that the ops behind each kernel call of an entry ask for, for its whole
    batch.

    A call stands for the node that it gives the value of, and for those before it that no
    call gives the value of: they are fused into it.
    """
    index_of = {node.name: index for index, node in enumerate(graph.nodes)}
    done: set[int] = set()
    found = []
    for kernel in entry.kernels:
        macs = 0
        waiting = [index_of[kernel.step]] if kernel.step in index_of else []
        while waiting:
            index = waiting.pop()
            if index in done:
                continue
            done.add(index)
            node = graph.nodes[index]
            waiting += node.inputs
            if node.inputs:
                macs += node.op.macs(graph.nodes[node.inputs[0]].shape)
        found.append(entry.batch * macs)
    return found


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
