"""`vggc report`: the page of a run, whatever the run has come to."""

from __future__ import annotations

import base64
import gc
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.html_page import Page, assert_stands_alone, read
from tests.support.nets import graph_of
from tests.support.rows import step_row
from tests.support.training_data import RECIPE, TINY, data, learner, module, task, write_images
from vggc.cli import main
from vggc.data.crops import Framed, Framing
from vggc.data.find import find_images
from vggc.ir.weights import save, seeded
from vggc.program import load
from vggc.report.charts import Chart, Curve, axis_across, axis_of_values, figure, thinned
from vggc.report.filters import MOST, drawn, first_filters
from vggc.report.gather import ReportOptions, gather, told
from vggc.report.html import element
from vggc.report.images import thumbnail
from vggc.report.page import STYLE, _classes
from vggc.report.words import duration, percent
from vggc.support.diagnostics import UserError
from vggc.training.checkpoint import snapshot
from vggc.training.judgement import Judgement, judge, worst
from vggc.training.metrics import read_metrics
from vggc.training.progress import EpochSums, Progress
from vggc.training.run import BEST, Run, write_run
from vggc.training.session import begin, follow
from vggc.training.steps import StepTable
from vggc_runtime.json_file import read_json
from vggc_runtime.preprocessing import Preprocessing

Here = Callable[..., tuple[object, str, str]]

CLASSES = ("\"&amp; x='", "<img src=x onerror=alert(1)>", "red\u202e")
"""Folders may be called so."""


# Runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs beside its images, whose net is bad at them."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.vgg").write_text(TINY)
    write_images(folder / "images", CLASSES, 10)
    arguments = ["train", folder / "tiny.vgg", "--data", folder / "images", "--out", folder / "run"]
    before = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vggc", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    gc.set_threshold(*before)
    assert end.value.code == 0
    graph = load(str(folder / "run" / "net.vgg")).graph
    save(folder / "run" / "weights.safetensors", seeded(graph, 1))
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, whose images are the same."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def changed(run: Path, **values: object) -> None:
    """Writes other values into the run's record."""
    loaded = Run.load(run)
    write_run(run, replace(loaded.record, **values))  # type: ignore[arg-type]


def with_epochs(run: Path, count: int) -> None:
    """Repeats the run's last epoch in its table."""
    head, *_, last = (run / "metrics.csv").read_text().splitlines()
    rest = last.partition(",")[2]
    rows = [f"{number},{rest}" for number in range(1, count + 1)]
    (run / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")


def test_the_page_is_well_formed_and_takes_nothing_from_elsewhere(
    run: Path, vggc_here: Here
) -> None:
    assert vggc_here("report", run)[0] == 0
    page = assert_stands_alone(run / "report.html")
    assert STYLE.read_text("utf-8") in page.texts
    assert not set("<&") & set(STYLE.read_text("utf-8"))


def test_hostile_names_of_classes_are_shown_as_they_are(run: Path, vggc_here: Here) -> None:
    assert vggc_here("report", run)[0] == 0
    page = read(run / "report.html")
    for name in CLASSES[:2]:
        assert name in page.texts
    assert "red\ufffd" in page.texts
    assert "\u202e" not in (run / "report.html").read_text("utf-8")
    assert all(a["src"].startswith("data:") for tag, a in page.elements if tag == "img")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<b>&", "a&lt;b&gt;&amp;"),
        ("a\x1b[2J\ud800b", "a�[2J�b"),
        ("a\nb", "a\nb"),
    ],
)
def test_texts_and_attributes_are_escaped(text: str, shown: str) -> None:
    assert str(element("b", text, title=text)) == f'<b title="{shown}">{shown}</b>'
    assert str(element("b", title="\"'")) == '<b title="&quot;&#x27;"></b>'


ALL = ["course", "errors", "classes", "filters", "recipe", "net", "facts"]


