"""An imported net is compared with what the original's own engine gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.importing.nets import NetMaker, agrees, imported
from vggc.api.import_ import ImportOptions, import_net
from vggc.backends.torch import reference
from vggc.importing.brightness import white_of
from vggc.importing.compare import (
    ForeignEngineError,
    ImportComparison,
    OutputDifference,
    compare,
)
from vggc.importing.net import ImportedNet
from vggc.support.diagnostics import UserError


@dataclass(frozen=True)
class Answering:
    """An engine that gives one answer."""

    answer: NDArray[np.float32]
    title: str = "an engine 1.0"
    output: str = "v1"

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        return {self.output: self.answer}


def net(folder: Path) -> ImportedNet:
    n = NetMaker(1, 2, 3, 4)
    return imported(folder, n.model(n.op("Flatten", n.op("Relu", "x"))))


def beside(found: ImportedNet, answer: NDArray[np.float32]) -> ImportComparison:
    foreign = replace(found.foreign, engine=lambda: Answering(answer))
    images = np.ones((1, 2, 3, 4), np.float32)
    compared = compare(replace(found, foreign=foreign), dict, {"ones": images})
    assert compared is not None
    return compared


def test_a_difference_is_told_by_its_output_and_its_size(tmp_path: Path) -> None:
    found = net(tmp_path)
    same = beside(found, np.ones((1, 24), np.float32))
    assert same.agrees
    assert (same.engine, same.worst.relative) == ("an engine 1.0", 0.0)
    answer = np.ones((1, 24), np.float32)
    answer[0, 3] = 1.5
    other = beside(found, answer)
    assert not other.agrees
    assert (other.worst.input, other.worst.output, other.worst.largest) == ("ones", "v1", 0.5)
    assert other.worst.relative == pytest.approx(0.5 / np.sqrt(23 + 1.5**2))


def test_rounding_that_the_net_itself_enlarges_is_no_difference(tmp_path: Path) -> None:
    """A normalisation of values that are nearly the same: float32 knows few of its digits."""
    n = NetMaker(1, 24, 2, 2)
    weights = np.ones(24, np.float32), np.zeros(24, np.float32)
    flat = n.op("Flatten", n.op("GlobalAveragePool", "x"))
    found = imported(tmp_path, n.model(n.op("LayerNormalization", flat, *weights, epsilon=1e-9)))
    images = 10 + 0.01 * np.random.default_rng(0).standard_normal((1, 24, 2, 2), np.float32)
    *_, exact = reference(found.graph, found.weights())(images).values()

    def difference(factor: float) -> OutputDifference:
        engine = Answering((exact * factor).astype(np.float32))
        foreign = replace(found.foreign, engine=lambda: replace(engine, output="v2"))
        compared = compare(replace(found, foreign=foreign), found.weights, {"flat": images})
        assert compared is not None
        return compared.worst

    rounding = difference(1.01).rounding
    assert 5 * rounding > 1e-5
    assert difference(1 + 5 * rounding).is_rounding
    assert difference(1 + 5 * rounding).agrees
    assert not difference(1 + 20 * rounding).agrees


def test_values_that_are_not_finite_agree_with_nothing(tmp_path: Path) -> None:
    assert not beside(net(tmp_path), np.full((1, 24), np.nan, np.float32)).agrees


def test_an_engine_that_fails_says_why(tmp_path: Path) -> None:
    found = net(tmp_path)

    def broken() -> Answering:
        raise RuntimeError("no such operator\nat node 3")

    spoilt = replace(found, foreign=replace(found.foreign, engine=broken))
    with pytest.raises(ForeignEngineError, match="no such operator"):
        compare(spoilt, dict, {"ones": np.ones((1, 2, 3, 4), np.float32)})


def test_nothing_is_written_where_weights_are_not_usable(tmp_path: Path) -> None:
    n = NetMaker(1, 2, 3, 4)
    weight = np.full((4, 2, 1, 1), np.inf, np.float32)
    imported(tmp_path, n.model(n.op("Conv", "x", weight)))
    options = ImportOptions(files=(str(tmp_path / "net.onnx"),), out=tmp_path / "got")
    with pytest.raises(UserError, match="hold NaN or infinity"):
        import_net(options, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_net_of_pixels_is_given_pixels(tmp_path: Path) -> None:
    n = NetMaker("N", 3, 6, 6)
    shares = n.op("Div", n.op("Cast", "x", to=TensorProto.FLOAT), np.float32(255))
    model = n.model(n.op("Conv", shares, n.random(2, 3, 1, 1), n.random(2)))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    path = tmp_path / "pixels.onnx"
    onnx.save(model, path)
    told: list[str] = []
    found = import_net(ImportOptions(files=(str(path),), out=tmp_path / "out"), told.append)
    assert found.comparison is not None
    assert found.comparison.agrees
    assert told[0].startswith("preprocessing: values from 0 to 255")
    how = found.net.foreign.facts.preprocessing
    assert how is not None
    assert (how.mean, how.std) == ((0, 0, 0), (1 / 255,) * 3)


@pytest.mark.parametrize(
    ("mean", "deviation", "white"), [(0.485, 0.229, 1), (127.5, 127.5, 255), (103.9, 1.0, 255)]
)
def test_a_net_that_normalises_its_pictures_tells_what_white_is(
    tmp_path: Path, mean: float, deviation: float, white: int
) -> None:
    n = NetMaker("N", 3, 6, 6)
    centred = n.op("Sub", "x", np.full((3, 1, 1), mean, np.float32))
    spread = n.op("Div", centred, np.full((3, 1, 1), deviation, np.float32))
    found = imported(tmp_path, n.model(n.op("Conv", spread, n.random(2, 3, 1, 1), n.random(2))))
    assert white_of(found.items) == white


def test_a_net_in_halves_agrees_to_their_digits(tmp_path: Path) -> None:
    n = NetMaker(1, 2, 3, 4)
    found = imported(tmp_path, n.model(n.op("Cast", n.op("Relu", "x"), to=TensorProto.FLOAT16)))
    assert beside(found, np.full((1, 2, 3, 4), 1.0004, np.float32)).agrees
    assert not beside(found, np.full((1, 2, 3, 4), 1.01, np.float32)).agrees


def test_an_input_that_nothing_reads_is_left_out(tmp_path: Path) -> None:
    n = NetMaker("N", 2, 3, 4)
    model = n.model(n.op("Conv", "x", n.random(2, 2, 1, 1), n.random(2)))
    model.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    assert agrees(imported(tmp_path, model))


def test_channels_that_are_left_open_are_those_that_the_first_layer_reads(tmp_path: Path) -> None:
    n = NetMaker("N", "C", 3, 4)
    found = imported(tmp_path, n.model(n.op("Conv", "x", n.random(2, 1, 1, 1), n.random(2))))
    assert found.graph.input == (1, 3, 4)
