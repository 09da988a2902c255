"""Shards: tars whose samples are read where they lie, here or elsewhere."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.support.training_data import TINY, picture, write_images
from vggc.data import diagnostics, remote, shard_index, tar
from vggc.data.find import find_images
from vggc.data.loader import TrainBatches, load
from vggc.data.order import Order, Share
from vggc.data.parts import Part
from vggc.data.prepare import prepare
from vggc.data.shards import expanded
from vggc.support.diagnostics import Diagnostic, UserError, render
from vggc_runtime.preprocessing import BrokenImageError

CLASSES = ("cat", "dog", "frog")
Files = list[tuple[str, bytes]]


def png(label: int, index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(label, index)).save(file, "PNG")
    return file.getvalue()


def sample(label: int, index: int) -> Files:
    key = f"{label}{index:03}"
    return [(f"{key}.png", png(label, index)), (f"{key}.cls", str(label).encode())]


def shard_bytes(files: Sequence[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def write_shard(path: Path, files: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shard_bytes(files))


def shards(count: int, num_shards: int = 3, first: int = 0) -> list[Files]:
    """`count` pictures of each of three classes, mixed over so many shards."""
    order = [(label, index) for index in range(first, first + count) for label in range(3)]
    return [
        [file for place in order[start::num_shards] for file in sample(*place)]
        for start in range(num_shards)
    ]


def write_set(folder: Path, count: int = 4) -> None:
    """A folder of shards to train on and shards to hold out."""
    for part, size, first in (("train", count, 0), ("val", 2, 100)):
        for number, files in enumerate(shards(size, first=first)):
            write_shard(folder / f"{part}-{number:04}.tar", files)


def names(part: Part) -> list[str]:
    return [part.name(index) for index in range(len(part))]


def mistake(function: Callable[[], object]) -> Diagnostic:
    with pytest.raises(UserError) as error:
        function()
    return error.value.diagnostics[0]


def pictures(part: Part) -> list[np.ndarray]:
    found = part.fetch(np.arange(len(part)))
    assert all(isinstance(content, bytes) for content in found), found
    return [np.asarray(Image.open(io.BytesIO(content))) for content in found]


def check_whole_set(train: Part, count: int = 4) -> None:
    """Each picture is the one of its name and its class."""
    assert len(train) == 3 * count
    for name, label, pixels in zip(names(train), train.labels, pictures(train), strict=True):
        key = name.rpartition("/")[2].removesuffix(".png")
        assert int(key[0]) == label
        assert (pixels == picture(int(key[0]), int(key[1:]))).all()


# What they hold


def test_a_folder_of_shards_has_two_parts(tmp_path: Path) -> None:
    write_set(tmp_path)
    images = find_images(tmp_path, seed=0)
    assert images.classes == ("0", "1", "2")
    assert names(images.train)[:2] == ["train-0000.tar/0000.png", "train-0000.tar/0001.png"]
    check_whole_set(images.train)
    check_whole_set(images.val, 2)


@pytest.mark.parametrize("other", ["val", "test"])
def test_so_do_folders_in_a_folder(tmp_path: Path, other: str) -> None:
    for part in ("train", other):
        write_shard(tmp_path / part / "0.tar", shards(4, 1)[0])
    (tmp_path / "classes.txt").write_text("cat\ndog\nfrog\n")
    images = find_images(tmp_path, seed=0)
    assert images.classes == CLASSES
    assert len(images.train) == len(images.val) == 12


def test_without_a_held_out_part_a_fifth_of_each_class_is_held_out(tmp_path: Path) -> None:
    for number, files in enumerate(shards(10)):
        write_shard(tmp_path / f"{number}.tar", files)
    first, again = (find_images(tmp_path, seed) for seed in (1, 1))
    assert np.bincount(first.val.labels).tolist() == [2, 2, 2]
    assert names(first.val) == names(again.val) != names(find_images(tmp_path, 2).val)
    assert not {*names(first.train)} & {*names(first.val)}


def test_classes_are_numbers_or_names_or_have_their_names_in_a_file(tmp_path: Path) -> None:
    def labelled(*labels: str) -> Files:
        keys = [(f"{index}", label) for index, label in enumerate(labels)]
        return [
            file
            for key, label in keys
            for file in ((f"{key}.jpg", png(0, 0)), (f"{key}.cls", label.encode()))
        ]

    def classes(folder: str, *labels: str, listed: str | None = None) -> tuple[str, ...]:
        write_shard(tmp_path / folder / "a.tar", labelled(*labels))
        if listed is not None:
            (tmp_path / folder / "classes.txt").write_text(listed)
        return find_images(tmp_path / folder, 0).classes

    assert classes("numbers", *["10", "9", "10", "2", "9", "2"]) == ("2", "9", "10")
    assert classes("zeros", "00", " 01\n", "0", "1") == ("0", "1")
    assert classes("names", "dog", "cat", "dog", "cat") == ("cat", "dog")
    assert classes("listed", *["1", "0", "1", "0"], listed="dog\ncat\n") == ("dog", "cat")
    assert classes("by-name", *["cat", "dog", "cat", "dog"], listed="dog\ncat\n") == ("dog", "cat")
    unknown = mistake(lambda: classes("far", *["0", "2", "0", "2"], listed="dog\ncat\n"))
    assert isinstance(unknown, diagnostics.UnknownLabel)
    assert unknown.labels == "`2`"
    for text in ("", "cat\n\ndog", "cat\ncat"):
        bad = mistake(lambda text=text: classes(f"bad-{len(text)}", "0", "0", listed=text))
        assert isinstance(bad, diagnostics.BadClassList)


def test_a_json_file_may_hold_the_label(tmp_path: Path) -> None:
    labels = [7, "7", "cat", True, None, 1.5, {"label": 1}, "x" * 300, "a\nb"]
    files = [
        (f"{index}.{kind}", content)
        for index, label in enumerate([*labels, 7, 7, "cat", "cat"])
        for kind, content in (("jpeg", png(0, 0)), ("json", json.dumps({"label": label}).encode()))
    ]
    write_shard(tmp_path / "0.tar", files)
    images = find_images(tmp_path, 0)
    assert images.classes == ("7", "cat")
    assert [skipped.name for skipped in images.skipped] == [f"0.tar/{i}" for i in range(3, 9)]
    assert {skipped.reason for skipped in images.skipped} == {"it has no label"}


def test_samples_that_cannot_be_used_are_named_and_left_out(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))

        for name, content in [file for files in shards(4, 1) for file in files]:
            add(name, content)
        add("folder", kind=tarfile.DIRTYPE)
        add("README", b"no sample")
        add("folder/.hidden.png", b"no sample")
        for key, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            add(f"{key}.png", kind=kind)
            add(f"{key}.cls", b"0")
        add("device.png", kind=tarfile.CHRTYPE)
        add("pipe.png", kind=tarfile.FIFOTYPE)
        add("unlabelled.png", png(0, 0))
        add("blind.cls", b"0")
        add("empty.png")
        add("empty.cls", b"0")
        add("two.png", png(0, 0))
        add("two.jpg", png(0, 0))
        add("0000.png", png(0, 0))
        add("0000.cls", b"1")
        add("long.png", png(0, 0))
        add("long.cls", b"1" * 70_000)
    (tmp_path / "0.tar").write_bytes(stream.getvalue())
    images = find_images(tmp_path, 0)
    assert {skipped.name.removeprefix("0.tar/"): skipped.reason for skipped in images.skipped} == {
        "link": "its .png is a link",
        "hard": "its .png is a link",
        "device": "its .png is a device",
        "pipe": "its .png is a pipe",
        "unlabelled": "it has no label",
        "blind": "it has no picture",
        "empty": "its .png is of 0 bytes",
        "two": "it has more than one picture",
        "0000": "another sample has the same name",
        "long": "its .cls is of 70,000 bytes",
    }
    assert len(images.train) + len(images.val) == 12
    # They are told and counted with those that turn out to be no images.
    assert prepare(images, (3, 8, 8), None).skipped == images.skipped


def labelled(*names: str) -> Files:
    """A picture and a class under each of these names."""
    return [
        file
        for number, name in enumerate(names)
        for file in ((f"{name}.png", png(number % 2, 0)), (f"{name}.cls", b"%d" % (number % 2)))
    ]


def test_a_name_with_dots_goes_to_its_last_one(tmp_path: Path) -> None:
    """Where what follows the first one is no kind of file that a sample has."""
    keys = [*[f"cat.{number}" for number in range(8)], "a.b/x.1.2", "./c/y", "z"]
    write_shard(tmp_path / "0.tar", [*labelled(*keys), ("Z.1.JPG", png(0, 0)), ("Z.1.cls", b"0")])
    images = find_images(tmp_path, 0)
    assert len(images.train) + len(images.val) == 12
    assert images.skipped == ()
    assert images.notes == (
        f"In {tmp_path}, 10 of 12 samples have a dot in their names, which go to the last dot, "
        "then: 0.tar/cat.0.png.",
    )


def test_a_sample_may_have_more_pictures_under_longer_names(tmp_path: Path) -> None:
    """Before its files, between them, or behind them."""
    masks = [(f"{key}.mask.png", png(0, 0)) for key in "abc"]
    pairs = [*zip(*[iter(labelled(*"abcdefg"))] * 2, strict=True)]
    files = [masks[0], *pairs[0], pairs[1][0], masks[1], pairs[1][1], *pairs[2], masks[2]]
    more = [file for pair in pairs[3:] for file in pair]
    write_shard(tmp_path / "0.tar", [*files, ("c.meta.json", b"{}"), *more])
    images = find_images(tmp_path, 0)
    assert (len(images.train) + len(images.val), images.skipped) == (7, ())


def test_pictures_in_shards_that_are_passed_over_are_counted_and_named(tmp_path: Path) -> None:
    files = [
        *labelled(*"abcdefgh"),
        *[("i.left.png", png(0, 0)), ("i.right.png", png(0, 0)), ("i.cls", b"0")],
        *[("j.heic", b"?"), ("j.cls", b"0")],
        *[("k.1.jxl", b"?"), ("k.1.cls", b"0")],
        *[("._l.png", b"?"), ("__MACOSX/l.png", b"?"), (".Trash/l.cls", b"0")],
    ]
    write_shard(tmp_path / "0.tar", files)
    images = find_images(tmp_path, 0)
    assert {skipped.name.removeprefix("0.tar/"): skipped.reason for skipped in images.skipped} == {
        "i": "it has no picture",
        "i.left": "it has no label",
        "i.right": "it has no label",
        "j": "HEIC is not read: save it as JPEG, PNG or WebP",
        "k.1": "JPEG XL is not read: save it as JPEG, PNG or WebP",
    }
    write_shard(tmp_path / "0.tar", files[-7:-3])
    refused = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(refused, diagnostics.IncompleteSamples)
    assert "HEIC is not read" in refused.reason


def test_where_files_of_a_sample_lie_apart_the_order_is_to_blame(tmp_path: Path) -> None:
    files = shards(4, 1)[0]
    write_shard(tmp_path / "0.tar", sorted(files, key=lambda file: file[0][-3:]))
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.IncompleteSamples)
    assert (found.bad, found.total) == (24, 24)
    write_shard(tmp_path / "0.tar", [("README.txt", b"none")])
    assert isinstance(mistake(lambda: find_images(tmp_path, 0)), diagnostics.NoSamples)


# Patterns and held-out parts by name


def test_braces_stand_for_numbers_and_words() -> None:
    assert expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expanded("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]
    assert expanded("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize(
    "pattern",
    ["{0..1", "0}.tar", "{}.tar", "{1..0}", "{a..b}", "{0..999999999}", "{0..999}{0..999}"],
)
def test_braces_that_stand_for_nothing(pattern: str) -> None:
    assert isinstance(mistake(lambda: expanded(pattern)), diagnostics.BadPattern)


def test_two_patterns_name_both_parts(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    train, val = f"{tmp_path}/train-{{0000..0002}}.tar", f"{tmp_path}/val-{{0000..0001}}.tar"
    images = find_images(train, 0, val)
    assert (images.path, images.val_path) == (train, val)
    assert images.classes == CLASSES
    check_whole_set(images.train)
    assert len(images.val) == 4
    alone = find_images(f"file://{train}", 0)
    assert len(alone.train) + len(alone.val) == 12


def test_shards_of_one_class_are_refused(tmp_path: Path) -> None:
    files = [file for index in range(8) for file in sample(0, index)]
    write_shard(tmp_path / "a.tar", files)
    assert isinstance(mistake(lambda: find_images(tmp_path, 0)), diagnostics.OnlyOneClass)


def test_a_folder_of_class_folders_may_have_its_held_out_part_anywhere(tmp_path: Path) -> None:
    write_images(tmp_path / "a", CLASSES, 3)
    write_images(tmp_path / "b", CLASSES, 1)
    files = shards(2, 1, first=9)[0]
    named = [(n, CLASSES[int(c)].encode() if n.endswith("cls") else c) for n, c in files]
    write_shard(tmp_path / "c/0.tar", named)
    for val, count in (("b", 3), ("c", 6), ("c/0.tar", 6)):
        images = find_images(tmp_path / "a", 0, tmp_path / val)
        assert (images.classes, len(images.train), len(images.val)) == (CLASSES, 9, count)
    write_images(tmp_path / "d", ("cat", "bird"), 1)
    differ = mistake(lambda: find_images(tmp_path / "a", 0, tmp_path / "d"))
    assert isinstance(differ, diagnostics.ClassesDiffer)
    assert (differ.names, differ.known) == ("bird", "cat, dog, frog")


def test_numbers_are_the_places_of_classes_that_have_names(tmp_path: Path) -> None:
    write_images(tmp_path / "a", CLASSES, 3)
    write_shard(tmp_path / "b/0.tar", shards(2, 1, first=9)[0])
    images = find_images(tmp_path / "a", 0, tmp_path / "b")
    assert images.classes == CLASSES
    assert images.val.labels.tolist() == [0, 1, 2, 0, 1, 2]
    # Where they are names themselves, they are no places.
    for number, name in enumerate(CLASSES):
        (tmp_path / "a" / name).rename(tmp_path / "a" / str(number + 1))
    unknown = mistake(lambda: find_images(tmp_path / "a", 0, tmp_path / "b"))
    assert isinstance(unknown, diagnostics.UnknownLabel)
    assert unknown.labels == "`0`"


def test_a_place_with_both_parts_takes_no_other(tmp_path: Path) -> None:
    write_set(tmp_path / "shards")
    write_images(tmp_path / "folders/train", CLASSES, 1)
    write_images(tmp_path / "folders/val", CLASSES, 1)
    for data in ("shards", "folders"):
        found = mistake(lambda data=data: find_images(tmp_path / data, 0, tmp_path / "folders/val"))
        assert isinstance(found, diagnostics.HeldOutTwice)


# Hostile files


@pytest.mark.parametrize("length", [0, 100, 511, 512, 700, 5 * 512, 6 * 512])
def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    whole = shard_bytes(shards(2, 1)[0])
    (tmp_path / "0.tar").write_bytes(whole[:length])
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.BrokenShard)


def header(name: bytes = b"a.png", size: bytes = b"0" * 11, kind: bytes = b"0") -> bytes:
    """A member's header by hand, with a sound checksum."""
    block = bytearray(512)
    block[: len(name)], block[124 : 124 + len(size)], block[156:157] = name, size, kind
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a tar at all" * 100, "it is no tar"),
        (header(size=b"7" * 11) + bytes(4096), "`a.png` ends at byte"),
        (header(size=b"\x80" + b"\xff" * 11) + bytes(4096), "ends at byte"),
        (header(size=b"\xff" * 12) + bytes(4096), "no number where one should be"),
        (header(size=b"-0000000001") + bytes(4096), "no number where one should be"),
        (header(kind=b"x", size=b"00004000000") + bytes(4096), "header at byte 0 is of"),
        (header(kind=b"L", size=b"77777777777") + bytes(4096), "header at byte 0 is of"),
        (header(kind=b"x", size=b"00000000012") + b"99 path=aa" + bytes(4096), "pairs"),
        (
            header(kind=b"x", size=b"00000000013") + b"11 size=-5\n" + bytes(501) + header(),
            "no number where one should be",
        ),
        (header() + b"\1" * 512 + bytes(4096), "no header at byte 512"),
    ],
)
def test_a_tar_that_lies_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.BrokenShard)
    assert re.search(words, found.reason), found.reason


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_is_no_picture_and_hides_none(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, content in [file for label in range(3) for file in sample(label, 1)]:
        (folder / name).write_bytes(content)
    (folder / "1000.cls").write_text("0")
    with (folder / "1000.png").open("wb") as file:
        # So many pieces that an old header has to go on in blocks of its own.
        for piece in range(40):
            file.seek(piece * 100_000)
            file.write(b"x")
    command = ["tar", "--sort=name", "--sparse", f"--format={form}", "-cf", "../0.tar", "."]
    subprocess.run(command, cwd=folder, check=True)
    shutil.copy(tmp_path / "0.tar", tmp_path / "1.tar")
    images = find_images(tmp_path / "0.tar", 0, tmp_path / "1.tar")
    assert {skipped.reason for skipped in images.skipped} == {"its .png is a sparse file"}
    assert all("1000" in skipped.name for skipped in images.skipped)
    assert names(images.train) == ["0.tar/0001.png", "0.tar/1001.png", "0.tar/2001.png"]
    assert len(pictures(images.train)) == 3


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
def test_a_compressed_tar_is_refused_whatever_it_is_called(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/0.tar").write_bytes(magic + bytes(2000))
    found = mistake(lambda: find_images(tmp_path / "plain", 0))
    assert isinstance(found, diagnostics.CompressedShard)
    (tmp_path / "train-0.tar.zst").write_bytes(magic + bytes(2000))
    (tmp_path / "plain/0.tar").unlink()
    (tmp_path / "plain").rmdir()
    assert isinstance(mistake(lambda: find_images(tmp_path, 0)), diagnostics.CompressedShard)


def test_two_tars_behind_one_another_are_not_read_as_the_first(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(shard_bytes(shards(2, 1)[0]) * 2)
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.BrokenShard)
    assert found.reason == "something stands behind its end"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.tar")
    found = mistake(lambda: find_images(tmp_path / "0.tar", 0))
    assert isinstance(found, diagnostics.CannotOpen)
    assert found.reason == "it is a named pipe, not a file"
    (tmp_path / "0.tar").unlink()
    write_shard(tmp_path / "0.tar", shards(2, 1)[0])
    os.mkfifo(tmp_path / "classes.txt")
    found = mistake(lambda: find_images(tmp_path / "0.tar", 0))
    assert isinstance(found, diagnostics.CannotOpen)
    assert found.path.endswith("classes.txt")


def test_a_shard_that_is_no_file(tmp_path: Path) -> None:
    for place in (tmp_path / "none.tar", "/dev/zero.tar", tmp_path / "{0..1}.tar"):
        assert isinstance(mistake(partial(find_images, place, 0)), diagnostics.CannotOpen)
    (tmp_path / "text").write_text("hello")
    assert isinstance(mistake(lambda: find_images(tmp_path / "text", 0)), diagnostics.NotAFolder)


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)),
    min_size=1,
    max_size=120,
)


