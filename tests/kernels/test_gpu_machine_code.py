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
    loops,
    main_loop,
)
from tests.support.tensor_core_kernels import TensorDraw, conv
from tests.support.vgg16_on_gpus import BATCHES, OTHERS, Chosen, kernels
from vggc.compiler.cards import card_for
from vggc.kernels.cuda.card import Card
from vggc.kernels.cuda.mma import MmaKnobs, MmaWindows
from vggc.kernels.cuda.mma_patches import MmaPatches, PatchKnobs
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
    assert {name for name, each in made.taken.items() if each.serialized} == set()


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
def test_warpgroups_issue_their_instructions_beside_products(
    made: Vgg16, listings: dict[str, list[tuple[str, str]]]
) -> None:
    """Warpgroups multiply beside their other instructions, whose issue takes less than half of the
    clocks of the products of 64 or 96 columns, and less than a fifth of those of more; where they
    multiply an image, a loop holds results, too.
    """
    issues: dict[int, list[float]] = {64: [], 96: [], 128: [], 256: []}
    for name, each in made.chosen.items():
        if each.algorithm.name == "wgmma_patches" and each.knobs.planes > 1:
            issues[each.knobs.cols].append(issued(main_loop(listings[name]), each.knobs.cols))
    assert max(issues[64] + issues[96], default=0) < 0.45
    assert max(issues[128] + issues[256], default=0) < 0.2
    assert any(issues.values()) == (made.card.arch == "sm_90a")


def issued(loop: list[str], cols: int) -> float:
    """The clocks in which a quarter of a multiprocessor issues the instructions of a loop of
    warpgroups, of those in which its tensor core multiplies.

    A quarter issues one a clock, for one warp of each warpgroup, and multiplies 512 halves with
    sums in float32: 16 rows and 16 halves of `cols` columns an instruction.
    """
    clocks = sum(map(is_product, loop)) * 16 * 16 * cols / 512
    return len(loop) / clocks


LARGE: dict[str, TensorDraw] = {
    "patches 256x128": TensorDraw(
        MmaPatches(conv((1, 32, 32, 128), 128)), PatchKnobs(16, 16, 128, 64, 64, 64, 3, 1)
    ),
    "patches 128x128 in four stages": TensorDraw(
        MmaPatches(conv((1, 32, 32, 128), 128)), PatchKnobs(16, 8, 128, 64, 64, 64, 4, 1)
    ),
    "windows 256x128": TensorDraw(
        MmaWindows(conv((1, 32, 32, 128), 128)), MmaKnobs(256, 128, 64, 64, 64, 3, 1, 128)
    ),
    "windows 128x128 in int8": TensorDraw(
        MmaWindows(conv((1, 32, 32, 256), 128, form="uint8")),
        MmaKnobs(128, 128, 64, 64, 128, 3, 1, 128),
    ),
}
"""Large tiles, in steps of 128 bytes."""


@pytest.mark.slow
@needs_compilers
@pytest.mark.skipif(disassembler() is None, reason="no nvdisasm")
def test_main_loops_of_large_tiles_are_products_and_their_operands(tmp_path: Path) -> None:
    """More than nine tenths of the instructions, the copies of the next patch among them."""
    names = {f"tile{index}": name for index, name in enumerate(LARGE)}
    made = {short: LARGE[name].kernel().func for short, name in names.items()}
    cubin, taken = compiled(next(iter(generate_all(made, "sm_90").values())).source, "sm_90")
    assert not any(each.spilled for each in taken.values())
    listing = instructions(cubin, tmp_path)
    for short, name in names.items():
        code = listing[f"{short}_kernel"]
        inner, outer = main_loop(code), max(loops(code), key=len)
        turns = 3 if "patches" in name else 1
        issue = outer + (turns - 1) * inner
        assert sum(map(feeds_products, inner)) > 0.91 * len(inner), name
        assert sum(map(feeds_products, issue)) > 0.89 * len(issue), name


FORMATS: dict[tuple[str, ArtifactPrecision], set[str]] = {
    ("sm_90", "float32"): {"HMMA.1688.F32.TF32"},
    ("sm_90", "tf32"): {"HMMA.1688.F32.TF32"},
    ("sm_90", "int8"): {"IMMA.16832.U8.S8"},
    ("sm_90a", "tf32"): {"HGMMA.64x128x8.F32.TF32", "HGMMA.64x64x8.F32.TF32"},
    ("sm_90a", "int8"): {"IGMMA.64x128x32.U8.S8", "IGMMA.64x64x32.U8.S8"},
}
"""The instructions that multiply other formats, for an architecture."""
LAYERS = {
    "sm_90": ("batch8_conv4_3",),
    "sm_90a": ("batch8_conv3_1", "batch8_conv3_3", "batch1_conv4_2"),
}
"""For an architecture, kernels of VGG-16: that of one of the widest convolutions; by warpgroups a
large one with and one without a pool, and one whose tiles blocks share.
"""


@pytest.mark.slow
@needs_compilers
@pytest.mark.skipif(disassembler() is None, reason="no nvdisasm")
@pytest.mark.parametrize("arch", LAYERS)
def test_other_precisions_are_multiplied_by_their_instructions(arch: str, tmp_path: Path) -> None:
    """Nothing is spilled, and no product of warpgroups waits for another."""
    only, card = (None, card_for(OTHERS)) if arch == "sm_90" else (arch, card_for((arch,)))
    found = {
        f"{precision}_{name}": (expected, each.algorithm.kernel(each.knobs))
        for (of, precision), expected in FORMATS.items()
        if of == arch
        for name, each in kernels(precision, card, (1, 8)).items()
        if name in LAYERS[arch] and each.algorithm.only_on == only
    }
    codes = generate_all({name: made.func for name, (_, made) in found.items()}, arch)
    cubin, taken = compiled(next(iter(codes.values())).source, arch)
    listing = instructions(cubin, tmp_path)
    assert {name for name, each in taken.items() if each.spilled or each.stack} == set()
    assert {name for name, each in taken.items() if each.serialized} == set()
    for name, (expected, _) in found.items():
        products = {each for each, _ in listing[f"{name}_kernel"] if is_product(each)}
        assert products, name
        assert products <= expected, name


def test_the_listing_of_instructions_is_read(tmp_path: Path) -> None:
    code = [(".L_x_1", ""), ("LDSM.16", ""), ("HMMA.16816.F32", ""), ("BRA", " `(.L_x_1)")]
    assert main_loop(code) == ["LDSM.16", "HMMA.16816.F32", "BRA"]
    assert main_loop([("HMMA.16816.F32", "")]) == []
