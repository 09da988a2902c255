"""Files and folders that appear whole or not at all, and take nobody's place unasked."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.paths import exists, is_folder
from vggc.support.signals import held
from vggc_runtime.files import refuse_other


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
        raise UserError(Taken(str(path)))


def check_target(path: Path) -> None:
    """Raises: UserError where a file cannot be written, or would take another's place."""
    refuse_taken(path)
    refuse_missing_folder(path)
    refuse_unwritable(path.parent)


def is_one_place(paths: Sequence[Path]) -> bool:
    """Whether two of these lead to one place."""
    return len({path.parent.resolve() / path.name for path in paths}) < len(paths)


def refuse_missing_folder(path: Path) -> None:
    """Raises: UserError where the folder that a file is to lie in is not there."""
    if not is_folder(path.parent):
        raise UserError(TargetFolderMissing(str(path.parent), path.name))


def refuse_full(folder: Path) -> None:
    """Raises: UserError where something is at `folder`, unless that is an empty folder."""
    with _explained(folder):
        if not (folder.is_dir() and not any(folder.iterdir())):
            refuse_taken(folder)


def refuse_unwritable(folder: Path) -> None:
    """Raises: UserError where a folder cannot be made or written to, as far as that shows."""
    near = next(path for path in (folder, *folder.absolute().parents) if exists(path))
    reason = None
    if not is_folder(near):
        reason = f"{near} is no folder"
    elif not os.access(near, os.W_OK | os.X_OK):
        reason = f"the folder {near} may not be written to"
    if reason:
        raise UserError(CannotWrite(str(folder), reason))


def open_lock(path: Path) -> BufferedRandom:
    """A file to be locked, made where there is none.

    Raises: OSError where there is none and none can be made, or it is no file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    file = open(os.open(path, flags, 0o666), "r+b")  # noqa: SIM115
    try:
        refuse_other(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Within it, no other process is within it for the same place.

    Where no lock can be had (a full disk, another user's file) there is none: it keeps processes
    from doing the same work twice, and what they write from each other's way `replacing`.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open_lock(place.with_suffix(".lock")))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` in one step when the block ends well.

    It lies beside the file that `path` leads to, has its suffix and keeps its permissions. Every
    library can spell its path: that is text, whatever the bytes of `path` are.

    Raises: UserError when it cannot be written, or `path` leads to anything but a file, as a device
    is to all others who use it; what was there is still there.
    """
    with _explained(path):
        target = Path(os.path.realpath(path))
        mode = _mode(target)
        with _temporary_file(target) as temporary:
            with _told_of(path, temporary):
                yield temporary
            _finish(temporary, mode)
            os.replace(temporary, target)
            _sync(target.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file, as `replacing` has it, that becomes `path` when the block ends well.

    Raises: UserError when it cannot be written or something is at `path`, also if that came there
    meanwhile: of two processes that write one new file, one is told so.
    """
    refuse_taken(path)
    with _explained(path):
        target = path.parent.resolve() / path.name
        with _temporary_file(target) as temporary:
            with _told_of(path, temporary):
                yield temporary
            _finish(temporary, 0o666 & ~_umask())
            try:
                _put(temporary, target)
            except FileExistsError:
                raise UserError(Taken(str(path))) from None
            _sync(target.parent)


@contextmanager
def all_or_none() -> Iterator[list[Path]]:
    """New files that belong together: the block adds each to the list when it is whole, and where
    another one cannot be written, or a signal comes, none of them stays.
    """
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well; its path is text.

    Raises: UserError when `path` is taken, also if it is by then, or cannot be written.
    """
    refuse_full(path)
    with _explained(path):
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        made: Path | None = None
        try:
            with held():  # a signal between the making and what clears away would leave it behind
                made = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
            with spelt(made) as temporary, _told_of(path, temporary):
                yield temporary
            made.chmod(0o777 & ~_umask())
            try:
                # An empty folder may be somebody's working directory: it is filled, not exchanged.
                if target.is_dir():
                    _fill(target, made)
                else:
                    os.rename(made, target)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise UserError(Taken(str(path))) from None
                raise
            _sync(target.parent)
        finally:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)


@contextmanager
def spelt(path: Path) -> Iterator[Path]:
    """A path to the same place that is text, for libraries that take no other.

    Names are bytes, and those from old archives and foreign shares are no UTF-8. Within it, such a
    place has another path by its folder, which is kept open. The last name has to be text.
    """
    if _is_text(path) or not Path("/proc/self/fd").exists():
        yield path
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # With the number of the process: compilers and linkers that it starts look there, too.
        yield Path(f"/proc/{os.getpid()}/fd/{folder}", path.name)
    finally:
        os.close(folder)


def lasting(path: Path) -> Path:
    """A path to a file that is text, as `spelt` has it, and leads there as long as this process
    lives: a loader may take what has the path of a library for that library.
    """
    path = path.resolve()
    if _is_text(path):
        return path
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return Path(f"/proc/{os.getpid()}/fd/{folder}", path.name)


@contextmanager
def _temporary_file(target: Path) -> Iterator[Path]:
    """An empty file beside another, removed at the end if it still lies there."""
    suffix = target.suffix if _is_text(target.suffix) else ""
    made: Path | None = None
    try:
        with held():
            handle, name = tempfile.mkstemp(suffix, _prefix(target), target.parent)
            made = Path(name)
        os.close(handle)
        with spelt(made) as temporary:
            yield temporary
    finally:
        if made is not None:
            made.unlink(missing_ok=True)


def refuse_irreplaceable(path: Path) -> None:
    """Raises: UserError where what is at `path` is nothing that `replacing` replaces."""
    with _explained(path):
        _mode(path)


def _mode(target: Path) -> int:
    """The permissions of a file, or of a new one where there is nothing.

    Raises: OSError where there is anything else.
    """
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return 0o666 & ~_umask()
    refuse_other(found, target)
    return stat.S_IMODE(found.st_mode)


def _finish(temporary: Path, mode: int) -> None:
    """Lets others at a file that is whole, and waits until it has reached the disk."""
    temporary.chmod(mode)
    _sync(temporary)


def _put(temporary: Path, target: Path) -> None:
    """Gives a file its name.

    Raises: FileExistsError when something bears that name.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system on which no file has two names
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, target)


def _fill(target: Path, made: Path) -> None:
    """Moves what is in a folder to an empty one, which no other process fills meanwhile.

    Raises: OSError when it is not empty.
    """
    folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # where no lock can be had, as in `locked`
            fcntl.flock(folder, fcntl.LOCK_EX)
        if any(target.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        for inside in made.iterdir():
            os.rename(inside, target / inside.name)
    finally:
        os.close(folder)


def _prefix(target: Path) -> str:
    """How the name of what becomes `target` begins: text that leaves room within 255 bytes."""
    return f".{target.stem[:40]}." if target.name.isascii() else ".vggc."


def _is_text(path: Path | str) -> bool:
    """Whether a path is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(CannotWrite(str(path), reason)) from None


@contextmanager
def _told_of(path: Path, temporary: Path) -> Iterator[None]:
    """Within it, what cannot be written to a temporary place is told of the path that it stands
    for: nobody has heard of the other, and it is gone.
    """
    try:
        yield
    except UserError as error:
        raise UserError(*(_renamed(each, temporary, path) for each in error.diagnostics)) from None


def _renamed(problem: Diagnostic, temporary: Path, path: Path) -> Diagnostic:
    if isinstance(problem, CannotWrite) and Path(problem.path).is_relative_to(temporary):
        place = path / Path(problem.path).relative_to(temporary)
        return CannotWrite(str(place), problem.reason)
    return problem


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
