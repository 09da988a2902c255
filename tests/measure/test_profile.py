"""Time and work of each kernel call, beside what the machine can do at most."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.lowering import lowered
from tests.support.nets import graph_of
from vggc.analysis.report import report
from vggc.cli import cli
from vggc.compiler.targets import resolve
from vggc.ir.graph import Graph
from vggc.measure import profile as module
from vggc.measure import roofline as peaks
from vggc.measure.profile import Call, MachinePeaks, profile, useful_macs
from vggc.measure.roofline import arithmetic, bandwidth
from vggc.passes.fold import fold
from vggc.program import Program
from vggc.runtime.artifact import ArtifactEntry, KernelEntry, read_manifest, sound_manifest
from vggc.runtime.gpu_session import GpuSession
from vggc.runtime.session import Session
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision
from vggc.support.tensors import read_all

Make = Callable[..., Path]


def test_every_call_is_timed_and_weighed(tiny: Program, tiny_artifact: Make) -> None:
    folder = tiny_artifact(2)
    found = profile(folder, threads=1, rounds=3)
    manifest = sound_manifest(folder)
    assert [call.step for call in found.calls] == [entry.step for entry in manifest.largest.kernels]
    assert all(call.seconds > 0 and call.memory_share > 0 for call in found.calls)
    assert found.sum == sum(call.seconds for call in found.calls)
    by_layer = {call.layer: call for call in found.calls}
    assert sum(call.macs for call in found.calls) == 2 * report(tiny.graph).totals.macs
    conv = by_layer["conv1_1"]
    assert conv.macs == 2 * 16 * 16 * 8 * 27
    assert conv.compute_share == pytest.approx(
        2 * conv.real_macs / conv.seconds / found.limits.float32_flops
    )
    # fc3 reads 2×16×4×4 floats and its weights, and writes 2×24.
    weights = read_all(folder / "weights.safetensors")
    packed = weights["fc3.weight"].nbytes + weights["fc3.bias"].nbytes
    assert by_layer["fc3"].bytes == 4 * (2 * 16 * 4 * 4 + 2 * 24) + packed


def kernels(graph: Graph) -> tuple[KernelEntry, ...]:
    _, code = lowered(graph, 1, resolve("cpu"))
    pairs = code.calls["net"].steps
    return tuple(
        KernelEntry(
            step.layer, step.name, type(step.workload).__name__, kernel.algorithm, {}, "only"
        )
        for step, kernel in pairs
    )


@pytest.mark.parametrize(
    "body",
    [
        "conv3-8 norm=batch | conv3-8 act=leaky | pool | fc-10 | softmax",
        "conv3-8 | add(conv3-8 | conv3-8 act=none, skip) | relu | gap | fc-10",
        "concat(conv1-4, conv3-8 stride=1 | conv3-4) | lrn | conv3-6 groups=2 | flatten | fc-5",
    ],
)
def test_calls_ask_for_all_multiply_adds_of_the_net_together(
    body: str,
) -> None:
    graph = graph_of(body)
    macs = useful_macs(ArtifactEntry(1, (13, 11), kernels(graph)), fold(graph).graph)
    assert sum(macs) == report(graph).totals.macs
    heavy = {"Conv", "Dense"}
    for kernel, count in zip(kernels(graph), macs, strict=True):
        assert (count > 0) == (kernel.workload in heavy)


def test_real_arithmetic_is_what_the_kernel_states(
    tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_artifact()
    before = sound_manifest(folder)
    stated = tuple(
        replace(e, macs=7 if e.layer == "conv1_2" else 0) for e in before.largest.kernels
    )

    class Stated(module.Session):
        @classmethod
        def load(cls, folder: Path, threads: int | None = None) -> module.Session:
            session = super().load(folder, threads)
            entries = (replace(before.largest, kernels=stated),)
            return replace(session, manifest=replace(session.manifest, entries=entries))

    monkeypatch.setattr(module, "Session", Stated)
    found = {call.layer: call for call in profile(folder, threads=1, rounds=1).calls}
    assert found["conv1_2"].real_macs == 7 < found["conv1_2"].macs
    assert found["conv1_1"].real_macs == found["conv1_1"].macs


@pytest.mark.parametrize(
    ("algorithm", "peak"),
    [
        ("direct-uint8", 400),
        ("direct-bfloat16", 400),
        ("winograd2-bfloat16", 400),
        ("winograd4-int16", 200),
        ("columns-uint8", 100),
        ("columns-bfloat16", 100),
        ("grouped", 100),
        ("depthwise", 100),
        ("gemv-bfp20", 100),
    ],
)
def test_a_kernel_stands_beside_the_peak_of_what_it_multiplies_in(
    algorithm: str, peak: float
) -> None:
    entry = KernelEntry("a", "a", "Conv", algorithm, {}, "cost model", 10)
    assert module._peak(entry, MachinePeaks(400, 100, 1)) == peak


@pytest.mark.parametrize(
    ("compute", "memory", "bound"),
    [(0.9, 0.2, "compute"), (0.6, 1.8, "memory"), (0.3, 0.4, "overhead"), (0.5, 0.1, "compute")],
)
def test_a_call_is_bound_by_the_limit_that_it_is_nearer_to(
    compute: float, memory: float, bound: str
) -> None:
    assert Call("a", "a", "k", 1e-3, 10, 5, 20, compute, memory).bound == bound


def test_rates_count_two_flops_a_multiply_add() -> None:
    call = Call("a", "a", "k", 1e-3, 10_000, 4_000, 500, 0.0, 0.0)
    assert call.useful_flops == pytest.approx(2e7)
    assert call.real_flops == pytest.approx(8e6)
    assert call.bandwidth == pytest.approx(5e5)


def has(instruction: str) -> bool:
    return instruction in resolve("cpu").instructions


def loop_of(instruction: str, code: str) -> list[str]:
    """The instructions of the loop that holds `instruction`, the jump at its end among them."""
    lines = [line.strip() for line in code.splitlines()]
    first = next(index for index, line in enumerate(lines) if line.startswith(instruction))
    start = max(index for index in range(first) if re.fullmatch(r"\.LBB\w+:", lines[index]))
    back = re.compile(rf"j\w+\s+{re.escape(lines[start][:-1])}")
    end = next(index for index in range(first, len(lines)) if back.fullmatch(lines[index]))
    return [line for line in lines[start + 1 : end + 1] if not line.startswith((".", "#"))]


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled from here on, in assembly."""
    found: list[str] = []
    compile_ = peaks.tvm.compile

    def compiled(*arguments: object, **options: object) -> object:
        result = compile_(*arguments, **options)
        found.append(result.mod.inspect_source("asm"))
        return result

    monkeypatch.setattr(peaks.tvm, "compile", compiled)
    return found


