"""A table before it is drawn, for every command that shows one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn. `numbers` tells which columns align to the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()
    """Rows that a line is drawn under."""
