"""What NVIDIA's compiler made of CUDA C++: what a kernel takes, and its instructions."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vggc.compiler.device_code import code_by_nvrtc


@dataclass(frozen=True)
class KernelResources:
    """The registers of a thread, its bytes on the stack, what is spilled to memory, a block's bytes
    of shared memory but for those that its launch asks for, and whether products of warpgroups wait
    for one another.
    """

    registers: int
    stack: int
    spilled: int
    shared: int
    serialized: bool


ENTRY = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) "
    r"bytes spill loads\s+ptxas info\s+: Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
    re.S,
)
SERIALIZED = re.compile(r"wgmma\.mma_async instructions are serialized .*? function '(\w+)'")


def compiled(source: str, arch: str) -> tuple[bytes, dict[str, KernelResources]]:
    """The cubin for an architecture, and what each kernel takes."""
    log: list[str] = []
    cubin = code_by_nvrtc(source, arch, ["--ptxas-options=-v"], log.append)
    serialized = SERIALIZED.findall(log[0])
    return cubin, {
        name: KernelResources(
            registers=int(registers),
            stack=int(stack),
            spilled=int(stores) + int(loads),
            shared=int(shared or 0),
            serialized=name in serialized,
        )
        for name, stack, stores, loads, registers, shared in ENTRY.findall(log[0])
    }


EM_CUDA = 190
TABLES = struct.Struct("<32xQQ6xHHHH")
"""Of the head of an ELF file: where its tables of segments and sections lie, and the sizes and
numbers of their rows. One of them ends it."""


def cubins(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The machine code in a library or a fatbin, by its architecture: whole ELF files."""
    start = content.find(b"\x7fELF")
    while start >= 0:
        (machine,) = struct.unpack_from("<H", content, start + 18)
        (flags,) = struct.unpack_from("<I", content, start + 48)
        segments, sections, *rows = TABLES.unpack_from(content, start)
        if machine == EM_CUDA:
            end = start + max(segments + rows[0] * rows[1], sections + rows[2] * rows[3])
            yield f"sm_{flags >> 8 & 0xFF}", content[start:end]
        start = content.find(b"\x7fELF", start + 4)


@cache
def disassembler() -> str | None:
    """NVIDIA's disassembler, which pip puts beside the compiler's libraries."""
    places = [Path(each) / "nvidia" / "cu13" / "bin" / "nvdisasm" for each in sys.path]
    return next((str(place) for place in places if place.exists()), shutil.which("nvdisasm"))


FUNCTION = re.compile(r"^\.text\.(\w+):$", re.M)
LABEL = re.compile(r"^\.(L\w+):$")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);")


def instructions(cubin: bytes, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each kernel in order, each with its operands; a label is one whose name
    begins with a point.
    """
    path = folder / "kernels.cubin"
    path.write_bytes(cubin)
    told = disassembler()
    assert told is not None
    listing = subprocess.run([told, str(path)], capture_output=True, text=True, check=True).stdout
    _, *parts = FUNCTION.split(listing)
    return dict(zip(parts[::2], map(_lines, parts[1::2]), strict=True))


def _lines(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        if label := LABEL.match(line):
            found.append((f".{label[1]}", ""))
        elif instruction := INSTRUCTION.match(line):
            found.append((instruction[1], instruction[2]))
        elif line.startswith(".section"):
            break
    return found


def loops(code: list[tuple[str, str]]) -> Iterator[list[str]]:
    """The instructions of each loop: from a label to a branch back to it."""
    places = {name: index for index, (name, _) in enumerate(code) if name.startswith(".")}
    for index, (name, operands) in enumerate(code):
        target = re.search(r"`\((\.L\w+)\)", operands)
        if name.startswith("BRA") and target and places.get(target[1], index) < index:
            inside = code[places[target[1]] : index + 1]
            yield [name for name, _ in inside if not name.startswith(".")]


def main_loop(code: list[tuple[str, str]]) -> list[str]:
    """The instructions of the shortest loop that multiplies on tensor cores, where there is one."""
    return min((loop for loop in loops(code) if any(map(is_product, loop))), key=len, default=[])


def is_product(name: str) -> bool:
    """Whether an instruction multiplies on tensor cores."""
    return name.startswith(("HMMA", "HGMMA", "IMMA", "IGMMA"))


def feeds_products(name: str) -> bool:
    """Whether an instruction multiplies on tensor cores, or brings what they multiply."""
    return is_product(name) or name.startswith(("LDSM", "LDGSTS", "UTMALDG"))
