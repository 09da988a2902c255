"""Boxes turn with their pictures, and are measured in what annotations take pictures to be."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from vggc.data.annotations.sizes import size_in
from vggc.data.annotations.upright import frames_of, in_frames, upright
from vggc_runtime.preprocessing import TURNS, BrokenImageError, decode

ORIENTATIONS = st.integers(1, 8)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """The size of a picture, and a box of whole pixels within it."""
    width, height = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return (width, height), (left, top, right, bottom)


def bright(pixels: np.ndarray) -> tuple[float, ...]:
    """The box around the bright pixels, as shares of the picture."""
    rows, columns = np.nonzero(pixels)
    height, width = pixels.shape
    left, right = columns.min() / width, (columns.max() + 1) / width
    return left, rows.min() / height, right, (rows.max() + 1) / height


@given(drawn=boxes(), orientation=ORIENTATIONS)
def test_a_box_turns_as_the_pixels_in_it_do(
    drawn: tuple[tuple[int, int], tuple[int, int, int, int]], orientation: int
) -> None:
    (width, height), (left, top, right, bottom) = drawn
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = 255
    image = Image.fromarray(pixels)
    turn = TURNS.get(orientation)
    turned = image if turn is None else image.transpose(turn)
    share = np.asarray([[left / width, top / height, right / width, bottom / height]])
    found = upright(share, np.asarray([orientation]))[0]
    assert found == pytest.approx(bright(np.asarray(turned)))


@given(drawn=boxes(), orientation=ORIENTATIONS, scale=st.integers(1, 4))
def test_a_box_lies_in_an_upright_picture_where_it_was_drawn_in_the_file(
    drawn: tuple[tuple[int, int], tuple[int, int, int, int]], orientation: int, scale: int
) -> None:
    """Whoever annotates what the file has declares its size, where that is not the upright one."""
    (width, height), box = drawn
    pixels = np.zeros((height, width), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    lying = size_in(io.BytesIO(file.getvalue()))
    assert lying == (width, height, orientation)
    shown = np.asarray(decode(io.BytesIO(file.getvalue()), 1))
    size = np.asarray([[width, height]]) * float(scale)
    frames = frames_of(size, np.asarray([[width, height]], float), np.asarray([orientation]))
    assert frames.fit.all()
    if orientation < 5 or width == height:
        assert frames.orientations.tolist() == [1]  # the size does not tell
        return
    found, faults, cut = in_frames(np.asarray([box], float) * scale, frames)
    if max(width, height) > 1.03 * min(width, height):
        assert found[0] == pytest.approx(bright(shown))
    assert not any(which.any() for which in faults.values())
    assert not cut.any()


def frame(declared: tuple[float, float], orientation: int = 1) -> tuple[list[float], int, bool]:
    """What a picture whose file is 400 wide and 300 high is measured in, if annotated so."""
    stored = np.asarray([[400, 300]], float)
    found = frames_of(np.asarray([declared], float), stored, np.asarray([orientation]))
    return found.sizes[0].tolist(), int(found.orientations[0]), bool(found.fit[0])


def test_the_declared_size_tells_how_a_picture_was_looked_at() -> None:
    assert frame((400, 300)) == ([400, 300], 1, True)
    assert frame((300, 400), 6) == ([300, 400], 1, True)
    assert frame((400, 300), 6) == ([400, 300], 6, True)


def test_a_size_that_is_not_told_is_that_of_the_upright_picture() -> None:
    for size in ((0, 0), (0, 300), (-1, 300), (float("nan"), 300), (float("inf"), 300)):
        assert frame(size) == ([400, 300], 1, True)
        assert frame(size, 8) == ([300, 400], 1, True)


def test_a_picture_may_have_been_made_larger_or_smaller() -> None:
    assert frame((800, 600)) == ([800, 600], 1, True)
    assert frame((150, 200), 6) == ([150, 200], 1, True)
    assert frame((200, 150), 6) == ([200, 150], 6, True)
    assert frame((401, 300))[2]


def test_a_picture_of_another_aspect_is_another_picture() -> None:
    assert not frame((300, 400))[2]
    assert not frame((400, 310))[2]
    assert not frame((1e300, 1e-300))[2]


def faults(*box: float) -> list[str]:
    unit = frames_of(np.asarray([[10.0, 10.0]]), np.asarray([[10.0, 10.0]]), np.asarray([1]))
    _, found, _ = in_frames(np.asarray([box]), unit)
    return [reason for reason, which in found.items() if which[0]]


def test_boxes_that_are_none_are_told_apart() -> None:
    assert faults(1, 1, 9, 9) == []
    assert faults(9, 1, 1, 9) == ["its box is inverted"]
    assert faults(1, 1, 1, 9) == ["its box has no area"]
    assert faults(10, 1, 12, 9) == ["its box lies outside of the picture"]
    assert faults(-3, -3, 0, 5) == ["its box lies outside of the picture"]
    for value in (float("nan"), float("inf"), -float("inf")):
        assert faults(1, 1, value, 9) == ["its box is not finite"]


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, width=64)] * 4), min_size=1, max_size=20))
def test_what_is_no_fault_is_a_box_within_its_picture(drawn: list[tuple[float, ...]]) -> None:
    sizes, count = np.asarray([[7.0, 5.0]] * len(drawn)), len(drawn)
    frames = frames_of(sizes, sizes, np.ones(count, np.int64))
    found, told, _ = in_frames(np.asarray(drawn), frames)
    sound = found[~np.any([*told.values()], axis=0)]
    assert ((sound >= 0) & (sound <= 1)).all()
    assert (sound[:, :2] < sound[:, 2:]).all()


def test_a_box_that_reaches_over_an_edge_is_cut_there() -> None:
    size = np.asarray([[10.0, 20.0]] * 2)
    frames = frames_of(size, size, np.asarray([1, 1]))
    found, _, cut = in_frames(np.asarray([[-5.0, 5, 5, 30], [0, 0, 10.0005, 20]]), frames)
    assert found.tolist() == [[0, 0.25, 0.5, 1], [0, 0, 1, 1]]
    assert cut.tolist() == [True, False]  # the second is only rounded


# Sizes


def test_a_png_may_tell_how_it_lies_before_its_pixels_or_behind_them() -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    file = io.BytesIO()
    Image.new("L", (3, 2)).save(file, "PNG", exif=exif)
    content = file.getvalue()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    bare, piece = content[:start] + content[end:], content[start:end]
    last = bare.index(b"IEND") - 4
    late = bare[:last] + piece + bare[last:]
    assert size_in(io.BytesIO(content)) == size_in(io.BytesIO(late)) == (3, 2, 6)
    assert size_in(io.BytesIO(bare)) == (3, 2, 1)


def test_a_png_may_tell_how_it_lies_in_xmp() -> None:
    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    file = io.BytesIO()
    Image.new("L", (3, 2)).save(file, "PNG", pnginfo=xmp)
    assert size_in(io.BytesIO(file.getvalue())) == (3, 2, 8)


@given(st.binary(max_size=64), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]))
def test_any_bytes_have_a_size_or_a_reason(noise: bytes, start: bytes) -> None:
    with suppress(BrokenImageError):
        width, height, _ = size_in(io.BytesIO(start + noise))
        assert min(width, height) > 0


@pytest.mark.parametrize("ending", ["jpg", "webp", "tiff", "gif", "bmp", "ppm"])
def test_other_formats_tell_their_sizes(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / f"a.{ending}")
    with (tmp_path / f"a.{ending}").open("rb") as file:
        assert size_in(file) == (30, 20, 1)


def test_a_jpeg_tells_how_it_lies() -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 5
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "JPEG", exif=exif)
    assert size_in(io.BytesIO(file.getvalue())) == (30, 20, 5)
