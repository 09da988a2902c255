"""Places whose annotations tell what pictures show: which layouts are known, what is read of each
format, and what is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.annotated import (
    CAT,
    DOG,
    HEIGHT,
    LAYOUTS,
    PARTS,
    WIDTH,
    Marks,
    coco_json,
    image_bytes,
    known_by,
    marks_of,
    put,
    table,
    told,
    voc_xml,
    write_coco,
    write_listed,
    write_yolo,
    yolo_text,
)
from tests.support.training_data import TINY
from vggc.data import diagnostics
from vggc.data.find import find_images
from vggc.data.parts import Images, Part, Skipped
from vggc.data.place import AnnotatedFolder, PartedFolder, PlainFolder, parse_place
from vggc.evaluation.images import pictures as pictures_to_test
from vggc.support.diagnostics import Diagnostic, UserError


def names(part: Part) -> list[str]:
    return [part.name(index) for index in range(len(part))]


def mistake(function: Callable[[], object]) -> Diagnostic:
    with pytest.raises(UserError) as error:
        function()
    return error.value.diagnostics[0]


def stems(part: Part) -> list[str]:
    return sorted(Path(name).stem for name in names(part))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_has_its_parts_its_classes_and_its_boxes(tmp_path: Path, layout: str) -> None:
    for part in PARTS:
        LAYOUTS[layout](tmp_path, part)
    images = find_images(tmp_path, 0)
    is_ordered = layout.startswith(("coco", "yolo"))
    assert images.classes == (("dog", "cat") if is_ordered else ("cat", "dog"))
    for part, name in ((images.train, "train"), (images.val, "val")):
        assert stems(part) == sorted(marks_of(name))
        for path, (label, objects) in told(part, images.classes).items():
            marks = marks_of(name)[Path(path).stem]
            assert (label, objects) == (marks[0][0], [*marks])
    assert images.skipped == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_part_of_a_layout_is_a_place_of_its_own(tmp_path: Path, layout: str) -> None:
    """Which is what a note names that tells of a part that is not used."""
    for part in ("train", "val", "test"):
        LAYOUTS[layout](tmp_path, part)
    place = parse_place(str(tmp_path))
    assert isinstance(place, PartedFolder)
    images = find_images(tmp_path, 0)
    train, val = (place.parts.one_for(role) for role in ("train", "val"))
    assert train is not None
    assert val is not None
    paths = [piece.place(place.parts.folder) for piece in (train, val)]
    again = find_images(str(paths[0]), 0, str(paths[1]))
    assert again.classes == images.classes
    for one, other in ((images.train, again.train), (images.val, again.val)):
        assert known_by(images.classes, one) == known_by(images.classes, other)
    found = pictures_to_test(str(tmp_path), images.classes)
    assert known_by(found.classes, found.part) == known_by(images.classes, images.val)


def test_a_part_may_be_named_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in PARTS:
        write_yolo(tmp_path, part, "images/{part}", "labels/{part}")
    monkeypatch.chdir(tmp_path / "images")
    (tmp_path / "images/train/more").mkdir()
    images = find_images("train", 0, "val")
    assert (len(images.train), len(images.val)) == (6, 2)
    monkeypatch.chdir(tmp_path / "images/val")
    assert len(find_images("../train", 0, ".").val) == 2


def write_flat(root: Path, layout: str) -> None:
    """All pictures in one part."""
    marks = marks_of("train")
    files = {f"{stem}.png": each for stem, each in marks.items()}
    inner = "" if "beside" in layout else "images"
    for stem in marks:
        put(root / inner / f"{stem}.png")
    match layout:
        case "voc" | "voc-beside":
            for stem, each in marks.items():
                put(root / ("annotations" if inner else "") / f"{stem}.xml", voc_xml(each))
        case "voc-deeper":
            for stem, each in marks.items():
                put(root / "annotations/xmls" / f"{stem}.xml", voc_xml(each))
                put(root / "annotations/trimaps" / f"{stem}.png")
        case "voc-named-inside":
            for number, (name, each) in enumerate(files.items()):
                put(root / "annotations" / f"{number}.xml", voc_xml(each, filename=name))
        case "coco" | "coco-beside":
            put(root / "annotations.json", coco_json(files))
        case "yolo" | "yolo-beside":
            for stem, each in marks.items():
                put(root / ("labels" if inner else "") / f"{stem}.txt", yolo_text(each))
            put(root / ("labels" if inner else "") / "classes.txt", "dog\ncat\n")
        case "table" | "table-beside":
            put(root / "labels.csv", table(files))
        case "table-bare":
            paths = {f"images/{name}": each for name, each in files.items()}
            put(root / "annotations.csv", table(paths, header=""))


FLAT = ["voc", "voc-beside", "voc-deeper", "voc-named-inside", "coco", "coco-beside"]
FLAT += ["yolo", "yolo-beside", "table", "table-beside", "table-bare"]


@pytest.mark.parametrize("layout", FLAT)
def test_without_parts_a_fifth_of_each_class_is_held_out(tmp_path: Path, layout: str) -> None:
    write_flat(tmp_path, layout)
    images = find_images(tmp_path, 0)
    assert (len(images.train), len(images.val)) == (4, 2)
    assert {*images.classes} == {"cat", "dog"}
    for part in (images.train, images.val):
        for path, found in told(part, images.classes).items():
            marks = marks_of("train")[Path(path).stem]
            assert found == (marks[0][0], [*marks])
    assert images.skipped == ()
    assert isinstance(parse_place(str(tmp_path)), AnnotatedFolder)


def test_what_was_read_is_said(tmp_path: Path) -> None:
    write_flat(tmp_path, "voc")
    notes = [note.replace(str(tmp_path), "D") for note in find_images(tmp_path, 0).notes]
    assert notes == ["Boxes in D/images are read from Pascal VOC's XML."]


def test_parts_are_told_as_those_of_class_folders_are(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_yolo(tmp_path, part, "images/{part}", "labels/{part}")
    put(tmp_path / "images/more/1.png")
    notes = [note.replace(str(tmp_path), "D") for note in find_images(tmp_path, 0).notes]
    assert notes[:3] == [
        "In D, images/train/ is trained on and images/val/ held out.",
        "images/test/ is not used in training: "
        "`vggc eval RUN --data D/images/test` measures on it.",
        "Left out, since no part is called so: images/more/.",
    ]


def test_pictures_beside_parts_are_named(tmp_path: Path) -> None:
    for part in PARTS:
        LAYOUTS["voc-parts"](tmp_path, part)
    put(tmp_path / "x.png")
    assert find_images(tmp_path, 0).skipped == (Skipped("x.png", "it lies in no part"),)


def test_a_part_without_annotations_is_left_out(tmp_path: Path) -> None:
    for part in PARTS:
        write_yolo(tmp_path, part, "images/{part}", "labels/{part}")
    put(tmp_path / "images/test/1.png")
    notes = find_images(tmp_path, 0).notes
    assert "images/test/ has no annotations, and is left out." in notes


def test_one_to_hold_out_without_annotations_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path, "train", "images/{part}", "labels/{part}")
    put(tmp_path / "images/val/1.png")
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.UselessPart)
    assert found.reason == "has no annotations"


def test_a_list_of_both_parts_counts_where_there_is_no_other(tmp_path: Path) -> None:
    write_listed(tmp_path, "train")
    write_listed(tmp_path, "val")
    both = [*marks_of("train"), *marks_of("val")]
    put(tmp_path / "ImageSets/Main/trainval.txt", "\n".join(both))
    put(tmp_path / "ImageSets/Main/cat_train.txt", "train-cat0 1\ntrain-dog0 -1\n")
    assert len(find_images(tmp_path, 0).train) == 6
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    write_listed(tmp_path, "test")
    images = find_images(tmp_path, 0)
    assert stems(images.train) == sorted(both)
    assert stems(images.val) == sorted(marks_of("test"))
    alone = find_images(
        tmp_path / "ImageSets/Main/cat_train.txt", 0, tmp_path / "ImageSets/Main/test.txt"
    )
    assert stems(alone.train) == ["train-cat0", "train-dog0"]


def test_most_pictures_of_ilsvrc_may_have_no_boxes(tmp_path: Path) -> None:
    for part in PARTS:
        LAYOUTS["ilsvrc"](tmp_path, part)
    lists = tmp_path / "ImageSets/CLS-LOC"
    more = [f"n09/n09_{number}" for number in range(9)]
    for name in more:
        put(tmp_path / f"Data/CLS-LOC/train/{name}.JPEG", image_bytes(kind="JPEG"))
    assert find_images(tmp_path, 0).skipped == ()
    every = (lists / "train_loc.txt").read_text() + "".join(f"{name} 7\n" for name in more)
    (lists / "train_loc.txt").unlink()
    put(lists / "train_cls.txt", every)
    images = find_images(tmp_path, 0)
    assert (len(images.train), len(images.skipped)) == (6, 9)


def test_the_yaml_of_yolo_stands_for_the_folder_around_it(tmp_path: Path) -> None:
    for part in PARTS:
        write_yolo(tmp_path, part, "images/{part}", "labels/{part}")
    images = find_images(tmp_path / "data.yaml", 0)
    assert (len(images.train), len(images.val)) == (6, 2)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.yaml", "ImageSets/a.txt", "a.xml"])
def test_other_files_are_no_places(tmp_path: Path, name: str) -> None:
    put(tmp_path / "1.png")
    path = put(tmp_path / name, "nothing")
    assert isinstance(mistake(lambda: find_images(path, 0)), diagnostics.NotAFolder)


def test_several_sets_are_not_one(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_listed(tmp_path / year, "train")
    found = mistake(lambda: find_images(tmp_path, 0))
    assert isinstance(found, diagnostics.SeveralSets)
    for name in ("a", "b"):
        put(tmp_path / f"c/{name}.json", coco_json({"a.png": CAT}))
    found = mistake(lambda: find_images(tmp_path / "c", 0))
    assert isinstance(found, diagnostics.SeveralSets)


def test_pictures_sorted_into_classes_may_have_a_file_about_them(tmp_path: Path) -> None:
    """Of COCO's form, without boxes."""
    for name in ("cat", "dog"):
        put(tmp_path / f"{name}/1.png")
        put(tmp_path / f"{name}/2.png")
    put(tmp_path / "all.json", '{"images": [], "annotations": [], "categories": []}')
    put(tmp_path / "all.yaml", "nc: 2")
    assert find_images(tmp_path, 0).train.objects is None


