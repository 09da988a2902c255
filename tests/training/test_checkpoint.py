"""Runs that end early, go on, or were tampered with."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import count
from math import inf, nan
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import ROOT
from tests.support.nets import graph_of
from tests.support.rows import epoch_row, step_row
from tests.support.runs import (
    KEEP_ALL,
    KEEPING,
    NOW,
    go_on,
    interrupt_after,
    saved,
    task,
    train,
    weights_of,
)
from tests.support.training_data import RECIPE, found
from vggc.data.parts import Part, Skipped
from vggc.data.prepare import prepare
from vggc.data.stores import Arrays
from vggc.recipe.augment import ColourJitter, Cutmix, Erasing, Mixup, RandAugment, ResizedCrop
from vggc.recipe.train import AdamW, Constant, Cosine, Normal, Recipe, Sgd, StepSchedule
from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, Taken
from vggc.support.records import from_json, read_record, write_record
from vggc.syntax.values import WrongValue
from vggc.training import diagnostics, session
from vggc.training.checkpoint import checkpoints, save_tensors
from vggc.training.curves import draw_curves, in_decimals
from vggc.training.metrics import read_metrics
from vggc.training.progress import (
    Event,
    Finished,
    Interrupted,
    NotSaved,
    Outcome,
    Progress,
    Stopped,
)
from vggc.training.run import Run, RunRecord, newest_run, place_for, write_run
from vggc.training.session import Keeping, begin, fresh, proceed, resume
from vggc.training.skipped import write_skipped
from vggc.training.steps import StepTable, read_steps
from vggc_runtime.files import sha256
from vggc_runtime.json_file import MalformedError


def test_the_names_of_images_that_are_left_out_are_kept(tmp_path: Path) -> None:
    """From the start, and where a run from before there was such a table goes on."""
    whole = task(RECIPE)
    lost = Skipped("a/0.png", "not an image", "train")
    whole = replace(whole, data=replace(whole.data, skipped=(lost,)))
    run = begin(whole, None, tmp_path / "run", NOW)
    table = "part,name,reason\ntrain,a/0.png,not an image\n"
    assert run.skipped_path.read_text() == table
    run.skipped_path.unlink()
    resume(run, whole)
    assert run.skipped_path.read_text() == table
    other = begin(task(RECIPE), None, tmp_path / "other", NOW)
    assert not other.skipped_path.exists()


def test_half_a_character_does_not_keep_names_from_being_written(tmp_path: Path) -> None:
    """JSON may tell of one, where it names a picture that is not there."""
    write_skipped(
        tmp_path / "skipped.csv", [Skipped("\udcff.png", "its picture \ud800 is not there")]
    )
    _, row = (tmp_path / "skipped.csv").read_text().splitlines()
    assert row == r",\xff.png,its picture \ud800 is not there"


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was interrupted in its second epoch, to be copied."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    assert isinstance(train(folder, on_event=interrupt_after(7)), Interrupted)
    return folder


@pytest.fixture
def interrupted(interrupted_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(interrupted_once, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run that nothing interrupted: its folder and its outcome."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(folder)


@pytest.mark.parametrize("event", [1, 4, 5, 7, 9, 14])
def test_a_resumed_run_ends_with_the_same_weights(
    whole: tuple[Path, Outcome], tmp_path: Path, event: int
) -> None:
    folder, outcome = whole
    assert isinstance(train(tmp_path / "run", on_event=interrupt_after(event)), Interrupted)
    assert Run.load(tmp_path / "run").record.state == "interrupted"
    rest = go_on(tmp_path / "run")
    assert isinstance(rest, Finished)
    assert weights_of(folder) == weights_of(tmp_path / "run")
    for mine, other in zip(outcome.progress.epochs, rest.progress.epochs, strict=True):
        assert (mine.train_loss, mine.val_loss, mine.lr) == (
            other.train_loss,
            other.val_loss,
            other.lr,
        )


@pytest.mark.parametrize(
    ("recipe", "frozen"),
    [
        (replace(RECIPE, epochs=None, steps=7), ()),
        (replace(RECIPE, epochs=2, rgb_shift=0.5), ()),
        (replace(RECIPE, epochs=2, freeze=("conv1_1",)), ("0.weight", "0.bias")),
        (replace(RECIPE, epochs=2, ema=0.9, clip=0.1), ()),
        (replace(RECIPE, epochs=2, mixup=Mixup(0.2), cutmix=Cutmix(1.0), label_smoothing=0.1), ()),
        (replace(RECIPE, epochs=2, accumulate=2, optimiser=Sgd(nesterov=True)), ()),
        (replace(RECIPE, epochs=2, schedule=Cosine(0.3)), ()),
        (
            replace(
                RECIPE,
                epochs=2,
                resized_crop=ResizedCrop(),
                rotate=20.0,
                colour_jitter=ColourJitter(0.4, 0.4, 0.4, 0.1),
                randaugment=RandAugment(),
                erasing=Erasing(0.5),
                mixup=Mixup(0.2, 0.5),
                class_weights="balanced",
            ),
            (),
        ),
        (replace(RECIPE, epochs=2, sampler="balanced", class_weights=(1.0, 2.0, 3.0)), ()),
        (replace(RECIPE, epochs=2, optimiser=AdamW(lr=0.01), schedule=StepSchedule((1,))), ()),
        (replace(RECIPE, epochs=2, optimiser=AdamW(), freeze=("conv1_1",)), ("0.weight", "0.bias")),
    ],
    ids=[
        *("steps", "rgb-shift", "freeze", "ema", "mixtures", "accumulate", "cosine"),
        *("varied", "balanced", "adamw", "adamw-freeze"),
    ],
)
def test_whatever_the_recipe_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, recipe: Recipe, frozen: tuple[str, ...]
) -> None:
    assert isinstance(train(tmp_path / "whole", recipe, frozen=frozen), Finished)
    for event in (1, 5, 7, 8):
        folder = tmp_path / f"run{event}"
        outcome = train(folder, recipe, interrupt_after(event), frozen=frozen)
        assert isinstance(outcome, Interrupted)
        assert Run.load(folder).recipe == recipe
        assert isinstance(go_on(folder, frozen=frozen), Finished)
        assert weights_of(tmp_path / "whole") == weights_of(folder)


def test_a_killed_run_goes_on_from_its_last_epoch(
    whole: tuple[Path, Outcome], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def die(event: Event) -> None:
        nonlocal count
        count += 1
        if count == 7:
            raise Killed

    count = 0
    with pytest.raises(Killed):
        train(tmp_path / "run", on_event=die)
    assert Run.load(tmp_path / "run").record.state == "running"
    go_on(tmp_path / "run")
    assert weights_of(whole[0]) == weights_of(tmp_path / "run")


def test_what_the_last_checkpoint_should_have_led_to_is_made_up_for(tmp_path: Path) -> None:
    """A run that is killed between its last checkpoint and the weights that follow from it."""
    train(tmp_path / "early", replace(RECIPE, epochs=1))
    train(tmp_path / "whole", keeping=KEEP_ALL)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    run = Run.load(tmp_path / "run")
    write_run(run.folder, replace(run.record, state="running", metrics=None))
    shutil.copy(tmp_path / "early" / "weights.safetensors", run.weights_path)
    metrics = (run.folder / "metrics.csv").read_text()
    (run.folder / "metrics.csv").write_text("\n".join(metrics.splitlines()[:-1]) + "\n")
    go_on(run.folder)
    assert weights_of(run.folder) == weights_of(tmp_path / "whole")
    assert (run.folder / "metrics.csv").read_text() == metrics


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # to fork beside other threads
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    """By SIGKILL, at random: 10 times in all, over as many runs as that takes."""
    recipe = replace(RECIPE, epochs=12, ema=0.9, rgb_shift=0.1)
    start = perf_counter()
    assert isinstance(train(tmp_path / "whole", recipe, keeping=KEEP_ALL), Finished)
    seconds = perf_counter() - start
    draw, killed, runs, resumed = random.Random(0), 0, 0, 0
    while killed < 10:
        runs += 1
        folder = tmp_path / f"run{runs}"
        begin(task(recipe), None, folder, NOW)
        while not ends(lambda folder=folder: go_on(folder), draw.uniform(0, seconds)):  # type: ignore[misc]
            killed += 1
            resumed += any(not name.startswith(".") for name in saved(folder))
        assert Run.load(folder).record.state == "finished"
        assert weights_of(folder) == weights_of(tmp_path / "whole")
        metrics = [(path / "metrics.csv").read_text() for path in (folder, tmp_path / "whole")]
        columns = [[row.split(",")[:8] for row in text.splitlines()] for text in metrics]
        assert columns[0] == columns[1]
    assert resumed >= 5  # and did not all begin again


def ends(work: Callable[[], object], seconds: float) -> bool:
    """Whether a process that does this ends well within that time; it is killed otherwise."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = perf_counter() + seconds
    while perf_counter() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            assert status == 0
            return True
        sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_checkpoints_are_written_on_the_way_and_the_newest_kept(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(event: Event) -> None:
        if (tmp_path / "run/checkpoint").exists():
            found = [name for name in saved(tmp_path / "run") if not name.startswith(".")]
            assert len(found) <= 3  # before the oldest is removed
            seen.extend(found)

    train(tmp_path / "run", on_event=look, keeping=Keeping(every=3))
    assert {"step-3", "step-4-tested", "step-6", "step-8-tested", "step-9"} <= {*seen}


def test_long_epochs_are_saved_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SAVE_SECONDS", 0)
    seen: set[str] = set()

    def look(event: Event) -> None:
        seen.update(path.name for path in (tmp_path / "run/checkpoint").glob("step-*"))

    train(tmp_path / "run", on_event=look)
    assert {"step-1", "step-6"} <= seen


NUM_THREADS = """\
import os
from pathlib import Path
import torch
from torch import nn
from tests.support.training_data import learner
from vggc.training.checkpoint import Writer, snapshot
from vggc.training.progress import EpochSums, Progress

torch.set_num_threads(2)
torch.ones(1 << 20).exp()
moving = learner(net=nn.Conv2d(128, 128, 3))
before = len(os.listdir("/proc/self/task"))
with Writer(Path("checkpoint"), 2, "data", lambda step: "task") as writer:
    writer.write(snapshot(moving, Progress(sums=EpochSums(steps=1))), lambda: None)
    writer.wait()
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.slow
def test_writing_a_checkpoint_takes_one_thread_and_no_team_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(NUM_THREADS)
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    printed = subprocess.run(
        [sys.executable, "threads.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert printed.stdout == "1\n"
    assert len([*(tmp_path / "checkpoint").glob("step-1/*")]) == 2


def full_disk(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """So many checkpoints cannot be written."""
    left = [times]

    def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        if left[0]:
            left[0] -= 1
            raise UserError(CannotWrite(str(path), "No space left on device"))
        save_tensors(path, tensors)

    monkeypatch.setattr("vggc.training.checkpoint.save_tensors", write)


def test_a_disk_that_is_full_for_a_while_does_not_end_a_training(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, times=3)
    told: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, NotSaved):
            told.append(event.reason)

    assert isinstance(train(tmp_path / "run", on_event=listen, keeping=KEEP_ALL), Finished)
    assert len(told) == 3
    assert all("No space left on device" in reason for reason in told)
    assert weights_of(tmp_path / "run") == weights_of(whole[0])


def test_a_last_checkpoint_that_cannot_be_written_is_an_explained_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, times=99)
    assert refused(lambda: train(tmp_path / "run"))[0] is CannotWrite
    assert saved(tmp_path / "run") == []


def test_a_last_checkpoint_that_is_written_makes_up_for_one_that_is_not(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, epochs=1)
    full_disk(monkeypatch, times=1)
    outcome = train(tmp_path / "run", recipe, keeping=Keeping(every=3))
    assert isinstance(outcome, Finished)
    assert Run.load(tmp_path / "run").has_weights


def test_weights_whose_loss_is_not_finite_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is that of the weights before it, which were saved after the last one."""
    recipe = Recipe(**{**vars(RECIPE), "optimiser": Sgd(1e30), "schedule": Constant()})
    outcome = train(tmp_path / "run", recipe, keeping=KEEP_ALL)
    assert isinstance(outcome, Stopped)
    assert isinstance(outcome.reason, diagnostics.LossNotFinite)
    assert f"step-{outcome.progress.step}" in saved(tmp_path / "run")
    assert not Run.load(tmp_path / "run").has_weights


def test_a_run_that_diverges_is_stopped_with_its_last_sound_weights(tmp_path: Path) -> None:
    """Weights become infinite in the last step of the second epoch, and the loss does not."""
    whole, events = task(), count()

    def spoil(event: Event) -> None:
        if next(events) == 8:
            with torch.no_grad():
                whole.module[4].bias.fill_(-inf)

    learner = fresh(whole)
    run = begin(whole, None, tmp_path / "run", NOW)
    outcome = proceed(run, learner, whole, Progress(), spoil, KEEPING)
    assert isinstance(outcome, Stopped)
    assert isinstance(outcome.reason, diagnostics.Diverged)
    after = Run.load(tmp_path / "run")
    assert (after.record.state, after.record.metrics) == ("stopped", outcome.progress.epochs[0])
    assert after.record.reason
    assert "the weight `4.bias` holds values that are not finite" in after.record.reason
    assert saved(tmp_path / "run") == ["step-4-tested"]
    assert read_metrics(tmp_path / "run") == outcome.progress.epochs
    train(tmp_path / "sound", replace(RECIPE, epochs=1))
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "sound")
    assert isinstance(go_on(tmp_path / "run"), Finished)  # this time nobody spoils it


