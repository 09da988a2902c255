"""The table of the images that a run left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vggc.data.parts import Skipped
from vggc.data.strings import CODEC, ERRORS
from vggc.training.run import write_text


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """Writes the table: a header and one row an image; no file where none was left out.

    Bytes of a name that are no UTF-8 are written in hexadecimal digits.

    Raises:
        UserError: it cannot be written.
    """
    if not skipped:
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("part", "name", "reason"))
    table.writerows((each.part, readable(each.name), readable(each.reason)) for each in skipped)
    write_text(path, text.getvalue())


def readable(text: str) -> str:
    """The text as UTF-8 can hold it."""
    try:
        return text.encode(CODEC, ERRORS).decode(CODEC, "backslashreplace")
    except UnicodeEncodeError:  # half a character, as JSON may have it
        return text.encode(CODEC, "backslashreplace").decode(CODEC)
