"""`vggc eval --localise`: what is told of a test of boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.annotated import put, voc_xml

NET = """\
net both
input 3x16x16
  conv3-4 | pool | fc-8
head what: fc-2 | softmax
head where: boxes-2
train { batch 4; epochs 1; sgd lr=0.01; constant; init he }
"""
Here = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vggc_here: Here) -> Path:
    """A run of a net that tells classes and gives boxes, in a folder with its pictures."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for index in range(10):
        path = tmp_path / f"set/JPEGImages/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save(path)
        name = ("cat", "dog")[index % 2]
        text = voc_xml([(name, (2, 2, 20, 18))], (30, 20))
        put(tmp_path / f"set/Annotations/{index}.xml", text)
    (tmp_path / "both.vgg").write_text(NET)
    code, _, err = vggc_here(
        "train", "both.vgg", "--data", "set", "--device", "cpu", "--out", "run"
    )
    assert code == 0, err
    return tmp_path / "run"


def test_boxes_are_tested_by_both_protocols_of_the_paper(run: Path, vggc_here: Here) -> None:
    code, out, err = vggc_here("eval", "--localise", "run", "--json")
    assert code == 0, err
    told = json.loads(out)
    (only,) = told["runs"]
    assert (told["pictures"], told["classifiers"], told["united"]) == (2, ["run"], None)
    for protocol in ("centre", "dense"):
        errors = only[protocol]
        assert 0 <= errors["top5_error"] <= errors["top1_error"] <= 1
        assert 0 <= errors["mean_iou"] <= 1


def test_the_centre_crop_gives_what_training_measured(run: Path, vggc_here: Here) -> None:
    _, out, _ = vggc_here("eval", "--localise", "run", "--protocol", "centre", "--json")
    record = json.loads((run / "run.json").read_text())
    measured = json.loads(out)["runs"][0]["centre"]
    assert measured["mean_iou"] == pytest.approx(record["metrics"]["val_iou"], abs=1e-5)
    assert 1 - measured["top1_error"] == pytest.approx(record["metrics"]["val_iou50"])


def test_the_table_has_a_row_for_each_run_and_protocol(run: Path, vggc_here: Here) -> None:
    code, out, err = vggc_here("eval", "--localise", "run", "run", "--scales", "16,24")
    assert code == 0, err
    rows = [line for line in out.splitlines() if "centre crop" in line or "dense" in line]
    assert len(rows) == 6
    assert sum(row.lstrip().startswith("all") for row in rows) == 2
    assert any("16, 24" in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--classifier", "run"), "--classifier and --offsets are of `--localise`"),
        (("run", "--offsets"), "--classifier and --offsets are of `--localise`"),
        (("run", "--localise", "--protocol", "both"), "`--protocol` is centre or dense"),
        (("run", "--localise", "--confusion", "c.csv"), "--confusion cannot be had"),
        (("run", "--localise", "--grid", "3x3"), "--grid cannot be had"),
    ],
)
def test_options_of_the_other_kind_of_test_are_refused(
    run: Path, vggc_here: Here, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = vggc_here("eval", *arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert not Path("c.csv").exists()


def test_pictures_without_boxes_are_refused(run: Path, vggc_here: Here) -> None:
    for name in ("cat", "dog"):
        put(Path(f"plain/{name}/0.png"))
    code, _, err = vggc_here("eval", "--localise", "run", "--data", "plain")
    assert code == 2
    assert "plain" in err


def test_a_net_without_classes_is_tested_by_its_boxes_alone(run: Path, vggc_here: Here) -> None:
    Path("scr.vgg").write_text(NET[: NET.index("head")].replace("net both", "net scr") + "| boxes")
    assert (
        vggc_here(
            "train", "scr.vgg", "--data", "set", "--epochs", "1", "--batch", "4", "--out", "scr"
        )[0]
        == 0
    )
    code, _, err = vggc_here("eval", "scr")
    assert code == 2
    assert "tells no classes" in err
    assert "vggc eval --localise scr" in err
    code, out, err = vggc_here("eval", "--localise", "scr", "--classifier", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["classifiers"] == ["run"]
