"""Each operator of ONNX becomes what a person would write, and computes what ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, TensorProto, helper

from tests.importing.nets import NetMaker, agrees, imported, layers
from vggc.support.diagnostics import UserError

Build = Callable[[NetMaker], str]


def conv(width: int, reads: int, rows: int, columns: int, **attributes: object) -> Build:
    return lambda n: n.op("Conv", "x", n.random(width, reads, rows, columns), **attributes)


def behind_conv(width: int, then: Callable[[NetMaker, str], str]) -> Build:
    return lambda n: then(n, n.op("Conv", "x", n.random(width, 4, 1, 1), n.random(width)))


WINDOWS: dict[str, Build] = {
    "conv3-8 padding=0 bias=off": conv(8, 4, 3, 3),
    "conv3-8 bias=off": conv(8, 4, 3, 3, pads=[1, 1, 1, 1]),
    "conv1x7-8 bias=off": conv(8, 4, 1, 7, pads=[0, 3, 0, 3]),
    "conv4-8 stride=2 bias=off": conv(8, 4, 4, 4, pads=[1, 1, 2, 2], strides=[2, 2]),
    "conv3-8 stride=2 padding=0x0x1x1 bias=off": conv(
        8, 4, 3, 3, strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "conv3-8 stride=2 bias=off": conv(8, 4, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2]),
    "conv3-8 dilation=2 groups=2 bias=off": conv(
        8, 2, 3, 3, pads=[2, 2, 2, 2], dilations=[2, 2], group=2
    ),
    "deconv4-6 stride=2 bias=off": lambda n: n.op(
        "ConvTranspose", "x", n.random(4, 6, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "deconv3-6 stride=2 bias=off": lambda n: n.op(
        "ConvTranspose",
        "x",
        n.random(4, 6, 3, 3),
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    "pool": lambda n: n.op("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2]),
    "pool3 stride=2 round=up": lambda n: n.op(
        "MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]
    ),
    "avgpool3x2 stride=1 padding=1 border=zeros": lambda n: n.op(
        "AveragePool", "x", kernel_shape=[3, 2], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "gap": lambda n: n.op("AveragePool", "x", kernel_shape=[8, 12]),
    "pad padding=1x2 border=reflect": lambda n: n.op(
        "Pad", "x", np.array([0, 0, 1, 2, 0, 0, 1, 2]), mode="reflect"
    ),
}

VALUES: dict[str, Build] = {
    "conv1-8 act=leaky slope=0.1": behind_conv(8, lambda n, x: n.op("LeakyRelu", x, alpha=0.1)),
    "conv1-8 act=relu6": behind_conv(8, lambda n, x: n.op("Clip", x, np.float32(0), np.float32(6))),
    "conv1-8 act=silu": behind_conv(8, lambda n, x: n.op("Mul", x, n.op("Sigmoid", x))),
    "conv1-8 act=gelu": behind_conv(
        8,
        lambda n, x: n.op(
            "Mul",
            n.op(
                "Mul",
                x,
                n.op("Add", n.op("Erf", n.op("Div", x, np.float32(2**0.5))), np.float32(1)),
            ),
            np.float32(0.5),
        ),
    ),
    "conv1-8 act=prelu": behind_conv(8, lambda n, x: n.op("PRelu", x, n.random(8, 1, 1))),
    "conv1-8 norm=batch eps=0.001 act=relu": behind_conv(
        8,
        lambda n, x: n.op(
            "Relu",
            n.op(
                "BatchNormalization",
                x,
                *(n.random(8, low=0.5) for _ in range(4)),
                epsilon=1e-3,
            ),
        ),
    ),
    "conv1-8": behind_conv(
        8, lambda n, x: n.op("Add", n.op("Mul", x, n.random(8, 1, 1)), n.random(1, 8, 1, 1))
    ),
    "conv1-8 | scale bias=off": behind_conv(8, lambda n, x: n.op("Mul", x, n.random(8, 1, 1))),
    "lrn alpha=2e-5 k=1": lambda n: n.op("LRN", "x", size=5, alpha=1e-4, beta=0.75, bias=1.0),
    "clip min=-1 max=1": lambda n: n.op("Clip", "x", np.float32(-1), np.float32(1)),
    "hardsigmoid": lambda n: n.op("HardSigmoid", "x", alpha=1 / 6, beta=0.5),
    "conv1-8 act=hardswish": behind_conv(8, lambda n, x: n.op("HardSwish", x)),
    "conv1-8 act=mish": behind_conv(
        8, lambda n, x: n.op("Mul", x, n.op("Tanh", n.op("Softplus", x)))
    ),
    "softmax2d": lambda n: n.op("Softmax", "x", axis=1),
    "shuffle groups=2 | conv1-8 bias=off": lambda n: n.op(
        "Conv",
        n.op(
            "Reshape",
            n.op(
                "Transpose",
                n.op("Reshape", "x", np.array([0, 2, 2, 8, 12])),
                perm=[0, 2, 1, 3, 4],
            ),
            np.array([0, -1, 8, 12]),
        ),
        n.random(8, 4, 1, 1),
    ),
    "upsample2": lambda n: n.op(
        "Resize",
        "x",
        "",
        np.array([1, 1, 2, 2], np.float32),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "upsample2x1 mode=bilinear": lambda n: n.op(
        "Resize", "x", "", np.array([1, 1, 2, 1], np.float32), mode="linear"
    ),
    "layernorm": lambda n: n.op(
        "Transpose",
        n.op(
            "LayerNormalization",
            n.op("Transpose", "x", perm=[0, 2, 3, 1]),
            n.random(4),
            n.random(4),
            epsilon=1e-6,
        ),
        perm=[0, 3, 1, 2],
    ),
    "groupnorm groups=2": lambda n: n.op(
        "Add",
        n.op(
            "Mul",
            n.op(
                "Reshape",
                n.op(
                    "InstanceNormalization",
                    n.op("Reshape", "x", np.array([0, 2, -1])),
                    np.ones(2, np.float32),
                    np.zeros(2, np.float32),
                ),
                n.op("Shape", "x"),
            ),
            n.random(4, 1, 1),
        ),
        n.random(4, 1, 1),
    ),
}

ROUND = [np.array([each]) for each in (-1, -(2**63) + 1, 1, -1)]
"""What turns the order of channels round."""


def parted() -> Build:
    """Channels that an operator takes apart, that another cuts out, and that are picked."""

    def build(n: NetMaker) -> str:
        whole = n.op("Conv", "x", n.random(9, 4, 1, 1))
        first, _ = n.parts("Split", whole, np.array([3, 6]), axis=1)
        cut = n.op("Slice", whole, *(np.array([each]) for each in (-9, 7, 1)))
        return n.op("Concat", first, cut, n.op("Gather", whole, np.array([-1]), axis=1), axis=1)

    return build


PATHS: dict[str, Build] = {
    "add(conv1-4 act=none, skip)": lambda n: n.op(
        "Add", n.op("Conv", "x", n.random(4, 4, 1, 1), n.random(4)), "x"
    ),
    "mul(skip, gap | fc-4 act=sigmoid)": lambda n: n.op(
        "Mul",
        n.op(
            "Sigmoid",
            n.op("Conv", n.op("GlobalAveragePool", "x"), n.random(4, 4, 1, 1), n.random(4)),
        ),
        "x",
    ),
    "scale | conv3-5 act=relu": lambda n: n.op(
        "Relu",
        n.op(
            "Conv",
            n.op(
                "Pad",
                n.op("Sub", n.op("Gather", "x", np.array([2, 3, 1, 0]), axis=1), n.random(4, 1, 1)),
                np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            ),
            n.random(5, 4, 3, 3),
            n.random(5),
        ),
    ),
    "conv1-5 act=none | add(skip, skip) | scale bias=off": lambda n: n.op(
        "Mean",
        *[n.op("Conv", n.op("Slice", "x", *ROUND), n.random(5, 4, 1, 1), n.random(5))] * 2,
    ),
    "conv1-5 bias=off": lambda n: n.op(
        "Conv", "x", n.op("Div", w := n.random(5, 4, 1, 1), n.op("ReduceL2", w, axes=[1, 2, 3]))
    ),
    "elu slope=2 | relu": lambda n: n.op(
        "Relu", n.op("AveragePool", n.op("Elu", "x", alpha=2.0), kernel_shape=[1, 1])
    ),
    "elu slope=1.673263 | scale bias=off": lambda n: n.op("Selu", "x"),
    "concat(skip, conv1-2, pool3 stride=1 padding=1)": lambda n: n.op(
        "Concat",
        "x",
        n.op("Relu", n.op("Conv", "x", n.random(2, 4, 1, 1), n.random(2))),
        n.op("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        axis=1,
    ),
    "conv1-9 bias=off act=none | "
    "concat(take part=1 of=3, take channels=0..6, take channels=8)": parted(),
    "gap | fc-3 | softmax": lambda n: n.op(
        "Softmax",
        n.op("Gemm", n.op("ReduceMean", "x", axes=[2, 3], keepdims=0), n.random(4, 3), n.random(3)),
    ),
    "fc-3 act=tanh": lambda n: n.op(
        "Tanh",
        n.op(
            "Add",
            n.op(
                "MatMul",
                n.op(
                    "Reshape", n.op("Transpose", "x", perm=[0, 2, 3, 1]), np.array([-1, 8 * 12 * 4])
                ),
                n.random(8 * 12 * 4, 3),
            ),
            n.random(3),
        ),
    ),
}


CASES = WINDOWS | VALUES | PATHS


@pytest.mark.parametrize(("text", "build"), CASES.items(), ids=CASES.keys())
def test_an_operator_reads_as_a_person_writes_it(tmp_path: Path, text: str, build: Build) -> None:
    maker = NetMaker("N", 4, 8, 12)
    net = imported(tmp_path, maker.model(build(maker)))
    assert layers(net) == text
    assert agrees(net)


def branch() -> GraphProto:
    """A net within the net, which alone reads the image."""
    gives = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    return helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], gives)


REFUSED: dict[str, Build] = {
    "a `Split`": lambda n: n.op("Split", "x", np.array([7, 1]), axis=2),
    "a `Slice`": lambda n: n.op("Slice", "x", *(np.array([each]) for each in (0, 4, 1, 2))),
    "a `Gather`": lambda n: n.op("Gather", "x", np.array([1, 0] * 6), axis=3),
    "rounding to whole numbers": lambda n: n.op("Cast", "x", to=TensorProto.INT32),
    "`mine.Block`": lambda n: n.op("Block", "x", domain="mine"),
    "`If`": lambda n: n.op("If", np.array(True), then_branch=branch(), else_branch=branch()),
    "a dilated pool": lambda n: n.op("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]),
    "a quotient of two values": lambda n: n.op("Div", "x", n.op("Sigmoid", "x")),
    "a power": lambda n: n.op("Pow", "x", np.float32(3)),
    "a `Softmax` along axis 3": lambda n: n.op("Softmax", "x", axis=3),
    "a `Concat` along axis 2": lambda n: n.op("Concat", "x", "x", axis=2),
    "a constant divided by what depends on the image": lambda n: n.op(
        "Div", np.float32(1), n.op("Sigmoid", "x")
    ),
    "this `Conv`": lambda n: n.op("Conv", "x", n.random(2, 3, 1, 1)),
}


@pytest.mark.parametrize(("what", "build"), REFUSED.items(), ids=REFUSED.keys())
def test_what_cannot_be_said_is_named_with_its_place(
    tmp_path: Path, what: str, build: Build
) -> None:
    maker = NetMaker("N", 4, 8, 12)
    last = build(maker)
    with pytest.raises(UserError) as caught:
        imported(tmp_path, maker.model(maker.op("Relu", last)))
    message = str(caught.value)
    assert f"vggc has no word for {what}" in message
    total = len(maker.nodes)
    assert f"node {total - 1} of {total}, `nv{total - 2}`, which reads `" in message
