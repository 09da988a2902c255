"""CIFAR's original files, but small."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from vggc.data.cifar import CIFAR10, CIFAR100, CifarVersion

LAYOUTS = tuple(replace(layout, num_train=20, num_test=15) for layout in (CIFAR10, CIFAR100))
"""With fewer pictures than the real ones."""


def files_of(layout: CifarVersion) -> dict[str, bytes]:
    """Files whose pictures have the grey of their class, but for one red pixel at the top right."""
    files = {layout.names: "\n".join(f"class{i}" for i in range(layout.num_classes)).encode()}
    for name in (*layout.train, layout.test):
        count = layout.num_test if name == layout.test else layout.num_train
        records = []
        for index in range(count):
            label = index % layout.num_classes
            planes = np.full((3, 32, 32), label, np.uint8)
            planes[0, 0, 31] = 255
            records.append(bytes([0] * (layout.num_labels - 1) + [label]) + planes.tobytes())
        files[name] = b"".join(records)
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_archive(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            archive.addfile(member, io.BytesIO(content))


def inside(layout: CifarVersion, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{layout.folder}/{name}": content for name, content in files.items()}
