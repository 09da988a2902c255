"""How a training ends, what it keeps, and how it goes on for longer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.rows import epoch_row, step_row
from tests.support.runs import KEEPING, go_on, interrupt_after, saved, train, weights_of
from tests.support.training_data import RECIPE, TINY, write_images
from vggc.api.train import RunFinished, TrainOptions, new_run, resume_run
from vggc.recipe.train import Constant, Cosine, EarlyStop, OneCycle, Plateau, Recipe, Sgd
from vggc.support.diagnostics import UserError
from vggc.training import diagnostics, steps
from vggc.training.best import best_epoch, stopped_early
from vggc.training.progress import Epoch, Event, Finished, Interrupted, StepDone
from vggc.training.run import BEST, LAST, Moment, Run, moment_of
from vggc.training.schedules import learning_rate
from vggc.training.session import Keeping, proceed
from vggc.training.steps import StepTable, line
from vggc_runtime.files import sha256

ROW = epoch_row(1, 4, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0, 9.0, 1.0)


def course(*accuracies: float) -> tuple[Epoch, ...]:
    """Epochs with these held-out accuracies, and losses that fall by 0.1 each time."""
    return tuple(
        replace(ROW, epoch=number, step=4 * number, val_top1=top1, val_loss=2 - number / 10)
        for number, top1 in enumerate(accuracies, start=1)
    )


def mistake_of(call: Callable[[], object]) -> type:
    with pytest.raises(UserError) as error:
        call()
    return type(error.value.diagnostics[0])


# The best epoch, and when to stop


def test_the_best_epoch_is_the_first_of_the_highest_accuracy_or_the_least_loss() -> None:
    epochs = course(0.5, 0.7, 0.7, 0.6)
    assert best_epoch((), "top-1") is None
    assert best_epoch(epochs, "top-1") is epochs[1]
    assert best_epoch(epochs, "loss") is epochs[3]


def test_a_training_stops_after_so_many_epochs_that_are_no_better() -> None:
    recipe = replace(RECIPE, early_stop=EarlyStop(2))
    assert stopped_early(RECIPE, course(0.5, 0.4, 0.4, 0.4)) is None
    assert stopped_early(recipe, ()) is None
    assert stopped_early(recipe, course(0.5, 0.4)) is None
    assert stopped_early(recipe, course(0.5, 0.5, 0.5)) == (
        "early stop: no epoch of the last 2 was better than epoch 1, held-out top-1 50.00%"
    )
    assert stopped_early(recipe, course(0.5, 0.4, 0.6)) is None
    assert stopped_early(replace(recipe, best_by="loss"), course(0.5, 0.4, 0.4)) is None
    coarse = replace(recipe, early_stop=EarlyStop(2, min_delta=0.05))
    assert stopped_early(coarse, course(0.5, 0.52, 0.54)) == (
        "early stop: no epoch of the last 2 was better by more than 0.05 than epoch 1, "
        "held-out top-1 50.00%"
    )
    assert stopped_early(coarse, course(0.5, 0.52, 0.56)) is None
    extended = replace(recipe, early_stop=EarlyStop(2, after=3))
    assert stopped_early(extended, course(0.5, 0.4, 0.4, 0.4)) is None
    assert stopped_early(extended, course(0.5, 0.4, 0.4, 0.6, 0.6)) is None
    assert stopped_early(extended, course(0.5, 0.4, 0.4, 0.4, 0.4)) is not None


STOPS = replace(RECIPE, epochs=9, early_stop=EarlyStop(2), optimiser=Sgd(lr=1e-9))
"""Steps so small that no epoch is better than the first."""


def test_an_early_stop_is_a_finish_with_a_reason(tmp_path: Path) -> None:
    outcome = train(tmp_path / "run", STOPS)
    assert isinstance(outcome, Finished)
    assert len(outcome.progress.epochs) == 3
    record = Run.load(tmp_path / "run").record
    assert (record.state, record.reason) == ("finished", outcome.reason)
    assert record.reason
    assert record.reason.startswith("early stop: no epoch of the last 2 was better than epoch 1")


@pytest.mark.parametrize("event", [5, 10, 14, 15])
def test_a_resumed_run_stops_as_early_as_one_that_was_not_interrupted(
    tmp_path: Path, event: int
) -> None:
    """Also one that was killed when its last epoch had been saved, but not concluded."""

    class Killed(BaseException):
        pass

    def die(found: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    left = event
    with pytest.raises(Killed):
        train(tmp_path / "run", STOPS, die)
    outcome = go_on(tmp_path / "run")
    assert isinstance(outcome, Finished)
    assert outcome.reason
    assert len(outcome.progress.epochs) == 3


# What is kept


def test_the_best_weights_are_kept_beside_the_last(tmp_path: Path) -> None:
    """Those of the best epoch, bit for bit what a run of so many epochs ends with."""
    recipe = replace(RECIPE, epochs=4, best_by="loss", optimiser=Sgd(lr=0.3), ema=0.5)
    outcome = train(tmp_path / "run", recipe)
    best = best_epoch(outcome.progress.epochs, "loss")
    assert best is not None
    run = Run.load(tmp_path / "run")
    assert run.record.best == best
    assert moment_of(run.best_path) == Moment(best.epoch, best.step)
    assert moment_of(run.weights_path) == Moment(4, 16)
    train(tmp_path / "short", replace(recipe, epochs=best.epoch))
    kept, due = load_file(run.best_path), load_file(tmp_path / "short/weights.safetensors")
    assert all(torch.equal(kept[name], due[name]) for name in due)


@pytest.mark.parametrize("event", [3, 5, 7, 11])
def test_a_run_that_was_killed_keeps_what_the_whole_run_keeps(tmp_path: Path, event: int) -> None:
    recipe = replace(RECIPE, best_by="loss", optimiser=Sgd(lr=0.3))
    train(tmp_path / "whole", recipe)
    assert isinstance(train(tmp_path / "run", recipe, interrupt_after(event)), Interrupted)
    (tmp_path / "run/weights-best.safetensors").unlink(missing_ok=True)
    run = Run.load(tmp_path / "run")
    go_on(tmp_path / "run")
    if event in (3, 5):  # of later ones the best may be of an epoch that has passed
        assert sha256(run.best_path) == sha256(tmp_path / "whole/weights-best.safetensors")
    whole, rest = (Run.load(tmp_path / name).record.best for name in ("whole", "run"))
    assert whole
    assert rest
    assert astuple(whole)[:8] == astuple(rest)[:8]


def test_a_run_that_was_killed_is_used_by_what_it_saved_last(
    folder: Path, vggc_here: Callable[..., tuple[object, str, str]]
) -> None:
    class Killed(BaseException):
        pass

    def die(found: Event) -> None:
        if isinstance(found, StepDone) and found.done == 7:
            raise Killed

    with pytest.raises(Killed):
        carried_out(folder, "run", die, batch=8)
    run = folder / "run"
    record = Run.load(run).record
    assert record.state == "running"
    assert record.best
    assert record.metrics
    assert record.metrics.epoch == 2
    image = next((folder / "images/red").iterdir())
    for command in (
        ("eval", run),
        ("eval", run, "--weights", "best"),
        ("predict", run, image),
        ("export", run, "--format", "torchvision", "-o", folder / "x.safetensors"),
    ):
        code, _, error = vggc_here(*command)
        assert code == 0, error
        assert f"{run} has not ended (it is still going, or was killed): its " in error
        assert "weights are those after epoch " in error
    code, _, error = vggc_here("report", run)
    assert code == 0, error
    assert "By the weights after epoch 2, step 6," in (run / "report.html").read_text()
    code, _, error = vggc_here("eval", folder / "tiny.vgg", "--weights", "best")
    assert code == 2


def test_the_cost_of_a_run_is_told_for_its_batch(
    folder: Path, vggc_here: Callable[..., tuple[object, str, str]]
) -> None:
    run = carried_out(folder, "run", epochs=1, batch=12, changes=("accumulate=2",))
    as_json = ("--format", "json")
    code, out, _ = vggc_here("summary", run)
    assert code == 0
    assert "batch 6" in out
    assert "training in batches of 6 about" in out
    of_net = json.loads(vggc_here("summary", run / "net.vgg", "--batch", "6", *as_json)[1])
    of_run = json.loads(vggc_here("summary", run, *as_json)[1])
    pictures = Run.load(run).record.data.pictures
    assert pictures > 0
    of_net["totals"]["training_bytes"] += pictures  # which the net knows nothing of
    assert of_run == of_net
    assert "batch 1," in vggc_here("summary", run, run / "net.vgg")[1]
    assert vggc_here("report", run, "--no-errors")[0] == 0
    assert "training in batches of 6 about" in (run / "report.html").read_text()


def test_which_weights_of_a_run_are_meant(tmp_path: Path) -> None:
    train(tmp_path / "run", replace(RECIPE, epochs=1))
    run = Run.load(tmp_path / "run")
    assert run.file_of(None) == run.file_of(LAST) == run.weights_path
    assert run.file_of(BEST) == run.best_path
    assert run.file_of(Path("./x/best")) == Path("./x/best")
    assert run.remarks(None) == []
    going = replace(run, record=replace(run.record, state="running"))
    assert going.remarks(None) == [
        f"{run.folder} has not ended (it is still going, or was killed): its last weights are "
        "those after epoch 1, step 4."
    ]
    better = replace(run.record.metrics, epoch=0)  # type: ignore[type-var]
    other = replace(run, record=replace(run.record, best=better))
    assert "--weights best" in other.remarks(None)[0]
    assert other.remarks(BEST) == []
    run.best_path.unlink()
    assert mistake_of(lambda: run.file_of(BEST)) is diagnostics.NoBestWeights


def test_of_a_finished_run_one_checkpoint_is_kept_or_none(tmp_path: Path) -> None:
    train(tmp_path / "one", replace(RECIPE, epochs=2), keeping=Keeping(every=1, newest=3))
    assert saved(tmp_path / "one") == ["step-8-tested"]
    train(tmp_path / "none", replace(RECIPE, epochs=2), keeping=Keeping(newest=0))
    assert not (tmp_path / "none/checkpoint").exists()
    assert Run.load(tmp_path / "none").has_weights


# For longer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small net and small images."""
    (tmp_path / "tiny.vgg").write_text(TINY)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    return tmp_path


