"""Files that are nothing else: no pipe that is waited for, no device without an end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

NO_FILES = {
    stat.S_IFIFO: "it is a named pipe, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}
"""What else may be in the place of a file, of which to read might never end."""


def open_file(path: str | Path) -> BufferedReader:
    """A file, open for reading its bytes. Nothing but a regular file, or a link to one, is opened:
    a named pipe would wait for somebody to write, and a device may never end.

    Raises:
        OSError: there is none, or it may not be read; its `strerror` is fit to be shown.
    """
    refuse_other(os.stat(path), path)
    # What has come into its place since then is not waited for, either.
    file = open(path, "rb", opener=without_waiting)  # noqa: SIM115
    try:
        refuse_other(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def without_waiting(path: str, flags: int) -> int:
    """`os.open` that returns at once where a pipe has no other end; an `opener` of `open`."""
    return os.open(path, flags | os.O_NONBLOCK)


def refuse_other(found: os.stat_result, path: str | Path) -> None:
    """Raises: OSError where what was found at `path` is no regular file."""
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.ENOTSUP, NO_FILES.get(kind, "it is not a file"), str(path))


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
