"""`vggc inspect`: the page of how a net looks at an image."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.html_page import Page, assert_stands_alone, read
from tests.support.nets import graph_of
from tests.support.training_data import TINY, picture, write_images
from vggc.api.inspect import scores_of, with_sections
from vggc.cli import main
from vggc.inspection.layers import PixelBox
from vggc.ir.weights import save, seeded
from vggc.program import from_zoo, load
from vggc.report.heat import VIRIDIS, heat, located, over, stretched
from vggc.report.inspection import LEAST_IMAGES, MOST_IMAGES, InspectOptions, usual_images
from vggc.support.diagnostics import UserError
from vggc.training.run import Run, write_run

Here = Callable[..., tuple[object, str, str]]

CLASSES = ("\"&amp; x='", "<img src=x onerror=alert(1)>", "blue")
"""Folders may be called so."""
NET = TINY.replace("conv3-4 | pool", "conv3-4 | pool | conv3-6 | pool").replace(
    "epochs 3", "epochs 1"
)


def run_main(*arguments: object) -> object:
    before = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vggc", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    gc.set_threshold(*before)
    return end.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a net of two blocks, beside its images and a picture."""
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "tiny.vgg").write_text(NET)
    write_images(folder / "images", CLASSES, 10)
    Image.fromarray(picture(1, 77, 20, 30)).save(folder / "photo.png")
    arguments = ["train", folder / "tiny.vgg", "--data", folder / "images", "--out", folder / "run"]
    assert run_main(*arguments) == 0
    graph = load(str(folder / "run" / "net.vgg")).graph
    save(folder / "run" / "weights.safetensors", seeded(graph, 1))
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, whose images are the same."""
    shutil.copy(finished.parent / "photo.png", tmp_path / "photo.png")
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def photo(run: Path) -> Path:
    return run.parent / "photo.png"


def page_of(run: Path) -> Page:
    return read(run / "inspect-photo.html")


ALL = ["image", "activations", "filters", "saliency", "occlusion", "class-image"]


def test_the_page_has_every_section_and_takes_nothing_from_elsewhere(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    code, out, error = vggc_here("inspect", run, photo)
    assert (code, error) == (0, "")
    assert out.startswith(f"{run}/inspect-photo.html: tiny gives ")
    page = assert_stands_alone(run / "inspect-photo.html")
    assert page.sections == ALL
    for name in (*CLASSES, "conv1_1", "conv2_1", "photo.png"):
        assert name in page.texts, name
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_is_found_is_told_as_json(run: Path, photo: Path, vggc_here: Here) -> None:
    code, out, _ = vggc_here("inspect", run, photo, "--json", "--filters", 2, "--patches", 3)
    assert code == 0
    found = json.loads(out)
    assert found["page"] == str(run / "inspect-photo.html")
    assert found["bytes"] == (run / "inspect-photo.html").stat().st_size
    assert found["sections"] == ALL
    best = found["best"]
    assert [each["probability"] for each in best] == sorted(
        (each["probability"] for each in best), reverse=True
    )
    assert sum(each["probability"] for each in best) == pytest.approx(1)
    assert found["class"] == best[0]["class"]
    assert (found["filters"]["images"], found["filters"]["of"]) == (6, 6)
    patches = found["filters"]["patches"]
    assert {each["layer"] for each in patches} == {"conv1_1", "conv2_1"}
    for each in patches:
        values = [patch["value"] for patch in each["best"]]
        assert values == sorted(values, reverse=True)
        assert 0 < len(values) <= 3
    assert found["occlusion"]["window"] == 1
    assert found["class_image"]["score"] > found["class_image"]["score_before"]


def test_the_class_that_is_asked_for_is_explained(run: Path, photo: Path, vggc_here: Here) -> None:
    for name in CLASSES:
        told = vggc_here("inspect", run, photo, "--class", name, "--sections", "image", "--json")
        assert json.loads(told[1])["class"] == name
        assert page_of(run).sections == ["image"]


def test_the_layers_and_filters_that_are_asked_for_are_shown(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    layers = "conv2_1:5,conv2_1:0,pool1"
    code, out, _ = vggc_here("inspect", run, photo, "--layer", layers, "--filters", 1, "--json")
    assert code == 0
    found = [(each["layer"], each["filter"]) for each in json.loads(out)["filters"]["patches"]]
    assert found[:2] == [("conv2_1", 5), ("conv2_1", 0)]
    assert [layer for layer, _ in found] == ["conv2_1", "conv2_1", "pool1"]
    assert "Grad-CAM at conv2_1" in page_of(run).texts
    assert vggc_here("inspect", run, photo, "--layer", "pool1,conv1_1")[0] == 0
    assert "Grad-CAM at pool1" in page_of(run).texts


def test_sections_are_chosen(run: Path, photo: Path, vggc_here: Here) -> None:
    assert vggc_here("inspect", run, photo, "--sections", "occlusion, saliency")[0] == 0
    assert page_of(run).sections == ["image", "saliency", "occlusion"]
    assert "Grad-CAM" in page_of(run).text
    assert vggc_here("inspect", run, photo, "--sections", "saliency", "--smooth", 4)[0] == 0
    assert "mean gradient at 4 copies" in page_of(run).text


def test_a_seed_makes_the_same_page(run: Path, photo: Path, vggc_here: Here) -> None:
    def text(seed: int) -> str:
        assert vggc_here("inspect", run, photo, "--smooth", 3, "--seed", seed)[0] == 0
        whole = (run / "inspect-photo.html").read_text("utf-8")
        return whole[: whole.index("Made by vggc inspect")]

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_patches_are_looked_for_where_one_says(
    run: Path, photo: Path, tmp_path: Path, vggc_here: Here
) -> None:
    """Of any classes: nothing is counted."""
    write_images(tmp_path / "others", ("cats", "dogs"), 9)
    options = ["--data", tmp_path / "others", "--images", 5, "--json"]
    code, out, _ = vggc_here("inspect", run, photo, *options)
    assert code == 0
    found = json.loads(out)["filters"]
    assert (found["images"], found["of"]) == (5, 18)
    names = {patch["image"] for each in found["patches"] for patch in each["best"]}
    assert names <= {f"{name}/{index}.png" for name in ("cats", "dogs") for index in range(9)}
    assert {name.partition("/")[0] for name in names} == {"cats", "dogs"}
    assert "5 of 18 images, evenly spread, were looked at." in page_of(run).text


def test_patches_are_looked_for_in_a_folder_without_classes(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    images = Path(Run.load(run).record.data.path or "") / "blue"
    code, out, _ = vggc_here("inspect", run, photo, "--data", images, "--json")
    assert code == 0
    found = json.loads(out)["filters"]
    assert (found["images"], found["of"]) == (10, 10)


def test_where_the_images_are_gone_the_page_says_so(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    loaded = Run.load(run)
    gone = replace(loaded.record.data, path=str(run.parent / "gone"))
    write_run(run, replace(loaded.record, data=gone))
    code, _, error = vggc_here("inspect", run, photo)
    assert code == 0
    assert "No patches are shown." in error
    page = page_of(run)
    assert page.sections == ALL
    assert "are not where they were" in page.text
    code, _, error = vggc_here("inspect", run, photo, "--data", run.parent / "gone")
    assert code == 2


def test_a_spec_is_inspected_with_weights_from_elsewhere(
    run: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vggc_here: Here
) -> None:
    """By its name in the folder that one is in; images for patches are those that one names."""
    monkeypatch.chdir(tmp_path)
    code, _, error = vggc_here("inspect", run / "net.vgg", photo)
    assert code == 2
    assert "it is a net without weights" in error
    arguments = ("inspect", run / "net.vgg", photo, "--weights", run / "weights.safetensors")
    code, out, error = vggc_here(*arguments, "--json")
    assert code == 0, error
    assert "No patches are shown. A net that is no run has held no images out" in error
    found = json.loads(out)
    assert (found["page"], found["sections"]) == ("inspect-tiny-photo.html", ALL)
    page = assert_stands_alone(tmp_path / "inspect-tiny-photo.html")
    assert f"The weights are {run}." in page.text
    assert {each["class"] for each in found["best"]} == {*CLASSES}
    images = Path(Run.load(run).record.data.path or "") / "blue"
    code, out, error = vggc_here(*arguments, "--data", images, "--sections", "filters", "--json")
    assert code == 0, error
    assert json.loads(out)["filters"]["images"] == 10


# Nets of every kind

NETS = {
    "grey": "net tiny\ninput 1x8x8\n conv3-4 | pool | fc-3 | softmax",
    "normalised": "net tiny\ninput 3x8x8\n conv3-4 norm=batch | pool | conv3-4 | gap | fc-3",
    "residual": "net tiny\ninput 3x8x8\n add(conv3-3 act=none, skip) | relu | pool | fc-3",
    "heads": "net tiny\ninput 3x8x8\n conv3-4 | pool | fc-3\nhead more: @pool1 | fc-5",
    "scores": "net tiny\ninput 3x8x8\n conv3-4 | conv1-3 | gap | softmax",
}


def with_net(run: Path, text: str) -> None:
    """Makes the run one of another net, with weights of a seed."""
    (run / "net.vgg").write_text(text)
    graph = load(str(run / "net.vgg")).graph
    channels = graph.input[0]
    loaded = Run.load(run)
    how = replace(loaded.record.preprocessing, mean=(0.5,) * channels, std=(0.25,) * channels)
    write_run(run, replace(loaded.record, input=graph.input, preprocessing=how))
    save(run / "weights.safetensors", seeded(graph, 1))


@pytest.mark.parametrize("name", NETS)
def test_nets_of_every_kind_are_inspected(
    run: Path, photo: Path, vggc_here: Here, name: str
) -> None:
    with_net(run, NETS[name])
    code, _, error = vggc_here("inspect", run, photo)
    assert (code, error) == (0, "")
    assert assert_stands_alone(run / "inspect-photo.html").sections == ALL


def test_of_a_net_without_convolutions_the_page_says_what_has_no_meaning(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    with_net(run, "net tiny\ninput 3x8x8\n fc-8 | fc-3")
    assert vggc_here("inspect", run, photo)[0] == 0
    page = page_of(run)
    assert page.sections == ALL
    assert page.text.count("The net has no convolution") == 2
    assert "Grad-CAM has no meaning here" in page.text
    code, _, error = vggc_here("inspect", run, photo, "--layer", "fc1")
    assert code == 2
    assert "the layer `fc1` gives no map to look at" in error


def test_of_several_heads_the_first_of_classes_is_looked_at() -> None:
    graph = scores_of(from_zoo("googlenet_aux").graph)
    assert [head.name for head in graph.heads] == ["output"]
    assert len(graph.nodes) < len(from_zoo("googlenet_aux").graph.nodes)
    assert not any(node.name.startswith("aux") for node in graph.nodes)
    assert str(graph.nodes[graph.heads[0].node].op).startswith("Linear")


def test_a_net_without_classes_is_refused_with_its_place() -> None:
    with pytest.raises(UserError) as caught:
        scores_of(from_zoo("vgg16_loc_scr").graph)
    assert "vgg16_loc_scr tells no classes" in str(caught.value)
    assert "it gives boxes (4)" in str(caught.value)
    assert " --> " in str(caught.value)


# Mistakes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--class", "blu"), "did you mean `blue`?"),
        (("--layer", "conv1-1"), "did you mean `conv1_1`?"),
        (("--layer", "conv1_1:4"), "the last one is `conv1_1:3`"),
        (("--sections", "salience"), "did you mean `saliency`?"),
        (("--window", "8"), "try `--window 1`"),
        (
            ("--sections", "occlusion", "--layer", "conv1_1"),
            "--layer is about activations",
        ),
        (("--sections", "saliency", "--data", "x"), "--data is about filters"),
        (("--weights", "best.safetensors"), "best.safetensors"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    run: Path, photo: Path, vggc_here: Here, options: tuple[str, ...], told: str
) -> None:
    before = sorted(path.name for path in run.iterdir())
    code, out, error = vggc_here("inspect", run, photo, *options)
    assert (code, out) == (2, "")
    assert told in error
    assert sorted(path.name for path in run.iterdir()) == before


def test_what_is_no_image_is_refused(run: Path, vggc_here: Here) -> None:
    (run.parent / "text.png").write_text("no image")
    for name, told in (
        ("none.png", "there is no such file"),
        ("text.png", "not an image"),
        ("run", "it is a folder"),
    ):
        code, _, error = vggc_here("inspect", run, run.parent / name)
        assert code == 2
        assert "cannot read the image" in error
        assert told in error


def test_what_is_no_run_is_refused(
    run: Path, photo: Path, vggc_here: Here, tiny_artifact: Callable[..., Path]
) -> None:
    code, _, error = vggc_here("inspect", tiny_artifact(), photo)
    assert code == 2
    assert "an artifact has no gradients" in error
    assert vggc_here("inspect", run.parent / "nowhere", photo)[0] == 2
    (run / "weights.safetensors").unlink()
    code, _, error = vggc_here("inspect", run, photo)
    assert code == 2
    assert "has no weights" in error


def test_weights_that_are_not_finite_are_told_of(run: Path, photo: Path, vggc_here: Here) -> None:
    graph = load(str(run / "net.vgg")).graph
    weights = seeded(graph, 3)
    weights["conv1_1.weight"] *= np.float32(1e30)
    weights["conv2_1.weight"] *= np.float32(1e30)
    save(run / "weights.safetensors", weights)
    code, _, error = vggc_here("inspect", run, photo)
    assert code == 1
    assert "not finite" in error
    assert not (run / "inspect-photo.html").exists()


def test_a_page_on_the_same_image_is_replaced_and_nothing_else(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    out, quick = run / "inspect-photo.html", ("--sections", "image")
    assert vggc_here("inspect", run, photo, *quick)[0] == 0
    out.write_text(out.read_text() + "<!-- old -->")
    assert vggc_here("inspect", run, photo, *quick)[0] == 0
    assert "<!-- old -->" not in out.read_text()
    other = photo.with_name("other.png")
    shutil.copy(photo, other)
    for taken in (out, run / "net.vgg", run):
        before = taken.read_bytes() if taken.is_file() else None
        code, printed, error = vggc_here("inspect", run, other, "-o", taken)
        assert (code, printed) == (2, "")
        assert f"{taken} exists already" in error
        assert before is None or taken.read_bytes() == before


def test_pages_on_images_of_one_name_lie_beside_one_another(
    run: Path, photo: Path, vggc_here: Here
) -> None:
    other = run.parent / "others" / "photo.png"
    other.parent.mkdir()
    shutil.copy(photo, other)
    for image, name in ((photo, "photo"), (other, "photo-2"), (photo, "photo"), (other, "photo-2")):
        code, out, _ = vggc_here("inspect", run, image, "--sections", "image")
        assert code == 0
        assert out.startswith(f"{run}/inspect-{name}.html: ")
    assert len([*run.glob("*.html")]) == 2


def test_what_is_interrupted_leaves_nothing(
    run: Path, photo: Path, vggc_here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggc.inspection import occlusion

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(occlusion, "covered_copies", interrupted)
    before = sorted(path.name for path in run.iterdir())
    code, out, error = vggc_here("inspect", run, photo)
    assert (code, out) == (130, "")
    assert "interrupted" in error
    assert sorted(path.name for path in run.iterdir()) == before


# What is drawn


def test_colours_go_from_dark_to_light_and_what_lies_beyond_is_cut_off() -> None:
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 9.0]], np.float32)
    found = heat(values, 0.0, 1.0)[0].tolist()
    dark, middle, light = (list(VIRIDIS[place]) for place in (0, 4, 8))
    assert found == [dark, dark, middle, light, light]
    lightness = heat(np.linspace(0, 1, 256, dtype=np.float32)[None], 0, 1)[0] @ [
        0.2126,
        0.7152,
        0.0722,
    ]
    assert (np.diff(lightness) >= -0.5).all()
    assert heat(values, 1.0, 1.0).tolist() == [[dark] * 5]


def test_a_map_over_a_picture_is_of_the_maps_colours() -> None:
    picture_, colours = np.full((2, 2, 3), 100, np.uint8), heat(np.eye(2, dtype=np.float32), 0, 1)
    found = over(picture_, colours)
    assert found[0, 0].tolist() == [199, 185, 59]
    assert over(picture_[:, :, :1], colours).tolist() == found.tolist()


def test_a_map_is_stretched_to_the_picture() -> None:
    found = stretched(np.array([[0.0, 1.0]], np.float32), (3, 8))
    assert found.shape == (3, 8)
    assert (np.diff(found, axis=1) >= 0).all()
    assert (found[:, 0] == 0).all()
    assert (found[:, -1] == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_shows_where_a_patch_lies(channels: int) -> None:
    found = located(np.full((16, 32, channels), 90, np.uint8), PixelBox(4, 8, 12, 20), 128)
    assert found.shape == (64, 128, 3)
    white = np.argwhere((found == 255).all(2))
    assert white.min(0).tolist() == [16, 32]
    assert white.max(0).tolist() == [47, 79]
    assert (found[20:44, 40:72] == 90).all()
    assert (found[15, 31:81] == 0).all()


def test_large_nets_look_at_fewer_images() -> None:
    counts = {name: usual_images(from_zoo(name).graph, 10_000) for name in ("vgg16", "tiny_vgg")}
    assert counts == {"vgg16": 77, "tiny_vgg": MOST_IMAGES}
    assert usual_images(graph_of("conv7-512 | conv7-512", "3x224x224"), 9) == LEAST_IMAGES


def test_the_image_is_always_shown() -> None:
    usual = InspectOptions()
    assert with_sections(usual, None) == usual
    assert with_sections(usual, "occlusion").sections == ("image", "occlusion")
