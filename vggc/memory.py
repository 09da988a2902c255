"""How much there is to work in. Apart from the weights, so that no summary waits for numpy."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vggc.control_groups import ROOT, folders

LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Where control groups of version 2 and 1 hold how many bytes they may have."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""What glibc's malloc.h calls the most free memory at the end of the heap, and the most blocks
that lie outside of it.
"""


def memory(root: Path = ROOT) -> int:
    """The bytes of memory that this process may have: the machine's, or what its control groups
    leave it.
    """
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in folders("memory", root):
        for name in LIMITS:
            with suppress(OSError, ValueError):
                present = min(present, int((folder / name).read_text()))
    return present


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
