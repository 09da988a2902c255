"""An image gives the same bits in every batch, at every place in it, beside whatever else is there.

Every algorithm for CPUs says what its arithmetic depends on; where that is equal, bits are.
"""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray

from tests.support import low_precision_kernels as few
from tests.support.cpu_kernels import CONVS, HOST, conv
from tests.support.low_precision_kernels import LACKS, filled
from tests.support.workload_reference import (
    ELEMENTWISE,
    GROUPED,
    PLACES,
    POOLS,
    STOCHASTIC_POOLS,
    group_norm,
    layer_norm,
    pool,
)
from vggc.ir.ops import RELU, Activation
from vggc.kernels.cpu import ALGORITHMS, Machine, algorithms
from vggc.kernels.workloads import (
    AvgPool,
    Conv,
    Convert,
    Dense,
    Format,
    Kernel,
    Lrn,
    Map,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
    buffer_shape,
    storage,
)

Array = NDArray[Any]
BATCH = 16


def in_words(form: Format) -> dict[str, Workload]:
    """What is computed in fewer bits, by each algorithm."""
    zero = 128 if form == "uint8" else 0
    source = Map(1, 5, 6, 32, 1, form, zero)
    flat = Map(1, 2, 2, 64, 0, form)
    covering: dict[str, Any] = {"kernel": (2, 2), "padding": (0, 0), "out": (0, form, 0)}
    return {
        f"conv in {form}": few.conv(source, 36, out=(0, form, zero), act=None),
        f"conv from {form}": few.conv(Map(1, 4, 3, 8, 1, form), 20, act=Activation("silu")),
        f"dense in {form}": few.conv(flat, 64, **covering),
        f"from {form}": Convert(Map(1, 3, 3, 8, 0, form, zero), Map(1, 3, 3, 8, 1)),
    }


WORKLOADS: dict[str, Workload] = {
    "conv": conv((1, 5, 7, 6), 20, halos=(1, 1)),
    "conv of five taps": conv((1, 6, 7, 6), 20, kernel=5, halos=(2, 1)),
    "conv in pieces": conv((1, 1, 3, 1100), 17, kernel=1, act=None),
    "conv and an addend": CONVS["1×1 kernel and an addend"],
    "conv of weights that fill a cache": CONVS["weights that fill a cache"],
    "grouped": GROUPED["two groups"],
    "depthwise": GROUPED["depthwise of few channels"],
    "dense": Dense(1, 1103, 70, RELU),
    "mean by windows beyond the map": POOLS["mean 3×3, stride 2, padded"],
    "mean by windows": pool(AvgPool, (1, 5, 6, 20), (2, 2), (2, 2)),
    "mean of the whole map": POOLS["mean of the whole map"],
    "weighted mean by windows": STOCHASTIC_POOLS["weighted 2×2"],
    "places of groups": PLACES["places of groups"],
    "lrn": Lrn(Map(1, 3, 4, 40), Map(1, 3, 4, 40, halo=1), 5, 0.3, 0.75, 2.0),
    "group norm": group_norm((1, 5, 7, 70), 14, (1, 2), RELU),
    "layer norm": layer_norm((1, 3, 7, 37), (1, 2)),
    "soft-max": Softmax(1, 100),
    "to nhwc": ToNhwc(Map(1, 4, 5, 3, halo=1)),
    "to nchw": ToNchw(Map(1, 4, 5, 9, halo=1)),
    **{
        name: ELEMENTWISE[name]
        for name in (
            *("silu", "prelu", "concat", "add, relu", "mul by a vector, relu", "softmax2d"),
            *("pad", "shuffle", "take", "upsample, bilinear"),
        )
    },
}
IN_WORDS = in_words("bfloat16") | in_words("uint8")


def of_batch(value: Any, batch: int) -> Any:
    """A workload, or a map of one, for another number of images."""
    if isinstance(value, Map):
        return replace(value, batch=batch)
    if isinstance(value, tuple):
        return tuple(of_batch(each, batch) for each in value)
    if not isinstance(value, Workload):
        return value
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    changed = {name: of_batch(each, batch) for name, each in held.items()}
    return replace(value, **changed | ({"batch": batch} if "batch" in held else {}))


