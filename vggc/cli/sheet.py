"""A table as a terminal has room for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from vggc.support.sheet import Sheet

PADDING = 3
"""Columns of a terminal that a column of a table takes beside its text."""

LEAST_TEXT = 6
"""A text that has no room keeps so many characters of itself."""


@dataclass(frozen=True)
class Fitted:
    """A table with the widths of its columns, and the names of those that had no room."""

    sheet: Sheet
    widths: tuple[int, ...]
    left_out: tuple[str, ...]

    @property
    def width(self) -> int:
        """The columns of a terminal that it takes."""
        return sum(self.widths) + PADDING * len(self.widths) + 1


def fitted(sheet: Sheet, room: int) -> Fitted:
    """The table for a terminal of so many columns.

    Texts wrap between words, down to half of their width, but for the names of rows; then columns
    that can be spared are left out; then texts are cut short. Numbers stay whole: a table of
    numbers that has no room is wider than it.
    """
    left_out: list[str] = []
    while (widths := widths_within(sheet, room)) is None and sheet.spare:
        left_out.append(sheet.spare[0])
        sheet = sheet.without(sheet.spare[0])
    return Fitted(sheet, widths or cut_widths(sheet, room), tuple(left_out))


def widths_within(sheet: Sheet, room: int) -> tuple[int, ...] | None:
    """The widths of the columns where all texts can wrap in the room; None where they cannot."""
    wanted, least = [longest(column) for column in columns_of(sheet)], least_widths(sheet)
    free = room - 1 - PADDING * len(wanted) - sum(least)
    if free < 0:
        return None
    widths = []
    missing = sum(wanted) - sum(least)
    for want, need in zip(wanted, least, strict=True):
        more = want - need if free >= missing else free * (want - need) // missing
        free, missing = free - more, missing - (want - need)
        widths.append(need + more)
    return tuple(widths)


def cut_widths(sheet: Sheet, room: int) -> tuple[int, ...]:
    """The widths of columns whose texts and headers are cut short, the longest first."""
    widths = [*least_widths(sheet)]
    floors = [
        max(LEAST_TEXT, longest(cells)) if number else LEAST_TEXT
        for number, (_, *cells) in zip(sheet.numbers, columns_of(sheet), strict=True)
    ]
    while sum(widths) + PADDING * len(widths) + 1 > room:
        long = [index for index, floor in enumerate(floors) if widths[index] > floor]
        if not long:
            break
        widths[max(long, key=widths.__getitem__)] -= 1
    return tuple(widths)


def columns_of(sheet: Sheet) -> list[tuple[str, ...]]:
    """The columns from above, each with its header."""
    return [*zip(sheet.header, *sheet.rows, strict=True)]


def least_widths(sheet: Sheet) -> tuple[int, ...]:
    """The least width of each column: that of its names or numbers, or of its longest word and of
    half of its longest text. Headers may wrap between words.
    """
    found = []
    for index, (header, *cells) in enumerate(columns_of(sheet)):
        words = header.split()
        if index == 0 or sheet.numbers[index]:
            found.append(longest([*words, *cells]))
        else:
            words += [word for text in cells for word in text.split()]
            found.append(max(longest(words), -(-longest(cells) // 2)))
    return tuple(found)


def longest(texts: Sequence[str]) -> int:
    """The columns of a terminal that the longest text takes; a Chinese character takes two."""
    return max(map(cell_len, texts), default=0)
