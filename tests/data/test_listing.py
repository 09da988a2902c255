"""Which files are images, and which are passed over: one rule for every command."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.support.training_data import picture, write_images
from vggc.data import diagnostics
from vggc.data.find import find_images
from vggc.data.listing import UNREAD, holds, images_below, is_hidden
from vggc.data.parts import Skipped
from vggc.data.prepare import prepare
from vggc.support.diagnostics import UserError, render
from vggc.training.skipped import write_skipped
from vggc_runtime.preprocessing import FORMATS, decode


def write(path: Path, label: int = 0, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(label, 0)).save(path, kind)


def told(skipped: tuple[Skipped, ...] | list[Skipped]) -> dict[str, str]:
    return {each.name: each.reason for each in skipped}


# Hidden


@pytest.mark.parametrize(
    "place",
    [
        *[".ipynb_checkpoints/1-checkpoint.png", ".thumbnails/1.png", ".Trash-1000/files/1.png"],
        *["@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/1.png", ".git/a/b/1.png"],
        *["$RECYCLE.BIN/1.png", "lost+found/1.png", "System Volume Information/1.png"],
        *["._1.png", ".hidden.jpg", "Thumbs.db", ".DS_Store", "desktop.ini"],
    ],
)
def test_what_is_hidden_is_passed_over_without_a_word(tmp_path: Path, place: str) -> None:
    """At the top, in a class, and deep below it."""
    write_images(tmp_path, ("cat", "dog"), 5)
    for folder in (tmp_path, tmp_path / "cat", tmp_path / "cat/deep"):
        write(folder / place)
    images = find_images(tmp_path, 0)
    assert (images.classes, len(images.train), len(images.val)) == (("cat", "dog"), 8, 2)
    assert (images.skipped, images.notes) == ((), ())
    assert len(images_below(tmp_path).files) == 10


def test_a_folder_may_be_hidden_itself(tmp_path: Path) -> None:
    write_images(tmp_path / ".cache/photos", ("cat", "dog"), 5)
    assert len(find_images(tmp_path / ".cache/photos", 0).train) == 8


def test_names_that_are_only_like_hidden_ones_are_not() -> None:
    assert not any(map(is_hidden, ("thumbs", "recycle", "MACOSX", "cat.", "icon.png")))


# Formats


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        *[(ending, "JPEG") for ending in ("jpg", "JPEG", "jpe", "jfif", "pjpeg", "pjp", "mpo")],
        *[("png", "PNG"), ("apng", "PNG"), ("bmp", "BMP"), ("dib", "DIB"), ("gif", "GIF")],
        *[("webp", "WEBP"), ("tif", "TIFF"), ("TIFF", "TIFF"), ("ppm", "PPM"), ("pnm", "PPM")],
        pytest.param(
            *("avif", "AVIF"),
            marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF"),
        ),
    ],
)
def test_formats_that_are_read(tmp_path: Path, ending: str, kind: str) -> None:
    for name in ("cat", "dog"):
        for index in range(3):
            write(tmp_path / name / f"{index}.{ending}", 1, kind)
    data = prepare(find_images(tmp_path, 0), (3, 8, 8), None)
    assert (len(data.train), len(data.val), data.skipped) == (4, 2, ())
    pixels = np.asarray(decode(tmp_path / f"cat/0.{ending}", 3)).astype(float)
    assert pixels.mean(axis=(0, 1)).argmax() == 1


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        *[
            ("heic", "HEIC"),
            ("HEIF", "HEIC"),
            ("jxl", "JPEG XL"),
            ("svg", "SVG"),
            ("jp2", "JPEG 2000"),
        ],
        *[("CR2", "camera raw"), ("dng", "camera raw"), ("psd", "Photoshop"), ("tga", "TGA")],
    ],
)
def test_formats_that_are_not_read_are_named_with_a_way_out(
    tmp_path: Path, ending: str, name: str
) -> None:
    write_images(tmp_path, ("cat", "dog"), 5)
    (tmp_path / f"cat/x.{ending}").write_bytes(b"?")
    skipped = find_images(tmp_path, 0).skipped
    reason = f"{name} is not read: save it as JPEG, PNG or WebP"
    assert told(skipped) == {f"cat/x.{ending}": reason}


def test_no_format_is_both_read_and_unread() -> None:
    assert not FORMATS.keys() & UNREAD.keys()
    assert (".avif" in FORMATS) != (".avif" in UNREAD)
    assert all(ending == ending.lower() and ending[0] == "." for ending in (*FORMATS, *UNREAD))


def test_a_class_whose_images_are_all_passed_over_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    write_images(tmp_path, ("cat", "dog"), 5)
    for index in range(3):
        (tmp_path / "fox").mkdir(exist_ok=True)
        (tmp_path / f"fox/{index}.heic").touch()
    images = find_images(tmp_path, 0)
    assert images.classes == ("cat", "dog", "fox")
    with pytest.raises(UserError) as caught:
        prepare(images, (3, 8, 8), None)
    (mistake,) = caught.value.diagnostics
    assert isinstance(mistake, diagnostics.NoReadableImages)
    assert (mistake.name, mistake.reason) == (
        "fox",
        "3 left out, the first of them fox/0.heic: HEIC is not read: save it as JPEG, PNG or WebP",
    )


def test_a_folder_whose_images_are_all_passed_over_says_why(tmp_path: Path) -> None:
    for path in ("cat/1.heic", "cat/2.heic", "dog/1.svg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    with pytest.raises(UserError) as caught:
        find_images(tmp_path, 0)
    assert render(caught.value.diagnostics[0]).replace(str(tmp_path), "D") == (
        "error: no image in `D` can be used\n"
        "  3 passed over, the first of them cat/1.heic: HEIC is not read: save it as JPEG, PNG or "
        "WebP\n"
        "  help: give each class images that can be read"
    )


def test_other_files_are_counted_by_their_endings(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), 5)
    for index in range(3):
        (tmp_path / f"cat/{index}.xml").touch()
    (tmp_path / "README").touch()
    assert find_images(tmp_path, 0).notes == (
        f"{tmp_path} holds other files, too, that are no images by their names: "
        "3 .xml, 1 without an ending.",
    )
    write_images(tmp_path / "none", ("cat",), 0)
    (tmp_path / "none/cat/1").touch()
    with pytest.raises(UserError) as caught:
        find_images(tmp_path / "none", 0)
    assert "there are others: 1 without an ending" in render(caught.value.diagnostics[0])


# Places


def test_images_that_belong_to_nothing_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "classes", ("cat", "dog"), 5)
    write(tmp_path / "classes/stray.png")
    assert told(find_images(tmp_path / "classes", 0).skipped) == {
        "stray.png": "it lies in no class folder"
    }
    for part in ("train", "val"):
        write_images(tmp_path / "parts" / part, ("cat", "dog"), 2)
    write(tmp_path / "parts/stray.png")
    write(tmp_path / "parts/val/alone.png")
    skipped = find_images(tmp_path / "parts", 0).skipped
    assert [(each.part, each.name, each.reason) for each in skipped] == [
        ("val", "alone.png", "it lies in no class folder"),
        ("", "stray.png", "it lies in no part"),
    ]


def test_links_to_files_are_followed_and_those_to_folders_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "set", ("cat", "dog"), 5)
    write_images(tmp_path / "other", ("more",), 2)
    (tmp_path / "set/cat/linked.png").symlink_to(tmp_path / "other/more/0.png")
    (tmp_path / "set/cat/more").symlink_to(tmp_path / "other/more")
    (tmp_path / "set/cat/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/emu").symlink_to(tmp_path / "not-mounted")
    (tmp_path / "set/fox").symlink_to(tmp_path / "other/more")
    images = find_images(tmp_path / "set", 0)
    assert images.classes == ("cat", "dog", "fox")
    assert len(images.train) + len(images.val) == 13
    assert told(images.skipped) == {
        "cat/loop/": "a link to a folder, which is not followed",
        "cat/more/": "a link to a folder, which is not followed",
        "emu": "a link that leads nowhere",
    }


def test_names_may_hold_anything(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), 5)
    for name in (b"a\nb.png", b"\xff.png", b"-rf.png", b"A.png", b"a.png", b"a.PNG", b" .png"):
        with open(os.path.join(os.fsencode(tmp_path), b"cat", name), "wb") as file:
            Image.fromarray(picture(0, 0)).save(file, "PNG")
    write(tmp_path / "Cat/deep/0.png")
    data = prepare(find_images(tmp_path, 0), (3, 8, 8), None)
    assert data.classes == ("Cat", "cat", "dog")
    assert (len(data.train) + len(data.val), data.skipped) == (18, ())


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([], "nothing"),
        (["a/notes.txt", ".x/1.png"], "nothing"),
        (["1.png"], "images"),
        (["1.heic", "a/notes.txt"], "images"),
        (["a/b/1.png"], "folders"),
        (["1.png", "a/1.png"], "both"),
    ],
)
def test_where_images_lie_in_a_folder(tmp_path: Path, paths: list[str], found: str) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert holds(tmp_path) == found


# The table of what was left out


def test_the_table_of_a_run_names_every_image_that_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "skipped.csv"
    write_skipped(path, ())
    assert not path.exists()
    names = ("cat/1.png", "a,b\nc.png", "\udcff.png", 'é"')
    write_skipped(path, [Skipped(name, "not an image", "val") for name in names])
    rows = [*csv.reader(io.StringIO(path.read_text("utf-8"), newline=""))]
    assert rows[0] == ["part", "name", "reason"]
    assert [row[1] for row in rows[1:]] == ["cat/1.png", "a,b\nc.png", "\\xff.png", 'é"']
    assert {(row[0], row[2]) for row in rows[1:]} == {("val", "not an image")}
