"""Every net of the zoo against what was published about it, and on every backend.

Figures are typed by hand, each group with where it was printed; what nobody printed was
worked out on paper from the layers' definitions. The paper's six nets are in test_paper.py.
"""

from __future__ import annotations

import json
import re
from itertools import groupby

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from tests.support.lowering import lowered_together
from tests.support.op_samples import torch_outputs, weights_of
from tests.support.virtual_machine import compile_for
from vggc.analysis.report import Report
from vggc.backends.onnx import to_onnx
from vggc.backends.torch import build
from vggc.cli.zoo import command
from vggc.compiler.packing import pack
from vggc.compiler.targets import resolve
from vggc.ir.graph import Graph
from vggc.ir.ops import Flatten
from vggc.passes.fold import fold
from vggc.passes.inference import drop_final_softmax
from vggc.program import Program, from_zoo, load, zoo
from vggc.recipe.heads import HeadLoss
from vggc.recipe.train import InitFrom
from vggc.runtime.artifact import main_function
from vggc.support.diagnostics import UserError
from vggc.support.resources import resource
from vggc.support.source import Source
from vggc.support.tvm_alone import relax, tvm
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse, parse_arguments

# ---------------------------------------------------------------- what was published

TORCHVISION = {
    # `num_params` and, in thousand millions of MACs, `GFLOPS` of the weights that torchvision's
    # documentation lists (torchvision 0.29, IMAGENET1K_V1 of each net).
    "vgg11": (132_863_336, "7.609"),
    "vgg13": (133_047_848, "11.308"),
    "vgg16": (138_357_544, "15.470"),
    "vgg19": (143_667_240, "19.632"),
    "vgg11_bn": (132_868_840, "7.609"),
    "vgg13_bn": (133_053_736, "11.308"),
    "vgg16_bn": (138_365_992, "15.470"),
    "vgg19_bn": (143_678_248, "19.632"),
    "alexnet": (61_100_840, "0.714"),
    "googlenet": (6_624_904, "1.498"),
    "resnet18": (11_689_512, "1.814"),
    "resnet34": (21_797_672, "3.664"),
    "resnet50": (25_557_032, "4.089"),
    "squeezenet": (1_235_496, "0.349"),
    "densenet121": (7_978_856, "2.834"),
    "convnext_tiny": (28_589_128, "4.456"),
}
OTHERS = {
    # Worked out on paper.
    "vgg13_5x5": (134_503_528, 9_356_017_664),
    # D's 138,357,544 and 15,470,264,320 with 4 or 4000 outputs in the place of 1000.
    "vgg16_loc_scr": (134_276_932, 15_466_184_704),
    "vgg16_loc_pcr": (150_648_544, 15_482_552_320),
    # D's convolutions, 14,714,688 and 15,346,630,656, then conv3-1024 in two groups, fc-1000.
    "vgg16_gap": (18_100_008, 15_810_076_672),
    # "20.5M", Chen et al. (2015), table 2.
    "vgg16_d_dilated": (20_505_429, 50_928_085_696),
    # Parameters: the tables of osmr/imgclsmob; their MACs count other layers too.
    "zfnet": (62_357_608, 1_168_032_896),
    # "145 million parameters, 2810 million connections", Sermanet et al. (2014), table 4.
    "overfeat_fast": (145_920_872, 2_801_403_904),
    # "A snapshot of size 29MB", Caffe's model zoo: four bytes for each of these.
    "nin": (7_595_176, 1_100_188_800),
    # Parameters of torchvision.models.googlenet(aux_logits=True), as its users print them.
    "googlenet_aux": (13_004_888, 1_506_748_416),
    # Parameters of torchvision.models.inception_v3(), with and without aux_logits, and its GFLOPS,
    # "5.713" without.
    "inception_v3": (23_834_568, 5_713_216_096),
    "inception_v3_aux": (27_161_264, 5_718_899_296),
    # "4.2" million parameters and "569" million of MACs, Howard et al. (2017), table 8; the very
    # parameters are those that Keras counts as trainable in its MobileNet.
    "mobilenet_v1": (4_231_976, 568_740_352),
    # "7000 parameters", cs231n.stanford.edu.
    "tiny_vgg": (6_440, 1_775_680),
    # Parameters: `model.summary()` of Keras's cifar10_cnn.py.
    "vgg_tiny_cifar": (1_250_858, 20_741_120),
    # "15.25 M" and "313.73 M", README of chenyaofo/pytorch-cifar-models.
    "vgg16_bn_cifar": (15_253_578, 313_725_952),
}
SIDES = {
    # The sides of the maps from the first layer on, where they change.
    "vgg13_5x5": "224 112 56 28 14 7",
    "vgg16_gap": "224 112 56 28 14",
    "vgg16_d_dilated": "321 161 81 41",  # an eighth of the pixels, Chen et al. (2015), section 3.1
    "alexnet": "55 27 13 6",
    "zfnet": "110 55 26 13 6",  # Zeiler & Fergus (2014), figure 3
    "overfeat_fast": "56 28 24 12 6",  # Sermanet et al. (2014), table 1
    "nin": "54 27 13 6",
    "googlenet": "112 56 28 14 7",  # Szegedy et al. (2015), table 1
    "resnet18": "112 56 28 14 7",  # He et al. (2016), table 1
    "resnet34": "112 56 28 14 7",
    "resnet50": "112 56 28 14 7",
    "squeezenet": "111 55 27 13",  # its prototxt's, but for an input of 224
    "densenet121": "112 56 28 14 7",  # Huang et al. (2017), table 1
    "inception_v3": "149 147 73 71 35 17 8",  # Szegedy et al. (2016), table 1
    "convnext_tiny": "56 28 14 7",  # Liu et al. (2022), table 9
    "mobilenet_v1": "112 56 28 14 7",  # Howard et al. (2017), table 1
    "tiny_vgg": "32 16 8 4",
    "vgg_tiny_cifar": "32 30 15 13 6",
    "vgg16_bn_cifar": "32 16 8 4 2 1",
}
INCEPTIONS = {
    # Szegedy et al. (2015), table 1, column "output size".
    "3a": (256, 28, 28),
    "3b": (480, 28, 28),
    "4a": (512, 14, 14),
    "4b": (512, 14, 14),
    "4c": (512, 14, 14),
    "4d": (528, 14, 14),
    "4e": (832, 14, 14),
    "5a": (832, 7, 7),
    "5b": (1024, 7, 7),
}
OUTPUTS = {
    "vgg16_d_dilated": {"output": (21, 41, 41)},
    "vgg16_loc_scr": {"output": (4,)},
    "vgg16_loc_pcr": {"output": (4000,)},
    "googlenet_aux": {"output": (1000,), "aux1": (1000,), "aux2": (1000,)},
    "inception_v3_aux": {"output": (1000,), "aux": (1000,)},
    **{name: {"output": (10,)} for name in ("tiny_vgg", "vgg_tiny_cifar", "vgg16_bn_cifar")},
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_totals_are_those_that_torchvision_prints(name: str) -> None:
    params, gflops = TORCHVISION[name]
    totals = load(name).report().totals
    assert totals.params == params
    assert f"{totals.macs / 1e9:.3f}" == gflops


@pytest.mark.parametrize("name", OTHERS)
def test_totals_are_those_worked_out_by_hand(name: str) -> None:
    totals = load(name).report().totals
    assert (totals.params, totals.macs) == OTHERS[name]


@pytest.mark.parametrize("name", SIDES)
def test_maps_have_the_published_sizes(name: str) -> None:
    assert sides(load(name).report()) == SIDES[name]


def sides(report: Report) -> str:
    """The sides of the maps on the main chain, where they change."""
    chain = [row.output_shape for row in report.rows[1:] if not row.path]
    return " ".join(str(side) for side, _ in groupby(s[1] for s in chain if len(s) == 3))


@pytest.mark.parametrize("name", ["vgg13_5x5", "vgg16_1x1"])
def test_it_sees_as_much_as_b(name: str) -> None:
    """Simonyan & Zisserman (2015), section 4.1."""
    fields = [
        {row.name: row.receptive_field for row in load(net).report().rows}["pool5"]
        for net in (name, "vgg13")
    ]
    assert fields == [(156, 156), (156, 156)]


def test_inception_modules_have_the_papers_channels() -> None:
    rows = {row.name: row.output_shape for row in load("googlenet").report().rows}
    assert {name: rows[f"inception{name}"] for name in INCEPTIONS} == INCEPTIONS


@pytest.mark.parametrize("name", zoo())
def test_outputs_are_those_of_its_task(name: str) -> None:
    assert load(name).graph.outputs == OUTPUTS.get(name, {"output": (1000,)})


def test_every_net_has_its_figures() -> None:
    assert set(zoo()) - TORCHVISION.keys() - OTHERS.keys() == {"vgg11_lrn", "vgg16_1x1"}


# ---------------------------------------------------------------- the files


def text_of(name: str) -> str:
    return resource("zoo", f"{name}.vgg").read_text("utf-8")


def test_every_file_has_its_place_in_the_list() -> None:
    assert sorted(zoo()) == sorted(path.stem for path in resource("zoo").iterdir())


@pytest.mark.parametrize("name", zoo())
def test_it_is_right_formatted_and_says_where_it_is_from(name: str) -> None:
    program = from_zoo(name)
    program.check()
    assert program.net.name == name
    assert format_net(program.written) == text_of(name)
    assert program.written.trivia.above


@pytest.mark.parametrize("name", zoo())
def test_with_everything_filled_in_it_is_the_same_net(name: str) -> None:
    program = from_zoo(name)
    resolved = Program(parse(Source(name, format_net(program.resolved))))
    assert resolved.written.base is None
    assert resolved.report() == program.report()
    assert resolved.protocol == program.protocol
    assert resolved.recipe.optimiser == program.recipe.optimiser
    assert resolved.recipe.init_from == program.recipe.init_from


@pytest.mark.parametrize("name", zoo())
def test_it_says_how_it_is_trained(name: str) -> None:
    assert from_zoo(name).net.block("train") is not None


def test_boxes_are_learned_from_what_the_classifier_saw() -> None:
    """Simonyan & Zisserman (2015), appendix A.1: training."""
    for name in ("vgg16_loc_scr", "vgg16_loc_pcr"):
        program = load(name)
        recipe = program.recipe
        assert program.graph.heads[0].kind == "boxes"
        assert recipe.loss == (HeadLoss("euclidean"),)
        assert recipe.optimiser.lr == 1e-3
        assert recipe.init_from == InitFrom("vgg16", ("conv1_1..fc7",))
        assert recipe.scale == (256, 256)
        assert recipe.batch == load("vgg16").recipe.batch


# ---------------------------------------------------------------- the backends


WIDTH = parse_arguments(Source("width", "(width=0.125)"))


def narrow(name: str) -> Graph:
    """The net with an eighth of its channels, to its scores; small ones as they are, and a net of a
    hundred different layers with two layers in each of its blocks.
    """
    program = load(name)
    if program.report().totals.params < 2e6 and program.graph.input[1] == 32:
        return drop_final_softmax(program.graph)
    text = re.sub(r"×\d+", "×2", text_of(name)) if name == "densenet121" else text_of(name)
    return drop_final_softmax(Program(parse(Source(name, text)), WIDTH).graph)


def image(graph: Graph) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, *graph.input), np.float32)