def test_all_processes_must_have_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    here = task()
    other = (here.data.fingerprints.whole, 16, 4), ("another", 15, 4)
    monkeypatch.setattr("vggc.training.parallel.World.lists", lambda world, values: [*other])
    assert refused(lambda: session.agree(here))[0] is diagnostics.ImagesDiffer


@pytest.mark.curves
def test_a_finished_run_leaves_what_others_need(tmp_path: Path) -> None:
    outcome = train(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint",
        "curves.png",
        "metrics.csv",
        "net.vgg",
        "run.json",
        "steps.csv",
        "weights-best.safetensors",
        "weights.safetensors",
    ]
    assert saved(tmp_path / "run") == ["step-12-tested"]
    with Image.open(tmp_path / "run/curves.png") as curves:
        assert curves.width > 500
    run = Run.load(tmp_path / "run")
    assert run.record.state == "finished"
    assert run.record.metrics == outcome.progress.epochs[-1]
    assert run.recipe == RECIPE
    assert run.record.classes == ("a", "b", "c")
    lines = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("value", "text"), [(0.01, "0.01"), (1e-5, "0.00001"), (0, "0"), (1.5, "1.5"), (3e-20, "3e-20")]
)
def test_rates_are_written_in_decimals(value: float, text: str) -> None:
    assert in_decimals(value) == text


