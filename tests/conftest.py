"""Nets small enough for every test, and a machine on which nothing is the user's."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.support")

from tests.support.nets import TINY, compile_tiny, program
from vggc.cli import main
from vggc.program import Program
from vggc.support.files import replacing

A_PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
)
"""A PNG of one white pixel."""

# How wide somebody's terminal is decides no test, nor how wide pytest's workers have it.
os.environ.pop("COLUMNS", None)
# A timing never decides a test.
settings.register_profile("vggc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vggc")


@pytest.fixture(autouse=True)
def nothing_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody tuned on this machine decides no test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def curves_are_quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes four times as long as training a small net: a run gets the same picture each
    time, but in tests that are marked `curves`.
    """
    module = sys.modules.get("vggc.training.session")
    if module is None or request.node.get_closest_marker("curves"):
        return

    def drawn(path: Path, *what: object) -> None:
        with replacing(path) as part:
            part.write_bytes(A_PICTURE)

    monkeypatch.setattr(module, "draw_curves", drawn)


@pytest.fixture
def tiny() -> Program:
    return program(TINY)


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.vgg"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def compiled_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The artifact of the tiny net, of some batches: compiled once, and to be copied."""
    folder = tmp_path_factory.mktemp("tiny")

    @cache
    def compiled(*batches: int) -> Path:
        name = ",".join(map(str, batches))
        compile_tiny(folder / name, *batches)
        return folder / name

    return compiled


@pytest.fixture
def tiny_artifact(compiled_tiny: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Copies an artifact of the tiny net, of some batches."""

    def make(*batches: int, name: str = "artifact") -> Path:
        return Path(shutil.copytree(compiled_tiny(*(batches or (1,))), tmp_path / name))

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
