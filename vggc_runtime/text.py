"""Text from elsewhere, shown so that it stays in its place."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with everything that could move a terminal's cursor shown as one `�`."""
    text = text.replace("\t", " ")
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def in_line(text: str) -> str:
    """The text so that it stays in its line; names of files may hold anything."""
    return printable(text.replace("\n", "�"))
