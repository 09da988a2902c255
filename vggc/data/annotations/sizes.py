"""How large pictures are, and how they lie: from the headers of their files alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from vggc.data.annotations.described import in_threads
from vggc_runtime.files import open_file
from vggc_runtime.preprocessing import FORMATS, BrokenImageError, orientation, reason

Lying: TypeAlias = tuple[int, int, int]
"""Width and height as a file has them, and the orientation in which they are to be shown."""

KINDS = tuple(dict.fromkeys(["JPEG", *FORMATS.values()]))
PNG = b"\x89PNG\r\n\x1a\n"
RAW = "Raw profile type exif"
TOLD_IN = (b"XML:com.adobe.xmp", RAW.encode())
"""The texts in a PNG that may say how it lies."""
MAX_PIECES = 1 << 17
"""The most pieces of a PNG that are looked at."""


def sizes_of(folder: Path, names: Sequence[str]) -> list[Lying | BrokenImageError]:
    """The sizes of pictures below a folder; the reason in the place of one that is broken."""
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of odd files; limits are our own
        return [*in_threads(partial(size_at, folder), names)]


def size_at(folder: Path, name: str) -> Lying | BrokenImageError:
    """The size of the picture in a file, or why it has none."""
    try:
        with open_file(folder / name) as file:
            return size_in(file)
    except BrokenImageError as fault:
        return fault
    except OSError as fault:
        return BrokenImageError(reason(fault))


def size_in(file: BinaryIO) -> Lying:
    """The size of the picture that a file holds, of which no more is read than tells it.

    Raises:
        BrokenImageError: it holds none.
    """
    try:
        late = tells_late(file)
        file.seek(0)
        with Image.open(file, formats=KINDS) as image:
            width, height = image.size
            if width < 1 or height < 1:
                raise BrokenImageError("it has no pixels")
            if isinstance(image, PngImageFile) and not late and RAW not in image.info:
                image.info.setdefault("exif", b"")  # without which Pillow would load the pixels
            return width, height, orientation(image)
    except BrokenImageError:
        raise
    except Exception as fault:  # whatever a decoder does on hostile bytes
        raise BrokenImageError(reason(fault)) from None


def tells_late(file: BinaryIO) -> bool:
    """Whether what may say how a PNG lies stands behind its pixels, where Pillow finds it only by
    decoding them.
    """
    if file.read(len(PNG)) != PNG:
        return False
    pixels = False
    for _ in range(MAX_PIECES):
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            return False
        if pixels and kind == b"eXIf":
            return True
        if pixels and kind in (b"iTXt", b"tEXt", b"zTXt"):
            start = file.read(min(length, 32))
            if start.startswith(TOLD_IN):
                return True
            length -= len(start)
        pixels = pixels or kind == b"IDAT"
        file.seek(length + 4, 1)
    return True
