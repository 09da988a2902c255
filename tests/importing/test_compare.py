"""An imported net is compared with what the original's own engine gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.importing.nets import NetMaker, imported
from vggc.api.import_ import ImportOptions, import_net
from vggc.importing.compare import ForeignEngineError, ImportComparison, compare
from vggc.importing.net import ImportedNet
from vggc.support.diagnostics import UserError


@dataclass(frozen=True)
class Answering:
    """An engine that gives one answer."""

    answer: NDArray[np.float32]
    title: str = "an engine 1.0"

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        return {"v1": self.answer}


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