def test_steps_are_read_back_as_the_means_of_stretches(tmp_path: Path) -> None:
    rows = [step_row(n, 1, 0.1, float(n), n / 10, 5.0) for n in range(1, 6)]
    with StepTable(tmp_path, 0, print) as table:
        for row in rows:
            table.add(row)
    assert read_steps(tmp_path, 10) == tuple(rows)
    found = read_steps(tmp_path, 3)
    assert [(row.step, row.loss) for row in found] == [(2, 1.5), (4, 3.5), (5, 5.0)]
    with (tmp_path / "steps.csv").open("a") as file:
        file.write("6,1,0.1,nan,0.6,5.0\n7,1,0.1,7.0,0.7,5.0\n")
    assert read_steps(tmp_path, 10) == tuple(rows)
    assert read_steps(tmp_path / "none", 10) == ()


def test_a_single_epoch_is_drawn_by_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn: list[int] = []
    plot = Axes.plot

    def counted(panel: Axes, x: Any, *rest: Any, **more: Any) -> Any:
        drawn.append(len(x))
        return plot(panel, x, *rest, **more)

    monkeypatch.setattr(Axes, "plot", counted)
    row = epoch_row(1, 20, 0.01, 1.0, 0.5, 1.1, 0.4, 0.9, 10.0, 1.0)
    steps = [step_row(n + 1, 1, 0.01 - n / 4000, 2 - n / 20, n / 40, 10.0) for n in range(20)]
    draw_curves(tmp_path / "x.png", "x", [row], steps)
    assert drawn.count(20) == 3


