"""Picture files as numbers: upright, over white, and with the right value of white."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import Base

from vggc.data.crops import Cut
from vggc.data.find import find_images
from vggc.data.prepare import Data, prepare
from vggc_runtime.greys import UNKNOWN, Greys
from vggc_runtime.preprocessing import BrokenImageError, Preprocessing, decode

TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)
"""Each value of twelve bits."""


def grey(path: Path, white: Greys = UNKNOWN) -> np.ndarray:
    return np.asarray(decode(path, 1, white=white)).astype(np.int64)


def saved(path: Path, values: np.ndarray, **more: Any) -> Path:
    Image.fromarray(values).save(path, **more)
    return path


def png(values: np.ndarray, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits, which Pillow does not write in colours. Kinds: 0 grey, 2 RGB, 4 with alpha.
    Source: Portable Network Graphics (W3C, third edition), sections 5 and 11.
    """
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return content


def twelve_bit_tiff(values: np.ndarray) -> bytes:
    """Two values in three bytes. Source: TIFF 6.0, section 8."""
    pairs = values.reshape(-1, 2).astype(int)
    first, second = pairs[:, 0], pairs[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    data, (height, width) = packed.astype(np.uint8).tobytes(), values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags[279] = len(data)
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    head, count = b"II*\0" + struct.pack("<I", 8 + len(data)), struct.pack("<H", len(entries))
    return b"".join([head, data, count, *entries, struct.pack("<I", 0)])


def in_bytes(values: np.ndarray) -> bytes:
    return values.astype(">u2").tobytes()


def in_words(values: np.ndarray) -> str:
    return " ".join(map(str, values.ravel().tolist()))


# Greys of more than eight bits


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.tif", lambda path: path.write_bytes(twelve_bit_tiff(TWELVE))),
        ("a.pgm", lambda path: path.write_bytes(b"P5 64 64 4095\n" + in_bytes(TWELVE))),
        ("b.pgm", lambda path: path.write_text("P2 64 64 4095\n" + in_words(TWELVE))),
        ("b.tif", lambda path: saved(path, TWELVE, tiffinfo={281: 4095})),
        ("c.tif", lambda path: saved(path, TWELVE.astype(np.int32), tiffinfo={281: 4095})),
        ("d.tif", lambda path: saved(path, TWELVE.astype(np.float32) / 4095)),
        ("a.png", lambda path: saved(path, TWELVE << 4 | TWELVE >> 8)),
        ("c.pgm", lambda path: saved(path, TWELVE << 4 | TWELVE >> 8)),
    ],
)
def test_twelve_bits_keep_their_levels_where_the_file_says_what_is_white(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path / name)
    np.testing.assert_allclose(grey(tmp_path / name), TWELVE / 4095 * 255, atol=0.6)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_greys_from_0_to_255_are_those_of_eight_bits_whatever_their_type(
    tmp_path: Path, dtype: type, compression: str | None
) -> None:
    values = np.arange(256).reshape(16, 16)
    path = saved(tmp_path / "x.tif", values.astype(dtype), compression=compression)
    assert (grey(path) == values).all()


def test_fractions_may_pass_white_and_black_by_what_a_filter_adds(tmp_path: Path) -> None:
    values = np.linspace(-0.03, 1.03, 256).astype(np.float32).reshape(16, 16)
    expected = np.clip(values, 0, 1) * 255
    np.testing.assert_allclose(grey(saved(tmp_path / "x.tif", values)), expected, atol=0.51)