def test_a_finished_run_has_every_section(run: Path, vggc_here: Here) -> None:
    code, out, error = vggc_here("report", run)
    assert (code, error) == (0, "")
    assert out.startswith(f"{run}/report.html: tiny, 0.0")
    page = read(run / "report.html")
    assert page.sections == ALL
    assert "finished after 3 epochs" in page.texts
    assert page.with_class("notice") == []
    assert len(page.with_class("chart")) == 4
    last = read_metrics(run)[-1]
    assert percent(last.val_top1) in page.texts
    assert percent(last.val_top5) in page.texts
    for fact in ("24", "6", "3×8×8", "float32", str(run.parent / "run")):
        assert fact in page.texts, fact
    for layer in ("conv1_1", "pool1", "fc2", "dropout1", "fc3", "softmax1"):
        assert layer in page.texts


def test_the_recipe_is_marked_where_it_departs_from_the_defaults(
    run: Path, vggc_here: Here
) -> None:
    findings = gather(run, ReportOptions(errors=False))
    departing = {s.key: (s.default, s.value) for s in findings.settings if s.default is not None}
    assert departing["batch"] == ("256", "4")
    assert departing["epochs"] == ("74", "3")
    assert departing["sgd.lr"] == ("0.01", "0.05")
    assert departing["schedule"] == ("plateau", "constant")
    assert "sgd.momentum" not in departing
    assert "sgd.momentum" in {setting.key for setting in findings.settings}
    assert vggc_here("report", run, "--no-errors")[0] == 0
    assert len(read(run / "report.html").with_class("departs")) == len(departing)


def test_the_facts_say_how_many_images_were_left_out_and_where_they_are_named(
    run: Path, vggc_here: Here
) -> None:
    data = Run.load(run).record.data
    changed(run, data=replace(data, skipped=1234))
    for text in ("1,234", "1,234; skipped.csv in the run's folder names them"):
        assert vggc_here("report", run, "--no-errors")[0] == 0
        page = (run / "report.html").read_text("utf-8")
        assert f'<th scope="row">left out</th><td class="name">{text}</td>' in page
        (run / "skipped.csv").write_text("part,name,reason\n")


def test_without_errors_the_page_says_so(run: Path, vggc_here: Here) -> None:
    assert vggc_here("report", run, "--no-errors")[0] == 0
    page = read(run / "report.html")
    assert page.sections == [section for section in ALL if section != "classes"]
    assert "without looking for them" in page.text
    assert page.with_class("guess") == []


@pytest.mark.parametrize("flag", ["--data", "--val", "--device"])
def test_what_is_about_errors_goes_with_no_other_page(
    run: Path, vggc_here: Here, flag: str
) -> None:
    code, _, error = vggc_here("report", run, "--no-errors", flag, "cpu")
    assert code == 2
    assert f"{flag} is about errors" in error
    assert not (run / "report.html").exists()


def test_where_the_images_are_gone_the_page_says_so(run: Path, vggc_here: Here) -> None:
    record = Run.load(run).record
    changed(run, data=replace(record.data, path=str(run.parent / "gone")))
    code, _, error = vggc_here("report", run)
    assert code == 0
    assert "No errors are shown." in error
    page = read(run / "report.html")
    assert page.sections == [section for section in ALL if section != "classes"]
    assert "are not where they were" in page.text
    assert vggc_here("report", run, "--data", record.data.path)[0] == 0
    assert read(run / "report.html").sections == ALL


def test_other_images_than_the_runs_are_none(run: Path, tmp_path: Path, vggc_here: Here) -> None:
    write_images(tmp_path / "others", CLASSES, 9)
    code, _, error = vggc_here("report", run, "--data", tmp_path / "others")
    assert code == 2
    assert "the held-out images have other names or classes now" in error
    assert not (run / "report.html").exists()
    record = Run.load(run).record
    changed(run, data=replace(record.data, path=str(tmp_path / "others")))
    assert vggc_here("report", run)[0] == 0
    assert "cannot be told any more" in read(run / "report.html").text
    code, _, error = vggc_here("report", run, "--val", tmp_path / "others")
    assert code == 2
    assert "--data" in error