@pytest.mark.parametrize("count", [1, 74])
def test_curves_are_drawn_for_short_and_long_runs(tmp_path: Path, count: int) -> None:
    row = epoch_row(1, 1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0, 9.0, 1.0)
    draw_curves(tmp_path / "x.png", "x", [replace(row, epoch=i + 1) for i in range(count)])
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (1800, 630)


@pytest.mark.parametrize("rates", [(0.0,), (0.1, 0.05, 0.0)])
def test_a_learning_rate_may_end_at_zero(tmp_path: Path, rates: tuple[float, ...]) -> None:
    row = epoch_row(1, 1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0, 9.0, 1.0)
    epochs = [replace(row, epoch=i + 1, lr=rate) for i, rate in enumerate(rates)]
    draw_curves(tmp_path / "x.png", "x", epochs)  # a warning would be an error
    assert (tmp_path / "x.png").exists()


def test_a_stopped_run_keeps_its_last_sound_weights(tmp_path: Path) -> None:
    recipe = Recipe(**{**vars(RECIPE), "init": Normal(1e30)})
    outcome = train(tmp_path / "run", recipe)
    assert isinstance(outcome, Stopped)
    record = Run.load(tmp_path / "run").record
    assert record.state == "stopped"
    assert record.reason
    assert record.reason.startswith("the training loss became")
    assert not (tmp_path / "run/weights.safetensors").exists()


