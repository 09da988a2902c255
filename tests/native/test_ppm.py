"""The reader of PPM files that the example program of a library has."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.c_programs import ADDRESSES, compiled, needs_cc

pytestmark = needs_cc

DRIVER = Path(__file__).with_name("ppm_driver.c")
PIXELS = bytes(range(2 * 3 * 3))
SIZE = "its width and height are not those of a picture of up to 89,478,485 pixels"
DEPTH = "its colours are not of 8 bits: its largest value has to be 255"
SHORT = "it ends before its picture does"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(DRIVER, tmp_path_factory.mktemp("ppm"), *ADDRESSES)


def told(program: Path, data: bytes, folder: Path) -> tuple[int, int, bytes] | str:
    """Width, height and pixels in a file of such bytes, or why there are none."""
    file = folder / "picture.ppm"
    file.write_bytes(data)
    done = subprocess.run([program, file], capture_output=True)
    if done.returncode:
        assert (done.returncode, done.stdout) == (1, b"")
        return done.stderr.decode()
    width, height = struct.unpack_from("2q", done.stdout)
    return width, height, done.stdout[16:]


@pytest.mark.parametrize(
    "header",
    [
        b"P6\n3 2\n255\n",
        b"P6 3 2 255 ",
        b"P6\t\r\n 3\v\f2\r255\t",
        b"P6\n# by a camera: 9 9 255\n3 # wide\n#\n 2\n# 65535\n255\n",
        b"P6 # a comment ends with the line\r3 2 255\n",
        b"P6\n0003 02 0255\n",
    ],
)
def test_a_header_is_read_as_the_format_says(program: Path, tmp_path: Path, header: bytes) -> None:
    assert told(program, header + PIXELS, tmp_path) == (3, 2, PIXELS)


def test_what_follows_the_picture_is_left_alone(program: Path, tmp_path: Path) -> None:
    assert told(program, b"P6 3 2 255\n" + PIXELS + b"P6 9", tmp_path) == (3, 2, PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (37, 5), (640, 480)])
def test_what_others_write_is_read(program: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PPM")
    assert told(program, file.getvalue(), tmp_path) == (*size, pixels.tobytes())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a PPM file (P6)"),
        (b"P", "not a PPM file (P6)"),
        (b"P6", "not a PPM file (P6)"),
        (b"P63 2 255\n", "not a PPM file (P6)"),
        (b"P5 3 2 255\n" + PIXELS, "not a PPM file (P6)"),
        (b"P3 3 2 255\n1 2 3", "not a PPM file (P6)"),
        (b"\x89PNG\r\n\x1a\n", "not a PPM file (P6)"),
        (b"P6 ", SIZE),
        (b"P6 # no end", SIZE),
        (b"P6 3", SIZE),
        (b"P6 3 x 255\n" + PIXELS, SIZE),
        (b"P6 -3 2 255\n" + PIXELS, SIZE),
        (b"P6 0 2 255\n", SIZE),
        (b"P6 3 0 255\n", SIZE),
        (b"P6 3.0 2 255\n" + PIXELS, SIZE),
        (b"P6 89478486 1 255\n" + PIXELS, SIZE),
        (b"P6 9460 9459 255\n" + PIXELS, SIZE),
        (b"P6 1 " + b"9" * 4000 + b" 255\n", SIZE),
        (b"P6 18446744073709551619 2 255\n" + PIXELS, SIZE),
        (b"P6 3 2 254\n" + PIXELS, DEPTH),
        (b"P6 3 2 65535\n" + PIXELS * 2, DEPTH),
        (b"P6 3 2 0\n" + PIXELS, DEPTH),
        (b"P6 3 2\n", DEPTH),
        (b"P6 3 2 255", DEPTH),
        (b"P6 3 2 255#\n" + PIXELS, DEPTH),
        (b"P6 3 2 255\n", SHORT),
        (b"P6 3 2 255\n" + PIXELS[:-1], SHORT),
        (b"P6 9459 9459 255\n" + PIXELS, SHORT),
    ],
)
def test_what_is_no_such_file_is_refused(
    program: Path, tmp_path: Path, data: bytes, reason: str
) -> None:
    assert told(program, data, tmp_path) == reason


def test_a_file_that_is_not_there_is_told(program: Path, tmp_path: Path) -> None:
    done = subprocess.run([program, tmp_path / "none.ppm"], capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"it cannot be opened")
