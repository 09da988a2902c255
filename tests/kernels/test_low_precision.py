"""The CPU kernels in bfloat16 and int8 against exact references, on shapes no tile divides."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm

from tests.support.low_precision_kernels import (
    HOST,
    LACKS,
    Few,
    check,
    conv,
    library,
    winograds,
)
from tests.support.workload_reference import ACTIVATIONS, pool
from vggc.ir.ops import RELU, Activation
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cpu import Machine, choices, kernel
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.columns import ColumnKnobs
from vggc.kernels.cpu.dot import DirectBfloat16, DirectUint8
from vggc.kernels.cpu.winograd_bf16 import Winograd2Bfloat16
from vggc.kernels.cpu.winograd_int16 import Winograd4Int16
from vggc.kernels.cpu.word_columns import ColumnsBfloat16, ColumnsUint8
from vggc.kernels.workloads import (
    MAX_INT8_TERMS,
    Conv,
    Convert,
    Format,
    Kernel,
    Map,
    MaxPool,
)

pytestmark = pytest.mark.skipif(bool(LACKS), reason=f"this CPU lacks {', '.join(LACKS)}")


# Samples


def convs(form: Format) -> dict[str, Conv]:
    """Odd shapes, every activation, every format of the output."""
    zeros = (0, 128) if form == "uint8" else (0, 0)
    low, signed = (1, form, zeros[0]), (2, form, zeros[1])

    def of(*shape: int, halo: int = 1, zero: int = 0) -> Map:
        return Map(*shape, halo, form, zero)

    found = {
        "first layer": conv(of(1, 30, 29, 3, zero=zeros[1]), 64, out=low),
        "one channel": conv(of(1, 9, 9, 1), 10, out=low),
        "odd extents": conv(of(1, 13, 17, 5), 33, out=signed, act=None),
        "batch of odd maps": conv(of(3, 7, 7, 9), 40, out=low),
        "1×1 maps": conv(of(1, 1, 1, 24), 64, out=low),
        "batch of 1×1 maps": conv(of(5, 1, 1, 22), 70),
        "1000 channels": conv(of(1, 3, 3, 4), 1000),
        "1×1 kernel": conv(of(2, 9, 9, 20, halo=0), 70, (1, 1), padding=(0, 0), out=low),
        "1×1 kernel in a halo": conv(of(1, 9, 9, 20), 16, (1, 1), padding=(0, 0)),
        "5×5 kernel": conv(of(1, 11, 8, 6, halo=2, zero=zeros[1]), 17, (5, 5), padding=(2, 2)),
        "no padding": conv(of(1, 9, 9, 6), 31, padding=(0, 0), out=low),
        "stride 2": conv(of(1, 15, 12, 6, zero=zeros[1]), 32, stride=(2, 2), out=low),
        "oblong": conv(of(2, 6, 11, 7, halo=2), 19, (3, 1), (2, 1), (1, 0), out=signed),
        "pooled": conv(of(1, 12, 10, 16), 32, out=low, pools=True),
        "pooled, the last row left out": conv(of(2, 7, 9, 5), 21, out=signed, pools=True, act=None),
        "dense": conv(of(1, 1, 1, 77, halo=0), 130, (1, 1), padding=(0, 0), act=None),
        "dense of a batch": conv(of(5, 1, 1, 77, halo=0), 130, (1, 1), padding=(0, 0), out=low),
        "dense of a map": conv(of(2, 3, 5, 10, halo=0), 70, (3, 5), padding=(0, 0)),
        "long reductions": conv(of(1, 4, 3, 1200), 20, out=low),
    }
    for name, act in ACTIVATIONS.items():
        found[name] = conv(of(2, 5, 6, 7), 19, act=act, out=signed)
    return found


def draws(form: Format, seed: int, count: int) -> Iterator[Conv]:
    """Convolutions of random shapes and options."""
    rng = random.Random(seed)
    size = rng.randint
    for _ in range(count):
        kernel, stride = (size(1, 4), size(1, 4)), (size(1, 3), size(1, 3))
        extents = [size(max(1, k - 2), 12) for k in kernel]
        least = [max(0, -(-(k - n) // 2)) for k, n in zip(kernel, extents, strict=True)]
        padding = (size(least[0], 2), size(least[1], 2))
        zero = rng.choice([0, 128]) if form == "uint8" else 0
        halo = max(padding) + size(0, 1)
        source = Map(size(1, 3), *extents, size(1, 40), halo, form, zero)
        act = rng.choice([None, RELU, rng.choice(list(ACTIVATIONS.values()))])
        formats: list[Format] = ["float32", form]
        target = rng.choice(formats)
        out = (size(0, 2), target, rng.choice([0, 128]) if target == "uint8" else 0)
        grid = conv(source, 1, kernel, stride, padding).output
        rises = act is None or act.rises
        pools = min(grid.height, grid.width) > 1 and rises and rng.random() < 0.3
        yield conv(source, size(1, 90), kernel, stride, padding, act, out, pools)


def conversions() -> dict[str, Convert]:
    """To and from float32."""
    found = {}
    for form, zero in (("bfloat16", 0), ("uint8", 0), ("uint8", 128)):
        for channels in (3, 32):
            few = Map(2, 5, 7, channels, 1, form, zero)  # type: ignore[arg-type]
            full = Map(2, 5, 7, channels, 2)
            found[f"{channels} to {form} around {zero}"] = Convert(full, few)
            found[f"{channels} from {form} around {zero}"] = Convert(few, full)
    return found


def pools() -> dict[str, MaxPool]:
    """Small windows and large ones, of both formats."""
    found = {}
    for form, zero in (("bfloat16", 0), ("uint8", 0), ("uint8", 128)):
        for name, arguments in {
            "2×2": ((2, 8, 6, 20), (2, 2), (2, 2)),
            "3×3, padded": ((1, 9, 8, 37), (3, 3), (2, 2), (1, 1)),
            "6×5": ((1, 9, 13, 3), (6, 5), (5, 4), (2, 1), True),
        }.items():
            plain = pool(MaxPool, *arguments, halos=(1, 2))  # type: ignore[arg-type]
            assert isinstance(plain, MaxPool)
            maps = [
                replace(m, format=form, zero=zero)
                for m in (plain.input, plain.output)  # type: ignore[arg-type]
            ]
            found[f"pool {name} of {form} around {zero}"] = replace(
                plain, input=maps[0], output=maps[1]
            )
    return found


WORKLOADS: dict[str, Few] = {
    **{f"{name}, bfloat16": work for name, work in convs("bfloat16").items()},
    **{f"{name}, int8": work for name, work in convs("uint8").items()},
    **{f"draw {i}, bfloat16": work for i, work in enumerate(draws("bfloat16", 0, 10))},
    **{f"draw {i}, int8": work for i, work in enumerate(draws("uint8", 1, 10))},
    **{f"F(2×2), {name}, bfloat16": work for name, work in winograds("bfloat16").items()},
    **{f"F(4×4), {name}, int8": work for name, work in winograds("uint8").items()},
    **conversions(),
    **pools(),
}


# Running them


def made_of(work: Few) -> Kernel:
    """The kernel of a workload; Winograd wherever it applies."""
    machine = Machine.of(HOST)
    for algorithm in (Winograd2Bfloat16, Winograd4Int16):
        if isinstance(work, Conv) and algorithm.applies(work):
            chosen = algorithm(work, machine)
            return chosen.kernel(min(chosen.knobs(), key=chosen.cost))
    return kernel(work, machine)


@pytest.fixture(scope="module")
def compiled() -> Callable[[str], tuple[Any, Kernel]]:
    kernels = {name: made_of(work) for name, work in WORKLOADS.items()}
    run = library(list(kernels.values()))
    found = {name: (run(i), each) for i, (name, each) in enumerate(kernels.items())}
    return found.__getitem__


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_kernel_computes_its_workload(
    name: str, compiled: Callable[[str], tuple[Any, Kernel]]
) -> None:
    run, made = compiled(name)
    check(run, WORKLOADS[name], made)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
def test_random_shapes_and_options(form: Format) -> None:
    works = list(draws(form, 2, 100))
    kernels = [made_of(work) for work in works]
    run = library(kernels)
    for index, (work, made) in enumerate(zip(works, kernels, strict=True)):
        check(run(index), work, made, seed=index)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("batch of odd maps, bfloat16", DirectBfloat16),
        ("pooled, int8", DirectUint8),
        ("F(2×2), to float32, bfloat16", Winograd2Bfloat16),
        ("F(2×2), pooled, bfloat16", Winograd2Bfloat16),
        ("F(4×4), to float32, int8", Winograd4Int16),
        ("F(4×4), odd extents, int8", Winograd4Int16),
        ("F(4×4), pooled, int8", Winograd4Int16),
    ],
)
def test_every_tile_computes_the_same(name: str, algorithm: type[CpuAlgorithm[Any, Any]]) -> None:
    chosen = algorithm(WORKLOADS[name], Machine.of(HOST))
    knobs = list(chosen.knobs())
    sample = np.random.default_rng(0).choice(len(knobs), 8, replace=False)
    kernels = [chosen.kernel(knobs[index]) for index in sample]
    run = library(kernels)
    for index, made in enumerate(kernels):
        check(run(index), WORKLOADS[name], made)


def test_the_largest_sum_of_integers_is_exact() -> None:
    """As many terms as may be, each as large as can be, all of one sign."""
    channels = MAX_INT8_TERMS // 4 * 4
    work = conv(Map(1, 1, 1, channels, 0, "uint8"), 16, (1, 1), padding=(0, 0), act=None)
    made = kernel(work, Machine.of(HOST))
    assert made.packing is not None
    x = np.full(work.input.shape, 255, np.uint8)
    signs = np.where(np.arange(16) % 2, 1, -1).astype(np.int8)
    weight = np.broadcast_to(127 * signs[:, None, None, None], work.weight_shape)
    one, nothing = np.ones(16, np.float32), np.zeros(16, np.float32)
    y = tvm.runtime.tensor(np.zeros(work.output.shape, np.float32))
    arguments = [x, made.packing.pack(weight.astype(np.int8)), one, nothing]
    library([made])(0)(*map(tvm.runtime.tensor, arguments), y)
    np.testing.assert_array_equal(y.numpy().ravel(), np.float32(255 * 127 * channels) * signs)


@pytest.mark.parametrize(
    ("form", "instruction"), [("bfloat16", "vdpbf16ps"), ("uint8", "vpdpbusd")]
)
def test_the_machine_code_holds_the_instruction(form: Format, instruction: str) -> None:
    made = kernel(convs(form)["odd extents"], Machine.of(HOST))
    module = tvm.IRModule({"f": made.func.with_attr("global_symbol", "f")})
    code = tvm.compile(module, target=HOST).mod.inspect_source("asm")
    tile = made.knobs
    products = tile["images"] * tile["rows"] * tile["columns"] * tile["vectors"]
    assert code.count(f"\t{instruction}\t") >= products
    assert "vggc_dot" not in code  # inlined, not called


def test_what_is_no_number_stays_none_in_bfloat16() -> None:
    values = np.float32([np.nan, -np.nan, np.inf, -np.inf, 3.4e38, 1e-40, -0.0, 1 + 2**-8])
    values = np.append(values, np.uint32([0x7F800001, 0xFFFFFFFF]).view(np.float32))
    work = Convert(Map(1, 1, 1, values.size), Map(1, 1, 1, values.size, 0, "bfloat16"))
    y = tvm.runtime.tensor(np.zeros(work.output.shape, np.uint16))
    library([kernel(work, Machine.of(HOST))])(0)(
        tvm.runtime.tensor(values.reshape(work.input.shape)), y
    )
    expected = np.where(np.isnan(values), np.nan, from_bfloat16(to_bfloat16(values)))
    np.testing.assert_array_equal(from_bfloat16(y.numpy().ravel()), expected)


@pytest.mark.parametrize("work", [*convs("bfloat16").values(), *convs("uint8").values()])
def test_unpacking_gives_the_weight_back(work: Conv) -> None:
    packing = kernel(work, Machine.of(HOST)).packing
    assert packing is not None
    weight = np.random.default_rng(0).integers(-127, 128, work.weight_shape).astype(np.int8)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packing.unpack(packed), weight)


@pytest.mark.parametrize("work", winograds("bfloat16").values())
def test_transformed_weights_come_back_to_the_rounding_of_bfloat16(work: Conv) -> None:
    packing = made_of(work).packing
    assert packing is not None
    weight = np.random.default_rng(0).standard_normal(work.weight_shape, np.float32)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.dtype == np.uint16
    back = packing.unpack(packed)
    assert np.linalg.norm(back - weight) < 3e-3 * np.linalg.norm(weight)


def test_large_maps_of_many_channels_are_for_winograd_and_others_are_not() -> None:
    machine = Machine.of(HOST)
    for form, winograd in (("bfloat16", "winograd2-bfloat16"), ("uint8", "winograd4-int16")):
        many, few = (
            conv(Map(1, 56, 56, channels, 1, form), 128, out=(1, form, 0))  # type: ignore[arg-type]
            for channels in (128, 24)
        )
        assert kernel(many, machine).algorithm == winograd
        assert kernel(few, machine).algorithm == f"direct-{form}"


# Columns


LISTED = {"bfloat16": ColumnsBfloat16, "uint8": ColumnsUint8}


def listed(form: Format) -> list[Conv]:
    """Dense layers that may leave out what is multiplied by zero."""
    low = (0, form, 0)
    signed = (0, form, 128 if form == "uint8" else 0)
    return [
        conv(Map(1, 1, 1, 76, 0, form), 132, (1, 1), padding=(0, 0), act=None),
        conv(Map(5, 1, 1, 1032, 0, form), 260, (1, 1), padding=(0, 0), out=low),
        conv(Map(2, 7, 5, 36, 0, form), 72, (7, 5), padding=(0, 0), out=signed, act=None),
        conv(Map(3, 1, 1, 4, 0, form), 1000, (1, 1), padding=(0, 0), act=Activation("silu")),
    ]


@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
def test_every_tile_of_listed_columns_computes_the_same(form: Format) -> None:
    machine = Machine.of(HOST)
    works = listed(form)
    made = [
        (work, listing.kernel(knobs))
        for work in works
        for listing in [LISTED[form](work, machine)]
        for knobs in listing.knobs()
    ]
    assert len(made) > 20
    run = library([each for _, each in made])
    for index, (work, each) in enumerate(made):
        check(run(index), work, each, index)


def test_what_cannot_leave_out_zeros_does_not() -> None:
    """Another number that stands for zero, padded channels, or a kernel that moves."""
    machine = Machine.of(HOST)
    dense = Map(1, 1, 1, 76, 0, "uint8")
    assert ColumnsUint8.applies(conv(dense, 132, (1, 1), padding=(0, 0)))
    for source in (replace(dense, zero=128), replace(dense, channels=77), replace(dense, width=2)):
        work = conv(source, 132, (1, 1), padding=(0, 0))
        assert not ColumnsUint8.applies(work)
        assert all(each.algorithm == "direct-uint8" for each in choices(work, machine))


@pytest.mark.parametrize(("form", "batch"), [("bfloat16", 1), ("bfloat16", 4), ("uint8", 1)])
def test_weights_that_come_from_memory_are_listed(form: Format, batch: int) -> None:
    machine = replace(Machine.of(HOST), cores=2)
    fc6 = conv(Map(batch, 7, 7, 512, 0, form), 4096, (7, 7), padding=(0, 0), out=(0, form, 0))
    assert choices(fc6, machine)[0].algorithm == f"columns-{form}"


@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
def test_words_of_columns_are_unpacked(form: Format) -> None:
    rng = np.random.default_rng(0)
    for work in listed(form):
        weight = rng.integers(-127, 128, work.weight_shape)
        weight = weight.astype(np.float32 if form == "bfloat16" else np.int8)
        made = LISTED[form](work, Machine.of(HOST)).kernel(ColumnKnobs(1, 4))
        assert made.packing is not None
        packed = made.packing.pack(weight)
        assert packed.shape == made.packing.packed_shape
        assert made.packing.unpack(packed).tobytes() == weight.tobytes()
