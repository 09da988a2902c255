"""Features and probes in Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import vggc
from tests.support.runs import train
from tests.support.training_data import write_images
from vggc.ir.weights import save, seeded
from vggc.program import load


def test_a_run_gives_features_that_can_be_probed(tmp_path: Path) -> None:
    train(tmp_path / "run")
    graph = load(str(tmp_path / "run/net.vgg")).graph
    save(tmp_path / "run/weights.safetensors", seeded(graph, 0))
    write_images(tmp_path / "images", ("car", "dog"), 10)
    run = vggc.open_run(tmp_path / "run")
    found = run.features(tmp_path / "images", tmp_path / "f.npz", layers=["fc2", "conv1_1"])
    assert found.values.shape == (20, 12)
    scores = vggc.probe(tmp_path / "f.npz", c=[1.0], splits=2)
    assert 0 <= scores["mean_accuracy"] <= 1
    assert "accuracy, %" in repr(scores)
    assert "<table>" in scores._repr_html_()
    with pytest.raises(vggc.UserError, match="exists already"):
        run.features(tmp_path / "images", tmp_path / "f.npz")
    with pytest.raises(ValueError, match="combine='sum'"):
        run.features(tmp_path / "images", tmp_path / "g.npz", combine="sum")
    assert not [*tmp_path.glob("g.npz*")]
    part = run.features(tmp_path / "images", tmp_path / "g.npz", layers="fc2,conv1_1")
    assert part.values.tolist() == found.values.tolist()


@pytest.mark.parametrize(
    "wrong",
    [{"c": 0}, {"c": []}, {"c": [1, float("nan")]}, {"folds": 1}, {"splits": 0}, {"seed": -1}],
)
def test_a_probe_refuses_what_the_command_does(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        vggc.probe("nosuch.npz", **wrong)