def test_class_folders_stay_what_they_are(tmp_path: Path) -> None:
    """Whatever lies beside the pictures in them, and beside themselves."""
    for name in ("cat", "dog"):
        for number in range(3):
            put(tmp_path / f"{name}/{number}.png")
            put(tmp_path / f"{name}/{number}.xml", voc_xml(CAT))
    put(tmp_path / "labels.csv", "filename,label\ncat/0.png,cat\n")
    put(tmp_path / "about.json", '{"images": 6}')
    put(tmp_path / "readme.txt", "cats and dogs")
    assert isinstance(parse_place(str(tmp_path)), PlainFolder)
    assert find_images(tmp_path, 0).train.objects is None


def test_known_classes_are_no_folders_of_annotations(tmp_path: Path) -> None:
    write_flat(tmp_path, "voc")
    assert isinstance(parse_place(str(tmp_path), ("images", "annotations")), PlainFolder)


def test_one_class_is_enough_where_there_are_boxes(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / f"{number}.png")
        put(tmp_path / f"{number}.xml", voc_xml(CAT))
    images = find_images(tmp_path, 0)
    assert (images.classes, len(images.train), len(images.val)) == (("cat",), 4, 1)


# Labels and classes


def one(folder: Path, marks: Marks, name: str = "x", **more: object) -> None:
    """A picture with an annotation of Pascal VOC's, among others."""
    put(folder / f"{name}.png")
    put(folder / f"{name}.xml", voc_xml(marks, **more))  # type: ignore[arg-type]


