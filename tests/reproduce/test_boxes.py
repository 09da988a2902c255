"""The paper's tables of localisation: what they ask for, how they are laid out, and that they can
be made.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vggc.api.reproduce_boxes import views_at
from vggc.cli import cli
from vggc.ir.ops import Conv2d
from vggc.recipe.edit import override_blocks
from vggc.recipe.layer_names import selected, with_weights
from vggc.recipe.train import Recipe, read_recipe
from vggc.reproduce import diagnostics
from vggc.reproduce.box_layout import laid
from vggc.reproduce.box_setting import BoxSetting, PaperBoxes, SmallBoxes
from vggc.reproduce.box_study import BoxStudy, boxes_opened
from vggc.reproduce.box_tables import (
    BOX_TABLES,
    BoxNet,
    BoxTableName,
    BoxTraining,
    box_trainings,
)
from vggc.reproduce.study import RECORD, BoxError, StudyRecord, opened
from vggc.reproduce.study import TestError as ErrorFound
from vggc.reproduce.tables import TABLES, Trained, trainings
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.records import from_json, to_json
from vggc.training.diagnostics import ImagesWithoutBoxes

FRESH = StudyRecord(1, "boxes", "/pictures", None, 16, 0, {})
SETTINGS = [PaperBoxes(), SmallBoxes()]
CASES = [
    (setting, net)
    for setting, table in product(SETTINGS, BOX_TABLES.values())
    for net in box_trainings(table(setting.start))
]


def recipe_of(setting: BoxSetting, net: BoxTraining) -> Recipe:
    program = setting.program(net)
    blocks = override_blocks(program.net.blocks, setting.changes(net))
    (block,) = [block for block in blocks if block.key == "train"]
    return read_recipe(block, program.graph, program.named)


def study_in(folder: Path, **changes: object) -> BoxStudy:
    return boxes_opened(folder, replace(FRESH, **changes))  # type: ignore[arg-type]


# What is trained


def test_each_net_of_boxes_comes_after_the_net_of_classes_of_its_scale() -> None:
    names = [net.name for net in box_trainings(BOX_TABLES["table9"]("from A"))]
    assert names == [
        "vgg11-256-random",
        "vgg16-256-from-A",
        "vgg16_loc_pcr-256-all",
        "vgg16-384-from-A",
        "vgg16_loc_pcr-384-all",
    ]
    boxes = [net.name for net in box_trainings(BOX_TABLES["table8"]("from A"))][2:]
    assert boxes == ["vgg16_loc_scr-256-fc", "vgg16_loc_pcr-256-fc", "vgg16_loc_pcr-256-all"]


def test_at_the_papers_size_nets_of_classes_are_those_of_the_other_tables() -> None:
    """They have the same runs, so that none is trained twice."""
    there = {*trainings(TABLES["table3"])}
    for table in BOX_TABLES.values():
        assert {net for net in box_trainings(table("from A")) if isinstance(net, Trained)} <= there


@pytest.mark.parametrize(
    ("setting", "net"), CASES, ids=lambda each: getattr(each, "name", type(each).__name__)
)
def test_every_training_is_one_that_its_net_can_have(setting: BoxSetting, net: BoxTraining) -> None:
    recipe, graph = recipe_of(setting, net), setting.program(net).graph
    scale = net.scale if isinstance(net, BoxNet) else net.scales[0]
    assert recipe.scale == (setting.length(scale),) * 2
    assert recipe.epochs is not None
    assert 1 <= recipe.epochs <= setting.epochs
    assert graph.input == (3, setting.length(224), setting.length(224))
    assert graph.has("boxes") == isinstance(net, BoxNet)
    assert (recipe.init_from is None) == (net.before is None)
    if isinstance(net, BoxNet):
        assert recipe.optimiser.lr == 1e-3
        last = graph.nodes[-1].layer.name
        assert recipe.init_from is not None
        assert last not in recipe.init_from.layers[0]
        assert (recipe.freeze is not None) == (net.tuned == "FC")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: type(each).__name__)
def test_of_the_nets_so_tuned_the_fully_connected_layers_alone_are_trained(
    setting: BoxSetting,
) -> None:
    net = BoxNet("PCR", 256, "FC", setting.start)
    graph = setting.program(net).graph
    frozen = selected(recipe_of(setting, net).freeze or (), graph)
    trained = [layer for layer in with_weights(graph) if layer not in frozen]
    assert len(trained) == 3
    assert all(layer.startswith(("fc", "boxes")) for layer in trained)


def test_small_nets_give_over_a_whole_picture_just_what_they_give_of_its_crops() -> None:
    small = SmallBoxes()
    nets = box_trainings(BOX_TABLES["table8"](small.start))
    for graph in (small.program(net).graph for net in nets):
        convs = [node.op for node in graph.nodes if isinstance(node.op, Conv2d)]
        assert {each.padding for each in convs} == {(0, 0, 0, 0)}


# How it is laid out


def measured(folder: Path, table: BoxTableName, **changes: object) -> BoxStudy:
    study = study_in(folder, **changes)
    for number, line in enumerate(BOX_TABLES[table](study.setting.start)):
        study = study.with_error(line, BoxError(20.04 + number, 10.0 + number, 0.7, 600))
    return study


def test_a_table_has_our_numbers_beside_the_papers(tmp_path: Path) -> None:
    lines = BOX_TABLES["table8"]("random")
    text = laid("table8", lines, measured(tmp_path / "x", "table8"), "vggc x").markdown()
    assert "| fully-connected layers | SCR | 70 | 20.0 | 0.700 | 36.4 |" in text
    assert "| fully-connected layers | PCR | 70 | 21.0 | 0.700 | 34.3 |" in text
    assert "| all layers | PCR | 70 | 22.0 | 0.700 | 33.1 |" in text
    assert "On 600 pictures." in text
    assert "`vggc x`" in text


def test_a_table_at_the_papers_size_has_its_scales(tmp_path: Path) -> None:
    lines = BOX_TABLES["table9"]("from A")
    study = measured(tmp_path / "x", "table9", setting="paper", epochs=74)
    rows = laid("table9", lines, study, "vggc x").rows
    assert [row[:2] for row in rows] == [
        ("256", "256"),
        ("384", "384"),
        ("384", "352, 384"),
        ("256 + 384", "256 + 352, 384"),
    ]
    papers = [("29.5", "–"), ("28.2", "26.7"), ("27.5", "–"), ("26.9", "25.3")]
    assert [row[-2:] for row in rows] == papers
    assert rows[0][2:5] == ("20.0", "10.0", "0.700")


def test_what_is_not_measured_is_a_dash_and_of_another_table_stands_below(tmp_path: Path) -> None:
    study = measured(tmp_path / "x", "table8")
    table = laid("table9", BOX_TABLES["table9"]("random"), study, "vggc x")
    assert all(row[2:5] == ("–", "–", "–") for row in table.rows)
    assert any("errs on 22.0 %" in note for note in table.notes)
    fresh = laid("table9", BOX_TABLES["table9"]("random"), study_in(tmp_path / "y"), "vggc x")
    assert not any("errs on" in note for note in fresh.notes)


# What a folder holds


def test_a_folder_holds_errors_of_classes_beside_those_of_boxes(tmp_path: Path) -> None:
    wanted = replace(FRESH, setting="paper", epochs=74)
    line, other = TABLES["table6"][0], BOX_TABLES["table8"]("from A")[0]
    opened(tmp_path / "x", wanted).with_error(line, ErrorFound(20, 3, 400)).save()
    boxes = boxes_opened(tmp_path / "x", wanted)
    boxes.with_error(other, BoxError(30, 30, 0.6, 400)).save()
    assert opened(tmp_path / "x", wanted).error(line) == ErrorFound(20, 3, 400)
    assert boxes_opened(tmp_path / "x", wanted).error(other) == BoxError(30, 30, 0.6, 400)
    with pytest.raises(UserError, match="were begun otherwise"):
        boxes_opened(tmp_path / "x", replace(wanted, data="/others"))
    with pytest.raises(UserError, match="were begun otherwise"):
        boxes_opened(tmp_path / "x", replace(FRESH))


def test_a_record_without_boxes_is_read_as_it_was_written_before_there_were_any() -> None:
    record = to_json(FRESH)
    del record["boxes"]
    assert from_json(StudyRecord, record) == FRESH


def test_lines_of_one_net_at_other_scales_are_not_mixed_up(tmp_path: Path) -> None:
    study = study_in(tmp_path / "x")
    lines = [line for table in BOX_TABLES.values() for line in table("random")]
    assert len({study.key(line) for line in lines}) == len(lines) == 7
    assert study.key(lines[-1]) == "vgg16_loc_pcr-256-all 70 + vgg16_loc_pcr-384-all 98,106 dense"


# Mistakes


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["reproduce", *map(str, arguments)])


def mistake(result: Result) -> Diagnostic:
    assert isinstance(result.exception, UserError), result.output
    return result.exception.diagnostics[0]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["table8"], diagnostics.NoPicturesWithBoxes),
        (["table9", "--small"], diagnostics.NoPicturesWithBoxes),
        (["table8", "--data", "x", "--nets", "D"], diagnostics.UnknownColumn),
        (["table9", "--data", "x", "--nets", "PCR"], diagnostics.AllNets),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], kind: type
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(mistake(invoke(*arguments)), kind)
    assert not [*tmp_path.iterdir()]


def test_pictures_without_boxes_are_refused_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, number in product("ab", range(60)):
        path = tmp_path / "pictures" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 60), (number, 0, 0)).save(path)
    found = mistake(invoke("table8", "--small", "--data", "pictures"))
    assert isinstance(found, ImagesWithoutBoxes)
    assert found.net == "small_pcr"
    assert not (tmp_path / "reproduced-boxes").exists()


def test_a_dry_run_lists_the_trainings_of_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = invoke("table8", "--small", "--data", "x", "--nets", "SCR", "--dry-run")
    assert told.exit_code == 0
    assert told.stdout.count("to do") == 2
    assert "vgg16_loc_scr-256-fc" in told.stdout
    assert "pcr" not in told.stdout
    assert not [*tmp_path.iterdir()]


# Made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a red or a green square on noise, with a table of where it is. Nobody writes."""
    folder = tmp_path_factory.mktemp("data")
    draws = np.random.default_rng(0)
    with (folder / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "class", "xmin", "ymin", "xmax", "ymax"])
        for number in range(80):
            pixels = draws.integers(0, 120, (90, 100, 3), np.uint8)
            (left, top), side = draws.integers(0, 50, 2).tolist(), 40
            pixels[top : top + side, left : left + side, number % 2] = 255
            (folder / "images").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
            name = ("red", "green")[number % 2]
            table.writerow([f"images/{number:02}.png", name, left, top, left + side, top + side])
    return folder


