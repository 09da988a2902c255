"""The benchmark of training on a card, tried on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT
from vggc.training.progress import Epoch

SCRIPT = ROOT / "benchmarks" / "gpu_train.py"
WITHOUT_TVM = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def found(name, path=None, target=None):
    hidden = name.partition(".")[0] in ("tvm", "tvm_ffi", "onnx")
    return None if hidden else find_spec(name, path, target)

PathFinder.find_spec = found
"""


@pytest.fixture(scope="module")
def gpu_train() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield import_module("gpu_train")


@pytest.mark.slow
def test_small_nets_go_all_the_way_where_there_is_no_tvm(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TVM, encoding="utf-8")
    command = [sys.executable, str(SCRIPT), "--small", "--device", "cpu", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    numbers = json.loads((tmp_path / "out.json").read_text())
    (row,) = numbers["rows"]
    assert row["missing"] == {}
    assert set(row["speeds"]) == {"vggc", "eager", "compiled", "compiled, graphs"}
    assert all(speed > 0 for speeds in row["speeds"].values() for speed in speeds)
    assert numbers["goal"]["epoch"] == 1
    assert numbers["goal"]["seconds"] > 0
    assert "| tiny_vgg | 8 | vggc | " in done.stdout


def epoch(number: int, top1: float) -> Epoch:
    return Epoch(
        epoch=number,
        step=10 * number,
        lr=0.1,
        train_loss=1.0,
        val_loss=1.0,
        val_top1=top1,
        images_per_second=100.0 * number,
        seconds=5.0,
    )


def test_a_goal_is_reached_by_the_first_epoch_that_is_good_enough(gpu_train: ModuleType) -> None:
    rows = tuple(epoch(index, top1) for index, top1 in enumerate((0.5, 0.94, 0.93), 1))
    goal = gpu_train.Goal.of("net", 0.935, rows)
    assert (goal.epoch, goal.seconds, goal.best, goal.epochs) == (2, 10.0, 0.94, 3)
    missed = gpu_train.Goal.of("net", 0.95, rows)
    assert (missed.epoch, missed.seconds) == (None, None)
    assert gpu_train.Goal.of("net", 0.95, ()).best == 0.0


def test_speeds_are_told_beside_vggc_and_beside_the_card(gpu_train: ModuleType) -> None:
    speeds = {"vggc": [200.0, 190.0, 900.0], "eager": [100.0]}
    row = gpu_train.TrainingSpeed("vgg16", 256, 30.0, speeds, {"compiled": "out of memory"})
    about = {
        "date": "2026-01-02",
        "machine": "a card",
        "command": "python benchmarks/gpu_train.py",
        "versions": {"vggc": "1.2"},
        "operations_per_second": 72e12,
        "goal": vars(gpu_train.Goal.of("net", 0.9, (epoch(1, 0.95),))),
    }
    text = gpu_train.markdown(about, [row])
    assert "| vgg16 | 256 | vggc | 200.0 | 25% | 1.00 |" in text
    assert "| vgg16 | 256 | eager | 100.0 | 12% | 2.00 |" in text
    assert "- vgg16, compiled: out of memory" in text
    assert "top-1 0.9 after 5 s, in epoch 1." in text
