"""What commands are told to take of memory, and that they are refused before they take it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.nets import program
from vggc.ir import needs
from vggc.ir.needs import Need
from vggc.program import load
from vggc.runtime.artifact import require_memory
from vggc.support.diagnostics import UserError
from vggc.support.memory import free_memory
from vggc_runtime.folder import WEIGHTS

ALL = (
    *needs.EXPORTS.values(),
    *(needs.COMPILING, needs.COMPILING_CUDA, needs.COMPILING_INT8),
    *(needs.LOADING, needs.RUNNING, needs.VERIFYING),
    *(needs.PROFILING, needs.TIMING, needs.TESTING, needs.beside(["torch", "onnxruntime"])),
)


def free(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    monkeypatch.setattr(needs, "memory", lambda: 2 * round(amount))
    monkeypatch.setattr(needs, "free_memory", lambda: round(amount))


def test_a_need_is_a_sum() -> None:
    graph = program("net a input 2x4x4 fc-8 | relu").graph  # 32·8 + 8 weights, 4 ops
    values = sum((32, 32, 8, 8))
    assert needs.weight_bytes(graph) == 4 * (32 * 8 + 8)
    need = Need("doing it", 1000, weights=2, stored=3, op=10, value=4)
    ops = 10 * len(graph.nodes)
    told = need.bytes(graph, batch=5, stored=100)
    assert told == 1000 + 2 * 4 * (32 * 8 + 8) + 3 * 100 + ops + 4 * 5 * (values)


def test_each_batch_that_a_net_is_compiled_for_has_kernels_of_its_own() -> None:
    graph = load("vgg16").graph
    for target, precision in (("cpu", "float32"), ("cpu", "int8"), ("cuda", "float16")):
        one, three = (needs.compiling(target, precision, n).bytes(graph) for n in (1, 3))
        op = needs.compiling(target, precision).op
        assert three - one == round(2 * op * len(graph.nodes))


def test_the_words_say_of_what_it_is_the_sum() -> None:
    graph = load("vgg16").graph
    need = Need("doing it", 1e9, weights=3, stored=1)
    assert need.formula(graph, stored=int(5e8)).split(", ") == [
        "3 times the 0.6 GB of weights in float32",
        "the 0.5 GB of weights in the artifact",
        "and 1.0 GB",
    ]


@pytest.mark.parametrize("need", ALL, ids=lambda need: need.doing)
def test_what_fits_is_done_and_what_does_not_is_refused(
    need: Need, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load("vgg16").graph
    needed = need.bytes(graph, stored=550_000_000)
    free(monkeypatch, needed)
    need.require(graph, stored=550_000_000)
    free(monkeypatch, needed - 1)
    with pytest.raises(UserError, match="vgg16 is too large for this machine") as caught:
        need.require(graph, stored=550_000_000)
    problem = caught.value.diagnostics[0]
    assert need.doing in problem.fill(problem.label)


HUGE = "net huge input 3x224x224 fc-{width} | fc-1000"
"""A net of 17 GB of weights."""
WIDTH = round(17e9 / 4 / (3 * 224 * 224 + 1000))


@pytest.mark.parametrize("need", ALL, ids=lambda need: need.doing)
def test_seventeen_gigabytes_of_weights_do_not_fit_into_sixteen(
    need: Need, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = program(HUGE.format(width=WIDTH)).graph
    assert needs.weight_bytes(graph) == pytest.approx(17e9, rel=0.01)
    free(monkeypatch, 16e9)
    with pytest.raises(UserError, match="too large for this machine"):
        need.require(graph, stored=round(17e9))


HEAVY = ("torch", "tvm", "onnx", "vggc.compiler.pipeline")
REFUSED = """
import sys
from vggc.ir import needs
needs.memory = needs.free_memory = lambda: 16_000_000_000
try:
    from vggc.cli import main
    main()
finally:
    print(*sorted({*sys.modules} & {*%r}))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile", "-o", "out"],
        ["compile", "--precision", "bfloat16", "--mcpu", "znver4", "-o", "out"],
        *(["export", "--format", style, "-o", "out"] for style in needs.EXPORTS),
    ],
    ids=" ".join,
)
def test_nothing_is_loaded_and_nothing_drawn_before_a_net_is_refused(
    tmp_path: Path, arguments: list[str]
) -> None:
    """So that it is refused at once: PyTorch and TVM take seconds, the weights minutes."""
    command, *options = arguments
    (tmp_path / "huge.vgg").write_text(HUGE.format(width=WIDTH))
    done = subprocess.run(
        [sys.executable, "-c", REFUSED % (HEAVY,), command, "huge.vgg", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "\n")
    assert "the net huge is too large for this machine" in done.stderr
    assert "16.0 GB of memory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["huge.vgg"]


def test_an_artifact_is_refused_by_what_its_manifest_says(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_artifact()
    (folder / WEIGHTS).unlink()  # nothing of it is read
    free(monkeypatch, 1e6)
    with pytest.raises(UserError, match="running it takes about") as caught:
        require_memory(folder, replace(needs.RUNNING, base=1e9))
    assert "too large" in caught.value.diagnostics[0].title


# What is measured


PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


def peak(*arguments: str, folder: Path) -> int:
    """The most bytes that a command has in memory."""
    small = [sys.executable, "-c", PEAK]  # a child counts what its parent had when it began
    command = [*small, sys.executable, "-m", "vggc", *arguments]
    return int(subprocess.check_output(command, cwd=folder, text=True))


WIDE = "net wide input 3x64x64 conv3-16 norm=batch | pool | fc-8192 | fc-1024 | softmax"
"""A net of 570 MB of weights, nearly all of one layer."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells kilobytes")
@pytest.mark.parametrize("style", needs.EXPORTS)
def test_an_export_takes_what_it_is_told_to(tmp_path: Path, style: str) -> None:
    (tmp_path / "wide.vgg").write_text(WIDE)
    told = needs.EXPORTS[style].bytes(program(WIDE).graph)
    measured = peak("export", "wide.vgg", "--format", style, "-o", "out", folder=tmp_path)
    assert told / 1.25 <= measured <= told * 1.25


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells kilobytes")
def test_compiling_takes_what_it_is_told_to_and_running_too(tmp_path: Path) -> None:
    (tmp_path / "wide.vgg").write_text(WIDE)
    graph = program(WIDE).graph
    measured = peak("compile", "wide.vgg", "-o", "art", folder=tmp_path)
    assert measured < 1.5 * needs.weight_bytes(graph) + needs.COMPILING.base
    told = needs.COMPILING.bytes(graph)
    assert told / 1.25 <= measured <= told * 1.25
    stored = (tmp_path / "art" / WEIGHTS).stat().st_size
    told = needs.VERIFYING.bytes(graph, stored=stored)
    measured = peak("verify", "art", folder=tmp_path)
    assert told / 1.25 <= measured <= told * 1.25


def test_free_is_some_of_what_there_is() -> None:
    assert 0 < free_memory() <= needs.memory()
