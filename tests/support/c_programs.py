"""Programs in C around the runtime's sources, compiled so that they tell their own mistakes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import ROOT
from vggc.support.tensors import opened

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
ADDRESSES = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
THREADS = ("-g", "-fsanitize=thread")

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def compiled(source: Path, folder: Path, *flags: str, compiler: str = "cc") -> Path:
    """A program of one file in C11, which may include the runtime's; warnings are mistakes."""
    program = folder / source.stem
    command = [compiler, "-std=c11", "-O2", *WARNINGS, *flags, f"-I{ROOT / 'vggc' / 'native'}"]
    subprocess.run([*command, "-pthread", source, "-o", program], check=True, timeout=300)
    return program


def printed(command: Sequence[str | Path], given: bytes = b"") -> list[str]:
    """The lines that a program prints, which ends well and has nothing to complain about."""
    done = subprocess.run(command, input=given, capture_output=True, timeout=300)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode().splitlines()


def weights_plan(path: Path) -> str:
    """What tests/native/weights_driver.c is told of the weights in a file, those of a net."""
    with opened(path) as file:
        header = file.header()
        lines = [f"{path.stat().st_size} {len(header)} {hashlib.sha256(header).hexdigest()}"]
        lines.append(f"{len(file.tensors)}")
        for name, tensor in file.tensors.items():
            digest = file.piecewise_sha256(name).hex()
            lines.append(f"{name} {tensor.offset} {tensor.bytes} {digest}")
    return "\n".join(lines)
