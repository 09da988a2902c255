"""Nets compiled for whole images, and what artifacts say of boxes in pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.nets import program
from vggc.api.compile import densely
from vggc.api.run import run
from vggc.backends.torch import reference
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import resolve
from vggc.ir.weights import Weights, seeded
from vggc.measure.verify import verify
from vggc.program import Program
from vggc.runtime.artifact import sound_manifest
from vggc.runtime.session import Session
from vggc.support.diagnostics import UserError
from vggc_runtime.manifest import digest_of
from vggc_runtime.preprocessing import Preprocessing

Here = Callable[..., tuple[object, str, str]]
Noise = Callable[..., np.ndarray]

BOTH = """
net both
input 3x16x12

  conv3-8 norm=batch | pool | c: fc-12 | dropout | fc-3 | softmax

head box: @c | boxes-3
"""
FOLLOWING = "net following input 1x16x12 boxes"
WIDE = 21, 30
"""The height and width of images that nets are applied densely to."""


def build(
    net: Program,
    folder: Path,
    weights: Weights | None = None,
    classes: tuple[str, ...] = (),
    dense: tuple[int, int] | None = None,
    batch: int = 1,
) -> Path:
    """The artifact of a net, whose pictures just cover its input."""
    graph, origin = net.graph, "seed 0"
    weights = seeded(graph, 0) if weights is None else weights
    channels, height, width = graph.input
    size = height, width
    if dense:
        spread = densely(net, dense)
        graph, weights, size = spread.graph, spread.weights(weights), dense
    how = Preprocessing(size, None, (0.0,) * channels, (1.0,) * channels)
    job = Job(
        net=net.net,
        graph=graph,
        target=resolve("cpu"),
        batches=(batch,),
        weights=weights,
        weights_from=origin,
        preprocessing=how,
        classes=classes,
        dense=dense is not None,
    )
    build_artifact(job, folder)
    return folder


def following() -> Weights:
    """Weights of a net whose box lies around the one white pixel of its crop; half as wide as the
    crop, and a quarter as high.
    """
    weight = np.zeros((4, 1, 16, 12), np.float32)
    weight[0] = (np.arange(12) + 0.5) / 12
    weight[1] = ((np.arange(16) + 0.5) / 16)[:, None]
    bias = np.asarray([0, 0, 0.5, 0.25], np.float32)
    return {"boxes1.weight": weight.reshape(4, -1), "boxes1.bias": bias}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with both heads, for crops. Nobody writes to it."""
    folder = tmp_path_factory.mktemp("plain") / "artifact"
    return build(program(BOTH), folder, classes=("cat", "dog", "owl"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with both heads, for whole images. Nobody writes to it."""
    folder = tmp_path_factory.mktemp("dense") / "artifact"
    return build(program(BOTH), folder, classes=("cat", "dog", "owl"), dense=WIDE, batch=2)


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, black but for one white pixel in row 11 and column 17. Nobody writes to it."""
    pixels = np.zeros((21, 30), np.uint8)
    pixels[11, 17] = 255
    path = tmp_path_factory.mktemp("spot") / "spot.png"
    Image.fromarray(pixels).save(path)
    return path


# What it computes


def test_a_dense_artifact_has_classes_averaged_and_boxes_as_maps(dense: Path, noise: Noise) -> None:
    manifest = sound_manifest(dense)
    assert manifest.dense
    assert manifest.input == (3, *WIDE)
    assert [(each.name, each.shape) for each in manifest.outputs] == [
        ("output", (3,)),
        ("box", (12, 3, 10)),
    ]
    net, x = program(BOTH), noise(2, 3, *WIDE)
    spread = densely(net, WIDE)
    expected = reference(spread.graph, spread.weights(seeded(net.graph, 0)))(x)
    found = Session.load(dense).run_all(x)
    for head in spread.graph.heads:
        wanted = expected[spread.graph.nodes[head.node].name]
        np.testing.assert_allclose(found[head.name], wanted, rtol=1e-4, atol=1e-5)


def test_verify_holds_classes_and_boxes(dense: Path, plain: Path) -> None:
    for folder in (dense, plain):
        for result in verify(folder):
            assert result.passed, result
            assert result.weights_from == "seed 0"
            assert result.has_classes
            assert [name for name, _ in result.head_errors] == ["output", "box"]
            assert all(0 < error < 1e-5 for _, error in result.head_errors)


def test_verify_speaks_of_no_classes_where_there_are_none(tmp_path: Path, vggc_here: Here) -> None:
    for dense in (None, WIDE):
        folder = build(program(FOLLOWING), tmp_path / f"{dense}", dense=dense)
        code, out, _ = vggc_here("verify", folder)
        assert code == 0, out
        assert "top-1" not in out
        assert "random: ok, relative L2 error" in out


def test_what_says_that_it_is_dense_and_is_not_is_refused(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(plain, folder)
    path = folder / "manifest.json"
    written = json.loads(path.read_text())
    written["sizes"][0]["dense"] = True
    path.write_text(json.dumps(written | {"sha256": digest_of(written)}))
    with pytest.raises(UserError, match="are of nets of other shapes"):
        Session.load(folder)


def test_classes_name_the_boxes_of_a_net_that_gives_no_classes(tmp_path: Path) -> None:
    each = program("net each input 3x16x12 pool | boxes-3")
    one = program("net one input 3x16x12 pool | boxes")
    for net, classes in ((each, ("a", "b", "c")), (one, ("a", "b", "c")), (one, ())):
        folder = tmp_path / f"{net.net.name}{len(classes)}"
        assert sound_manifest(build(net, folder, classes=classes)).classes == classes
    with pytest.raises(UserError, match="classes are not as many"):
        sound_manifest(build(each, tmp_path / "other", classes=("a", "b")))


# Boxes in pictures


@pytest.mark.parametrize(("across", "down"), [(12, 16), (25, 16), (12, 40)])
def test_the_box_of_a_crop_is_told_in_pixels_of_its_picture(
    across: int, down: int, tmp_path: Path
) -> None:
    folder = build(program(FOLLOWING), tmp_path / "artifact", following())
    pixels = np.zeros((down, across), np.uint8)
    row, column = down // 2 - 1, across // 2 - 1
    pixels[row, column] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    result = run(folder, tmp_path / "x.png")
    assert result.pictures == ((across, down),)
    (box,) = result.pixels(result.manifest.main, 0)
    x, y = column + 0.5, row + 0.5
    np.testing.assert_allclose(box, [x - 3, y - 2, x + 3, y + 2], atol=1e-5)


def test_a_crop_is_of_the_picture_as_it_was_resized(tmp_path: Path) -> None:
    """30×21 pixels become 23×16, of which columns 5 to 17 are seen. The box of a black crop lies
    around its upper left corner.
    """
    folder = build(program(FOLLOWING), tmp_path / "artifact", following())
    Image.new("L", (30, 21)).save(tmp_path / "x.png")
    result = run(folder, tmp_path / "x.png")
    (box,) = result.pixels(result.manifest.main, 0)
    np.testing.assert_allclose(box, [2 / 23 * 30, 0, 8 / 23 * 30, 2 / 16 * 21], atol=1e-5)


def test_boxes_of_positions_are_told_in_pixels_of_the_picture(spot: Path, tmp_path: Path) -> None:
    folder = build(program(FOLLOWING), tmp_path / "artifact", following(), dense=WIDE)
    result = run(folder, spot)
    boxes = result.pixels(result.manifest.main, 0)
    assert boxes.shape == (6, 19, 1, 4)
    seen = 0
    for i, j in np.ndindex(6, 19):
        if 0 <= 11 - i < 16 and 0 <= 17 - j < 12:
            np.testing.assert_allclose(boxes[i, j, 0], [14.5, 9.5, 20.5, 13.5], atol=1e-4)
            seen += 1
    assert seen == 6 * 12


def test_the_boxes_that_positions_agree_in_are_made_one(
    spot: Path, tmp_path: Path, vggc_here: Here
) -> None:
    folder = build(program(FOLLOWING), tmp_path / "artifact", following(), dense=WIDE)
    code, out, _ = vggc_here("run", folder, "--input", spot, "--top", 1)
    assert code == 0
    first, box = out.splitlines()
    assert first == "  1 box at each of 6×19 positions"
    assert box == "  box  pixels 14.5  9.5  20.5  13.5  from 72 positions"
    told = json.loads(vggc_here("run", folder, "--input", spot, "--json", "--top", 1)[1])
    assert told["pictures"] == [[30, 21]]
    output = told["outputs"]["output"]
    assert (output["stride"], output["size"]) == ([1, 1], [16, 12])
    assert np.asarray(output["values"]).shape == (1, 4, 6, 19)
    assert np.asarray(output["pixels"]).shape == (1, 6, 19, 1, 4)
    ((merged,),) = output["merged"]
    assert (merged["number"], merged["positions"]) == (0, 72)


def test_run_tells_boxes_in_shares_and_pixels(plain: Path, tmp_path: Path, vggc_here: Here) -> None:
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "x.png")
    code, out, _ = vggc_here("run", plain, "--input", tmp_path / "x.png", "--top", 2)
    assert code == 0
    assert "  box of cat  " in out
    assert out.count("  pixels ") == 2
    assert "  and 1 boxes more; --json prints them all" in out.splitlines()
    told = json.loads(vggc_here("run", plain, "--input", tmp_path / "x.png", "--json")[1])
    box = told["outputs"]["box"]
    assert np.asarray(box["values"]).shape == (1, 12)
    pixels = np.asarray(box["pixels"])
    assert pixels.shape == (1, 3, 4)
    assert (pixels >= 0).all()
    assert (pixels <= [30, 40, 30, 40]).all()


def test_values_are_of_no_picture(
    plain: Path, tmp_path: Path, noise: Noise, vggc_here: Here
) -> None:
    np.save(tmp_path / "x.npy", noise(1, 3, 16, 12))
    told = json.loads(vggc_here("run", plain, "--input", tmp_path / "x.npy", "--json")[1])
    assert "pictures" not in told
    assert "pixels" not in told["outputs"]["box"]
    assert "pixels" not in vggc_here("run", plain, "--input", tmp_path / "x.npy")[1]


def test_of_many_boxes_at_positions_those_of_the_best_classes_are_shown(
    dense: Path, tmp_path: Path, vggc_here: Here
) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (42, 60, 3), np.uint8)).save(tmp_path / "x.png")
    code, out, _ = vggc_here("run", dense, "--input", tmp_path / "x.png", "--top", 1)
    assert code == 0
    lines = out.splitlines()
    best = lines[1].split()[0]
    assert lines[3] == "  3 boxes at each of 3×10 positions"
    assert lines[4].startswith(f"  box of {best}  pixels ")
    assert lines[5] == "  and 2 boxes more; --json prints them all"