def test_a_run_without_any_epoch_has_what_there_is(run: Path, vggc_here: Here) -> None:
    (run / "metrics.csv").unlink()
    (run / "weights.safetensors").unlink()
    changed(run, state="running", metrics=None)
    assert vggc_here("report", run)[0] == 0
    page = read(run / "report.html")
    assert page.sections == ["errors", "recipe", "net", "facts"]
    assert "still going: 0 of 3 epochs" in page.texts
    assert "No epoch has ended yet" in page.text
    assert "has no weights yet" in page.text
    assert page.with_class("tiles") == []


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("stopped", "the loss <became> nan", "The training stopped: the loss <became> nan."),
        ("interrupted", None, "vggc train --resume"),
        ("running", None, "how far the training had come"),
    ],
)
def test_a_run_that_has_not_finished_says_why(
    run: Path, vggc_here: Here, state: str, reason: str | None, words: str
) -> None:
    changed(run, state=state, reason=reason)
    assert vggc_here("report", run)[0] == 0
    page = read(run / "report.html")
    assert page.sections == ALL
    assert len(page.with_class("notice")) == 1
    assert words in page.text


def test_a_run_that_goes_on_is_judged_by_the_weights_that_it_saved_last(tmp_path: Path) -> None:
    (tmp_path / "tiny.vgg").write_text(TINY)
    program = load(str(tmp_path / "tiny.vgg"))
    moving = learner(net=program.logits_module())
    run = begin(task(), None, tmp_path / "run", datetime(2026, 1, 2, 3, 4, 5))
    assert gather(run.folder, ReportOptions(errors=False)).weights_from is None
    for steps in (3, 7):
        follow(run, snapshot(moving, Progress(sums=EpochSums(steps=steps))), "top-1")
        findings = gather(run.folder, ReportOptions(errors=False))
        assert findings.weights_from == f"the weights after epoch 0, step {steps}"
    assert findings.filters is not None
    trained = moving.module.state_dict()["conv1_1.weight"].numpy()
    assert (findings.filters.tiles == drawn("conv1_1.weight", trained).tiles).all()
    with pytest.raises(UserError, match="has no best weights"):
        gather(run.folder, ReportOptions(errors=False, weights=BEST))


def test_averaged_weights_are_those_that_are_shown(tmp_path: Path) -> None:
    (tmp_path / "tiny.vgg").write_text(TINY)
    program = load(str(tmp_path / "tiny.vgg"))
    moving = learner(replace(RECIPE, ema=0.9), program.logits_module())
    assert moving.average is not None
    with torch.no_grad():
        moving.average.state_dict()["conv1_1.weight"][:] += torch.randn(4, 3, 3, 3)
    run = begin(task(), None, tmp_path / "run", datetime(2026, 1, 2, 3, 4, 5))
    follow(run, snapshot(moving, Progress()), "top-1")
    findings = gather(run.folder, ReportOptions(errors=False))
    assert findings.filters is not None
    averaged = moving.average.state_dict()["conv1_1.weight"].numpy()
    assert (findings.filters.tiles == drawn("conv1_1.weight", averaged).tiles).all()


# What stands in the page's place


def test_a_report_of_the_same_run_is_replaced_and_nothing_else(
    run: Path, tmp_path: Path, vggc_here: Here
) -> None:
    out = run / "report.html"
    assert vggc_here("report", run)[0] == 0
    out.write_text(out.read_text() + "<!-- old -->")
    assert vggc_here("report", run)[0] == 0
    assert "<!-- old -->" not in out.read_text()

    other = Path(shutil.copytree(run, tmp_path / "other"))
    changed(other, seed=7)
    for taken in (run / "net.vgg", out, run):
        before = taken.read_bytes() if taken.is_file() else None
        code, printed, error = vggc_here("report", other, "-o", taken)
        assert (code, printed) == (2, "")
        assert f"{taken} exists already" in error
        assert before is None or taken.read_bytes() == before