def test_where_zero_is_white(tmp_path: Path) -> None:
    """Pillow turns such values over in files of 8 bits, and in deep ones it does not."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name, deep in (("8", values), ("16", values.astype(np.uint16) * 257)):
        path = saved(tmp_path / f"{name}.tif", deep, tiffinfo={262: 0})
        with Image.open(path) as image:
            assert image.tag_v2[262] == 0
            stored = np.asarray(image)
        expected = stored if name == "8" else 255 - values
        assert (grey(path) == expected).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (TWELVE, "its values reach 4,095, and nothing says what is white"),
        (TWELVE.astype(np.int32) * 100, "its values reach 409,500, and nothing says"),
        (TWELVE.astype(np.int32) - 1, "its values go down to -1, and black is 0"),
        (TWELVE.astype(np.float32), "its values reach 4,095, and nothing says"),
        (TWELVE.astype(np.float32) / 1000, "its values reach 4.095, and nothing says"),
        (TWELVE.astype(np.float32) / 4095 - 0.5, "go down to -0.5, and black is 0"),
        (np.where(TWELVE, 0.5, np.nan).astype(np.float32), "not finite"),
        (np.where(TWELVE, 0.5, np.inf).astype(np.float32), "not finite"),
    ],
)
def test_one_image_that_leaves_a_doubt_is_not_guessed_at(
    tmp_path: Path, values: np.ndarray, words: str
) -> None:
    with pytest.raises(BrokenImageError, match=words):
        grey(saved(tmp_path / "x.tif", values))


def test_what_a_net_was_trained_with_is_white_to_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", TWELVE)
    expected = TWELVE / 4095 * 255
    np.testing.assert_allclose(grey(path, Greys(whole=4095)), expected, atol=0.51)
    np.testing.assert_allclose(grey(path, Greys(whole=65_535)), TWELVE / 257, atol=0.51)
    with pytest.raises(BrokenImageError, match="its values reach 4,095, and white is 1,023"):
        grey(path, Greys(whole=1023))
    preprocessing = Preprocessing((64, 64), None, (0.0,), (1.0,), Greys(whole=4095))
    np.testing.assert_allclose(preprocessing.read(path)[0, 0], TWELVE / 4095, atol=0.51 / 255)


@pytest.mark.parametrize("kind", [2, 4])
def test_colours_of_twelve_bits_in_sixteen_are_refused_as_too_little_of_them_is_read(
    tmp_path: Path, kind: int
) -> None:
    colours = np.stack([TWELVE] * 3, 2) if kind == 2 else np.stack([TWELVE, TWELVE * 0 + 65_535], 2)
    path = tmp_path / "x.png"
    path.write_bytes(png(colours, kind))
    with pytest.raises(BrokenImageError, match="colours of 16 bits are below 4,096"):
        grey(path)
    colours[:, :, : 3 if kind == 2 else 1] <<= 4
    path.write_bytes(png(colours, kind))
    np.testing.assert_allclose(grey(path), TWELVE >> 4, atol=1)
    (tmp_path / "x.ppm").write_bytes(b"P6 64 64 4095\n" + in_bytes(np.stack([TWELVE] * 3, 2)))
    np.testing.assert_allclose(grey(tmp_path / "x.ppm"), TWELVE / 4095 * 255, atol=1)


# Of a set


def write_set(folder: Path, images: dict[str, np.ndarray]) -> None:
    for name, values in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        saved(path, values)


def prepared(folder: Path, **more: Any) -> Data:
    return prepare(find_images(folder, 0), (1, 64, 64), None, **more)


def values_of(data: Data) -> dict[str, np.ndarray]:
    centres = data.train.centres(np.arange(len(data.train)))
    return {
        data.train.part.name(index): crop.pixels[:, :, 0]
        for index, crop in enumerate(centres)
        if isinstance(crop, Cut)
    }


@pytest.mark.parametrize("room", [0, 2**30])
def test_the_largest_value_of_a_set_says_what_is_white_in_all_of_it(
    tmp_path: Path, room: int
) -> None:
    dark = TWELVE // 16
    images = {"a/bright.png": TWELVE, "b/dark.png": dark, "b/darker.png": dark // 16}
    write_set(tmp_path / "train", images)
    write_set(tmp_path / "val", {"a/1.png": TWELVE, "b/2.png": TWELVE // 2})
    for _ in range(2):  # the second time from the cache
        data = prepared(tmp_path, room=room)
        assert data.skipped == ()
        assert data.preprocessing.white == Greys(whole=4095)
        found = values_of(data)
        assert len(np.unique(found["a/bright.png"])) == 256
        for name, values in images.items():
            np.testing.assert_allclose(found[name], values / 4095 * 255, atol=0.51)
        (mean,) = data.preprocessing.mean
        whole = np.mean([values / 4095 for values in images.values()])
        assert mean == pytest.approx(whole, abs=1 / 255)
        (crop,) = data.val.centres(np.array([0]))
        assert isinstance(crop, Cut)
        assert crop.pixels.max() == 255


def test_held_out_images_have_a_say_in_what_is_white(tmp_path: Path) -> None:
    write_set(tmp_path / "train", {"a/1.png": TWELVE // 8, "b/1.png": TWELVE // 8})
    write_set(tmp_path / "val", {"a/1.png": TWELVE, "b/1.png": TWELVE // 8})
    data = prepared(tmp_path)
    assert data.preprocessing.white == Greys(whole=4095)
    assert data.skipped == ()


def test_whole_numbers_and_fractions_have_a_white_each_and_eight_bits_need_none(
    tmp_path: Path,
) -> None:
    eight = (TWELVE >> 4).astype(np.uint8)
    images = {
        "a/8.png": eight,
        "a/16.png": TWELVE * 16,
        "b/1.tif": TWELVE.astype(np.float32),
        "b/2.tif": TWELVE.astype(np.float32) / 4095,
    }
    write_set(tmp_path / "train", images)
    write_set(tmp_path / "val", {"a/1.png": eight, "b/1.png": eight})
    data = prepared(tmp_path)
    assert data.preprocessing.white == Greys(whole=65_535, real=4095)
    found = values_of(data)
    assert (found["a/8.png"] == eight).all()
    assert (found["b/2.tif"] == 0).all()
    for name in ("a/16.png", "b/1.tif"):
        np.testing.assert_allclose(found[name], TWELVE / 4095 * 255, atol=0.6)


def test_a_set_without_a_sensible_white_is_left_out_by_name(tmp_path: Path) -> None:
    sound = (TWELVE >> 4).astype(np.uint8)
    images = {"a/1.png": sound, "b/1.png": sound, "b/2.tif": TWELVE.astype(np.float32) / 1000}
    write_set(tmp_path / "train", images)
    write_set(tmp_path / "val", {"a/1.png": sound, "b/1.png": sound})
    (skipped,) = prepared(tmp_path).skipped
    assert skipped.name == "b/2.tif"
    assert skipped.reason.startswith("its values reach 4.095, and nothing says what is white")


# Transparency


RED, CLEAR = (255, 0, 0), (10, 20, 30)


def half_clear() -> Image.Image:
    """Opaque red, half transparent red, and a dark colour that nobody sees."""
    image = Image.new("RGBA", (12, 8), (*RED, 255))
    image.paste((*RED, 128), (4, 0, 8, 8))
    image.paste((*CLEAR, 0), (8, 0, 12, 8))
    return image


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.tif"])
def test_transparent_pictures_are_laid_over_white(tmp_path: Path, name: str) -> None:
    half_clear().save(tmp_path / name, **WAYS[name])
    pixels = np.asarray(decode(tmp_path / name, 3))
    assert (pixels[:, :4] == RED).all()
    np.testing.assert_allclose(pixels[:, 4:8], np.broadcast_to([255, 127, 127], (8, 4, 3)), atol=1)
    assert (pixels[:, 8:] == 255).all()
    assert (grey(tmp_path / name)[:, 8:] == 255).all()


@pytest.mark.parametrize("name", ["x.gif", "palette.png", "key.png", "grey.png", "la.png", "1.png"])
def test_so_are_those_with_a_transparent_colour(tmp_path: Path, name: str) -> None:
    values = np.zeros((8, 12), np.uint8)
    values[:, 6:] = 1
    path = tmp_path / name
    match name:
        case "x.gif" | "palette.png":
            image = Image.fromarray(values, "P")
            image.putpalette([200, 0, 0, 10, 20, 30])
            image.save(path, transparency=1)
        case "key.png":
            colours = np.where(values[:, :, None] == 1, CLEAR, (200, 0, 0)).astype(np.uint8)
            Image.fromarray(colours).save(path, transparency=CLEAR)
        case "grey.png":
            Image.fromarray(values * 30 + 60).save(path, transparency=90)
        case "la.png":
            Image.fromarray(np.stack([values * 30 + 60, 255 - values * 255], 2), "LA").save(path)
        case _:
            Image.fromarray(values == 0).save(path, transparency=0)
    pixels = np.asarray(decode(path, 3))
    assert (pixels[:, 6:] == 255).all()
    assert (pixels[:, :6] < 255).any() or name == "1.png"


def test_and_deep_greys_with_one(tmp_path: Path) -> None:
    values = TWELVE << 4
    (tmp_path / "x.png").write_bytes(png(values, 0, (b"tRNS", struct.pack(">H", 16 * 7))))
    found = grey(tmp_path / "x.png").ravel()
    assert found[7] == 255
    assert found[6] == found[8] == 0


# Orientation


TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = (0, 0), (0, -1), (-1, 0), (-1, -1)
LIES = {
    1: (TOP_LEFT, TOP_RIGHT),
    2: (TOP_RIGHT, TOP_LEFT),
    3: (BOTTOM_RIGHT, BOTTOM_LEFT),
    4: (BOTTOM_LEFT, BOTTOM_RIGHT),
    5: (TOP_LEFT, BOTTOM_LEFT),
    6: (TOP_RIGHT, BOTTOM_RIGHT),
    7: (BOTTOM_RIGHT, TOP_RIGHT),
    8: (BOTTOM_LEFT, TOP_LEFT),
}
"""Where the first and the last pixel of the first row that is stored are seen, by orientation.
Source: Exif 2.32, 4.6.4, tag 0x0112: which side the 0th row and the 0th column are.
"""

WAYS: dict[str, dict[str, Any]] = {
    "x.jpg": {"quality": 95},
    "x.png": {},
    "x.webp": {"lossless": True},
    "x.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
}


def lying(path: Path, number: int, size: tuple[int, int] = (96, 48), deep: bool = False) -> None:
    """A picture (W, H) whose first row begins white and ends in grey, on black."""
    width, height = size
    values = np.zeros((height, width), np.uint16 if deep else np.uint8)
    values[: height // 2, : width // 2] = 65_535 if deep else 255
    values[: height // 2, width // 2 :] = 128 * (257 if deep else 1)
    exif = Image.Exif()
    exif[Base.Orientation] = number
    saved(path, values, exif=exif, **WAYS[path.name])


@pytest.mark.parametrize("number", LIES)
@pytest.mark.parametrize("name", WAYS)
def test_pictures_are_set_upright(tmp_path: Path, name: str, number: int) -> None:
    path, (white, half) = tmp_path / name, LIES[number]
    lying(path, number)
    pixels = grey(path)
    assert pixels.shape == ((96, 48) if number >= 5 else (48, 96))
    assert (pixels[white], pixels[half]) == (255, pytest.approx(128, abs=2))
    if name.endswith((".tif", ".png")):
        lying(path, number, deep=True)
        assert (grey(path) == pixels).all()


@pytest.mark.parametrize("number", LIES)
def test_a_jpeg_is_decoded_small_along_its_true_sides(tmp_path: Path, number: int) -> None:
    """Of 1600×400, lying on its side, a fraction of the size still covers 100×300."""
    lying(tmp_path / "x.jpg", number, (1600, 400))
    least = (None, (300, 100) if number >= 5 else (100, 300))
    small = decode(tmp_path / "x.jpg", 1, least)
    assert small.size == ((100, 400) if number >= 5 else (400, 100))
    pixels, (white, half) = np.asarray(small), LIES[number]
    assert (pixels[white], pixels[half]) == (255, pytest.approx(128, abs=2))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_orientation_that_is_none_changes_nothing(tmp_path: Path) -> None:
    for content in (b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0nonsense", b"Exif\0\0"):
        Image.new("L", (20, 10), 9).save(tmp_path / "x.jpg", exif=content)
        assert grey(tmp_path / "x.jpg").shape == (10, 20)
    lying(tmp_path / "x.jpg", 77)
    assert grey(tmp_path / "x.jpg").shape == (48, 96)


# Other kinds


def test_colours_of_printers_and_of_video_are_those_that_are_seen(tmp_path: Path) -> None:
    colours = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)]
    image = Image.new("RGB", (64, 16))
    for index, colour in enumerate(colours):
        image.paste(colour, (16 * index, 0, 16 * index + 16, 16))
    for mode, name in (("CMYK", "x.jpg"), ("CMYK", "x.tif"), ("YCbCr", "y.tif"), ("P", "x.png")):
        image.convert(mode).save(tmp_path / name, quality=95)
        pixels = np.asarray(decode(tmp_path / name, 3))[8, 8::16]
        np.testing.assert_allclose(pixels, colours, atol=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_so_are_colours_of_lab(tmp_path: Path, channels: int) -> None:
    lab = ImageCms.createProfile("LAB")
    image = Image.new("RGB", (8, 8), (90, 90, 90))
    seen = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    assert seen is not None
    seen.save(tmp_path / "x.tif")
    np.testing.assert_allclose(np.asarray(decode(tmp_path / "x.tif", channels)), 90, atol=3)


def test_of_several_images_in_a_file_it_is_the_first(tmp_path: Path) -> None:
    first, second = (Image.new("L", (10, 10), value) for value in (40, 200))
    for name in ("x.gif", "x.tif", "x.webp", "x.png"):
        lossless = {"lossless": True} if name == "x.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **lossless)
        assert (grey(tmp_path / name) == 40).all()


def test_a_picture_in_memory_is_decoded_as_its_file(tmp_path: Path) -> None:
    lying(tmp_path / "x.jpg", 6)
    content = io.BytesIO((tmp_path / "x.jpg").read_bytes())
    assert (np.asarray(decode(content, 1)) == grey(tmp_path / "x.jpg")).all()
