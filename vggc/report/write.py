"""The page as a file, which takes the place of no other."""

from __future__ import annotations

import os
from pathlib import Path

from vggc.support.diagnostics import UserError
from vggc.support.files import Taken, new_file, refuse_missing_folder, replacing
from vggc.support.paths import is_file

HEAD = 1024
"""Bytes at the beginning of a file, among which a report says what it is."""


def refuse_others(path: Path, made_by: str) -> None:
    """Raises: UserError where something is at `path`, unless that is a page that says of itself
    that it was made by that; or where there is no folder for it.
    """
    refuse_missing_folder(path)
    if os.path.lexists(path) and not is_made_by(path, made_by):
        raise UserError(Taken(str(path)))


def is_made_by(path: Path, made_by: str) -> bool:
    """Whether a file is a page that says so of itself."""
    if not is_file(path):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return f'name="generator" content="{made_by}"'.encode() in head


def write(path: Path, made_by: str, page: str) -> int:
    """Writes a page, whole or not at all; its bytes.

    Raises:
        UserError: it cannot be written, or would take the place of something else.
    """
    content = page.encode()
    refuse_others(path, made_by)
    with (replacing if path.exists() else new_file)(path) as part:
        part.write_bytes(content)
    return len(content)
