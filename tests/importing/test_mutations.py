"""Nets of enemies, and files of every form changed by a program: read or refused, soon."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import numpy as np
import onnx
import pytest

from tests.importing.nets import NetMaker, imported
from tests.support import mutations
from tests.support.mutations import MutatedForm, forms, run
from vggc.importing.net import import_foreign
from vggc.importing.onnx_file import read_onnx
from vggc.support.diagnostics import UserError


def refusal(folder: Path, model: onnx.ModelProto) -> str:
    with pytest.raises(UserError) as caught:
        imported(folder, model).weights()
    return str(caught.value)


def test_changed_files_of_every_form_are_read_or_refused() -> None:
    """`python -m tests.support.mutations 10000` does more of it."""
    found = run(480, seed=7)
    assert not found.defects
    assert all(found.refused[name] > 3 for name in forms())


@pytest.mark.slow
def test_a_list_of_names_that_keeps_hdf5_busy_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    start = process_time()
    assert mutations.read_one(forms()["h5"], tmp_path, mutations.draw(2, "h5", 1060)) == "refused"
    assert process_time() - start < 2


def hangs(folder: Path) -> None:
    while True:
        pass


def eats(folder: Path) -> None:
    np.ones(400 << 20, np.uint8)


def breaks(folder: Path) -> None:
    raise KeyError("net")


@pytest.mark.parametrize(
    ("read", "what"),
    [(hangs, "seconds of the processor's"), (eats, "MiB of memory"), (breaks, "KeyError: 'net'")],
)  # fmt: skip
def test_whatever_else_comes_of_a_file_is_told(
    read: object, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if read is hangs:
        monkeypatch.setattr(mutations, "SECONDS", 0.3)
    form = MutatedForm({"x": b"xyz"}, {"x": lambda _, data: data}, read)  # type: ignore[arg-type]
    found = run(1, known={"form": form})
    assert [each.form for each in found.defects] == ["form"]
    assert what in found.defects[0].what


def test_an_empty_tensor_may_not_have_axes_without_bounds(tmp_path: Path) -> None:
    """NumPy has no such arrays, empty as they are."""
    net = NetMaker(1, 3, 8, 8)
    model = net.model(net.op("Conv", "x", net.random(4, 3, 3, 3)))
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([0, 1 << 62, 1 << 62, 3])
    model.graph.initializer[0].raw_data = b""
    assert "the tensor `c0` has no possible shape" in refusal(tmp_path, model)


def test_a_constant_of_no_number_is_added_to_nothing(tmp_path: Path) -> None:
    net = NetMaker(1, 3, 8, 8)
    none = net.op("Tile", net.random(1), np.array([0]))
    assert "its constant holds no number" in refusal(tmp_path, net.model(net.op("Mul", "x", none)))


@pytest.mark.parametrize("kind", ["Max", "Min", "Add"])
def test_constants_that_spread_over_one_another_are_bounded(tmp_path: Path, kind: str) -> None:
    net = NetMaker(1, 3, 8, 8)
    large = net.op(kind, net.random(1 << 15, 1), net.random(1, 1 << 15))
    text = refusal(tmp_path, net.model(net.op("Mul", "x", large)))
    assert "1,073,741,824 values are too many" in text


def test_axes_are_bounded(tmp_path: Path) -> None:
    net = NetMaker(1, 3, 8, 8)
    at = "x"
    for _ in range(61):
        at = net.op("Unsqueeze", at, np.array([0]))
    assert "it would give more than 64 axes" in refusal(tmp_path, net.model(at))


def test_scales_of_another_axis_are_refused(tmp_path: Path) -> None:
    net = NetMaker(1, 3, 8, 8)
    numbers, scales = np.ones((1, 1 << 15), np.int8), np.ones(1 << 15, np.float32)
    large = net.op("DequantizeLinear", numbers, scales, axis=0)
    text = refusal(tmp_path, net.model(net.op("Mul", "x", large)))
    assert "its scales are not one for each place of its axis" in text


def test_long_chains_take_time_in_proportion(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        net = NetMaker(1, 3, 8, 8)
        at = "x"
        for _ in range(count // 2):
            at = net.op("Tanh", net.op("Sigmoid", at))
        path = tmp_path / f"{count}.onnx"
        onnx.save(net.model(at), path)
        start = process_time()
        assert import_foreign(read_onnx(path)).text.count("tanh") == count // 2
        return process_time() - start

    assert seconds(1600) < 10 * seconds(400)
