"""A walk through every stage on a tiny net, in less than a minute: `pytest tests/test_smoke.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.training_data import TINY, write_images

Here = Callable[..., tuple[object, str, str]]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.vgg"
    path.write_text(TINY)
    return path


@pytest.fixture
def vggc(vggc_here: Here) -> Callable[..., str]:
    """Runs a command that has to succeed: what it prints."""

    def run(*arguments: object) -> str:
        code, out, err = vggc_here(*arguments)
        assert code == 0, err
        return out

    return run


def test_a_spec_is_checked_formatted_and_summed_up(spec: Path, vggc: Callable[..., str]) -> None:
    vggc("check", spec)
    vggc("fmt", spec)
    assert "conv1_1" in vggc("summary", spec)
    assert "138,357,544" in vggc("summary", "vgg16")


def test_a_mistake_is_told_with_its_place(spec: Path, vggc_here: Here) -> None:
    spec.write_text("net a input 3x8x8 conv3-4 | pol")
    code, _, err = vggc_here("check", spec)
    assert code == 2
    assert "tiny.vgg:1:" in err


@pytest.mark.curves
def test_a_net_trains_predicts_is_exported_and_compiled(
    spec: Path, tmp_path: Path, vggc: Callable[..., str]
) -> None:
    images, run, artifact = (tmp_path / name for name in ("images", "run", "artifact"))
    picture = images / "red" / "0.png"
    write_images(images, ("red", "green", "blue"), 5)
    vggc("train", spec, "--data", images, "--out", run, "--set", "epochs=1")
    assert "top-1" in vggc("eval", run, "--data", images)
    assert "red" in vggc("predict", run, picture)
    vggc("export", run, "--format", "onnx", "--out", tmp_path / "tiny.onnx")
    assert (tmp_path / "tiny.onnx").stat().st_size
    vggc("compile", run, "--out", artifact)
    vggc("verify", artifact)
    assert "red" in vggc("run", artifact, "--input", picture)
