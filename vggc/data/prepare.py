"""Images made ready for a net: looked at once, measured, and kept at hand where they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vggc.data import diagnostics
from vggc.data.crops import CropWindow, Framed, Framing
from vggc.data.parts import (
    Fingerprint,
    Fingerprints,
    Images,
    Part,
    Skipped,
    names_of,
    objects_of,
    of_part,
)
from vggc.data.stores import Arrays
from vggc.data.survey import Doubles, Survey, colour_axes, moments, survey
from vggc.support.diagnostics import UserError
from vggc_runtime.greys import UNKNOWN, Greys, white_of_all
from vggc_runtime.preprocessing import IMAGE_CHANNELS, Pixels, Preprocessing

ROOM = 512 * 2**20
"""Images stay in memory while all of them together take no more bytes than this."""


@dataclass(frozen=True)
class Data:
    """What a training draws from. `fingerprints` change with any name, class or picture.

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
    fingerprints: Fingerprints
    val_path: str | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of pictures in memory: those that were read as arrays, and those that are kept."""
        parts = self.train, self.val
        return of_arrays(*(each.part for each in parts)) + sum(num_bytes(p.kept) for p in parts)


def prepare(
    images: Images,
    shape: tuple[int, int, int],
    scales: tuple[int, int] | None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    room: int = ROOM,
    window: CropWindow | None = None,
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
        raise UserError(diagnostics.UnsupportedChannels(*shape))
    looked = look_at(both_framed(images, shape, scales, window), on_progress, room)
    white = white_of_all(looked[0].survey.brightest.largest(looked[1].survey.brightest))
    if white != UNKNOWN:
        # What is white in deep greys is known after a look at all of them.
        looked = look_at(both_framed(images, shape, scales, window, white), on_progress, room)
    found = looked[0].survey
    broken = *of_part(looked[0].skipped, "train"), *of_part(looked[1].skipped, "val")
    skipped = (*images.skipped, *broken)
    train, val = (each.usable for each in looked)
    check_classes(images.classes, train, "train on", skipped)
    check_classes(images.classes, val, "measure accuracy on", skipped)
    counts = np.asarray(found.counts, np.int64)
    mean, std = moments(counts)
    return Data(
        path=images.path,
        classes=images.classes,
        train=train,
        val=val,
        preprocessing=Preprocessing(
            size=shape[1:], scale=val.framing.largest, mean=mean, std=std, white=white
        ),
        colour_axes=colour_axes(counts, np.asarray(found.products)),
        skipped=skipped,
        fingerprints=Fingerprints(*(each.fingerprint(images.classes) for each in looked)),
        val_path=images.val_path,
    )


@dataclass(frozen=True)
class Looked:
    """What a look at a part found, and its usable pictures where they are `kept` in memory."""

    framed: Framed
    survey: Survey
    kept: tuple[Pixels, ...] | None

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The images that cannot be used, each with the reason."""
        return self.survey.skipped(self.framed)

    @property
    def usable(self) -> Framed:
        """The pictures that are no broken ones."""
        part = self.framed.part.take(self.survey.usable(self.framed))
        return replace(self.framed, part=part, kept=self.kept)

    def fingerprint(self, classes: Sequence[str]) -> Fingerprint:
        """What the usable pictures are known again by."""
        part = self.usable.part
        return Fingerprint(names_of(classes, part), self.survey.content, objects_of(classes, part))


def look_at(
    both: tuple[Framed, Framed], on_progress: Callable[[int, int], None], room: int
) -> tuple[Looked, Looked]:
    """What there is in the training part and in the held-out part, which share the `room`."""
    train, val = both
    total = len(train) + len(val)
    first = Looked(train, *survey(train, room, lambda done: on_progress(done, total)))
    left = room - num_bytes(first.kept)
    return first, Looked(
        val, *survey(val, left, lambda done: on_progress(len(train) + done, total))
    )


def both_framed(
    images: Images,
    shape: tuple[int, int, int],
    scales: tuple[int, int] | None,
    window: CropWindow | None,
    white: Greys = UNKNOWN,
) -> tuple[Framed, Framed]:
    """The training part as nets are trained on it, and the held-out part as they are tested."""
    # What is enlarged again must not have been made small first, and a fraction of a JPEG's size is
    # not always a whole number of pixels, as boxes need it.
    draft = window is None and images.train.objects is None
    train = Framing(shape=shape, scales=scales, draft=draft, white=white, window=window)
    return Framed(images.train, train), for_testing(images.val, shape, scales, white)


def for_testing(
    part: Part, shape: tuple[int, int, int], scales: tuple[int, int] | None, white: Greys
) -> Framed:
    """A part as it is held out and tested on: at the middle of the `scales`, decoded in full."""
    middle = sum(scales) // 2 if scales else None
    scale = (middle, middle) if middle else None
    return Framed(part, Framing(shape=shape, scales=scale, draft=False, white=white))


def readable(
    part: Part, shape: tuple[int, int, int], scales: tuple[int, int] | None, white: Greys
) -> Part:
    """A held-out part as `prepare` leaves it: without the images that are broken, which only a
    look at all of them tells, now or, by the cache, when they were held out.
    """
    framed = for_testing(part, shape, scales, white)
    return part.take(survey(framed, 0, lambda done: None)[0].usable(framed))


def expected_bytes(
    images: Images, shape: tuple[int, int, int], scales: tuple[int, int] | None
) -> int:
    """`Data.num_bytes` before anything is read, as if all pictures were square."""
    side = scales[1] if scales else max(shape[1:])
    kept, each = 0, shape[0] * side**2
    for part in (images.train, images.val):
        size = len(part) * each
        kept += size if kept + size <= ROOM else 0
    return kept + of_arrays(images.train, images.val)


def of_arrays(*parts: Part) -> int:
    """Bytes of the arrays that parts have their pictures from, those that they share once."""
    arrays = {id(p.store.pixels): p.store.pixels for p in parts if isinstance(p.store, Arrays)}
    return sum(pixels.nbytes for pixels in arrays.values())


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
        of_class = [each for each in skipped if each.name.startswith(f"{missing[0]}/")]
        if mine := of_class or skipped:
            first, count = mine[0], len(mine)
            reason = f"{count} left out, the first of them {first.name}: {first.reason}"
        raise UserError(diagnostics.NoReadableImages(missing[0], use, reason))
