"""How much there is to work in. Apart from the weights, so that no summary waits for numpy."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def memory() -> int:
    """The bytes of memory that this process may have: the machine's, or its container's."""
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        present = min(present, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return present
