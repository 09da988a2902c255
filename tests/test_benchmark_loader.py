"""The benchmark of the loader compares what is the same, and tells it as it was."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.support import ROOT
from vggc.data.find import find_images
from vggc.data.prepare import Data, prepare

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield import_module("loader")
    for name in ("loader", "cpu", "saving"):
        del sys.modules[name]


def test_ratios_are_of_medians(loader: ModuleType) -> None:
    case = loader.Case("64×48", (64, 48), (32, 40), 24, 8)
    row = loader.Row(case, {"plain": [100.0, 90.0, 10.0], "vggc": [170.0, 180.0, 999.0]})
    about = {
        "date": "2026-01-02 03:04",
        "cpu": "A CPU",
        "processors": 4,
        "workers": 2,
        "threads": 1,
        "batch": 64,
        "command": "python benchmarks/loader.py",
        "versions": {"vggc": "1.2", "torch": "3.4"},
    }
    text = loader.markdown(about, [row])
    assert "| 64×48 | 24×24 at scale 32 to 40 | 90 | 180 (**2.00**) | – |" in text
    assert "A CPU, 4 processors, 2 workers" in text
    assert "    python benchmarks/loader.py" in text


def images(loader: ModuleType, case: object, folder: Path) -> Data:
    loader.write_photographs(folder, case)
    return prepare(find_images(folder, seed=0), (3, 24, 24), (32, 40), room=0)


def test_both_loaders_give_the_same_kind_of_batches(
    loader: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random.seed(0)
    torch.manual_seed(0)
    case = loader.Case("64×48", (64, 48), (32, 40), 24, 80)
    data = images(loader, case, tmp_path)
    found: dict[str, torch.Tensor] = {}
    for name in ("plain", "vggc"):
        kept: list[torch.Tensor] = []
        monkeypatch.setattr(loader, "summary", kept.extend)
        getattr(loader, f"{name}_epoch")(data, case, 8, 0)()
        assert [batch.dtype for batch in kept] == [torch.float32] * 8
        found[name] = torch.cat(kept)
    assert found["plain"].shape == found["vggc"].shape == (64, 3, 24, 24)
    for measure in (torch.mean, torch.std):
        ours, theirs = (measure(found[name], dim=(0, 2, 3)) for name in ("vggc", "plain"))
        assert torch.allclose(ours, theirs, atol=0.15)


def test_a_loader_that_loses_images_is_refused(loader: ModuleType, tmp_path: Path) -> None:
    case = loader.Case("64×48", (64, 48), (32, 40), 24, 10)
    data = images(loader, case, tmp_path)
    loader.check(data, case, {"whole": lambda: [torch.tensor([8.0, 0.0])]})
    with pytest.raises(SystemExit, match="less gives 7 images of 8"):
        loader.check(data, case, {"less": lambda: [torch.tensor([7.0, 0.0])]})


def test_photographs_are_of_about_the_size_that_is_told(loader: ModuleType, tmp_path: Path) -> None:
    case = loader.Case("64×48", (64, 48), (32, 40), 24, 10)
    loader.write_photographs(tmp_path, case)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len({path.read_bytes() for path in files}) == len(files) == 10
    for path in files:
        with Image.open(path) as image:
            assert 57 <= image.width <= 71
            assert 43 <= image.height <= 53


@pytest.mark.slow
def test_it_runs_from_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "loader.py"), "--cases", "32×32", "--rounds", "1"]
    command += ["--images", "512"]
    done = subprocess.run(
        [*command, "--workers", "1", "--out", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| 32×32 | 32×32 at scale 36 | " in done.stdout
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {name: len(speeds) for name, speeds in row["speeds"].items()} == {
        "plain": 1,
        "vggc": 1,
        "vggc, kept": 1,
    }
