"""How memory is taken and kept."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from vggc.support.memory import keep_memory

if sys.argv[1] == "keep":
    keep_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**26, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_memory_that_is_kept_needs_no_clearing_again() -> None:
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], text=True))
        for how in ("as it is", "keep")
    )
    # Pages may be of 4 KiB or, where the system likes large ones, of 2 MiB.
    assert given_back >= 2**26 / 2**21
    assert kept <= given_back / 4
