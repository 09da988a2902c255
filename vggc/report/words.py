"""Numbers and moments as a page tells them."""

from __future__ import annotations


def percent(share: float) -> str:
    """With one decimal; what is not all, or not nothing, is not said to be."""
    text = f"{share:.1%}"
    if text == "100.0%" and share < 1:
        return "> 99.9%"
    if text == "0.0%" and share > 0:
        return "< 0.1%"
    return text


def rounded(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def counted(number: int, one: str) -> str:
    """A number and what it counts: `1 image`, `1,200 images`."""
    return f"{number:,} {one if number == 1 else f'{one}s'}"


def spaced(moment: str) -> str:
    """A moment of ISO 8601 up to its minute, a space between day and hour."""
    return moment[:16].replace("T", " ")


def duration(seconds: float) -> str:
    """In the two largest units."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 60:
        return f"{seconds:.3g} s"
    if hours < 1:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    if days < 1:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} d {int(hours % 24)} h"
