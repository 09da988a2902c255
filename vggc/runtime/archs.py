"""The names of GPU architectures, and which devices run code for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

ARCH = re.compile("sm_[0-9]{2,3}a?|compute_[0-9]{2,3}")
"""The name of a GPU architecture, or of one whose PTX is meant."""

Capability: TypeAlias = tuple[int, int]
"""Compute capability, major and minor."""


def runs_on(arch: str, device: Capability) -> bool:
    """Whether a device of this capability runs code for `arch`: machine code for one of its major
    version and no higher minor one, or where the name ends in `a`, for itself only; PTX for any
    that is no newer.
    """
    if is_ptx(arch):
        return capability(arch) <= device
    if is_specific(arch):
        return capability(arch) == device
    major, minor = capability(arch)
    return major == device[0] and minor <= device[1]


def is_ptx(arch: str) -> bool:
    """Whether code for `arch` is PTX, which the driver makes machine code of."""
    return arch.startswith("compute_")


def is_specific(arch: str) -> bool:
    """Whether code for `arch` may have instructions of its architecture that no later one has."""
    return arch.endswith("a")


def capability(arch: str) -> Capability:
    """`(8, 0)` for "sm_80" and "compute_80", `(9, 0)` for "sm_90a".

    Raises:
        ValueError: `arch` is not the name of an architecture.
    """
    found = re.fullmatch(r"(?:sm_(?=\d+a?$)|compute_(?=\d+$))(\d+)(\d)a?", arch)
    if found is None:
        raise ValueError(f"{arch!r} is not a GPU architecture; they are named sm_80, sm_90, …")
    return int(found[1]), int(found[2])


def in_words(archs: Sequence[str]) -> str:
    """Kernels that are for some of an artifact's GPUs, as `kernels for sm_90a`; nothing for those
    that are for all.
    """
    return f"kernels for {listed(archs)}" if archs else ""


def listed(words: Sequence[str]) -> str:
    """Architectures, or other words, in a row: `sm_80, sm_86 and sm_90`."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
