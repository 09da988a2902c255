"""COCO's JSON, YOLO's text files and tables: what of them is read, and what is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.annotated import (
    CAT,
    DOG,
    HEIGHT,
    WIDTH,
    coco_json,
    image_bytes,
    put,
    table,
    told,
    yolo_text,
)
from vggc.data import diagnostics
from vggc.data.annotations.class_names import names_in, of_lines, of_yaml
from vggc.data.annotations.coco import parsed
from vggc.data.annotations.described import AnnotationError
from vggc.data.annotations.read import read_annotated
from vggc.data.annotations.sources import TableSource
from vggc.data.annotations.table import columns_of
from vggc.data.annotations.voc import parse
from vggc.data.find import find_images
from vggc.data.parts import Images
from vggc.support.diagnostics import Diagnostic, UserError

SOUND = {
    f"{name}{number}.png": marks
    for name, marks in (("cat", CAT), ("dog", DOG))
    for number in range(8)
}
"""Pictures enough for others to be in the minority."""

OUTSIDE = "lies outside of the folder, or is not there"


def mistake(function: Callable[[], object]) -> Diagnostic:
    with pytest.raises(UserError) as error:
        function()
    return error.value.diagnostics[0]


def bad(folder: Path) -> str:
    """Why the annotations in a folder cannot be read."""
    found = mistake(lambda: find_images(folder, 0))
    assert isinstance(found, diagnostics.BadAnnotations)
    return found.reason


def skipped(images: Images) -> list[tuple[str, str]]:
    return [(each.name, each.reason) for each in images.skipped]


def everything(images: Images) -> dict[str, Any]:
    return {**told(images.train, images.classes), **told(images.val, images.classes)}


# COCO


def coco(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    """A folder of sound pictures, and `x.png` with a cat, described by one file."""
    pictures = {**SOUND, "x.png": CAT}
    for name in pictures:
        put(folder / name)
    content = json.loads(coco_json(pictures))
    change(content)
    put(folder / "_annotations.coco.json", json.dumps(content))
    return folder


def last(content: dict[str, Any], key: str = "annotations") -> dict[str, Any]:
    """What tells of `x.png`."""
    entry: dict[str, Any] = content[key][-1]
    return entry


def test_crowds_are_left_out_without_a_word(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        crowd = {**last(content), "iscrowd": 1, "bbox": [0, 0, 40, 20], "category_id": 1}
        content["annotations"].append(crowd)

    images = find_images(coco(tmp_path, change), 0)
    assert everything(images)["x.png"] == ("cat", [*CAT])
    assert images.skipped == ()


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([4, 2, -3, 4], "annotation 1600 (cat): its box is inverted"),
        ([4, 2, 0, 4], "annotation 1600 (cat): its box has no area"),
        ([4, 2, 3], "annotation 1600: its box is not of four numbers"),
        ([4, 2, "3", 4], "annotation 1600: its box is not of four numbers"),
        ([4, 2, True, 4], "annotation 1600: its box is not of four numbers"),
        ([4, 2, 10**400, 4], "annotation 1600: its box is not of four numbers"),
        ([4, 2, float("nan"), 4], "annotation 1600 (cat): its box is not finite"),
        (None, "annotation 1600: it has no bbox"),
        ({}, "annotation 1600: its box is not of four numbers"),
    ],
)
def test_a_box_of_coco_that_is_none(tmp_path: Path, bbox: Any, reason: str) -> None:
    images = find_images(coco(tmp_path, lambda content: last(content).update(bbox=bbox)), 0)
    assert skipped(images) == [("x.png", f"{reason}, and no other object is in it")]


def test_a_category_that_is_not_listed(tmp_path: Path) -> None:
    images = find_images(coco(tmp_path, lambda content: last(content).update(category_id=7)), 0)
    (each,) = images.skipped
    assert each.reason.startswith("annotation 1600: its category, 7, is not listed")


def test_images_that_are_listed_twice_or_not_at_all(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"].append({**content["images"][0]})
        content["images"].append({**content["images"][1], "id": 99})
        content["images"].append({"id": 77, "file_name": "/etc/passwd"})
        content["images"].append({"id": 78, "file_name": "../x.png"})
        content["images"] += [{"id": 79}, "nothing", {"file_name": "x.png"}]
        content["annotations"].append({**last(content), "image_id": 55})
        content["annotations"].append({**last(content), "image_id": None})

    put(tmp_path / "alone.png")
    images = find_images(coco(tmp_path, change), 0)
    file = "_annotations.coco.json"
    assert skipped(images) == [
        (f"{file}, image 0", "several images have this id"),
        (f"{file}, image 0", "several images have this id"),
        (f"{file}, image 77", f"its picture /etc/passwd {OUTSIDE}"),
        (f"{file}, image 78", f"its picture ../x.png {OUTSIDE}"),
        (f"{file}, image 79", "it has no file_name"),
        (f"{file}, images[22]", "it has no id"),
        (f"{file}, images[23]", "it has no id"),
        (f"{file}, image 55", "it is not listed, and annotations tell of it: 1"),
        (file, "annotation 1600: it has no image_id"),
        ("cat1.png", "2 listed images tell of it: 1, 99"),
        ("alone.png", "it has no annotation"),
        ("cat0.png", "it has no annotation"),
    ]


def test_a_picture_is_found_by_its_path_or_its_name_alone(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        names = ["./x.png", "train/cat0.png", "some\\where\\cat1.png", str(tmp_path / "cat2.png")]
        for entry, name in zip([content["images"][-1], *content["images"]], names, strict=False):
            entry["file_name"] = name

    images = find_images(coco(tmp_path, change), 0)
    assert len(images.train) + len(images.val) == 17


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is no JSON, line 1: Expecting property name"),
        ('{"images": [],\n\n"annotations": [1,]}', "it is no JSON, line 3"),
        ("[]", "it holds no list called `images`"),
        ('{"images": [], "annotations": {}}', "it holds no list called `annotations`"),
        ("[" * 100_000, "its lists are nested too deeply"),
        (b"\xff\xfe\x00", "it is no JSON: it is no UTF-8 text"),
        (
            '{"images": ' + "1" * 5000 + "}",
            "it is no JSON: it is no UTF-8 text, or a number is too",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1}]}',
            "category 2: its id, 1, is that of another one, too",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1}]}',
            "category 1: it has no name",
        ),
        ('{"images": [], "annotations": [], "categories": [7]}', "category 1: it has no id"),
    ],
)
def test_a_file_of_coco_that_is_none(tmp_path: Path, text: str | bytes, reason: str) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "_annotations.coco.json", text)
    assert bad(tmp_path).startswith(reason)


def test_outlines_are_passed_over_and_nothing_else() -> None:
    """Whatever looks like one within a text."""
    content = {
        "segmentation": [[1, 2.5], [-3e-4]],
        "keypoints": [1, 2],
        "boxes": [[1, 2]],
        "text": '"segmentation": [1]',
        'a"segmentation': [5],
        "segmentation2": [6],
        "more": {"counts": [7, 8], "size": [9]},
    }
    for indent in (None, 2):
        found = parsed(json.dumps(content, indent=indent).encode())
        assert found["segmentation"] == found["keypoints"] == found["more"]["counts"] == 0
        for kept in ("boxes", "text", "segmentation2"):
            assert found[kept] == content[kept]
        assert found["more"]["size"] == [9]


def test_a_file_in_use_of_many_outlines_is_read_as_it_stands(tmp_path: Path) -> None:
    """Where it is no JSON, its line is told as it is in the file."""
    text = '{"a": {"segmentation": [1,\n2,\n3]},\n"b": }'
    with pytest.raises(AnnotationError, match="line 4"):
        parsed(text.encode())


# YOLO


def yolo(folder: Path, text: str = "", names: str | None = "names: [dog, cat]") -> Path:
    """A folder of sound pictures, and `x.png` with these lines."""
    for name, marks in SOUND.items():
        put(folder / "images" / name)
        put(folder / "labels" / name.replace(".png", ".txt"), yolo_text(marks))
    put(folder / "images/x.png")
    put(folder / "labels/x.txt", text)
    if names is not None:
        put(folder / "data.yaml", names)
    return folder


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("1 0.5 0.5 0.5 0.5", (10, 5, 30, 15)),
        ("1.0 0.5 0.5 0.5 0.5 0.9", (10, 5, 30, 15)),
        ("1 0.25 0.25 0.75 0.25 0.5 0.75", (10, 5, 30, 15)),
        ("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", (10, 5, 30, 15)),
        ("\n  1 0.5 0.5 1 1  \r\n\n", (0, 0, 40, 20)),
        ("1 0.5 0.5 1.0000001 1.0000001", (0, 0, 40, 20)),
    ],
)
def test_lines_are_boxes_or_outlines(tmp_path: Path, line: str, box: tuple[float, ...]) -> None:
    images = find_images(yolo(tmp_path, line), 0)
    assert everything(images)["x.png"] == ("cat", [("cat", box)])
    assert (images.skipped, len(images.notes)) == ((), 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.5 0.5", "line 1: class 2 is none of the 2 named ones"),
        ("-1 0.5 0.5 0.5 0.5", "line 1: `-1` is no number of a class"),
        ("0.5 0.5 0.5 0.5 0.5", "line 1: `0.5` is no number of a class"),
        ("nan 0.5 0.5 0.5 0.5", "line 1: `nan` is no number of a class"),
        ("cat 0.5 0.5 0.5 0.5", "line 1: `cat` is no number"),
        ("1 0.5 0.5 0.5", "line 1: 3 numbers behind the class are no box and no outline"),
        ("1 0.5 0.5 0.5 0.5 1 1 1", "line 1: 7 numbers behind the class are no box and no outline"),
        ("1 0.5 0.5 x 0.5", "line 1: `x` is no number"),
        ("1 0.5 0.5 nan 0.5", "line 1 (cat): its box is not finite"),
        ("1 0.5 0.5 0.5 inf 0.5 0.5", "line 1 (cat): its box is not finite"),
        ("1 0.5 0.5 -0.5 0.5", "line 1 (cat): its box is inverted"),
        ("1 0.5 0.5 0 0.5", "line 1 (cat): its box has no area"),
        ("1 50 50 10 10", "line 1 (cat): its box lies outside of the picture"),
    ],
)
def test_a_line_that_is_no_object(tmp_path: Path, line: str, reason: str) -> None:
    images = find_images(yolo(tmp_path, f"{line}\n0 0.5 0.5 0.1 0.1"), 0)
    assert skipped(images) == [("labels/x.txt", reason)]
    assert everything(images)["x.png"][0] == "dog"


def test_points_of_a_pose_are_no_box(tmp_path: Path) -> None:
    line = "1 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 2"
    images = find_images(yolo(tmp_path, line, "kpt_shape: [2, 3]\nnames: [dog, cat]"), 0)
    assert everything(images)["x.png"] == ("cat", [("cat", (10, 5, 30, 15))])


def test_pictures_and_labels_without_a_partner(tmp_path: Path) -> None:
    yolo(tmp_path)
    put(tmp_path / "images/alone.png")
    put(tmp_path / "labels/lost.txt", "0 0.5 0.5 1 1")
    put(tmp_path / "images/bytes.png")
    put(tmp_path / "labels/bytes.txt", b"\xff\xfe")
    put(tmp_path / "images/large.png")
    put(tmp_path / "labels/large.txt", "\n" * (2**20 + 1))
    assert skipped(find_images(tmp_path, 0)) == [
        ("labels/bytes.txt", "it is no UTF-8 text"),
        ("labels/large.txt", "it is larger than 1 MiB"),
        ("labels/lost.txt", "its picture is not there"),
        ("alone.png", "it has no annotation"),
        ("x.png", "no object in it is annotated"),
    ]


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    images = find_images(yolo(tmp_path, "10 0.5 0.5 1 1\n", None), 0)
    assert images.classes == ("0", "1", "10")
    assert "No file names the classes (data.yaml, classes.txt or obj.names): their numbers do." in (
        images.notes
    )


@pytest.mark.parametrize("file", ["classes.txt", "labels/classes.txt", "obj.names", "set.yaml"])
def test_names_may_stand_in_several_files(tmp_path: Path, file: str) -> None:
    yolo(tmp_path, names=None)
    put(tmp_path / file, "names: [d, c]" if file.endswith("yaml") else "d\nc\n")
    assert find_images(tmp_path, 0).classes == ("d", "c")


def test_a_file_of_names_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    reason = bad(yolo(tmp_path, names="nc: 2\nnames: 7"))
    assert reason == "line 2: `names` is neither a list nor a mapping of numbers"


# The names in YAML

TWO = {0: "dog", 1: "big cat"}
FORMS = [
    "names: [dog, big cat]",
    "names: ['dog', \"big cat\"]",
    "names:  [ dog ,  # the first\n  big cat, ]  # both",
    "names: {0: dog, 1: big cat}",
    "names: {\n  0: dog,\n  '1': 'big cat'\n}\nnc: 2",
    "names:\n- dog\n- big cat\n",
    "names:\n  - dog   # a comment\n\n  # another\n  - big cat\nnc: 2",
    "train: ../images\nnames:\n  0: dog\n  1: big cat\ndownload: |\n  import os\n  names: x\n",
    "names:\r\n  0: \"dog\"\r\n  1: 'big cat'\r\n",
]


@pytest.mark.parametrize("text", FORMS)
def test_names_are_a_list_or_a_mapping(text: str) -> None:
    assert of_yaml(text).names == TWO


def test_names_are_texts_whatever_they_look_like() -> None:
    assert of_yaml("names: [no, 'it''s', \"a\\u0041\", 7, a:b, bird's nest]").names == {
        0: "no",
        1: "it's",
        2: "aA",
        3: "7",
        4: "a:b",
        5: "bird's nest",
    }
    assert [*of_yaml("names:\n  7: b\n  3: a").names.items()] == [(3, "a"), (7, "b")]


@pytest.mark.parametrize(
    "text",
    [
        *["", "nc: 2", "names:", "names: ", "names: 3", "names: dog", "names: &a [dog]"],
        *["names: [dog", "names: [dog, [cat]]", "names: [dog, *a]", "names: {dog: 0}"],
        *["names: [!!python/object:os.system x]", "names:\n  - !!python/object x"],
        *["names:\n  - dog\n  1: cat", "names:\n  a: dog", "names:\n  0: dog\n  0: cat"],
        *["names: [dog]\nnames: [cat]", "names: ['']", "names: {0: dog", "names:\n  - {a: b}"],
        *["names: >\n  dog", "names: |\n  dog", 'names: ["\\x"]'],
    ],
)
def test_other_yaml_is_refused(text: str) -> None:
    with pytest.raises(AnnotationError):
        of_yaml(text)


def test_a_long_file_of_yaml_is_read_once() -> None:
    """However it is made: there is no way back in it."""
    for text in ("a" + " " * 2**19, "'a' " * 2**17, '"\\' * 2**17, "a,\n" * 2**17 + "["):
        with pytest.raises(AnnotationError):
            of_yaml(f"names: [{text}")
    assert len(of_yaml("names: [" + "a, " * 2**17 + "]").names) == 2**17


@given(st.text(alphabet="names:[]{},'\"# \n-01ab&*", max_size=60))
def test_any_yaml_has_names_or_a_reason(text: str) -> None:
    for whole in (text, f"names:{text}", f"names: [{text}", f"names:\n{text}"):
        try:
            found = of_yaml(whole).names
        except AnnotationError:
            continue
        assert found
        assert all(name.strip() == name != "" for name in found.values())


def test_names_one_a_line(tmp_path: Path) -> None:
    assert of_lines("dog\nbig cat\n\n").names == TWO
    with pytest.raises(AnnotationError, match="line 2"):
        of_lines("dog\n\ncat")
    with pytest.raises(UserError):
        names_in(put(tmp_path / "classes.txt", "a" * (2**20 + 1)))


# Tables


def tabled(folder: Path, text: str) -> Path:
    """A folder of sound pictures and `x.png`, with a table that ends in these lines."""
    for name in (*SOUND, "x.png"):
        put(folder / "images" / name)
    put(folder / "boxes.csv", table(SOUND) + text)
    return folder


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "x.png,40,20,cat,4,2,24,12"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "x.png,80,40,cat,8,4,48,24"),
        ("Image Path;Label;X1;Y1;X2;Y2", "images/x.png;cat;4;2;24;12"),
        ("path\tname\tleft\ttop\tright\tbottom", "./images/x.png\tcat\t4\t2\t24\t12"),
        ("image,label,x,y,width,height", "x.png,cat,4,2,20,10"),
        ("image_path,class,x,y,w,h", 'x.png,"cat",4,2,20,10'),
        (
            "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height",
            "cat,8,4,40,20,x.png,80,40",
        ),
        ("file_name,x_min,y_min,x_max,y_max,class_name", "x.png,0.1,0.1,0.6,0.6,cat"),
        ("", "images/x.png,4,2,24,12,cat"),
        ("", "elsewhere/x.png,4,2,24,12,cat"),
    ],
)
def test_columns_are_known_by_their_names(tmp_path: Path, header: str, line: str) -> None:
    put(tmp_path / "images/x.png")
    put(tmp_path / "images/y.png")
    put(tmp_path / "boxes.csv", "\n".join(filter(None, [header, line, line.replace("x.p", "y.p")])))
    images = find_images(tmp_path, 0)
    assert everything(images) == dict.fromkeys(["x.png", "y.png"], ("cat", [*CAT]))
    assert images.skipped == ()


@pytest.mark.parametrize(
    "line", ["filename,label", "a,b,c,d,e,f", "1,2,3,4,5", "xmin,ymin,xmax,ymax", "", "image,class"]
)
def test_other_tables_tell_of_no_boxes(line: str) -> None:
    assert columns_of(line) is None


@pytest.mark.parametrize("edge", [1.0000001, 1.2, 50.0])
def test_shares_are_known_though_some_are_too_large(tmp_path: Path, edge: float) -> None:
    """By a rounding, or by a mistake in one line."""
    lines = [f"{name}.png,0.1,0.1,0.6,0.6,cat" for name in ("a", "b", "x")]
    put(tmp_path / "boxes.csv", "\n".join([*lines, f"x.png,0,0,0.5,{edge},cat"]))
    for name in ("a", "b", "x"):
        put(tmp_path / f"{name}.png")
    part = read_annotated(TableSource(tmp_path, tmp_path / "boxes.csv", own=True)).part
    assert part.objects is not None
    assert part.objects[0].boxes.tolist() == [[0.1, 0.1, 0.6, 0.6]]
    assert part.objects[2].boxes.max() <= 1


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    lines = [
        "x.png,4,2,24,12,cat",
        "x.png,4,2,a,12,cat",
        "x.png,24,2,4,12,cat",
        "x.png,4,2,24,12,",
        "x.png,4",
        "../x.png,4,2,24,12,cat",
        "/etc/x.png,4,2,24,12,cat",
        "y.png,4,2,24,12,cat",
        ",4,2,24,12,cat",
        "",
    ]
    images = find_images(tabled(tmp_path, "\n".join(lines)), 0)
    first = len(table(SOUND).splitlines()) + 1
    assert skipped(images) == [
        (f"boxes.csv, line {first + 4}", "it has 2 cells, and 6 are needed"),
        (f"boxes.csv, line {first + 5}", f"its picture ../x.png {OUTSIDE}"),
        (f"boxes.csv, line {first + 6}", f"its picture /etc/x.png {OUTSIDE}"),
        (f"boxes.csv, line {first + 7}", "its picture y.png is not there"),
        (f"boxes.csv, line {first + 8}", "it names no picture"),
        ("boxes.csv", f"line {first + 1}: `a` is no number"),
        ("boxes.csv", f"line {first + 3}: it has no class"),
        ("boxes.csv", f"line {first + 2} (cat): its box is inverted"),
    ]
    assert everything(images)["x.png"] == ("cat", [*CAT])


def test_a_picture_may_be_named_without_an_object(tmp_path: Path) -> None:
    images = find_images(tabled(tmp_path, "x.png,,,,,\n"), 0)
    assert skipped(images) == [("x.png", "no object in it is annotated")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('x.png,4,2,24,12,"cat\n', "line 26: unexpected end of data"),
        ('x.png,4,2,24,12,"c"at\n', "line 26: ',' expected after '\"'"),
    ],
)
def test_a_table_that_is_no_csv(tmp_path: Path, text: str, reason: str) -> None:
    assert bad(tabled(tmp_path, text)) == reason


def test_a_table_of_bytes(tmp_path: Path) -> None:
    tabled(tmp_path, "")
    path = tmp_path / "boxes.csv"
    path.write_bytes(path.read_bytes() + b"\xff")
    assert bad(tmp_path) == "it is no UTF-8 text"


def test_a_line_may_not_give_a_picture_another_size(tmp_path: Path) -> None:
    put(tmp_path / "x.png", image_bytes())
    put(tmp_path / "y.png", image_bytes())
    lines = [f"{name}.png,{WIDTH * k},{HEIGHT * k},0,0,9,9,cat" for name in "xy" for k in (1, 2)]
    header = "filename,width,height,xmin,ymin,xmax,ymax,class"
    put(tmp_path / "boxes.csv", "\n".join([header, *lines]))
    assert [reason for _, reason in skipped(find_images(tmp_path, 0))] == [
        "line 3: the line gives its picture another size than one before",
        "line 5: the line gives its picture another size than one before",
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_an_annotation_or_a_reason(noise: bytes) -> None:
    for content in (noise, b"<annotation>" + noise, b"<annotation><object>" + noise):
        with pytest.raises(AnnotationError):
            parse(content)
