"""Which instructions this machine's processors have.

Known without TVM, whose compiler takes 100 MB that a running net need not pay.
"""

from __future__ import annotations

import re
from pathlib import Path

from vggc_runtime.control_groups import ROOT

INSTRUCTIONS = re.compile(
    r"(sse|ssse|avx(?!10)|fma|bmi|f16c|lzcnt|popcnt|movbe|gfni"
    r"|neon|sve(?!.*(aes|sha|sm4))|dotprod|fullfp16|i8mm|bf16).*"
)
"""LLVM's names for instruction sets that it may use in our kernels. Ciphers, and sets that are only
names for groups of others, are not among them."""
KERNEL_NAMES = {
    "pni": "sse3",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
}
"""Linux's names for instruction sets that differ from LLVM's by more than dots and strokes."""


def instructions(root: Path = ROOT) -> frozenset[str] | None:
    """The instruction sets that the system says the processors have, plainly named.

    None where it says nothing.
    """
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return None
    found = re.search(r"(?m)^(?:flags|Features)\s*:(.*)$", text)
    if found is None:
        return None
    return frozenset(plain(KERNEL_NAMES.get(flag, flag)) for flag in found[1].split())


def plain(name: str) -> str:
    """An instruction set's name as LLVM and Linux both spell it: `sse4.2` is `sse4_2`."""
    return re.sub(r"[._-]", "", name)


def lacks_half() -> bool:
    """Whether PyTorch has no convolutions in bfloat16 for this processor, where it is known.

    Source: PyTorch's `mkldnn_bf16_device_check`.
    """
    found = instructions()
    if found is None:
        return False
    return "bf16" not in found and not {"avx512bw", "avx512vl", "avx512dq"} <= found