def test_a_second_signal_acts_as_ever(tmp_path: Path) -> None:
    def twice(event: Event) -> None:
        # To this thread: of two to the process the second can get lost in the first.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", on_event=twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def refused(call: Callable[[], object]) -> tuple[type, str]:
    with pytest.raises(UserError) as error:
        call()
    (found,) = error.value.diagnostics
    return type(found), found.fill(found.label)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "name", ["metrics.csv", "curves.png", "weights.safetensors", "weights-best.safetensors"]
)
def test_a_file_that_cannot_be_written_at_the_end_is_told_before_a_step(
    interrupted: Path, name: str
) -> None:
    (interrupted / name).unlink(missing_ok=True)
    os.mkfifo(interrupted / name)
    before = checkpoints(interrupted / "checkpoint")
    mistake, label = refused(lambda: go_on(interrupted))
    assert (mistake, label) == (CannotWrite, "it is a named pipe, not a file")
    assert checkpoints(interrupted / "checkpoint") == before
    assert Run.load(interrupted).record.state == "interrupted"


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return checkpoints(folder / "checkpoint")[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64}, "damaged"),
        ({"format": 1}, "format has a wrong value"),
        ({"extra": 1}, "extra is unknown"),
        ({"progress": {"epochs": [{}]}}, "missing"),
    ],
)
def test_a_tampered_state_is_refused(
    interrupted: Path, changes: dict[str, Any], reason: str
) -> None:
    edit(newest(interrupted) / "state.json", **changes)
    mistake, label = refused(lambda: go_on(interrupted))
    assert mistake is diagnostics.BadCheckpoint
    assert reason in label


