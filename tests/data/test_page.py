"""docs/data.md: its programs do what it says, on archives like the real ones but small."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.support import ROOT
from tests.support.annotated import write_coco, write_listed, write_voc
from tests.support.cifar_files import LAYOUTS, files_of, inside, write_archive, write_folder
from tests.support.documents import examples
from tests.support.training_data import picture, write_images
from vggc.cli.train import command
from vggc.data import cifar
from vggc.data.find import find_images
from vggc.data.parts import Part

PAGE = list(examples("data.md"))
SYNSETS = {1: "n03", 2: "n01", 3: "n02"}
"""Which folder a number of the challenge means: not in the order of the folders' names."""


def write_programs(folder: Path) -> None:
    for example in PAGE:
        if example.name:
            (folder / example.name).write_text(example.text, "utf-8")


def run(folder: Path, *arguments: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        arguments, cwd=folder, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def jpeg(label: int, index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(label, index)).save(file, "JPEG")
    return file.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def write_imagenet(folder: Path, truth: list[int]) -> None:
    """The three archives: four images of each class, and one of each number in `truth`."""
    classes = {
        f"{name}.tar": tar({f"{name}_{i}.JPEG": jpeg(label, i) for i in range(4)})
        for label, name in SYNSETS.items()
    }
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(classes))
    held_out = {
        f"ILSVRC2012_val_{number:08}.JPEG": jpeg(label, 100 + number)
        for number, label in enumerate(truth, start=1)
    }
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar(held_out))
    # As in the devkit, numbers above those of the classes stand for groups of them.
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(number, name, "a, b", 0) for number, name in [*SYNSETS.items(), (4, "n99")]]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    devkit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(
            f"{number}\n" for number in truth
        ).encode(),
    }
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar(devkit, "w:gz"))


def brightest(part: Part, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """The class of each image by its label, and the channel that its class made bright."""
    found = []
    for content, label in zip(part.fetch(np.arange(len(part))), part.labels, strict=True):
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(source) as image:
            pixels = np.asarray(image).astype(float)
        found.append((classes[label], int(pixels.mean(axis=(0, 1)).argmax())))
    return found


def test_imagenet_becomes_a_folder_and_shards(tmp_path: Path) -> None:
    truth = [2, 3, 1, 1, 2, 3, 3]
    write_imagenet(tmp_path, truth)
    write_programs(tmp_path)
    run(tmp_path, "bash", "unpack.sh")
    run(tmp_path, sys.executable, "write_shards.py", "imagenet", "imagenet-shards", "5")
    assert not [*(tmp_path / "imagenet").rglob("*.tar")]
    names = sorted(path.name for path in (tmp_path / "imagenet-shards").iterdir())
    assert names[0] == "classes.txt"
    assert names[1:] == [f"train-000{i}.tar" for i in range(3)] + ["val-0000.tar", "val-0001.tar"]
    channel = {name: number % 3 for number, name in SYNSETS.items()}
    for place in ("imagenet", "imagenet-shards"):
        images = find_images(tmp_path / place, seed=0)
        assert images.classes == ("n01", "n02", "n03")
        assert images.skipped == ()
        assert (len(images.train), len(images.val)) == (12, 7)
        for part in (images.train, images.val):
            assert all(channel[name] == seen for name, seen in brightest(part, images.classes))
        counts = np.bincount(images.val.labels).tolist()
        assert counts == [truth.count(2), truth.count(3), truth.count(1)]


def test_gnu_tar_makes_a_shard(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for index in range(10):
        (tmp_path / f"samples/{index}.jpg").write_bytes(jpeg(index % 2, index))
        (tmp_path / f"samples/{index}.cls").write_text(str(index % 2))
    text = (ROOT / "docs/data.md").read_text("utf-8")
    (line,) = re.findall(r"`(tar --sort=name [^`]+)`", text)
    run(tmp_path, *shlex.split(line))
    images = find_images(tmp_path / "train-0000.tar", 0)
    assert (len(images.train), len(images.val), images.skipped) == (8, 2, ())


def write_annotated(folder: Path) -> None:
    for part in ("train", "val"):
        write_listed(folder / "VOCdevkit/VOC2007", part)
        file = "annotations/instances_{part}2017.json"
        write_coco(folder / "coco", part, file, "{part}2017")
    write_voc(folder / "raccoons", "train", "images", "annotations")


def test_every_command_finds_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "LAYOUTS", LAYOUTS)
    monkeypatch.chdir(tmp_path)
    classes = ("cat", "dog", "frog")
    for folder, count in (("photos", 5), ("more-photos", 2), ("split/train", 3), ("split/val", 2)):
        write_images(tmp_path / folder, classes, count)
    for layout, name in zip(LAYOUTS, ("cifar-10-binary", "cifar-100-binary"), strict=True):
        write_archive(tmp_path / f"{name}.tar.gz", inside(layout, files_of(layout)))
    write_folder(tmp_path / "cifar-10-batches-bin", files_of(LAYOUTS[0]))
    write_programs(tmp_path)
    run(tmp_path, sys.executable, "write_shards.py", "split", "shards", "3")
    for name in ("imagenet", "imagenet-shards"):
        (tmp_path / name).symlink_to("shards" if "shards" in name else "split")
    files = fsspec.filesystem("memory")
    for path in (tmp_path / "shards").iterdir():
        files.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    for number, name in enumerate(("a", "b")):
        content = (tmp_path / f"shards/train-{number:04}.tar").read_bytes()
        files.pipe_file(f"/set/{name}.tar", content)
    write_annotated(tmp_path)
    lines = "".join(example.text for example in PAGE if example.language == "sh").splitlines()
    commands = [shlex.split(line)[2:] for line in lines if line.startswith("vggc train ")]
    assert len(commands) > 10
    for arguments in commands:
        options = command.make_context("train", arguments).params
        data, val = (
            value and value.replace("s3://", "memory://").replace("https://example.org", "memory:/")
            for value in (options["data"], options["val"])
        )
        images = find_images(data, 0, val)
        assert len(images.train) > len(images.val) > 0, arguments
        assert images.skipped == ()
    files.rm("/bucket", recursive=True)
    files.rm("/set", recursive=True)


def test_boxes_are_commands_or_programs() -> None:
    assert {example.language for example in PAGE} == {"sh", "bash", "python"}
    assert all(example.name for example in PAGE if example.language != "sh")