def some(folder: Path, count: int = 5) -> None:
    """Sound pictures, so that others are in the minority."""
    for number in range(count):
        one(folder, CAT, f"cat{number}")
        one(folder, DOG, f"dog{number}")


def whole(folder: Path) -> Images:
    return find_images(folder, 0)


def found(folder: Path) -> dict[str, tuple[str, list[tuple[str, tuple[float, ...]]]]]:
    images = whole(folder)
    return {**told(images.train, images.classes), **told(images.val, images.classes)}


def test_a_difficult_object_labels_no_picture_and_stays(tmp_path: Path) -> None:
    some(tmp_path)
    one(tmp_path, [("dog?", (0, 0, 40, 20)), ("cat", (0, 0, 2, 2))])
    label, objects = found(tmp_path)["x.png"]
    assert label == "cat"
    assert [name for name, _ in objects] == ["dog", "cat"]


def test_classes_are_those_that_label_a_picture(tmp_path: Path) -> None:
    some(tmp_path)
    one(tmp_path, [("cat", (0, 0, 9, 9)), ("hat", (0, 0, 3, 3))])
    images = whole(tmp_path)
    assert images.classes == ("cat", "dog")
    assert found(tmp_path)["x.png"] == ("cat", [("cat", (0, 0, 9, 9))])
    assert "largest: 1, of hat." in images.notes[-1]