def ignore(event: Event) -> None:
    """Nobody looks on."""


def carried_out(
    folder: Path,
    name: str,
    on_event: Callable[[Event], None] = ignore,
    keeping: Keeping = KEEPING,
    **options: object,
) -> Path:
    """The run of that name, begun or taken up, and as far as it came."""
    out = folder / name
    if out.exists():
        plan = resume_run(None, out, TrainOptions(**options))  # type: ignore[arg-type]
    else:
        asked = TrainOptions(data=folder / "images", device="cpu", out=out, **options)  # type: ignore[arg-type]
        plan = new_run(str(folder / "tiny.vgg"), asked)
    training = plan.start(plan.read(lambda done, total: None))
    proceed(training.run, training.learner, training.task, training.progress, on_event, keeping)
    return out


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_a_finished_run_that_is_extended_is_the_run_that_had_been_longer(
    folder: Path, schedule: str
) -> None:
    changes = (f"schedule={schedule}", "momentum=0.9", "ema=0.5")
    long = carried_out(folder, "long", epochs=4, changes=changes)
    short = carried_out(folder, "short", epochs=2, changes=changes)
    carried_out(folder, "short", epochs=4)
    assert weights_of(short) == weights_of(long)
    for name in ("net.vgg", "weights-best.safetensors"):
        assert (short / name).read_bytes() == (long / name).read_bytes()
    assert exactly(short) == exactly(long)
    assert Run.load(short).recipe == Run.load(long).recipe


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_a_schedule_that_has_run_to_its_end_begins_anew_where_a_run_is_extended(
    folder: Path, schedule: str
) -> None:
    """And that is the run that such restarts are written of, whenever it was interrupted."""
    whole = carried_out(
        folder, "whole", changes=(f"schedule={schedule}", "epochs=5", "restarts=2,3")
    )
    run = carried_out(folder, "run", epochs=2, changes=(f"schedule={schedule}",))
    carried_out(folder, "run", epochs=3)
    carried_out(folder, "run", interrupt_after(2), epochs=5)
    carried_out(folder, "run")
    assert weights_of(run) == weights_of(whole)
    assert (run / "net.vgg").read_text() == (whole / "net.vgg").read_text()
    assert Run.load(run).recipe.restarts == (2, 3)


