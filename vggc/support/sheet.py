"""A table before it is drawn: on a terminal, a page, or in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn. The first column names its rows; `numbers` tells which columns
    align to the right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()
    """Rows that a line is drawn under."""
    spare: tuple[str, ...] = ()
    """Headers of columns that may be left out where there is no room, the least needed first."""

    def without(self, name: str) -> Sheet:
        """The table without a column."""
        index = self.header.index(name)

        def rest(row: tuple[str, ...]) -> tuple[str, ...]:
            return (*row[:index], *row[index + 1 :])

        return replace(
            self,
            header=rest(self.header),
            rows=tuple(map(rest, self.rows)),
            numbers=(*self.numbers[:index], *self.numbers[index + 1 :]),
            spare=tuple(other for other in self.spare if other != name),
        )
