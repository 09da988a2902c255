"""Workloads and choices drawn at random, each held to float64: what no list of cases thinks of.

Sizes are small, and mostly next to multiples of a vector's lanes; algorithm and knobs are any
that there is code for. As a program it goes through as many as one likes and tells what it
reached: `python -m tests.support.kernel_draws 3000 1 [--cpu haswell]`, for a count and a seed.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, TypeAlias, get_args

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray

from tests.support.workload_reference import (
    ACTIVATIONS,
    group_norm,
    grouped,
    layer_norm,
    pool,
    sides,
    weight_shapes,
)
from vggc.ir.ops import RELU, Activation, Border, Pair, Window, padded
from vggc.kernels.cpu import Machine, alternatives, kernel
from vggc.kernels.reference import reference
from vggc.kernels.workloads import (
    AvgPool,
    Choice,
    Conv,
    Dense,
    Format,
    Kernel,
    Lrn,
    Map,
    MaxPool,
    Pad,
    StochasticPool,
    Workload,
)

Array: TypeAlias = NDArray[np.float32]
Run: TypeAlias = Callable[..., Any]

TOLERANCE = 1e-6
"""Of plain sums, as a relative L2 error; algorithms that compute more state what they add."""

MAX_MACS, MAX_VALUES = 30_000_000, 3_000_000
MODULE, COMPILERS = 10, 2
"""Functions compiled together, and how many at a time: their code is made without Python."""

GUARD = 4096
"""Bytes of NaN on both sides of each buffer."""


@dataclass(frozen=True)
class Draw:
    """A workload and one way to carry it out."""

    workload: Workload
    kernel: Kernel
    error: float
    """What its algorithm adds, as it says itself."""
    seed: int


# Drawing


def draws(seed: int, count: int, machine: Machine) -> Iterator[Draw]:
    """Workloads in float32, each with any of its choices."""
    rng = random.Random(seed)
    for index in range(count):
        workload = draw_workload(rng, machine.lanes)
        found = alternatives(workload, machine)
        if not found:
            yield Draw(workload, kernel(workload, machine), 0.0, index)
            continue
        algorithm = rng.choice(found)
        choice = algorithm.choice(rng.choice(list(algorithm.knobs())))
        yield Draw(workload, kernel(workload, machine, choice), algorithm.error, index)


def draws_of_fewer_bits(seed: int, count: int, machine: Machine, form: Format) -> Iterator[Draw]:
    """Convolutions that multiply in `form`, each with any of its choices."""
    rng = random.Random(seed)
    drawn = 0
    while drawn < count:
        conv = rng.choice([draw_winograd, draw_conv])(rng, machine.lanes)
        if not isinstance(conv, Conv) or not small(conv):
            continue
        zeros = [rng.choice([0, 128]) if form == "uint8" else 0 for _ in range(2)]
        source = replace(conv.input, format=form, zero=zeros[0])
        out = conv.output
        if rng.random() < 0.6:
            out = replace(out, format=form, zero=zeros[1])
        work = replace(conv, input=source, output=out)
        algorithm = rng.choice(alternatives(work, machine))
        choice = algorithm.choice(rng.choice(list(algorithm.knobs())))
        yield Draw(work, kernel(work, machine, choice), algorithm.error, drawn)
        drawn += 1


def draw_workload(rng: random.Random, lanes: int) -> Workload:
    while True:
        kind = rng.choices(
            [
                *(draw_winograd, draw_conv, draw_grouped, draw_dense),
                *(draw_pool, draw_pad, draw_lrn, draw_norm),
            ],
            [33, 28, 12, 12, 9, 2, 2, 4],
        )[0]
        workload = kind(rng, lanes)
        if workload is not None and small(workload):
            return workload


def small(workload: Workload) -> bool:
    """Whether the reference takes a moment only."""
    sources, out = sides(workload)
    macs = prod(out.shape)
    if isinstance(workload, Conv | Dense):
        macs *= prod(workload.weight_shape[1:]) * (4 if getattr(workload, "pool", False) else 1)
    return macs <= MAX_MACS and all(prod(each.shape) <= MAX_VALUES for each in (*sources, out))


def channels(rng: random.Random, lanes: int) -> int:
    match rng.randrange(4):
        case 0:
            return rng.randint(1, 8)
        case 1 | 2:
            return max(1, lanes * rng.randint(1, 5) + rng.choice([-1, 0, 0, 1]))
        case _:
            return rng.randint(1, 300)


def extents(rng: random.Random) -> Pair:
    """Height and width."""
    largest = rng.choice([3, 8, 8, 16, 40])
    return rng.randint(1, largest), rng.randint(1, largest)


def batch(rng: random.Random) -> int:
    return rng.choice([1, 1, 2, 3, 5])


def activation(rng: random.Random) -> Activation | None:
    """Often one that is quickly compiled."""
    return rng.choice([None, RELU, rng.choice(list(ACTIVATIONS.values()))])


def draw_winograd(rng: random.Random, lanes: int) -> Workload | None:
    shape = (batch(rng), *extents(rng), channels(rng, lanes))
    padding = (rng.choice([0, 1, 1, 1, 2]), rng.choice([0, 1, 1, 1, 2]))
    outputs = channels(rng, lanes)
    return finished(rng, shape, outputs, 1, (3, 3), (1, 1), padding, dilated=False)


def draw_conv(rng: random.Random, lanes: int) -> Workload | None:
    kernel, stride, padding = window(rng)
    shape = (batch(rng), *extents(rng), channels(rng, lanes))
    return finished(rng, shape, channels(rng, lanes), 1, kernel, stride, padding)


def draw_grouped(rng: random.Random, lanes: int) -> Workload | None:
    kernel, stride, padding = window(rng)
    if rng.random() < 0.5:  # a group for each channel
        groups, inputs = channels(rng, lanes), 1
        outputs = rng.choice([1, 1, 2, 3])
    else:
        groups, inputs, outputs = rng.randint(2, 9), channels(rng, lanes), channels(rng, lanes)
    shape = (batch(rng), *extents(rng), groups * inputs)
    return finished(rng, shape, groups * outputs, groups, kernel, stride, padding)


def window(rng: random.Random) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and padding."""
    size, step = rng.randint(1, 11), rng.randint(1, 4)
    if rng.random() < 0.6:
        kernel, stride = (size, size), (step, step)
    else:
        kernel, stride = (size, rng.randint(1, 11)), (step, rng.randint(1, 4))
    tall, wide = kernel
    return kernel, stride, (rng.randint(0, ceil(tall / 2)), rng.randint(0, ceil(wide / 2)))


