"""Arrays that an artifact is called with: numpy's, and those of whoever speaks DLPack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL.Image import Image

from vggc.runtime.artifact import options_with
from vggc.runtime.diagnostics import BadArray
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError, first_line

if TYPE_CHECKING:
    from vggc.runtime.artifact import Manifest
    from vggc.runtime.session import Session

CPU, CUDA, PINNED = 1, 2, 3
"""Devices by their numbers in DLPack."""


def called(session: Session, x: Any) -> dict[str, Array]:
    """Every output (N, …) by its name for images (N, C, H, W): see `Session.run_all`.

    Raises:
        UserError: `x` is no array of that shape in float32.
    """
    manifest = session.manifest
    if is_elsewhere(x):
        require_here(x, manifest)
        return session.named(session.lent(x))
    values = values_of(x, manifest)
    if len(values) in manifest.batches:
        # The very array, since numpy may see another's as one that must not be written.
        return session.named(session.lent(x))
    return session.run_all(values)


def on_device(session: Session, x: Any) -> dict[str, Any]:
    """Every output for a whole batch by its name, where it lies, as whoever speaks DLPack.

    Raises:
        UserError: `x` is no array of a batch and shape that the artifact takes, in float32.
    """
    manifest = session.manifest
    if is_elsewhere(x):
        require_here(x, manifest)
    elif (count := len(values_of(x, manifest))) not in manifest.batches:
        hint = f"give a whole batch of {told(manifest.batches)}, or call the artifact"
        raise refusal(manifest, f"an array of {count:,} images", hint)
    return session.outputs(session.lent(x))


def told(batches: tuple[int, ...]) -> str:
    """Batches in words: `1 or 8 or 32`."""
    return " or ".join(map(str, batches))


def values_of(x: Any, manifest: Manifest) -> Array:
    """An array as numpy sees it, where it lies.

    Raises:
        UserError: it is none of images for this net.
    """
    if not isinstance(x, np.ndarray) and not hasattr(x, "__dlpack__"):
        hint = "`numpy.asarray(x, numpy.float32)` makes an array of numbers in lists"
        if isinstance(x, str | os.PathLike | Image):
            hint = "`predict` takes images and the paths of images"
        raise refusal(manifest, f"a {type(x).__name__}", hint)
    try:
        values = x if isinstance(x, np.ndarray) else np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as fault:
        hint = "`x.detach().float().cpu()` is a tensor of PyTorch that can be"
        given = f"a {type(x).__name__} that cannot be handed over: {first_line(fault)}"
        raise refusal(manifest, given, hint) from None
    if values.dtype != np.float32 or values.shape[1:] not in manifest.inputs or not len(values):
        hint = hint_for(values.dtype, values.shape, manifest)
        raise refusal(manifest, f"{values.dtype} of shape {values.shape}", hint)
    return cast("Array", values)


def hint_for(dtype: np.dtype[Any], shape: tuple[int, ...], manifest: Manifest) -> str:
    """What to do to an array of this type and shape so that the net takes it, in words."""
    if shape in manifest.inputs:
        return "an image is a batch of one: `x[None]`"
    if shape[1:] in [(height, width, channels) for channels, height, width in manifest.inputs]:
        return "channels come first: `x.transpose(0, 3, 1, 2)`; of PyTorch `x.permute(0, 3, 1, 2)`"
    if shape[1:] not in manifest.inputs:
        if len(shape) == 4 and shape[1] == manifest.input[0]:
            wanted = options_with(manifest, (shape[2], shape[3]))
            return f"`vggc compile` with `{wanted}` is for those of this size, too"
        return "N images, channels first"
    if not shape[0]:
        return "there is no image in it"
    if dtype == np.uint8:
        return "pixels are normalised first: `predict` takes images and does so"
    return "`x.astype(numpy.float32)` is such an array; of PyTorch `x.float()`"


def is_elsewhere(x: Any) -> bool:
    """Whether an array lies in no memory that numpy sees."""
    return hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] not in (CPU, PINNED)


def require_here(x: Any, manifest: Manifest) -> None:
    """Raises: UserError unless an array on a GPU is a batch for an artifact that runs there."""
    kind, number = x.__dlpack_device__()
    shape, dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
    given = f"{dtype} of shape {shape} on {'CUDA' if kind == CUDA else 'another'} device {number}"
    if kind != CUDA or manifest.target.kind != "cuda":
        raise refusal(manifest, given, "bring it to the CPU: `x.cpu()` for a tensor of PyTorch")
    if dtype != "float32" or shape[1:] not in manifest.inputs or shape[0] not in manifest.batches:
        hint = f"on a GPU an array holds a whole batch of {told(manifest.batches)}"
        raise refusal(manifest, given, hint)


def refusal(manifest: Manifest, given: str, hint: str) -> UserError:
    """The error of giving something else than images for this net."""
    shapes = (f"(N, {', '.join(map(str, each))})" for each in manifest.inputs)
    expected = f"float32 of shape {' or '.join(shapes)}"
    return UserError(BadArray(manifest.net, given, expected, hint))
