"""Offsets into a text, and the lines and columns that an editor counts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lsprotocol import types

from vggc.support.source import Span

UNITS: dict[str, Callable[[str], int]] = {
    "utf-8": lambda char: len(char.encode("utf-8", "surrogatepass")),
    "utf-16": lambda char: 2 if ord(char) > 0xFFFF else 1,
    "utf-32": lambda char: 1,
}
"""How many columns a character takes in each of the protocol's ways to count them."""


@dataclass(frozen=True)
class Lines:
    """A text whose lines end as on Unix. Lines and columns count from 0, columns in `encoding`."""

    text: str
    encoding: str = "utf-16"

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(i + 1 for i, char in enumerate(self.text) if char == "\n")]

    def _line(self, number: int) -> str:
        end = self.text.find("\n", self._starts[number])
        line = self.text[self._starts[number] : None if end < 0 else end]
        return line.removesuffix("\r")

    def position(self, offset: int) -> types.Position:
        """Where a character stands; the end of the text for offsets beyond it."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._starts, offset) - 1
        before = self.text[self._starts[line] : offset]
        unit = UNITS[self.encoding]
        return types.Position(line, len(before) if before.isascii() else sum(map(unit, before)))

    def offset(self, position: types.Position) -> int:
        """The character at a place; the nearest one where the place is outside the text."""
        if position.line >= len(self._starts):
            return len(self.text)
        line, start = self._line(position.line), self._starts[position.line]
        if line.isascii():
            return start + min(position.character, len(line))
        unit, column = UNITS[self.encoding], 0
        for index, char in enumerate(line):
            if column >= position.character:
                return start + index
            column += unit(char)
        return start + len(line)

    def range(self, start: int, end: int) -> types.Range:
        """The text from one character to another, in the editor's lines and columns."""
        return types.Range(self.position(start), self.position(end))

    def range_of(self, span: Span) -> types.Range:
        """A span of the text, in the editor's lines and columns."""
        return self.range(span.start, span.end)

    @property
    def whole(self) -> types.Range:
        """The whole text, in the editor's lines and columns."""
        return self.range(0, len(self.text))
