"""What can be known of a shared library before it is loaded.

The system's loader maps what a file's headers name, whether it is there or not, and a process that
reads beyond the end of a file ends at once.

Source: the System V application binary interface, chapters 4 and 5: the ELF header and program
headers of a 64-bit file.
"""

from __future__ import annotations

import platform
import struct
from io import BufferedReader
from pathlib import Path

from vggc_runtime.files import open_file

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
IDENTITY = b"\x7fELF\x02\x01\x01"
"""How a file of 64 bits, lowest byte first, begins."""
SHARED = 3
"""The type of a file that is a shared library."""
MACHINES = {"x86_64": 62, "aarch64": 183}
"""The numbers of processors, by what the system calls this one."""
LOADED, DYNAMIC = 1, 2
"""The types of segments that are mapped, and of the one that says what the library needs."""


def unfit(path: Path) -> str | None:
    """Why a file cannot be a library for this machine, if it cannot.

    Raises: OSError where it cannot be read.
    """
    with open_file(path) as file:
        return _problem(file, file.seek(0, 2))


def _problem(file: BufferedReader, size: int) -> str | None:
    file.seek(0)
    head = file.read(HEADER.size)
    if len(head) < HEADER.size or not head.startswith(IDENTITY):
        return "it is no shared library"
    _, kind, machine, _, _, place, _, _, _, width, count, *_ = HEADER.unpack(head)
    if kind != SHARED:
        return "it is no shared library"
    if machine != MACHINES.get(platform.machine(), machine):
        return f"it is a shared library for other machines than {platform.machine()}"
    if width != SEGMENT.size or place + width * count > size:
        return "it is a shared library that is cut off"
    file.seek(place)
    segments = [SEGMENT.unpack(file.read(width)) for _ in range(count)]
    for _, _, begin, _, _, stored, _, _ in segments:
        if begin + stored > size:
            return "it is a shared library that is cut off"
    if not {LOADED, DYNAMIC} <= {segment[0] for segment in segments}:
        return "it is a shared library without anything to load"
    return None