@given(
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.binary(max_size=1200))),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.booleans(),
)
def test_members_are_those_that_python_finds(
    files: list[tuple[list[str], bytes]], form: int, seeks: bool
) -> None:
    kept = []
    for path, content in files:
        try:
            whole = shard_bytes([*kept, ("/".join(path), content)], form)
        except (ValueError, UnicodeEncodeError):
            continue  # too long for ustar
        kept.append(("/".join(path), content))
    whole = shard_bytes(kept, form)
    source = tar.Forwards(io.BytesIO(whole), len(whole), seeks=seeks)
    found = []
    for member in tar.members(source):
        found.append((member.name, whole[member.offset : member.offset + member.size]))
        if len(found) % 2:
            assert source.read(member.size) == found[-1][1]
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        expected = [
            (m.name, whole[m.offset_data : m.offset_data + m.size])
            for m in archive
            if not m.isdir()
        ]
    assert found == expected
    assert len(found) == len(kept)


@given(st.binary(max_size=3000), st.integers(0, 2999), st.integers(0, 255))
def test_any_bytes_are_a_tar_or_a_reason(noise: bytes, place: int, value: int) -> None:
    whole = bytearray(shard_bytes(sample(0, 0), tarfile.PAX_FORMAT))
    whole[place % len(whole)] = value
    for content in (noise, bytes(whole)):
        source = tar.Forwards(io.BytesIO(content), len(content), seeks=True)
        try:
            index = shard_index.index_from(source)
        except tar.TarError:
            continue
        assert index.problem(len(content)) is None