def test_a_page_goes_where_it_is_wished(run: Path, tmp_path: Path, vggc_here: Here) -> None:
    out = tmp_path / "page.html"
    assert vggc_here("report", run, "--no-errors", "-o", out)[0] == 0
    assert read(out).sections
    assert not (run / "report.html").exists()
    code, _, error = vggc_here("report", run, "--no-errors", "-o", tmp_path / "none" / "page.html")
    assert code == 2
    assert f"there is no folder {tmp_path}/none" in error


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda run: shutil.rmtree(run), "run.json: No such file or directory"),
        (lambda run: (run / "run.json").write_text("{"), "run.json is not JSON"),
        (lambda run: (run / "net.vgg").unlink(), "no such file"),
        (lambda run: (run / "net.vgg").write_text("net a input 3x8x8 fc-9"), "net.vgg is not the"),
        (lambda run: (run / "metrics.csv").write_text("?"), "metrics.csv: line 1 is not epoch,"),
        (lambda run: (run / "metrics.csv").write_bytes(b"\xff"), "metrics.csv: not UTF-8"),
        (lambda run: (run / "weights.safetensors").write_bytes(b"?"), "cannot read the weights"),
    ],
)
def test_what_is_no_run_is_a_mistake_and_nothing_is_written(
    run: Path, vggc_here: Here, broken: Callable[[Path], object], words: str
) -> None:
    broken(run)
    code, out, error = vggc_here("report", run)
    assert (code, out) == (2, "")
    assert words in error
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2,20,0.1,1,1,1,1,1,9,1", "line 2 is epoch 2, not 1"),
        ("1,20,nan,1,1,1,1,1,9,1", "line 2: lr is not finite"),
        ("1,20,0.1,1,1,1,1,1,9", "line 2: "),
        ("1,20,1e308,1,1,1,1,1,9,1", "line 2 holds a number that is out of range"),
        ("one,20,0.1,1,1,1,1,1,9,1", "line 2: invalid literal"),
    ],
)
def test_a_table_that_is_not_sound_is_refused_with_its_line(
    run: Path, row: str, words: str
) -> None:
    head = (run / "metrics.csv").read_text().splitlines()[0]
    (run / "metrics.csv").write_text(f"{head}\n{row}\n")
    with pytest.raises(UserError, match=re.escape(words)):
        read_metrics(run)


def test_json_tells_what_was_written(run: Path, vggc_here: Here) -> None:
    code, out, error = vggc_here("report", run, "--json")
    assert (code, error) == (0, "")
    result = json.loads(out)
    page = run / "report.html"
    assert (result["report"], result["bytes"]) == (str(page), page.stat().st_size)
    assert (result["state"], result["epochs"]) == ("finished", 3)
    assert result["val_top1"] == read_json(run / "run.json")["metrics"]["val_top1"]
    assert result["errors_shown"] == len(read(page).with_class("guess")) / 2
    assert result["errors_missing"] is None


# Curves


def points(page: Page) -> list[int]:
    """How many points each curve of the course has."""
    lines = [a for tag, a in page.elements if tag == "polyline"]
    return [len(line["points"].split()) for line in lines]


@pytest.mark.parametrize("epochs", [2, 41, 74, 300])
def test_each_curve_has_as_many_points_as_epochs(run: Path, vggc_here: Here, epochs: int) -> None:
    with_epochs(run, epochs)
    assert vggc_here("report", run, "--no-errors")[0] == 0
    page = read(run / "report.html")
    assert points(page) == [epochs] * 7
    assert len(page.with_class("dot")) == (7 * epochs if epochs <= 40 else 0)
    assert len(page.with_class("spot")) == (7 * epochs if 40 < epochs <= 250 else 0)


def test_a_single_epoch_is_shown_by_its_steps(run: Path, vggc_here: Here) -> None:
    with_epochs(run, 1)
    with StepTable(run, 0, print) as table:
        for number in range(1, 31):
            table.add(step_row(number, 1, 0.1, 2 - number / 20, number / 40, 10.0))
    assert vggc_here("report", run, "--no-errors")[0] == 0
    page = read(run / "report.html")
    assert points(page) == [30] * 4
    assert "Top-1 accuracy, % over 30 steps: training from 2.5 to 75.0" in (
        run / "report.html"
    ).read_text("utf-8")


