"""CIFAR in its original files."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.cifar_files import LAYOUTS, files_of, inside, write_archive, write_folder
from vggc.data import cifar, diagnostics
from vggc.data.cifar import CIFAR10, CIFAR100, CifarVersion
from vggc.data.find import find_images
from vggc.support.diagnostics import UserError

TEN, HUNDRED = LAYOUTS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "LAYOUTS", LAYOUTS)


def refused(place: Path) -> diagnostics.BadCifar | diagnostics.PickledCifar:
    with pytest.raises(UserError) as error:
        find_images(place, 0)
    (found,) = error.value.diagnostics
    assert isinstance(found, diagnostics.BadCifar | diagnostics.PickledCifar)
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
@pytest.mark.parametrize("form", ["the folder itself", "the one around it", "the archive"])
def test_its_pictures_are_read_from_where_they_came(
    tmp_path: Path, layout: CifarVersion, form: str
) -> None:
    files = files_of(layout)
    match form:
        case "the folder itself":
            write_folder(place := tmp_path / "any", files)
        case "the one around it":
            write_folder(tmp_path / layout.folder, files)
            place = tmp_path
        case _:
            write_archive(place := tmp_path / "cifar.tar.gz", inside(layout, files))
    images = find_images(place, seed=0)
    assert images.classes == tuple(f"class{i}" for i in range(layout.num_classes))
    assert len(images.train) == 20 * len(layout.train)
    assert len(images.val) == 15
    assert images.train.name(0) == f"{layout.train[0]}, picture 0"
    assert images.val.name(14) == f"{layout.test}, picture 14"
    for part in (images.train, images.val):
        pixels = np.stack(part.fetch(np.arange(len(part))))
        assert pixels.shape == (len(part), 32, 32, 3)
        assert (pixels[:, 1:] == part.labels[:, None, None, None]).all()
        assert (pixels[:, 0, 31, 0] == 255).all()
        assert (pixels[:, 0, :31].max(axis=(1, 2)) == part.labels).all()


def test_the_real_files_have_these_sizes() -> None:
    assert [CIFAR10.most(name) for name in CIFAR10.train] == [30_730_000] * 5
    assert CIFAR10.most(CIFAR10.test) == 30_730_000
    assert CIFAR100.most("train.bin") == 153_700_000
    assert CIFAR100.most("test.bin") == 30_740_000


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("data_batch_2.bin", lambda content: content[:-1], "data_batch_2.bin should have 61,460"),
        ("data_batch_2.bin", lambda content: content + b"\0", "data_batch_2.bin should have"),
        (
            "test_batch.bin",
            lambda content: b"\x0a" + content[1:],
            "a label is 10, and there are 10",
        ),
        ("batches.meta.txt", lambda content: content[:20], "should hold 10 names"),
        ("batches.meta.txt", lambda content: content.replace(b"9", b"8"), "should hold 10 names"),
        ("batches.meta.txt", lambda content: b"\xff" + content, "should hold 10 names"),
        ("batches.meta.txt", lambda content: content * 9999, "batches.meta.txt"),
        ("data_batch_3.bin", None, "data_batch_3.bin"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes] | None, words: str
) -> None:
    files = files_of(TEN)
    content = files.pop(name)
    if change is not None:
        files[name] = change(content)
    write_folder(tmp_path / "folder", files)
    write_archive(tmp_path / "a.tar.gz", inside(TEN, files))
    for place in ("folder", "a.tar.gz"):
        found = refused(tmp_path / place)
        assert isinstance(found, diagnostics.BadCifar)
        assert words in found.reason


def test_archives_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    path, files = tmp_path / "a.tar.gz", files_of(TEN)
    write_archive(path, inside(TEN, files))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(path).reason
    path.write_bytes(whole[:400] + b"\xff" * 40 + whole[440:])
    assert refused(path)
    checksum = bytes([whole[-8] ^ 1])
    for damaged, words in (
        (whole[:-8] + checksum + whole[-7:], "CRC check failed"),
        (whole[:-1] + b"\1", "Incorrect length"),
        (whole[:-4], "ended before the end"),
        (whole + b"garbage", "Not a gzipped file"),
        (whole + gzip.compress(b"more"), "something stands behind its end"),
    ):
        path.write_bytes(damaged)
        assert words in refused(path).reason
    path.write_bytes(whole + bytes(512))
    assert len(find_images(path, 0).train) == 100
    path.write_bytes(b"no archive")
    assert "damaged" in refused(path).reason
    path.write_bytes(gzip.compress(b"no tar" * 200))
    assert "it is no tar" in refused(path).reason
    write_archive(path, inside(TEN, files), tarfile.SYMTYPE)
    assert "is a link" in refused(path).reason


@pytest.mark.parametrize("name", ["batches.meta.txt", "data_batch_1.bin", "test_batch.bin", None])
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path, name: str | None) -> None:
    write_folder(tmp_path / TEN.folder, files_of(TEN))
    place = tmp_path / TEN.folder / name if name else tmp_path / "cifar.tar.gz"
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    assert "it is a named pipe, not a file" in refused(tmp_path if name else place).reason


def test_another_archive_is_taken_for_a_compressed_shard(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.tar.gz", files_of(TEN))
    with pytest.raises(UserError) as error:
        find_images(tmp_path / "a.tar.gz", 0)
    assert isinstance(error.value.diagnostics[0], diagnostics.CompressedShard)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"bomb": bytes(2**20), **inside(TEN, files_of(TEN))}
    write_archive(tmp_path / "a.tar.gz", files)
    assert len(find_images(tmp_path / "a.tar.gz", 0).train) == 100
    monkeypatch.setattr(cifar, "MAX_ARCHIVE", 2**19)
    assert "`bomb` ends at byte" in refused(tmp_path / "a.tar.gz").reason


def test_pickles_are_not_read(tmp_path: Path) -> None:
    batches = {f"data_batch_{number}": b"cos\nsystem\n" for number in range(1, 6)}
    pickled = {**batches, "test_batch": b"", "batches.meta": b""}
    write_folder(tmp_path / "10/cifar-10-batches-py", pickled)
    write_folder(tmp_path / "renamed", pickled)
    write_folder(tmp_path / "cifar-100-python", {"train": b"", "test": b"", "meta": b""})
    write_archive(tmp_path / "cifar-10-python.tar.gz", pickled)
    inner = {f"cifar-10-batches-py/{name}": content for name, content in pickled.items()}
    write_archive(tmp_path / "other.tar.gz", inner)
    for place, binary in (
        ("10", "cifar-10-binary.tar.gz"),
        ("10/cifar-10-batches-py", "cifar-10-binary.tar.gz"),
        ("renamed", "cifar-10-binary.tar.gz"),
        ("cifar-100-python", "cifar-100-binary.tar.gz"),
        ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
        ("other.tar.gz", "cifar-10-binary.tar.gz"),
    ):
        found = refused(tmp_path / place)
        assert isinstance(found, diagnostics.PickledCifar)
        assert found.binary == binary
    # Whoever has both is given the one that can be read.
    write_folder(tmp_path / "10/cifar-10-batches-bin", files_of(TEN))
    assert len(find_images(tmp_path / "10", 0).train) == 100


def test_a_held_out_part_comes_with_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "bin", files_of(TEN))
    with pytest.raises(UserError) as error:
        find_images(tmp_path / "bin", 0, tmp_path)
    assert isinstance(error.value.diagnostics[0], diagnostics.HeldOutTwice)


@pytest.mark.slow
def test_the_archive_at_its_real_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "LAYOUTS", (CIFAR10, CIFAR100))
    records = np.random.default_rng(0).integers(0, 10, (10_000, CIFAR10.record), np.uint8)
    names = [f"class{i}" for i in range(10)]
    files = dict.fromkeys((*CIFAR10.train, CIFAR10.test), records.tobytes())
    files["batches.meta.txt"] = "\n".join([*names, "", ""]).encode()
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in inside(CIFAR10, files).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    images = find_images(path, 0)
    assert (len(images.train), len(images.val)) == (50_000, 10_000)
    assert images.classes == tuple(names)
    (last,) = images.train.fetch(np.array([49_999]))
    assert isinstance(last, np.ndarray)
    assert (last == records[-1, 1:].reshape(3, 32, 32).transpose(1, 2, 0)).all()