# The cache


def test_a_shard_is_looked_through_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path)
    first = find_images(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "make_index", None)
        again = find_images(tmp_path, 0)
        assert names(again.train) == names(first.train)
        assert again.train.store.stamp() == first.train.store.stamp()
        check_whole_set(again.train)
    write_shard(tmp_path / "train-0000.tar", shards(6)[0])
    later = find_images(tmp_path, 0)
    assert len(later.train) == len(first.train) + 2
    assert later.train.store.stamp() != first.train.store.stamp()


def set_back(path: Path, write: Callable[[], object]) -> None:
    """Changes a file and sets its time back to what it was."""
    before = path.stat()
    write()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_a_shard_written_anew_with_its_size_and_time_is_looked_through_anew(
    tmp_path: Path,
) -> None:
    path, files = tmp_path / "0.tar", shards(2, 1)[0]
    write_shard(path, files)
    first = find_images(path, 0)
    other = [(name, b"2" if content == b"0" else content) for name, content in files]
    set_back(path, lambda: write_shard(path, other))
    assert find_images(path, 0).classes == ("1", "2")
    assert first.classes == ("0", "1", "2")


def test_what_is_read_of_a_shard_is_known_by_the_header_before_it(tmp_path: Path) -> None:
    """A shard that is exchanged while it is in use gives no bytes of something else."""
    path = tmp_path / "0.tar"
    write_shard(path, shards(2, 1)[0])
    images = find_images(path, 0)
    whole = images.train.fetch(np.arange(len(images.train)))
    files = shards(2, 1)[0]
    files[:2] = [("9999.png", files[0][1]), ("9999.cls", b"0")]
    set_back(path, lambda: write_shard(path, files))
    found = images.train.fetch(np.arange(len(images.train)))
    lost = [str(each) for each in found if isinstance(each, BrokenImageError)]
    changed = "0.tar/0000.png" in names(images.train)
    assert lost == ["its shard has changed since it was looked through"] * changed
    assert [each for each in found if isinstance(each, bytes)] == whole[changed:]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_have_their_header_right_before_the_picture_too(
    tmp_path: Path, form: int
) -> None:
    folder = "x" * 90 if form == tarfile.USTAR_FORMAT else "ü" * 200
    files = [(f"{folder}/{name}", content) for name, content in shards(2, 1)[0]]
    (tmp_path / "0.tar").write_bytes(shard_bytes(files, form))
    images = find_images(tmp_path / "0.tar", 0)
    assert len(pictures(images.train)) == len(images.train) == 3


