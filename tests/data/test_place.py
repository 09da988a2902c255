"""A place of images is told once to be what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggc.data.place import (
    CifarPlace,
    PartedFolder,
    PlainFolder,
    ShardPattern,
    is_gone,
    parse_place,
)


def laid_out(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    "text", ["s3://photos/{00..12}.tar", "https://x.org/a", "a-{0..3}.tar", "one.tar", "{a,b}"]
)
def test_what_names_shards_one_by_one_is_a_pattern(text: str) -> None:
    assert parse_place(text) == ShardPattern(text)
    assert not is_gone(text)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (("cat/1.jpg", "dog/1.jpg"), PlainFolder),
        (("0.tar", "1.tar"), PlainFolder),
        (("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg"), PartedFolder),
        (("train-0.tar", "val-0.tar"), PartedFolder),
        (("data_batch_1.bin", "batches.meta.txt"), CifarPlace),
        (("cifar-100-binary/train.bin", "cifar-100-binary/fine_label_names.txt"), CifarPlace),
    ],
    ids=str,
)
def test_what_lies_in_a_folder_tells_what_it_is(
    files: tuple[str, ...], kind: type, tmp_path: Path
) -> None:
    # A folder is one whatever it is called.
    folder = laid_out(tmp_path / "{a}.tar", *files)
    place = parse_place(str(folder))
    assert isinstance(place, kind)
    assert place.text == str(folder)


def test_an_archive_may_be_cifar(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").touch()
    assert isinstance(parse_place(str(tmp_path / "cifar-10-binary.tar.gz")), CifarPlace)


def test_known_classes_are_no_parts(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "train/1.jpg", "test/1.jpg")
    assert isinstance(parse_place(str(folder), ("train", "test", "plane")), PlainFolder)


def test_a_folder_that_is_not_there_is_gone(tmp_path: Path) -> None:
    text = str(tmp_path / "moved")
    assert is_gone(text)
    assert parse_place(text) == PlainFolder(text)
