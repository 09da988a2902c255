"""What NVIDIA's compiler makes of the kernels of VGG-16 in float16: read from it, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.cuda_on_cpu import CudaCode, generate_all
from tests.support.device import needs_compilers
from tests.support.machine_code import (
    KernelResources,
    compiled,
    disassembler,
    feeds_products,
    instructions,
    is_product,
    main_loop,
)
from vggc.compiler.cards import card_for
from vggc.compiler.device_code import DEFAULT_ARCHS
from vggc.compiler.targets import resolve
from vggc.kernels.cuda import AnyCudaAlgorithm, algorithms
from vggc.kernels.workloads import Conv
from vggc.program import load
from vggc.runtime.plans import plan_for

ARCH = "sm_90"
BATCHES = (1, 8, 32)
CARD = card_for(DEFAULT_ARCHS)


def chosen(conv: Conv) -> tuple[AnyCudaAlgorithm, object]:
    """The algorithm of least cost for a convolution, with its knobs."""
    offers = ((each, knobs) for each in algorithms(conv, CARD) for knobs in each.knobs())
    return min(offers, key=lambda offer: offer[0].cost(offer[1]))


@cache
def vgg16() -> dict[str, tuple[Conv, AnyCudaAlgorithm, object]]:
    """Each different convolution and dense layer at each batch size, by a name."""
    graph, target = load("vgg16").graph, resolve("cuda", DEFAULT_ARCHS)
    works = {
        step.workload: f"batch{batch}_{step.layer.replace('.', '_')}"
        for batch in BATCHES
        for step in plan_for(graph, batch, target, "float16").steps
        if isinstance(step.workload, Conv)
    }
    return {name: (work, *chosen(work)) for work, name in works.items()}


@pytest.fixture(scope="module")
def codes() -> dict[str, CudaCode]:
    made = {name: algorithm.kernel(knobs) for name, (_, algorithm, knobs) in vgg16().items()}
    return generate_all({name: kernel.func for name, kernel in made.items()}, ARCH)


@pytest.fixture(scope="module")
def machine_code(codes: dict[str, CudaCode]) -> tuple[bytes, dict[str, KernelResources]]:
    return compiled(next(iter(codes.values())).source, ARCH)


@pytest.fixture(scope="module")
def taken(machine_code: tuple[bytes, dict[str, KernelResources]]) -> dict[str, KernelResources]:
    return machine_code[1]


@pytest.mark.slow
@needs_compilers
def test_nothing_is_spilled(taken: dict[str, KernelResources]) -> None:
    assert len(taken) == len(vgg16())
    assert {name for name, each in taken.items() if each.spilled or each.stack} == set()


@pytest.mark.slow
@needs_compilers
def test_the_model_knows_how_many_blocks_there_is_room_for(
    codes: dict[str, CudaCode], taken: dict[str, KernelResources]
) -> None:
    """A multiprocessor has room for as many blocks as the cost model thinks, or more."""
    for name, (_, algorithm, knobs) in vgg16().items():
        if algorithm.name == "gemv_segments":
            continue
        (launch,) = codes[name].launches
        work = algorithm.work(knobs)
        registers = -(-taken[launch.name].registers // 8) * 8
        room = min(
            CARD.shared // (launch.shared + 1024), CARD.registers // (registers * launch.threads)
        )
        assert room >= max(1, work.resident(CARD)), name
        assert work.shared == launch.shared, name


@pytest.fixture(scope="module")
def loops(
    machine_code: tuple[bytes, dict[str, KernelResources]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], list[str]]:
    cubin, _ = machine_code
    listing = instructions(cubin, tmp_path_factory.mktemp("cubin"))
    for name, (_, algorithm, _) in vgg16().items():
        multiplies = any(is_product(each) for each, _ in listing[f"{name}_kernel"])
        assert multiplies == (algorithm.name != "gemv_segments"), name
    return lambda name: main_loop(listing[f"{name}_kernel"])


@pytest.mark.slow
@needs_compilers
@pytest.mark.skipif(disassembler() is None, reason="no nvdisasm")
def test_main_loops_are_mostly_products(loops: Callable[[str], list[str]]) -> None:
    """Of the instructions of patches of 256 pixels and steps of 64 channels more than four fifths
    multiply or bring what is multiplied, of windows two thirds.
    """
    shares: dict[str, list[float]] = {"mma": [], "mma_patches": []}
    for name, (_, algorithm, knobs) in vgg16().items():
        if algorithm.name not in shares:
            continue
        loop = loops(name)
        tile = knobs.tile(algorithm.operands)  # type: ignore[attr-defined]
        if (tile.rows, tile.depth) == (256, 64):
            shares[algorithm.name].append(sum(map(feeds_products, loop)) / len(loop))
    assert min(shares["mma_patches"], default=1) > 0.8
    assert min(shares["mma"], default=1) > 0.66
    assert shares["mma_patches"] + shares["mma"]


def test_the_listing_of_instructions_is_read(tmp_path: Path) -> None:
    code = [(".L_x_1", ""), ("LDSM.16", ""), ("HMMA.16816.F32", ""), ("BRA", " `(.L_x_1)")]
    assert main_loop(code) == ["LDSM.16", "HMMA.16816.F32", "BRA"]
    assert main_loop([("HMMA.16816.F32", "")]) == []
