"""Compiled modules as shared libraries."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

OBJECTS = ("lib0.o", "devc.o", "imports.o")
"""What TVM, and `device_code.py`, call the files that are linked."""

PATIENCE = 900
"""Seconds after which a linker hangs."""

TELLING = re.compile(r"(?i)error|cannot|failed|no such|no space|not found|undefined")
"""What a line of a compiler says that gives a reason."""


class LinkError(Exception):
    """The compiler that links has failed; the message is what it said last."""


def export_library(module: Any, path: Path, linker: str, **more: Callable[..., str]) -> None:
    """Writes the library of a compiled module, linked by a C++ compiler. What is made on the way
    lies beside it or in memory, and is gone at the end.

    Raises:
        LinkError: the compiler fails, or takes more than `PATIENCE`.
        OSError: files cannot be written.
    """
    with workspace(path.parent) as (folder, objects):
        link = partial(linked, linker=linker, folder=folder, objects=objects)
        module.export_library(str(path), fcompile=link, workspace_dir=str(folder), **more)


def object_file(module: Any) -> bytes:
    """The object file of a compiled module. It is made in memory: where LLVM cannot write a file,
    because a disk is full, it ends the process.
    """
    with _nameless_file() as file:
        module.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return file.read()


def _nameless_file() -> IO[bytes]:
    """A file in memory; without such memory a temporary one."""
    try:
        return open(os.memfd_create("kernels.o"), "rb")
    except OSError:
        return TemporaryFile()


@contextmanager
def workspace(beside: Path) -> Iterator[tuple[Path, Sequence[int]]]:
    """A folder whose object files are in memory, as these descriptors: where LLVM cannot write a
    file, because a disk is full, it ends the process.
    """
    objects: list[int] = []
    with TemporaryDirectory(prefix=".link.", dir=beside) as name:
        try:
            with suppress(OSError):  # without such memory the objects are files
                for each in OBJECTS:
                    objects.append(os.memfd_create(each))
                    os.symlink(f"/proc/self/fd/{objects[-1]}", Path(name, each))
            yield Path(name), objects
        finally:
            for descriptor in objects:
                os.close(descriptor)


def linked(
    library: str, files: Sequence[str], *, linker: str, folder: Path, objects: Sequence[int]
) -> str:
    """Links object files to a library, and gives its path.

    Raises:
        LinkError: it cannot be.
    """
    call([linker, "-shared", "-fPIC", "-o", library, *files], folder, objects)
    return library


def call(command: Sequence[str], folder: Path, objects: Sequence[int] = ()) -> str:
    """Runs a compiler or a tool beside it, and gives what it prints. What it makes on its way lies
    in `folder`; it may open the descriptors `objects`.

    Raises:
        LinkError: it fails, or takes more than `PATIENCE`.
    """
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            pass_fds=objects,
            timeout=PATIENCE,
        )
    except OSError as fault:
        raise LinkError(fault.strerror or str(fault)) from None
    except subprocess.TimeoutExpired:
        raise LinkError(f"it has not ended after {PATIENCE // 60} minutes") from None
    if done.returncode:
        raise LinkError(last_words(done.stderr, done.returncode))
    return done.stdout


def tool(compiler: str, name: str, folder: Path) -> str:
    """The tool that belongs to a compiler, and so to its machine.

    Raises:
        LinkError: the compiler does not tell.
    """
    return call([compiler, f"-print-prog-name={name}"], folder).strip() or name


def last_words(text: str, code: int) -> str:
    """The last line in which a compiler gives a reason, or else what it ended with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if TELLING.search(line)] or lines
    if telling:
        return telling[-1]
    return f"it ended with signal {-code}" if code < 0 else f"it ended with exit code {code}"
