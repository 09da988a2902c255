"""`vggc find-lr`: at which rates a net learns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from math import log, log10
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_data import TINY, write_images
from vggc.training.rate_search import Sweep, SweepCurve, SweepResult, Tried, rounded

Here = Callable[..., tuple[object, str, str]]

RATES = Sweep(1e-6, 10.0, 141)
"""Twenty steps a decade."""


def curve(loss: Callable[[float], float], noise: float = 0.0) -> SweepCurve:
    """What a sweep over ten classes gives whose loss is a function of the rate's logarithm."""
    draws = np.random.default_rng(0).normal(0, 1, RATES.steps)
    rates = [RATES.rate(step) for step in range(RATES.steps)]
    return SweepCurve.of(
        [
            Tried(step + 1, rate, loss(log10(rate)) + noise * draw)
            for step, (rate, draw) in enumerate(zip(rates, draws, strict=True))
        ],
        10,
    )


def learning(x: float) -> float:
    """From guessing at 1e-4 on it falls, most steeply at 1e-2.5, to its least at 1e-1."""
    if x > -1:
        return 1.0 + 4 * (x + 1) ** 2
    share = min(1.0, max(0.0, (x + 4) / 3))
    return log(10) - (log(10) - 1.0) * (3 * share**2 - 2 * share**3)


def test_rates_grow_by_the_same_factor() -> None:
    assert RATES.rate(0) == 1e-6
    assert RATES.rate(20) == pytest.approx(1e-5)
    assert RATES.rate(140) == pytest.approx(10)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_steepest_descent_and_the_least_loss_are_found(noise: float) -> None:
    found = curve(learning, noise).found
    assert found is not None
    assert log10(found.steepest) == pytest.approx(-2.5, abs=0.35)
    assert log10(found.least) == pytest.approx(-1, abs=0.35)
    assert found.tenth == found.least / 10


def test_what_falls_above_guessing_is_not_learned() -> None:
    """First weights out of balance come to rest at any rate, and steeply."""
    found = curve(lambda x: learning(x) + max(0.0, -5 - x) * 4).found
    assert found is not None
    assert log10(found.steepest) == pytest.approx(-2.5, abs=0.35)


def test_one_step_that_explodes_takes_no_others_with_it() -> None:
    plain = curve(learning)
    tried = [*plain.tried]
    tried[30] = Tried(31, tried[30].lr, 1e30)
    found = SweepCurve.of(tried, 10).found
    assert found is not None
    assert log10(found.steepest) == pytest.approx(-2.5, abs=0.35)


@pytest.mark.parametrize("loss", [lambda x: log(10), lambda x: log(10) + (x + 6), lambda x: 9.0])
def test_where_nothing_is_learned_nothing_is_found(loss: Callable[[float], float]) -> None:
    assert curve(loss, 0.01).found is None


def test_few_steps_say_nothing() -> None:
    assert SweepCurve.of([], 10).found is None
    assert SweepCurve.of([Tried(1, 0.1, 2.0), Tried(2, 0.2, 1.0)], 10).found is None


def test_rates_are_told_in_two_digits() -> None:
    assert [rounded(rate) for rate in (0.012345, 3.16e-5, 1.0)] == ["0.012", "3.2e-05", "1"]
    assert SweepResult(0.1, 0.5).tenth == 0.05


# From the shell


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.vgg").write_text(TINY.replace("| dropout ", ""))
    write_images(tmp_path / "images", ("a", "b", "c"), 8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_search_is_the_same_every_time_and_leaves_no_run(folder: Path, vggc_here: Here) -> None:
    options = ("--data", "images", "--from", "1e-4", "--to", 3, "--steps", 60, "--batch", 12)
    before = {*folder.iterdir()}
    outs = []
    for name in ("a", "b"):
        files = ("--csv", f"{name}.csv", "-o", f"{name}.{'svg' if name == 'a' else 'png'}")
        code, out, error = vggc_here("find-lr", "tiny.vgg", *options, *files)
        assert code == 0, error
        outs.append(out)
    assert {path.name for path in {*folder.iterdir()} - before} == {
        *("a.csv", "b.csv", "a.svg", "b.png")
    }
    assert outs[0] == outs[1]
    assert (folder / "a.csv").read_text() == (folder / "b.csv").read_text()
    rows = list(csv.DictReader((folder / "a.csv").read_text().splitlines()))
    assert [*rows[0]] == ["step", "lr", "loss", "smoothed"]
    assert (float(rows[0]["lr"]), int(rows[-1]["step"])) == (1e-4, len(rows))
    assert "<svg" in (folder / "a.svg").read_text()[:500]
    assert (folder / "b.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = vggc_here("find-lr", "tiny.vgg", *options, "--json")
    record = json.loads(out)
    assert record["steps"] == len(rows)
    change = re.findall(r"--set (lr=\S+)", outs[0])
    assert change[0] == f"lr={rounded(record['steepest'])}"
    assert change[1] == f"lr={rounded(record['tenth_of_least'])}"
    run = ("--data", "images", "--set", change[0], "--epochs", 1, "--out", "run")
    code, _, error = vggc_here("train", "tiny.vgg", *run)
    assert code == 0, error


def test_the_seed_decides(folder: Path, vggc_here: Here) -> None:
    tables = []
    for seed in (0, 1):
        options = ("--data", "images", "--batch", 4, "--steps", 10, "--seed", seed)
        vggc_here("find-lr", "tiny.vgg", *options, "--csv", f"{seed}.csv")
        tables.append((folder / f"{seed}.csv").read_text())
    assert tables[0] != tables[1]


def test_images_are_varied_as_in_training(folder: Path, vggc_here: Here) -> None:
    tables = []
    for number, recipe in enumerate(("randaugment=off", "randaugment=on")):
        options = ("--data", "images", "--batch", 12, "--steps", 10, "--set", recipe)
        code, _, error = vggc_here("find-lr", "tiny.vgg", *options, "--csv", f"{number}.csv")
        assert code in (0, 1), error
        tables.append((folder / f"{number}.csv").read_text())
    assert tables[0] != tables[1]


def test_it_ends_where_the_loss_explodes(folder: Path, vggc_here: Here) -> None:
    options = ("--data", "images", "--batch", 12, "--from", "1e-3", "--to", "1e6", "--steps", 80)
    code, out, error = vggc_here("find-lr", "tiny.vgg", *options, "--json")
    assert code == 0, error
    record = json.loads(out)
    assert record["steps"] < 80
    assert record["least"] < record["exploded_at"] < 1e6


def test_where_nothing_is_learned_it_says_so(folder: Path, vggc_here: Here) -> None:
    options = ("--data", "images", "--batch", 12, "--from", "1e-9", "--to", "1e-8", "--steps", 20)
    code, out, error = vggc_here("find-lr", "tiny.vgg", *options)
    assert (code, out) == (1, "")
    assert "does not fall at any rate from 1e-09 to 1e-08: try more `--steps`" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "1", "--to", "0.1"], "--from is not below --to"),
        (["-o", "a.jpg"], "did you mean a.svg?"),
        (["-o", "tiny.vgg"], "tiny.vgg is no picture"),
        (["--csv", "tiny.vgg"], "tiny.vgg exists already"),
        (["--csv", "a.png", "-o", "images/../a.png"], "--csv and --out cannot be written to one"),
        (["--data", "none"], "there is no folder `none`"),
    ],
)
def test_mistakes_are_explained_first(
    folder: Path, vggc_here: Here, options: list[str], words: str
) -> None:
    code, out, error = vggc_here("find-lr", "tiny.vgg", *options)
    assert (code, out) == (2, "")
    assert words in error
