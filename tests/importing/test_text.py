"""An imported net reads as a person would have written it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.importing.nets import NetMaker, agrees, imported, layers
from tests.support.nets import graph_of
from vggc.backends.onnx import save_onnx
from vggc.importing.net import import_foreign
from vggc.importing.onnx_file import read_onnx
from vggc.ir.graph import Graph
from vggc.ir.ops import AvgPool2d, MaxPool2d, Op, Scale, StochasticPool2d
from vggc.ir.weights import seeded
from vggc.passes.inference import drop_dropout
from vggc.program import load, zoo

SMALL = ("vgg16", "alexnet", "resnet18", "googlenet_aux", "vgg16_loc_pcr")


def computed(graph: Graph) -> list[object]:
    heads = [(head.name, head.node) for head in graph.heads]
    return [heads, *((meant(node.op), node.inputs, node.shape) for node in graph.nodes)]


def meant(op: Op) -> Op:
    """An op without what makes no difference to its values: how it rounds, which the shape that it
    gives tells, whether it counts padding that it has none of, and how its weights begin.
    """
    match op:
        case AvgPool2d(padding=(0, 0, 0, 0)):
            return replace(op, ceil=False, counts_padding=False)
        case AvgPool2d() | MaxPool2d() | StochasticPool2d():
            return replace(op, ceil=False)
        case Scale():
            return replace(op, start=1.0)
        case _:
            return op


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in zoo()]
)
def test_a_net_of_the_zoo_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    graph = drop_dropout(load(f"{name}(width=0.05)").graph)
    weights, path = seeded(graph, 0), tmp_path / "net.onnx"
    save_onnx(graph, weights, path, {})
    net = import_foreign(read_onnx(path))
    assert computed(net.graph) == computed(graph)
    for ours, theirs in zip(net.weights().values(), weights.values(), strict=True):
        assert np.array_equal(ours, theirs)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
"""Nets that come with onnx, as others have written them; their weights are all one number."""


def test_a_net_of_others_reads_as_its_paper() -> None:
    net = import_foreign(read_onnx(LIGHT / "light_densenet121.onnx"))
    assert layers(net) == (
        "every conv bias=off act=none "
        "conv7-64 stride=2 norm=batch act=relu | pool3 stride=2 padding=1 "
        "| concat(skip, batchnorm | relu | conv1-128 norm=batch act=relu | conv3-32) ×6 "
        "| batchnorm | relu | conv1-128 | avgpool "
        "| concat(skip, batchnorm | relu | conv1-128 norm=batch act=relu | conv3-32) ×12 "
        "| batchnorm | relu | conv1-256 | avgpool "
        "| concat(skip, batchnorm | relu | conv1-128 norm=batch act=relu | conv3-32) ×24 "
        "| batchnorm | relu | conv1-512 | avgpool "
        "| concat(skip, batchnorm | relu | conv1-128 norm=batch act=relu | conv3-32) ×16 "
        "| batchnorm | relu | gap | fc-1000"
    )


def test_what_is_exported_in_several_operators_comes_back_as_one_word(tmp_path: Path) -> None:
    graph = graph_of(
        "conv3-64 norm=group act=gelu | deconv4-16 stride=2 norm=layer"
        " | deconv3-8 stride=2 groups=2 | groupnorm groups=4 eps=1e-3 | layernorm"
        " | stochasticpool3 stride=2 padding=1 | stochasticpool"
        " | gap | fc-32 norm=layer | fc-10"
    )
    path = tmp_path / "net.onnx"
    save_onnx(graph, seeded(graph, 0), path, {})
    assert computed(import_foreign(read_onnx(path)).graph) == computed(graph)


def residual(n: NetMaker, x: str, width: int) -> str:
    def conv(x: str) -> str:
        x = n.op("Conv", x, n.random(width, width, 3, 3), pads=[1, 1, 1, 1])
        return n.op("BatchNormalization", x, *(n.random(width, low=0.5) for _ in range(4)))

    return n.op("Relu", n.op("Add", x, conv(n.op("Relu", conv(x)))))


def test_residual_blocks_are_repeated_and_what_most_say_is_said_once(tmp_path: Path) -> None:
    n = NetMaker(1, 8, 6, 6)
    x = "x"
    for _ in range(3):
        x = residual(n, x, 8)
    net = imported(tmp_path, n.model(n.op("GlobalAveragePool", x)))
    assert "every conv norm=batch bias=off\n" in net.text
    assert layers(net) == (
        "every conv norm=batch bias=off (add(conv3-8 | conv3-8 act=none, skip) | relu) ×3 | gap"
    )
    assert agrees(net)


def test_dense_blocks_read_what_was_joined_before(tmp_path: Path) -> None:
    n = NetMaker(1, 4, 6, 6)
    features = ["x"]
    for index in range(3):
        read = features[0] if index == 0 else n.op("Concat", *features, axis=1)
        conv = n.op("Conv", read, n.random(2, 4 + 2 * index, 1, 1), n.random(2))
        features.append(n.op("Relu", conv))
    net = imported(tmp_path, n.model(n.op("Concat", *features, axis=1)))
    assert layers(net) == "concat(skip, conv1-2) ×3"
    assert agrees(net)


def test_a_skip_across_many_layers_has_a_name(tmp_path: Path) -> None:
    n = NetMaker(1, 4, 6, 6)
    early = x = n.op("Relu", n.op("Conv", "x", n.random(4, 4, 1, 1), n.random(4)))
    for _ in range(20):
        x = n.op("Relu", n.op("Conv", x, n.random(4, 4, 1, 1), n.random(4)))
    net = imported(tmp_path, n.model(n.op("Concat", early, x, axis=1)))
    assert layers(net) == "conv1_1: conv1-4 | conv1-4 ×20 | concat(@conv1_1, skip)"
    assert agrees(net)


def test_several_outputs_are_heads_on_a_trunk(tmp_path: Path) -> None:
    n = NetMaker(1, 4, 6, 6)
    trunk = n.op("GlobalAveragePool", n.op("Relu", n.op("Conv", "x", n.random(8, 4, 1, 1))))
    flat = n.op("Flatten", trunk)
    outputs = [n.op("Gemm", flat, n.random(8, size), n.random(size)) for size in (2, 4)]
    net = imported(tmp_path, n.model(*outputs))
    assert layers(net) == (
        f"conv1-8 bias=off | gap head {outputs[0]}: fc-2 head {outputs[1]}: fc-4"
    )
    assert agrees(net)


def test_a_net_of_tensorflow_has_its_channels_last(tmp_path: Path) -> None:
    n = NetMaker("N", 6, 8, 3)
    x = n.op("Transpose", n.op("Mul", "x", np.float32(1 / 255)), perm=[0, 3, 1, 2])
    x = n.op("Relu", n.op("Conv", x, n.random(4, 3, 3, 3), pads=[1, 1, 1, 1]))
    x = n.op("Transpose", x, perm=[0, 2, 3, 1])
    x = n.op("Relu", n.op("Add", n.op("MatMul", x, n.random(4, 5)), n.random(5)))
    x = n.op("MatMul", n.op("Reshape", x, np.array([-1, 240])), n.random(240, 7))
    net = imported(tmp_path, n.model(x))
    assert net.graph.input == (3, 6, 8)
    assert layers(net) == "scale bias=off | conv3-4 bias=off | conv1-5 | fc-7 bias=off"
    assert agrees(net)


def test_the_comment_tells_the_file_and_its_hash(tmp_path: Path) -> None:
    n = NetMaker(1, 4, 6, 6)
    net = imported(tmp_path, n.model(n.op("Relu", "x")))
    head = net.text.splitlines()
    assert head[0] == "# Imported by vggc from net.onnx,"
    assert head[1] == f"# SHA-256 {net.foreign.sha256}."
    assert head[2:4] == ["net net", "input 4x6x6"]
