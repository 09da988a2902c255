"""What is deployed: texts, and the artifact that they speak of."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vggc.runtime.artifact import Manifest, Target
from vggc.support.files import new_folder
from vggc.support.templates import filled
from vggc_runtime.folder import MANIFEST
from vggc_runtime.text import in_line
from vggc_runtime.version import __version__

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class DeployedFiles:
    """Texts by their paths in a folder, and the path there that the artifact is copied to."""

    texts: Mapping[str, str]
    artifact: str


def from_template(template: str, name: str, manifest: Manifest, **words: str) -> str:
    """A template, filled with words and with what each may say of the net."""
    text = (TEMPLATES / template).read_text("utf-8")
    about = {
        "NAME": name,
        "VERSION": __version__,
        "MACHINE": machine(manifest.target),
        "PRECISION": manifest.precision,
    }
    return filled(text, about | words)


def machine(target: Target) -> str:
    """The CPU or the architectures of GPUs that an artifact is for."""
    return ", ".join(target.archs) or in_line(str(target.attrs.get("mcpu", target.name)))


def write(files: DeployedFiles, artifact: Path, manifest: Manifest, folder: Path) -> None:
    """Writes a new folder, whole or not at all, with a copy of an artifact in it. Of that only what
    its manifest names is copied.

    Raises: UserError where the folder is taken or cannot be written.
    """
    with new_folder(folder) as made:
        for path, text in files.texts.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, "utf-8")
        copied = made / files.artifact
        copied.mkdir(parents=True)
        for name in (MANIFEST, *manifest.files):
            shutil.copyfile(artifact / name, copied / name)
