"""`vggc eval` and `vggc predict` from the shell."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT
from tests.support.training_data import picture
from vggc.api.evaluate import EvalOptions, images_for, measure, plan, protocol_of, usual_batch
from vggc.api.features import FeatureOptions, source_of
from vggc.api.train import DIGITS_RECIPE, TrainOptions, find, new_run
from vggc.cli import cli
from vggc.data.parts import Fingerprint, Fingerprints, content_of, names_of
from vggc.data.prepare import prepare
from vggc.ir.weights import save, seeded
from vggc.program import Program, from_zoo
from vggc.recipe.train import TRAIN
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse
from vggc.training.learner import TrainMachine
from vggc.training.run import Origin, Run, RunRecord, write_run
from vggc_runtime.preprocessing import Preprocessing

Here = Callable[..., tuple[object, str, str]]

CLASSES = ("red", "green", "blue", "grey", "white", "black")
NET = """\
net small
input 3x8x8

conv3-4 | pool | fc-6 | fc-6 | softmax

train {
  scale 10
  flip
}

test {
  scales 10,12
  dense
  flip
}
"""


def write_pictures(folder: Path, classes: tuple[str, ...] = CLASSES, count: int = 6) -> None:
    """Class folders with PNGs of several sizes."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            size = 12 + index, 17 - 2 * (index % 2)
            Image.fromarray(picture(label, index, *size)).save(folder / name / f"{index}.png")


