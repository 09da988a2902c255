"""Shards whose samples have boxes: as Pascal VOC's XML or as JSON beside the picture."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.annotated import CAT, DOG, Marks, image_bytes, known_by, told, voc_xml
from vggc.data import diagnostics, shard_index
from vggc.data.find import find_images
from vggc.data.parts import Images
from vggc.evaluation.images import pictures as pictures_to_test
from vggc.support.diagnostics import Diagnostic, UserError

Files = list[tuple[str, bytes]]


def write_shard(path: Path, *files: Files) -> Path:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in (each for group in files for each in group):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
    return path


def described(marks: Marks, **more: Any) -> bytes:
    content = {"boxes": [box for _, box in marks], "classes": [name for name, _ in marks]}
    return json.dumps(content | more).encode()


def sample(key: str, marks: Marks, kind: str, picture: bytes | None = None) -> Files:
    about = voc_xml(marks).encode() if kind == "xml" else described(marks)
    return [(f"{key}.png", picture or image_bytes()), (f"{key}.{kind}", about)]


def sound(kind: str = "json", count: int = 5) -> Files:
    pairs = [
        (f"{name}{i}", marks) for name, marks in (("cat", CAT), ("dog", DOG)) for i in range(count)
    ]
    return [file for key, marks in pairs for file in sample(key, marks, kind)]


def everything(images: Images) -> dict[str, Any]:
    both = {**told(images.train, images.classes), **told(images.val, images.classes)}
    return {name.rpartition("/")[2]: each for name, each in both.items()}


def skipped(images: Images) -> list[tuple[str, str]]:
    return [(each.name, each.reason) for each in images.skipped]


def mistake(function: Callable[[], object]) -> Diagnostic:
    with pytest.raises(UserError) as error:
        function()
    return error.value.diagnostics[0]


@pytest.mark.parametrize("kind", ["xml", "json"])
def test_samples_have_boxes_and_the_class_of_the_largest(tmp_path: Path, kind: str) -> None:
    write_shard(tmp_path / "0.tar", sound(kind, 2))
    write_shard(tmp_path / "1.tar", sample("more", DOG, kind))
    for _ in range(2):  # from the shards, and from the cache
        images = find_images(tmp_path, 0)
        assert images.classes == ("cat", "dog")
        assert images.skipped == ()
        assert everything(images) == {
            **{f"cat{i}.png": ("cat", [*CAT]) for i in range(2)},
            **{f"dog{i}.png": ("dog", [*DOG]) for i in range(2)},
            "more.png": ("dog", [*DOG]),
        }


def test_a_picture_may_stand_behind_its_annotation(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", sound()[::-1])
    assert everything(find_images(tmp_path, 0))["cat3.png"] == ("cat", [*CAT])


def test_boxes_turn_with_pictures_and_scale_with_them(tmp_path: Path) -> None:
    turned = image_bytes(orientation=6)
    wide = [("cat", (0.0, 0.0, 40.0, 5.0))]
    files = [
        ("x.png", turned),
        ("x.json", described(wide, width=40, height=20)),
        ("y.png", image_bytes()),
        ("y.json", described([("cat", (8, 4, 48, 24))], width=80, height=40)),
    ]
    write_shard(tmp_path / "0.tar", sound(), files)
    images = find_images(tmp_path, 0)
    boxes = {}
    for part in (images.train, images.val):
        assert part.objects is not None
        for index in range(len(part)):
            boxes[part.name(index)] = part.objects[index].boxes.tolist()
    assert boxes["0.tar/x.png"] == [[0.75, 0, 1, 1]]
    assert boxes["0.tar/y.png"] == [[0.1, 0.1, 0.6, 0.6]]


def test_shards_on_a_server_are_read_as_those_on_a_disk(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", sound("xml"), sample("x", CAT, "json"))
    files = fsspec.filesystem("memory")
    files.makedirs("/boxes", exist_ok=True)
    files.pipe("/boxes/0.tar", path.read_bytes())
    try:
        there = find_images("memory://boxes/0.tar", 0)
    finally:
        files.rm("/boxes", recursive=True)
    here = find_images(tmp_path, 0)
    assert known_by(there.classes, there.train) == known_by(here.classes, here.train)


def test_parts_share_the_classes_of_the_one_to_train_on(tmp_path: Path) -> None:
    hat = ("hat", (0.0, 0.0, 2.0, 2.0))
    write_shard(tmp_path / "train-0.tar", sound(), sample("x", [*CAT, hat], "json"))
    write_shard(tmp_path / "val-0.tar", sample("a", DOG, "json"), sample("b", [*DOG, hat], "xml"))
    images = find_images(tmp_path, 0)
    assert images.classes == ("cat", "dog")
    assert told(images.val, images.classes) == {
        "val-0.tar/a.png": ("dog", [*DOG]),
        "val-0.tar/b.png": ("dog", [*DOG]),
    }
    assert sum("hat" in note for note in images.notes) == 2
    again = pictures_to_test(str(tmp_path), images.classes)
    assert known_by(again.classes, again.part) == known_by(images.classes, images.val)


def test_classes_may_have_their_names_in_a_file(tmp_path: Path) -> None:
    numbered = [[(str(["dog", "fox", "cat"].index(n)), box) for n, box in m] for m in (CAT, DOG)]
    files = [
        file
        for index in range(4)
        for kind, marks in enumerate(numbered)
        for file in sample(f"{kind}-{index}", marks, "json")
    ]
    write_shard(tmp_path / "0.tar", files)
    (tmp_path / "classes.txt").write_text("dog\nfox\ncat\n")
    images = find_images(tmp_path, 0)
    assert images.classes == ("dog", "cat")  # no picture shows a fox
    assert everything(images)["1-0.png"] == ("dog", [*DOG])


def test_samples_without_boxes_are_left_out_where_others_have_some(tmp_path: Path) -> None:
    bare = [("bare.png", image_bytes()), ("bare.cls", b"cat")]
    write_shard(tmp_path / "0.tar", sound(), bare)
    assert skipped(find_images(tmp_path, 0)) == [
        ("0.tar/bare.png", "it has no boxes, and others have")
    ]
    many = [
        (f"m{i}.{kind}", content)
        for i in range(11)
        for kind, content in (("png", image_bytes()), ("cls", b"cat"))
    ]
    write_shard(tmp_path / "0.tar", sound(), many)
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.IncompleteSamples)
    assert (found.bad, found.total) == (11, 21)


def test_an_empty_list_of_boxes_leaves_a_label_as_it_is(tmp_path: Path) -> None:
    files = [
        (f"{name}{i}.{kind}", content)
        for name in ("cat", "dog")
        for i in range(3)
        for kind, content in (
            ("png", image_bytes()),
            ("json", json.dumps({"label": name, "boxes": [], "classes": []}).encode()),
        )
    ]
    write_shard(tmp_path / "0.tar", files)
    images = find_images(tmp_path, 0)
    assert (images.classes, images.train.objects) == (("cat", "dog"), None)


def test_xml_of_another_kind_is_passed_over(tmp_path: Path) -> None:
    files = [
        (f"{name}{i}.{kind}", content)
        for name in ("cat", "dog")
        for i in range(3)
        for kind, content in (("png", image_bytes()), ("cls", name.encode()), ("xml", b"<svg/>"))
    ]
    write_shard(tmp_path / "0.tar", files)
    images = find_images(tmp_path, 0)
    assert (images.classes, images.train.objects, images.skipped) == (("cat", "dog"), None, ())


FAULTS: list[tuple[str, bytes, str]] = [
    ("xml", b"<annotation>", "its .xml: it is no sound XML, line 1: no element found"),
    (
        "xml",
        b'<!DOCTYPE a [<!ENTITY b "c">]><annotation/>',
        "its .xml: it declares an XML entity, which no annotation needs",
    ),
    ("xml", b"a" * (2**20 + 1), "its .xml is of 1,048,577 bytes"),
    ("xml", voc_xml([]).encode(), "no object in it is annotated"),
    ("xml", voc_xml([("cat?", (0, 0, 4, 4))]).encode(), "all its objects are difficult"),
    (
        "xml",
        voc_xml(CAT, size=(20, 20)).encode(),
        "it is annotated as 20x20 pixels, and is of 40x20",
    ),
    (
        "xml",
        voc_xml([("cat", (9, 0, 4, 4))]).encode(),
        "object 1 (cat): its box is inverted, and no other object is in it",
    ),
    ("json", b'{"boxes": 7}', "its .json: its boxes are no list, or have no list of classes"),
    ("json", b'{"boxes": [[0, 0, 1, 1]]}', "its .json: its boxes are no list, or have no list of"),
    (
        "json",
        b'{"boxes": [[0, 0, 1, 1]], "classes": []}',
        "its .json: it has 1 boxes and 0 classes",
    ),
    (
        "json",
        b'{"boxes": [[0, 0, 1]], "classes": ["cat"]}',
        "object 1: its box is not of four numbers, and no other object is in it",
    ),
    (
        "json",
        b'{"boxes": [[0, 0, NaN, 1]], "classes": ["cat"]}',
        "object 1 (cat): its box is not finite, and no other object is in it",
    ),
    (
        "json",
        b'{"boxes": [[0, 0, 1, 1]], "classes": [null]}',
        "object 1: it has no class, and no other object is in it",
    ),
    ("json", b"[" * 100_000, "it has no label"),
]


@pytest.mark.parametrize(("kind", "content", "reason"), FAULTS, ids=range(len(FAULTS)))
def test_a_sample_whose_boxes_cannot_be_used_is_named(
    tmp_path: Path, kind: str, content: bytes, reason: str
) -> None:
    write_shard(tmp_path / "0.tar", sound(), [("x.png", image_bytes()), (f"x.{kind}", content)])
    ((name, why),) = skipped(find_images(tmp_path, 0))
    assert name == "0.tar/x"
    assert why.startswith(reason)


def test_a_broken_picture_and_two_annotations(tmp_path: Path) -> None:
    broken = sample("x", CAT, "json", b"no picture")
    twice = [*sample("y", CAT, "json"), ("y.xml", voc_xml(CAT).encode())]
    write_shard(tmp_path / "0.tar", sound(), broken, twice)
    assert skipped(find_images(tmp_path, 0)) == [
        ("0.tar/x", "not an image"),
        ("0.tar/y", "it has boxes in two files"),
    ]


def test_an_object_that_cannot_be_used_is_named_and_its_picture_used(tmp_path: Path) -> None:
    marks = [("cat", (9.0, 0.0, 4.0, 4.0)), *DOG, ("cat", (-4.0, 0.0, 4.0, 4.0))]
    write_shard(tmp_path / "0.tar", sound(), sample("x", marks, "xml"))
    for _ in range(2):
        images = find_images(tmp_path, 0)
        assert skipped(images) == [("0.tar/x", "object 1 (cat): its box is inverted")]
        assert everything(images)["x.png"] == ("dog", [*DOG, ("cat", (0, 0, 4, 4))])
        assert "boxes are cut that reach beyond their pictures: 1." in images.notes[-1]


COLUMNS = ["counts", "boxes", "kinds", "difficult", "cut", "faulty.ends"]


@pytest.mark.parametrize("column", COLUMNS)
def test_an_index_whose_boxes_lie_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    faulty = [("cat", (9.0, 0.0, 4.0, 4.0)), *DOG]
    write_shard(tmp_path / "set/0.tar", sound(), sample("x", faulty, "xml"))
    first = find_images(tmp_path / "set", 0)
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    columns = dict(load_file(path))
    value = columns[column]
    wrong: Sequence[np.ndarray] = [
        value.astype(np.float32),
        np.append(value, value[-1:]),
        value.reshape(-1, 1),
        value[:-1],
    ]
    for each in wrong:
        save_file(columns | {column: each}, path)
        again = find_images(tmp_path / "set", 0)
        assert known_by(again.classes, again.train) == known_by(first.classes, first.train)
        assert again.skipped == first.skipped
    if column == "boxes":
        for each in (value + 2, value * np.nan, value.reshape(-1, 4)[:, ::-1].ravel()):
            save_file(columns | {column: each}, path)
            again = find_images(tmp_path / "set", 0)
            assert known_by(again.classes, again.train) == known_by(first.classes, first.train)


def test_a_look_at_a_size_reads_no_more_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large picture on a disk only the beginning."""
    monkeypatch.setattr(shard_index, "MAX_PICTURE", 2**40)
    large = image_bytes(kind="JPEG") + bytes(2**24)
    path = write_shard(tmp_path / "0.tar", [("x.jpg", large), ("x.json", described(CAT))])
    read = 0
    with path.open("rb") as file:

        class Counting:
            def read(self, size: int) -> bytes:
                nonlocal read
                content = file.read(size)
                read += len(content)
                return content

            def seek(self, position: int, whence: int = 0) -> int:
                return file.seek(position, whence)

        source = shard_index.Forwards(Counting(), path.stat().st_size, seeks=True)
        assert len(shard_index.index_from(source)) == 1
    assert read < 2**17
