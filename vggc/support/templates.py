"""Texts that are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping


def filled(template: str, words: Mapping[str, str]) -> str:
    """A text with each `@KEY@` replaced by what the key stands for.

    Raises: KeyError where nothing is said of a key.
    """
    return re.sub("@([A-Z]+)@", lambda found: words[found[1]], template)
