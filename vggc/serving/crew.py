"""What the processes of one server know of one another: a folder in which each is noted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENDING = ".pid"


@dataclass(frozen=True)
class ServerCrew:
    """The processes of a server, numbered from 0, of which `size` are wanted. Their folder holds
    the process id of each that is ready, in `NUMBER.pid`.
    """

    folder: Path
    size: int

    def note(self, number: int) -> None:
        """Notes that this process is ready, and its number."""
        path = self.folder / f"{number}{ENDING}"
        path.with_suffix(".new").write_text(str(os.getpid()), "utf-8")
        path.with_suffix(".new").replace(path)

    def strike(self, number: int) -> None:
        """Notes that a process is no more."""
        (self.folder / f"{number}{ENDING}").unlink(missing_ok=True)

    def ready(self) -> Iterator[tuple[int, int]]:
        """The numbers and process ids of those that are ready."""
        for number in range(self.size):
            with suppress(OSError, ValueError):
                yield number, int((self.folder / f"{number}{ENDING}").read_text("utf-8"))