@pytest.mark.parametrize(
    ("mcpu", "precision", "needed", "instruction", "register", "products"),
    [
        ("znver4", "float32", "avx512f", "vfmadd", "zmm", 16),
        ("znver4", "bfloat16", "avx512bf16", "vdpbf16ps", "zmm", 16 * 2),
        ("znver4", "int8", "avx512vnni", "vpdpbusd", "zmm", 16 * 4),
        ("haswell", "float32", "avx2", "vfmadd", "ymm", 8),
    ],
)
def test_a_turn_multiplies_in_many_registers_at_once_and_does_nothing_else(
    mcpu: str,
    precision: ArtifactPrecision,
    needed: str,
    instruction: str,
    register: str,
    products: int,
    listings: list[str],
) -> None:
    """As the code has it: no sum waits for another, none goes to memory, all are counted."""
    if not has(needed):
        pytest.skip(f"this CPU has no {needed}")
    one, two = (arithmetic(resolve("cpu", mcpu=mcpu), n, precision) for n in (1, 2))
    assert one.measure() > 0
    *body, counter, _ = sorted(
        loop_of(instruction, listings[0]),
        key=lambda line: (not line.startswith(instruction), line.startswith("j")),
    )
    operands = [re.fullmatch(rf"{instruction}\w*\s+(.*)", line)[1].split(", ") for line in body]
    assert all(re.fullmatch(rf"%{register}\d+", each) for line in operands for each in line)
    turns = Counter(line[-1] for line in operands)
    # Two units, four cycles or five until a sum can be added to.
    assert len(turns) >= 10
    assert not turns.keys() & {source for line in operands for source in line[:-1]}
    (unrolled,) = set(turns.values())
    step = re.fullmatch(r"(?:dec|addl\s+\$-(\d+),).*", counter)
    assert int(step[1] or 1) == unrolled
    assert one.amount == 2 * products * len(turns) * peaks.STEPS
    assert two.amount == 2 * one.amount


def test_a_peak_is_of_as_many_threads_as_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself TVM takes one thread for two processors of some machines."""
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    arithmetic(resolve("cpu"), 2, "float32")
    assert peaks.tvm.get_global_func("runtime.NumThreads")() == 2


def test_the_bandwidth_reads_far_more_than_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = bandwidth(resolve("cpu"), 1)
    assert 256 << 20 < peak.amount <= 512 << 20
    assert peak.measure() > 0


def test_the_command_shows_calls_limits_and_sums(tiny_artifact: Make) -> None:
    arguments = ["bench", str(tiny_artifact()), "--layers", "--rounds", "2", "--threads", "1"]
    text = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout
    assert all(name in text for name in ("conv1_1", "fc5", "softmax1", "useful GFLOP/s"))
    assert "This machine at its best, in the same rounds:" in text
    assert "Sum of the kernels" in text
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert result["limits"]["flops"] > 0
    assert result["layers"][0]["layer"] == "input"
    assert {layer["bound"] for layer in result["layers"]} <= {"compute", "memory", "overhead"}


@pytest.mark.parametrize("option", [["--against", "torch"], ["--calibrate", "images"]])
def test_layers_are_timed_without_other_engines(tiny_artifact: Make, option: list[str]) -> None:
    done = CliRunner().invoke(cli, ["bench", str(tiny_artifact()), "--layers", *option])
    assert done.exit_code == 2
    assert "--layers times no other engine" in done.stderr


def test_kernels_of_a_gpu_are_not_timed(
    tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_artifact()

    on_gpu = GpuSession(
        folder=folder,
        manifest=read_manifest(folder),
        threads=1,
        own_archs=(),
        device=None,
        machine=None,
        weights=(),
        calls={},
    )
    monkeypatch.setattr(Session, "load", lambda folder, threads: on_gpu)
    with pytest.raises(UserError) as caught:
        profile(folder, threads=1, rounds=1)
    assert str(caught.value) == (
        "error: `--layers` times CPUs only\n"
        f"  the artifact {folder} is for GPUs, whose kernels end some time after they are called\n"
        f"  help: use NVIDIA's profiler: `nsys profile vggc run {folder} --input FILE`"
    )
