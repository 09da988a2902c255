"""From a user's file to the batch that an artifact takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc.deploy import mistakes
from vggc.deploy.artifact import Manifest
from vggc.diagnostics import UserError
from vggc.ir.ops import describe
from vggc.preprocessing import BrokenImageError

MAX_BYTES = 1 << 30


def read_input(path: Path, manifest: Manifest) -> tuple[NDArray[np.float32], int]:
    """A full batch `(N, C, H, W)`, and how many images at its front are the user's.

    Raises: UserError when the file is missing, broken, too large or of another shape.
    """
    if not path.is_file():
        hint = "give an image file or a .npy file"
        reason = "it is not a file" if path.exists() else "there is no such file"
        raise UserError(mistakes.BadInput(None, str(path), reason, hint))
    images = _read_array(path, manifest) if path.suffix == ".npy" else _read_image(path, manifest)
    missing = manifest.batch - len(images)
    if missing < 0:
        reason = f"it holds {len(images)} images, and the artifact takes {manifest.batch}"
        hint = f"compile the net with `--batch {len(images)}`"
        raise UserError(mistakes.BadInput(None, str(path), reason, hint))
    filler = np.zeros((missing, *images.shape[1:]), np.float32)
    return np.concatenate([images, filler]), len(images)


def _read_image(path: Path, manifest: Manifest) -> NDArray[np.float32]:
    try:
        return manifest.preprocessing.read(path)
    except BrokenImageError as error:
        raise UserError(
            mistakes.BadInput(None, str(path), str(error), "is it a whole image file?")
        ) from None


def _read_array(path: Path, manifest: Manifest) -> NDArray[np.float32]:
    shape = describe(manifest.input)
    hint = f"save an array of floats of shape {manifest.input} with numpy.save"
    if path.stat().st_size > MAX_BYTES:
        reason = f"it is larger than {MAX_BYTES >> 30} GiB"
        raise UserError(mistakes.BadInput(None, str(path), reason, hint))
    try:
        # Mapped, so that a header that claims too much is found before memory is taken.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError):
        array = None
    if not isinstance(array, np.memmap):
        reason = "it is not a .npy file of numbers"
        raise UserError(mistakes.BadInput(None, str(path), reason, hint))
    if array.dtype.kind not in "fiu" or array.shape[-3:] != manifest.input or array.ndim > 4:
        reason = f"it holds {array.dtype} of shape {array.shape}, and the net takes {shape}"
        raise UserError(mistakes.BadInput(None, str(path), reason, hint))
    if len(array) == 0:
        raise UserError(mistakes.BadInput(None, str(path), "it holds no image", hint))
    with np.errstate(over="ignore"):
        images: NDArray[np.float32] = np.array(array, np.float32).reshape(-1, *manifest.input)
    if not np.isfinite(images).all():
        reason = "it holds values that are not finite"
        raise UserError(mistakes.BadInput(None, str(path), reason, hint))
    return images
