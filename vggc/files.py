"""Files and folders that appear whole or not at all, and take nobody's place unasked."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from vggc.diagnostics import Diagnostic, UserError


class CannotWrite(Diagnostic):
    title = "cannot write {path}"
    label = "{reason}"
    path: str
    reason: str


class Taken(Diagnostic):
    title = "{path} exists already"
    label = "nothing is overwritten"
    help = "give another name, or remove it first"
    path: str


class TargetFolderMissing(Diagnostic):
    title = "there is no folder {folder} to write {name} to"
    help = "make it first: mkdir -p {folder}"
    folder: str
    name: str


def cache_folder(*parts: str) -> Path | None:
    """A folder in `$XDG_CACHE_HOME/vggc`, by default `~/.cache/vggc`; None where nobody is at
    home.
    """
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home != "~" else None)
    return Path(cache, "vggc", *parts) if cache else None


def refuse_taken(path: Path) -> None:
    """Raises: UserError where something is at `path`."""
    if os.path.lexists(path):
        raise UserError(Taken(None, str(path)))


def check_target(path: Path) -> None:
    """Raises: UserError where a file cannot be written without taking another's place."""
    refuse_taken(path)
    refuse_missing_folder(path)


def refuse_missing_folder(path: Path) -> None:
    """Raises: UserError where the folder that a file is to lie in is not there."""
    if not path.parent.is_dir():
        raise UserError(TargetFolderMissing(None, str(path.parent), path.name))


def refuse_full(folder: Path) -> None:
    """Raises: UserError where something is at `folder`, unless that is an empty folder."""
    with _explained(folder):
        if not (folder.is_dir() and not any(folder.iterdir())):
            refuse_taken(folder)


def refuse_unwritable(folder: Path) -> None:
    """Raises: UserError where a folder cannot be made or written to, as far as that shows."""
    near = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    reason = None
    if not near.is_dir():
        reason = f"{near} is no folder"
    elif not os.access(near, os.W_OK | os.X_OK):
        reason = f"the folder {near} may not be written to"
    if reason:
        raise UserError(CannotWrite(None, str(folder), reason))


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


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Within it, no other process is within it for the same place.

    Where no lock can be had (a full disk, another user's file) there is none: it keeps processes
    from doing the same work twice, and what they write from each other's way `replacing`.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(place.with_suffix(".lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` in one step when the block ends well.

    It lies beside the file that `path` leads to, has its suffix and keeps its permissions.

    Raises: UserError when it cannot be written; what was at `path` is still there.
    """
    with _explained(path):
        target = path.resolve()
        mode = target.stat().st_mode if target.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(target.suffix, f".{target.stem}.", target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(mode)
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well.

    Raises: UserError when `path` is taken or cannot be written.
    """
    refuse_full(path)
    with _explained(path):
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            refuse_full(path)
            # An empty folder may be somebody's working directory: it is filled, not exchanged.
            if target.is_dir():
                for inside in temporary.iterdir():
                    os.replace(inside, target / inside.name)
            else:
                os.replace(temporary, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(CannotWrite(None, str(path), reason)) from None


def _sync(path: Path) -> None:
    """Waits until a file's bytes, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The permissions that new files are made without."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
