"""How much there is to work in. Apart from the weights, so that no summary waits for numpy."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from vggc_runtime.control_groups import ROOT, folders

GROUPS = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)
"""For control groups of version 2 and 1: where the limit stands, what is used of it, and which
lines of memory.stat tell how much of that are pages of files, which the system takes back.
"""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""What glibc's malloc.h calls the most free memory at the end of the heap, and the most blocks
that lie outside of it.
"""


def memory(root: Path = ROOT) -> int:
    """The bytes of memory that this process may have: the machine's, or what its control groups
    and limits (`ulimit -v`) leave it.
    """
    present = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _addresses())
    for folder in folders("memory", root):
        for limit, *_ in GROUPS:
            with suppress(OSError, ValueError):
                present = min(present, int((folder / limit).read_text()))
    return present


def free_memory(root: Path = ROOT) -> int:
    """The bytes of it that nobody uses, but for what the system keeps of files and takes back."""
    free = min(memory(root), _lines(root / "proc/meminfo").get("MemAvailable:", sys.maxsize))
    free = min(free, max(0, _addresses() - _taken_addresses()))
    for folder in folders("memory", root):
        for limit, usage, reclaimed in GROUPS:
            with suppress(OSError, ValueError):
                used = int((folder / usage).read_text())
                lines = _lines(folder / "memory.stat")
                used -= min(used, sum(lines.get(name, 0) for name in reclaimed))
                free = min(free, max(0, int((folder / limit).read_text()) - used))
    return free


def _addresses() -> int:
    """The bytes that this process may have addresses for, used or not."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
    except ImportError:
        return sys.maxsize
    limit, _ = getrlimit(RLIMIT_AS)
    return sys.maxsize if limit == RLIM_INFINITY else limit


def _taken_addresses() -> int:
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[0])
    return 0


def _lines(path: Path) -> dict[str, int]:
    """The numbers in a file that has a name and a number a line, by name, in bytes."""
    found = {}
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, number, *unit = line.split()
            found[name] = int(number) * (1024 if unit == ["kB"] else 1)
    return found


def keep_memory() -> None:
    """Lets this process and those it forks keep what they free, for what they ask for next.

    glibc gives blocks of 32 MiB and more back to the system at once, which then clears each of
    their pages anew: of a training step on a processor that takes a quarter of the time. The
    price is the gaps between blocks: what a step takes, it takes 1.2 to 2.1 times (`GAPS` in
    `analysis/training.py`). Other C libraries stay as they are.
    """
    import ctypes

    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