def test_an_older_checkpoint_takes_the_place_of_a_damaged_one_when_it_is_removed(
    whole: tuple[Path, Outcome], interrupted: Path
) -> None:
    path = newest(interrupted)
    (path / "tensors.safetensors").unlink()
    with pytest.raises(UserError, match=f"remove the folder `{path}`"):
        go_on(interrupted)
    shutil.rmtree(path)
    assert isinstance(go_on(interrupted), Finished)
    assert weights_of(whole[0]) == weights_of(interrupted)


def test_tampered_tensors_are_refused(interrupted: Path) -> None:
    path = newest(interrupted) / "tensors.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-4], whole + b"x" * 2**25, b"", whole[:-1] + b"\x01"):
        path.write_bytes(content)
        assert refused(lambda: go_on(interrupted))[0] is diagnostics.BadCheckpoint
        edit(path.parent / "state.json", sha256=sha256(path))
        if content != whole[:-1] + b"\x01":
            assert refused(lambda: go_on(interrupted))[0] is diagnostics.BadCheckpoint


def test_tensors_of_another_net_are_refused(interrupted: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = newest(interrupted) / "tensors.safetensors"
    tensors = load_file(path)
    name = "weight/0.bias"
    for changed, reason in (
        ({**tensors, name: tensors[name][:2].clone()}, "[2]"),
        ({**tensors, name: tensors[name].double()}, "float64"),
        ({k: t for k, t in tensors.items() if k != name}, f"{name} is missing"),
        ({**tensors, "x": tensors[name].clone()}, "x is unknown"),
        ({**tensors, name: tensors[name] * nan}, "not finite"),
    ):
        save_file(changed, path)
        edit(path.parent / "state.json", sha256=sha256(path))
        mistake, label = refused(lambda: go_on(interrupted))
        assert mistake is diagnostics.BadCheckpoint
        assert reason in label


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state["progress"]["sums"].update(steps=10**15), "more steps"),
        (lambda state: state["progress"]["sums"].update(steps=-1), "more steps"),
        (lambda state: state["progress"]["sums"].update(loss=-1.0), "sums are out of range"),
        (lambda state: state["progress"]["sums"].update(correct=10**9), "sums are out of range"),
        (lambda state: state["progress"]["epochs"][-1].update(epoch=77), "do not follow"),
        (lambda state: state["progress"]["epochs"][-1].update(step=10**12), "do not follow"),
        (lambda state: state["progress"]["epochs"][-1].update(val_top1=-1.0), "out of range"),
        (lambda state: state["progress"].update(epochs=[]), "it is of step"),
        (lambda state: state.update(loss_scale={"scale": -1.0, "growth": 0}), "loss scale"),
    ],
)
def test_numbers_that_are_not_of_the_training_are_refused(
    interrupted: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    path = newest(interrupted) / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    mistake, label = refused(lambda: go_on(interrupted))
    assert mistake is diagnostics.BadCheckpoint
    assert reason in label


def test_a_checkpoint_under_another_name_is_refused(interrupted: Path) -> None:
    path = newest(interrupted)
    path.rename(path.with_name("step-999999"))
    assert "it is of step" in refused(lambda: go_on(interrupted))[1]


def test_other_names_of_classes_are_refused(interrupted: Path) -> None:
    edit(interrupted / "run.json", classes=["x", "y", "z"])
    assert refused(lambda: go_on(interrupted))[0] is diagnostics.DataChanged
    edit(interrupted / "run.json", classes=["a", "b", "a"])
    assert "two classes have one name" in refused(lambda: Run.load(interrupted))[1]


def test_a_resumed_run_is_running_again(interrupted: Path) -> None:
    states: set[str] = set()
    go_on(interrupted, on_event=lambda event: states.add(Run.load(interrupted).record.state))
    assert states == {"running"}
    assert Run.load(interrupted).record.state == "finished"


def test_a_run_in_a_folder_whose_name_is_no_text_ends_and_goes_on_as_any(
    whole: tuple[Path, Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9") / "run"
    assert isinstance(train(folder, on_event=interrupt_after(7)), Interrupted)
    assert isinstance(go_on(folder), Finished)
    assert weights_of(folder) == weights_of(whole[0])
    assert Run.load(folder).has_weights


def test_a_lost_checkpoint_is_no_reason_to_begin_again(interrupted: Path) -> None:
    shutil.rmtree(interrupted / "checkpoint")
    before = (interrupted / "weights.safetensors").read_bytes()
    mistake, label = refused(lambda: go_on(interrupted))
    assert mistake is diagnostics.BadCheckpoint
    assert "it is missing" in label
    assert (interrupted / "weights.safetensors").read_bytes() == before


def test_another_net_recipe_or_seed_is_refused(interrupted: Path) -> None:
    edit(newest(interrupted) / "state.json", task="0" * 64)
    assert refused(lambda: go_on(interrupted))[0] is diagnostics.TaskChanged


def test_other_images_are_refused(interrupted: Path) -> None:
    mistake, label = refused(lambda: go_on(interrupted, count=6))
    assert mistake is diagnostics.DataChanged
    assert label == "the images to train on that can be read have other names or classes"


@pytest.mark.parametrize(
    ("part", "what"), [("train", "images to train on"), ("val", "held-out images")]
)
def test_so_are_others_that_have_taken_their_names(interrupted: Path, part: str, what: str) -> None:
    """Two pictures exchanged: colours, sizes and names are what they were, all in all."""
    run = Run.load(interrupted)
    images = found()
    exchanged: Part = getattr(images, part)
    pixels = exchanged.store.fetch(range(len(exchanged)))
    pixels[0], pixels[-1] = pixels[-1], pixels[0]
    store = Arrays(exchanged.store.names, np.stack(pixels))
    images = replace(images, **{part: replace(exchanged, store=store)})
    rest = replace(task(run.recipe), data=prepare(images, (3, 8, 8), run.recipe.scale))
    assert rest.data.preprocessing == run.record.preprocessing
    mistake, label = refused(lambda: resume(run, rest))
    assert mistake is diagnostics.DataChanged
    assert label == f"{what} have kept their names, but not what is in their files"


def test_a_run_of_before_there_was_a_fingerprint_of_each_part_says_so(interrupted: Path) -> None:
    edit(interrupted / "run.json", format=1)
    assert refused(lambda: Run.load(interrupted))[0] is diagnostics.OldRun


PREPARED = {
    "size": [8, 8],
    "scale": None,
    "mean": [0] * 3,
    "std": [1] * 3,
    "white": {"whole": None, "real": None},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 3},
        {"seed": -1},
        {"seed": True},
        {"classes": []},
        {"input": [3, 8, 10**9]},
        {"input": [2, 8, 8]},
        {"state": "perfect"},
        {"extra": 1},
        {"metrics": {"epoch": 1}},
        {"preprocessing": PREPARED | {"std": [0, 1, 1]}},
        {"preprocessing": PREPARED | {"size": [8, 9]}},
        {"preprocessing": PREPARED | {"scale": 10**9}},
        {"preprocessing": PREPARED | {"scale": 0}},
        {"preprocessing": PREPARED | {"std": [1]}},
        {"preprocessing": PREPARED | {"mean": [0, 0, 1e999]}},
        {"preprocessing": PREPARED | {"white": {"whole": 0, "real": None}}},
        {"preprocessing": PREPARED | {"white": {"whole": None, "real": 1e9}}},
    ],
)
def test_a_tampered_record_is_refused(interrupted: Path, changes: dict[str, Any]) -> None:
    edit(interrupted / "run.json", **changes)
    assert refused(lambda: Run.load(interrupted))[0] is diagnostics.NotARun


def test_a_tampered_recipe_is_refused(interrupted: Path) -> None:
    edit(interrupted / "run.json", recipe={"batch": "many"})
    assert refused(lambda: Run.load(interrupted).recipe)[0] is WrongValue


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**5, b"\xff", b"NaN", b"1" * 10**5])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(MalformedError):
        read_record(tmp_path / "run.json", RunRecord)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    assert refused(lambda: Run.load(tmp_path))[0] is diagnostics.NotARun
    assert refused(lambda: newest_run(tmp_path))[0] is diagnostics.NoRuns


