"""Tables 11 and 12: what they ask for, how they are laid out, and that they can be made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.training_data import found, picture
from vggc.api import reproduce_features
from vggc.api.reproduce_features import averaged, program_of
from vggc.data.parts import Images
from vggc.features.pictures import pictures_at
from vggc.features.read import Features
from vggc.recipe.layer_names import with_weights
from vggc.reproduce import feature_study
from vggc.reproduce.feature_layout import laid
from vggc.reproduce.feature_study import (
    FeatureStudy,
    FeatureStudyRecord,
    LineScore,
    begun,
    halves,
    write_halves,
)
from vggc.reproduce.feature_tables import COLUMNS, FEATURE_TABLES, feature_sets, trained_for
from vggc.support.diagnostics import UserError

Here = Callable[..., tuple[object, str, str]]

FRESH = FeatureStudyRecord(1, "features", "/images", None, 5, 0, {})


def test_each_table_trains_what_its_lines_take_after_what_it_begins_with() -> None:
    for lines in FEATURE_TABLES.values():
        trained = trained_for(feature_sets(lines))
        assert trained == (("D", "known"), ("E", "known"), ("D", "other"))


@pytest.mark.parametrize("column", ["D", "E"])
def test_the_small_nets_see_all_of_an_image_at_every_scale(column: str) -> None:
    """Three pools of two: lengths of eight are parted without a rest."""
    graph = program_of(column).graph
    assert graph.input == (3, 32, 32)
    assert all(scale % 8 == 0 for scale in feature_study.SCALES)
    assert [*with_weights(graph)][-3].startswith("fc")


def test_the_paper_has_numbers_in_the_columns_of_its_tables() -> None:
    for table, lines in FEATURE_TABLES.items():
        assert {name for line in lines for name in line.paper} == {*COLUMNS[table]}


def test_a_table_has_our_numbers_beside_the_papers(tmp_path: Path) -> None:
    study = begun(tmp_path / "x", FRESH)
    lines = FEATURE_TABLES["table11"]
    study = study.with_score(lines[0], LineScore(50, 1, 3072))
    study = study.with_score(lines[3], LineScore(68.25, 0.5, 1536))
    study.save()
    assert begun(tmp_path / "x", FRESH) == study
    text = laid("table11", lines, study, "vggc reproduce table11").markdown()
    assert "| raw pixels | 32 | – | 3,072 | 50.0 ± 1.0 | – | – | – | – |" in text
    assert "| D | 32, 40, 48 | stack | 1,536 | 68.2 ± 0.5 | +18.2 | – | 91.8 | 85.0 |" in text
    assert "| D + E | 32, 40, 48 | average | – | – | – | 89.7 | – | – |" in text


@pytest.mark.parametrize("name", ["data", "seed", "epochs"])
def test_what_was_begun_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    begun(tmp_path / "x", FRESH).save()
    changed = {"data": "/b", "seed": 1, "epochs": 2}
    with pytest.raises(UserError, match="were begun otherwise"):
        begun(tmp_path / "x", replace(FRESH, **{name: changed[name]}))


def test_half_of_the_classes_are_learnt_and_the_others_kept_for_features(tmp_path: Path) -> None:
    three = found(4)
    images = Images("/x", ("a", "b", "c", "d"), three.train, three.val)
    study = FeatureStudy(tmp_path / "x", FRESH)
    write_halves(study, images)
    known, other = (pictures_at(str(study.images(half))) for half in ("known", "other"))
    assert (known.classes, other.classes) == (("a", "b"), ("c", "d"))
    assert [(each.role, len(each.part)) for each in known.parts] == [("train", 8), ("test", 4)]
    assert [(each.role, len(each.part)) for each in other.parts] == [("train", 4), ("test", 2)]
    with pytest.raises(UserError, match="has 3 classes"):
        halves(three)


def test_scales_are_averaged_from_those_that_are_stacked() -> None:
    class Column:
        stop = 2

    class About:
        columns = (Column(),)

    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    blank = Features(Path("f"), values, ("a",), None, None, None, None, About())  # type: ignore[arg-type]
    assert averaged(blank).values.tolist() == [[2, 3], [8, 9]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("table11", "--data", "x"), "is made with `--small` only"),
        (("table11", "--small"), "needs images"),
        (("table12", "--small", "--data", "x", "--nets", "D"), "`--nets` cannot change"),
        (("table12", "--small", "--data", "nosuch"), "there is no folder"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vggc_here: Here,
    arguments: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = vggc_here("reproduce", *arguments)
    assert code == 2
    assert reason in error
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_table_of_features_is_made_and_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vggc_here: Here
) -> None:
    for part, first, count in (("train", 0, 40), ("test", 100, 6)):
        for label, name in enumerate("abcd"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(first, first + count):
                image = Image.fromarray(picture(label, index, 32, 32))
                image.save(tmp_path / "images" / part / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    command = ("reproduce", "table11", "--small", "--data", "images", "--epochs", "1", "--json")
    code, out, error = vggc_here(*command)
    assert code == 0, error
    rows = json.loads(out)["rows"]
    assert len(rows) == len(FEATURE_TABLES["table11"])
    assert all("±" in row["accuracy, %"] for row in rows)
    code, again, error = vggc_here(*command)
    assert (code, again, error) == (0, out, "")


def test_a_plan_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = reproduce_features.ReproduceOptions(data="x", small=True)
    with pytest.raises(UserError, match="is made by one process"):
        reproduce_features.plan("table11", options)