def assert_agree(outputs: list[np.ndarray], graph: Graph) -> None:
    """With float64, to a hundred-thousandth of the largest value."""
    expected = torch_outputs(graph, image(graph))
    for output, (name, wanted) in zip(outputs, expected.items(), strict=True):
        scale = np.abs(wanted).max()
        assert wanted.std() > 0.01 * scale, name
        np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("name", zoo())
def test_torch_builds_it_and_it_gives_numbers(name: str) -> None:
    graph = narrow(name)
    with torch.inference_mode():
        result = build(graph, weights_of(graph)).eval()(torch.from_numpy(image(graph)))
    outputs = result if isinstance(result, dict) else {"output": result}
    assert {key: tuple(value.shape[1:]) for key, value in outputs.items()} == graph.outputs
    for output in outputs.values():
        assert output.isfinite().all()
        assert output.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo())
def test_as_onnx_it_agrees_with_float64(name: str) -> None:
    graph = narrow(name)
    model = b"".join(to_onnx(graph, weights_of(graph)).pieces())
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert_agree(session.run(None, {"input": image(graph)}), graph)


ALIKE = {
    "googlenet": "inception_v3_aux",
    "googlenet_aux": "inception_v3_aux",
    "inception_v3": "inception_v3_aux",
    "resnet34": "resnet18",
    "resnet50": "resnet18",
}
"""Nets that have no kind of layer which another has not, but for flattening, which most have: that
one is compiled in their place."""
FAMILIES = (
    sorted(
        (name for name in zoo() if name.startswith("vgg1") and name != "vgg16_bn_cifar"),
        key=lambda name: name == "vgg19",
    ),
    *([name] for name in zoo() if not name.startswith("vgg1") and name not in ALIKE),
    ["vgg16_bn_cifar"],
)
"""Nets that have many layers in common, the deepest last: they are compiled together."""