def cached(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


@pytest.mark.parametrize(
    "column", ["offsets", "sizes", "headers", "label", "names.ends", "lost.ends", None]
)
def test_an_index_that_lies_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str | None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shard(tmp_path / "set/0.tar", shards(4, 1)[0])
    first = find_images(tmp_path / "set", 0)
    path = cached(tmp_path / "cache")
    sound = path.read_bytes()
    columns = dict(load_file(path))
    hostile: list[Callable[[], object]] = [lambda: path.write_bytes(sound[: len(sound) // 2])]
    if column:
        wrong = [
            columns[column] + 10**15,
            -1 - columns[column],
            columns[column].astype(np.float32),
            np.append(columns[column], 0),
            columns[column].reshape(-1, 1),
        ]
        as_it_was = [np.array_equal(v, columns[column]) for v in wrong[:2]]  # where it is empty
        wrong = wrong[2:] if all(as_it_was) else wrong
        hostile = [lambda value=v: save_file(columns | {column: value}, path) for v in wrong]
        hostile.append(lambda: save_file({k: v for k, v in columns.items() if k != column}, path))
    for damage in hostile:
        damage()
        again = find_images(tmp_path / "set", 0)
        assert names(again.train) == names(first.train)
        assert path.read_bytes() == sound


def test_without_a_cache_shards_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_set(tmp_path)
    check_whole_set(find_images(tmp_path, 0).train)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "locked"))
    monkeypatch.setattr("os.access", lambda *_: False)
    check_whole_set(find_images(tmp_path, 0).train)
    assert prepare(find_images(tmp_path, 0), (3, 8, 8), None, room=0).skipped == ()
    assert [*(tmp_path / "locked").rglob("*.*")] == []


def test_a_cache_that_takes_no_lock_or_no_file_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is full, or another user has made the lock."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_set(tmp_path / "set")

    def looked() -> tuple[float, ...]:
        return prepare(find_images(tmp_path / "set", 0), (3, 8, 8), None, room=0).preprocessing.mean

    first = looked()
    kept = [*(tmp_path / "cache/vggc/data").iterdir()]
    for path in kept:
        path.unlink()
    for path in kept:
        if path.suffix == ".lock":
            path.mkdir()
    assert looked() == first
    assert {path.name for path in (tmp_path / "cache/vggc/data").iterdir()} == {
        path.name for path in kept
    }
    for path in kept:
        if path.suffix != ".lock":
            path.unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vggc.data.shard_index.write", full)
    assert looked() == first


# Elsewhere


@pytest.fixture
def memory() -> Iterator[str]:
    """A place in fsspec's memory with shards."""
    files = fsspec.filesystem("memory")
    for part, count, first in (("train", 4, 0), ("val", 2, 100)):
        for number, content in enumerate(shards(count, first=first)):
            files.pipe_file(f"/set/{part}-{number}.tar", shard_bytes(content))
    yield "memory://set"
    files.rm("/set", recursive=True)


def test_shards_elsewhere_are_found_and_read(memory: str) -> None:
    with fsspec.open(f"{memory}/classes.txt", "w") as file:
        file.write("\n".join(CLASSES))
    images = find_images(f"{memory}/train-{{0..2}}.tar", 0, f"{memory}/val-{{0..2}}.tar")
    assert images.classes == CLASSES
    check_whole_set(images.train)
    check_whole_set(images.val, 2)
    fsspec.filesystem("memory").rm("/set/train-1.tar")
    found = images.train.fetch(np.arange(len(images.train)))
    lost = [content for content in found if isinstance(content, BrokenImageError)]
    assert len(lost) == 4
    assert str(lost[0]) == "there is no such file"
    missing = mistake(lambda: find_images(f"{memory}/train-{{0..2}}.tar", 0))
    assert isinstance(missing, diagnostics.CannotOpen)


class Server(BaseHTTPRequestHandler):
    """Files by HTTP, whole and, where it `parts` them, in ranges; notes what was asked for."""

    files: ClassVar[dict[str, bytes]]
    asked: ClassVar[list[tuple[str, str]]]
    parts: ClassVar[bool] = True
    silent: ClassVar[Event | None] = None

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range", "")))
        self.answer()

    def answer(self) -> None:
        if self.silent:
            self.silent.wait()
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range") if self.parts else None
        span = (0, len(content) - 1)
        if asked:
            start, end = asked.removeprefix("bytes=").split("-")
            span = int(start), min(int(end or len(content)), len(content) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(span[1] + 1 - span[0]))
        self.send_header("ETag", str(hash(content)))
        if asked:
            self.send_header("Content-Range", f"bytes {span[0]}-{span[1]}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[span[0] : span[1] + 1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    Server.files = {f"/{n}.tar": shard_bytes(files) for n, files in enumerate(shards(4))}
    Server.asked, Server.parts = [], True
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", Server
        running.shutdown()
        thread.join()


def test_a_server_is_asked_for_a_shard_once_and_then_for_pictures(
    server: tuple[str, type[Server]],
) -> None:
    pytest.importorskip("aiohttp")
    url, handler = server
    images = find_images(f"{url}/{{0..2}}.tar", 0)
    assert len(images.train) + len(images.val) == 12
    handler.asked.clear()
    again = find_images(f"{url}/{{0..2}}.tar", 0)
    # The index is in the cache; only for a list of classes it has to ask again.
    assert [path for path, _ in handler.asked if path.endswith(".tar")] == []
    assert len(pictures(again.train)) == len(again.train)
    asked = [span for path, span in handler.asked if path.endswith(".tar")]
    assert len(asked) == len(again.train)
    assert all(span.startswith("bytes=") for span in asked)


def test_worker_processes_read_from_a_server(server: tuple[str, type[Server]]) -> None:
    pytest.importorskip("aiohttp")
    url, _ = server
    data = prepare(find_images(f"{url}/{{0..2}}.tar", 0), (3, 8, 8), None, room=0)
    steps = TrainBatches(data.train, Order(len(data.train), 4, seed=0), Share())
    one, two = ([*load(steps, range(3), workers)] for workers in (0, 2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(one, two, strict=True))
    assert sum(len(batch.images) for batch in two) == len(data.train)
    assert not [lost for batch in two for lost in batch.lost]


def test_a_network_that_fails_for_a_while_loses_nothing(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    images = find_images(f"{memory}/train-{{0..2}}.tar", 0)
    whole, failures = type(fsspec.filesystem("memory")).cat_file, iter([True, True, True, False])

    def flaky(self: object, path: str, start: int, end: int) -> bytes:
        if path.endswith("train-1.tar") and next(failures, False):
            raise ConnectionResetError(104, "Connection reset by peer")
        return bytes(whole(self, path, start, end))

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", flaky)
    assert len(pictures(images.train)) == len(images.train)
    failures = iter([True] * 99)
    found = images.train.fetch(np.arange(len(images.train)))
    lost = [str(content) for content in found if isinstance(content, BrokenImageError)]
    assert {*lost} == {"Connection reset by peer"}
    assert len(lost) < len(found)


def test_what_a_network_lost_is_read_when_it_is_back(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", ())
    images = find_images(f"{memory}/train-{{0..2}}.tar", 0)
    files = type(fsspec.filesystem("memory"))
    whole, left = files.cat_file, [0]

    def cut_off(self: object, path: str, start: int, end: int) -> bytes:
        left[0] -= 1
        return bytes(whole(self, path, start, end))[: -1 if left[0] >= 0 else None]

    monkeypatch.setattr(files, "cat_file", cut_off)
    left[0] = 99
    everything_lost = mistake(lambda: prepare(images, (3, 8, 8), None, room=0))
    assert isinstance(everything_lost, diagnostics.NoReadableImages)
    for left[0] in (3, 0):
        assert prepare(images, (3, 8, 8), None, room=0).skipped == ()


def test_a_server_that_goes_silent_is_waited_for_so_long_only(
    server: tuple[str, type[Server]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    url, handler = server
    images = find_images(f"{url}/{{0..2}}.tar", 0)
    monkeypatch.setattr(remote, "PAUSES", ())
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    handler.silent = Event()
    try:
        found = images.train.fetch(np.arange(2))
    finally:
        handler.silent.set()
        handler.silent = None
    assert [str(content) for content in found] == ["no answer came in time"] * 2


def test_a_server_that_sends_all_when_asked_for_a_part(server: tuple[str, type[Server]]) -> None:
    pytest.importorskip("aiohttp")
    url, handler = server
    images = find_images(f"{url}/{{0..2}}.tar", 0)
    handler.parts = False
    found = images.train.fetch(np.arange(2))
    assert all(isinstance(content, BrokenImageError) for content in found)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:1/0.tar", diagnostics.CannotOpen),
        ("gopher://x/0.tar", diagnostics.CannotOpen),
        ("memory://set/none.tar", diagnostics.CannotOpen),
    ],
)
def test_an_address_that_leads_nowhere(url: str, kind: type[Diagnostic]) -> None:
    pytest.importorskip("aiohttp")
    assert isinstance(mistake(lambda: find_images(url, 0)), kind)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://anna:secret@host/{0..9}.tar", "https://host/{0..9}.tar"),
        ("https://host/a@b.tar#part", None),
        (
            "https://host/a.tar?X-Amz-Date=1&X-Amz-Signature=ab%2F",
            "https://host/a.tar?X-Amz-Date=1",
        ),
        ("https://host/a.tar?sv=1&sig=ab#part", "https://host/a.tar?sv=1#part"),
        ("https://host/a.tar?accessToken=x", "https://host/a.tar"),
        ("https://host/a.tar?AWSAccessKeyId=x&Expires=1", "https://host/a.tar?Expires=1"),
        ("https://host/a.tar?api_key=x&design=2", "https://host/a.tar?design=2"),
        ("https://host/a.tar?versionId=7&&x", None),
        ("abfs://container@account/{a,b}.tar", None),
        ("sftp://anna:secret@host/a.tar", "sftp://anna@host/a.tar"),
        ("simplecache::https://anna:secret@host/a.tar", "simplecache::https://host/a.tar"),
        ("s3://bucket/a.tar", None),
    ],
)
def test_what_is_written_down_of_an_address_has_no_secrets(url: str, kept: str | None) -> None:
    assert remote.absolute(url) == (kept or url)


def test_an_address_that_has_lost_its_secrets_has_to_be_given_again() -> None:
    """A whole one that does not open needs no such advice, nor does a path."""
    advice = {
        place: diagnostics.SAY_AGAIN in render(mistake(lambda place=place: find_images(place, 0)))
        for place in ("memory://set/0.tar", "memory://set/0.tar?sig=x", "none.tar")
    }
    assert [*advice.values()] == [True, False, False]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    found = mistake(lambda: find_images("s3://bucket/0.tar", 0))
    assert found == diagnostics.MissingProtocol("s3")


# In training


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_workers_cover_each_sample_once_an_epoch(
    tmp_path: Path, workers: int
) -> None:
    write_set(tmp_path, 7)
    data = prepare(find_images(tmp_path, 0), (3, 8, 8), None, room=0)
    order = Order(len(data.train), 5, seed=3)
    for epoch in (0, 1):
        steps = range(epoch * order.num_batches, (epoch + 1) * order.num_batches)
        ranks = [
            [*load(TrainBatches(data.train, order, Share(rank, 2)), steps, workers)]
            for rank in range(2)
        ]
        seen = []
        for step, batches in zip(steps, zip(*ranks, strict=True), strict=True):
            indices = order.indices(*order.place(step))
            rows = torch.cat([batch.rows for batch in batches]).numpy()
            labels = torch.cat([batch.labels for batch in batches]).numpy()
            assert (labels == data.train.part.labels[indices[rows]]).all()
            seen += indices[rows].tolist()
        assert sorted(seen) == [*range(21)]


def test_shards_give_the_batches_of_the_folder_they_are_made_from(tmp_path: Path) -> None:
    """The classes are those of the folder's names, so the order is the same, too."""
    write_images(tmp_path / "folder", CLASSES, 5)
    files = [
        file
        for label, name in enumerate(CLASSES)
        for index in range(5)
        for file in (
            (f"{name}-{index}.png", (tmp_path / f"folder/{name}/{index}.png").read_bytes()),
            (f"{name}-{index}.cls", str(label).encode()),
        )
    ]
    write_shard(tmp_path / "shards/0.tar", files)
    (tmp_path / "shards/classes.txt").write_text("\n".join(CLASSES))
    batches = []
    for place in ("folder", "shards"):
        data = prepare(find_images(tmp_path / place, 5), (3, 8, 8), (8, 12), room=0)
        steps = TrainBatches(data.train, Order(len(data.train), 4, seed=1), Share())
        batches.append([*load(steps, range(6), 2)])
        assert data.classes == CLASSES
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def vggc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vggc", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_remembers_both_places_and_goes_on_from_them(
    tmp_path: Path, server: tuple[str, type[Server]]
) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "tiny.vgg").write_text(TINY)
    write_shard(tmp_path / "val/0.tar", shards(2, 1, first=100)[0])
    data, val = f"{server[0]}/{{0..2}}.tar", "val/{0..0}.tar"
    arguments = ("train", "tiny.vgg", "--data", data, "--val", val, "--workers", "1")
    whole = vggc(tmp_path, *arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    record = json.loads((tmp_path / "whole/run.json").read_text())
    assert record["data"]["path"] == data
    assert record["data"]["val_path"] == str(tmp_path / val)
    assert (record["data"]["train"], record["data"]["val"]) == (12, 6)
    with subprocess.Popen(
        [sys.executable, "-m", "vggc", *arguments, "--out", "run", "--save-steps", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        while "epoch 1/3" not in process.stderr.readline():
            assert process.poll() is None
        process.kill()
    resumed = vggc(tmp_path, "train", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]
