"""Localisation by runs: plans, errors by both protocols, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vggc.api.localise import LocaliseOptions, LocaliseResult, images_for, measure, plan
from vggc.cli import cli
from vggc.evaluation import diagnostics
from vggc.ir.weights import save
from vggc.support.diagnostics import Diagnostic, UserError

Here = Callable[..., tuple[object, str, str]]

SIZE = 30, 20
"""The width and height of all pictures; the nets see crops of 16×16 pixels of them."""
LEFT, MIDDLE = (0, 0, 10, 20), (5, 0, 25, 20)
"""Boxes in pixels: the left third, and the square in the middle, which the centre crop shows."""

BODY = "pool | fc-4 | "
RECIPE = "train {\n  epochs 1\n  batch 4\n  sgd lr=0.001\n}"
NETS = {
    "scr": f"net scr input 3x16x16 {BODY} boxes",
    "pcr": f"net pcr input 3x16x16 {BODY} boxes-2",
    "classes": f"net classes input 3x16x16 {BODY} fc-2 | softmax",
    "both": "net both input 3x16x16 pool | c: fc-4 | fc-2 | softmax head box: @c | boxes",
    "larger": f"net larger input 3x20x20 {BODY} fc-2 | softmax",
}


def boxed(folder: Path, rows: Sequence[tuple[str, tuple[int, ...]]]) -> Path:
    """A place with pictures of noise and a table of their objects, one each."""
    (folder / "images").mkdir(parents=True)
    with (folder / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "class", "xmin", "ymin", "xmax", "ymax"])
        for number, (name, box) in enumerate(rows):
            pixels = np.random.default_rng(number).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
            table.writerow([f"images/{number:02}.png", name, *box])
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of two classes, half of them with the object in the middle. Nobody writes."""
    rows = [(name, box) for box in (LEFT, MIDDLE) for name in ("cat", "dog") * 2]
    return boxed(tmp_path_factory.mktemp("data") / "place", rows)


