"""A root folder with a C compiler's own files and no others, as a machine without Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = ("cc1", "collect2", "as", "ld", "lto-wrapper")
"""What gcc calls."""

OPENED = re.compile(r"attempt to open (\S+) succeeded")
"""What a linker says of its files, scripts and libraries among them."""

FOLDERS = ("bin", "lib", "lib64", "sbin")
"""What may be a link into /usr."""


def within(root: Path, folder: str = "/") -> list[str]:
    """The command in front of one that takes `root` for the root, and starts in a folder there."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *as_root, f"--root={root}", f"--wd={folder}"]


def can_enter() -> bool:
    """Whether this process may take a folder for the root."""
    try:
        done = subprocess.run([*within(Path("/")), "/bin/true"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def install_compiler(root: Path, commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Puts gcc into a new root, and all that it reads for commands `cc …` of one source file. They
    are run once in `folder` for that.
    """
    compiler = os.path.realpath(str(shutil.which("gcc")))
    found = {compiler, _said(compiler, "-print-file-name=liblto_plugin.so")}
    found |= {_program(compiler, name) for name in PROGRAMS}
    for path in sorted(found):
        found |= set(re.findall(r"(/\S+) \(0x", _said("ldd", path)))
    for _, source, *words in commands:
        headers = _said(compiler, "-M", source, folder=folder)
        linked = _said(compiler, source, *words, "-Wl,--verbose", folder=folder)
        found |= {*headers.split(), *OPENED.findall(linked)}
    for name in ("usr/bin", "tmp"):
        (root / name).mkdir(parents=True)
    for name in FOLDERS:
        if Path("/", name).is_symlink():
            target = os.readlink(f"/{name}").lstrip("/")
            (root / target).mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(target)
    for path in {os.path.normpath(path) for path in found if path.startswith("/")}:
        if not os.path.exists(path):
            continue  # what the compiler made on its way
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    (root / "usr/bin/cc").symlink_to(compiler)


def _program(compiler: str, name: str) -> str:
    path = _said(compiler, f"-print-prog-name={name}")
    return shutil.which(path) or path


def _said(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
