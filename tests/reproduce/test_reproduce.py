"""The paper's tables: what they ask for, how they are laid out, and that they can be made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support import GOLDENS
from tests.support.training_data import picture, task
from vggc.cli import cli
from vggc.data.diagnostics import NoSuchFolder
from vggc.program import load
from vggc.recipe.edit import override_blocks
from vggc.recipe.train import OneCycle, read_recipe
from vggc.reproduce import diagnostics
from vggc.reproduce.layout import laid, parameters
from vggc.reproduce.setting import PAPER, SMALL, StudySetting
from vggc.reproduce.study import RECORD, StudyRecord, opened
from vggc.reproduce.study import TestError as ErrorFound
from vggc.reproduce.tables import (
    JITTER,
    NETS,
    S256,
    S384,
    TABLES,
    Trained,
    also_random,
    trainings,
)
from vggc.support.diagnostics import Diagnostic, UserError, render
from vggc.training.session import begin

FOLDER = GOLDENS / "reproduce"
FRESH = StudyRecord(1, "small", "/images", None, 10, 0, {})


def test_table3_takes_each_net_as_the_paper_trained_it() -> None:
    names = [net.name for net in trainings(TABLES["table3"])]
    assert names == [
        "vgg11-256-random",
        "vgg11_lrn-256-random",
        "vgg13-256-from-A",
        *(
            f"{net}-{scale}-from-A"
            for net in ("vgg16_1x1", "vgg16", "vgg19")
            for scale in ("256", "384", "256-512")
        ),
    ]
    both = [net.name for net in trainings(also_random(TABLES["table3"]))]
    added = {f"{net}-256-random" for net in ("vgg13", "vgg16_1x1", "vgg16", "vgg19")}
    assert {*both} - {*names} == added


def test_the_other_tables_take_no_net_that_table3_does_not() -> None:
    there = {*trainings(TABLES["table3"])}
    for lines in TABLES.values():
        assert {*trainings(lines)} <= there
    assert [len(lines) for lines in TABLES.values()] == [12, 10, 6, 3]


def test_what_a_net_begins_with_comes_before_it() -> None:
    order = trainings(TABLES["table6"])
    assert all(net.before is None or order.index(net.before) < order.index(net) for net in order)
    jittered = Trained("E", JITTER, "from A")
    assert jittered.before == Trained("E", S384, "from A")
    assert Trained("E", S384, "from A").before == Trained("E", S256, "from A")
    assert Trained("E", S256, "from A").before == Trained("A", S256, "random")
    assert Trained("E", S256, "random").before is None


@pytest.mark.parametrize("setting", [PAPER, SMALL])
@pytest.mark.parametrize("column", NETS)
def test_every_training_is_one_that_its_net_can_have(column: str, setting: StudySetting) -> None:
    for scales in (S256, S384, JITTER):
        for start in ("random", "from A"):
            net = Trained(column, scales, start)
            program = load(setting.spec(column))
            changes = [*setting.recipe(net), "crop=off"]
            (block,) = [b for b in override_blocks(program.net.blocks, changes) if b.key == "train"]
            recipe = read_recipe(block, program.graph if setting is PAPER else None)
            assert recipe.scale == setting.scales(scales)
            assert (recipe.init_from is not None) == (net.before is not None)
            assert recipe.optimiser.lr == setting.lr / (1 if scales == S256 else 10)


def test_small_is_a_seventh() -> None:
    assert SMALL.input == (32, 32)
    assert [SMALL.length(n) for n in (224, 256, 288, 384, 512)] == [32, 36, 41, 54, 73]
    recipe = SMALL.recipe(Trained("D", S256, "random"))
    assert "schedule=one-cycle" in recipe
    assert OneCycle.example.startswith("one-cycle")
    assert SMALL.spec("D") == "vgg16(width=0.25)"


def test_small_looks_at_crops_that_have_room() -> None:
    """A net with five pools has one place in an image of 54 pixels, the upper left corner."""
    names = {way: SMALL.looks[way].name for way in SMALL.looks}
    assert names == {"dense": "3×3 crops", "crops": "5×5 crops"}
    assert SMALL.tests(TABLES["table4"][0]) == (34, 36, 41)
    assert SMALL.tests(TABLES["table5"][1]) == (36, 54, 73)
    assert PAPER.tests(TABLES["table4"][0]) == (224, 256, 288)
    for lines in TABLES.values():
        for line in lines:
            assert PAPER.tests(line) == line.tests
            look = SMALL.looks.get(line.way)
            assert look is None or min(SMALL.tests(line)) - SMALL.length(224) >= look.grid - 1


def test_errors_are_those_of_the_way_that_was_taken(tmp_path: Path) -> None:
    small = opened(tmp_path / "x", FRESH)
    dense, crops = TABLES["table5"][:2]
    assert small.key(dense) == "vgg16-256-512-from-A 3×3 crops 36,54,73"
    assert small.with_error(crops, ErrorFound(20, 3, 400)).error(dense) is None
    paper = opened(tmp_path / "y", replace(FRESH, setting="paper"))
    assert paper.key(dense) == "vgg16-256-512-from-A dense 256,384,512"


def test_a_table_has_our_numbers_beside_the_papers(tmp_path: Path) -> None:
    lines = TABLES["table6"][:2]
    study = opened(tmp_path / "x", FRESH)
    assert not (tmp_path / "x").exists()
    assert study.error(lines[0]) is None
    study = study.with_error(lines[0], ErrorFound(20.04, 3.0, 400))
    study.save()
    assert opened(tmp_path / "x", FRESH).error(lines[0]) == ErrorFound(20.04, 3.0, 400)
    text = laid("table6", lines, study, "vggc reproduce table6").markdown()
    assert (
        "| D + E | [36;73] | 36, 54, 73 | from A | 3×3 crops | 20.04 | 3.00 | 24.0 | 7.1 |" in text
    )
    assert "| 5×5 crops | – | – | 23.9 | 7.2 |" in text
    assert "Errors on 400 images." in text
    assert "`vggc reproduce table6`" in text


def test_at_the_papers_size_the_ways_are_the_papers(tmp_path: Path) -> None:
    study = opened(tmp_path / "x", replace(FRESH, setting="paper"))
    rows = laid("table6", TABLES["table6"], study, "x").rows
    assert [row[4] for row in rows] == ["dense", "multi-crop", "multi-crop & dense"]
    assert [row[2] for row in rows] == ["256, 384, 512"] * 3


def test_the_paper_has_no_numbers_of_deeper_nets_from_random_weights(tmp_path: Path) -> None:
    study = opened(tmp_path / "x", FRESH)
    rows = laid("table3", also_random(TABLES["table3"]), study, "x").rows
    assert {row[0] for row in rows if row[-1] == "–"} == {"B", "C", "D", "E"}
    assert all((row[-1] == "–") == (row[3] == "random" and "A" not in row[0]) for row in rows)


def test_table2_counts_parameters() -> None:
    rows = {row[0]: row[2:] for row in parameters(NETS).rows}
    assert rows["D"] == ("138,357,544", "138.4", "138")
    assert rows["E"] == ("143,667,240", "143.7", "144")
    result = CliRunner().invoke(cli, ["reproduce", "table2", "--json"])
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["rows"]) == 6


@pytest.mark.parametrize("nets", ["D+E", "D + E"])
def test_nets_together_are_named_as_their_line(
    nets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--data", "x", "--small", "--nets", nets, "--dry-run"]
    result = CliRunner().invoke(cli, ["reproduce", "table6", *options])
    assert result.exit_code == 0
    assert result.stdout.count("to do") == len(trainings(TABLES["table6"]))


# Mistakes


def samples() -> list[Diagnostic]:
    """One of each."""
    return [
        diagnostics.NotAStudy("reproduced", "reproduce.json is not JSON"),
        diagnostics.BegunOtherwise("reproduced", "seed", "0", "1"),
        diagnostics.NoData("table3"),
        diagnostics.NoPicturesWithBoxes("table8"),
        diagnostics.SmallOnly("table11"),
        diagnostics.AllNets("table9"),
        diagnostics.OneProcessOnly("table11"),
        diagnostics.TooFewClasses("photos", 3),
        diagnostics.UnknownColumn("table4", "F", "did you mean `E`?"),
        diagnostics.CountsOnly("`--data`, `--small`"),
        diagnostics.TooFewImages(128, 60),
        diagnostics.RunOfSomethingElse("x/runs/vgg11-256-random", "net", "tiny", "vgg11"),
    ]


@pytest.mark.parametrize("mistake", samples(), ids=lambda mistake: type(mistake).__name__)
def test_the_message_of_a_mistake_is_exactly_this(mistake: Diagnostic) -> None:
    text = render(mistake) + "\n"
    golden = FOLDER / f"{type(mistake).__name__}.err"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_mistake_is_without_a_golden() -> None:
    kinds = {
        kind
        for kind in vars(diagnostics).values()
        if isinstance(kind, type) and issubclass(kind, Diagnostic) and kind is not Diagnostic
    }
    assert kinds == {type(mistake) for mistake in samples()}
    assert {kind.__name__ for kind in kinds} == {path.stem for path in FOLDER.glob("*.err")}


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(UserError, match="exists already"):
        opened(tmp_path / "full", FRESH)
    study = opened(tmp_path / "x", FRESH)
    study.with_error(TABLES["table6"][0], ErrorFound(1.0, 1.0, 1)).save()
    for changed in (
        StudyRecord(1, "paper", "/images", None, 10, 0, {}),
        StudyRecord(1, "small", "/b", None, 10, 0, {}),
    ):
        with pytest.raises(UserError, match="were begun otherwise"):
            opened(tmp_path / "x", changed)
    (tmp_path / "x" / RECORD).write_text("{")
    with pytest.raises(UserError, match="does not hold tables"):
        opened(tmp_path / "x", FRESH)


def test_tables_of_which_nothing_is_made_yet_can_be_begun_otherwise(tmp_path: Path) -> None:
    opened(tmp_path / "x", FRESH).save()
    other = StudyRecord(1, "small", "/b", None, 10, 0, {})
    assert opened(tmp_path / "x", other).record == other


def test_a_run_of_something_else_is_not_taken_for_that_of_the_table(tmp_path: Path) -> None:
    study = opened(tmp_path / "x", FRESH)
    net = TABLES["table6"][0].nets[0]
    assert study.run_of(net) is None
    folder = study.run_folder(net)
    begin(task(seed=0), None, folder, datetime(2026, 1, 1))
    with pytest.raises(UserError, match="is not a run of this table"):
        study.run_of(net)


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["table3"], diagnostics.NoData),
        (["table3", "--data", "x", "--nets", "A,F"], diagnostics.UnknownColumn),
        (["table4", "--data", "x", "--nets", "A"], diagnostics.UnknownColumn),
        (["table2", "--nets", "A,F"], diagnostics.UnknownColumn),
        (["table2", "--data", "x"], diagnostics.CountsOnly),
        (["table3", "--data", "nosuch", "--small"], NoSuchFolder),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], mistake: type
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["reproduce", *arguments])
    assert isinstance(result.exception, UserError)
    assert isinstance(result.exception.diagnostics[0], mistake)
    assert not [*tmp_path.iterdir()]


# Made


def small_images(folder: Path) -> None:
    for part, first, count in (("train", 0, 60), ("val", 100, 6)):
        for label, name in enumerate(("a", "b", "c")):
            (folder / part / name).mkdir(parents=True)
            for index in range(first, first + count):
                image = Image.fromarray(picture(label, index, 40, 36))
                image.save(folder / part / name / f"{index}.png")


@pytest.mark.slow
def test_a_table_is_made_goes_on_after_an_interrupt_and_is_not_made_twice(tmp_path: Path) -> None:
    small_images(tmp_path / "images")
    command = [sys.executable, "-m", "vggc", "reproduce", "table3", "--data", "images"]
    command += ["--small", "--nets", "A,B", "--epochs", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    where = {"cwd": tmp_path, "env": environment}
    started = subprocess.Popen([*command, "--out", "x"], stderr=subprocess.DEVNULL, **where)
    second = tmp_path / "x/runs/vgg13-256-from-A/run.json"
    for _ in range(600):
        if second.exists():
            break
        assert started.poll() is None
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    assert started.wait(60) in (130, 0)
    done = subprocess.run([*command, "--out", "x"], capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    whole = subprocess.run([*command, "--out", "y"], capture_output=True, text=True, **where)
    tables = [(tmp_path / name / "table3.md").read_text() for name in "xy"]
    assert tables[0].replace("--out x", "") == tables[1].replace("--out y", "")
    assert "vgg11-256-random" not in done.stderr  # it was done before
    assert "crops | –" not in tables[0]
    assert whole.stdout.replace("--out y", "") == done.stdout.replace("--out x", "")
    again = subprocess.run([*command, "--out", "x"], capture_output=True, text=True, **where)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.slow
def test_two_processes_make_a_table_together(tmp_path: Path) -> None:
    small_images(tmp_path / "images")
    command = ["reproduce", "table3", "--data", "images", "--small", "--nets", "A,B"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    made = subprocess.run(
        [sys.executable, *torchrun, "-m", "vggc", *command, "--epochs", "1", "--out", "x"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("Table 3") == 1, made.stdout
    assert made.stderr.count("vgg13-256-from-A\n") == 1
    table = (tmp_path / "x/table3.md").read_text()
    assert "crops | –" not in table
    for run in ("vgg11-256-random", "vgg13-256-random", "vgg13-256-from-A"):
        assert '"finished"' in (tmp_path / "x/runs" / run / "run.json").read_text()
