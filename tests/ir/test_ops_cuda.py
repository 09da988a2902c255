"""The op matrix for GPUs: every sample as device code, run by TVM's CUDA runtime on the CPU, and
whole nets of the zoo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from tests.support import ROOT, gpu_on_cpu
from tests.support.device import needs_compilers, run_python
from tests.support.nets import graph_of, program
from tests.support.op_samples import BATCH, SAMPLES, assert_agree, torch_outputs, weights_of
from tests.support.rounded_reference import RoundedNet
from vggc.compiler.calibrate import calibrate
from vggc.compiler.choose import by_cost, kernels_for
from vggc.compiler.device_code import compile_device
from vggc.compiler.packing import pack
from vggc.compiler.quantize import Tensors, converted_weights, scaled
from vggc.compiler.relax import lower, with_kernels
from vggc.compiler.targets import resolve
from vggc.ir.graph import Graph
from vggc.kernels.workloads import Conv, Convert, Map, ToNhwc
from vggc.measure.verify import relative_error
from vggc.passes.fold import fold
from vggc.plan.plan import Plan, Step
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision

ARCH = "sm_80"
DEEP = "conv3-8 ×2 | pool | conv3-16 | pool | fc-24 | fc-10 | softmax"
"""Several roundings one after the other."""
GRAPHS = {name: graph_of(text) for name, text in {**SAMPLES, "deep": DEEP}.items()}

SCRIPT = """
import numpy
from vggc.support.tvm_alone import tvm
from vggc.runtime.device import require_device
tvm.register_global_func("tvm_callback_cuda_compile", lambda code: 1 / 0, override=True)
device = require_device(["{arch}"])
machine = tvm.relax.VirtualMachine(tvm.runtime.load_module("lib.so"), device)
for name in {names}:
    inputs = numpy.load(name + ".npz").values()
    tensors = [tvm.runtime.tensor(array, device) for array in inputs]
    first = machine["main_" + name](*tensors)
    result = machine["main_" + name](*tensors)  # replays a CUDA graph
    outputs = [result] if isinstance(result, tvm.runtime.Tensor) else result
    numpy.savez(name + ".outputs.npz", *(output.numpy() for output in outputs))
"""


def image(graph: Graph) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BATCH, *graph.input), np.float32)


def plan_in(graph: Graph, precision: ArtifactPrecision, arch: str = ARCH) -> Plan:
    return plan_for(graph, BATCH, resolve("cuda", [arch]), precision)


def converted(graph: Graph, plan: Plan) -> Tensors:
    """The weights that a plan of a net takes, not packed."""
    folded = fold(graph)
    weights = folded.weights(weights_of(graph))
    images = np.split(image(graph), BATCH)
    ranges = calibrate(folded.graph, weights, plan, images) if scaled(plan) else {}
    return converted_weights(plan, weights, ranges)


def run_on_gpu(
    graphs: Mapping[str, Graph],
    folder: Path,
    precision: ArtifactPrecision = "float32",
    arch: str = ARCH,
) -> None:
    """Writes the outputs of nets into a folder: one library, one process, for all of them."""
    target = resolve("cuda", [arch])
    plans = {name: plan_in(graph, precision, arch) for name, graph in graphs.items()}
    code = lower(with_kernels(plans, kernels_for(target, by_cost)))
    for name, graph in graphs.items():
        pieces = pack([code.calls[name]], converted(graph, plans[name]))
        packed = {weight: each.whole() for weight, each in pieces.items()}
        taken = [packed[weight] for weight in plans[name].weights]
        np.savez(folder / f"{name}.npz", image(graph), *taken)
    library = compile_device(code.module, [arch], graphs=True)
    library.export(folder / "lib.so")
    script = SCRIPT.format(arch=arch, names=list(graphs))
    run_python(script, folder, gpu_on_cpu.environment(library.source, folder, arch))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of every sample in float32."""
    folder = tmp_path_factory.mktemp("samples")
    run_on_gpu(GRAPHS, folder)
    return folder


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize("name", SAMPLES)
def test_compiled_for_a_gpu_it_agrees_with_float64(name: str, outputs: Path) -> None:
    graph = GRAPHS[name]
    got = np.load(outputs / f"{name}.outputs.npz").values()
    assert_agree(got, torch_outputs(graph, image(graph)))


FEWER_BITS: dict[ArtifactPrecision, dict[str, Graph]] = {
    "float16": {
        name: GRAPHS[name]
        for name in (
            "conv_strided",
            "conv_unpadded",
            "conv_wide",
            "conv_dilated",
            "pads",
            "conv_grouped",
            "conv_normalised",
            "deconv_normalised",
            "layernorm",
            "stochasticpool",
            "pool",
            "pool_rounded_up",
            "avgpool_padded",
            "lrn",
            "prelu",
            "fc_of_map",
            "flatten_then_relu",
            "concat",
            "concat_of_vectors",
            "add_projected",
            "add_of_vectors",
            "heads",
            "deep",
        )
    },
    "bfloat16": {name: GRAPHS[name] for name in ("deep", "map_for_fc_and_conv")},
    "tf32": {name: GRAPHS[name] for name in ("deep", "conv_grouped", "concat")},
    "int8": {name: GRAPHS[name] for name in ("deep", "pool", "fc_of_map", "add_projected")},
}
LARGEST_ERRORS: dict[ArtifactPrecision, float] = {
    "float16": 2e-3,
    "tf32": 2e-3,
    "bfloat16": 1.5e-2,
    "int8": 0.03,
}
"""Relative, in L2: some roundings of one part in 2048, in 256, or to one of 256 numbers."""

