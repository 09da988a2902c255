"""SHA-256 in C, by each implementation that the processor has, is what Python's is."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.aarch64 import COMPILER, MISSING, QEMU
from tests.support.c_programs import ADDRESSES, compiled, needs_cc, printed

DRIVER = Path(__file__).with_name("sha256_driver.c")
DATA = np.random.default_rng(0).bytes((5 << 20) + 3)
IMPLEMENTATIONS = ("portable", "extension", "fastest")
LACKS_EXTENSION = 77


def expected() -> list[str]:
    lengths = [*range(301), len(DATA)]
    return [hashlib.sha256(DATA[:length]).hexdigest() for length in lengths]


@needs_cc
def test_every_length_is_hashed_as_python_does(tmp_path: Path) -> None:
    program = compiled(DRIVER, tmp_path, *ADDRESSES)
    for name in IMPLEMENTATIONS:
        if name == "extension" and lacks_extension(program):
            continue
        assert printed([program, name], DATA) == expected()


def lacks_extension(program: Path) -> bool:
    return subprocess.run([program, "extension"], input=b"").returncode == LACKS_EXTENSION


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_aarch64_hashes_as_python_does(tmp_path: Path) -> None:
    compiler = str(COMPILER).replace("g++", "gcc")
    program = compiled(DRIVER, tmp_path, "-static", compiler=compiler)
    for name in IMPLEMENTATIONS:
        assert printed([str(QEMU), program, name], DATA) == expected()