def test_every_net_is_of_one_family_or_like_a_net_of_one() -> None:
    compiled = [name for family in FAMILIES for name in family]
    assert sorted([*compiled, *ALIKE]) == sorted(zoo())
    assert {*ALIKE.values()} <= {*compiled}
    for name, like in ALIKE.items():
        kinds, theirs = ({type(node.op) for node in load(net).graph.nodes} for net in (name, like))
        assert kinds <= {*theirs, Flatten}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[-1])
def test_compiled_for_the_cpu_it_agrees_with_float64(family: list[str]) -> None:
    target = resolve("cpu")
    graphs = {name: narrow(name) for name in family}
    plans, code = lowered_together(graphs, target)
    library = compile_for(code.module, target)
    machine = relax.VirtualMachine(library, tvm.cpu())
    for name, graph in graphs.items():
        calls = plans[name]
        pieces = pack([code.calls[name]], fold(graph).weights(weights_of(graph)))
        packed = {weight: each.whole() for weight, each in pieces.items()}
        arrays = (image(graph), *(packed[weight] for weight in calls.weights))
        result = machine[main_function(name)](*map(tvm.runtime.tensor, arrays))
        outputs = [result] if len(graph.heads) == 1 else result
        assert_agree([output.numpy() for output in outputs], graph)