def test_the_rate_after_a_restart_is_that_of_a_training_of_the_rest() -> None:
    for schedule in (Cosine(0.2), OneCycle()):
        recipe = Recipe(schedule=schedule)
        for step in range(10):
            assert learning_rate(recipe, 20 + step, 30, [], [8, 20]) == learning_rate(
                recipe, step, 10, []
            )
            assert learning_rate(recipe, step, 30, [], [10, 20]) == learning_rate(
                recipe, step, 10, []
            )
    for flat in (Constant(), Plateau()):
        assert learning_rate(Recipe(schedule=flat), 20, 30, [], [20]) == 0.01


def test_of_a_finished_run_nothing_is_left_unless_it_is_to_end_later(folder: Path) -> None:
    run = carried_out(folder, "run", epochs=2)
    for options in (TrainOptions(), TrainOptions(epochs=2), TrainOptions(changes=("give-up=off",))):
        with pytest.raises(RunFinished):
            resume_run(None, run, options)
    assert resume_run(None, run, TrainOptions(epochs=3)).recipe.epochs == 3


def test_what_a_run_cannot_do_any_more_is_refused(folder: Path) -> None:
    run = carried_out(folder, "run", epochs=2)
    before = (run / "run.json").read_bytes()
    for options, mistake in (
        ({"epochs": 1}, diagnostics.EndsSooner),
        ({"changes": ("lr=1",), "epochs": 3}, diagnostics.FixedByRun),
        ({"changes": ("test.flip=off",), "epochs": 3}, diagnostics.FixedByRun),
        ({"changes": ("restarts=1",), "epochs": 3}, diagnostics.FixedByRun),
        ({"batch": 3, "epochs": 3}, diagnostics.FixedByRun),
    ):
        assert mistake_of(lambda w=options: resume_run(None, run, TrainOptions(**w))) is mistake  # type: ignore[misc]
    assert (run / "run.json").read_bytes() == before
    bare = carried_out(folder, "bare", keeping=Keeping(newest=0), epochs=2)
    assert (
        mistake_of(lambda: resume_run(None, bare, TrainOptions(epochs=3)))
        is diagnostics.NothingToGoOnFrom
    )
    counted = carried_out(folder, "counted", changes=("steps=8", "schedule=step", "step.at=3"))
    assert (
        mistake_of(lambda: resume_run(None, counted, TrainOptions(epochs=9)))
        is diagnostics.DropsInOtherUnits
    )
    cut = carried_out(folder, "cut", changes=("steps=8",))
    assert (
        mistake_of(lambda: resume_run(None, cut, TrainOptions(epochs=3)))
        is diagnostics.EndsWithinEpoch
    )


