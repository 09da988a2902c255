"""This machine's processors: how many threads are worth it, and which instructions they have.

Known without TVM, whose compiler takes 100 MB that a running net need not pay.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def num_cores(root: Path = ROOT) -> int:
    """The physical cores that this process may keep busy, one at least.

    Two threads of one core share its arithmetic, so they count once; where the system tells
    no topology, as in many virtual machines, every processor counts. Respected are the
    process's affinity and the processor quota of its control groups.
    """
    return max(1, min(len(first_of_each_core(root)), int(_quota(root))))


def first_of_each_core(root: Path = ROOT) -> list[int]:
    """One processor of each physical core that this process may use, in order."""
    found: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        found.setdefault(_siblings(root, cpu), cpu)
    return list(found.values())


def _siblings(root: Path, cpu: int) -> str:
    """What names a processor's core: the processors that share it, or itself."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)


def _quota(root: Path) -> float:
    """How many processors' time the control groups of this process leave it."""
    found = float(os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                mount = root / "sys/fs/cgroup"
            elif "cpu" in controllers.split(","):
                mount = root / "sys/fs/cgroup/cpu"
            else:
                continue
            inside = mount / group.lstrip("/")
            # In a container the group's path may be that of the host: the mount is its own.
            for folder in (mount, inside, *inside.parents):
                if folder.is_relative_to(mount):
                    found = min(found, _limit(folder))
    return found


def _limit(folder: Path) -> float:
    """The processors that a control group may use, of either version; infinity without limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        if int(quota) > 0:
            return int(quota) / int((folder / "cpu.cfs_period_us").read_text())
    return float("inf")


# LLVM's names for instruction sets that it may use in our kernels. Ciphers, and sets that are
# only names for groups of others, are not among them.
INSTRUCTIONS = re.compile(
    r"(sse|ssse|avx(?!10)|fma|bmi|f16c|lzcnt|popcnt|movbe|gfni"
    r"|neon|sve(?!.*(aes|sha|sm4))|dotprod|fullfp16|i8mm|bf16).*"
)
KERNEL_NAMES = {
    "pni": "sse3",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
}
"""Linux's names for instruction sets that differ from LLVM's by more than dots and strokes."""


def instructions(root: Path = ROOT) -> frozenset[str] | None:
    """The instruction sets that the system says the processors have, plainly named.

    None where it says nothing.
    """
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return None
    found = re.search(r"(?m)^(?:flags|Features)\s*:(.*)$", text)
    if found is None:
        return None
    return frozenset(plain(KERNEL_NAMES.get(flag, flag)) for flag in found[1].split())


def plain(name: str) -> str:
    """An instruction set's name as LLVM and Linux both spell it: `sse4.2` is `sse4_2`."""
    return re.sub(r"[._-]", "", name)
