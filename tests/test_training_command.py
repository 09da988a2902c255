"""`vggc train` from the shell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training_data import TINY, write_images

from vggc import driver
from vggc.diagnostics import UserError
from vggc.driver import Program
from vggc.recipe.train import Recipe
from vggc.source import Source
from vggc.syntax.parse import parse
from vggc.train import check_memory, departures
from vggc.training.images import digits
from vggc.training.loop import Machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small net and small images."""
    (tmp_path / "tiny.vgg").write_text(TINY)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    return tmp_path


def vggc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from vggc.cli import main; main()", "train", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_folder_of_images_is_trained_on(folder: Path) -> None:
    (folder / "images/red/broken.jpg").write_text("?")
    done = vggc(folder, "tiny.vgg", "--data", "images", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["run"], result["epochs"]) == ("run", 3)
    assert 0 <= result["val_top1"] <= result["val_top5"] == 1
    assert result["images_per_second"] > 0
    assert "skipped red/broken.jpg: not an image" in done.stderr
    assert "1 broken images were skipped" in done.stderr
    assert "epoch 3/3" in done.stderr
    assert "\x1b" not in done.stderr

    again = vggc(folder, "--resume", "run")
    assert again.returncode == 2
    assert "has finished" in again.stderr


@pytest.mark.slow
def test_digits_are_the_default(folder: Path) -> None:
    done = vggc(folder, "tiny.vgg", "--epochs", "1", "--batch", "64", "--set", "lr=0.02")
    assert done.returncode == 0, done.stderr
    assert "1,797 scanned digits" in done.stderr
    for key, before, after in (
        ("input", "3×8×8", "3×32×32"),
        ("classes", "3", "10"),
        ("batch", "4", "64"),
        ("sgd.lr", "0.05", "0.02"),
        ("schedule", "constant", "one-cycle"),
    ):
        assert f"  {key:<18} {before} → {after}\n" in done.stderr
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("tiny-20")
    assert "held-out top-1" in done.stdout
    text = (run / "net.vgg").read_text()
    assert "input 3x32x32" in text
    assert "one-cycle warm-up=0.3" in text


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(folder: Path) -> None:
    arguments = ("tiny.vgg", "--data", "images", "--epochs", "40", "--seed", "5")
    whole = vggc(folder, *arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-c", "from vggc.cli import main; main()", "train", *arguments]
    with subprocess.Popen(
        [*command, "--out", "run"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        while "epoch 2/40" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "vggc train --resume run" in rest
    resumed = vggc(folder, "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    weights = [(folder / name / "weights.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "`vggc train` needs a net"),
        (["none.vgg"], "none.vgg"),
        (["tiny.vgg", "--data", "none"], "there is no folder `none`"),
        (["tiny.vgg", "--epochs", "0"], "`epochs` takes a whole number"),
        (["tiny.vgg", "--lr", "nan"], "`sgd.lr` takes a number above 0"),
        (["tiny.vgg", "--set", "lrr=1"], "did you mean `lr`?"),
        (["tiny.vgg", "--set", "batch=٣٢"], "--set:1:7"),
        (["tiny.vgg", "--precision", "fp16", "--device", "cpu"], "fp16 needs `--device cuda`"),
        (["tiny.vgg", "--set", "scale=16"], "a scale of 16 is smaller than the net's input"),
        (["tiny.vgg", "--input", "1"], "pool"),
        (["tiny.vgg", "--out", "images"], "images exists already"),
        (["--resume", "images"], "is not the folder of a training run"),
        (["tiny.vgg", "--resume", "images", "--lr", "1"], "SPEC, `--lr` cannot change"),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    folder: Path, arguments: list[str], words: str
) -> None:
    before = sorted(folder.rglob("*"))
    done = vggc(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_a_loss_that_explodes_fails_the_run(folder: Path) -> None:
    done = vggc(
        folder,
        "tiny.vgg",
        "--data",
        "images",
        "--set",
        "init=normal",
        "--set",
        "std=1000",
        "--lr",
        "1000",
        "--out",
        "run",
    )
    assert done.returncode == 1, done.stderr
    assert "loss became" in done.stderr
    assert "try `--lr 100`" in done.stderr


def test_a_training_that_no_memory_holds_is_refused_before_it_begins(tmp_path: Path) -> None:
    spec = tmp_path / "big.vgg"
    spec.write_text("net big input 3x32x32 fc-1000000 ×2 | fc-10 | softmax")
    command = [sys.executable, "-m", "vggc", "train", spec, "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "does not fit into this machine's memory" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_is_never_larger_than_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    program, cpu = Program(parse(Source("tiny.vgg", TINY))), Machine("cpu", "fp32")
    needed = program.report(1438).totals.training_bytes
    assert needed
    monkeypatch.setattr(driver, "memory", lambda: needed)
    check_memory(program, digits(), Recipe(batch=65_536), cpu)
    monkeypatch.setattr(driver, "memory", lambda: needed - 1)
    check_memory(program, digits(), Recipe(batch=1000), cpu)
    with pytest.raises(UserError, match="batches of 1438 "):
        check_memory(program, digits(), Recipe(batch=65_536), cpu)


def test_a_run_departs_from_what_the_file_says() -> None:
    with_recipe = Program(parse(Source("tiny.vgg", TINY)))
    without = Program(parse(Source("tiny.vgg", TINY[: TINY.index("train {")])))
    assert departures(with_recipe, without, with_recipe.recipe).changes == ()
    assert departures(with_recipe, without, with_recipe.recipe).base == "the file of tiny"
    found = departures(without, without, Recipe(batch=4))
    assert (found.base, found.changes) == ("tiny's default recipe", (("batch", "256", "4"),))
