"""What `vggc run` makes of a file: pixels, or values that are normalised already."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.training_data import picture
from vggc.runtime import inputs as module
from vggc.runtime.artifact import ArtifactEntry
from vggc.runtime.diagnostics import BadInput
from vggc.runtime.inputs import MAX_HEADER, read_input
from vggc.support.diagnostics import UserError, render
from vggc_runtime.preprocessing import Preprocessing


def manifest(channels: int = 3, batch: int = 4) -> Any:
    """As far as it is asked, that of a net for images of 8×8."""
    mean, std = (0.4, 0.5, 0.6, 0.5)[:channels], (0.2, 0.3, 0.25, 0.5)[:channels]
    preprocessing = Preprocessing((8, 8), 10, mean, std)
    largest = ArtifactEntry(batch, (8, 8), ())
    shape = (channels, 8, 8)
    return SimpleNamespace(
        input=shape, inputs=(shape,), largest=largest, preprocessing=preprocessing
    )


def read(path: Path, channels: int = 3) -> np.ndarray:
    images, _ = read_input(path, manifest(channels))
    assert images.dtype == np.float32
    assert images.shape[1:] == (channels, 8, 8)
    return images


def array(path: Path, values: np.ndarray, channels: int = 3) -> np.ndarray:
    np.save(path, values)
    return read(path, channels)


def refused(path: Path, channels: int = 3) -> BadInput:
    with pytest.raises(UserError) as error:
        read(path, channels)
    (found,) = error.value.diagnostics
    assert isinstance(found, BadInput)
    assert "\n" not in found.reason
    assert render(found).startswith("error: cannot use")
    return found


def test_pixels_are_prepared_as_those_of_an_image(tmp_path: Path) -> None:
    pixels = picture(0, 0, 12, 20)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = read(tmp_path / "x.png")
    path = tmp_path / "x.npy"
    assert (array(path, pixels) == expected).all()
    assert (array(path, pixels.transpose(2, 0, 1)) == expected).all()
    assert (array(path, np.asfortranarray(pixels)) == expected).all()
    several = np.stack([pixels, pixels, 255 - pixels])
    found = array(path, several)
    assert (found[:2] == expected).all()
    assert (found == array(path, several.transpose(0, 3, 1, 2))).all()
    for kind in (np.int16, np.uint16, np.int64, ">i4"):
        assert (array(path, several.astype(kind)) == found).all()
    path.rename(tmp_path / "X.NPY")
    assert (read(tmp_path / "X.NPY") == found).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_pixels_suit_any_net_of_images(tmp_path: Path, channels: int) -> None:
    pixels = picture(0, 0, 12, 20)[:, :, 0]
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = read(tmp_path / "x.png", channels)
    assert (array(tmp_path / "x.npy", pixels, channels) == expected).all()
    if channels == 1:
        assert (array(tmp_path / "x.npy", pixels[None], 1) == expected).all()
        assert (array(tmp_path / "x.npy", pixels[:, :, None], 1) == expected).all()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_are_values_that_are_normalised_already(
    tmp_path: Path, dtype: str, order: Any
) -> None:
    values = np.linspace(-2, 2, 2 * 3 * 64).reshape(2, 3, 8, 8).astype("f2")
    assert (array(tmp_path / "x.npy", values.astype(dtype, order=order)) == values).all()
    assert (array(tmp_path / "x.npy", values[0].astype(dtype, order=order)) == values[:1]).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 8, 8), np.int64), "it holds int64 from 0 to 0: as pixels all of it would be"),
        (np.eye(8, dtype=np.uint16)[None].repeat(3, 0), "it holds uint16 from 0 to 1: as pixels"),
        (np.full((3, 8, 8), 256, np.uint16), "from 256 to 256, and pixels go from 0 to 255"),
        (np.full((3, 8, 8), -2, np.int8), "it holds int8 from -2 to -2, and pixels go from 0"),
        (np.full((3, 8, 8), 1 << 63, np.uint64), "it holds uint64 from 9223372036854775808 to"),
        (np.zeros((3, 8, 8), bool), "it holds bool, which is neither"),
        (np.zeros((3, 8, 8), complex), "it holds complex128, which is neither"),
        (np.zeros((3, 8, 8), "S4"), "not a .npy file of numbers"),
        (np.zeros((3, 8, 8), "M8[s]"), "not a .npy file of numbers"),
        (np.zeros((3, 8, 8), [("a", "f4"), ("b", "f4")]), "not a .npy file of numbers"),
        (np.zeros((8, 8, 3), np.float32), "of shape (8, 8, 3), and the net takes 3×8×8"),
        (np.zeros((0, 3, 8, 8), np.float32), "it holds no image"),
        (np.zeros((0, 3), np.uint8), "it holds no image"),
        (np.zeros((3, 8, 3), np.uint8), "which of them are the 3 channels of each image"),
        (np.zeros((8, 8, 4), np.uint8), "which of them are the 3 channels of each image"),
        (np.zeros((2, 8, 8), np.uint8), "which of them are the 3 channels of each image"),
        (np.zeros(64, np.uint8), "cannot be told"),
        (np.zeros((), np.uint8), "cannot be told"),
        (np.zeros((1, 500), np.uint8), "too long and narrow"),
        (np.full((3, 8, 8), 1e300), "not finite"),
    ],
)
def test_what_an_array_holds_may_be_no_input(
    tmp_path: Path, values: np.ndarray, words: str
) -> None:
    np.save(tmp_path / "x.npy", values)
    found = refused(tmp_path / "x.npy")
    assert words in found.reason
    assert "pixels from 0 to 255 as uint8" in found.hint


def test_pixels_are_for_nets_of_images_only(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    assert "a net of 2 channels does not take" in refused(tmp_path / "x.npy", 2).reason
    # Three grey images are none of three channels.
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8), np.uint8))
    assert "the 1 channel of each image cannot be told" in refused(tmp_path / "x.npy", 1).reason


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_more_images_than_there_is_memory_for(
    tmp_path: Path, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 3, 8, 8), dtype))
    monkeypatch.setattr(module, "free_memory", lambda: 5 * 3 * 8 * 8 * 4 - 1)
    found = refused(tmp_path / "x.npy")
    assert found.reason.startswith("its 5 images take 0.0 GB as the net takes them")
    assert found.hint == "give fewer at a time"


def npy(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A file by its header's text. Source: numpy.lib.format, "Format Version 1.0" and "2.0"."""
    size = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + header.encode("latin1") + content


