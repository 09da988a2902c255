"""One process at a time trains into a run's folder: two would remove each other's checkpoints.

The system gives a lock back when its holder ends, however that ends; workers that outlive it do
not have it. Whoever only reads a run needs none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BufferedRandom
from pathlib import Path

from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, open_lock
from vggc.training import diagnostics
from vggc_runtime.text import in_line

LOCK = "lock"
"""The file in a run's folder that is locked; it says who has it, and is removed at the end."""
MOST_SAID = 200
"""Bytes that are read of what it says."""


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Within it no other process is within it for the same folder. False where the file system
    has no locks, and that is not known.

    Raises:
        UserError: another process is, or the folder cannot be written to.
    """
    path = folder / LOCK
    file, locked = _taken(path)
    with file:
        descriptor = file.fileno()
        with suppress(OSError):  # a disk that is full
            os.ftruncate(descriptor, 0)
            now = datetime.now().isoformat(" ", "seconds")
            said = f"process {os.getpid()} on {socket.gethostname()}, since {now}\n"
            os.pwrite(descriptor, said.encode(), 0)
        try:
            yield locked
        finally:
            path.unlink(missing_ok=True)


def _taken(path: Path) -> tuple[BufferedRandom, bool]:
    """The file, open, and whether it is locked.

    Raises:
        UserError: as `alone`.
    """
    while True:
        try:
            file = open_lock(path)
        except OSError as fault:
            reason = fault.strerror or str(fault)
            raise UserError(CannotWrite(str(path), reason)) from None
        try:
            locked = _locked(file.fileno(), path.parent)
            # Who had it before may have removed it meanwhile, and a third one made it anew.
            with suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    return file, locked
        except UserError:
            file.close()
            raise
        file.close()


def _locked(descriptor: int, folder: Path) -> bool:
    """Raises: UserError when another process has the lock."""
    try:
        # Unlike `flock`, not handed down to workers, who may live on for a while.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as fault:
        if fault.errno not in (errno.EACCES, errno.EAGAIN):
            return False
    said = os.pread(descriptor, MOST_SAID, 0).decode(errors="replace").strip()
    holder = in_line(said) or "another process"
    raise UserError(diagnostics.RunInUse(str(folder), holder))