IN_FLOAT32 = 3e-7
"""What another order of sums changes in nets so small."""


@pytest.fixture(scope="module")
def outputs_in_fewer_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each precision with the outputs of some samples."""
    folder = tmp_path_factory.mktemp("fewer")
    for precision, graphs in FEWER_BITS.items():
        (folder / precision).mkdir()
        run_on_gpu(graphs, folder / precision, precision)
    return folder


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize(
    ("precision", "name"),
    [(precision, name) for precision, graphs in FEWER_BITS.items() for name in graphs],
)
def test_compiled_in_fewer_bits_it_agrees_with_float64(
    precision: ArtifactPrecision, name: str, outputs_in_fewer_bits: Path
) -> None:
    graph = GRAPHS[name]
    got = np.load(outputs_in_fewer_bits / precision / f"{name}.outputs.npz").values()
    for output, wanted in zip(got, torch_outputs(graph, image(graph)).values(), strict=True):
        assert relative_error(output, wanted) <= LARGEST_ERRORS[precision]


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize(
    ("precision", "name"),
    [(precision, name) for precision, graphs in FEWER_BITS.items() for name in graphs],
)
def test_its_error_is_that_of_rounding_weights_and_what_lies_between_kernels(
    precision: ArtifactPrecision, name: str, outputs_in_fewer_bits: Path
) -> None:
    """What the rounded reference gives is ten times nearer to a GPU's than to float64, but for the
    order of sums.
    """
    graph, plan = GRAPHS[name], plan_in(GRAPHS[name], precision)
    net = RoundedNet(plan, converted(graph, plan))
    foretold = [*net.values(image(graph))]
    got = np.load(outputs_in_fewer_bits / precision / f"{name}.outputs.npz").values()
    exact = torch_outputs(graph, image(graph)).values()
    for head, output, wanted in zip(plan.outputs, got, exact, strict=True):
        value = foretold[head.step].reshape(output.shape)
        allowed = max(relative_error(wanted, value) / 10, IN_FLOAT32)
        assert relative_error(output, value) < allowed


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize("precision", FEWER_BITS)
def test_each_rounding_is_needed_for_that(
    precision: ArtifactPrecision, outputs_in_fewer_bits: Path
) -> None:
    graph, plan = GRAPHS["deep"], plan_in(GRAPHS["deep"], precision)
    tensors = converted(graph, plan)
    got, *_ = np.load(outputs_in_fewer_bits / precision / "deep.outputs.npz").values()
    rounding = [index for index, step in enumerate(plan.steps) if rounds(step)]
    assert len(rounding) >= 5
    for index in rounding:
        *_, value = RoundedNet(plan, tensors, exact={index}).values(image(graph))
        assert relative_error(got, value) > 10 * IN_FLOAT32, index


def rounds(step: Step) -> bool:
    """Whether a step rounds what it gives, or a weight that is not int8."""
    of_floats = ("tf32", "float16", "bfloat16")
    match step.workload:
        case Conv(input=source, output=target):
            return source.format in of_floats or target.format == "uint8"
        case Convert() | ToNhwc():
            return isinstance(step.output, Map) and step.output.format != "float32"
        case _:
            return False


SIDES = {"vgg16": 32, "resnet18": 64, "googlenet": 64, "alexnet": 95}
"""The sides of the images of nets of the zoo that are run whole."""


def at_an_eighth(name: str) -> Graph:
    """The graph of a net of the zoo whose layers have an eighth of their channels."""
    text = (ROOT / "zoo" / f"{name}.vgg").read_text("utf-8")
    narrow = re.sub(
        r"\b(conv\d+|fc)-(\d+)", lambda found: f"{found[1]}-{ceil(int(found[2]) / 8)}", text
    )
    return program(narrow.replace("224x224", f"{SIDES[name]}x{SIDES[name]}")).graph


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize(
    ("precision", "arch", "names"),
    [
        ("float32", "sm_80", ("vgg16",)),
        ("float16", "sm_80", ("vgg16", "resnet18", "googlenet", "alexnet")),
        ("bfloat16", "sm_90a", ("resnet18", "alexnet")),
        ("int8", "sm_90a", ("vgg16",)),
    ],
)
def test_nets_of_the_zoo_err_by_what_is_rounded(
    precision: ArtifactPrecision, arch: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    """And not by half as much more. A sum in another order may be rounded to the other side."""
    graphs = {name: at_an_eighth(name) for name in names}
    run_on_gpu(graphs, tmp_path, precision, arch)
    for name, graph in graphs.items():
        plan = plan_in(graph, precision, arch)
        foretold = [*RoundedNet(plan, converted(graph, plan)).values(image(graph))]
        (output,) = np.load(tmp_path / f"{name}.outputs.npz").values()
        (wanted,) = torch_outputs(graph, image(graph)).values()
        value = foretold[plan.outputs[0].step].reshape(output.shape)
        assert relative_error(output, wanted) <= max(1.5 * relative_error(value, wanted), 2e-6)
