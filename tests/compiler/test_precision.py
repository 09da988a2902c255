"""Nets in bf16 and int8: their plans, their weights, calibration, all of it end to end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "2")

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support.nets import TINY, graph_of, program
from vggc.api.trained import from_spec
from vggc.cli import cli
from vggc.compiler.calibrate import (
    BINS,
    CalibrationImages,
    Histogram,
    calibrate,
    choose_images,
    read_images,
    spread,
)
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.quantize import (
    LARGEST,
    ValueRange,
    averaged,
    converted_weights,
    levels,
    require_finite_weights,
    scaled,
)
from vggc.compiler.targets import PRECISION_NEEDS, require_precision, resolve
from vggc.ir.graph import Graph
from vggc.ir.weights import digest, save, seeded
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cuda.packing import restored, stored
from vggc.kernels.workloads import (
    LARGEST_FINITE,
    MAX_INT8_TERMS,
    STORAGE,
    Add,
    AvgPool,
    Conv,
    Convert,
    Dense,
    Format,
    Lrn,
    Map,
    MaxPool,
    Softmax,
    ToNhwc,
    buffer_shape,
    storage,
)
from vggc.measure.verify import LIMITS, verify
from vggc.passes.fold import fold
from vggc.plan.low_precision import in_format, scale_name
from vggc.plan.plan import INPUT, Plan, plan
from vggc.program import Program, load, zoo
from vggc.runtime import cpu_info as processor
from vggc.runtime.artifact import read_manifest
from vggc.runtime.plans import FORMATS, plan_for
from vggc.runtime.session import Session
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision

FEWER: tuple[ArtifactPrecision, ...] = ("bfloat16", "int8")
LACKING = [name for name, *_ in PRECISION_NEEDS.values() if name not in resolve("cpu").instructions]
runs_here = pytest.mark.skipif(bool(LACKING), reason=f"this CPU lacks {', '.join(LACKING)}")


# Plans


def plan_in(graph: Graph, form: Format, *, fuse_pools: bool = True) -> Plan:
    return in_format(plan(graph, 2, fuse_pools=fuse_pools), form)


def kinds(calls: Plan) -> list[type]:
    return [type(step.workload) for step in calls.steps]


@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
def test_a_chain_is_converted_once_and_multiplied_throughout(form: Format) -> None:
    calls = plan_in(load("vgg16").graph, form)
    assert kinds(calls) == [ToNhwc, Convert, *[Conv] * 16, Softmax]
    convs = [step.workload for step in calls.steps if isinstance(step.workload, Conv)]
    assert {conv.input.format for conv in convs} == {form}
    assert [conv.output.format for conv in convs] == [form] * 15 + ["float32"]


def test_pools_between_convolutions_are_computed_as_they_are_stored() -> None:
    calls = plan_in(load("vgg11").graph, "uint8", fuse_pools=False)
    pools = [step.workload for step in calls.steps if isinstance(step.workload, MaxPool)]
    assert len(pools) == 5
    assert all(pool.input.format == pool.output.format == "uint8" for pool in pools)


@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
def test_what_has_no_kernel_in_fewer_bits_is_float32_between_conversions(form: Format) -> None:
    calls = plan_in(graph_of("conv3-8 | lrn | conv3-6 groups=2 | conv1-4 | avgpool | fc-10"), form)
    steps = calls.steps
    of_kind = {type(step.workload): step.workload for step in steps}
    lrn, mean = of_kind[Lrn], of_kind[AvgPool]
    assert isinstance(lrn, Lrn)
    assert isinstance(mean, AvgPool)
    assert {lrn.input.format, lrn.output.format, mean.input.format} == {"float32"}
    grouped = [s.workload for s in steps if isinstance(s.workload, Conv) and s.workload.groups > 1]
    assert [conv.input.format for conv in grouped] == ["float32"]
    converted = [step.name for step in steps if isinstance(step.workload, Convert)]
    assert converted == ["input", "conv1_2.relu", "pool1"]


def test_on_gpus_int8_is_kept_in_whole_segments_where_it_is_multiplied_or_pooled() -> None:
    graph = graph_of("conv3-8 | pool3 stride=1 padding=1 | conv3-6 | add(conv1-6, conv3-6) | fc-10")
    calls = plan_for(graph, 2, resolve("cuda", ["sm_80"]), "int8")
    low = [s.workload for s in calls.steps if getattr(s.output, "format", None) == "uint8"]
    assert [type(each) for each in low] == [Convert, Conv, MaxPool, Conv, Convert]
    assert all(each.output.shape[-1] == 16 for each in low)  # type: ignore[union-attr]
    of_kind = [step.workload for step in calls.steps if isinstance(step.workload, Add)]
    assert [each.output.format for each in of_kind] == ["float32"]


def test_a_value_is_converted_once_for_all_who_multiply_it() -> None:
    text = "net two input 3x9x9  conv3-8 | add(conv3-8, conv1-8) | gap | fc-3"
    calls = plan_in(program(text).graph, "uint8")
    assert [s.name for s in calls.steps if isinstance(s.workload, Convert)].count("input") == 1
    names = [step.name for step in calls.steps if isinstance(step.workload, Convert)]
    assert len(names) == len(set(names))


def test_heads_and_what_reads_them_is_float32() -> None:
    text = "net heads input 3x8x8  a: conv3-4 | conv3-4 | gap | fc-3\nhead map: @a"
    calls = plan_in(program(text).graph, "bfloat16")
    for output in calls.outputs:
        assert storage(calls.steps[output.step].output) == "float32"


def test_int8_stands_for_zero_by_128_only_where_a_value_may_be_negative() -> None:
    body = "conv3-8 | conv3-8 act=none | conv3-8 act=leaky | conv3-8 act=sigmoid | fc-5"
    calls = plan_in(graph_of(body), "uint8")
    zeros = [step.output.zero for step in calls.steps if isinstance(step.output, Map)]
    formats = [step.output.format for step in calls.steps if isinstance(step.output, Map)]
    assert formats == ["float32"] + ["uint8"] * 5 + ["float32"]
    assert zeros == [0, 128, 0, 128, 128, 0, 0]


def test_sums_too_long_for_an_int32_stay_float32() -> None:
    graph = program("net long input 16384x5x1  fc-4 | fc-3").graph
    assert MAX_INT8_TERMS < 16384 * 5
    assert kinds(plan_in(graph, "uint8")) == [ToNhwc, Dense, Convert, Conv]
    assert kinds(plan_in(graph, "bfloat16")) == [ToNhwc, Convert, Conv, Conv]


@pytest.mark.parametrize("fuse_pools", [False, True])
@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
@pytest.mark.parametrize("net", zoo())
def test_every_net_of_the_zoo_has_a_plan_whose_buffers_fit(
    net: str, form: Format, fuse_pools: bool
) -> None:
    """What a step reads has the size and the type that its producer wrote. Filters of one channel
    each, as normalisations are that nothing before them takes in, multiply in float32.
    """
    graph = load(net).graph
    calls = plan_in(graph, form, fuse_pools=fuse_pools)
    for step in calls.steps:
        shapes = [buffer_shape(each) for each in step.workload.inputs]
        maps = getattr(step.workload, "inputs", (getattr(step.workload, "input", None),))
        for read, shape, map_ in zip(step.reads, shapes, maps, strict=True):
            if read == INPUT:
                continue
            layout = calls.steps[read].output
            assert np.prod(buffer_shape(layout)) == np.prod(shape)
            assert storage(layout) == (map_.storage if isinstance(map_, Map) else "float32")
    products = [s.workload for s in calls.steps if isinstance(s.workload, Conv | Dense)]
    sums = [w for w in products if isinstance(w, Dense) or w.groups < w.input.channels]
    lowered = [w for w in sums if isinstance(w, Conv) and w.input.format == form]
    assert len(lowered) > 0.9 * len(sums)
    taken = {name for step in plan(graph, 2).steps for name in step.weights}
    assert taken <= set(calls.weights)


def test_float32_leaves_a_plan_as_it_is() -> None:
    calls = plan(load("vgg11").graph, 1)
    assert in_format(calls, "float32") is calls


# Weights


def ranges_of(
    calls: Plan, graph: Graph, limit: float = 2.0, mean: float = 0.0
) -> dict[str, ValueRange]:
    channels = {node.name: node.shape[0] for node in graph.nodes}
    names = scaled(calls).keys() | averaged(calls)
    return {name: ValueRange(limit, np.full(channels[name], mean)) for name in names}


def test_int8_weights_are_the_float_ones_to_half_a_step_of_their_channel() -> None:
    graph = fold(graph_of("conv3-8 | conv3-5 | fc-7")).graph
    weights = seeded(graph, 0)
    weights["conv1_1.weight"][3] = 0.0
    calls = plan_in(graph, "uint8")
    found = converted_weights(calls, weights, ranges_of(calls, graph))
    for step in calls.steps:
        if isinstance(step.workload, Conv):
            name = step.weights[0]
            scale = float(found[scale_name(calls, step.reads[0])][0])
            factor = found[name.replace("weight", "rescale")][:, None, None, None] / scale
            wanted = weights[name].reshape(found[name].shape)
            assert found[name].dtype == np.int8
            assert np.abs(found[name]).max() == LARGEST
            assert (np.abs(found[name] * factor - wanted) <= 0.5001 * factor).all()
    assert set(found) == set(calls.weights)


@pytest.mark.parametrize(
    ("form", "name", "value", "told"),
    [
        ("float16", "conv1_1.weight", -7e4, "70,000, and float16 holds up to 65,504"),
        ("float16", "fc1.weight", 7e4, "70,000, and float16 holds up to 65,504"),
        ("bfloat16", "fc1.weight", 3.4e38, "3.4e+38, and bfloat16 holds up to 3.389531e+38"),
        ("tf32", "fc1.weight", 3.402e38, "3.402e+38, and tf32 holds up to 3.401162e+38"),
        ("float16", "conv1_1.bias", np.inf, "inf, and float32 holds up to 3.402823e+38"),
        ("uint8", "conv1_1.weight", np.nan, "nan, and float32 holds up to 3.402823e+38"),
    ],
)
def test_a_weight_that_its_format_holds_as_infinity_is_refused(
    form: Format, name: str, value: float, told: str
) -> None:
    graph = fold(graph_of("conv3-8 | fc-7")).graph
    weights, calls = seeded(graph, 0), plan_in(graph, form)
    require_finite_weights(calls, weights)
    weights[name].flat[3] = value
    with pytest.raises(UserError) as caught:
        require_finite_weights(calls, weights)
    assert f"the weight `{name}` is too large for" in str(caught.value)
    assert f"its largest value is {told}" in str(caught.value)
    other = "`--precision bfloat16` or `--precision tf32`"
    assert (other in str(caught.value)) == ("and float16" in told)


@pytest.mark.parametrize("form", ["float16", "bfloat16", "tf32"])
def test_the_largest_number_of_a_format_is_held_as_itself(form: Format) -> None:
    graph = fold(graph_of("fc-7")).graph
    weights, calls = seeded(graph, 0), plan_in(graph, form)
    largest = np.float32(LARGEST_FINITE[form])
    weights["fc1.weight"].flat[3] = largest
    require_finite_weights(calls, weights)
    assert restored(form, stored(form, weights["fc1.weight"])).max() == largest
    # With half of the last bit more it would be infinite.
    beyond = np.float32([LARGEST_FINITE[form] * (1 + 2.0 ** (-8 if form == "bfloat16" else -11))])
    with np.errstate(over="ignore"):
        assert np.isinf(restored(form, stored(form, beyond))).all()


def test_biases_and_weights_in_groups_are_float32_in_any_format() -> None:
    graph = fold(graph_of("conv3-6 | conv3-6 groups=3 | fc-7")).graph
    weights = seeded(graph, 0)
    for name in ("conv1_1.bias", "conv1_2.weight", "fc1.bias"):
        weights[name].flat[3] = 1e6
    require_finite_weights(plan_in(graph, "float16"), weights)


def test_the_bias_takes_back_what_the_zero_of_the_input_adds() -> None:
    graph = fold(graph_of("conv1-4 act=none", "2x3x3")).graph
    weights = seeded(graph, 1)
    calls = plan_in(graph, "uint8")
    found = converted_weights(calls, weights, ranges_of(calls, graph))
    sums = 128 * found["conv1_1.weight"].astype(float).sum((1, 2, 3))
    constant = sums * found["conv1_1.rescale"] + found["conv1_1.bias"]
    np.testing.assert_allclose(constant, weights["conv1_1.bias"], atol=1e-6)


def test_the_bias_takes_back_what_rounding_weights_adds_to_the_mean() -> None:
    graph = fold(graph_of("conv1-4", "2x3x3")).graph
    weights = seeded(graph, 1)
    calls = plan_in(graph, "uint8")
    plain, shifted = (
        converted_weights(calls, weights, ranges_of(calls, graph, mean=mean)) for mean in (0.0, 3.0)
    )
    scale = float(plain["input.scale"][0])
    rounded = plain["conv1_1.weight"] * (plain["conv1_1.rescale"] / scale)[:, None, None, None]
    shift = 3.0 * (rounded - weights["conv1_1.weight"]).sum((1, 2, 3))
    np.testing.assert_allclose(plain["conv1_1.bias"] - shifted["conv1_1.bias"], shift, atol=1e-6)
    assert np.abs(shift).max() > 1e-3


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    x = np.float32([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, 3.3895e38])
    assert from_bfloat16(to_bfloat16(x)).tolist() == [
        *(1, 1, 1 + 2**-6, 1 + 2**-7, -0.0),
        from_bfloat16(np.uint16([0x7F7F]))[0],
    ]
    noise = np.random.default_rng(0).standard_normal(1000, np.float32)
    assert (np.abs(from_bfloat16(to_bfloat16(noise)) - noise) <= np.abs(noise) * 2**-8).all()


def test_the_digest_knows_names_shapes_and_bits() -> None:
    weights = {"a": np.float32([1, 2]), "b": np.float32([[3, 4]])}
    others = [
        {"a": weights["b"], "b": weights["a"]},
        {**weights, "b": np.float32([3, 4])},
        {**weights, "a": np.float32([1, np.nextafter(np.float32(2), 3)])},
        {"a": weights["a"]},
    ]
    assert digest(dict(reversed(weights.items()))) == digest(weights)
    assert digest(weights) not in [digest(other) for other in others]


# Calibration


def test_a_histogram_keeps_every_element_however_its_limit_grows() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(1000).astype(np.float32) * 4**k for k in range(4)]
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    histogram.add(np.zeros(10, np.float32))
    assert histogram.counts is not None
    assert histogram.counts.sum() == 4000
    sizes = np.abs(np.concatenate(parts))
    assert sizes.max() <= histogram.limit < 2 * sizes.max()
    middles = (np.arange(BINS) + 0.5) * histogram.limit / BINS
    mean = (histogram.counts @ middles) / 4000
    assert mean == pytest.approx(sizes.mean(), rel=0.02)


def test_a_range_ends_where_the_squared_error_is_least() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.uniform(0, 1, 50_000), rng.standard_normal(50_000) ** 3):
        sizes = np.abs(values).astype(np.float32)
        histogram = Histogram()
        histogram.add(sizes)
        for steps in (7, 127):
            found = histogram.cut(steps)

            def error(cut: float, steps: int = steps, sizes: np.ndarray = sizes) -> float:
                scale = cut / steps
                return float(
                    ((np.minimum(np.rint(sizes / scale), steps) * scale - sizes) ** 2).sum()
                )

            least = min(error(share * sizes.max()) for share in np.linspace(0.05, 1, 200))
            assert error(found) <= 1.02 * least
        assert histogram.cut(7) < 0.6 * sizes.max() or sizes.max() < 1
    assert Histogram().cut(255) == 0.0


def test_a_value_that_is_always_zero_has_a_scale(tmp_path: Path) -> None:
    graph = fold(graph_of("conv3-4 | conv3-4 | fc-2")).graph
    weights = {name: np.zeros_like(w) for name, w in seeded(graph, 0).items()}
    calls = plan_in(graph, "uint8")
    ranges = calibrate(graph, weights, calls, [np.zeros((1, 3, 13, 11), np.float32)])
    found = converted_weights(calls, weights, ranges)
    assert all(np.isfinite(tensor).all() for tensor in found.values())
    assert all(tensor > 0 for name, tensor in found.items() if name.endswith(".scale"))


def test_ranges_and_means_are_those_of_the_net_on_the_images() -> None:
    graph = fold(graph_of("conv3-4 act=none | conv1-2 | fc-2")).graph
    weights = seeded(graph, 0)
    calls = plan_in(graph, "uint8")
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((1, 3, 13, 11)).astype(np.float32) for _ in range(3)]
    ranges = calibrate(graph, weights, calls, images)
    assert set(ranges) == {"input", "conv1_1", "conv1_2.relu"}
    seen = np.concatenate(images)
    np.testing.assert_allclose(ranges["input"].means, seen.mean((0, 2, 3), float), rtol=1e-6)
    assert 0.5 * np.abs(seen).max() < ranges["input"].limit <= np.abs(seen).max()


def test_scales_reach_the_limit_of_the_range() -> None:
    graph = fold(graph_of("conv3-4 | conv3-4 | fc-2")).graph
    calls = plan_in(graph, "uint8")
    found = converted_weights(calls, seeded(graph, 0), ranges_of(calls, graph, limit=3.0))
    assert {name: levels(map_) for name, map_ in scaled(calls).items()} == {
        "input": 127,
        "conv1_1.relu": 255,
        "conv1_2.relu": 255,
    }
    assert found["input.scale"] == pytest.approx(3 / 127)
    assert found["conv1_1.relu.scale"] == pytest.approx(3 / 255)


def test_a_value_behind_any_number_of_pools_has_the_scale_of_the_one_before_them() -> None:
    graph = graph_of("conv3-4 | pool3 stride=1 padding=1 ×1500 | conv3-4 | fc-2")
    calls = plan_in(graph, "uint8")
    (*_, last_pool) = (i for i, s in enumerate(calls.steps) if isinstance(s.workload, MaxPool))
    assert scale_name(calls, last_pool) == "conv1_1.relu.scale"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 12 smooth random photographs in folders of classes."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for index in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        path = folder / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((24, 24), Image.Resampling.BICUBIC).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


def chosen(folder: Path, tiny: Program, count: int = 99) -> CalibrationImages:
    return choose_images(folder, count, from_spec(tiny, None, 0).preprocessing)


def test_images_are_taken_from_everywhere_in_a_folder(images: Path, tiny: Program) -> None:
    files = chosen(images, tiny).files
    assert len(files) == 12
    assert list(files) == sorted(files)
    three = chosen(images, tiny, 3).files
    assert {path.parent.name for path in three} == {"class0", "class1", "class2"}
    assert spread("abc", 50) == ("a", "b", "c")


def test_images_that_cannot_be_used_are_named_and_others_take_their_place(
    images: Path, tiny: Program
) -> None:
    whole = (images / "class0/0.png").read_bytes()
    (images / "class0/0.png").write_bytes(whole[: len(whole) // 2])
    (images / "class1/0.heic").touch()
    for hidden in ("class0/._1.png", "class0/.thumbnails/1.png", "__MACOSX/1.png"):
        (images / hidden).parent.mkdir(exist_ok=True)
        (images / hidden).write_bytes(b"?")
    found = chosen(images, tiny, 4)
    assert len(found.files) == 4
    assert [(each.name, each.reason) for each in found.skipped] == [
        ("class1/0.heic", "HEIC is not read: save it as JPEG, PNG or WebP"),
        ("class0/0.png", "image file is truncated"),
    ]
    assert len(chosen(images, tiny).files) == 11


def test_a_folder_without_an_image_that_can_be_used_is_refused(
    tmp_path: Path, tiny: Program
) -> None:
    (tmp_path / "a.png").write_bytes(b"?")
    (tmp_path / "b.heic").touch()
    with pytest.raises(UserError) as caught:
        chosen(tmp_path, tiny)
    assert str(caught.value) == (
        f"error: there are no images in {tmp_path} to use\n"
        "  none of the 2 there can be used, such as b.heic: HEIC is not read: save it as JPEG, PNG "
        "or WebP\n"
        "  help: give a folder of images like those that the net will see, such as .jpg or .png "
        "files"
    )


def test_an_image_that_breaks_meanwhile_is_named(images: Path, tiny: Program) -> None:
    broken = images / "class1" / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png") as caught:
        list(read_images([broken], from_spec(tiny, None, 0).preprocessing))
    assert "not an image" in str(caught.value)


# Refusals


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


@pytest.mark.parametrize("precision", FEWER)
def test_a_cpu_without_the_instructions_is_refused(precision: ArtifactPrecision) -> None:
    target = resolve("cpu")
    present = ("avx2", "avx512f", "avx512bf16", "avx512vnni")
    lacking = tuple(n for n in present if n != PRECISION_NEEDS[precision][0])
    old = replace(target, name="old", attrs={"kind": "llvm", "mcpu": "oldlake"})
    require_precision(replace(old, instructions=present), precision)
    require_precision(replace(old, instructions=lacking), "float32")
    with pytest.raises(UserError) as caught:
        require_precision(replace(old, instructions=lacking), precision)
    name, who = {
        "bfloat16": ("AVX512-BF16", "Xeons since Sapphire Rapids"),
        "int8": ("AVX512-VNNI", "Xeons since Cascade Lake"),
    }[precision]
    assert str(caught.value) == (
        f"error: there is no `--precision {precision}` for the target old\n"
        f"  oldlake has no {name} instructions\n"
        "  help: leave `--precision` out, or compile for a CPU that has them:"
        f" AMD since Zen 4 and {who} have it"
    )


@pytest.mark.parametrize(
    ("arguments", "reason", "hint"),
    [
        (
            ["--target", "cuda", "--arch", "sm_75,sm_90", "--precision", "fp16"],
            "sm_75 has no tensor cores that vggc has kernels for",
            "name architectures from sm_80 on with `--arch`",
        ),
        (
            ["--target", "cuda", "--arch", "sm_75", "--precision", "int8"],
            "sm_75 has no tensor cores that vggc has kernels for",
            "name architectures from sm_80 on with `--arch`",
        ),
        (
            ["--precision", "fp16"],
            "kernels for CPUs multiply in float32, bfloat16 or int8",
            "leave `--precision` out",
        ),
        (
            ["--precision", "tf32"],
            "kernels for CPUs multiply in float32, bfloat16 or int8",
            "leave `--precision` out",
        ),
    ],
)
def test_where_a_precision_is_not_there(
    arguments: list[str], reason: str, hint: str, tiny_file: Path
) -> None:
    text = refusal("compile", str(tiny_file), *arguments)
    assert "there is no `--precision" in text
    assert reason in text
    assert hint in text


@runs_here
def test_int8_without_images_is_refused(tiny_file: Path, tmp_path: Path) -> None:
    compile_it = ("compile", str(tiny_file), "--precision")
    assert refusal(*compile_it, "int8") == (
        "error: `--precision int8` needs images\n"
        "  the ranges of a net's values are measured on images like those that it will see\n"
        "  help: give a folder of a few hundred: `--calibrate DIR`"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no image lies in it" in refusal(*compile_it, "int8", "--calibrate", str(empty))
    assert "there is no such folder" in refusal(
        *compile_it, "int8", "--calibrate", str(tmp_path / "none")
    )


@pytest.mark.parametrize("option", ["--calibrate", "--images"])
def test_images_for_a_precision_without_ranges_are_refused(option: str, tiny_file: Path) -> None:
    assert refusal("compile", str(tiny_file), option, "1") == (
        f"error: `{option}` is for `--precision int8`\n"
        "  float32 has no ranges to measure\n"
        f"  help: leave `{option}` out, or compile with `--precision int8`"
    )


# End to end

MIXED = """
net mixed
input 3x18x17

  conv5-6 stride=2 | pool size=3 stride=2 | conv3-12 norm=batch | lrn
