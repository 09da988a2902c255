"""What tests of code for GPUs need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from vggc.compiler import device_code

needs_nvrtc = pytest.mark.skipif(not device_code._has_nvrtc(), reason="no NVRTC")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
needs_compilers = pytest.mark.skipif(
    not device_code._has_nvrtc() or shutil.which("g++") is None, reason="no NVRTC or no g++"
)


def run_python(script: str, folder: Path, environment: dict[str, str]) -> None:
    path = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=folder, env={**environment, **path}, check=True)