def test_the_newest_run_is_the_one_with_weights_that_started_last(tmp_path: Path) -> None:
    whole = task()
    for name, year in (("b", 2024), ("a", 2026), ("c", 2025), ("killed", 2027)):
        begin(whole, None, tmp_path / name, datetime(year, 1, 1))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/run.json").write_text("not a run")
    assert refused(lambda: newest_run(tmp_path)) == (
        diagnostics.NoWeights,
        "they are written with each checkpoint that is sound; this one is `running`",
    )
    for name in ("a", "b", "c"):
        (tmp_path / name / "weights.safetensors").touch()
    assert newest_run(tmp_path).folder.name == "a"
    newest_run(tmp_path).require_weights()
    assert refused(Run.load(tmp_path / "killed").require_weights)[0] is diagnostics.NoWeights


def test_a_run_of_another_net_is_refused(interrupted: Path) -> None:
    run = Run.load(interrupted)
    for body in ("fc-3", "boxes-3", "boxes"):
        run.require_fit(graph_of(body, "3x8x8"))
    for body, input_ in (("fc-3", "3x8x9"), ("fc-4", "3x8x8"), ("boxes-4", "3x8x8")):
        other = graph_of(body, input_)
        assert refused(partial(run.require_fit, other))[0] is diagnostics.NotARun


