"""Looks at what an HDF5 file lists, in a process with little memory and time:
`python -m vggc.weight_files.hdf5_look FILE_DESCRIPTOR START SIZE`.

The file is the part of `SIZE` bytes from `START` on; a negative size is all of it. The exit status
is 0 where the file can be looked at, and `REFUSED` with the reason on standard output where it is
wrong. Whatever else it is, HDF5 took more than there is: the system has ended the process.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import h5py

from vggc.weight_files.hdf5_form import REFUSED, Stretch, explained, tables_in
from vggc_runtime.json_file import MalformedError

SECONDS = 3
"""Seconds of the processor's time; files of a thousand layers take a tenth of one."""
ROOM = 1 << 28
"""Bytes of memory besides what Python and HDF5 take to begin with."""


def limit() -> None:
    """Lets this process take `ROOM` and `SECONDS` more than it has taken."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + ROOM
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + SECONDS
    for kind, most in ((resource.RLIMIT_AS, room), (resource.RLIMIT_CPU, seconds)):
        _, hard = resource.getrlimit(kind)
        own = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (own, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(number: int, start: int, size: int) -> int:
    """Looks at a part of the file of a descriptor; the exit status."""
    limit()
    # Opened anew, as a place in the file would be the caller's, too.
    with Path(f"/proc/self/fd/{number}").open("rb") as file:
        part = file if size < 0 else Stretch(file, start, size)
        try:
            with explained(), h5py.File(part, "r") as hdf5:
                tables_in(hdf5)
        except MalformedError as fault:
            sys.stdout.buffer.write(str(fault).encode("utf-8", "replace"))
            return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
