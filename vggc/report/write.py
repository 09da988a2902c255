"""The page as a file, which takes the place of no other."""

from __future__ import annotations

import os
from pathlib import Path

from vggc.diagnostics import UserError
from vggc.files import Taken, refuse_missing_folder, replacing
from vggc.report.page import mark_of
from vggc.training.run import Run

HEAD = 1024
"""Bytes at the beginning of a file, among which a report says what it is."""


def refuse_others(path: Path, run: Run) -> None:
    """Raises: UserError where something is at `path`, unless that is a report of this run; or
    where there is no folder for it.
    """
    refuse_missing_folder(path)
    if os.path.lexists(path) and not is_report(path, run):
        raise UserError(Taken(None, str(path)))


def is_report(path: Path, run: Run) -> bool:
    """Whether a file is a report of this run."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return f'name="generator" content="vggc report {mark_of(run)}"'.encode() in head


def write(path: Path, run: Run, page: str) -> int:
    """Writes a page, whole or not at all; its bytes.

    Raises:
        UserError: it cannot be written, or would take the place of something else.
    """
    content = page.encode()
    refuse_others(path, run)
    with replacing(path) as part:
        part.write_bytes(content)
    return len(content)
