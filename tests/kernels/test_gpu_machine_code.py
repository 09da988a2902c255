"""What NVIDIA's compiler makes of the kernels of VGG-16 in float16: read from it, without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cuda_on_cpu import Launch, generate_all
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
from tests.support.vgg16_on_gpus import BATCHES, OTHERS, Chosen, kernels
from vggc.compiler.cards import card_for
from vggc.kernels.cuda.card import Card
from vggc.support.precision import ArtifactPrecision


@dataclass(frozen=True)
class Vgg16:
    """The kernels of VGG-16 at each batch size by names, and what the compiler made of them."""

    card: Card
    chosen: dict[str, Chosen]
    launches: dict[str, Launch]
    cubin: bytes
    taken: dict[str, KernelResources]


@pytest.fixture(scope="module", params=["sm_90", "sm_90a"])
def made(request: pytest.FixtureRequest) -> Vgg16:
    """For an architecture: on sm_90 at batch 8, on sm_90a at each batch size those that run on no
    other.
    """
    arch: str = request.param
    card = card_for((arch,))
    only = None if arch == "sm_90" else arch
    works = kernels("float16", card, (8,) if only is None else BATCHES)
    kept = {name: each for name, each in works.items() if each.algorithm.only_on == only}
    found = {name: each.algorithm.kernel(each.knobs) for name, each in kept.items()}
    codes = generate_all({name: kernel.func for name, kernel in found.items()}, arch)
    launches = {name: launch for name, code in codes.items() for launch in code.launches}
    cubin, taken = compiled(next(iter(codes.values())).source, arch)
    resources = {name: taken[launch.name] for name, launch in launches.items()}
    return Vgg16(card, kept, launches, cubin, resources)


@pytest.mark.slow
@needs_compilers
def test_nothing_is_spilled(made: Vgg16) -> None:
    assert made.chosen
    assert {name for name, each in made.taken.items() if each.spilled or each.stack} == set()


@pytest.mark.slow
@needs_compilers
def test_the_model_knows_how_many_blocks_there_is_room_for(made: Vgg16) -> None:
    """A multiprocessor has room for as many blocks as the cost model thinks, or more."""
    for name, each in made.chosen.items():
        if each.algorithm.name == "gemv_segments":
            continue
        launch, work, card = made.launches[name], each.algorithm.work(each.knobs), made.card
        registers = -(-made.taken[name].registers // 8) * 8
        room = min(
            card.shared // (launch.shared + 1024), card.registers // (registers * launch.threads)
        )
        assert room >= max(1, work.resident(card)), name
        assert work.shared == launch.shared, name


@pytest.fixture(scope="module")
def listings(
    made: Vgg16, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each kernel."""
    listing = instructions(made.cubin, tmp_path_factory.mktemp("cubin"))
    codes = {name: listing[launch.name] for name, launch in made.launches.items()}
    for name, each in made.chosen.items():
        multiplies = any(is_product(instruction) for instruction, _ in codes[name])
        assert multiplies == (each.algorithm.name != "gemv_segments"), name
    return codes


@pytest.mark.slow
@needs_compilers
@pytest.mark.skipif(disassembler() is None, reason="no nvdisasm")
def test_nothing_is_read_before_the_kernel_before_has_ended(
    made: Vgg16, listings: dict[str, list[tuple[str, str]]]
) -> None:
    """Nor is what it wrote read as memory that nobody writes."""
    for name, code in listings.items():
        names = [instruction for instruction, _ in code]
        waits = names.index("ACQBULK") if "ACQBULK" in names else 0
        assert waits or made.card.arch != "sm_90a", name
        before = [each for each in names[:waits] if each.startswith(("LDG", "STG", "ATOM", "RED"))]
        assert before == [], name
        if made.card.arch == "sm_90a":
            assert not any("CONSTANT" in each for each in names), name


@pytest.mark.slow
@needs_compilers
@pytest.mark.skipif(disassembler() is None, reason="no nvdisasm")
def test_main_loops_are_mostly_products(
    made: Vgg16, listings: dict[str, list[tuple[str, str]]]
) -> None:
    """Of the instructions of patches of 256 pixels and steps of 64 channels more than 85 % multiply
    or bring what is multiplied, of windows 70 %. Warpgroups multiply beside their other
    instructions, whose issue takes less than half of the clocks of the products of 64 columns, and
    less than a fifth of those of more.
    """
    shares: dict[str, list[float]] = {"mma": [], "mma_patches": []}
    issues: dict[int, list[float]] = {64: [], 128: [], 256: []}
    for name, each in made.chosen.items():
        if each.algorithm.name not in ("wgmma_patches", *shares):
            continue
        loop, tile = main_loop(listings[name]), each.knobs.tile(each.algorithm.operands)
        if each.algorithm.name == "wgmma_patches":
            issues[tile.cols].append(issued(loop, tile.cols))
        elif (tile.rows, tile.depth) == (256, 64):
            shares[each.algorithm.name].append(sum(map(feeds_products, loop)) / len(loop))
    assert min(shares["mma_patches"], default=1) > 0.85
    assert min(shares["mma"], default=1) > 0.7
    assert max(issues[64], default=0) < 0.45
    assert max(issues[128] + issues[256], default=0) < 0.2
    assert any(shares.values()) or any(issues.values())


def issued(loop: list[str], cols: int) -> float:
    """The clocks in which a quarter of a multiprocessor issues the instructions of a loop of
    warpgroups, of those in which its tensor core multiplies.

    A quarter issues one a clock, for one warp of each warpgroup, and multiplies 512 halves with
    sums in float32: 16 rows and 16 halves of `cols` columns an instruction.
    """
    clocks = sum(map(is_product, loop)) * 16 * 16 * cols / 512
    return len(loop) / clocks


FORMATS: dict[ArtifactPrecision, str] = {
    "float32": "HMMA.1688.F32.TF32",
    "tf32": "HMMA.1688.F32.TF32",
    "int8": "IMMA.16832.U8.S8",
}


@pytest.mark.slow
@needs_compilers
@pytest.mark.skipif(disassembler() is None, reason="no nvdisasm")
def test_other_precisions_are_multiplied_by_their_instructions(tmp_path: Path) -> None:
    """Of VGG-16 at batch 8 the second convolution and one of the widest; nothing is spilled."""
    found = {
        f"{precision}_{name}": (FORMATS[precision], each.algorithm.kernel(each.knobs))
        for precision in FORMATS
        for name, each in kernels(precision, card_for(OTHERS), (8,)).items()
        if name in ("batch8_conv1_2", "batch8_conv4_3")
    }
    codes = generate_all({name: made.func for name, (_, made) in found.items()}, "sm_90")
    cubin, taken = compiled(next(iter(codes.values())).source, "sm_90")
    listing = instructions(cubin, tmp_path)
    assert {name for name, each in taken.items() if each.spilled or each.stack} == set()
    for name, (instruction, _) in found.items():
        products = {each for each, _ in listing[f"{name}_kernel"] if is_product(each)}
        assert products == {instruction}, name


def test_the_listing_of_instructions_is_read(tmp_path: Path) -> None:
    code = [(".L_x_1", ""), ("LDSM.16", ""), ("HMMA.16816.F32", ""), ("BRA", " `(.L_x_1)")]
    assert main_loop(code) == ["LDSM.16", "HMMA.16816.F32", "BRA"]
    assert main_loop([("HMMA.16816.F32", "")]) == []
