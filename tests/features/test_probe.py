"""`vggc probe`: what a linear classifier makes of features, and of which pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vggc.features.probe import ProbeOptions, probe, together
from vggc.features.read import Features, read_features
from vggc.features.splits import SplitOptions, splits_of
from vggc.support.diagnostics import UserError

Here = Callable[..., tuple[object, str, str]]

ONE_C = ProbeOptions(grid=(1.0,))


def save(path: Path, parts: object = ("",), per_class: int = 20, **more: object) -> Path:
    """Features of three classes that a line parts, in each part."""
    count = 3 * per_class * len(parts) if isinstance(parts, tuple) else len(parts)
    labels = np.resize(np.repeat(np.arange(3), per_class), count)
    noise = np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32) * 0.2
    noise[np.arange(count), labels] += 1
    arrays = {
        "features": noise,
        "labels": labels,
        "parts": parts if isinstance(parts, np.ndarray) else np.repeat(parts, 3 * per_class),
        "names": np.array([f"{i}.png" for i in range(count)]),
        "classes": np.array(["a", "b", "c"]),
    }
    np.savez(path, **{name: v for name, v in (arrays | more).items() if v is not None})
    return path


def found(path: Path, **more: object) -> Features:
    return read_features(save(path, **more))


def ignore(done: int, total: int) -> None:
    """Nobody looks on."""


# Splits


def test_the_parts_of_a_place_are_its_split(tmp_path: Path) -> None:
    """What is neither tested on is trained on: VOC's `train` and `val` together."""
    (split,) = splits_of(found(tmp_path / "f.npz", parts=("train", "val", "test")), SplitOptions())
    assert split.train.tolist() == [*range(120)]
    assert split.test.tolist() == [*range(120, 180)]
    (split,) = splits_of(found(tmp_path / "g.npz", parts=("train", "val")), SplitOptions())
    assert split.test.tolist() == [*range(60, 120)]


def test_without_parts_a_fifth_of_each_class_is_tested_on(tmp_path: Path) -> None:
    features = found(tmp_path / "f.npz")
    splits = splits_of(features, SplitOptions(splits=2))
    for each in splits:
        assert sorted([*each.train, *each.test]) == [*range(60)]
        assert np.bincount(features.labels[each.test]).tolist() == [4, 4, 4]
    assert splits[0].test.tolist() != splits[1].test.tolist()


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_so_many_of_a_class_are_drawn_as_the_paper_did(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    features = found(tmp_path / "f.npz", parts=parts)
    options = SplitOptions(splits=3, train_per_class=5, test_per_class=7, seed=1)
    for each in splits_of(features, options):
        assert np.bincount(features.labels[each.train]).tolist() == [5, 5, 5]
        assert np.bincount(features.labels[each.test]).tolist() == [7, 7, 7]
        assert not {*each.train} & {*each.test}
        if len(parts) > 1:
            assert each.train.max() < 60 <= each.test.min()
    assert [*splits_of(features, options)[2].train] == [*splits_of(features, options)[2].train]


# Scores


def test_what_a_line_parts_is_found_and_c_is_chosen_by_folds(tmp_path: Path) -> None:
    features = found(tmp_path / "f.npz")
    steps: list[tuple[int, int]] = []
    result = probe(
        features,
        ProbeOptions((0.01, 1.0), 4, SplitOptions(splits=2)),
        lambda *step: steps.append(step),
    )
    assert result.mean("accuracy") > 0.9
    assert {*result.splits[0].by_c} == {0.01, 1.0}
    assert result.splits[0].c in (0.01, 1.0)
    assert steps == [(done, 18) for done in range(19)]


def test_the_mean_over_classes_counts_each_class_the_same(tmp_path: Path) -> None:
    """Of class c, a tenth of the others, nothing is found: its features are those of a."""
    labels = np.repeat([0, 1, 2], [10, 10, 1])
    values = np.eye(3, dtype=np.float32)[[0] * 10 + [1] * 10 + [0]]
    path = save(
        tmp_path / "f.npz",
        features=np.tile(values, (2, 1)),
        labels=np.tile(labels, 2),
        parts=np.repeat(["train", "test"], 21),
        names=None,
    )
    (split,) = probe(read_features(path), ONE_C, ignore).splits
    assert split.scores["accuracy"] == pytest.approx(20 / 21)
    assert split.scores["mean_accuracy"] == pytest.approx(2 / 3)


def test_pictures_of_several_classes_have_mean_average_precisions(tmp_path: Path) -> None:
    """Difficult ones count neither way: they are wrong here, and do not show."""
    shown = np.tile([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, -1]], (10, 1)).astype(np.int8)
    values = np.maximum(shown, 0).astype(np.float32)
    values[shown[:, 2] < 0, 2] = 1
    parts = np.repeat(["train", "test"], 20)
    more = {"features": values, "parts": parts, "names": None, "multilabels": shown}
    features = read_features(save(tmp_path / "f.npz", labels=None, **more))
    (split,) = probe(features, ProbeOptions((1.0, 10.0), 3), ignore).splits
    assert split.scores == {"map_eleven": 1.0, "map_area": 1.0}


