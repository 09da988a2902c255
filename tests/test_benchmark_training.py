"""The table that compares vggc's training with plain loops."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tests.support import ROOT

SCRIPT = ROOT / "benchmarks" / "training.py"


@pytest.mark.slow
def test_a_small_net_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = spec_from_file_location("benchmarks_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    training = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, training)
    spec.loader.exec_module(training)
    monkeypatch.setattr(training, "CASES", (training.Case("vgg_tiny_cifar", 2, 2),))
    monkeypatch.setattr(training, "keep_memory", lambda: None)
    options = ["--device", "cpu", "--threads", "1", "--rounds", "2", "--precision", "float32"]
    options += ["--peak-tflops", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["training.py", *options])
    training.main()
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    names = (training.OURS, training.PLAIN, training.TUNED)
    assert [len(row["speeds"][name]) for name in names] == [2, 2, 2]
    assert all(speed > 0 for speeds in row["speeds"].values() for speed in speeds)
    assert "| vgg_tiny_cifar | 2 | float32 |" in (tmp_path / "out.md").read_text()
