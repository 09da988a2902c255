"""The table that compares vggc with every other engine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.support import ROOT
from vggc.measure.engines import PEERS, Engine, Peer, Setup

SCRIPT = ROOT / "benchmarks" / "cpu.py"


@pytest.fixture(scope="module")
def cpu() -> ModuleType:
    spec = spec_from_file_location("benchmarks_cpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        spec.loader.exec_module(module)
    return module


ABOUT = {
    "date": "2026-01-02 03:04",
    "cpu": "A CPU",
    "processors": 4,
    "threads": 2,
    "rounds": 3,
    "command": "python benchmarks/cpu.py",
    "versions": {"vggc": "1.2", "torch": "3.4"},
}


def test_ratios_are_of_medians_and_the_best_peer_is_the_fastest(cpu: ModuleType) -> None:
    times = {"vggc": [4.0, 90.0, 5.0], "torch": [20.0, 20.0, 10.0], "ncnn": [8.0, 8.0, 7.0]}
    errors = {"torch": 1e-7, "ncnn": 2e-6}
    row = cpu.Row(cpu.Case("vgg16", 4, "float32"), times, errors)
    text = cpu.markdown(ABOUT, [row])
    assert "| net | batch | vggc, ms | torch | ncnn | best peer | vggc / best |" in text
    assert "| vgg16 | 4 | 5.0 | 0.25 | 0.62 | ncnn, 8.0 ms | **0.62** |" in text
    assert "torch 1.0e-07, ncnn 2.0e-06" in text
    assert "ncnn knows no batch" in text
    assert "A CPU, 4 processors; vggc 1.2, torch 3.4" in text
    assert "    python benchmarks/cpu.py" in text


def test_whoever_is_missing_is_named_with_the_reason(cpu: ModuleType) -> None:
    whole = cpu.Row(
        cpu.Case("vgg11", 1, "float32"),
        {"vggc": [2.0], "torch": [4.0]},
        {"torch": 1e-7},
        {"mnn": "`import MNN` fails"},
    )
    failed = cpu.Row(cpu.Case("vgg13", 1, "float32"), missing={"vggc": "does not compile: why"})
    text = cpu.markdown(ABOUT, [whole, failed])
    assert "- vgg11, batch 1: mnn: `import MNN` fails" in text
    assert "- vgg13, batch 1: vggc: does not compile: why" in text
    assert "| vgg13 | 1 | – | – | – | – |" in text


def test_each_precision_has_its_own_table_and_tells_its_top1(cpu: ModuleType) -> None:
    rows = [
        cpu.Row(cpu.Case("vgg11", 1, precision), {"vggc": [1.0], peer: [2.0]}, {peer: 0.1})
        for precision, peer in (("float32", "torch"), ("int8", "openvino-int8"))
    ]
    judged = cpu.Row(rows[1].case, rows[1].milliseconds, rows[1].errors, {}, {"vggc": 0.98})
    text = cpu.markdown(ABOUT, [rows[0], judged])
    float32, int8 = text.split("## int8")
    assert "openvino-int8" not in float32
    assert "- vgg11, batch 1: vggc 98%" in int8


def test_a_cpu_has_a_name_on_every_system(cpu: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    assert cpu.cpu_name(path) in (platform.processor(), platform.machine())
    path.write_text("processor\t: 0\nmodel name\t: \nFeatures\t: asimd\n")
    assert cpu.cpu_name(path) in (platform.processor(), platform.machine())
    path.write_text("processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nmodel name\t: Another\n")
    assert cpu.cpu_name(path) == "A CPU @ 3 GHz"


def test_an_engine_that_cannot_be_judged_does_not_lose_the_others(
    cpu: ModuleType,
    tiny_artifact: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: Setup) -> Engine:
        raise MemoryError("too many images")

    monkeypatch.setitem(PEERS, "broken", Peer((), broken, ""))
    for part in ("calibrated", "judged"):
        (tmp_path / part).mkdir()
        for grey in (10, 90, 200):
            Image.new("RGB", (20, 20), (grey, grey, 50)).save(tmp_path / part / f"{grey}.png")
    best, unjudged = cpu.agreement(tiny_artifact(), ["broken", "torch"], tmp_path, 1)
    assert best == {"vggc": 1.0, "torch": 1.0}
    assert unjudged == {
        "broken": "broken cannot compute this net here: MemoryError: too many images"
    }
    monkeypatch.setitem(PEERS, cpu.REFERENCE, Peer((), broken, ""))
    assert cpu.agreement(tiny_artifact(name="again"), ["torch"], tmp_path, 1)[0] == {}


def test_it_saves_tables_and_numbers(cpu: ModuleType, tmp_path: Path) -> None:
    row = cpu.Row(cpu.Case("vgg11", 1, "float32"), {"vggc": [1.0, 3.0]})
    cpu.save(tmp_path / "new" / "2026.01-cpu", cpu.markdown(ABOUT, [row]), ABOUT, [row])
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "2026.01-cpu.md",
        "2026.01-cpu.json",
    }
    numbers = json.loads((tmp_path / "new" / "2026.01-cpu.json").read_text())
    assert numbers["rows"][0]["milliseconds"] == {"vggc": [1.0, 3.0]}
    assert numbers["versions"] == ABOUT["versions"]


def test_pieces_to_judge_on_are_not_those_to_calibrate_on(cpu: ModuleType, tmp_path: Path) -> None:
    cpu.write_pieces(tmp_path)
    found = {part: sorted((tmp_path / part).iterdir()) for part in ("calibrated", "judged")}
    assert {part: len(files) for part, files in found.items()} == {
        "calibrated": cpu.CALIBRATED,
        "judged": cpu.JUDGED,
    }
    contents = [path.read_bytes() for files in found.values() for path in files]
    assert len(set(contents)) == len(contents)
    with Image.open(found["judged"][0]) as image:
        assert image.width == image.height >= 160


@pytest.mark.parametrize(
    ("engine", "kernels", "reason"),
    [
        ("torch", "jit:avx2", None),
        ("torch", "jit:avx2\njit_dw:AVX512_core", "it computes by jit_dw:avx512_core"),
        ("openvino", "gemm_mlas_f32", "names no kernel for avx2"),
        ("mnn", "jit:avx2", "cannot be held to avx2"),
    ],
)
def test_an_engine_is_held_to_avx2_where_all_its_kernels_say_so(
    cpu: ModuleType,
    engine: str,
    kernels: str,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(command: list[str], env: dict[str, str], **_: object) -> object:
        assert env["ONEDNN_MAX_CPU_ISA"] == "AVX2"
        return subprocess.CompletedProcess(command, 0, kernels, "")

    monkeypatch.setattr(subprocess, "run", run)
    found = cpu.why_not_held(engine, "avx2")
    assert found is reason if reason is None else reason in found


@pytest.mark.slow
def test_a_small_net_goes_all_the_way(tiny_file: Path, tmp_path: Path) -> None:
    options = ["--nets", str(tiny_file), "--batches", "2", "--rounds", "1", "--threads", "1"]
    options += ["--peers", "torch,onnxruntime", "--precision", "float32"]
    options += ["--out", str(tmp_path / "out")]
    command = [sys.executable, str(SCRIPT), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"| {tiny_file} | 2 | " in done.stdout
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert set(row["milliseconds"]) == {"vggc", "torch", "onnxruntime"}
    assert row["missing"] == {}