def vggc(folder: Path, *arguments: object, before: tuple[str, ...] = ()) -> str:
    """What the command prints in a folder, after another part of its command line."""
    made = subprocess.run(
        [sys.executable, *before, "-m", "vggc", "reproduce", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_each_net_is_tested_at_its_scales_beside_the_net_of_classes_it_began_with(
    tmp_path: Path,
) -> None:
    study = study_in(tmp_path / "x")
    line = BOX_TABLES["table9"]("random")[-1]
    views = [views_at(study, test) for test in line.tests]
    assert [[view.scale for view in each.views] for each in views] == [[70], [98, 106]]
    assert all(view.grid is None for each in views for view in each.views)
    assert all(each.flip for each in views)
    paper = study_in(tmp_path / "y", setting="paper", epochs=74)
    (view,) = views_at(paper, BOX_TABLES["table9"]("from A")[1].tests[0]).views
    assert (view.scale, view.grid) == (384, None)


@pytest.mark.slow
def test_both_tables_are_made_in_one_folder(place: Path, tmp_path: Path) -> None:
    common = "--small", "--data", place, "--epochs", 1, "--out", "x"
    first = json.loads(vggc(tmp_path, "table8", *common, "--json"))
    assert [row["regression"] for row in first["rows"]] == ["SCR", "PCR", "PCR"]
    assert all(0 <= float(row["error, %"]) <= 100 for row in first["rows"])
    vggc(tmp_path, "table9", *common)
    table = (tmp_path / "x/table9.md").read_text()
    assert "| 70 + 106 | 70 + 98, 106 | " in table
    assert "| – | – | – |" not in table
    assert "By the centre crop" in table
    runs = sorted(path.name for path in (tmp_path / "x/runs").iterdir())
    assert runs == [
        "vgg16-256-random",
        "vgg16-384-random",
        "vgg16_loc_pcr-256-all",
        "vgg16_loc_pcr-256-fc",
        "vgg16_loc_pcr-384-all",
        "vgg16_loc_scr-256-fc",
    ]
    record = json.loads((tmp_path / "x" / RECORD).read_text())
    assert len(record["boxes"]) == 7
    assert json.loads(vggc(tmp_path, "table8", *common, "--json")) == first


@pytest.mark.slow
def test_two_processes_make_a_table_together(place: Path, tmp_path: Path) -> None:
    torchrun = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    common = "table9", "--small", "--data", place, "--epochs", 1
    told = vggc(tmp_path, *common, "--out", "x", before=torchrun)
    assert told.count("Table 9") == 1
    assert "| – | – | – |" not in (tmp_path / "x/table9.md").read_text()
