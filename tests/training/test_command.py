"""`vggc train` from the shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.training_data import TINY, write_images
from vggc import program as driver
from vggc.analysis.training import training_need
from vggc.api.train import (
    Training,
    TrainOptions,
    blocks_for,
    check_memory,
    departures,
    new_run,
    read_train,
    resume_run,
)
from vggc.cli.train import weights_told
from vggc.data.find import digits
from vggc.data.prepare import expected_bytes
from vggc.ir.weights import save, seeded
from vggc.program import Program, load
from vggc.recipe.course import course_of, frozen_weights
from vggc.recipe.heads import HeadLoss
from vggc.recipe.layer_names import layer_names, with_weights
from vggc.recipe.protocol import read_protocol
from vggc.recipe.train import He, OneCycle, Recipe, Sgd
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.ast import block_of
from vggc.syntax.parse import parse
from vggc.training.learner import TrainMachine
from vggc.training.parallel import ALONE
from vggc.training.progress import Event, Finished, Progress
from vggc.training.session import Keeping, proceed
from vggc.weight_files.names import torchvision_names


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
    assert "\n1 left out.\n" in done.stderr
    assert "run/skipped.csv names the images that were left out" in done.stderr
    table = (folder / "run/skipped.csv").read_text()
    assert re.fullmatch("part,name,reason\n(train|val),red/broken.jpg,not an image\n", table)
    assert "epoch 3/3" in done.stderr
    assert "\x1b" not in done.stderr

    resume_run = vggc(folder, "--resume", "run", "--json")
    assert (resume_run.returncode, resume_run.stdout) == (0, done.stdout)
    assert "has finished; nothing is left to train" in resume_run.stderr


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
    said = "fc-8 init=normal std=0.2 bias=0.1 lr=2"
    (folder / "tiny.vgg").write_text(TINY.replace("fc-8", said))
    arguments = ("tiny.vgg", "--data", "images", "--epochs", "40", "--seed", "5")
    whole = vggc(folder, *arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    told = "Trained with init=normal std=0.2 bias=0.1 lr=2, as the net says: `fc2`.\n"
    assert told in whole.stderr
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
        (["tiny.vgg", "--epochs", "0"], "expected a whole number from 1 to 100,000"),
        (["tiny.vgg", "--lr", "nan"], "expected a number above 0"),
        (["tiny.vgg", "--set", "lrr=1"], "did you mean `lr`?"),
        (["tiny.vgg", "--set", "batch=٣٢"], "--set:1:7"),
        (
            ["tiny.vgg", "--precision", "float16", "--device", "cpu"],
            "float16 needs `--device cuda`",
        ),
        (["tiny.vgg", "--set", "scale=16"], "a scale of 16 is smaller than the net's input"),
        (["tiny.vgg", "--input", "1"], "pool"),
        (["tiny.vgg", "--out", "images"], "images exists already"),
        (["--resume", "images"], "is not the folder of a training run"),
        (["tiny.vgg", "--resume", "images", "--lr", "1"], "SPEC, `--lr` cannot change"),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    folder: Path,
    arguments: list[str],
    words: str,
    vggc_here: Callable[..., tuple[object, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    code, out, error = vggc_here("train", *arguments)
    assert (code, out) == (2, "")
    assert words in error
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


def test_a_training_that_no_memory_holds_is_refused_before_it_begins(
    tmp_path: Path, vggc_here: Callable[..., tuple[object, str, str]]
) -> None:
    spec = tmp_path / "big.vgg"
    spec.write_text("net big input 3x32x32 fc-1000000 ×2 | fc-10 | softmax")
    code, _, error = vggc_here("train", spec, "--out", tmp_path / "run")
    assert code == 2
    assert "does not fit into this machine's memory" in error
    assert not (tmp_path / "run").exists()


def test_a_batch_is_never_larger_than_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    program, cpu = Program(parse(Source("tiny.vgg", TINY))), TrainMachine("cpu", "float32")
    images, most = digits(), Recipe(batch=65_536)
    course = course_of(most, program.graph, 1438)
    pictures = expected_bytes(images, (3, 8, 8), most.scale)
    needed = training_need(program.graph, replace(course, pictures=pictures)).on_cpu
    monkeypatch.setattr(driver, "memory", lambda: needed)
    check_memory(program, images, most, cpu, ALONE)
    monkeypatch.setattr(driver, "memory", lambda: needed - 1)
    check_memory(program, images, Recipe(batch=1000), cpu, ALONE)
    with pytest.raises(UserError, match="batches of 1438 "):
        check_memory(program, images, most, cpu, ALONE)


def test_parts_of_a_step_need_the_memory_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    program, cpu = Program(parse(Source("tiny.vgg", TINY))), TrainMachine("cpu", "float32")
    images, parts = digits(), Recipe(batch=1024, accumulate=64)
    pictures = expected_bytes(images, (3, 8, 8), parts.scale)
    course = replace(course_of(parts, program.graph, 16), pictures=pictures)
    needed = training_need(program.graph, course).on_cpu
    monkeypatch.setattr(driver, "memory", lambda: needed)
    check_memory(program, images, parts, cpu, ALONE)
    with pytest.raises(UserError, match="accumulate=64"):
        check_memory(program, images, Recipe(batch=1024), cpu, ALONE)


BOXES = "net b input 3x8x8 conv3-4 | pool | boxes"
FEATURES = "net b input 3x8x8 conv3-4 | pool | fc-8 | relu"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOXES, "b gives boxes, and `the digits` does not say where objects are"),
        (FEATURES, "b has nothing to train: its heads give features alone"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_begins(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "net.vgg").write_text(text)
    options = TrainOptions(device="cpu", out=tmp_path / "run")
    with pytest.raises(UserError) as error:
        new_run(str(tmp_path / "net.vgg"), options)
    assert words in [d.fill(d.title) for d in error.value.diagnostics]
    assert not (tmp_path / "run").exists()


def test_a_run_that_another_process_goes_on_with_is_left_alone(folder: Path) -> None:
    """Also one that has just begun: it is held before its first checkpoint is written."""
    arguments = ("--data", "images", "--epochs", "500", "--device", "cpu", "--out", "run")
    command = [sys.executable, "-m", "vggc", "train", "tiny.vgg", *arguments]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("Training tiny"):
                break
        second = vggc(folder, "--resume", "run")
        first.send_signal(signal.SIGINT)
        first.communicate()
    assert second.returncode == 2
    assert "error: the run in `run` is being trained by another process" in second.stderr
    assert f"process {first.pid} on " in second.stderr
    assert not (folder / "run" / "lock").exists()
    assert first.returncode == 130


def test_a_run_that_went_on_since_it_was_read_is_left_alone(folder: Path) -> None:
    training = started(folder, TINY, out=folder / "run")
    plan = resume_run(None, folder / "run", TrainOptions(device="cpu"))
    finish(training)
    expected = pytest.raises(UserError, match="it has gone on since this command began")
    with expected, plan.alone(training.run, print):
        pass
    assert not (folder / "run" / "lock").exists()


DEEPER = """\
net deeper
input 3x8x8

  conv3-4 | conv3-4 | pool | fc-8 | dropout | fc-3 | softmax

