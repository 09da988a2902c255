"""A table before it is drawn: on a terminal, a page, or in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape

from vggc_runtime.text import printable


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


def as_html(sheet: Sheet) -> str:
    """The table for a notebook. Every text is escaped, and what nobody can see shows as `�`."""
    sides = ["right" if number else "left" for number in sheet.numbers]

    def cells(tag: str, texts: tuple[str, ...]) -> str:
        # Brackets of joins stand below one another, so that blanks count.
        look = 'style="white-space: pre; text-align: {}"'.format
        pairs = zip(sides, texts, strict=True)
        return "".join(f"<{tag} {look(side)}>{_shown(text)}</{tag}>" for side, text in pairs)

    title = f"<caption>{_shown(sheet.title)}</caption>" if sheet.title else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in sheet.rows)
    notes = "".join(f"<p>{_shown(note)}</p>" for note in sheet.notes)
    head = f"<thead><tr>{cells('th', sheet.header)}</tr></thead>"
    return f"<div><table>{title}{head}<tbody>{body}</tbody></table>{notes}</div>"


def as_text(sheet: Sheet) -> str:
    """The table in plain text, as wide as it is, for a Python prompt."""
    columns = zip(sheet.header, *sheet.rows, strict=True)
    widths = [max(map(len, column)) for column in columns]

    def line(texts: tuple[str, ...]) -> str:
        cells = zip(texts, widths, sheet.numbers, strict=True)
        return "  ".join(
            text.rjust(width) if number else text.ljust(width) for text, width, number in cells
        ).rstrip()

    title = [sheet.title] if sheet.title else []
    return printable("\n".join([*title, *map(line, (sheet.header, *sheet.rows)), *sheet.notes]))


def _shown(text: str) -> str:
    return escape(printable(text))