# ---------------------------------------------------------------- the command


def test_the_list_has_every_net_with_its_figures() -> None:
    lines = CliRunner().invoke(command).stdout.splitlines()
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line.strip()}
    assert [name for name in rows if name in zoo()] == zoo()
    assert "3×224×224 138,357,544 15.47 G 71.59 256 74 epochs sgd 0.01 plateau 256" in rows["vgg16"]
    assert "3×32×32 15,253,578 313.73 M 128 60 epochs" in rows["vgg16_bn_cifar"]
    assert "sgd 0.001 plateau 256 euclidean, from vgg16" in rows["vgg16_loc_scr"]


def test_the_list_as_json_has_the_recipes() -> None:
    nets = {net["net"]: net for net in json.loads(CliRunner().invoke(command, "--json").stdout)}
    assert list(nets) == zoo()
    alexnet, tiny = nets["alexnet"], nets["tiny_vgg"]
    assert (alexnet["params"], alexnet["macs"]) == (61_100_840, 714_188_480)
    assert alexnet["train"]["init"] == "normal"
    assert (alexnet["weights"]["top1"], tiny["weights"]) == (56.522, None)
    assert alexnet["test"]["crops.grid"] == "3x3"
    assert (tiny["input"], tiny["outputs"]) == ([3, 32, 32], {"output": [10]})


def test_a_net_is_shown_as_it_is_written() -> None:
    shown = CliRunner().invoke(command, ["show", "vgg16_bn"])
    assert shown.stdout == text_of("vgg16_bn")
    assert shown.stderr == (
        "vgg16_bn: 138,365,992 parameters, 15.47 G MACs, 3×224×224 → output 1000; "
        "published weights of 73.36 % top-1\n"
    )


def test_a_net_is_shown_with_everything_filled_in() -> None:
    shown = CliRunner().invoke(command, ["show", "--resolved", "vgg16_bn(classes=7)"])
    net = parse(Source("shown", shown.stdout))
    assert net.base is None
    assert Program(net).report() == load("vgg16_bn(classes=7)").report()
    assert shown.stderr.endswith("output 7\n")


def test_a_net_that_is_not_there_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean `vgg16_bn`"):
        from_zoo("vgg16_bm")
    with pytest.raises(UserError, match="`vggc zoo` lists the nets"):
        from_zoo("transformer")