def make_run(
    folder: Path,
    data: Path | None,
    text: str = NET,
    seed: int = 0,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """A run folder as a training leaves it, with random weights."""
    program = Program(parse(Source("net.vgg", text)))
    graph = program.graph
    folder.mkdir()
    (folder / "net.vgg").write_text(format_net(program.net), "utf-8")
    save(folder / "weights.safetensors", seeded(graph, seed))
    images = find(str(data) if data else None, 0)
    channels, height, width = graph.input
    scale = sum(program.recipe.scale) // 2 if program.recipe.scale else None
    record = RunRecord(
        format=2,
        net=program.net.name,
        state="finished",
        reason=None,
        started="2026-01-02T03:04:05",
        seed=0,
        device="cpu",
        precision="float32",
        input=(channels, height, width),
        classes=classes,
        preprocessing=Preprocessing((height, width), scale, (0.45,) * channels, (0.25,) * channels),
        recipe=TRAIN.flatten(program.recipe),
        data=Origin(
            str(data) if data else None,
            len(images.train),
            len(images.val),
            0,
            Fingerprints(
                *(
                    Fingerprint(names_of(images.classes, part), content_of(part))
                    for part in (images.train, images.val)
                )
            ),
        ),
        versions={},
        metrics=None,
    )
    write_run(folder, record)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and two runs that were trained on them."""
    write_pictures(tmp_path / "images")
    make_run(tmp_path / "one", tmp_path / "images")
    make_run(tmp_path / "two", tmp_path / "images", seed=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_tested_on_what_it_held_out_by_its_own_test_block(
    folder: Path, vggc_here: Here
) -> None:
    code, out, error = vggc_here("eval", "one", "--json", "--device", "cpu")
    assert code == 0, error
    result = json.loads(out)
    assert result["data"] == str(folder / "images")
    assert (result["images"], result["skipped"], result["classes"]) == (6, 0, 6)
    (run,) = result["runs"]
    assert (run["run"], run["net"], run["scales"]) == ("one", "small", [10, 12])
    assert (run["dense"], run["grid"], run["flip"]) == (True, None, True)
    assert 0 <= run["top5_error"] <= run["top1_error"] <= 1
    assert result["fused"] is None
    assert "Testing on 6 held-out images of " in error
    assert "one: dense, flips, 10, 12" in error


def test_the_centre_crop_stands_beside_the_test_block(folder: Path, vggc_here: Here) -> None:
    """It is what training and compiled nets look at."""
    _, out, _ = vggc_here("eval", "one", "two")
    rows = re.findall(r"(?m)^ +(one|two) +small +(.+?) {2,}(\S.*?) {2,}", out)
    wanted = [("centre crop", "10"), ("dense, flips", "10, 12")]
    assert rows == [(run, *way) for run in ("one", "two") for way in wanted]
    assert "The centre crop is what training" in out
    _, out, _ = vggc_here("eval", "one", "--json")
    (both,) = json.loads(out)["runs"]
    _, out, _ = vggc_here("eval", "one", "--protocol", "centre", "--json")
    (alone,) = json.loads(out)["runs"]
    assert both["centre"] == {key: alone[key] for key in ("top1_error", "top5_error")}
    assert (alone["scales"], alone["grid"], alone["flip"], alone["centre"]) == (
        [10],
        1,
        False,
        None,
    )
    _, out, _ = vggc_here("eval", "one", "--protocol", "test", "--json")
    (tested,) = json.loads(out)["runs"]
    assert {**tested, "centre": both["centre"]} == both


def test_what_training_tells_is_the_centre_crops(tmp_path: Path, vggc_here: Here) -> None:
    write_pictures(tmp_path / "images")
    (tmp_path / "net.vgg").write_text(NET.replace("flip\n}", "flip\n  batch 5; epochs 2\n}", 1))
    code, out, error = vggc_here(
        *("train", tmp_path / "net.vgg", "--data", tmp_path / "images"),
        *("--out", tmp_path / "run", "--json"),
    )
    assert code == 0, error
    trained = json.loads(out)
    _, out, _ = vggc_here("eval", tmp_path / "run", "--json")
    (run,) = json.loads(out)["runs"]
    assert run["centre"]["top1_error"] == pytest.approx(1 - trained["val_top1"])


def test_the_sheet_has_the_papers_words_and_a_row_for_all_together(
    folder: Path, vggc_here: Here
) -> None:
    options = ("--protocol", "both", "--grid", "3x3", "--no-flip", "--scales", "12,16")
    code, out, error = vggc_here("eval", "one", "two", "--data", "images", *options)
    assert code == 0, error
    assert "error on 36 images of images" in out
    assert re.search(r"run +net +protocol +scales Q +top-1 error, % +top-5 error, %", out)
    assert len(re.findall(r"(?m)^ +(?:one|two) +small +dense & 3×3 crops +12, 16 +\d", out)) == 2
    assert re.search(r"(?m)^ +all together +\d+\.\d\d +\d+\.\d\d", out)


def test_held_out_parts_come_first_in_a_folder(folder: Path, vggc_here: Here) -> None:
    """And one with some of the classes only will do."""
    write_pictures(folder / "parted" / "train")
    write_pictures(folder / "parted" / "test", CLASSES[1:3], 4)
    _, out, _ = vggc_here("eval", "one", "--data", "parted", "--json")
    assert json.loads(out)["images"] == 8
    write_pictures(folder / "parted" / "val", CLASSES[:1], 3)
    _, out, _ = vggc_here("eval", "one", "--data", "parted", "--json")
    assert json.loads(out)["images"] == 3


@pytest.mark.parametrize("name", ["valid", "Validation", "dev", "val2017", "TEST"])
def test_and_are_known_by_every_usual_name(folder: Path, vggc_here: Here, name: str) -> None:
    write_pictures(folder / "parted" / "Training")
    code, _, error = vggc_here("eval", "one", "--data", "parted")
    assert code == 2
    assert "`parted` holds no part to test on" in error
    assert "name it: `--data parted/Training`" in error
    write_pictures(folder / "parted" / name, CLASSES[1:3], 4)
    write_pictures(folder / "parted" / "more", CLASSES[1:3], 4)
    _, out, error = vggc_here("eval", "one", "--data", "parted", "--json")
    assert json.loads(out)["images"] == 8
    assert f"Of parted, {name}/ is tested on, and not Training/.\n" in error
    assert "Left out, since no part is called so: more/.\n" in error


def test_a_run_with_a_class_that_is_called_as_parts_are(folder: Path, vggc_here: Here) -> None:
    """Where its classes are known, they are told from parts by their names alone."""
    text = NET.replace("fc-6 | softmax", "fc-2 | softmax")
    write_pictures(folder / "vehicles", ("boat", "train"), 5)
    make_run(folder / "named", folder / "vehicles", text, classes=("boat", "train"))
    write_pictures(folder / "trains/train", ("steam", "diesel"), 2)
    for data, count in (("vehicles", 10), ("trains", 4)):
        code, out, error = vggc_here("eval", "named", "--data", data, "--json")
        assert code == 0, error
        assert json.loads(out)["images"] == count


def test_labels_go_by_the_names_of_the_runs_classes(folder: Path, vggc_here: Here) -> None:
    """The run's order is its own, a folder's by name."""
    reordered = tuple(reversed(CLASSES))
    make_run(folder / "other", folder / "images", classes=reordered)
    best = {}
    for name in CLASSES:
        _, out, _ = vggc_here("predict", "other", f"images/{name}/0.png", "--json", "--top", 1)
        best[name] = json.loads(out)["images"][0]["best"][0]["class"]
    for name in CLASSES:
        shutil.copytree(folder / "images" / name, folder / "firsts" / name)
        for path in sorted((folder / "firsts" / name).iterdir())[1:]:
            path.unlink()
    _, out, _ = vggc_here("eval", "other", "--data", "firsts", "--json")
    wrong = sum(name != guess for name, guess in best.items())
    assert json.loads(out)["runs"][0]["top1_error"] == pytest.approx(wrong / len(CLASSES))


def test_broken_images_are_left_out_named_and_counted(folder: Path, vggc_here: Here) -> None:
    for index in range(25):
        (folder / "images" / "red" / f"broken{index:02}.jpg").write_text("?")
    code, out, error = vggc_here("eval", "one", "--data", "images", "--json")
    assert code == 0
    assert (json.loads(out)["images"], json.loads(out)["skipped"]) == (36, 25)
    assert "  skipped red/broken00.jpg: not an image\n" in error
    assert error.count("  skipped ") == 20
    assert "  … and 5 more\n25 left out.\n" in error


def test_that_some_were_broken_hides_no_exchange_of_the_others(
    folder: Path, vggc_here: Here
) -> None:
    (folder / "images" / "red" / "broken.jpg").write_text("?")
    run = Run.load(make_run(folder / "skipping", folder / "images"))
    found = prepare(find(str(folder / "images"), 0), run.record.input, run.recipe.scale)
    origin = replace(
        run.record.data,
        train=len(found.train),
        val=len(found.val),
        skipped=len(found.skipped),
        fingerprints=found.fingerprints,
    )
    assert origin.skipped == 1
    write_run(run.folder, replace(run.record, data=origin))
    code, out, error = vggc_here("eval", "skipping", "--json", "--device", "cpu")
    assert code == 0, error
    assert json.loads(out)["images"] == len(found.val)
    (folder / "images" / "blue" / "0.png").rename(folder / "images" / "blue" / "other.png")
    code, _, error = vggc_here("eval", "skipping", "--device", "cpu")
    assert code == 2
    assert "which images `skipping` held out cannot be told any more" in error


def test_of_a_part_of_its_own_nothing_else_has_to_be_the_same(
    folder: Path, vggc_here: Here
) -> None:
    write_pictures(folder / "parted/train")
    write_pictures(folder / "parted/val", count=3)
    make_run(folder / "own", folder / "parted")
    code, before, error = vggc_here("eval", "own", "--json", "--device", "cpu")
    assert code == 0, error
    expected = json.loads(before)["runs"]
    Image.new("RGB", (12, 12)).save(folder / "parted/train/red/more.png")
    write_pictures(folder / "parted/train", ("a new class",), 2)
    (folder / "parted/train/blue/0.png").unlink()
    for _ in range(2):
        code, out, error = vggc_here("eval", "own", "--json", "--device", "cpu")
        assert code == 0, error
        assert json.loads(out)["runs"] == expected
        code, _, error = vggc_here("report", "own", "--json", "--device", "cpu")
        assert code == 0, error
        assert "No errors are shown" not in error
        shutil.rmtree(folder / "parted/train/red", ignore_errors=True)


def test_nor_of_one_in_another_place(folder: Path, vggc_here: Here) -> None:
    write_pictures(folder / "others", count=3)
    run = Run.load(make_run(folder / "own", folder / "images"))
    part = find(str(folder / "images"), 0, str(folder / "others"))
    mark = Fingerprint(names_of(part.classes, part.val), content_of(part.val))
    fingerprints = replace(run.record.data.fingerprints, val=mark)
    origin = replace(run.record.data, val_path=str(folder / "others"), fingerprints=fingerprints)
    write_run(run.folder, replace(run.record, data=replace(origin, val=18)))
    shutil.rmtree(folder / "images")
    code, out, error = vggc_here("eval", "own", "--json", "--device", "cpu")
    assert code == 0, error
    assert json.loads(out)["images"] == 18
    assert f"18 held-out images of {folder / 'others'}" in error


def test_held_out_images_that_have_changed_are_not_those_of_the_run(
    folder: Path, vggc_here: Here
) -> None:
    write_pictures(folder / "parted/train")
    write_pictures(folder / "parted/val", count=3)
    make_run(folder / "own", folder / "parted")
    path = folder / "parted/val/red/1.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    code, _, error = vggc_here("eval", "own", "--device", "cpu")
    assert code == 2
    assert "held-out images have kept their names, but not their content" in error
    path.unlink()
    code, _, error = vggc_here("eval", "own", "--device", "cpu")
    assert code == 2
    assert "the held-out images have other names or classes now" in error


def test_a_fifth_that_was_drawn_needs_the_whole(folder: Path, vggc_here: Here) -> None:
    for index in range(6, 12):
        shutil.copy(folder / "images/red/0.png", folder / f"images/red/{index}.png")
    code, _, error = vggc_here("eval", "one", "--device", "cpu")
    assert code == 2
    assert "which images `one` held out cannot be told any more" in error


def test_images_in_shards_are_tested_on_where_they_lie(folder: Path, vggc_here: Here) -> None:
    """All of those that a pattern names; of a folder the held-out ones."""
    (folder / "shards").mkdir()
    for part, count in (("train", 4), ("val", 2)):
        for shard in range(2):
            with tarfile.open(folder / "shards" / f"{part}-{shard}.tar", "w") as tar:
                for number, name in enumerate(CLASSES * count):
                    path = folder / "images" / name / f"{number // len(CLASSES)}.png"
                    tar.add(path, f"{number}.png")
                    label = tarfile.TarInfo(f"{number}.cls")
                    label.size = len(name)
                    tar.addfile(label, BytesIO(name.encode()))
    with tarfile.open(folder / "shards" / "val-0.tar", "a") as tar:
        tar.add(folder / "images" / "red" / "0.png", "nameless.png")
    found = []
    for place in ("shards", "shards/val-{0..1}.tar", "shards/train-1.tar"):
        code, out, error = vggc_here("eval", "one", "--data", place, "--json")
        assert code == 0, error
        result = json.loads(out)
        found.append((result["images"], result["skipped"], result["runs"][0]["top1_error"]))
    assert found[0] == found[1] == (24, 1, found[0][2])
    assert found[2][:2] == (24, 0)


def test_what_a_test_block_fuses_is_told(folder: Path, vggc_here: Here) -> None:
    text = NET.replace("  dense\n", "  dense\n  fuse small,vgg19\n")
    make_run(folder / "fusing", folder / "images", text)
    _, _, error = vggc_here("eval", "fusing")
    assert "its test block fuses it with vgg19: give their runs, too" in error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ((10, 12), True, None, True)),
        ({"scales": "9"}, ((9,), True, None, True)),
        ({"scales": "off"}, (None, True, None, True)),
        ({"protocol": "crops", "scales": "12"}, ((12,), False, 5, True)),
        ({"protocol": "both", "scales": "12", "grid": "2x2"}, ((12,), True, 2, True)),
        ({"flip": False}, ((10, 12), True, None, False)),
    ],
)
def test_options_change_the_protocol_of_the_run(
    folder: Path, options: dict[str, object], expected: tuple[object, ...]
) -> None:
    found = protocol_of(Run.load(folder / "one"), EvalOptions(**options))  # type: ignore[arg-type]
    grid = found.crops.grid if found.crops else None
    assert (found.scales, found.dense, grid, found.flip) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (False, 3)),
        ({"protocol": "crops"}, (False, 3)),
        ({"protocol": "both"}, (True, 3)),
        ({"protocol": "dense"}, (True, None)),
        ({"grid": "2x2"}, (False, 2)),
    ],
)
def test_crops_of_the_block_keep_their_grid(
    folder: Path, options: dict[str, str], expected: tuple[bool, int | None]
) -> None:
    text = NET.replace("  dense\n", "  crops grid=3x3\n")
    run = Run.load(make_run(folder / "crops", folder / "images", text))
    found = protocol_of(run, EvalOptions(**options))  # type: ignore[arg-type]
    assert (found.dense, found.crops.grid if found.crops else None) == expected


def test_without_scales_a_run_is_tested_at_the_scale_of_its_training(folder: Path) -> None:
    text = NET.replace("  scales 10,12\n", "  scales off\n")
    make_run(folder / "trained", folder / "images", text)
    (entry,) = plan([folder / "trained"], EvalOptions()).entries
    assert [view.scale for view in entry.views.views] == [10]


def test_a_net_that_cannot_look_at_whole_images_looks_at_centre_crops_and_says_why(
    folder: Path,
) -> None:
    """Where nobody asks for whole images; who does is told why not."""
    text = NET.replace("pool | fc-6", "groupnorm groups=2 | fc-6").replace("  dense\n", "")
    make_run(folder / "grouped", folder / "images", text)
    (entry,) = plan([folder / "grouped"], EvalOptions()).entries
    assert [(view.scale, view.grid) for view in entry.views.views] == [(10, 1), (12, 1)]
    reason = "`groupnorm groups=2`: it normalises groups by the mean and variance of a whole map"
    told = f"on centre crops, as small cannot be applied to whole images ({reason})"
    assert told in entry.remarks
    source = source_of("grouped", FeatureOptions(layers=("fc2",)), (said := []).append)
    assert told in said
    assert "centre crop" in source.shown
    for asked in (source_of, lambda *given: plan([Path(given[0])], given[1].looks)):
        options = FeatureOptions(layers=("fc2",), looks=EvalOptions(protocol="dense"))
        with pytest.raises(UserError, match="small cannot be applied to whole images"):
            asked("grouped", options, said.append)


def test_a_net_trained_at_another_size_is_not_tested_at_the_scales_of_its_file() -> None:
    asked = TrainOptions()
    for wanted, protocol in (
        (replace(asked, data=None), (None, False)),
        (replace(asked, size=(48, 48)), (None, False)),
    ):
        found = new_run("vgg19(width=0.125)", wanted).program.protocol
        assert (found.scales, found.flip) == protocol
    assert "test.scales=off" in DIGITS_RECIPE


NOT_DENSE = NET.replace("| fc-6 | fc-6", "| flatten | batchnorm | fc-6")
OTHER = NET.replace("fc-6 | softmax", "fc-3 | softmax")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "none"], "there is no such folder"),
        (["eval", "images"], "it holds no run.json"),
        (["eval", "one/net.vgg"], "it is a net without weights"),
        (["eval", "empty"], "has no weights"),
        (["eval", "one", "--data", "none"], "there is no folder `none`"),
        (["eval", "one", "--data", "hollow"], "no folders with images in `hollow`"),
        (["eval", "one", "--data", "broken"], "none of the images in `broken` can be read"),
        (["eval", "one", "--data", "strange"], "does not know: mauve"),
        (["eval", "one", "three"], "cannot be fused: their classes differ"),
        (["eval", "one", "reordered"], "they come in another order"),
        (["eval", "one", "elsewhere"], "hold out different images"),
        (["eval", "lost"], "cannot be told any more"),
        (["eval", "one", "--scales", "7"], "a scale of 7 is smaller than the net's input"),
        (["eval", "one", "--scales", "many"], "`scales` cannot be `many`"),
        (["eval", "one", "--scales", ""], "nothing is given after `--scales`"),
        (["eval", "one", "--grid", "3x3"], "nothing is tested on crops"),
        (["eval", "one", "--protocol", "crops", "--grid", "3x4"], "a square grid from 1x1"),
        (["eval", "one", "--protocol", "crops"], "5×5 crops do not fit"),
        (
            ["eval", "one", "--protocol", "crops", "--scales", "off", "--grid", "4x4"],
            "4×4 crops do not fit into images of scale 8",
        ),
        (["eval", "solid"], "solid cannot be applied to whole images"),
        (["eval", "one", "--precision", "float16", "--device", "cpu"], "float16"),
        (["predict", "one", "none.png"], "cannot read the image `none.png`"),
        (["predict", "one", "hollow"], "there are no images in `hollow`"),
        (["predict", "one", "images/*/*.gif"], "nothing matches that pattern"),
        (["predict", "one", "one/net.*"], "there are no images in `one/net.*`"),
        (["predict", "one", "pipe"], "it is not a file"),
        (["predict", "one", "images", "--csv", "one/net.vgg"], "one/net.vgg exists already"),
        (["predict", "one", "images", "--null"], "give - for IMAGE"),
        (["predict", "one", "-", "-"], "standard input can be read once"),
        (["predict", "one", "images", "--csv", "-", "--json"], "standard output takes one of"),
        (["predict", "one", "images", "--csv", "a", "--jsonl", "./a"], "written to one file"),
        (["predict", "one", "images", "--csv", "a", "--jsonl", "one/../a"], "written to one file"),
        (["predict", "images/red/0.png", "images/red/1.png"], "it is a file"),
    ],
)
def test_a_mistake_is_explained_before_anything_is_computed(
    folder: Path, arguments: list[str], words: str, vggc_here: Here
) -> None:
    make_run(folder / "empty", folder / "images")
    (folder / "empty" / "weights.safetensors").unlink()
    (folder / "hollow").mkdir()
    os.mkfifo(folder / "pipe")
    for name in ("red", "green"):
        (folder / "broken" / name).mkdir(parents=True)
        (folder / "broken" / name / "a.jpg").write_text("?")
    write_pictures(folder / "strange", ("red", "mauve"), 1)
    write_pictures(folder / "fewer", CLASSES[:3])
    write_pictures(folder / "more", count=7)
    make_run(folder / "three", folder / "fewer", OTHER, classes=CLASSES[:3])
    make_run(folder / "reordered", folder / "images", classes=CLASSES[::-1])
    make_run(folder / "elsewhere", folder / "more")
    make_run(folder / "lost", folder / "more")
    (folder / "more" / "red" / "0.png").unlink()
    solid = NOT_DENSE.replace("net small", "net solid")
    make_run(folder / "solid", folder / "images", solid)
    code, out, error = vggc_here(*arguments)
    assert (code, out) == (2, ""), error
    assert words in error


def test_a_gpu_gets_larger_batches_of_small_images() -> None:
    cpu, gpu = (TrainMachine(device, "float32") for device in ("cpu", "cuda"))
    sizes = ((224, 224), (32, 32), (8, 8), (512, 512))
    assert [usual_batch(cpu, size) for size in sizes] == [32, 32, 32, 32]
    assert [usual_batch(gpu, size) for size in sizes] == [32, 1024, 1024, 32]


# Class by class


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_of_classes_follow_from_what_each_image_was_taken_for(
    folder: Path, vggc_here: Here
) -> None:
    """And a class without images has no recall, which is not to say that it is 0."""
    write_pictures(folder / "some", CLASSES[:4])
    (folder / "some" / "red" / "broken.png").write_text("?")
    files = ("--per-class", "c.csv", "--confusion", "m.csv", "--predictions", "p.csv")
    code, out, error = vggc_here("eval", "one", "--data", "some", *files)
    assert code == 0, error
    assert "class by class" not in out
    assert "Written: c.csv\nWritten: m.csv\nWritten: p.csv\n" in error
    pairs = [(row["class"], row["guess"]) for row in rows_of(folder / "p.csv")]
    assert len(pairs) == 24
    (matrix, per_class) = rows_of(folder / "m.csv"), rows_of(folder / "c.csv")
    for row in matrix:
        assert [int(row[name]) for name in CLASSES] == [
            pairs.count((row["class"], name)) for name in CLASSES
        ]
    assert [row["class"] for row in per_class] == [*CLASSES]
    for row in per_class:
        support = sum(label == row["class"] for label, _ in pairs)
        taken = sum(guess == row["class"] for _, guess in pairs)
        right = pairs.count((row["class"], row["class"]))
        assert (int(row["support"]), int(row["predicted"]), int(row["correct"])) == (
            support,
            taken,
            right,
        )
        assert row["recall"] == (str(right / support) if support else "")
        assert row["precision"] == (str(right / taken) if taken else "")
    assert [row["recall"] for row in per_class[4:]] == ["", ""]


def test_tables_of_classes_as_json_and_on_the_screen(folder: Path, vggc_here: Here) -> None:
    write_pictures(folder / "some", CLASSES[:4])
    files = ("--per-class", "c.json", "--confusion", "m.json")
    code, out, error = vggc_here("eval", "one", "two", "--data", "some", "--classes", *files)
    assert code == 0, error
    assert [line.strip() for line in out.splitlines() if "class by class" in line] == [
        "one, class by class (dense, flips)",
        "two, class by class (dense, flips)",
        "all together, class by class (their mean)",
    ]
    assert re.search(r"(?m)^ +black +– +\S+ +– +0 *$", out)
    told, matrix = (json.loads((folder / name).read_text()) for name in ("c.json", "m.json"))
    assert [run["run"] for run in told["runs"]] == ["one", "two", "all together"]
    for run, other in zip(told["runs"], matrix["runs"], strict=True):
        assert [each["recall"] for each in run["per_class"][4:]] == [None, None]
        assert [sum(row) for row in other["confusion"]] == [6, 6, 6, 6, 0, 0]
    _, out, _ = vggc_here("eval", "one", "two", "--data", "some", "--classes", "--json")
    assert json.loads(out)["by_class"] == told["runs"]


def test_of_several_runs_tables_tell_which_is_which(folder: Path, vggc_here: Here) -> None:
    files = ("--per-class", "c.csv", "--confusion", "m.csv", "--predictions", "p.csv")
    assert vggc_here("eval", "one", "two", *files)[0] == 0
    for name in ("c.csv", "m.csv", "p.csv"):
        runs = [row["run"] for row in rows_of(folder / name)]
        assert runs == ["one"] * 6 + ["two"] * 6 + ["all together"] * 6


def test_names_of_classes_and_images_survive_in_tables(folder: Path, vggc_here: Here) -> None:
    """They may hold commas, quotes, line breaks and bytes that are no UTF-8."""
    odd = ('a,"b"\n', os.fsdecode(b"\xff\xfe"), "=1+1", "猫", " ", "e")
    write_pictures(folder / "odd", odd, 5)
    (folder / "odd" / odd[1] / "0.png").rename(folder / "odd" / odd[1] / f"{odd[1]}.png")
    make_run(folder / "run", folder / "odd", classes=odd)
    files = ("--per-class", "c.csv", "--predictions", "p.csv", "--confusion", "m.json")
    code, _, error = vggc_here("eval", "run", "--data", "odd", *files)
    assert code == 0, error
    with (folder / "c.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == [*odd]
    with (folder / "p.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert f"{odd[1]}/{odd[1]}.png" in [row["image"] for row in csv.DictReader(file)]
    assert json.loads((folder / "m.json").read_text())["classes"] == [*odd]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["--per-class", "c.txt"], "`c.txt` is no table that vggc writes"),
        (["--predictions", "p.json"], "the end of its name tells the kind of table: .csv"),
        (["--per-class", "there.csv"], "there.csv exists already"),
        (["--confusion", "none/m.csv"], "there is no folder none to write m.csv to"),
        (["--per-class", "c.csv", "--confusion", "c.csv"], "two tables cannot be written to one"),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_first(
    folder: Path, files: list[str], words: str, vggc_here: Here
) -> None:
    (folder / "there.csv").touch()
    code, out, error = vggc_here("eval", "one", *files)
    assert (code, out) == (2, "")
    assert words in error
    assert "Testing on" not in error


# Predicting


def test_a_net_tells_the_best_classes_by_the_same_views(folder: Path, vggc_here: Here) -> None:
    paths = ["images/red/0.png", "images/blue/3.png"]
    code, out, _ = vggc_here("predict", "one", *paths, "--top", 2)
    assert code == 0
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == paths
    assert len(lines) == 6
    assert all(re.fullmatch(r"  [a-z]+ +0\.\d{4}", line) for line in lines if line[0] == " ")
    _, out, _ = vggc_here("predict", "one", *paths, "--json", "--top", 6)
    for image in json.loads(out)["images"]:
        values = [each["probability"] for each in image["best"]]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
        assert {each["class"] for each in image["best"]} == {*CLASSES}


def test_an_image_that_cannot_be_read_is_named_behind_the_others(
    folder: Path, vggc_here: Here
) -> None:
    (folder / "broken.png").write_text("?")
    code, out, error = vggc_here("predict", "one", "broken.png", "images/red/0.png")
    assert code == 2
    assert out.startswith("images/red/0.png\n  ")
    assert "cannot read the image `broken.png`\n  not an image" in error


def test_a_run_and_its_artifact_tell_the_same(folder: Path, vggc_here: Here) -> None:
    paths = [f"images/{name}/{index}.png" for name in CLASSES for index in range(3)]
    code, _, error = vggc_here("compile", "one", "--threads", 1, "-o", "artifact")
    assert code == 0, error
    told = []
    for model in ("one", "artifact"):
        _, out, _ = vggc_here("predict", model, *paths, "--top", 6, "--json")
        images = json.loads(out)["images"]
        told.append([{each["class"]: each["probability"] for each in i["best"]} for i in images])
    for by_run, by_artifact in zip(*told, strict=True):
        assert by_run == pytest.approx(by_artifact, abs=1e-5)
    code, _, _ = vggc_here("predict", "artifact", paths[0], "--protocol", "centre")
    assert code == 0
    _, first, _ = vggc_here("predict", "one", paths[0], "--protocol", "test", "--json")
    _, second, _ = vggc_here("predict", "one", paths[0], "--json")
    assert first != second


def told(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out, newline="")))


def test_folders_and_patterns_are_looked_through(folder: Path, vggc_here: Here) -> None:
    """As the shell would give them, but for what is hidden or no image by its name."""
    (folder / "images" / "red" / ".hidden.png").write_text("?")
    (folder / "images" / "red" / "notes.txt").write_text("?")
    (folder / "images" / "red" / ".thumbnails").mkdir()
    shutil.copy(folder / "images" / "red" / "0.png", folder / "images" / "red" / ".thumbnails")
    everything = sorted(f"images/{name}/{index}.png" for name in CLASSES for index in range(6))
    for places, expected in (
        (["images"], everything),
        (["images/"], everything),
        (["images/*"], everything),
        (["images/**"], everything),
        (["images/**/*.png"], everything),
        (["images/red/[01].png", "images/blue"], [*everything[24:26], *everything[6:12]]),
        (["images/red/5.png", "images/red/*"], [everything[29], *everything[24:30]]),
    ):
        code, out, error = vggc_here("predict", "one", *places, "--csv", "-")
        assert code == 0, error
        assert [row["path"] for row in told(out)] == expected, places


@pytest.mark.parametrize("pattern", ["images/**/*.png", "images/**/0.png"])
def test_links_to_folders_tell_no_image_twice(folder: Path, vggc_here: Here, pattern: str) -> None:
    """`**` goes through them, and would go round and round."""
    _, before, _ = vggc_here("predict", "one", pattern, "--csv", "-")
    (folder / "images" / "red" / "ring").symlink_to("..")
    (folder / "images" / "a-red").symlink_to("red")
    (folder / "images" / "more").mkdir()
    (folder / "images" / "more" / "elsewhere").symlink_to(folder / "images" / "blue")
    code, out, error = vggc_here("predict", "one", pattern, "--csv", "-")
    assert code == 0, error
    places = [[os.path.realpath(row["path"]) for row in told(text)] for text in (before, out)]
    assert sorted(places[1]) == sorted(places[0])


def test_a_file_whose_name_is_a_pattern_is_that_file(folder: Path, vggc_here: Here) -> None:
    shutil.copy(folder / "images" / "red" / "0.png", folder / "a[1].png")
    shutil.copy(folder / "images" / "red" / "1.png", folder / "a1.png")
    _, out, _ = vggc_here("predict", "one", "a[1].png", "--csv", "-")
    assert [row["path"] for row in told(out)] == ["a[1].png"]


@pytest.mark.parametrize(("options", "end"), [((), b"\n"), ((), b"\r\n"), (("--null",), b"\0")])
def test_paths_come_in_on_standard_input(
    folder: Path,
    vggc_here: Here,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    end: bytes,
) -> None:
    """Among others that are named, in order; lines may be empty, and the last one has no end."""
    monkeypatch.setattr("vggc.api.evaluate.AT_ONCE", 3)
    paths = ["images/red/0.png", "gone.png", "images/blue", "images/red/*", "pipe"]
    os.mkfifo(folder / "pipe")
    listed = io.BytesIO(end + end.join(path.encode() for path in paths))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(listed))
    places = ("images/grey/1.png", "-", "images/grey/2.png")
    code, out, error = vggc_here("predict", "one", *places, "--csv", "-", *options)
    assert code == 2
    assert [row["path"] for row in told(out)] == [
        "images/grey/1.png",
        "images/red/0.png",
        *(f"images/blue/{index}.png" for index in range(6)),
        "images/grey/2.png",
    ]
    assert "cannot read the image `gone.png`\n  there is no such file" in error
    assert "cannot read the image `images/red/*`\n  there is no such file" in error
    assert "cannot read the image `pipe`\n  it is not a file" in error


def test_what_is_no_list_ends_soon(
    folder: Path, vggc_here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            buffer[:] = b"?" * len(buffer)
            return len(buffer)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    code, _, error = vggc_here("predict", "one", "-")
    assert code == 2
    assert "what comes in is no list of paths" in error


def test_csv_and_json_lines_tell_what_is_printed(folder: Path, vggc_here: Here) -> None:
    code, out, error = vggc_here("predict", "one", "images", "--top", 3, "--json")
    record = json.loads(out)
    files = ("--csv", "a.csv", "--jsonl", "a.jsonl")
    code, out, error = vggc_here("predict", "one", "images", "--top", 3, *files)
    assert (code, out) == (0, "")
    assert "Written: a.csv\nWritten: a.jsonl\n" in error
    lines = (folder / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == record["images"]
    rows = told((folder / "a.csv").read_text())
    assert [*rows[0]] == ["path", "class1", "p1", "class2", "p2", "class3", "p3"]
    for row, image in zip(rows, record["images"], strict=True):
        assert row["path"] == image["image"]
        for place, best in enumerate(image["best"], start=1):
            assert row[f"class{place}"] == best["class"]
            assert float(row[f"p{place}"]) == pytest.approx(best["probability"], abs=1e-6)


def test_csv_has_as_many_columns_as_there_are_classes(folder: Path, vggc_here: Here) -> None:
    _, out, _ = vggc_here("predict", "one", "images/red/0.png", "--top", 50, "--csv", "-")
    (row,) = told(out)
    assert len(row) == 1 + 2 * len(CLASSES)


def test_paths_come_out_byte_for_byte(folder: Path, vggc_here: Here) -> None:
    """Also those that are no UTF-8, and hold commas and line breaks."""
    names = sorted([os.fsdecode(b"\xff.png"), 'a,"b\n.png', "\x1b[1m.png"])
    (folder / "odd").mkdir()
    for name in names:
        shutil.copy(folder / "images" / "red" / "0.png", folder / "odd" / name)
    code, _, error = vggc_here("predict", "one", "odd", "--csv", "a.csv", "--jsonl", "a.jsonl")
    assert code == 0, error
    text = (folder / "a.csv").read_bytes().decode("utf-8", "surrogateescape")
    assert [row["path"] for row in told(text)] == [f"odd/{name}" for name in names]
    lines = (folder / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == [f"odd/{name}" for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "vggc", "predict", "one", "odd", "--csv", "-"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == (folder / "a.csv").read_bytes()


def test_of_many_that_cannot_be_read_the_first_are_named(folder: Path, vggc_here: Here) -> None:
    (folder / "broken").mkdir()
    for index in range(60):
        (folder / "broken" / f"{index:02}.png").write_text("?")
    code, out, error = vggc_here("predict", "one", "broken", "images/red/0.png", "--csv", "a.csv")
    assert (code, out) == (2, "")
    assert "60 images could not be read. These are the first:\n" in error
    assert error.count("cannot read the image") == 50
    assert len(told((folder / "a.csv").read_text())) == 1


@pytest.mark.slow
def test_an_artifact_tells_of_folders_and_lists_in_order(
    folder: Path,
    tiny_artifact: Callable[..., Path],
    vggc_here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_artifact(4, name=str(folder / "artifact"))
    (folder / "images" / "red" / "3.png").write_text("?")
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"images/red\nimages/blue/0.png"))
    )
    code, out, error = vggc_here("predict", "artifact", "-", "--csv", "-", "--top", 2)
    assert code == 2
    expected = [*(f"images/red/{index}.png" for index in (0, 1, 2, 4, 5)), "images/blue/0.png"]
    rows = told(out)
    assert [row["path"] for row in rows] == expected
    for row in rows:
        _, out, _ = vggc_here("predict", "artifact", row["path"], "--json", "--top", 2)
        (image,) = json.loads(out)["images"]
        assert [row["class1"], row["class2"]] == [each["class"] for each in image["best"]]
    assert "cannot read the image `images/red/3.png`" in error


@pytest.mark.slow
def test_an_artifact_tells_what_its_centre_crop_gives(
    folder: Path, tiny_artifact: Callable[..., Path], vggc_here: Here
) -> None:
    paths = [f"images/red/{index}.png" for index in range(5)]
    (folder / "broken.png").write_text("?")
    tiny_artifact(2, name=str(folder / "artifact"))
    told = {}
    for path in paths:
        _, out, _ = vggc_here("run", "artifact", "--input", path, "--top", 3)
        told[path] = out
    code, out, error = vggc_here("predict", "artifact", *paths, "broken.png", "--top", 3)
    assert code == 2
    assert out == "".join(f"{path}\n{told[path]}" for path in paths)
    assert "cannot read the image `broken.png`" in error


@pytest.mark.parametrize(
    "options",
    [
        ["--scales", "16"],
        ["--protocol", "dense"],
        ["--grid", "2x2"],
        ["--no-flip"],
        ["--batch", "4"],
        ["--device", "cpu"],
        ["--precision", "float32"],
        ["--workers", "0"],
    ],
)
def test_what_an_artifact_cannot_do_is_refused_by_name(
    folder: Path, options: list[str], vggc_here: Here
) -> None:
    (folder / "artifact").mkdir()
    (folder / "artifact" / "manifest.json").write_text("{}")
    code, out, error = vggc_here("predict", "artifact", "images/red/0.png", *options)
    assert (code, out) == (2, "")
    flag = options[0].replace("--no-flip", "--flip")
    assert f"error: `{flag}` cannot be had from an artifact\n" in error
    assert "vggc predict" in vggc_here("eval", "artifact")[2]


def test_every_command_of_the_page_on_testing_can_be_given() -> None:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    lines = re.findall(r"(?m)^    (?:\$ )?(?:torchrun .* -m )?vggc (eval|predict) (.*)$", page)
    assert {name for name, _ in lines} == {"eval", "predict"}
    assert len(lines) >= 7
    for name, arguments in lines:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, arguments.split())  # refuses what it does not know


# Elsewhere

GREY = NET.replace("3x8x8", "1x9x8").replace("  scale 10\n", "")


@pytest.mark.parametrize("text", [NET, GREY], ids=["rgb", "grey"])
def test_the_page_on_exporting_classifies_pictures_as_predict_does(
    folder: Path, vggc_here: Here, text: str
) -> None:
    make_run(folder / "run", folder / "images", text.replace("scales 10,12", "scales off"))
    code, out, error = vggc_here("export", "run", "-o", "net.onnx")
    assert code == 0, error
    colours, scale = (
        ("RGB", "its shorter side has 10 pixels") if text == NET else ("grey", "it just covers 9×8")
    )
    assert f", {colours}\n  image    resized in proportion until {scale}" in out
    assert "  classes  red, green, blue, grey, white and 1 more\n" in out
    page = (ROOT / "docs" / "exporting.md").read_text("utf-8")
    (program,) = re.findall(r"(?s)```python\n(import json, sys.*?)```", page)
    (folder / "classify.py").write_text(program)
    turned = Image.open("images/red/1.png")
    turned.getexif()[0x0112] = 6
    turned.save("turned.png", exif=turned.getexif())
    clear = Image.open("images/red/2.png").convert("RGBA")
    clear.putalpha(90)
    clear.save("clear.png")
    for path in ("images/red/0.png", "images/blue/5.png", "turned.png", "clear.png"):
        command = [sys.executable, "classify.py", "net.onnx", path]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        _, out, _ = vggc_here("predict", "run", path, "--protocol", "centre", "--json")
        (image,) = json.loads(out)["images"]
        rows = [line.split(" ", 1) for line in told.splitlines()]
        assert [name for _, name in rows] == [best["class"] for best in image["best"]]
        assert [float(p) for p, _ in rows] == pytest.approx(
            [best["probability"] for best in image["best"]], abs=1e-4
        )


# Several processes


@pytest.mark.slow
def test_two_processes_count_what_one_counts(folder: Path) -> None:
    for index in range(3):
        (folder / "images" / "blue" / f"broken{index}.jpg").write_text("?")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = ("-m", "vggc", "eval", "one", "two", "--data", "images", "--device", "cpu")
    root = str(ROOT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    results = []
    tables = []
    for start in ((), torchrun):
        files = [f"{len(results)}-{name}.csv" for name in ("c", "m", "p")]
        named = ("--per-class", files[0], "--confusion", files[1], "--predictions", files[2])
        done = subprocess.run(
            [sys.executable, *start, *arguments, *named, "--json"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()  # only the first process speaks
        assert done.stderr.count("Testing on") == 1
        assert done.stderr.count("  skipped blue/broken") == 3
        result = json.loads(line)
        result.pop("images_per_second")
        results.append(result)
        tables.append([(folder / name).read_text() for name in files])
    assert results[0] == results[1]
    assert tables[0] == tables[1]
    assert (results[0]["images"], results[0]["skipped"]) == (36, 3)


@pytest.mark.slow
def test_a_net_of_the_paper_gives_the_same_errors_however_it_is_batched(tmp_path: Path) -> None:
    text = format_net(from_zoo("vgg11(width=0.0625, classes=6)").net)
    random = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, size in enumerate([(300, 400), (280, 260), (300, 400)]):
            pixels = random.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.jpg")
    make_run(tmp_path / "run", tmp_path / "images", text)
    found = []
    for batch, workers in ((1, 0), (30, 2)):
        wishes = EvalOptions(
            scales="256,288",
            protocol="both",
            grid="2x2",
            batch=batch,
            workers=workers,
            device="cpu",
        )
        planned = plan([tmp_path / "run"], wishes)
        images = images_for(planned, str(tmp_path / "images"))
        result = measure(planned, images, lambda done, total: None)
        found.append((result.images, result.each))
    assert found[0] == found[1]
    assert found[0][0] == 18