def finished(
    rng: random.Random,
    shape: tuple[int, int, int, int],
    outputs: int,
    groups: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    *,
    dilated: bool = True,
) -> Conv | None:
    """A convolution with halos, an activation and perhaps uneven padding, dilation and a pool; None
    where the kernel is too large for the map.
    """
    bottom, right = (
        rng.choice([side, rng.randint(0, size - 1)])
        for side, size in zip(padding, kernel, strict=True)
    )
    behind = bottom, right
    apart = (rng.randint(1, 3), rng.randint(1, 3)) if dilated else (1, 1)
    dilation = rng.choice([(1, 1), (1, 1), apart])
    extent = Window(kernel, dilation=dilation).extent
    room = padded(shape[1:3], (*padding, *behind))
    if any(k > n for k, n in zip(extent, room, strict=True)):
        return None
    halos = (max(padding) + rng.choice([0, 0, 1]), rng.choice([0, 0, 1, 2]))
    act = activation(rng)
    work = grouped(shape, outputs, groups, kernel, stride, padding, halos, act, dilation, behind)
    out = work.output
    rises = act is None or act.rises
    if rises and groups == 1 and min(work.grid) > 1 and rng.random() < 0.3:
        pooled = replace(out, height=out.height // 2, width=out.width // 2)
        work = replace(work, output=pooled, pool=True)
    return work


def draw_dense(rng: random.Random, lanes: int) -> Workload | None:
    images = rng.choice([1, 1, 1, 2, 3, 5, 8, 17, 40])
    act = activation(rng)
    outputs = rng.choice([channels(rng, lanes), rng.randint(1, 1100)])
    if rng.random() < 0.4:
        source = Map(images, rng.randint(1, 7), rng.randint(1, 7), channels(rng, lanes))
        return Dense(images, prod(source.shape[1:]), outputs, act, source)
    inputs = rng.choice([channels(rng, lanes), rng.randint(1, 5000)])
    return Dense(images, inputs, outputs, act)


def draw_pool(rng: random.Random, lanes: int) -> Workload | None:
    kind = rng.choice([MaxPool, AvgPool, StochasticPool])
    kernel, stride, _ = window(rng)
    if rng.random() < 0.4:
        kernel = stride = (2, 2)
    padding, behind = (
        (rng.randint(0, kernel[0] - 1), rng.randint(0, kernel[1] - 1)) for _ in range(2)
    )
    height, width = extents(rng)
    shape = (batch(rng), max(height, kernel[0]), max(width, kernel[1]), channels(rng, lanes))
    halos = (rng.choice([0, 1, 2]), rng.choice([0, 1, 2]))
    ceil, counts = rng.random() < 0.5, rng.random() < 0.5
    return pool(kind, shape, kernel, stride, padding, ceil, halos, behind, counts=counts)


def draw_pad(rng: random.Random, lanes: int) -> Workload | None:
    border = rng.choice(get_args(Border))
    size = extents(rng)
    most = {"reflect": [n - 1 for n in size], "wrap": [*size]}.get(border, [4, 4])
    top, left, bottom, right = (rng.randint(0, min(4, most[side % 2])) for side in range(4))
    source = Map(batch(rng), *size, channels(rng, lanes), rng.choice([0, 1, 2]))
    height, width = padded(size, (top, left, bottom, right))
    out = replace(source, height=height, width=width, halo=rng.choice([0, 1, 2]))
    return Pad(source, out, (top, left), border)


def draw_lrn(rng: random.Random, lanes: int) -> Workload | None:
    shape = (batch(rng), *extents(rng), channels(rng, lanes))
    maps = [Map(*shape, halo=rng.choice([0, 1, 2])) for _ in range(2)]
    beta = rng.choice([0.5, 0.6, 0.75, 1.0])
    return Lrn(maps[0], maps[1], rng.randint(1, 9), rng.uniform(1e-4, 0.5), beta, 2.0)


def draw_norm(rng: random.Random, lanes: int) -> Workload | None:
    count = channels(rng, lanes)
    shape = (batch(rng), *extents(rng), count)
    halos = (rng.choice([0, 1, 2]), rng.choice([0, 1, 2]))
    if rng.random() < 0.5:
        return layer_norm(shape, halos, activation(rng)) if count > 1 else None
    groups = rng.choice([each for each in range(1, count + 1) if count % each == 0])
    return group_norm(shape, groups, halos, activation(rng)) if prod(shape[1:]) > groups else None


# Checking


@dataclass(frozen=True)
class Case:
    """The arrays that a kernel takes, and what it must make of them."""

    inputs: tuple[NDArray[Any], ...]
    shape: tuple[int, ...]
    expected: NDArray[np.float64]
    size: float
    """The norm that errors are relative to."""
    tolerance: float


def case(draw: Draw) -> Case:
    """A draw with random inputs and weights."""
    rng = np.random.default_rng(draw.seed)
    workload, packing = draw.workload, draw.kernel.packing
    sources, out = sides(workload)
    # Only a convolution may read what is around a map.
    around = 0.0 if isinstance(workload, Conv) else np.nan
    inputs = [np.full(source.shape, around, np.float32) for source in sources]
    contents = [source.content(x) for source, x in zip(sources, inputs, strict=True)]
    for content in contents:
        content[...] = rng.standard_normal(content.shape)
        if draw.seed % 2:  # as behind a ReLU
            content[...] = np.maximum(content, 0)
    weights = [rng.standard_normal(shape, np.float32) for shape in weight_shapes(workload)]
    if weights:  # sums of about 1, where activations bend
        weights[0] /= np.float32(np.sqrt(prod(weights[0].shape[1:])))
    packed = [packing.pack(weights[0]), *weights[1:]] if packing else weights
    expected = reference(workload, contents, weights)
    size = np.linalg.norm(expected)
    if isinstance(workload, Conv | Dense):
        # Sums cancel, and behind ReLU they may all be zero. An error is judged beside what
        # sums of terms of such size and random sign are.
        squares = [[each.astype(float) ** 2 for each in some] for some in (contents, weights)]
        size += np.linalg.norm(np.sqrt(reference(replace(workload, act=None), *squares)))
    tolerance = TOLERANCE + 3 * draw.error
    return Case((*inputs, *packed), out.shape, expected, float(size), tolerance)


def check(run: Run, draw: Draw) -> float:
    """The content is right, the halo zero, no byte of the output left as it was, and none changed
    beside it. Returns the relative error.
    """
    made = case(draw)
    before = [each.tobytes() for each in made.inputs]
    stores = [guarded(each) for each in made.inputs]
    y_store = guarded(np.full(made.shape, np.nan, np.float32))

    run(*(tvm_ffi.from_dlpack(inner) for _, inner in (*stores, y_store)))

    for (store, inner), old in zip(stores, before, strict=True):
        assert inner.tobytes() == old, "it wrote to what it reads"
        assert untouched(store, inner), "it wrote beside what it reads"
    assert untouched(*y_store), "it wrote beside its output"
    return compare(y_store[1], draw, made)


def compare(result: Array, draw: Draw, made: Case) -> float:
    """The relative error of a result. Raises: AssertionError for a wrong one."""
    _, out = sides(draw.workload)
    content = out.content(result)
    assert content.shape == made.expected.shape
    error = float(np.linalg.norm(content - made.expected) / made.size)
    assert error <= made.tolerance, f"wrong by {error:.2g}"
    outside = result.copy()
    out.content(outside)[...] = 0
    assert not outside.any(), "the halo is not zero"
    return error


def guarded(array: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """A copy on a boundary of 64 bytes, inside a store of bytes that make NaN."""
    store = np.full(array.nbytes + 2 * GUARD + 64, 0xFF, np.uint8)
    first = GUARD + -(store.ctypes.data + GUARD) % 64
    inner = store[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    inner[...] = array
    return store, inner


def untouched(store: NDArray[np.uint8], inner: NDArray[Any]) -> bool:
    first = inner.ctypes.data - store.ctypes.data
    return bool((store[:first] == 0xFF).all() and (store[first + inner.nbytes :] == 0xFF).all())


def compiled(found: list[Draw], target: tvm.target.Target) -> Iterator[tuple[Draw, Run]]:
    """Each draw with its function."""

    def compile_some(first: int) -> list[tuple[Draw, Run]]:
        some = found[first : first + MODULE]
        named = {
            f"f{i}": each.kernel.func.with_attr("global_symbol", f"f{i}")
            for i, each in enumerate(some)
        }
        module = tvm.compile(tvm.IRModule(named), target=target)
        return [(each, module[f"f{i}"]) for i, each in enumerate(some)]

    with ThreadPoolExecutor(COMPILERS) as compilers:
        for some in compilers.map(compile_some, range(0, len(found), MODULE)):
            yield from some


def check_all(found: list[Draw], target: tvm.target.Target) -> dict[str, float]:
    """By algorithm the largest error. Raises: AssertionError that names the wrong draw."""
    worst: dict[str, float] = {}
    for each, run in compiled(found, target):
        name = each.kernel.algorithm
        try:
            worst[name] = max(worst.get(name, 0.0), check(run, each))
        except AssertionError as error:
            how = Choice(name, tuple(each.kernel.knobs.items()))
            raise AssertionError(f"{error}: {each.workload} by {how}, seed {each.seed}") from None
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--cpu", default=tvm.get_global_func("target.llvm_get_system_cpu")())
    arguments = parser.parse_args()
    target = tvm.target.Target({"kind": "llvm", "mcpu": arguments.cpu})
    start = time.perf_counter()
    found = list(draws(arguments.seed, arguments.count, Machine.of(target)))
    worst = check_all(found, target)
    reached = Counter(each.kernel.algorithm for each in found)
    told = {name: {"draws": reached[name], "largest error": worst[name]} for name in sorted(worst)}
    seconds = round(time.perf_counter() - start, 1)
    print(json.dumps({"cpu": arguments.cpu, "seconds": seconds, "algorithms": told}, indent=2))


if __name__ == "__main__":
    main()