def test_what_is_held_out_may_show_no_class_that_is_not_trained_on(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        some(tmp_path / name)
    one(tmp_path / "valid", [("cat", (0, 0, 9, 9)), ("hat", (0, 0, 3, 3))])
    images = whole(tmp_path)
    assert images.classes == ("cat", "dog")
    assert len(images.val) == 11
    one(tmp_path / "valid", [("hat", (0, 0, 9, 9))])
    wrong = mistake(lambda: whole(tmp_path))
    assert isinstance(wrong, diagnostics.ClassesDiffer)
    assert wrong.names == "hat"


def test_classes_of_a_held_out_part_have_the_numbers_of_the_training_part(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", "train/_annotations.coco.json", "train")
    other = json.loads(coco_json({"a.png": CAT}))
    other["categories"].reverse()
    put(tmp_path / "valid/a.png")
    put(tmp_path / "valid/_annotations.coco.json", json.dumps(other))
    images = whole(tmp_path)
    assert told(images.val, images.classes) == {"a.png": ("cat", [*CAT])}


def test_a_run_knows_its_pictures_again_by_their_boxes(tmp_path: Path) -> None:
    some(tmp_path)
    images = whole(tmp_path)
    before = known_by(images.classes, images.train)
    assert known_by(images.classes, whole(tmp_path).train) == before
    name = Path(images.train.name(0)).stem
    one(tmp_path, [("cat", (4, 2, 24, 13))], name)
    assert known_by(images.classes, whole(tmp_path).train) != before


# Coordinates


def test_pixels_of_voc_are_counted_from_one_and_the_last_belongs_to_the_box(tmp_path: Path) -> None:
    some(tmp_path)
    text = voc_xml([])
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>20</ymax></bndbox>"
    put(tmp_path / "x.png")
    put(
        tmp_path / "x.xml",
        text.replace("</annotation>", f"<object><name>cat</name>{box}</object></annotation>"),
    )
    assert found(tmp_path)["x.png"] == ("cat", [("cat", (0, 0, WIDTH, HEIGHT))])


def test_boxes_follow_a_picture_that_is_turned(tmp_path: Path) -> None:
    """It is 40 pixels wide in its file and 20 as it is shown; who annotated saw the file."""
    some(tmp_path)
    one(tmp_path, [("cat", (0, 0, 40, 5))], size=(WIDTH, HEIGHT))
    put(tmp_path / "x.png", image_bytes(orientation=6))
    images = whole(tmp_path)
    for part in (images.train, images.val):
        for index in range(len(part)):
            if part.name(index) == "x.png":
                assert part.objects is not None
                assert part.objects[index].boxes.tolist() == [[0.75, 0, 1, 1]]
                return
    raise AssertionError("x.png is lost")


def test_a_picture_of_another_aspect_than_annotated_is_left_out(tmp_path: Path) -> None:
    some(tmp_path)
    one(tmp_path, CAT, size=(100, 20))
    reason = "it is annotated as 100x20 pixels, and is of 40x20"
    assert whole(tmp_path).skipped == (Skipped("x.png", reason),)


def test_a_picture_may_be_annotated_at_another_size_or_at_none(tmp_path: Path) -> None:
    some(tmp_path)
    one(tmp_path, [("cat", (8, 4, 48, 24))], "x", size=(80, 40))
    one(tmp_path, CAT, "y", size=None)
    one(tmp_path, CAT, "z", size=(0, 0))
    assert [found(tmp_path)[f"{name}.png"] for name in "xyz"] == [("cat", [*CAT])] * 3


def test_a_box_that_reaches_over_an_edge_is_cut_and_counted(tmp_path: Path) -> None:
    some(tmp_path)
    one(tmp_path, [("cat", (-5, -1, 50, 15))])
    images = whole(tmp_path)
    assert found(tmp_path)["x.png"] == ("cat", [("cat", (0, 0, WIDTH, 15))])
    assert "boxes are cut that reach beyond their pictures: 1." in images.notes[-1]
    assert images.skipped == ()


# Bad input


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((24, 2, 4, 12), "object 1 (cat): its box is inverted"),
        ((4, 2, 4, 12), "object 1 (cat): its box has no area"),
        ((60, 2, 70, 12), "object 1 (cat): its box lies outside of the picture"),
        ((4, 2, float("nan"), 12), "object 1 (cat): its box is not finite"),
        ((4, 2, float("inf"), 12), "object 1 (cat): its box is not finite"),
    ],
)
def test_an_object_with_a_box_that_is_none_is_left_out(
    tmp_path: Path, box: tuple[float, float, float, float], reason: str
) -> None:
    some(tmp_path)
    one(tmp_path, [("cat", box), ("dog", (0, 0, 9, 9))])
    assert whole(tmp_path).skipped == (Skipped("x.xml", reason),)
    assert found(tmp_path)["x.png"] == ("dog", [("dog", (0, 0, 9, 9))])
    one(tmp_path, [("cat", box)])
    assert whole(tmp_path).skipped == (Skipped("x.png", f"{reason}, and no other object is in it"),)


