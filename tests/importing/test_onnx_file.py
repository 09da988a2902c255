"""ONNX files are read without their weights; of hostile ones it is told what is wrong."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import extract_model

from tests.importing.nets import NetMaker
from vggc.backends.onnx import save_onnx
from vggc.importing.net import import_foreign
from vggc.importing.onnx_file import read_onnx
from vggc.importing.translation import MAX_NODES
from vggc.ir.weights import seeded
from vggc.program import load
from vggc.support.diagnostics import UserError


def model() -> onnx.ModelProto:
    maker = NetMaker(1, 2, 4, 4)
    features = maker.op("Flatten", maker.op("Conv", "x", maker.random(3, 2, 3, 3)))
    return maker.model(maker.op("Gemm", features, maker.random(12, 5)))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_foreign(read_onnx(path)).weights()
    return str(caught.value)


def test_tensors_stay_in_the_file_until_somebody_wants_them(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model(), path)
    found = read_onnx(path)
    assert found.model.ByteSize() < 400
    assert [tensor.shape for tensor in found.tensors.values()] == [(3, 2, 3, 3), (12, 5)]
    expected = numpy_helper.to_array(model().graph.initializer[0])
    assert np.array_equal(found.tensors["c0"].read(), expected)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="become shorter"):
        found.tensors["c1"].read()


def test_a_net_that_is_cut_off_as_the_manual_says_comes_in(tmp_path: Path) -> None:
    """Before the operator that there is no word for, at what its refusal says that it reads."""
    maker = NetMaker(1, 2, 4, 4)
    maps = maker.op("Conv", "x", maker.random(3, 2, 3, 3))
    onnx.save(maker.model(maker.op("Det", maps)), tmp_path / "model.onnx")
    (read,) = re.findall(r"which reads `(\w+)`", refusal(tmp_path / "model.onnx"))
    cut = tmp_path / "cut.onnx"
    extract_model(tmp_path / "model.onnx", cut, ["x"], [read], check_model=False)
    assert "conv3-3" in import_foreign(read_onnx(cut)).text


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_weights_of_other_types_become_float32(tmp_path: Path, kind: int) -> None:
    net = model()
    for tensor in net.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        made = helper.make_tensor(tensor.name, kind, values.shape, values.reshape(-1))
        tensor.CopyFrom(made)
    onnx.save(net, tmp_path / "net.onnx")
    weights = import_foreign(read_onnx(tmp_path / "net.onnx")).weights()
    assert {values.dtype for values in weights.values()} == {np.dtype("f4")}
    first = numpy_helper.to_array(model().graph.initializer[0])
    assert np.allclose(weights["conv1_1.weight"], first, atol=0.01)


def test_weights_may_lie_beside_the_file_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    weights = import_foreign(read_onnx(path)).weights()
    first = numpy_helper.to_array(model().graph.initializer[0])
    assert np.array_equal(weights["conv1_1.weight"], first)
    os.truncate(folder / "w.bin", 100)
    assert "is to be 216 bytes at 0 of `w.bin`, which has 100" in refusal(path)
    (folder / "w.bin").rename(tmp_path / "w.bin")
    assert "its tensors lie in `w.bin`: No such file" in refusal(path)
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    assert "leads out of the net's own folder" in refusal(path)
    for place in ("../w.bin", "/etc/passwd", "a/../../w.bin"):
        net = onnx.load(path, load_external_data=False)
        for tensor in net.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = place
        path.write_bytes(net.SerializeToString())
        assert "no file in the net's own folder" in refusal(path)
    path.write_bytes(net.SerializeToString().replace(b"a/../../w.bin", b"a/\xff./../w.bin"))
    assert "is no text" in refusal(path)


def large_shape(net: onnx.ModelProto) -> None:
    net.graph.initializer[0].dims[0] = 1 << 40


def negative_shape(net: onnx.ModelProto) -> None:
    net.graph.initializer[0].dims[0] = -3


def cycle(net: onnx.ModelProto) -> None:
    net.graph.node[0].input[1] = net.graph.node[1].output[0]


def twice(net: onnx.ModelProto) -> None:
    net.graph.node[1].output[0] = net.graph.node[0].output[0]


def not_finite(net: onnx.ModelProto) -> None:
    values = np.full((3, 2, 3, 3), np.nan, np.float32)
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "c0"))


def filled(net: onnx.ModelProto) -> None:
    sizes = numpy_helper.from_array(np.array([1 << 30, 1 << 30]), "sizes")
    net.graph.initializer.append(sizes)
    net.graph.node.insert(0, helper.make_node("ConstantOfShape", ["sizes"], ["large"]))


def doubled(net: onnx.ModelProto) -> None:
    """Each sum reads the one before it twice: 2⁴⁰ sums of a large tensor."""
    net.graph.initializer.append(numpy_helper.from_array(np.zeros((300, 300), np.float32), "s0"))
    for index in reversed(range(40)):
        node = helper.make_node("Add", [f"s{index}"] * 2, [f"s{index + 1}"])
        net.graph.node.insert(0, node)


def two_inputs(net: onnx.ModelProto) -> None:
    net.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    net.graph.node[2].input[1] = "y"


def other_operators(net: onnx.ModelProto) -> None:
    net.graph.node[0].domain = "com.microsoft"


def old(net: onnx.ModelProto) -> None:
    net.opset_import[0].version = 3


def many_nodes(net: onnx.ModelProto) -> None:
    net.graph.node.extend([onnx.NodeProto()] * (MAX_NODES + 1))


def open_size(net: onnx.ModelProto) -> None:
    net.graph.input[0].type.tensor_type.shape.dim[2].ClearField("dim_value")


HOSTILE: dict[str, Callable[[onnx.ModelProto], None]] = {
    "the tensor `c0` is to be 1099511627776×2×3×3": large_shape,
    "the tensor `c0` has no possible shape": negative_shape,
    "node 1 of 3, `nv0` reads `v1`, which nothing before it gives": cycle,
    "node 2 of 3, `nv1` gives `v0`, which there is already": twice,
    "the weights of conv1_1 in net.onnx hold NaN or infinity": not_finite,
    "1,152,921,504,606,846,976 values are too many": filled,
    "its weights are computed in too many steps": doubled,
    "it has 2 inputs (`x`, `y`)": two_inputs,
    "vggc has no word for `com.microsoft.Conv`": other_operators,
    "it is of opset 3, and those from 7 on are read": old,
    "it has more than 50,000 nodes": many_nodes,
    "say which: `--input 224` or `--input 480x640`": open_size,
}


@pytest.mark.parametrize(
    ("said", "spoil"), HOSTILE.items(), ids=[f.__name__ for f in HOSTILE.values()]
)
def test_what_is_wrong_with_a_file_is_told(
    tmp_path: Path, said: str, spoil: Callable[[onnx.ModelProto], None]
) -> None:
    net = model()
    spoil(net)
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString())
    assert said in refusal(path)


def test_damaged_files_are_refused_and_never_more_than_that(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    graph = load("resnet18(width=0.02, classes=3)").graph
    save_onnx(graph, seeded(graph, 0), path, {})
    whole = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for turn in range(60):
        spoilt = bytearray(whole[: draw.randrange(len(whole))] if turn % 3 == 0 else whole)
        for _ in range(draw.choice([1, 2, 8])):
            spoilt[draw.randrange(min(len(spoilt), 4000))] = draw.randrange(256)
        path.write_bytes(spoilt)
        try:
            import_foreign(read_onnx(path))
        except UserError:
            refused += 1
    assert refused > 30