@pytest.fixture(scope="module")
def runs(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each of the nets, trained for a moment. Nobody writes to them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, net in NETS.items():
        (folder / f"{name}.vgg").write_text(f"{net}\n{RECIPE}\n")
        arguments = ["train", f"{folder / name}.vgg", "--data", place, "--out", folder / name]
        told = CliRunner().invoke(cli, [*map(str, arguments), "--device", "cpu"])
        assert told.exit_code == 0, told.output
    return {name: folder / name for name in NETS}


@pytest.fixture(scope="module")
def middle(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the net with one box that say of every crop: all of it. Nobody writes to them."""
    return constant(runs["scr"], tmp_path_factory.mktemp("weights") / "middle.safetensors")


def constant(run: Path, path: Path, box: Sequence[float] = (0.5, 0.5, 1, 1)) -> Path:
    """Weights of a net that says the same boxes of every crop."""
    from vggc.api.trained import net_of

    graph = net_of(str(run)).graph
    weights = {name: np.zeros(w.shape, np.float32) for name, w in graph.all_weights.items()}
    last = graph.nodes[-1].name
    count = len(weights[f"{last}.bias"]) // 4
    weights[f"{last}.bias"] = np.tile(np.asarray(box, np.float32), count)
    save(path, weights)
    return path


def refusal(error: pytest.ExceptionInfo[UserError], kind: type[Diagnostic]) -> str:
    (found,) = error.value.diagnostics
    assert isinstance(found, kind)
    return str(error.value)


def errors_of(
    boxes: Sequence[Path], classifiers: Sequence[Path], data: Path, **options: object
) -> LocaliseResult:
    planned = plan(
        boxes,
        classifiers,
        LocaliseOptions(device="cpu", **options),  # type: ignore[arg-type]
        ["centre", "dense"],
        alone=True,
        needs_class=False,
    )
    told: list[tuple[int, int]] = []
    result = measure(planned, images_for(planned, str(data)), lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1]
    return result


# Errors


def test_errors_are_by_the_centre_crop_and_densely(
    runs: dict[str, Path], place: Path, middle: Path
) -> None:
    """The centre crop is the square in the middle, whose box is right of half the pictures; of the
    others its IoU is a fifth.
    """
    result = errors_of([runs["scr"]], [], place, weights=middle)
    assert result.pictures == 8
    (centre,) = result.each["centre"]
    assert (centre.top1, centre.top5) == (0.5, 0.5)
    assert centre.mean_iou == pytest.approx((1 + 0.2) / 2, abs=0.01)
    assert result.united == {}
    assert result.each["dense"][0].top1 in (0.5, 1)  # one of several squares is the best


def test_boxes_of_several_runs_are_united(runs: dict[str, Path], place: Path) -> None:
    result = errors_of([runs["scr"], runs["pcr"]], [runs["classes"]], place)
    for protocol in ("centre", "dense"):
        assert len(result.each[protocol]) == 2
        assert 0 <= result.united[protocol].top5 <= result.united[protocol].top1 <= 1


def test_a_net_with_both_heads_tells_classes_itself(runs: dict[str, Path], place: Path) -> None:
    planned = plan([runs["both"]], [], LocaliseOptions(device="cpu"), ["dense"], alone=True)
    assert planned.has_classifier
    assert planned.runs[0].kinds == ("boxes", "classes")
    other = plan(
        [runs["both"]], [runs["classes"]], LocaliseOptions(device="cpu"), ["dense"], alone=True
    )
    assert [each.kinds for each in other.runs] == [("boxes",), ("classes",)]
    result = errors_of([runs["both"]], [], place)
    assert result.each["dense"][0].top5 <= result.each["dense"][0].top1


def test_pictures_are_those_that_the_run_held_out_unless_others_are_named(
    runs: dict[str, Path],
) -> None:
    planned = plan([runs["scr"]], [runs["classes"]], LocaliseOptions(), ["dense"], alone=True)
    images = images_for(planned, None)
    assert images.part.objects is not None
    assert 0 < len(images.part) < 8
    assert images.notes == ()
    assert planned.classes == ("cat", "dog")


def test_a_classifier_that_held_out_other_pictures_is_told_of(
    runs: dict[str, Path], place: Path, tmp_path: Path
) -> None:
    """It was trained on the same place with another seed."""
    arguments = ["train", f"{runs['classes']}.vgg", "--data", place, "--out", tmp_path / "other"]
    told = CliRunner().invoke(cli, [*map(str, arguments), "--device", "cpu", "--seed", "3"])
    assert told.exit_code == 0, told.output
    nets = [runs["scr"]], [tmp_path / "other"]
    images = images_for(plan(*nets, LocaliseOptions(), ["centre"], alone=True), None)
    assert any("held out other pictures" in note for note in images.notes)


def test_classes_are_told_by_their_names(
    runs: dict[str, Path], tmp_path: Path, middle: Path
) -> None:
    """A place in which the classes come in another order, or with one alone."""
    data = boxed(tmp_path / "other", [("dog", MIDDLE), ("dog", LEFT), ("dog", MIDDLE)])
    planned = plan([runs["pcr"]], [runs["classes"]], LocaliseOptions(), ["centre"], alone=True)
    assert images_for(planned, str(data)).part.labels.tolist() == [1, 1, 1]
    result = errors_of([runs["scr"]], [], data, weights=middle)
    assert result.each["centre"][0].top1 == pytest.approx(1 / 3)


def test_pictures_without_boxes_are_not_tested_on(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", SIZE).save(tmp_path / name / "x.png")
    with pytest.raises(UserError) as error:
        errors_of([runs["scr"]], [], tmp_path)
    assert "--data" in refusal(error, diagnostics.NoObjectsToTest)


# Nets that do not go together


def planned_of(boxes: Sequence[Path], classifiers: Sequence[Path] = (), **more: object) -> object:
    return plan(boxes, classifiers, LocaliseOptions(), ["dense"], alone=True, **more)  # type: ignore[arg-type]


def test_nets_that_lack_what_is_asked_of_them_are_told(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError) as error:
        planned_of([runs["classes"]])
    assert "its heads give classes" in refusal(error, diagnostics.NoBoxes)
    with pytest.raises(UserError) as error:
        planned_of([runs["scr"]], [runs["pcr"]])
    assert "its heads give boxes" in refusal(error, diagnostics.TellsNoClasses)
    with pytest.raises(UserError) as error:
        planned_of([runs["pcr"]])
    assert "--classifier RUN" in refusal(error, diagnostics.WhichClass)
    planned_of([runs["pcr"]], needs_class=False)
    planned_of([runs["scr"]])


def test_an_artifact_is_run_not_looked_with(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    for nets in (([folder],), ([runs["scr"]], [folder])):
        with pytest.raises(UserError) as error:
            planned_of(*nets)
        assert f"vggc run {folder} --input" in refusal(error, diagnostics.ArtifactOfBoxes)


def test_a_box_for_each_of_other_classes_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    data = boxed(tmp_path / "data", [(name, MIDDLE) for name in ("owl", "dog") * 4])
    (tmp_path / "other.vgg").write_text(f"{NETS['classes']}\n{RECIPE}\n")
    arguments = ["train", tmp_path / "other.vgg", "--data", data, "--out", tmp_path / "other"]
    assert CliRunner().invoke(cli, [*map(str, arguments), "--device", "cpu"]).exit_code == 0
    with pytest.raises(UserError) as error:
        planned_of([runs["pcr"]], [tmp_path / "other"])
    assert "only the first knows owl" in refusal(error, diagnostics.ClassesOfBoxes)
    how = [runs["scr"]], [tmp_path / "other"], LocaliseOptions(), ["dense"]
    planned = plan(*how, alone=True)  # a box for all, whatever they are
    assert planned.classes == ("dog", "owl")


def test_a_classifier_that_sees_otherwise_is_told_of(runs: dict[str, Path]) -> None:
    planned = plan([runs["scr"]], [runs["larger"]], LocaliseOptions(), ["dense"], alone=True)
    (note,) = planned.notes
    assert "classifies crops of 20×20" in note
    same = plan([runs["scr"]], [runs["classes"]], LocaliseOptions(), ["dense"], alone=True)
    assert same.notes == ()


@pytest.mark.parametrize(
    ("options", "flag"),
    [(LocaliseOptions(offsets=True), "--offsets"), (LocaliseOptions(scales="20"), "--scales")],
)
def test_scales_and_offsets_are_of_whole_pictures(
    runs: dict[str, Path], options: LocaliseOptions, flag: str
) -> None:
    with pytest.raises(UserError) as error:
        plan([runs["scr"]], [], options, ["centre"], alone=True)
    assert f"`{flag}` is of nets" in refusal(error, diagnostics.OfWholePictures)
    plan([runs["scr"]], [], options, ["centre", "dense"], alone=True)


# The commands


def test_eval_tells_the_errors_of_a_box_for_each_class_whose_class_is_given(
    runs: dict[str, Path], place: Path, vggc_here: Here
) -> None:
    how = ["--localise", "--data", place, "--device", "cpu", "--json"]
    code, out, err = vggc_here("eval", runs["pcr"], *how)
    assert code == 0, err
    assert "those of the pictures are given" in err
    assert json.loads(out)["pictures"] == 8


def test_localise_tells_boxes_in_pixels(
    runs: dict[str, Path], place: Path, middle: Path, vggc_here: Here
) -> None:
    image = place / "images" / "00.png"
    how = ["--protocol", "centre", "--weights", middle, "--device", "cpu"]
    code, out, _ = vggc_here("localise", runs["scr"], image, *how)
    assert code == 0
    first, line = out.splitlines()
    assert first == str(image)
    assert line.startswith("  object  1.0000  pixels 5.")
    told = json.loads(vggc_here("localise", runs["scr"], image, *how, "--json")[1])
    (found,) = told["images"]
    assert (found["width"], found["height"]) == SIZE
    (box,) = [each["box"] for each in found["objects"]]
    np.testing.assert_allclose(box, MIDDLE, atol=0.7)


def test_localise_tells_the_best_classes_of_several_images(
    runs: dict[str, Path], place: Path, vggc_here: Here
) -> None:
    nets = [runs["scr"], runs["pcr"]]
    how = ["--classifier", runs["classes"], "--top", 2, "--device", "cpu"]
    code, out, _ = vggc_here("localise", *nets, place / "images", *how, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["runs"] == [str(each) for each in nets]
    assert len(told["images"]) == 8
    for each in told["images"]:
        names = [found["class"] for found in each["objects"]]
        assert sorted(names) == ["cat", "dog"]
        assert sum(found["probability"] for found in each["objects"]) == pytest.approx(1)
        for found in each["objects"]:
            left, top, right, bottom = found["box"]
            assert 0 <= left <= right <= SIZE[0]
            assert 0 <= top <= bottom <= SIZE[1]


def test_boxes_are_drawn_into_one_picture_or_several(
    runs: dict[str, Path], place: Path, middle: Path, tmp_path: Path, vggc_here: Here
) -> None:
    how = ["--weights", middle, "--device", "cpu"]
    image = place / "images" / "00.png"
    code, _, err = vggc_here("localise", runs["scr"], image, *how, "-o", tmp_path / "x.png")
    assert code == 0
    assert f"Written: {tmp_path / 'x.png'}" in err
    drawn, before = (np.asarray(Image.open(path)) for path in (tmp_path / "x.png", image))
    assert drawn.shape == before.shape
    assert (drawn != before).any()
    code, _, _ = vggc_here("localise", runs["scr"], image, image, *how, "-o", tmp_path / "all")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["00-2.png", "00.png"]


@pytest.mark.parametrize(
    ("out", "images", "words"),
    [
        ("x.png", 2, "is one picture, and there are several images"),
        ("x.bmp", 1, "boxes are not drawn into"),
        ("taken.png", 1, "taken.png"),
        ("missing/x.png", 1, "missing"),
    ],
)
def test_what_cannot_be_drawn_into_is_told_first(
    out: str,
    images: int,
    words: str,
    runs: dict[str, Path],
    place: Path,
    tmp_path: Path,
    vggc_here: Here,
) -> None:
    (tmp_path / "taken.png").write_text("somebody's")
    named = [place / "images" / "00.png"] * images
    code, told, err = vggc_here("localise", runs["scr"], *named, "-o", tmp_path / out)
    assert (code, told) == (2, "")
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_an_image_that_cannot_be_read_is_told_and_the_others_all_the_same(
    runs: dict[str, Path], place: Path, tmp_path: Path, vggc_here: Here
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    images = [tmp_path / "bad.png", place / "images" / "00.png"]
    code, out, err = vggc_here("localise", runs["scr"], *images, "-o", tmp_path / "all")
    assert code == 2
    assert "00.png" in out
    assert "cannot read the image" in err
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["00.png"]


def test_runs_come_before_images(runs: dict[str, Path], place: Path, vggc_here: Here) -> None:
    code, _, err = vggc_here("localise", runs["scr"])
    assert code == 2
    assert "Missing argument 'IMAGE...'" in err
    code, _, err = vggc_here("localise", place / "images", place / "images")
    assert code == 2
    assert "is not the folder of a training run" in err