def test_the_page_of_a_very_long_run_is_of_bounded_size(run: Path, vggc_here: Here) -> None:
    with_epochs(run, 20_000)
    assert vggc_here("report", run, "--no-errors")[0] == 0
    assert (run / "report.html").stat().st_size < 500_000
    assert max(points(read(run / "report.html"))) <= 2002


def test_what_is_thinned_out_keeps_the_extremes_and_the_ends() -> None:
    values = np.random.default_rng(0).standard_normal(31_337)
    kept = thinned(values.tolist())
    assert kept == sorted(set(kept))
    assert {0, int(values.argmin()), int(values.argmax()), len(values) - 1} <= set(kept)
    assert 2 < len(kept) <= 2002
    assert thinned([1.0, 2.0, 3.0]) == [0, 1, 2]


def chart(values: list[float], **bounds: float | bool) -> Chart:
    return Chart("Title", 1, (Curve("it", "plain", tuple(values)),), str, **bounds)  # type: ignore[arg-type]


SOME = st.floats(-1e30, 1e30) | st.floats(0, 1e-6) | st.sampled_from([0.0, 5e-324, 1.0, 1e9])


@given(st.lists(SOME, min_size=1, max_size=30), st.booleans(), st.booleans())
def test_an_axis_holds_all_values_between_round_ones(
    values: list[float], from_zero: bool, by_decades: bool
) -> None:
    axis = axis_of_values(
        chart(values, **({"low": 0.0} if from_zero else {}), by_decades=by_decades)
    )
    assert 2 <= len(axis.ticks) <= 8
    assert list(axis.ticks) == sorted(set(axis.ticks))
    bottom, top = axis.start, axis.end
    slack = 1e-6 * abs(bottom - top)
    for value in (*values, *axis.ticks):
        assert top - slack <= axis.place(value) <= bottom + slack


@given(st.integers(1, 100_000))
def test_the_axis_across_names_the_last_and_few_others(count: int) -> None:
    axis = axis_across(1, count)
    assert axis.ticks[-1] == count
    assert len(axis.ticks) <= 10
    places = [axis.place(tick) for tick in axis.ticks]
    assert all(b - a > 20 for a, b in pairwise(places))


def test_a_curve_goes_where_its_values_say() -> None:
    drawn_ = str(figure(chart([0.0, 100.0, 50.0], low=0.0, high=100.0)))
    (line,) = re.findall(r'points="([^"]+)"', drawn_)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.split())
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 > y2 > y1
    assert y2 == pytest.approx((y0 + y1) / 2)
    assert "<title>epoch 3, it: 50.0</title>" in drawn_
    assert 'aria-label="Title over 3 epochs: it from 0.0 to 50.0"' in drawn_


def test_rates_that_fall_by_decades_are_drawn_by_decades() -> None:
    axis = axis_of_values(chart([0.01, 0.001, 1e-4], by_decades=True))
    assert axis.ticks == pytest.approx([1e-4, 1e-3, 1e-2])
    assert axis.place(1e-3) == pytest.approx((axis.start + axis.end) / 2)
    assert axis_of_values(chart([0.01, 0.01], by_decades=True)).by_decades is False


# Filters


def test_the_picture_has_a_tile_for_each_filter(run: Path, vggc_here: Here) -> None:
    assert vggc_here("report", run, "--no-errors")[0] == 0
    (picture,) = read(run / "report.html").with_class("filters")
    image = decoded(picture["src"])
    opaque = np.asarray(image)[:, :, 3] > 0
    # Four filters beside one another: between them the page shows.
    edges = np.flatnonzero(np.diff(opaque[0].astype(int)))
    assert len(edges) == 2 * 3
    assert image.size == (int(picture["width"]), int(picture["height"]))


