"""The boxes of a page of the documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support import ROOT

DOCS = ROOT / "docs"

FENCE = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Example:
    """A box of a page: a file with its name, or commands with what they print."""

    language: str
    name: str
    text: str


def examples(page: str) -> Iterator[Example]:
    for match in FENCE.finditer((DOCS / page).read_text("utf-8")):
        yield Example(*match.groups())