def test_features_of_two_nets_stand_behind_one_another(tmp_path: Path) -> None:
    first = found(tmp_path / "f.npz")
    second = found(tmp_path / "g.npz", features=np.ones((60, 2), np.float32))
    both = together([first, second])
    assert both.values.shape == (60, 7)
    assert (both.values[:, :5] == first.values).all()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"per_class": 19}, "60 pictures in one, 57 in the other"),
        ({"names": np.array([f"{i}.jpg" for i in range(60)])}, "the name of picture 1 is '0.png'"),
        ({"labels": np.repeat([0, 2, 1], 20)}, "the class of picture 21 is 1 in one, 2 in"),
        ({"classes": np.array(["a", "b", "d"])}, "3 classes in one, 3 others in the other"),
        ({"parts": ("train",)}, "the part of picture 1 is '' in one, 'train' in the other"),
    ],
)
def test_features_of_other_pictures_are_no_partner(
    tmp_path: Path, more: dict[str, object], reason: str
) -> None:
    with pytest.raises(UserError) as error:
        together([found(tmp_path / "f.npz"), found(tmp_path / "g.npz", **more)])
    assert reason in str(error.value)


# The command


def test_the_command_tells_scores_and_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vggc_here: Here
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("f.npz"))
    code, out, error = vggc_here("probe", "f.npz", "--c", "0.1,1", "--splits", "2")
    assert code == 0, error
    assert "mean over classes, %" in out
    assert "C by 5 folds of the images to train on, split 1: 0.1 " in out
    assert " ± " in out
    code, out, _ = vggc_here("probe", "f.npz", "f.npz", "--c", "1", "--json")
    record = json.loads(out)
    assert (record["width"], record["grid"], record["folds"]) == (10, [1.0], None)
    assert record["accuracy"] == record["splits"][0]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("more", "arguments", "reason"),
    [
        ({}, ("--train-per-class", "20"), "has too few pictures of `a`"),
        ({"per_class": 4}, ("--folds", "5"), "3 of `a`, and C is chosen in 5 folds"),
        ({"parts": ("test",)}, (), "no pictures in `f.npz` to train on"),
        ({"parts": ("train", "mine")}, (), "no pictures in `f.npz` to test on"),
        ({"multilabels": np.zeros((60, 3), np.int8)}, (), "no class in `f.npz` can be scored"),
        ({"parts": ("train", "test")}, ("--splits", "3"), "3 splits are asked for"),
        ({"labels": np.zeros(60, int)}, (), "all of one class: `a`"),
        ({"features": np.full((60, 2), np.nan, np.float32)}, (), "in its row 0 are not all finite"),
        ({}, ("--c", "0,1"), "C is a number above 0"),
        ({}, ("--c", "x"), "is no list of numbers"),
    ],
)
def test_what_cannot_be_probed_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vggc_here: Here,
    more: dict[str, object],
    arguments: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("f.npz"), **more)
    code, out, error = vggc_here("probe", "f.npz", *arguments)
    assert (code, out) == (2, "")
    assert reason in error