@pytest.mark.parametrize(
    ("shape", "columns", "rows"),
    [((5, 3, 3, 3), 5, 1), ((64, 3, 3, 3), 8, 8), ((96, 3, 11, 11), 16, 6), ((7, 1, 7, 5), 7, 1)],
)
def test_tiles_stand_row_by_row(shape: tuple[int, ...], columns: int, rows: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = drawn("conv1.weight", weight)
    count, height, width, channels = found.tiles.shape
    assert (count, channels, found.total, found.layer) == (*shape[:2], shape[0], "conv1")
    assert found.sheet.shape == (rows * (height + 6) - 6, columns * (width + 6) - 6, 4)
    assert (found.sheet[:, :, 3] > 0).sum() == count * height * width


def test_each_filter_runs_from_black_to_white_and_weights_are_squares() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    weight *= np.logspace(-6, 6, 6, dtype=np.float32)[:, None, None, None]
    weight[5] = 7
    tiles = drawn("c.weight", weight).tiles
    assert (tiles[:5].min((1, 2, 3)) == 0).all()
    assert (tiles[:5].max((1, 2, 3)) == 255).all()
    assert (tiles[5] == 128).all()
    square = tiles[0].reshape(3, 16, 3, 16, 3)
    assert (square == square[:, :1, :, :1]).all()
    one = weight[0].astype(np.float64)
    wanted = np.rint(255 * (one - one.min()) / (one.max() - one.min())).transpose(1, 2, 0)
    assert (square[:, 0, :, 0] == wanted).all()


def test_only_so_many_filters_are_shown() -> None:
    found = drawn("c.weight", np.zeros((MOST + 1, 1, 1, 200), np.float32))
    assert (len(found.tiles), found.total) == (MOST, MOST + 1)
    assert found.tiles.shape[2] <= 64


@pytest.mark.parametrize(
    ("body", "input_", "name"),
    [
        ("conv3-4 | fc-3", "3x8x8", "conv1_1.weight"),
        ("conv3-4 | fc-3", "1x8x8", "conv1_1.weight"),
        ("conv3-4 | fc-3", "4x8x8", None),
        ("fc-3", "3x8x8", None),
        ("pool | conv3-4 | fc-3", "3x8x8", None),
        ("conv3-3 groups=3 | fc-3", "3x8x8", None),
        ("concat(conv3-4, conv3-5) | fc-3", "3x8x8", None),
    ],
)
def test_filters_are_those_of_a_convolution_that_reads_images(
    body: str, input_: str, name: str | None
) -> None:
    assert first_filters(graph_of(body, input_)) == name


def test_a_net_without_such_a_layer_has_no_section_of_filters(run: Path, vggc_here: Here) -> None:
    (run / "net.vgg").write_text("net tiny input 3x8x8 fc-3 | softmax")
    save(run / "weights.safetensors", seeded(load(str(run / "net.vgg")).graph, 0))
    assert vggc_here("report", run)[0] == 0
    assert read(run / "report.html").sections == [s for s in ALL if s != "filters"]


# Errors

PREPROCESSING = Preprocessing((8, 8), None, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
CPU = torch.device("cpu")


def judged(batch: int) -> tuple[Judgement, Framed, torch.nn.Module]:
    torch.manual_seed(1)
    net, held_out = module(), data(count=7).val
    found = judge(net, held_out, PREPROCESSING, CPU, batch).classes
    assert found
    return found, held_out, net


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_each_image_is_judged_as_by_hand(batch: int) -> None:
    found, held_out, net = judged(batch)
    pixels = held_out.part.fetch(np.arange(len(held_out)))
    assert len(found.labels) == len(pixels) == 6
    assert found.indices.tolist() == list(range(6))
    net.eval()
    for index, picture in enumerate(pixels):
        input_ = torch.from_numpy(PREPROCESSING.normalise(np.asarray(picture)[None]))
        with torch.no_grad():
            chances = net(input_)[0].double().softmax(0)
        label, guess = int(held_out.part.labels[index]), int(chances.argmax())
        assert (found.labels[index], found.guesses[index]) == (label, guess)
        assert found.losses[index] == pytest.approx(-math.log(chances[label]), rel=1e-5)
        assert found.sure[index] == pytest.approx(float(chances[guess]), rel=1e-5)
        assert found.right[index] == pytest.approx(float(chances[label]), rel=1e-5)


def test_the_worst_errors_are_those_of_the_largest_loss() -> None:
    found, held_out, _ = judged(4)
    by_hand = sorted(
        (
            (-found.losses[i], i)
            for i in range(len(held_out))
            if found.guesses[i] != found.labels[i]
        ),
    )
    assert len(by_hand) >= 3
    errors = worst(found, held_out, 3)
    assert [error.name for error in errors] == [held_out.part.name(i) for _, i in by_hand[:3]]
    for error, (loss, i) in zip(errors, by_hand, strict=False):
        assert error.loss == -loss
        assert (error.pixels == held_out.part.fetch(np.array([i]))[0]).all()
        assert error.label != error.guess
    assert len(worst(found, held_out, 100)) == len(by_hand)


def test_images_that_cannot_be_read_any_more_are_left_out_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b"), 10)
    part = find_images(tmp_path, 0).val
    assert len(part) == 4
    (tmp_path / part.name(1)).write_text("?")
    held_out = Framed(part, Framing((3, 8, 8), None, draft=False))
    torch.manual_seed(0)
    found = judge(module(), held_out, PREPROCESSING, CPU, 3).classes
    assert found
    assert found.indices.tolist() == [0, 2, 3]
    assert found.labels.tolist() == part.labels[[0, 2, 3]].tolist()
    names = {error.name for error in worst(found, held_out, 9)}
    assert names == {part.name(int(found.indices[row])) for row in found.errors}


def judgement(labels: list[int], guesses: list[int]) -> Judgement:
    count = len(labels)
    chances = np.full(count, 0.5)
    return Judgement(
        np.arange(count), np.array(labels), np.array(guesses), chances, chances, chances
    )


def test_classes_are_held_against_each_other_by_hand() -> None:
    found = told(judgement([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2]), (), "abc", 4)
    assert found.confusion == ((1, 2, 0), (1, 1, 0), (0, 0, 1))
    assert [(s.name, s.images, s.right, s.taken_for) for s in found.scores] == [
        ("a", 3, 1, "b"),
        ("b", 2, 1, "a"),
        ("c", 1, 1, None),
    ]
    assert (found.images, found.num_wrong, found.unreadable) == (6, 3, 4)


def test_of_many_classes_the_worst_are_told() -> None:
    names = tuple(f"class {number}" for number in range(30))
    labels = [label for label in range(30) for _ in range(10)]
    # Class c has c // 3 right ones; all others are taken for the next class.
    guesses = [
        label if turn < label // 3 else (label + 1) % 30
        for label in range(30)
        for turn in range(10)
    ]
    found = told(judgement(labels, guesses), (), names, 0)
    assert found.confusion is None
    assert [score.right for score in found.scores] == [label // 3 for label in range(30)]
    page = Page()
    page.feed("".join(map(str, _classes(found))))
    rows = [tag for tag, _ in page.elements].count("tr")
    assert rows == 1 + 20
    assert "class 0" in page.texts
    assert "class 19" in page.texts
    assert "class 29" not in page.texts


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.mark.parametrize(
    ("shape", "kind", "size", "mode"),
    [
        ((8, 8, 3), "PNG", (8, 8), "RGB"),
        ((64, 32, 1), "PNG", (32, 64), "L"),
        ((65, 65, 1), "JPEG", (65, 65), "L"),
        ((512, 1024, 3), "JPEG", (256, 128), "RGB"),
    ],
)
def test_pictures_are_exact_where_small_and_small_where_large(
    shape: tuple[int, ...], kind: str, size: tuple[int, int], mode: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    address = thumbnail(pixels)
    image = decoded(address)
    assert (image.format, image.size, image.mode) == (kind, size, mode)
    assert len(address) < 150_000
    if kind == "PNG":
        assert (np.asarray(image) == pixels.squeeze()).all()


# Words


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100.0%"), (0.99999, "> 99.9%"), (0.5, "50.0%"), (1e-9, "< 0.1%"), (0.0, "0.0%")],
)
def test_what_is_not_all_is_not_said_to_be(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (5.64, "5.64 s"), (59.99, "60 s"), (61, "1 min 1 s"), (7325, "2 h 2 min"),
     (273_600, "3 d 4 h")],
)  # fmt: skip
def test_times_are_told_in_their_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
