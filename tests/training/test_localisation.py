"""Nets that learn where objects are: heads of boxes, and several heads together."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.annotated import Marks, put, voc_xml
from tests.support.runs import interrupt_after
from vggc.api.train import Training, TrainOptions, new_run, resume_run, training
from vggc.data.find import find_images
from vggc.data.loader import TrainBatches
from vggc.data.order import Share
from vggc.program import load
from vggc.support.diagnostics import UserError
from vggc.training.boxes import corners
from vggc.training.metrics import read_metrics
from vggc.training.progress import Event, Finished, Interrupted, Outcome
from vggc.training.run import Run
from vggc.training.session import Keeping, proceed
from vggc.training.steps import read_steps
from vggc.weight_files.load import load as load_weights
from vggc_runtime.files import sha256

SCR = """\
net scr
input 3x16x16
  conv3-8 | pool | fc-32 | boxes
train { batch 8; epochs 2; sgd lr=0.02; constant; init he; flip }
"""
PCR = SCR.replace("net scr", "net pcr").replace("| boxes", "| boxes-7")
CLASSES = SCR.replace("net scr", "net classes").replace("| boxes", "| fc-7 | softmax")
BOTH = """\
net both
input 3x16x16
  conv3-8 | pool | fc-32
head what: fc-7 | softmax
head where: boxes
head code: fc-5 | relu
train {
  batch 8; epochs 2; sgd lr=0.02; constant; init he
  loss cross-entropy head=what weight=0.5
  loss smooth-l1 head=where
}
"""
COLOURS = {"blue": (20, 60, 230), "red": (230, 50, 30)}


def write_squares(folder: Path, count: int, more: Callable[[int], Marks] = lambda _: []) -> None:
    """Grey pictures with one coloured rectangle each, in Pascal VOC's layout; `more` marks other
    objects in each.
    """
    random = np.random.default_rng(count)
    for index in range(count):
        name = [*COLOURS][index % 2]
        pixels = random.integers(90, 140, (20, 24, 3)).astype(np.uint8)
        width, height = random.integers(6, 14, 2)
        left, top = random.integers(0, 24 - width + 1), random.integers(0, 20 - height + 1)
        pixels[top : top + height, left : left + width] = COLOURS[name]
        path = folder / f"JPEGImages/{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        box = (float(left), float(top), float(left + width), float(top + height))
        marks: Marks = [(name, box), *more(index)]
        put(folder / f"Annotations/{index:03}.xml", voc_xml(marks, (24, 20)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures and nets, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    write_squares(tmp_path / "squares", 30)
    nets = {"scr": SCR, "pcr": PCR, "both": BOTH, "classes": CLASSES}
    for name, text in nets.items():
        (tmp_path / f"{name}.vgg").write_text(text)
    return tmp_path


def move_a_box(here: Path) -> None:
    """Makes an object of the pictures to train on wider than it was."""
    path = here / "squares/Annotations/003.xml"
    before = path.read_text()
    after = re.sub(r"<xmax>[0-9]+", "<xmax>24", before)
    assert after != before
    path.write_text(after)


def ignore(event: Event) -> None:
    """Nobody looks on."""


def trained(
    spec: str | None,
    out: str,
    *changes: str,
    resumed: bool = False,
    on_event: Callable[[Event], None] = ignore,
) -> Outcome:
    """Trains a net on the squares, or goes on with a run."""
    options = TrainOptions(device="cpu", changes=changes)
    if resumed:
        plan = resume_run(None, Path(out), options)
    else:
        plan = new_run(spec, replace(options, data="squares", out=Path(out)))
    with training(plan, lambda: plan.read(lambda done, total: None), pytest.fail) as begun:
        return go(begun, on_event)


def go(begun: Training, on_event: Callable[[Event], None]) -> Outcome:
    return proceed(begun.run, begun.learner, begun.task, begun.progress, on_event, Keeping(), 0)


@pytest.mark.parametrize(("spec", "width"), [("scr.vgg", 4), ("pcr.vgg", 8)])
def test_a_net_learns_one_box_or_one_for_each_class(here: Path, spec: str, width: int) -> None:
    outcome = trained(spec, "run", "epochs=60")
    assert isinstance(outcome, Finished)
    first, last = outcome.progress.epochs[0], outcome.progress.epochs[-1]
    assert last.train_loss < first.train_loss / 3
    assert last.accuracy == last.val_iou
    assert last.accuracy > max(0.3, first.accuracy)
    assert last.val_top1 is None
    run = Run.load(Path("run"))
    assert run.record.classes == ("blue", "red")
    assert load(str(run.net_path)).graph.output == (width,)
    assert run.record.best is not None
    assert run.record.best.val_iou == max(row.val_iou or 0 for row in outcome.progress.epochs)


def test_tables_have_the_columns_of_what_a_net_gives(here: Path) -> None:
    trained("scr.vgg", "scr")
    trained("both.vgg", "both")
    headers = {
        name: [(Path(name) / table).read_text().split("\n")[0] for table in TABLES]
        for name in ("scr", "both")
    }
    assert headers["scr"] == [
        "epoch,step,lr,train_loss,train_iou,val_loss,val_iou,val_iou50,images_per_second,seconds",
        "step,epoch,lr,loss,iou,images_per_second",
    ]
    assert headers["both"] == [
        "epoch,step,lr,train_loss,train_top1,train_iou,val_loss,val_top1,val_top5,val_iou,"
        "val_iou50,images_per_second,seconds",
        "step,epoch,lr,loss,top1,iou,images_per_second",
    ]
    for name in ("scr", "both"):
        assert len(read_metrics(Path(name))) == 2
        steps = read_steps(Path(name), 99)
        assert len(steps) == 6
        assert all(row.iou is not None for row in steps)


TABLES = "metrics.csv", "steps.csv"


@pytest.mark.parametrize("spec", ["scr.vgg", "both.vgg"])
@pytest.mark.parametrize("event", [2, 5])
def test_an_interrupted_run_ends_as_if_it_had_not_been(here: Path, spec: str, event: int) -> None:
    trained(spec, "whole")
    assert isinstance(trained(spec, "run", on_event=interrupt_after(event)), Interrupted)
    assert isinstance(trained(None, "run", resumed=True), Finished)
    whole, run = (sha256(Path(name) / "weights.safetensors") for name in ("whole", "run"))
    assert whole == run
    assert without_times("whole") == without_times("run")


def without_times(name: str) -> list[dict[str, object]]:
    """What the epochs of a run came to, but for how long they took."""
    timed = ("seconds", "images_per_second")
    return [
        {k: v for k, v in vars(row).items() if k not in timed} for row in read_metrics(Path(name))
    ]


def test_a_step_in_parts_is_the_same_step(here: Path) -> None:
    trained("both.vgg", "whole")
    trained("both.vgg", "parts", "accumulate=2")
    graph = load(str(Run.load(Path("whole")).net_path)).graph
    whole, parts = (
        load_weights(Path(name) / "weights.safetensors", graph).weights
        for name in ("whole", "parts")
    )
    for name, weight in whole.items():
        np.testing.assert_allclose(parts[name], weight, atol=1e-5)


def test_heads_that_are_not_trained_keep_their_first_weights(here: Path) -> None:
    trained("both.vgg", "one", "epochs=1")
    trained("both.vgg", "two", "epochs=2", "loss[where]=off")
    graph = load(str(Run.load(Path("two")).net_path)).graph
    one, two = (
        load_weights(Path(name) / "weights.safetensors", graph).weights for name in ("one", "two")
    )
    still = {name for name in one if np.array_equal(one[name], two[name])}
    assert {name.partition(".")[0] for name in still} == {"code_fc1"}
    fresh = trained_weights_at_first("both.vgg")
    assert np.array_equal(two["where_boxes1.weight"], fresh["where_boxes1.weight"])
    assert read_metrics(Path("two"))[0].val_iou is None


def trained_weights_at_first(spec: str) -> dict[str, np.ndarray]:
    """The weights that a training of this net begins with."""
    plan = new_run(spec, TrainOptions(device="cpu", data="squares", out=Path("fresh")))
    begun = plan.start(plan.read(lambda done, total: None))
    return {name: each.numpy() for name, each in begun.task.module.state_dict().items()}


def test_the_auxiliary_heads_of_googlenet_are_trained_at_three_tenths() -> None:
    recipe = load("googlenet_aux").recipe
    assert [(each.head, each.weight) for each in recipe.loss] == [
        (None, 1.0),
        ("aux1", 0.3),
        ("aux2", 0.3),
    ]


def test_several_objects_are_told_and_learned_as_the_recipe_says(here: Path) -> None:
    write_squares(here / "more", 20, lambda index: [("red", (0, 0, 2, 2))] if index % 4 else [])
    whole = find_images("more", 0)
    for how, count in (("largest", 16), ("each", 28), ("only", 4)):
        plan = new_run(
            "scr.vgg",
            TrainOptions(
                device="cpu",
                data="more",
                out=Path("run"),
                changes=(f"boxes.objects={how}", "batch=2"),
            ),
        )
        assert len(whole.train) == 16
        assert abs(len(plan.images.train) - count) <= 3
        assert any(f"`boxes objects={how}`" in note for note in plan.images.notes)
        assert plan.images.train.objects is not None
        assert (np.diff(plan.images.train.objects.starts) == 1).all()


def test_one_class_is_enough_for_boxes_and_too_few_for_classes(here: Path) -> None:
    for path in (here / "squares/Annotations").iterdir():
        path.write_text(path.read_text().replace("blue", "red"))
    trained("scr.vgg", "scr")
    assert Run.load(Path("scr")).record.classes == ("red",)
    with pytest.raises(UserError, match="tells classes apart"):
        trained("both.vgg", "both")
    assert not Path("both").exists()


def test_a_head_that_is_off_needs_nothing_of_the_pictures(here: Path) -> None:
    for index in range(6):
        for name, colour in COLOURS.items():
            path = here / f"plain/{name}/{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 20), colour).save(path)
    options = TrainOptions(device="cpu", data="plain", out=Path("run"))
    plan = new_run("both.vgg", replace(options, changes=("loss[where]=off",)))
    assert (plan.recipe.boxes, plan.recipe.best_by) == (None, "top-1")
    for path in (here / "squares/Annotations").iterdir():
        path.write_text(path.read_text().replace("blue", "red"))
    options = replace(options, data="squares")
    plan = new_run("both.vgg", replace(options, changes=("loss[what]=off",)))
    assert plan.recipe.best_by == "iou"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("loss[what]=off", "class-weights=balanced"), "`class-weights` has no effect"),
        (("loss[what]=off", "best-by=top-1"), "best-by iou"),
        (("loss[where]=off", "boxes.objects=each"), "`boxes` has no effect"),
        (("loss[where]=off", "loss[where].weight=2"), "`weight=` has no effect"),
    ],
)
def test_settings_of_a_head_that_is_off_are_refused(
    here: Path, changes: tuple[str, ...], told: str
) -> None:
    options = TrainOptions(device="cpu", data="squares", out=Path("run"), changes=changes)
    with pytest.raises(UserError) as caught:
        new_run("both.vgg", options)
    assert told in str(caught.value)
    assert not Path("run").exists()


def test_pictures_without_boxes_are_refused(here: Path) -> None:
    for index in range(6):
        for name in COLOURS:
            put(here / f"plain/{name}/{index}.png")
    options = TrainOptions(device="cpu", data="plain", out=Path("run"))
    with pytest.raises(UserError, match="does not say where objects are"):
        new_run("scr.vgg", options)


def test_a_box_that_has_moved_ends_a_resumed_training(here: Path) -> None:
    assert isinstance(trained("scr.vgg", "run", on_event=interrupt_after(4)), Interrupted)
    move_a_box(here)
    with pytest.raises(UserError, match="objects in images to train on have other boxes"):
        trained(None, "run", resumed=True)


def test_a_net_that_tells_classes_alone_minds_no_box_that_has_moved(here: Path) -> None:
    assert isinstance(trained("classes.vgg", "run", on_event=interrupt_after(4)), Interrupted)
    move_a_box(here)
    assert isinstance(trained(None, "run", resumed=True), Finished)


def test_crops_flips_and_scales_leave_a_perfect_box_perfect(here: Path) -> None:
    """A net that finds the coloured pixels of what it sees gives the box that it is to learn."""
    plan = new_run(
        "scr.vgg",
        TrainOptions(
            device="cpu", data="squares", out=Path("run"), changes=("scale=16..20", "batch=24")
        ),
    )
    begun = plan.start(plan.read(lambda done, total: None))
    order = begun.task.order
    for step in range(6):
        batch = TrainBatches(begun.task.data.train, order, Share())[step]
        images, targets = begun.learner.augmentation(batch, step)
        assert targets.objects is not None
        normaliser, whole = begun.learner.normalised, targets.objects.targets
        first, last = whole[:, :2] - whole[:, 2:] / 2, whole[:, :2] + whole[:, 2:] / 2
        inside = ((first >= 0) & (last <= 1)).all(1)
        assert inside.sum() > 2
        seen = [
            coloured(image * normaliser.std[0] + normaliser.mean[0]) for image in images[inside]
        ]
        # Pixels are whole: an edge lies within one of the crop's sixteen.
        assert (corners(torch.stack(seen)) - corners(whole[inside])).abs().max() < 1 / 16


def coloured(image: torch.Tensor) -> torch.Tensor:
    """The box (4,) around the coloured pixels of an image (3, H, W) in grey levels, as a net gives
    it.
    """
    spread = image.amax(0) - image.amin(0)
    rows, columns = (spread > 110).nonzero(as_tuple=True)
    top, bottom = rows.min() / 16, (rows.max() + 1) / 16
    left, right = columns.min() / 16, (columns.max() + 1) / 16
    return torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def test_a_report_shows_the_worst_boxes(
    here: Path, vggc_here: Callable[..., tuple[int, str, str]]
) -> None:
    trained("both.vgg", "run")
    code, out, _ = vggc_here("report", "run", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["val_iou"] is not None
    assert told["errors_shown"] > 0
    page = Path("run/report.html").read_text()
    assert "Worst boxes" in page
    assert "held-out mean IoU" in page