train {
  batch 4
  steps 2
  init-from tiny layers=conv1_1,fc2..fc3
}
"""


def ignore(event: Event) -> None:
    """Nobody looks on."""


def started(folder: Path, text: str, **options: Any) -> Training:
    """The training of a net in a folder with images, ready to proceed."""
    spec = folder / f"{text.split()[1]}.vgg"
    spec.write_text(text)
    plan = new_run(str(spec), TrainOptions(data=folder / "images", device="cpu", **options))
    return plan.start(plan.read(lambda done, total: None))


def finish(training: Training) -> dict[str, torch.Tensor]:
    """The weights that the training ends with."""
    outcome = proceed(
        training.run, training.learner, training.task, training.progress, ignore, Keeping()
    )
    assert isinstance(outcome, Finished)
    return load_file(training.run.weights_path)


def test_a_deeper_net_begins_with_the_layers_of_a_trained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    with pytest.raises(UserError, match="there are no trained weights of `tiny`"):
        started(tmp_path, DEEPER)
    trained = finish(started(tmp_path, TINY))
    plan = new_run(
        str(tmp_path / "deeper.vgg"), TrainOptions(data=tmp_path / "images", device="cpu")
    )
    assert plan.first.path == next(Path("runs").glob("tiny-*")) / "weights.safetensors"
    training = started(tmp_path, DEEPER)
    first = {name: tensor.clone() for name, tensor in training.task.module.state_dict().items()}
    for name in ("conv1_1.weight", "conv1_1.bias", "fc2.weight", "fc3.bias"):
        assert torch.equal(first[name], trained[name])
    assert not torch.equal(first["conv1_2.weight"][:, :3], trained["conv1_1.weight"])
    # What the run began with is its own, wherever it came from.
    shutil.rmtree(next(Path("runs").glob("tiny-*")))
    rest = resume_run(None, training.run.folder, TrainOptions())
    resumed = rest.start(rest.read(lambda done, total: None))
    assert resumed.progress == Progress()
    assert all(torch.equal(t, first[n]) for n, t in resumed.task.module.state_dict().items())
    shutil.rmtree(training.run.checkpoint_path)
    with pytest.raises(UserError, match="the weights can be had from nowhere else"):
        rest.start(resumed.task.data)


def test_a_deeper_net_begins_with_layers_of_a_file_under_torchvisions_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are numbered in the net that the file is of, not in the one that begins with them."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    (tmp_path / "tiny.vgg").write_text(TINY)
    graph = load(str(tmp_path / "tiny.vgg")).graph
    weights, names = seeded(graph, 3), torchvision_names(graph)
    assert names["fc2.weight"] == "classifier.0.weight"
    file = tmp_path / "theirs.safetensors"
    save(file, {names[name]: tensor for name, tensor in weights.items()})
    for text in (DEEPER, TINY.replace("train {", "train { init-from tiny layers=conv1_1,fc2..fc3")):
        begun = started(tmp_path, text, init_from=file).task.module.state_dict()
        for name in ("conv1_1.weight", "conv1_1.bias", "fc2.weight", "fc3.bias"):
            assert np.array_equal(begun[name].numpy(), weights[name])
    save(file, {**weights, names["fc2.bias"]: weights["fc2.bias"]})
    with pytest.raises(UserError, match=r"two tensors for the weight `fc2\.bias`"):
        started(tmp_path, DEEPER, init_from=file)


OTHER = TINY.replace("net tiny", "net other").replace("conv3-4", "conv3-4 bias=off")


def test_the_nets_that_a_run_names_lie_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted to the same images, so that the run's own net can be checked from anywhere."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    finish(started(tmp_path, TINY, out=tmp_path / "tiny-run"))
    (tmp_path / "tiny.vgg").unlink()
    (tmp_path / "other.vgg").write_text(OTHER.replace("fc-3", "fc-10"))
    text = DEEPER.replace("fc-3", "fc-10") + "test { fuse other,tiny_vgg; scales off }\n"
    run = started(tmp_path, text, init_from=tmp_path / "tiny-run", out=tmp_path / "run").run
    monkeypatch.chdir("/")
    assert {path.name for path in run.folder.glob("*.vgg")} == {
        "net.vgg", "tiny.vgg", "other.vgg", "tiny_vgg.vgg"
    }  # fmt: skip
    driver.load(str(run.net_path)).check()
    assert driver.load(str(run.folder / "other.vgg")).graph.output == (3,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("test.fuse=nothere", "there is no net called `nothere`"),
        ("test.fuse=vgg16_loc_pcr", "4000 outputs and this net 3"),
        ("test.fuse=net", "a recipe cannot name a net called `net`"),
    ],
)
def test_a_net_that_a_run_could_not_name_is_refused(
    tmp_path: Path, change: str, words: str
) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    with pytest.raises(UserError, match=words):
        started(tmp_path, TINY, changes=(change,), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_to_begin_with_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    finish(started(tmp_path, TINY.replace("conv3-4", "conv3-5"), out=tmp_path / "wide"))
    finish(started(tmp_path, TINY.replace("net tiny", "net other"), out=tmp_path / "other"))
    (tmp_path / "x.safetensors").write_bytes(b"?")
    for source, words in (
        ("wide", "the weight `conv1_1.weight` in"),
        ("other", "is a run of `other`"),
        ("x.safetensors", "cannot read the weights"),
        ("none", "cannot read the weights"),
    ):
        with pytest.raises(UserError, match=words):
            started(tmp_path, DEEPER, out=tmp_path / "run", init_from=tmp_path / source)
        assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="no layer begins with the weights in"):
        started(tmp_path, TINY, init_from=tmp_path / "other")


def test_steps_of_more_images_than_there_are_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    with pytest.raises(UserError, match="steps of 25 images, and 24 images to train on"):
        started(tmp_path, TINY, batch=25)
    assert started(tmp_path, TINY, batch=24, out=tmp_path / "run").task.order.num_batches == 1


NORMED = """\
net normed
input 3x8x8