# The command


def test_compile_takes_a_size_and_says_so(tmp_path: Path, vggc_here: Here) -> None:
    (tmp_path / "net.vgg").write_text(BOTH)
    how = ["--threads", 1, "--seed", 0, "--json"]
    code, out, _ = vggc_here(
        "compile", tmp_path / "net.vgg", "--dense", "21x30", "-o", tmp_path / "a", *how
    )
    assert code == 0
    assert json.loads(out)["dense"] == [[21, 30]]
    manifest = sound_manifest(tmp_path / "a")
    assert manifest.dense
    assert manifest.preprocessing.size == (21, 30)
    assert manifest.preprocessing.scale is None
    code, out, _ = vggc_here("verify", tmp_path / "a")
    assert code == 0


@pytest.mark.parametrize(
    ("net", "size", "words"),
    [
        (BOTH, "15x30", "images of 15×30 pixels are smaller than what both takes, 16×12"),
        (
            "net odd input 3x8x8 add(conv3-4 stride=2, conv1-4 | pool) | fc-3",
            "9x12",
            "odd cannot be applied to images of 9×12 pixels",
        ),
        (
            "net apart input 3x8x8 conv3-4 | flatten | batchnorm | boxes",
            "12",
            "apart cannot be applied to whole images",
        ),
    ],
)
def test_what_cannot_be_compiled_so_is_refused(
    net: str, size: str, words: str, tmp_path: Path, vggc_here: Here
) -> None:
    (tmp_path / "net.vgg").write_text(net)
    code, out, err = vggc_here(
        "compile", tmp_path / "net.vgg", "--dense", size, "-o", tmp_path / "artifact"
    )
    assert (code, out) == (2, "")
    assert words in err
    assert "--protocol" not in err
    assert not (tmp_path / "artifact").exists()