def header(shape: str = "(3, 8, 8)", descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


SOUND = bytes(4 * 3 * 64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(header(), SOUND)[:40],
        npy(header(), SOUND)[:-1],
        npy(header(), SOUND + b"\0"),
        npy(header(), SOUND, (3, 0)),
        npy(header(), SOUND, (9, 9)),
        npy(header("(-3, -8, 8)"), SOUND),
        npy(header("(-1,)"), SOUND),
        npy(header("(10**9,)"), SOUND),
        npy(header(f"(0, {10**3000})")),
        npy(header(f"({10**900}, {10**900}, {10**900}, {10**900})"), SOUND),
        npy(header("(1000000000000, 3, 8, 8)"), SOUND),
        npy(header("(2.5,)"), SOUND),
        npy(header("3"), SOUND),
        npy(header(descr="'O'"), SOUND),
        npy(header(descr="'|O8'"), SOUND),
        npy(header(descr="[('a', '<f4')]"), SOUND),
        npy(header(descr="[]"), SOUND),
        npy(header(descr="'<f4,<f4'"), SOUND),
        npy(header(descr="('<f4', (1000000000,))"), SOUND),
        npy(header(descr="'nonsense'"), SOUND),
        npy(header(descr="None"), SOUND),
        npy(header(descr="'U9999999999'"), SOUND),
        npy(header(order="2"), SOUND),
        npy(header() + " " * MAX_HEADER, SOUND),
        npy("(" * 3000, SOUND),
        npy("{" * 900 + "}" * 900, SOUND),
        npy("\x00" * 100, SOUND),
        npy('"""', SOUND),
        npy("{'shape': ((((", SOUND),
        npy("__import__('os').system('false')", SOUND),
        b"\x93NUMPY\2\0\xff\xff\xff\xff" + header().encode() + SOUND,
        b"PK\3\4" + bytes(100),
        b"\x80\4K\1.",
    ],
    ids=lambda content: repr(content[:60]),
)
def test_a_damaged_array_is_refused_in_one_line_and_little_memory(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    tracemalloc.start()
    found = refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
    words = ("not a .npy file of numbers", "bytes behind its header", "it holds no image")
    assert any(word in found.reason for word in words), found.reason


def test_the_second_version_of_the_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(header(), SOUND, (2, 0)))
    assert (read(tmp_path / "x.npy") == 0).all()


def test_several_arrays_are_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.zeros((3, 8, 8), np.float32))
    assert refused(tmp_path / "x.npz").reason == "not an image"
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert "not a .npy file of numbers" in refused(tmp_path / "x.npy").reason
    stream = io.BytesIO()
    for _ in range(2):
        np.save(stream, np.zeros((3, 8, 8), np.float32))
    (tmp_path / "x.npy").write_bytes(stream.getvalue())
    assert "bytes behind its header" in refused(tmp_path / "x.npy").reason


@pytest.mark.parametrize("name", ["x.npy", "x.png"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert refused(tmp_path / name).reason == "it is not a file"
