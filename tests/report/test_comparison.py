"""`vggc compare`: runs beside one another."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.html_page import read
from tests.support.training_data import TINY, write_images
from vggc.cli import main
from vggc.report.comparison import MOST, compare
from vggc.report.comparison_page import COLOURS, comparison_page, look
from vggc.report.page import STYLE
from vggc.training.run import Run, write_run

Here = Callable[..., tuple[object, str, str]]

CLASSES = ("<img src=x>", "b", "c")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a net, and one of a wider one that learned otherwise."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "tiny.vgg").write_text(TINY)
    (folder / "wide.vgg").write_text(TINY.replace("conv3-4", "conv3-6"))
    write_images(folder / "images" / "train", CLASSES, 8)
    write_images(folder / "images" / "val", CLASSES, 3)
    before = gc.get_threshold()
    for name, spec, options in (
        ("one", "tiny", ()),
        ("two", "tiny", ("--seed", "1", "--epochs", "5")),
        ("wide", "wide", ("--set", "sgd.lr=0.01", "--set", "flip=on")),
    ):
        place = ("--data", folder / "images", "--out", folder / name)
        arguments = ["train", folder / f"{spec}.vgg", *place, *options]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["vggc", *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 0
    gc.set_threshold(*before)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(trained, tmp_path / "work"))
    monkeypatch.chdir(copy)
    return copy


def changed(folder: Path, **values: object) -> None:
    """Writes other values into a run's record."""
    record = Run.load(folder).record
    write_run(folder, replace(record, **values))  # type: ignore[arg-type]


def test_what_differs_is_told_and_only_that(folder: Path) -> None:
    found = compare([Path("one"), Path("two"), Path("wide")])
    assert {row.key: row.values for row in found.recipe} == {
        "epochs": ("3", "5", "3"),
        "sgd.lr": ("0.05", "0.05", "0.01"),
        "flip": ("off", "off", "on"),
    }
    assert {row.key: row.values for row in found.facts} == {"seed": ("0", "1", "0")}
    assert found.doubts == ()
    one, two, wide = found.courses
    assert found.net_differences(two) == []
    lines = [line for line in found.net_differences(wide) if line[0] in "+-"]
    assert lines == [
        "-  conv3-4 | pool | fc-8 | dropout | fc-3 | softmax",
        "+  conv3-6 | pool | fc-8 | dropout | fc-3 | softmax",
    ]
    assert [len(each.epochs) for each in found.courses] == [3, 5, 3]
    assert one.num_parameters < wide.num_parameters


def test_the_page_holds_everything_and_takes_nothing_from_elsewhere(
    folder: Path, vggc_here: Here
) -> None:
    code, out, error = vggc_here("compare", "one", "two", "wide")
    assert code == 0, error
    assert re.search(r"(?m)^ +run +state +epochs +best top-1, %", out)
    assert re.search(r"(?m)^ +sgd\.lr +0\.05 +0\.05 +0\.01", out)
    assert "comparison.html: 3 runs, " in out
    page = read(folder / "comparison.html")
    assert page.sections == ["outcome", "course", "recipe", "net", "facts"]
    assert "From one (−) to wide (+):" in page.text
    assert "The same net as in one: two." in page.text
    curves = [each["class"] for each in page.with_class("curve") if "points" in each]
    assert curves == [f"curve run-{number}" for number in (1, 2, 3)] * 4
    for _, attributes in page.elements:
        assert not attributes.get("src", "data:").startswith("http")
        assert attributes.get("href", "#").startswith("#")


def test_curves_may_end_before_others(folder: Path) -> None:
    text = comparison_page(compare([Path("one"), Path("two")]), datetime(2026, 1, 2))
    assert "Held-out top-1, % over 5 epochs: one from " in text
    assert "epoch 5, two: " in text
    assert "epoch 4, one: " not in text


def test_runs_that_are_still_going_are_compared(folder: Path, vggc_here: Here) -> None:
    """Also one before its first epoch."""
    changed(folder / "one", state="running", metrics=None)
    (folder / "one" / "metrics.csv").unlink()
    changed(folder / "two", state="interrupted")
    code, out, error = vggc_here("compare", "one", "two", "--json")
    assert code == 0, error
    record = json.loads(out)
    assert [run["epochs"] for run in record["runs"]] == [0, 5]
    assert record["runs"][0]["last"] is None
    assert record["runs"][1]["best"]["val_top1"] == max(
        row.val_top1 for row in compare([Path("one"), Path("two")]).courses[1].epochs
    )
    assert record["doubts"] == ["Not at their end: one, two. Their last epochs are shown."]
    assert record["facts"] == {"seed": ["0", "1"]}
    assert "Not at their end: one, two." in read(folder / "comparison.html").text
    shutil.copytree(folder / "one", folder / "begun")
    assert vggc_here("compare", "one", "begun", "-o", "no-epochs.html")[0] == 0
    assert "course" not in read(folder / "no-epochs.html").sections


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        ({"classes": ("a", "b", "d")}, "do not know the same classes"),
        ({"data": "other"}, "not trained and tested on the same images"),
    ],
)
def test_doubts_about_the_figures_are_told(
    folder: Path, values: dict[str, object], doubt: str, vggc_here: Here
) -> None:
    if "data" in values:
        origin = Run.load(folder / "one").record.data
        others = replace(origin.fingerprints, val=origin.fingerprints.train)
        values = {"data": replace(origin, fingerprints=others)}
    changed(folder / "two", **values)
    _, _, error = vggc_here("compare", "one", "two")
    assert doubt in error
    assert doubt in read(folder / "comparison.html").text


def test_runs_of_one_name_bear_their_paths(folder: Path) -> None:
    (folder / "other").mkdir()
    shutil.copytree(folder / "two", folder / "other" / "one")
    found = compare([Path("one"), Path("other/one")])
    assert [course.name for course in found.courses] == ["one", "other/one"]


def test_a_comparison_is_replaced_and_nothing_else(folder: Path, vggc_here: Here) -> None:
    assert vggc_here("compare", "one", "two", "-o", "page.html")[0] == 0
    assert vggc_here("compare", "one", "wide", "-o", "page.html")[0] == 0
    assert "wide" in (folder / "page.html").read_text("utf-8")
    vggc_here("report", "one", "--no-errors")
    code, _, error = vggc_here("compare", "one", "two", "-o", "one/report.html")
    assert code == 2
    assert "one/report.html exists already" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one"], "a comparison takes two runs or more"),
        (["one", "./one"], "`one` is named twice"),
        (["one", "images"], "`images` is not the folder of a training run"),
        (["one", "two", "-o", "none/page.html"], "there is no folder none"),
        (["one"] * (MOST + 1), f"{MOST + 1} runs are too many for one page"),
    ],
)
def test_mistakes_are_explained(
    folder: Path, arguments: list[str], words: str, vggc_here: Here
) -> None:
    code, out, error = vggc_here("compare", *arguments)
    assert (code, out) == (2, "")
    assert words in error
    assert not (folder / "comparison.html").exists()


def test_every_run_on_a_page_has_a_look_of_its_own() -> None:
    assert len({look(number) for number in range(MOST)}) == MOST
    style = STYLE.read_text("utf-8")
    for number in range(1, COLOURS + 1):
        assert style.count(f"--run-{number}: #") == 2  # by day and by night
        assert f".curve.run-{number} " in style
