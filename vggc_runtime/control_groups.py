"""Which control groups of Linux this process is in, of either version: containers limit by them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def folders(controller: str, root: Path = ROOT) -> list[Path]:
    """The folders of the groups that may limit `controller` for this process, each group with
    those around it; there may be no such folder.
    """
    found: list[Path] = []
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            names = (controller, controllers) if controllers else ("", "unified")
            for mount in (root / "sys/fs/cgroup" / name for name in names):
                inside = mount / group.lstrip("/")
                # In a container the group's path may be that of the host: the mount is its own.
                around = (mount, inside, *inside.parents)
                found += [folder for folder in around if folder.is_relative_to(mount)]
    return found