| concat(conv1-7 | conv3-9, pool size=3 stride=1 padding=1 | conv1-5 act=leaky, conv3-6 groups=2)
| add(conv3-10 | conv3-10 act=none, conv1-10 act=none) | relu
| trunk: pool | flatten | fc-20 act=gelu | fc-10 | softmax

head boxes: @trunk | fc-8 | boxes
"""


def make(
    net: Program,
    folder: Path,
    precision: ArtifactPrecision,
    files: tuple[Path, ...],
    batch: int = 1,
) -> Path:
    subject = from_spec(net, None, seed=0)
    build_artifact(
        Job(
            net.net,
            net.graph,
            resolve("cpu"),
            (batch,),
            subject.weights,
            subject.weights_from,
            subject.preprocessing,
            (),
            precision,
            files,
        ),
        folder,
    )
    return folder


@pytest.fixture
def made(tmp_path: Path, images: Path) -> Callable[..., Path]:
    """Makes an artifact of a spec in a precision, calibrated on the images."""
    numbers: Iterator[int] = iter(range(100))

    def compile_it(text: str, precision: ArtifactPrecision, batch: int = 1) -> Path:
        files = tuple(sorted(images.rglob("*.png"))) if precision == "int8" else ()
        return make(program(text), tmp_path / f"artifact{next(numbers)}", precision, files, batch)

    return compile_it


Make = Callable[..., Path]


@runs_here
@pytest.mark.parametrize("text", [TINY, MIXED], ids=["chain", "mixed"])
@pytest.mark.parametrize("precision", FEWER)
def test_a_net_computes_in_fewer_bits_what_it_does_in_float64(
    precision: ArtifactPrecision, text: str, made: Make, images: Path
) -> None:
    folder = made(text, precision, batch=2)
    (result,) = verify(folder, images=images, num_images=5)
    assert (result.images, result.judged) == (5, True)
    assert result.passed, result
    assert result.error > 0
    assert result.first_departure is None, result
    algorithms = {entry.algorithm for entry in read_manifest(folder).largest.kernels}
    assert f"direct-{FORMATS[precision]}" in algorithms


@runs_here
@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "precision"),
    [
        ("vgg_tiny_cifar", "bfloat16"),
        ("vgg_tiny_cifar", "int8"),
        ("resnet18", "bfloat16"),
        ("googlenet", "int8"),
        ("vgg16_1x1(width=0.25)", "bfloat16"),
        ("zfnet", "int8"),
    ],
)
def test_nets_of_the_zoo_at_a_small_size(
    net: str, precision: ArtifactPrecision, tmp_path: Path, images: Path
) -> None:
    from vggc.program import with_input

    found = load(net)
    if net != "vgg_tiny_cifar":
        found = found.replace(with_input(found.net, (96, 96)))
    files = tuple(sorted(images.rglob("*.png"))) if precision == "int8" else ()
    folder = make(found, tmp_path / "artifact", precision, files)
    (result,) = verify(folder, images=images, num_images=6)
    assert result.error < LIMITS[precision].error


@runs_here
def test_an_artifact_has_no_second_copy_of_its_weights(made: Make) -> None:
    sizes = {
        precision: read_manifest(made(TINY, precision)).files["weights.safetensors"].bytes
        for precision in ("float32", "bfloat16", "int8")
    }
    assert sizes["bfloat16"] < 0.7 * sizes["float32"]
    assert sizes["int8"] < 0.6 * sizes["float32"]


@runs_here
def test_the_same_images_make_the_same_weights(made: Make) -> None:
    first, second = (made(TINY, "int8") / "weights.safetensors" for _ in range(2))
    assert first.read_bytes() == second.read_bytes()


@runs_here
def test_verify_tells_agreement_and_error_layer_by_layer(made: Make, images: Path) -> None:
    folder = made(TINY, "int8")
    arguments = ["verify", str(folder), "--data", str(images), "--images", "6"]
    shown = CliRunner().invoke(cli, [*arguments, "--layers"])
    assert shown.exit_code == 0, shown.output
    assert "6 images: ok, relative L2 error" in shown.output
    assert "same top-1 on 6 of them (100.0%)" in shown.output
    assert "conv1_2" in shown.output
    report = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert report["passed"]
    assert (report["tolerance"], report["agreement"]) == (0.15, 0.97)
    (result,) = report["inputs"]
    assert (result["images"], result["agreeing"]) == (6, 6)


@runs_here
def test_verify_finds_a_wrong_weight(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import vggc.measure.verify as module

    original = module.original_weights

    def with_a_wrong_weight(*arguments: Any) -> Any:
        made_of = original(*arguments)
        wrong = -made_of.weights["conv1_2.weight"]
        return replace(made_of, weights={**made_of.weights, "conv1_2.weight": wrong})

    monkeypatch.setattr(module, "original_weights", with_a_wrong_weight)
    result = verify(made(TINY, "bfloat16"))[0]
    assert not result.passed
    assert result.first_departure == "conv1_2"


@runs_here
def test_verify_takes_the_float32_weights_from_where_they_are(
    made: Make, tiny: Program, tmp_path: Path
) -> None:
    folder, weights = made(TINY, "bfloat16"), seeded(tiny.graph, 0)
    given, others = tmp_path / "given.safetensors", tmp_path / "others.safetensors"
    save(given, weights)
    save(others, seeded(tiny.graph, 1))
    assert all(result.passed for result in verify(folder))
    assert all(result.passed for result in verify(folder, weights=given))
    text = refusal("verify", str(folder), "--weights", str(others))
    assert text == (
        f"error: the float32 weights of the artifact {folder} are needed to verify it\n"
        f"  it holds them in bfloat16 alone, and those of {others} are others\n"
        "  help: give the file or the run that it was compiled from: `--weights FILE`"
    )


@runs_here
def test_verify_says_which_weights_are_gone(tmp_path: Path, tiny_file: Path, tiny: Program) -> None:
    weights, folder = tmp_path / "w.safetensors", tmp_path / "artifact"
    save(weights, seeded(tiny.graph, 5))
    arguments = ["compile", str(tiny_file), "--weights", str(weights), "--precision", "bfloat16"]
    assert CliRunner().invoke(cli, [*arguments, "-o", str(folder)]).exit_code == 0
    assert CliRunner().invoke(cli, ["verify", str(folder)]).exit_code == 0
    moved = tmp_path / "moved.safetensors"
    weights.rename(moved)
    text = refusal("verify", str(folder))
    assert f"{weights}, which it was compiled from, is not there" in text
    again = CliRunner().invoke(cli, ["verify", str(folder), "--weights", str(moved)])
    assert again.exit_code == 0


def test_in_float32_those_of_the_artifact_stand_in_for_weights_that_are_gone(
    tmp_path: Path, tiny_file: Path, tiny: Program
) -> None:
    weights, folder = tmp_path / "w.safetensors", tmp_path / "artifact"
    save(weights, seeded(tiny.graph, 5))
    arguments = ["compile", str(tiny_file), "--weights", str(weights), "-o", str(folder)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    told = "compared with the artifact's own weights, unpacked"
    there = CliRunner().invoke(cli, ["verify", str(folder)])
    assert there.exit_code == 0
    assert told not in there.output
    save(weights, seeded(tiny.graph, 6))
    others = CliRunner().invoke(cli, ["verify", str(folder)])
    assert others.exit_code == 0
    assert told in others.output
    text = refusal("verify", str(folder), "--weights", str(weights))
    assert f"it holds them packed, and those of {weights} are others" in text


@runs_here
def test_options_of_verify_that_have_nothing_to_say_are_refused(made: Make, images: Path) -> None:
    folder = str(made(TINY, "float32"))
    assert refusal("verify", folder, "--images", "3") == (
        "error: `--images` has nothing to say here\n"
        "  it counts the images of a folder\n"
        "  help: leave `--images` out, or name the folder with `--data`"
    )
    result = CliRunner().invoke(cli, ["verify", folder, "--data", str(images)])
    assert "12 images: ok" in result.output


@runs_here
@pytest.mark.parametrize("precision", FEWER)
def test_an_artifact_is_not_loaded_where_the_cpu_lacks_its_instructions(
    precision: ArtifactPrecision, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(TINY, precision)
    name = PRECISION_NEEDS[precision][0]
    present = processor.instructions()
    assert present is not None
    monkeypatch.setattr("vggc.runtime.cpu_session.instructions", lambda: present - {name})
    with pytest.raises(UserError, match=f"this CPU lacks .*{name}"):
        Session.load(folder)


@runs_here
def test_weights_of_another_type_are_refused(made: Make) -> None:
    from vggc.runtime.artifact import entry
    from vggc.support.records import from_json, to_json, write_record
    from vggc.support.tensors import read_all

    folder = made(TINY, "int8")
    path = folder / "weights.safetensors"
    tensors = read_all(path)
    assert {str(t.dtype) for t in tensors.values()} == {"int8", "float32"}
    weight = "conv1_2.weight"
    save(path, {**tensors, weight: tensors[weight].astype(np.float32)})
    manifest = read_manifest(folder)
    manifest = replace(manifest, files={**manifest.files, path.name: entry(path)})
    manifest = replace(manifest, sha256=manifest.digest)
    write_record(folder / "manifest.json", from_json(type(manifest), to_json(manifest)))
    with pytest.raises(UserError, match="it is the weights of another net"):
        Session.load(folder)


def test_storage_names_a_type_for_every_format() -> None:
    assert {np.dtype(STORAGE[form]).itemsize for form in FORMATS.values()} == {1, 2, 4}


def test_values_that_overflow_have_no_range(tiny: Program) -> None:
    graph = fold(tiny.graph).graph
    weights = {
        name: np.full_like(weight, 1e30 if weight.ndim > 1 else 0)
        for name, weight in seeded(graph, 0).items()
    }
    images = [np.full((1, *graph.input), value, np.float32) for value in (0, 1)]
    calls = plan_in(graph, "uint8")
    for files, told in (((), "image 2"), ((Path("a.png"), Path("b.png")), "b.png")):
        with pytest.raises(UserError) as caught:
            calibrate(graph, weights, calls, images, files)
        assert f"is not finite on {told}\n" in str(caught.value)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e38, 3e38])
def test_values_of_any_size_have_a_range(size: float) -> None:
    histogram = Histogram()
    for part in (0.3, 1.0):
        histogram.add(np.float32([part * size, -part * size, 0]))
    assert histogram.counts is not None
    assert histogram.counts.sum() == 4 - 2 * (np.float32(0.3 * size) == 0)
    assert histogram.cut(255) == pytest.approx(size, rel=0.5)
