"""The same algorithms on the CPUs that this machine is not: AVX2 runs here, aarch64 under qemu."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import tvm

from tests.support import aarch64
from tests.support.cpu_kernels import AVX2, CONVS, DENSES, OTHERS, conv
from tests.support.kernel_draws import Draw, case, compare, draws
from tests.support.listings import newer_than_avx2
from tests.support.workload_reference import POOLS
from vggc.api.trained import from_spec
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import resolve
from vggc.kernels.cpu import Machine, algorithms, columns, kernel
from vggc.kernels.cpu.block_float import FORMATS
from vggc.kernels.workloads import Kernel, Workload
from vggc.measure.verify import verify
from vggc.program import load
from vggc.runtime.artifact import read_manifest
from vggc_runtime.native import prefix_of

MAP = conv((2, 9, 7, 5), 13, halos=(1, 1))
VARIANTS: dict[str, Workload] = {
    "3×3": MAP,
    "3×3, pooled": replace(MAP, output=replace(MAP.output, height=4, width=3), pool=True),
    "first layer": CONVS["first layer"],
    "5×5, stride 2": CONVS["5×5 kernel, stride 2"],
    "1×1": CONVS["1×1 kernel"],
    "dense": DENSES["map"],
    "dense, batch": DENSES["batch"],
    "lrn": OTHERS["lrn"],
    "soft-max": OTHERS["soft-max of 10"],
    "max": POOLS["max 3×3, stride 2, padded"],
    "mean": POOLS["mean of the whole map"],
}


def cheapest(workload: Workload, machine: Machine) -> Iterator[Kernel]:
    """The workload by each of its algorithms."""
    for algorithm in algorithms(workload, machine):
        yield algorithm.kernel(min(algorithm.knobs(), key=algorithm.cost))


def artifact(folder: Path, target: Any) -> Path:
    """vgg_tiny_cifar for a target."""
    program = load("vgg_tiny_cifar")
    subject = from_spec(program, None, seed=0)
    job = Job(
        program.net,
        program.graph,
        target,
        (1,),
        subject.weights,
        subject.weights_from,
        subject.preprocessing,
        subject.classes,
    )
    build_artifact(job, folder)
    return folder


# AVX2


@pytest.mark.parametrize(
    "name",
    [
        *("direct", "winograd2", "winograd4", "winograd6", "gemm", "gemv"),
        *("gemm-bfp24", "gemv-bfp24", "gemm-bfp20", "gemv-bfp20"),
    ],
)
def test_code_for_avx2_multiplies_in_its_registers_and_uses_nothing_newer(name: str) -> None:
    target = tvm.target.Target(AVX2)
    machine = Machine.of(target)
    work: Workload = conv((1, 28, 28, 64), 64, halos=(1, 1))
    if name.startswith("gem"):
        work = replace(DENSES["odd features"], batch=1 if name.startswith("gemv") else 5)
    (algorithm,) = (each for each in algorithms(work, machine) if each.name == name)
    knobs = min(algorithm.knobs(), key=algorithm.cost)
    module = tvm.IRModule({"f": algorithm.kernel(knobs).func.with_attr("global_symbol", "f")})
    code = tvm.compile(module, target=target).mod.inspect_source("asm")
    tile = ("images", "rows", "columns", "vectors", "streams")
    sums = prod(getattr(knobs, each, 1) for each in tile)
    if form := next((form for form in FORMATS if name.endswith(f"bfp{form.bits}")), None):
        # Its sums are in the cache, so many columns meet in a register.
        sums = knobs.rows * form.group * columns.COLUMNS_AT_ONCE
    assert sums > 4
    assert len(re.findall(r"\tvfmadd\w+ps\t.*%ymm", code)) >= sums
    assert not newer_than_avx2(code)


def test_the_listing_of_a_newer_cpu_is_seen_to_be_newer() -> None:
    target = tvm.target.Target({"kind": "llvm", "mcpu": "znver4"})
    func = kernel(MAP, Machine.of(target)).func.with_attr("global_symbol", "f")
    code = tvm.compile(tvm.IRModule({"f": func}), target=target).mod.inspect_source("asm")
    assert newer_than_avx2(code)


def test_a_net_compiled_for_avx2_computes_the_same(tmp_path: Path) -> None:
    target = resolve("cpu", mcpu="haswell")
    assert "avx2" in target.instructions
    assert not any(each.startswith("avx512") for each in target.instructions)
    folder = artifact(tmp_path / "artifact", target)
    assert all(each.passed for each in verify(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["target"]["attrs"]["mcpu"] == "haswell"


# aarch64


needs_aarch64 = pytest.mark.skipif(
    bool(aarch64.MISSING), reason=f"{' and '.join(aarch64.MISSING)} not installed"
)


def drawn_on_aarch64(found: list[Draw], folder: Path) -> aarch64.Program:
    """A program that has computed what it should for each of `found`."""
    program = aarch64.program([each.kernel.func for each in found], folder)
    for index, each in enumerate(found):
        made = case(each)
        compare(program.call(index, made.inputs, made.shape), each, made)
    return program


@needs_aarch64
def test_every_algorithm_runs_on_aarch64_and_multiplies_in_vectors(tmp_path: Path) -> None:
    machine = Machine.of(tvm.target.Target(aarch64.TARGET))
    assert machine.lanes == 4
    error = {
        algorithm.name: algorithm.error
        for work in VARIANTS.values()
        for algorithm in algorithms(work, machine)
    }
    found = [
        Draw(work, made, error.get(made.algorithm, 0.0), seed)
        for seed, work in enumerate(VARIANTS.values())
        for made in cheapest(work, machine)
    ]
    assert {each.kernel.algorithm for each in found} >= {
        "direct",
        "winograd2",
        "winograd4",
        "winograd6",
        "gemv",
        "gemm",
        "gemv-bfp20",
        "gemm-bfp20",
        "gemv-bfp24",
        "gemm-bfp24",
        "window",
    }
    program = drawn_on_aarch64(found, tmp_path)
    assert len(re.findall(r"\tfmla\tv\d+\.4s", program.code)) > 4 * len(found)


@pytest.mark.slow
@needs_aarch64
def test_draws_compute_what_they_should_on_aarch64(tmp_path: Path) -> None:
    machine = Machine.of(tvm.target.Target(aarch64.TARGET))
    drawn_on_aarch64(list(draws(3, 60, machine)), tmp_path)


@needs_aarch64
def test_an_artifact_for_aarch64_can_be_loaded_there(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "artifact", resolve("raspberry-pi/4b-aarch64"))
    header = (folder / "lib.so").read_bytes()[:20]
    aarch64_machine = (0xB7).to_bytes(2, "little")
    assert header.startswith(b"\x7fELF")
    assert header[18:] == aarch64_machine
    name = prefix_of(read_manifest(folder).net)
    aarch64.loads(folder / "lib.so", [f"{name}_open", f"{name}_run"], tmp_path)
