"""An artifact with kernels for Hopper's GPUs alone, and others for older ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.nets import program
from vggc.api.trained import from_spec
from vggc.compiler.pipeline import Job, Pages, StageName, build_artifact
from vggc.compiler.targets import resolve
from vggc.kernels.cuda import A100, H200, Card, algorithms
from vggc.kernels.cuda.wgmma import WgmmaPatches
from vggc.kernels.workloads import Choice, Conv, Packing, Workload

NET = """
net small
input 3x8x8

  conv3-64 ×2 | pool
| fc-10 | softmax
"""
ARCHS = ("sm_80", "sm_90a")
BATCHES = (1, 2)


def by_warpgroups(workload: Workload, max_error: float) -> Choice | None:
    """Kernels for Hopper's GPUs for convolutions that have some, as if they were measured to be the
    fastest.
    """
    if isinstance(workload, Conv) and workload.output.height > 1:
        for algorithm in algorithms(workload, H200):
            if isinstance(algorithm, WgmmaPatches):
                return algorithm.choice(min(algorithm.knobs(), key=algorithm.cost))
    return None


def by_warps(workload: Workload, max_error: float) -> Choice | None:
    """Kernels for older GPUs that want weights packed otherwise than those for Hopper's."""
    theirs = by_warpgroups(workload, max_error)
    if theirs is None:
        return None
    packing = packing_of(workload, theirs, H200)
    return next(
        algorithm.choice(knobs)
        for algorithm in algorithms(workload, A100)
        for knobs in algorithm.knobs()
        if algorithm.packing(knobs) != packing
    )


def forced(
    choice_of: Callable[[Workload, float], Choice | None],
) -> Callable[[Workload, float], dict[Choice, float]]:
    """What was measured where it was of these choices alone."""

    def times_of(workload: Workload, max_error: float) -> dict[Choice, float]:
        choice = choice_of(workload, max_error)
        return {choice: 1.0} if choice else {}

    return times_of


def packing_of(workload: Workload, choice: Choice, card: Card) -> Packing | None:
    """How a choice wants the weight of its workload packed."""
    return next(
        algorithm.packing(knobs)
        for algorithm in algorithms(workload, card)
        for knobs in algorithm.knobs()
        if algorithm.choice(knobs) == choice
    )


def compile_variants(folder: Path) -> str:
    """Writes the artifact in float16, and gives the CUDA C++ of its kernels."""
    net = program(NET)
    subject = from_spec(net, None, seed=0)
    job = Job(
        net=net.net,
        graph=net.graph,
        target=replace(resolve("cuda", ARCHS), graphs=True),
        batches=BATCHES,
        weights=subject.weights,
        weights_from=subject.weights_from,
        preprocessing=subject.preprocessing,
        classes=(),
        precision="float16",
        times_of={"": forced(by_warps), "sm_90a": forced(by_warpgroups)},
    )
    shown: dict[str, str] = {}

    def watch(stage: StageName, seconds: float, pages: Callable[[], Pages]) -> None:
        if stage == "generate":
            shown.update(pages())

    build_artifact(job, folder, watch)
    return shown["kernels.cu"]
