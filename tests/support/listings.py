"""What is read in listings of machine code."""

from __future__ import annotations

import re


def newer_than_avx2(code: str) -> list[str]:
    """The lines of a listing that name a register of AVX-512."""
    return re.findall(r".*%(?:zmm|[xy]mm(?:1[6-9]|2\d|3[01])\b|k[0-7]\b).*", code)
