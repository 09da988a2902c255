"""The batches that a net is compiled for: how many images an artifact computes at once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vggc.support.diagnostics import Diagnostic, UserError

MAX_BATCH = 1024
"""The most images that are computed at once."""
MAX_BATCHES = 8
"""The most batches that an artifact is compiled for."""


class BadBatch(Diagnostic):
    title = "cannot compile for the batch {given}"
    label = "{reason}"
    help = "write a number of images, or several: 1,8,32"
    given: str
    reason: str


def parse_batches(text: str) -> tuple[int, ...]:
    """The batches in a text such as `1,8,32`, ascending.

    Raises:
        UserError: something between the commas is no batch, or they are too many.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch("-?[0-9]{1,9}", part):
            reason = f"`{part}` is no whole number" if part else "there is none beside a comma"
            raise UserError(BadBatch(f"`{text}`", reason))
    return checked_batches(map(int, parts))


def checked_batches(batches: Iterable[int]) -> tuple[int, ...]:
    """Batches, each once and ascending.

    Raises:
        UserError: one is out of range, there is none, or they are too many.
    """
    found = tuple(sorted(set(batches)))
    given = f"`{','.join(map(str, found))}`"
    if not found:
        raise UserError(BadBatch(given, "there is none"))
    for batch in found:
        if not 1 <= batch <= MAX_BATCH:
            reason = f"{batch:,} is out of range: it is from 1 to {MAX_BATCH:,} images"
            raise UserError(BadBatch(given, reason))
    if len(found) > MAX_BATCHES:
        reason = f"these are {len(found):,}, and an artifact is for {MAX_BATCHES} at most"
        raise UserError(BadBatch(given, reason))
    return found
