"""Nets small enough for every test."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from vggc.cli import main
from vggc.ir.graph import Graph
from vggc.program import Program
from vggc.support.source import Source
from vggc.syntax.parse import parse

# A timing never decides a test.
settings.register_profile("vggc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vggc")

TINY = """
net tiny
input 3x16x16

  conv3-8 ×2 | pool
| conv3-16 | lrn | pool
| (fc-24 | dropout) ×2
| fc-10 | softmax
"""


def program(text: str) -> Program:
    return Program(parse(Source("test.vgg", text)))


def graph_of(body: str, input_: str = "3x13x11") -> Graph:
    """The graph of a chain of layers."""
    graph = program(f"net sample input {input_}\n{body}").graph
    graph.verify()
    return graph


@pytest.fixture(autouse=True)
def nothing_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody tuned on this machine decides no test, nor how wide their terminal is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def tiny() -> Program:
    return program(TINY)


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.vgg"
    path.write_text(TINY)
    return path


def compile_tiny(folder: Path, batch: int = 1) -> None:
    """Writes the artifact of the tiny net."""
    from vggc.api.trained import from_spec
    from vggc.compiler.pipeline import Job, build_artifact
    from vggc.compiler.targets import resolve

    net = program(TINY)
    subject = from_spec(net, None, seed=0)
    job = Job(
        net.net,
        net.graph,
        resolve("cpu"),
        batch,
        subject.weights,
        subject.weights_from,
        subject.preprocessing,
        tuple("abcdefghij"),
    )
    build_artifact(job, folder)


@pytest.fixture(scope="session")
def compiled_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The artifact of the tiny net, of some batch size: compiled once, and to be copied."""
    folder = tmp_path_factory.mktemp("tiny")

    @cache
    def compiled(batch: int) -> Path:
        compile_tiny(folder / str(batch), batch)
        return folder / str(batch)

    return compiled


@pytest.fixture
def tiny_artifact(compiled_tiny: Callable[[int], Path], tmp_path: Path) -> Callable[..., Path]:
    """Copies an artifact of the tiny net, of some batch size."""

    def make(batch: int = 1, name: str = "artifact") -> Path:
        return Path(shutil.copytree(compiled_tiny(batch), tmp_path / name))

    return make


@pytest.fixture
def vggc_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[object, str, str]]]:
    """Runs `vggc` in this process, which has its libraries: the exit code, stdout, stderr."""
    before = gc.get_threshold()

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["vggc", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    yield run
    gc.set_threshold(*before)


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Normal noise of a shape, the same every time."""
    return lambda *shape: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
