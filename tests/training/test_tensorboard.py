"""`vggc train --tensorboard`: what TensorBoard itself reads of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.rows import epoch_row, step_row
from tests.support.training_data import RECIPE, TINY, write_images
from vggc.recipe.train import TRAIN
from vggc.support.diagnostics import UserError
from vggc.training import tensorboard
from vggc.training.metrics import read_metrics
from vggc.training.progress import Epoch, EpochDone, EpochSums, Progress, StepDone
from vggc.training.tensorboard import board

Here = Callable[..., tuple[object, str, str]]


@pytest.fixture
def read() -> Callable[[Path], Any]:
    """What TensorBoard finds in a run."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def reader(run: Path) -> Any:
        found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
        found.Reload()
        return found

    return reader


def scalars(found: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(tag)]


def step(done: int, total: int = 100, loss: float = 1.0, lr: float = 0.05) -> StepDone:
    row = step_row(done, 1, lr, loss, 0.5, 200.0)
    return StepDone(
        epoch=1,
        done=done,
        total=total,
        loss=loss,
        top1=0.5,
        images_per_second=200.0,
        row=row,
    )


def epoch(number: int, steps: int, top1: float = 0.5) -> Epoch:
    return epoch_row(number, steps, 0.1, 1.5, 0.25, 1.25, top1, 0.75, 300.0, 2.5)


def silence(text: str) -> None:
    raise AssertionError(text)


def test_every_tenth_step_and_the_last_are_written(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    with board(tmp_path, TINY, RECIPE, Progress(), silence) as watcher:
        for done in range(1, 26):
            watcher(step(done, total=25, loss=done / 2))
    found = read(tmp_path)
    assert scalars(found, "loss/step") == [(10, 5.0), (20, 10.0), (25, 12.5)]
    assert [number for number, _ in scalars(found, "accuracy/step-top-1")] == [10, 20, 25]
    assert scalars(found, "speed/step-images-per-second")[0] == (10, 200.0)


def test_an_epoch_is_written_at_its_last_step(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with board(tmp_path, TINY, RECIPE, Progress(), silence) as watcher:
        watcher(EpochDone(epoch(1, 7)))
        watcher(EpochDone(epoch(2, 14, top1=0.625)))
    found = read(tmp_path)
    assert scalars(found, "accuracy/held-out-top-1") == [(7, 0.5), (14, 0.625)]
    for tag, value in (
        ("loss/training", 1.5),
        ("loss/held-out", 1.25),
        ("accuracy/training-top-1", 0.25),
        ("accuracy/held-out-top-5", 0.75),
        ("speed/epoch-images-per-second", 300.0),
        ("speed/epoch-seconds", 2.5),
    ):
        assert scalars(found, tag) == [(7, value), (14, value)], tag
    assert scalars(found, "learning-rate/epoch") == [
        (7, pytest.approx(0.1)),
        (14, pytest.approx(0.1)),
    ]


def test_the_recipe_and_the_net_are_written_as_text(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    with board(tmp_path, TINY, RECIPE, Progress(), silence):
        pass
    found = read(tmp_path)
    texts = {
        tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in found.Tags()["tensors"]
    }
    assert set(texts) == {"recipe/text_summary", "net/text_summary"}
    for key, value in TRAIN.flatten(RECIPE).items():
        assert f"| {key} | {value} |" in texts["recipe/text_summary"]
    assert [line[4:] for line in texts["net/text_summary"].splitlines()] == TINY.splitlines()


def test_what_was_written_beyond_the_checkpoint_is_hidden_after_a_resume(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    """Killed after step 40, saved after step 20."""
    with board(tmp_path, TINY, RECIPE, Progress(), silence) as watcher:
        for done in range(1, 41):
            watcher(step(done, loss=1.0))
        watcher(EpochDone(epoch(1, 40)))
    saved = Progress(sums=EpochSums(steps=20))
    with board(tmp_path, TINY, RECIPE, saved, silence) as watcher:
        for done in range(21, 31):
            watcher(step(done, loss=2.0))
    found = read(tmp_path)
    assert scalars(found, "loss/step") == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert scalars(found, "loss/held-out") == []
    assert len(found.Tensors("recipe/text_summary")) == 1


def test_the_rate_of_a_step_is_its_own(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with board(tmp_path, TINY, TRAIN.type(batch=4), Progress(), silence) as watcher:
        watcher(step(10, lr=0.01))
        watcher(step(20, lr=0.001))
    rates = [value for _, value in scalars(read(tmp_path), "learning-rate/step")]
    assert rates == pytest.approx([0.01, 0.001])


def test_a_full_disk_ends_the_writing_and_not_the_training(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    told: list[str] = []
    with board(tmp_path, TINY, RECIPE, Progress(), told.append) as watcher:
        watcher(step(10))
        watcher.file.file.close()
        watcher.file.file = full = open("/dev/full", "wb")  # noqa: SIM115
        watcher.file.records._writer = full
        for done in (20, 30, 40):
            watcher(step(done))
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert scalars(read(tmp_path), "loss/step") == [(10, 1.0)]


def test_without_the_package_it_is_said_how_to_get_it_before_anything_is_done(
    tmp_path: Path, vggc_here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    (tmp_path / "tiny.vgg").write_text(TINY)
    run = tmp_path / "run"
    code, out, error = vggc_here("train", tmp_path / "tiny.vgg", "--out", run, "--tensorboard")
    assert (code, out) == (2, "")
    assert "pip install 'vggc[tensorboard]'" in error
    assert not run.exists()


def test_a_folder_that_cannot_be_written_is_a_mistake(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with (
        pytest.raises(UserError, match="cannot write"),
        board(tmp_path, TINY, RECIPE, Progress(), silence),
    ):
        pass


def test_a_training_writes_what_its_table_holds(
    tmp_path: Path, vggc_here: Here, read: Callable[[Path], Any]
) -> None:
    (tmp_path / "tiny.vgg").write_text(TINY)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    run = tmp_path / "run"
    arguments = ["--data", tmp_path / "images", "--out", run, "--tensorboard"]
    code, _, error = vggc_here("train", tmp_path / "tiny.vgg", *arguments)
    assert code == 0, error
    epochs = read_metrics(run)
    assert len(epochs) == 3
    found = read(run)
    for tag, name in (("loss/held-out", "val_loss"), ("accuracy/held-out-top-1", "val_top1")):
        wanted = [(row.step, pytest.approx(getattr(row, name))) for row in epochs]
        assert scalars(found, tag) == wanted
    assert [number for number, _ in scalars(found, "loss/step")] == [10, 18]
