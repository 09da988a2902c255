"""What has been done of a run, a line of JSON each, so that whoever goes on knows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

NO_TIME = "no time was left for it"


def step_of(key: str) -> str:
    """The step that a part is of."""
    return key.partition(":")[0]


@dataclass(frozen=True)
class Entry:
    """A part of the work that was begun: what came of it, or why nothing did; neither where it has
    not ended.
    """

    key: str
    began: float
    ended: float | None = None
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def step(self) -> str:
        """The step that the part is of."""
        return step_of(self.key)

    @property
    def seconds(self) -> float:
        """What it took."""
        return (self.ended or self.began) - self.began


@dataclass(frozen=True)
class Journal:
    """A file that lines are added to, each on the disk before the next one begins."""

    path: Path

    def begin(self, key: str) -> None:
        self._add({"begin": key})

    def end(self, key: str, result: dict[str, Any] | None = None, error: str | None = None) -> None:
        self._add({"end": key, "result": result, "error": error})

    def entries(self) -> dict[str, Entry]:
        """All parts that were begun, by their keys; a line that was cut off is none."""
        found: dict[str, Entry] = {}
        for line in self._lines():
            key = line.get("begin") or line["end"]
            if "begin" in line:
                found[key] = Entry(key, line["time"])
                continue
            began = found[key].began if key in found else line["time"]
            found[key] = Entry(
                key=key,
                began=began,
                ended=line["time"],
                result=line["result"],
                error=line["error"],
            )
        return found

    def unfinished(self) -> list[Entry]:
        """What was begun and has not ended."""
        return [entry for entry in self.entries().values() if entry.ended is None]

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def _add(self, line: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            # It begins a line of its own, even where the one before was cut off.
            file.write("\n" + json.dumps({**line, "time": time()}) + "\n")
            file.flush()
            os.fsync(file.fileno())