every conv norm=batch

  conv3-4 | add(conv3-4 | conv3-4 act=none, skip) | pool | conv3-4 | gap | fc-3

train {
  batch 10
  epochs 2
  sgd lr=0.05
  constant
}
"""


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("accumulate=2",),
        ("ema=0.5",),
        ("batch=24", "decay-norms=on"),
    ],
    ids=["plain", "accumulate", "ema", "decay-norms"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, of itself
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"]
)
def test_a_net_with_normalisations_is_fine_tuned_in_part(
    tmp_path: Path, changes: tuple[str, ...], compiled: bool
) -> None:
    """Frozen layers keep weights and statistics bit for bit; the others move both."""
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    before = finish(started(tmp_path, NORMED, out=tmp_path / "before"))
    layers = "conv1_1..add1"
    after = finish(
        started(
            tmp_path,
            NORMED,
            out=tmp_path / "after",
            init_from=tmp_path / "before",
            compiled=compiled,
            changes=(
                *("init-from=normed", f"init-from.layers={layers},conv2_1", f"freeze={layers}"),
                *changes,
            ),
        )
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == {"conv2_1", "fc2"}
    assert {"conv2_1.norm.running_mean", "conv2_1.norm.running_var"} <= moved


def test_frozen_normalisations_normalise_by_their_statistics_while_others_train() -> None:
    net = Program(parse(Source("normed.vgg", NORMED))).logits_module()
    net.hold({name for name in net.state_dict() if name.startswith("conv1_1.")})
    assert net.held == {"conv1_1.norm"}
    net.hold({"conv1_1.norm.weight", "conv1_1.norm.bias"})
    assert net.held == frozenset()
    net.hold({name for name in net.state_dict() if "norm" in name})
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(net.train()(images), net.eval()(images))


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "googlenet"])
def test_the_zoos_nets_with_normalisations_can_be_frozen_in_part(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    program = driver.load(name)
    *_, before, last = with_weights(program.graph)
    changes = (f"freeze={layer_names(program.graph)[0]}..{before}", "scale=off", "batch=8")
    options = TrainOptions(
        data=tmp_path / "images", device="cpu", out=tmp_path / "run", changes=changes
    )
    plan = new_run(name, options)
    frozen = frozen_weights(plan.recipe, plan.program.graph)
    assert set(plan.program.graph.all_weights) - set(frozen) == {
        name for name in plan.module.state_dict() if name.startswith(f"{last}.")
    }


def test_frozen_layers_of_a_file_keep_their_weights(tmp_path: Path) -> None:
    (tmp_path / "net.vgg").write_text(TINY)
    changes = ("freeze=conv1_1..pool1", "rgb-shift=0.1", "steps=2")
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    out = tmp_path / "run"
    options = TrainOptions(data=tmp_path / "images", device="cpu", out=out, changes=changes)
    plan = new_run(str(tmp_path / "net.vgg"), options)
    training = plan.start(plan.read(lambda done, total: None))
    first = {name: tensor.clone() for name, tensor in plan.module.state_dict().items()}
    outcome = proceed(
        training.run, training.learner, training.task, Progress(), lambda event: None, Keeping()
    )
    assert isinstance(outcome, Finished)
    assert [epoch.step for epoch in outcome.progress.epochs] == [2]
    last = plan.module.state_dict()
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert moved == {"fc2", "fc3"}
    assert "steps 2" in (out / "net.vgg").read_text()
    assert "freeze conv1_1..pool1" in (out / "net.vgg").read_text()


def test_the_digits_bring_a_recipe_of_their_own_that_wishes_change() -> None:
    program = Program(parse(Source("tiny.vgg", TINY)))
    options = TrainOptions(epochs=2, lr=0.5, device="cpu", changes=("flip=on", "lr=0.25"))
    recipe = read_train(program, blocks_for(program, options)).value
    assert recipe == Recipe(
        batch=32,
        epochs=2,
        loss=(HeadLoss("cross-entropy"),),
        optimiser=Sgd(lr=0.25),
        schedule=OneCycle(),
        init=He(),
        flip=True,
    )


def test_lengths_move_with_another_input() -> None:
    text = TINY.replace("batch 4", "batch 4; crop 8; scale 10..12") + "\ntest { scales 10,12 }\n"
    program = Program(parse(Source("tiny.vgg", text)))
    blocks = blocks_for(program, TrainOptions(data=Path("x"), size=(16, 16), device="cpu"))
    recipe = read_train(program, blocks).value
    assert (recipe.crop, recipe.scale) == ((16, 16), (20, 24))
    assert read_protocol(block_of(blocks, "test"), recipe).scales == (20, 24)


def test_a_length_that_is_asked_for_is_taken_as_it_is() -> None:
    program = Program(parse(Source("tiny.vgg", TINY.replace("batch 4", "batch 4; scale 10"))))
    options = TrainOptions(data=Path("x"), size=(16, 16), device="cpu", changes=("scale=17",))
    assert read_train(program, blocks_for(program, options)).value.scale == (17, 17)


@pytest.mark.parametrize(("size", "fit"), [((4, 4), False), ((16, 16), True)])
def test_a_grid_of_crops_is_given_up_where_another_input_leaves_it_no_room(
    size: tuple[int, int], fit: bool
) -> None:
    text = TINY + "\ntest { scales 12; crops grid=4x4; dense off }\n"
    program = Program(parse(Source("tiny.vgg", text)))
    blocks = blocks_for(program, TrainOptions(data=Path("x"), size=size, device="cpu"))
    protocol = read_protocol(block_of(blocks, "test"), program.recipe)
    assert (protocol.crops is not None, protocol.dense) == (fit, not fit)


@pytest.mark.parametrize(
    ("wish", "change"),
    [({"epochs": 2}, "steps=3"), ({"batch": 4}, "batch=5"), ({"lr": 0.1}, "lr=0.2")],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, wish: dict[str, Any], change: str
) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    with pytest.raises(UserError, match="contradict each other"):
        started(tmp_path, TINY, changes=(change,), **wish)


def test_a_net_that_could_not_be_tested_is_not_trained(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    for changes, words in (
        (("test.scales=7",), "a scale of 7 is smaller than the net's input"),
        (("dense=off",), "nothing"),
        (("scales=9", "crops=on", "grid=20x20"), "20×20 crops do not fit"),
    ):
        with pytest.raises(UserError, match=words):
            started(tmp_path, TINY, changes=changes)


def test_a_place_that_takes_no_run_is_refused_before_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder"):
        started(tmp_path, TINY, out=tmp_path / "file" / "run")


def test_pixels_that_changed_since_the_interrupt_are_noticed_whatever_their_file_says(
    tmp_path: Path,
) -> None:
    """Name, bytes and time of the file are what they were."""
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    for path in (tmp_path / "images").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
        path.unlink()
    run = started(tmp_path, TINY, out=tmp_path / "run").run
    path = tmp_path / "images/red/3.bmp"
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    rest = resume_run(None, run.folder, TrainOptions())
    with pytest.raises(UserError, match="kept their names, but not what is in their files"):
        rest.start(rest.read(lambda done, total: None))
    path.write_bytes(content)
    rest.start(rest.read(lambda done, total: None))


def test_a_run_goes_on_with_the_preprocessing_of_its_record(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    run = started(tmp_path, TINY, out=tmp_path / "run").run
    record = json.loads((run.folder / "run.json").read_text())
    record["preprocessing"]["mean"] = [0.1, 0.2, 0.3]
    (run.folder / "run.json").write_text(json.dumps(record))
    rest = resume_run(None, run.folder, TrainOptions())
    resumed = rest.start(rest.read(lambda done, total: None))
    assert resumed.task.data.preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_run_whose_images_have_moved_asks_where_they_are(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    run = started(tmp_path, TINY, out=tmp_path / "run").run
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="are not where they were"):
        resume_run(None, run.folder, TrainOptions())
    assert resume_run(None, run.folder, TrainOptions(data=tmp_path / "moved")).images.path == str(
        tmp_path / "moved"
    )


def test_a_run_whose_files_tell_of_two_recipes_does_not_go_on(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("red", "green", "blue"), 10)
    run = started(tmp_path, TINY, out=tmp_path / "run").run
    record = json.loads((run.folder / "run.json").read_text())
    record["recipe"]["freeze"] = "nosuch"
    (run.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="not the folder of a training run"):
        resume_run(None, run.folder, TrainOptions())


def test_a_run_departs_from_what_the_file_says() -> None:
    with_recipe = Program(parse(Source("tiny.vgg", TINY)))
    without = Program(parse(Source("tiny.vgg", TINY[: TINY.index("train {")])))
    assert departures(with_recipe, without, with_recipe.recipe).changes == ()
    assert departures(with_recipe, without, with_recipe.recipe).base == "the file of tiny"
    found = departures(without, without, replace(without.recipe, batch=4))
    assert (found.base, found.changes) == ("tiny's default recipe", (("batch", "256", "4"),))


def test_the_weights_of_classes_are_told_by_name() -> None:
    assert weights_told(["cat", "dog"], [2.0, 1 / 3]) == "cat counts 2, dog counts 0.333"
    many = weights_told([f"c{index}" for index in range(30)], [1.0] * 30)
    assert many.endswith("c19 counts 1; 10 more classes have weights, too")
