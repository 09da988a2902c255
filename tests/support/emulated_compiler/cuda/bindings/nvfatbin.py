"""NVIDIA's packer of machine code, as far as vggc calls it: a container has one piece."""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = (0xBA55ED50).to_bytes(4, "little")
CODE_AT = 16
"""Where the emulated driver finds the code."""


@dataclass
class Container:
    content: bytes = b""


def version() -> tuple[int, int]:
    return 13, 0


def create(options: list[str], number: int) -> Container:
    return Container()


def add_cubin(container: Container, code: bytes, size: int, arch: str, name: str) -> None:
    assert not container.content
    container.content = MAGIC.ljust(CODE_AT, b"\0") + code


def size(container: Container) -> int:
    return len(container.content)


def get(container: Container, content: bytearray) -> None:
    content[:] = container.content


def destroy(container: Container) -> None: ...