BROKEN_XML = {
    "": "no element found",
    "<annotation>": "no element found",
    "<annotation><a></b></annotation>": "mismatched tag",
    "<annotation/><annotation/>": "junk after document element",
    "\x00": "unclosed token",
    "cats": "syntax error",
    '<?xml version="1.0" encoding="what"?><annotation/>': "its encoding is not known",
    '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>': "declares an XML entity",
    '<!DOCTYPE a [<!ENTITY % b SYSTEM "/etc/passwd">]><annotation/>': "declares an XML entity",
    "<a>" * 1000: "it holds <a>, not <annotation>",
    "<annotation>" + "<a>" * 1000: "more than 32 elements",
    "<annotation>" + "a" * 2**20: "larger than 1 MiB",
    "<svg/>": "it holds <svg>, not <annotation>",
}


@pytest.mark.parametrize("text", BROKEN_XML, ids=range(len(BROKEN_XML)))
def test_an_xml_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    some(tmp_path)
    put(tmp_path / "x.png")
    put(tmp_path / "x.xml", text)
    (file,) = whole(tmp_path).skipped  # and its picture not once more
    assert file.name == "x.xml"
    assert BROKEN_XML[text] in file.reason


def test_entities_in_other_encodings_are_refused_too(tmp_path: Path) -> None:
    some(tmp_path)
    put(tmp_path / "x.png")
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
    put(tmp_path / "x.xml", text.encode("utf-16"))
    assert "entity" in whole(tmp_path).skipped[0].reason


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ("<object/>", "object 1: it has no class"),
        ("<object><name> </name></object>", "object 1: it has no class"),
        ("<object><name>cat</name></object>", "object 1: it has no box: there is no <xmin>"),
        (
            "<object><name>cat</name><bndbox><xmin>a</xmin><ymin>1</ymin><xmax>2</xmax>"
            "<ymax>2</ymax></bndbox></object>",
            "object 1: `a` is no number",
        ),
        (
            "<object><name>cat</name><bndbox><xmin>1_0</xmin><ymin>1</ymin><xmax>2</xmax>"
            "<ymax>2</ymax></bndbox></object>",
            "object 1: `1_0` is no number",
        ),
        (f"<object><name>{'a' * 300}</name></object>", "object 1: the name of its class"),
    ],
)
def test_an_object_that_lacks_something_is_left_out(
    tmp_path: Path, element: str, reason: str
) -> None:
    some(tmp_path)
    put(tmp_path / "x.png")
    put(tmp_path / "x.xml", f"<annotation>{element}</annotation>")
    (skipped,) = whole(tmp_path).skipped
    assert skipped.name == "x.png"
    assert skipped.reason.startswith(reason)


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    some(tmp_path)
    put(tmp_path / "alone.png")
    put(tmp_path / "lost.xml", voc_xml(CAT))
    put(tmp_path / "other.xml", voc_xml(CAT, filename="../../etc/passwd.png"))
    put(tmp_path / "empty.png")
    put(tmp_path / "empty.xml", voc_xml([]))
    one(tmp_path, [("cat?", (0, 0, 4, 4))], "hard")
    put(tmp_path / "twice.png")
    put(tmp_path / "twice.xml", voc_xml(CAT))
    put(tmp_path / "again.xml", voc_xml(CAT, filename="twice.png"))
    put(tmp_path / "both.png")
    put(tmp_path / "both.jpg", image_bytes(kind="JPEG"))
    put(tmp_path / "both.xml", voc_xml(CAT))
    put(tmp_path / "broken.png", b"no picture")
    put(tmp_path / "broken.xml", voc_xml(CAT))
    put(tmp_path / "camera.heic", b"")
    assert {(each.name, each.reason) for each in whole(tmp_path).skipped} == {
        ("alone.png", "it has no annotation"),
        ("lost.xml", "its picture is not there"),
        (
            "other.xml",
            "its picture ../../etc/passwd.png lies outside of the folder, or is not there",
        ),
        ("empty.png", "no object in it is annotated"),
        ("hard.png", "all its objects are difficult"),
        ("twice.png", "2 annotations tell of it: again.xml, twice.xml"),
        ("both.xml", "2 pictures have its name: both.jpg, both.png"),
        ("broken.png", "not an image"),
        ("camera.heic", "HEIC is not read: save it as JPEG, PNG or WebP"),
    }