def test_a_run_that_stopped_early_goes_on_where_that_is_taken_back(folder: Path) -> None:
    run = carried_out(folder, "run", epochs=5, lr=1e-9, changes=("early-stop.patience=1",))
    assert Run.load(run).record.metrics.epoch == 2  # type: ignore[union-attr]
    with pytest.raises(RunFinished):
        resume_run(None, run, TrainOptions())
    carried_out(folder, "run", changes=("early-stop=off",))
    record = Run.load(run).record
    assert (record.metrics.epoch, record.reason) == (5, None)  # type: ignore[union-attr]


@pytest.mark.parametrize("epochs", [2, 5])
def test_a_run_that_is_extended_waits_anew_for_a_better_epoch(folder: Path, epochs: int) -> None:
    """Also one that would have stopped early after its last epoch."""
    run = carried_out(folder, "run", epochs=epochs, lr=1e-9, changes=("early-stop.patience=1",))
    carried_out(folder, "run", interrupt_after(2), epochs=9)
    assert "early-stop patience=1 min-delta=0.0 after=2" in (run / "net.vgg").read_text()
    carried_out(folder, "run")
    record = Run.load(run).record
    assert record.metrics.epoch == 3  # type: ignore[union-attr]
    assert record.reason
    assert "no epoch of the last 1 was better than epoch 1" in record.reason


