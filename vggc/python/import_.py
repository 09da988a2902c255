"""Nets of other frameworks, in Python."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vggc.api import import_ as imports
from vggc.api.import_ import ImportOptions
from vggc.python.run import Place, optional
from vggc.python.told import log


@dataclass(frozen=True)
class ImportedFiles:
    """What `import_net` has written: a spec, and weights if the files held any.

    `difference` is the largest relative L2 difference from what the original gives, None where its
    engine is not installed; `notes` tell what is otherwise than in the original.
    """

    spec: Path
    weights: Path | None
    difference: float | None
    notes: tuple[str, ...]


def import_net(
    *files: Place,
    out: Place | None = None,
    size: tuple[int, int] | None = None,
    preprocessing: str | None = None,
) -> ImportedFiles:
    """Writes a net of another framework as a spec and its weights, and compares it with the
    original.

    Each argument is that of `vggc import`: `out` is the path of what is written without its ending,
    `size` (H, W) that of an input that the net leaves open, and `preprocessing` a preset or a file.

    Raises:
        UserError: the files hold no net, or one that the language cannot express, or something is
            in the place of what is to be written.
    """
    options = ImportOptions(
        files=tuple(os.fspath(file) for file in files),
        out=optional(Path, out),
        size=size,
        preprocessing=preprocessing,
    )
    found = imports.import_net(options, log.info)
    difference = found.comparison.worst.relative if found.comparison else None
    return ImportedFiles(found.spec, found.weights, difference, found.net.notes)