def test_a_name_alone_pairs_nothing_that_lies_in_different_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            put(tmp_path / f"images/{name}/{number}.png")
            put(tmp_path / f"annotations/{name}/{number}.xml", voc_xml(CAT if name == "a" else DOG))
    (tmp_path / "images/a/0.png").unlink()
    (tmp_path / "annotations/b/0.xml").unlink()
    images = find_images(tmp_path, 0)
    assert {(each.name, each.reason) for each in images.skipped} == {
        ("annotations/a/0.xml", "its picture is not there"),
        ("b/0.png", "it has no annotation"),
    }
    assert {path: label for path, (label, _) in found(tmp_path).items()} == {
        **dict.fromkeys(["a/1.png", "a/2.png"], "cat"),
        **dict.fromkeys(["b/1.png", "b/2.png"], "dog"),
    }


def test_one_of_two_pictures_of_a_name_is_that_which_the_annotation_names(tmp_path: Path) -> None:
    some(tmp_path)
    put(tmp_path / "both.png")
    put(tmp_path / "both.jpg", image_bytes(kind="JPEG"))
    put(tmp_path / "both.xml", voc_xml(CAT, filename="both.jpg"))
    assert "both.jpg" in found(tmp_path)


def test_a_place_most_of_which_cannot_be_used_is_refused(tmp_path: Path) -> None:
    some(tmp_path, 2)
    for number in range(5):
        put(tmp_path / f"lost{number}.xml", voc_xml(CAT))
    wrong = mistake(lambda: whole(tmp_path))
    assert isinstance(wrong, diagnostics.UnusableAnnotations)
    assert (wrong.bad, wrong.total) == (5, 9)
    assert (wrong.example, wrong.reason) == ("lost0.xml", "its picture is not there")