def test_an_end_that_was_written_to_one_of_two_files_only_does_no_harm(folder: Path) -> None:
    run = carried_out(folder, "run", epochs=2)
    text = (run / "net.vgg").read_text()
    carried_out(folder, "run", interrupt_after(2), epochs=3)
    (run / "net.vgg").write_text(text)  # as though it had been killed in between
    carried_out(folder, "run")
    assert Run.load(run).record.metrics.epoch == 3  # type: ignore[union-attr]
    assert "epochs 3" in (run / "net.vgg").read_text()


# The table of steps


def exactly(folder: Path) -> list[str]:
    """The table without the speed."""
    rows = (folder / "steps.csv").read_text().splitlines()
    return [row.rpartition(",")[0] for row in rows]


def test_each_step_has_a_row(tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = train(tmp_path / "run", on_event=events.append)
    header, *rows = (tmp_path / "run/steps.csv").read_text().splitlines()
    assert header == "step,epoch,lr,loss,top1,images_per_second"
    assert [row.split(",")[:3] for row in rows] == [
        [str(step), str((step - 1) // 4 + 1), "0.05"] for step in range(1, 13)
    ]
    told = [event.row for event in events if isinstance(event, StepDone)]
    assert [float(row.split(",")[3]) for row in rows] == [row.loss for row in told]
    # 15 images an epoch, in steps of 4, 4, 4 and 3; the epoch's loss is the mean over images.
    losses = [row.loss for row in told[:4]]
    mean = sum(n * loss for n, loss in zip((4, 4, 4, 3), losses, strict=True)) / 15
    assert outcome.progress.epochs[0].train_loss == pytest.approx(mean)


@pytest.mark.parametrize("event", [1, 5, 7, 12])
def test_a_resumed_run_has_the_rows_of_one_that_was_not_interrupted(
    tmp_path: Path, event: int
) -> None:
    train(tmp_path / "whole")
    assert isinstance(train(tmp_path / "run", on_event=interrupt_after(event)), Interrupted)
    with (tmp_path / "run/steps.csv").open("a") as file:
        file.write("999,9,0.1,1,1,1.0\n1000,")  # of steps that no checkpoint is of
    go_on(tmp_path / "run")
    assert exactly(tmp_path / "run") == exactly(tmp_path / "whole")


def test_rows_beyond_the_checkpoint_and_broken_ones_are_cut_off(tmp_path: Path) -> None:
    rows = [step_row(number, 1, 0.1, 1.5, 0.5, 10.0) for number in range(1, 6)]
    first = steps.header(rows[0])
    text = first + b"".join(map(line, rows))
    path = tmp_path / "steps.csv"
    for content, step, due in (
        (text, 3, text[: text.index(b"\n4,1") + 1]),
        (text, 9, text),
        (text[:-3], 9, text[: text.index(b"\n5,1") + 1]),
        (b"?" * 10**6, 9, b""),
        (first + b"x\n", 9, first),
    ):
        path.write_bytes(content)
        with StepTable(tmp_path, step, pytest.fail) as table:
            table.write()
        assert path.read_bytes() == due


def test_a_full_disk_makes_rows_wait_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with StepTable(tmp_path, 0, told.append) as table:
        with monkeypatch.context() as patch:

            def full(*_: object) -> int:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "pwrite", full)
            for number in (1, 2):
                table.add(step_row(number, 1, 0.1, 1.5, 0.5, 10.0))
                table.write()
        table.add(step_row(3, 1, 0.1, 1.5, 0.5, 10.0))
    assert told == ["No space left on device"]
    assert [row.split(",")[0] for row in (tmp_path / "steps.csv").read_text().splitlines()] == [
        "step",
        "1",
        "2",
        "3",
    ]


def test_what_is_no_file_takes_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "steps.csv")
    with pytest.raises(UserError, match="it is no file"):
        StepTable(tmp_path, 0, pytest.fail)