@dataclass(frozen=True)
class Case:
    """A kernel that computes `workload`, and what its arithmetic depends on."""

    workload: Workload
    made: Kernel
    arithmetic: str | None


def cases(work: Workload, machine: Machine) -> Iterator[Case]:
    """Of each algorithm the kernel of least cost for one image, and another one for many."""
    random = np.random.default_rng(0)
    for batch in (1, BATCH):
        now = of_batch(work, batch)
        for algorithm in algorithms(now, machine):
            knobs = min(algorithm.knobs(), key=algorithm.cost)
            if batch == BATCH:
                offered = list(algorithm.knobs())
                knobs = offered[random.integers(len(offered))]
            yield Case(now, algorithm.kernel(knobs), algorithm.arithmetic(knobs))


def inputs(work: Workload) -> list[Array]:
    """Images that differ, each with some zeros, which a kernel may leave out."""
    rng = np.random.default_rng(1)
    found = []
    for layout in work.inputs:
        if isinstance(layout, Map):
            found.append(filled(layout, rng))
        else:
            values = rng.standard_normal(buffer_shape(layout)).astype(np.float32)
            found.append(np.where(rng.random(values.shape) < 0.4, np.float32(0), values))
    return found


def weights(work: Workload) -> list[Array]:
    rng = np.random.default_rng(2)
    in_eight_bits = isinstance(work, Conv) and work.input.format == "uint8"
    found: list[Array] = []
    for name, shape in work.weights.items():
        if name == "weight" and in_eight_bits:
            found.append(rng.integers(-127, 128, shape).astype(np.int8))
        elif name in ("scale", "out_scale"):
            size = 2e-2 if name == "out_scale" else 1e-4
            found.append((size * rng.uniform(0.5, 1.5, shape)).astype(np.float32))
        else:
            found.append(rng.standard_normal(shape).astype(np.float32))
    return found


def images_of(run: Any, case: Case, first: int) -> list[bytes]:
    """What a kernel gives of the images from `first` on, each one's bytes."""
    count = buffer_shape(case.workload.output)[0]
    taken = [each[first : first + count] for each in inputs(of_batch(case.workload, BATCH))]
    own = weights(case.workload)
    if case.made.packing is not None:
        own[0] = case.made.packing.pack(own[0])
    y = np.full(buffer_shape(case.workload.output), 1, storage(case.workload.output))
    result = tvm.runtime.tensor(y)
    run(*(tvm.runtime.tensor(np.ascontiguousarray(each)) for each in (*taken, *own)), result)
    return [image.tobytes() for image in result.numpy()]


@pytest.mark.slow
def test_an_image_gives_the_same_bits_in_every_batch() -> None:
    """By every algorithm that there is for this machine."""
    target = tvm.target.Target(HOST)
    machine = Machine.of(target)
    works = WORKLOADS | ({} if LACKS else IN_WORDS)
    drawn = {name: list(cases(work, machine)) for name, work in works.items()}
    every = [case for each in drawn.values() for case in each]
    named = {
        f"f{i}": case.made.func.with_attr("global_symbol", f"f{i}") for i, case in enumerate(every)
    }
    library = tvm.compile(tvm.IRModule(named), target=target)
    functions = iter(named)
    for name, found in drawn.items():
        known: dict[tuple[str | None, int], bytes] = {}
        for case in found:
            run, batch = library[next(functions)], buffer_shape(case.workload.output)[0]
            for first in sorted({0, BATCH - batch}):
                for place, image in enumerate(images_of(run, case, first), first):
                    before = known.setdefault((case.arithmetic, place), image)
                    told = f"{name}, image {place}: {case.made.algorithm} {case.made.knobs}"
                    assert image == before, told


def test_each_algorithm_for_cpus_is_among_those_that_are_compared() -> None:
    machine = Machine.of(tvm.target.Target({"kind": "llvm", "mcpu": "cooperlake"}))
    works = WORKLOADS | IN_WORDS
    found = {type(each) for work in works.values() for each in algorithms(work, machine)}
    assert found == set(ALGORITHMS)
    assert all(
        algorithm.arithmetic(knobs) == algorithm.names[0]
        for work in works.values()
        for algorithm in algorithms(work, machine)
        for knobs in algorithm.knobs()
    )