def test_pictures_that_show_nothing_may_be_the_most(tmp_path: Path) -> None:
    some(tmp_path, 2)
    for number in range(9):
        one(tmp_path, [], f"empty{number}")
    assert len(whole(tmp_path).skipped) == 9
    put(tmp_path / "bare/a.png")
    put(tmp_path / "bare/a.xml", voc_xml([]))
    wrong = mistake(lambda: whole(tmp_path / "bare"))
    assert isinstance(wrong, diagnostics.NoObjects)
    assert wrong.reason == "1 left out, such as a.png: no object in it is annotated"


def test_a_list_may_name_what_is_not_there(tmp_path: Path) -> None:
    for part in PARTS:
        write_listed(tmp_path, part)
    path = tmp_path / "ImageSets/Main/train.txt"
    path.write_text(path.read_text() + "../../../etc/passwd\nnothing\n\n")
    assert {(each.name, each.reason, each.part) for each in whole(tmp_path).skipped} == {
        ("../../../etc/passwd", "train.txt, line 7: it is not there", "train"),
        ("nothing", "train.txt, line 8: it is not there", "train"),
    }


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    some(tmp_path)
    put(tmp_path / "x.png")
    os.mkfifo(tmp_path / "x.xml")
    (file,) = whole(tmp_path).skipped
    assert file.name == "x.xml"


@pytest.mark.slow
def test_a_run_trains_goes_on_and_is_tested_on_annotated_pictures(tmp_path: Path) -> None:
    def vggc(*arguments: str) -> str:
        command = [sys.executable, "-m", "vggc", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 2), done.stderr
        return done.stdout + done.stderr

    for part in PARTS:
        write_listed(tmp_path / "set", part)
    one(tmp_path / "more", CAT)
    (tmp_path / "tiny.vgg").write_text(TINY.replace("fc-3", "fc-2"))
    first = vggc("train", "tiny.vgg", "--data", "set", "--epochs", "1", "--out", "run")
    assert "6 images to train on, 2 held out, 2 classes." in first
    assert "2 of 2" in vggc("train", "--resume", "run", "--epochs", "2")
    places = {"set/ImageSets/Main/train.txt": "6 images", "more": "1 image"}
    for place, count in places.items():
        assert f"error on {count} of {place}" in vggc("eval", "run", "--data", place)
    put(tmp_path / "set/Annotations/val-cat0.xml", voc_xml([("cat", (4, 2, 24, 13))]))
    assert "error on 2 images" in vggc("eval", "run")  # which tells classes, not boxes
    put(tmp_path / "set/Annotations/val-cat0.xml", voc_xml([("dog", (4, 2, 24, 12))]))
    assert "the held-out images have other names or classes now" in vggc("eval", "run")
