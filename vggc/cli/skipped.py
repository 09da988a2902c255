"""What every command says of images that it left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggc.data.parts import Skipped
from vggc_runtime.text import in_line

SHOWN = 20
"""Images that are named one by one; the others are only counted."""


def told(skipped: Sequence[Skipped], total: int | None = None) -> Iterator[str]:
    """A line for each of the first, and how many there are. `total` counts those, too, that are
    not among `skipped`.
    """
    total = len(skipped) if total is None else total
    shown = skipped[:SHOWN]
    for each in shown:
        where = " (held out)" if each.part == "val" else ""
        yield f"  skipped {in_line(each.name)}: {in_line(each.reason)}{where}"
    if total > len(shown):
        yield f"  … and {total - len(shown):,} more"
    if total:
        yield f"{total:,} left out."