def test_a_run_may_have_any_input_that_a_net_may_have(interrupted: Path) -> None:
    prepared = PREPARED | {"size": [8200, 8]}
    edit(interrupted / "run.json", input=[3, 8200, 8], preprocessing=prepared)
    assert Run.load(interrupted).record.input == (3, 8200, 8)


def test_a_checkpoint_that_cannot_be_removed_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay(path: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError

    monkeypatch.setattr("shutil.rmtree", stay)
    assert isinstance(train(tmp_path / "run"), Finished)


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for name in ("full", "full/x"):
        path = Path(name)
        assert refused(lambda path=path: place_for(path, "n", NOW))[0] is Taken
    for name in ("n-20260102-030405", "n-20260102-030405-2", "n-20260102-030405-3"):
        assert place_for(None, "n", NOW) == Path("runs") / name
        (Path("runs") / name).mkdir(parents=True)


def test_two_runs_that_start_in_the_same_second_both_have_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, others = task(), [Path("runs/tiny-20260102-030405")]

    def place(out: Path | None, net: str, now: datetime) -> Path:
        found = place_for(out, net, now)
        while others:  # begun as soon as this one has found its place
            monkeypatch.setattr(session, "place_for", place_for)
            assert begin(whole, None, None, NOW).folder == others.pop()
        return found

    monkeypatch.setattr(session, "place_for", place)
    assert begin(whole, None, None, NOW).folder == Path("runs/tiny-20260102-030405-2")
    assert refused(lambda: begin(whole, None, Path("runs/tiny-20260102-030405"), NOW))[0] is Taken


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x.json"
    assert refused(lambda: write_record(path, Progress()))[0] is CannotWrite
    whole = task()
    assert refused(lambda: begin(whole, None, path, NOW))[0] is CannotWrite


def test_records_take_exactly_their_types() -> None:
    for kind, value in (
        (int, 1.0),
        (int, True),
        (float, "1"),
        (str, None),
        (tuple[int, ...], [""]),
    ):
        with pytest.raises(MalformedError):
            from_json(kind, value)  # type: ignore[arg-type]
    assert from_json(float, 1) == 1.0
