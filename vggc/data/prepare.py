"""Images made ready for a net: looked at once, measured, and kept at hand where they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vggc.data import mistakes
from vggc.data.crops import Framed, Framing, Window
from vggc.data.parts import Images, Part, Skipped, fingerprint
from vggc.data.survey import Doubles, Survey, colour_axes, moments, survey
from vggc.diagnostics import UserError
from vggc.preprocessing import IMAGE_CHANNELS, Pixels, Preprocessing

ROOM = 512 * 2**20
"""Images stay in memory while all of them together take no more bytes than this."""


@dataclass(frozen=True)
class Data:
    """What a training draws from. `fingerprint` changes with any name or class.

    `path` and `val_path` are those of `Images`; `colour_axes` are the principal axes of the
    training pixels' colours: see there.
    """

    path: str | None
    classes: tuple[str, ...]
    train: Framed
    val: Framed
    preprocessing: Preprocessing
    colour_axes: Doubles
    skipped: tuple[Skipped, ...]
    fingerprint: str
    val_path: str | None = None


def prepare(
    images: Images,
    shape: tuple[int, int, int],
    scales: tuple[int, int] | None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    room: int = ROOM,
    window: Window | None = None,
) -> Data:
    """Looks at every image: leaves out the broken ones, measures colours, fills memory.

    The net takes a `shape` (C, H, W), C being 1 or 3, and is trained at `scales`, as in
    `Framing`, or on parts of whole pictures as the `window` says; it is tested at the middle of the
    scales. `on_progress` is told how many images of how many
    are done. Images take `room` bytes of memory or less, or none.

    Raises:
        UserError: the channels are neither 1 nor 3, or a class has no image left.
    """
    if shape[0] not in IMAGE_CHANNELS:
        raise UserError(mistakes.UnsupportedChannels(None, *shape))
    total = len(images.train) + len(images.val)
    train, val = both_framed(images, shape, scales, window)
    found, train_kept = survey(train, room, lambda done: on_progress(done, total))
    left = room - num_bytes(train_kept)
    also, val_kept = survey(val, left, lambda done: on_progress(len(train) + done, total))
    skipped = (*images.skipped, *found.skipped(train), *also.skipped(val))
    train, val = usable(train, found, train_kept), usable(val, also, val_kept)
    check_classes(images.classes, train, "train on", skipped)
    check_classes(images.classes, val, "measure accuracy on", skipped)
    counts = np.asarray(found.counts, np.int64)
    mean, std = moments(counts)
    return Data(
        images.path,
        images.classes,
        train,
        val,
        Preprocessing(shape[1:], val.framing.largest, mean, std),
        colour_axes(counts, np.asarray(found.products)),
        skipped,
        fingerprint(images.classes, train.part, val.part),
        images.val_path,
    )


def both_framed(
    images: Images,
    shape: tuple[int, int, int],
    scales: tuple[int, int] | None,
    window: Window | None,
) -> tuple[Framed, Framed]:
    """The training part as nets are trained on it, and the held-out part as they are tested."""
    middle = sum(scales) // 2 if scales else None
    # What is enlarged again must not have been made small first.
    train = Framing(shape, scales, draft=window is None, window=window)
    val = Framing(shape, (middle, middle) if middle else None, draft=False)
    return Framed(images.train, train), Framed(images.val, val)


def readable(
    images: Images,
    shape: tuple[int, int, int],
    scales: tuple[int, int] | None,
    window: Window | None,
) -> tuple[Part, Part]:
    """Both parts as `prepare` leaves them: without the images that are broken, which only a look
    at all of them tells, now or, by the cache, when they were trained on.
    """
    train, val = (
        each.part.take(survey(each, 0, lambda done: None)[0].usable(each))
        for each in both_framed(images, shape, scales, window)
    )
    return train, val


def usable(framed: Framed, found: Survey, kept: tuple[Pixels, ...] | None) -> Framed:
    """The pictures that are no broken ones, those `kept` in memory."""
    return replace(framed, part=framed.part.take(found.usable(framed)), kept=kept)


def num_bytes(kept: Sequence[Pixels] | None) -> int:
    """Bytes that pictures take in memory."""
    return sum(pixels.nbytes for pixels in kept or ())


def check_classes(
    classes: Sequence[str], framed: Framed, use: str, skipped: Sequence[Skipped]
) -> None:
    """Refuses a part without any image, or a training part without one of the classes."""
    counts = np.bincount(framed.part.labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing and (use == "train on" or len(framed) == 0):
        reason = "there is none"
        if skipped:
            first, count = skipped[0], len(skipped)
            reason = f"{count} left out, the first of them {first.name}: {first.reason}"
        raise UserError(mistakes.NoReadableImages(None, missing[0], use, reason))
