"""Every mistake around features, in words."""

from __future__ import annotations

import os

import pytest

from tests.support import GOLDENS
from vggc.features import diagnostics
from vggc.support.diagnostics import Diagnostic, render

FOLDER = GOLDENS / "features"


def samples() -> list[Diagnostic]:
    """One of each."""
    return [
        diagnostics.UnknownFeatureLayer("vgg16", "fc9", "did you mean `fc7`?"),
        diagnostics.LayerTwice("fc7"),
        diagnostics.NoHiddenLayer("one"),
        diagnostics.LayerOfProbabilities("vgg16", "softmax1"),
        diagnostics.NoSuchPart("images", "val", "train, test"),
        diagnostics.NotAFeaturesName("f.csv", "f.npz"),
        diagnostics.NoFeatures("f.npz", "it has no `features`, but `labels`"),
        diagnostics.FeaturesTooLarge("f.npz", 90.0, 24.0),
        diagnostics.FeaturesInUse("f.npz"),
        diagnostics.PartialDamaged("f.npz.journal", "f.npz.journal is not JSON"),
        diagnostics.OtherFeaturesBegun("f.npz", "combine", "average", "stack"),
        diagnostics.NoFeatureHead("builds/vgg16", "output (classes)", "fc7"),
        diagnostics.UnknownHead("builds/vgg16", "code", "did you mean `codes`?"),
        diagnostics.NothingToDescribe("images", 7, "cat/1.jpg: not an image"),
        diagnostics.PicturesWanted("images"),
        diagnostics.NoRoomOnDisk("f.npz", 32.5, 8.0),
        diagnostics.OtherPictures("d.npz", "e.npz", "10 pictures in one, 12 in the other"),
        diagnostics.NoSingleClass("f.npz"),
        diagnostics.OneSplit("f.npz", 3),
        diagnostics.OnePart("f.npz", "train", "test"),
        diagnostics.NoClassToScore("f.npz"),
        diagnostics.TooFewOfClass("f.npz", "cat", 20, 30),
        diagnostics.OneClassToLearn("f.npz", "cat"),
        diagnostics.FewerThanFolds("f.npz", "cat", 3, 5),
        diagnostics.ProbeTooLarge("f.npz", 90.0, 24.0),
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
