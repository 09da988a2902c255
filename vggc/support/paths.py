"""What is at a path that somebody gave. No path is a mistake by itself: one that is longer than a
name may be, leads through a file or in circles, or into a folder that may not be read, leads to
nothing, and `absence` says why.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vggc_runtime.folder import MANIFEST

exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir
"""What is at a path; unlike the methods of `Path` these raise for none."""

RECORD = "run.json"
"""The file by which the folder of a run is known; `MANIFEST` is that of an artifact."""

STANDALONE = "standalone"
"""The folder of the library for C in an artifact's. The manifest says nothing of it, as nothing
that vggc loads lies there: an artifact is the same with it and without."""

REASONS = {
    errno.ENOENT: "there is no such {kind}",
    errno.ENOTDIR: "there is no such {kind}: its path leads through a file",
    errno.ENAMETOOLONG: "no {kind} can have so long a name",
    errno.ELOOP: "its path is a link that leads in a circle",
    errno.EACCES: "it lies in a folder that may not be read",
}


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of a run."""
    return is_file(os.path.join(folder, RECORD))


def is_artifact(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of an artifact."""
    return is_file(os.path.join(folder, MANIFEST))


def absence(path: str | Path, kind: str = "file") -> str:
    """Why there is no file, or no `kind` "folder", at a path, in words."""
    try:
        mode = os.stat(path).st_mode
    except OSError as fault:
        reason = fault.strerror or str(fault)
        return REASONS.get(fault.errno or 0, reason).format(kind=kind)
    except ValueError:
        return f"no {kind} can have a name with a NUL character"
    if stat.S_ISDIR(mode):
        return "it is a folder"
    return "it is a file" if kind == "folder" else "it is not a file"
