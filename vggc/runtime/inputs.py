"""From a user's file to the images that an artifact takes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray
from PIL import Image

from vggc.ir.ops import describe
from vggc.runtime import diagnostics
from vggc.runtime.artifact import Manifest
from vggc.support.diagnostics import UserError
from vggc.support.memory import free_memory
from vggc.support.paths import absence, is_file
from vggc_runtime.files import open_file
from vggc_runtime.preprocessing import IMAGE_CHANNELS, BrokenImageError, check_size

MAX_BYTES = 1 << 30

GREATEST = 255
"""The greatest value of a pixel."""


class ReadImages(NamedTuple):
    """Images (N, C, H, W) as a net takes them, and the width and height of the picture that each
    was cut from; none where they were given as values.
    """

    values: NDArray[np.float32]
    pictures: tuple[tuple[int, int], ...] = ()


def read_input(path: Path, manifest: Manifest) -> ReadImages:
    """What is in a file: values as they are, of one of the artifact's sizes, or pictures prepared
    for its main size.

    Raises: UserError when the file is missing, broken, too large or of another shape.
    """
    if not is_file(path):
        hint = "give an image file or a .npy file"
        raise UserError(diagnostics.BadInput(str(path), absence(path), hint))
    read = _read_array if path.suffix.lower() == ".npy" else _read_image
    return read(path, manifest)


def _read_image(path: Path, manifest: Manifest) -> ReadImages:
    how = manifest.preprocessing
    try:
        picture = how.open(path)
        return ReadImages(how.of(picture), (picture.size,))
    except BrokenImageError as error:
        raise UserError(
            diagnostics.BadInput(str(path), str(error), "is it a whole image file?")
        ) from None


def _read_array(path: Path, manifest: Manifest) -> ReadImages:
    try:
        array = array_in(path)
        if array.dtype.kind in "iu":
            return _pictures(as_pixels(array), manifest)
        return ReadImages(_values(array, manifest))
    except (NoInputError, BrokenImageError) as fault:
        hint = getattr(fault, "hint", None) or (
            f"numpy.save keeps normalised values as floats of shape {_or(manifest.inputs)}, "
            f"and pixels from 0 to {GREATEST} as uint8"
        )
        raise UserError(diagnostics.BadInput(str(path), str(fault), hint)) from None


def _or(each: Iterable[object]) -> str:
    return " or ".join(map(str, each))


# Arrays


class NoInputError(Exception):
    """An array cannot be a net's input; the message says why, and the `hint` what else to do."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


MAX_HEADER = 4_096
"""The most bytes of a header: that of an array of numbers takes 128."""

HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
"""The versions of the format; the third differs in the names of columns only."""


def array_in(path: Path) -> NDArray[Any]:
    """The array in a .npy file. No memory is taken by what its header says of it.

    Raises:
        NoInputError: it cannot be read, is larger than a GiB or no array of numbers.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise NoInputError(f"it is larger than {MAX_BYTES >> 30} GiB")
            head = io.BytesIO(file.read(MAX_HEADER))
            shape, is_fortran, dtype = header_in(head)
            found = size - head.tell()
            if prod(shape) * dtype.itemsize != found:
                raise NoInputError(f"{found:,} bytes behind its header are not what it tells of")
            if found == 0:
                raise NoInputError("it holds no image")
            file.seek(head.tell())
            array = np.frombuffer(file.read(found), dtype)
    except OSError as fault:
        raise NoInputError(fault.strerror or str(fault)) from None
    return array.reshape(shape, order="F" if is_fortran else "C")


def header_in(head: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array of numbers, by what a file begins with.

    Raises:
        NoInputError: it does not begin as a .npy file of numbers does.
    """
    try:
        shape, is_fortran, dtype = HEADERS[read_magic(head)](head, max_header_size=MAX_HEADER)
    except Exception:  # whatever numpy makes of hostile bytes
        raise NoInputError("it is not a .npy file of numbers") from None
    if dtype.hasobject or dtype.kind not in "biufc" or min(shape, default=0) < 0:
        raise NoInputError("it is not a .npy file of numbers")
    return shape, is_fortran, dtype


def refuse_many(count: int, shape: tuple[int, ...]) -> None:
    """Refuses more images of a shape than there is memory for, as the net takes them, before any is
    taken.
    """
    needed, free = count * prod(shape) * np.dtype(np.float32).itemsize, free_memory()
    if needed > free:
        reason = f"its {count:,} images take {needed / 1e9:,.1f} GB as the net takes them"
        raise NoInputError(f"{reason}, and {free / 1e9:,.1f} GB are free", "give fewer at a time")


def as_pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Whole numbers as the pixels from 0 to 255 that they are: never normalised values.

    Raises:
        NoInputError: they are none, or not clearly so.
    """
    if array.dtype == np.uint8:
        return array
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > GREATEST:
        reason = f"it holds {array.dtype} from {low} to {high}, and pixels go from 0 to {GREATEST}"
        raise NoInputError(reason)
    if high <= 1:
        reason = f"it holds {array.dtype} from {low} to {high}: as pixels all of it would be black"
        raise NoInputError(reason)
    return array.astype(np.uint8)


def _values(array: NDArray[Any], manifest: Manifest) -> NDArray[np.float32]:
    """Normalised values as they are, float32 (N, C, H, W)."""
    if array.dtype.kind != "f":
        raise NoInputError(f"it holds {array.dtype}, which is neither pixels nor normalised values")
    if array.shape[-3:] not in manifest.inputs or array.ndim > 4:
        shapes = _or(map(describe, manifest.inputs))
        raise NoInputError(
            f"it holds {array.dtype} of shape {array.shape}, and the net takes {shapes}"
        )
    refuse_many(len(array) if array.ndim == 4 else 1, array.shape[-3:])
    with np.errstate(over="ignore"):
        images: NDArray[np.float32] = np.array(array, np.float32).reshape(-1, *array.shape[-3:])
    if not np.isfinite(images).all():
        raise NoInputError("it holds values that are not finite")
    return images


def _pictures(array: NDArray[np.uint8], manifest: Manifest) -> ReadImages:
    """Pixels prepared as those of an image file, float32 (N, C, H, W)."""
    channels = manifest.input[0]
    if channels not in IMAGE_CHANNELS:
        raise NoInputError(f"it holds pixels, which a net of {channels} channels does not take")
    refuse_many(len(array) if array.ndim == 4 else 1, manifest.input)
    prepare = manifest.preprocessing.of
    each, sizes = [], []
    for picture in _images(array, channels):
        each.append(prepare(picture))
        sizes.append(picture.size)
    return ReadImages(np.concatenate(each), tuple(sizes))


def _images(array: NDArray[np.uint8], channels: int) -> Iterator[Image.Image]:
    """The images of pixels (H, W), (H, W, C), (C, H, W), or several of the latter two."""
    each = array if array.ndim == 4 else array[None]
    sides = [axis for axis in (1, 3) if each.ndim == 4 and each.shape[axis] == channels]
    if array.ndim != 2 and len(sides) != 1:
        raise NoInputError(
            f"it holds pixels of shape {array.shape}, and which of them are the {channels} "
            f"{'channels' if channels > 1 else 'channel'} of each image cannot be told"
        )
    for pixels in each if sides in ([], [3]) else each.transpose(0, 2, 3, 1):
        check_size(pixels.shape[1], pixels.shape[0])
        plain = np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
        yield Image.fromarray(plain).convert("RGB" if channels == 3 else "L")
