"""Which folders and shards are parts of a set, which are classes, and what is said of it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.support.training_data import picture
from vggc.data import diagnostics
from vggc.data.find import find_images
from vggc.data.parts import Images, Part
from vggc.data.split import pattern_of
from vggc.data.usual import roles_of, usual_name
from vggc.support.diagnostics import Diagnostic, UserError, render


def layout(folder: Path, *paths: str) -> Path:
    """Pictures at these paths, `cat*3/` for three of them in `cat/`; empty folders at `name/`."""
    for path in paths:
        inner, times, count = path.rstrip("/").partition("*")
        where = folder / inner
        where.mkdir(parents=True, exist_ok=True)
        for index in range(int(count) if times else 0):
            label = sum(map(ord, where.name)) % 3
            Image.fromarray(picture(label, index)).save(where / f"{index}.png")
    return folder


def names(part: Part) -> list[str]:
    return [part.name(index) for index in range(len(part))]


def mistake(folder: Path, val: Path | None = None) -> Diagnostic:
    with pytest.raises(UserError) as error:
        find_images(folder, 0, val)
    return error.value.diagnostics[0]


def told(folder: Path, images: Images) -> list[str]:
    return [note.replace(f"{folder}", "D") for note in images.notes]


# Names


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        *[(name, "train") for name in ("train", "TRAIN", "Train", "train2017", "train_1")],
        *[(name, "train") for name in ("trainset", "TrainSet", "train_images", "Train Data")],
        *[(name, "train") for name in ("images_train", "img-train")],
        *[("Training", "training"), ("training_set", "training"), ("trainval2012", "trainval")],
        *[("train-val", "trainval"), ("val", "val"), ("VAL2017", "val"), ("valid", "valid")],
        *[("Validation", "validation"), ("validation_set", "validation"), ("dev", "dev")],
        *[("eval", "eval"), ("evaluation", "evaluation"), ("hold-out", "holdout")],
        *[("held_out", "heldout"), ("holdout", "holdout"), ("validate", "validate")],
        *[("test", "test"), ("Testing", "testing"), ("test_images", "test"), ("tests", "tests")],
        *[(name, None) for name in ("cat", "trainer", "trains", "invalid", "device", "contest")],
        *[(name, None) for name in ("bullet_train", "images", "data", "", "1", "générale")],
    ],
)
def test_parts_are_known_by_their_usual_names(name: str, usual: str | None) -> None:
    assert usual_name(name) == usual


def test_other_words_in_a_name_count_where_another_part_has_them_too() -> None:
    train, test = frozenset({"train"}), frozenset({"test"})
    assert roles_of(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": train, "seg_test": test}
    assert roles_of(["bullet_train", "steam_train", "test_tube"]) == {}
    parts = ["trainA", "trainB", "testA", "testB"]
    assert roles_of(parts) == dict(zip(parts, [train, train, test, test], strict=True))


def test_a_long_name_takes_no_time() -> None:
    assert usual_name("imagesdataset" * 5000 + "x") is None


# Folders


@pytest.mark.parametrize(
    ("train", "val"),
    [
        *[("train", "val"), ("training", "validation"), ("Train", "Test"), ("train", "valid")],
        *[("TRAIN", "VAL"), ("train2017", "val2017"), ("train", "dev"), ("train", "eval")],
        *[("training_set", "test_set"), ("seg_train", "seg_test"), ("Train", "holdout")],
        *[("train", "validate"), ("trainval", "testing"), ("train_images", "validation_images")],
    ],
)
def test_folders_with_usual_names_are_parts(tmp_path: Path, train: str, val: str) -> None:
    layout(tmp_path, *(f"{part}/{name}*2" for part in (train, val) for name in ("cat", "dog")))
    images = find_images(tmp_path, 0)
    assert images.classes == ("cat", "dog")
    assert names(images.train) == names(images.val) == ["cat/0.png", "cat/1.png", *names_of_dogs()]
    assert told(tmp_path, images) == [f"In D, {train}/ is trained on and {val}/ held out."]


def names_of_dogs() -> list[str]:
    return ["dog/0.png", "dog/1.png"]


def test_a_part_to_test_on_does_not_steer_the_training(tmp_path: Path) -> None:
    parts = {"train": 3, "valid": 2, "test": 1}
    layout(tmp_path, *(f"{part}/{c}*{n}" for part, n in parts.items() for c in ("cat", "dog")))
    images = find_images(tmp_path, 0)
    assert (len(images.train), len(images.val)) == (6, 4)
    assert told(tmp_path, images) == [
        "In D, train/ is trained on and valid/ held out.",
        "test/ is not used in training: `vggc eval RUN --data D/test` measures on it.",
    ]


def test_without_a_part_to_hold_out_a_fifth_is(tmp_path: Path) -> None:
    layout(tmp_path, "train/cat*5", "train/dog*5")
    images = find_images(tmp_path, 0)
    assert (images.classes, len(images.train), len(images.val)) == (("cat", "dog"), 8, 2)
    assert told(tmp_path, images) == [
        "D holds no part to hold out: a fifth of each class of train/ is, drawn by --seed."
    ]


def test_images_to_test_on_that_have_no_classes_are_left_out(tmp_path: Path) -> None:
    """As in competitions, which keep them to themselves."""
    layout(tmp_path, "train/cat*5", "train/dog*5", "test*3", "labels/", "more/cat*1")
    layout(tmp_path, "val/cat*1", "val/dog*1")
    images = find_images(tmp_path, 0)
    assert (images.classes, len(images.train), len(images.val)) == (("cat", "dog"), 10, 2)
    assert told(tmp_path, images)[1:] == [
        "test/ holds images and no class folders, and is left out.",
        "Left out, since no part is called so: more/.",
    ]


@pytest.mark.parametrize("inside", ["", "train/{}/"])
def test_archives_are_packed_in_a_folder_of_their_own(tmp_path: Path, inside: str) -> None:
    """`photos/photos/train/` and `train/train/cat/`, and macOS has left its own beside them."""
    for part in ("train", "test"):
        folder = tmp_path / "photos" / (f"{part}/{part}" if inside else part)
        layout(folder, "cat*2", "dog*2")
    layout(tmp_path, "__MACOSX/photos/train/cat*1")
    images = find_images(tmp_path, 0)
    assert images.classes == ("cat", "dog")
    assert names(images.val) == ["cat/0.png", "cat/1.png", *names_of_dogs()]
    assert told(tmp_path, images) == ["In D/photos, train/ is trained on and test/ held out."]


def test_parts_and_classes_may_be_links(tmp_path: Path) -> None:
    layout(tmp_path / "elsewhere", "a/cat*2", "b/cat*1", "dogs*2")
    (tmp_path / "set/b").mkdir(parents=True)
    (tmp_path / "set/Train").symlink_to(tmp_path / "elsewhere/a")
    (tmp_path / "set/val").symlink_to(tmp_path / "elsewhere/b")
    for part in ("a", "b"):
        (tmp_path / "elsewhere" / part / "dog").symlink_to(tmp_path / "elsewhere/dogs")
    images = find_images(tmp_path / "set", 0)
    assert (images.classes, len(images.train), len(images.val)) == (("cat", "dog"), 4, 3)


# Classes that are called as parts are


def test_a_class_may_be_called_as_a_part_is(tmp_path: Path) -> None:
    layout(tmp_path, "boat*5", "plane*5", "train*5")
    images = find_images(tmp_path, 0)
    assert images.classes == ("boat", "plane", "train")
    assert told(tmp_path, images) == [
        "train/ in D is taken for a class, though parts are called so."
    ]


def test_so_may_a_class_of_a_part(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{part}/{c}*2" for part in ("train", "val") for c in ("bus", "train")))
    assert find_images(tmp_path, 0).classes == ("bus", "train")


def test_a_class_beside_one_that_is_deeper(tmp_path: Path) -> None:
    layout(tmp_path, "invalid/2019*5", "valid/2019*5")
    assert find_images(tmp_path, 0).classes == ("invalid", "valid")


@pytest.mark.parametrize(
    ("paths", "kind", "words"),
    [
        (
            ["train*3", "test*3"],
            diagnostics.UnsortedParts,
            "D` hold images and no class folders: test/,",
        ),
        (["train*3"], diagnostics.UnsortedParts, "no class folders: train/"),
        (
            ["trainA*2", "trainB*2", "testA*2"],
            diagnostics.UnsortedParts,
            "folders: testA/, trainA/",
        ),
        (["train/cat*2", "val*3"], diagnostics.UselessPart, "val` is called as a part to hold out"),
        (["train/cat*2", "valid/"], diagnostics.UselessPart, "and holds no images"),
        (
            ["train/cat*2", "val/cat*1", "valid/cat*1"],
            diagnostics.TwoForOne,
            "may be the one held out: val/, valid/",
        ),
        (
            ["train/a*1", "Training/a*1"],
            diagnostics.TwoForOne,
            "the one to train on: Training/, train/",
        ),
        (["trainval/a*1", "val/a*1"], diagnostics.TwoForOne, "held out: trainval/, val/"),
        (["val/cat*1", "test/cat*1"], diagnostics.NoTrainingPart, "there is test/, val/"),
        (["train*2", "val/cat*1"], diagnostics.NoTrainingPart, "train/ holds images and no class"),
        (["train/", "val/cat*1"], diagnostics.NoTrainingPart, "train/ holds no images"),
        (
            ["train/steam*1", "plane*1"],
            diagnostics.PartOrClass,
            "beside it plane/ hold images, too",
        ),
        (["train/cat*1", "wersja/cat*1"], diagnostics.PartOrClass, "train` may be a part"),
        (
            ["cat/train*2", "cat/test*1", "dog/train*2", "dog/test*1", "dog/more*1"],
            diagnostics.PartsInClasses,
            "the folders in `D` hold parts: test, train",
        ),
        (
            ["cat/train*2", "cat/test*1", "dog/train*2", "dog/valid*1", "owl/train*1"],
            diagnostics.PartsInClasses,
            "the folders in `D` hold parts: test, train, valid",
        ),
        (
            ["images/train*2", "images/val*1", "labels/"],
            diagnostics.PartsInClasses,
            "--data D/images",
        ),
        (
            ["learn/cat*2", "learn/dog*2", "test/cat*1", "test/dog*1"],
            diagnostics.PartOrClass,
            "test` may be a part of the images or a class",
        ),
        (
            ["cat*1", "dog*1", "validation/cat*1", "validation/dog*1"],
            diagnostics.PartAmongClasses,
            "validation` lies beside class folders and holds folders of the same names: cat, dog",
        ),
    ],
)
def test_where_it_cannot_be_told_nothing_is_guessed(
    tmp_path: Path, paths: list[str], kind: type[Diagnostic], words: str
) -> None:
    found = mistake(layout(tmp_path, *paths))
    assert type(found) is kind
    assert words in render(found).replace(str(tmp_path), "D")


def test_folders_that_look_like_parts_of_other_names_are_pointed_out(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{part}/{c}*5" for part in ("fold1", "fold2") for c in ("cat", "dog")))
    images = find_images(tmp_path, 0)
    assert images.classes == ("fold1", "fold2")
    assert told(tmp_path, images) == [
        "All folders in D hold folders called cat, dog. If those are the classes, call the others "
        "as parts are: train/ and val/."
    ]


def test_a_folder_around_the_classes_is_pointed_out(tmp_path: Path) -> None:
    found = mistake(layout(tmp_path, "photos/cat*2", "photos/dog*2"))
    assert isinstance(found, diagnostics.OnlyOneClass)
    assert f"`--data {tmp_path}/photos`" in render(found)


def test_a_table_beside_images_of_one_class_that_annotates_nothing_is_named(
    tmp_path: Path,
) -> None:
    layout(tmp_path, "images*4")
    (tmp_path / "boxes.csv").write_text("ImageID,Somewhere\n0,1\n")
    assert "annotations, and `boxes.csv` is none in a form" in render(mistake(tmp_path))


# Classes of one part only


def test_a_held_out_part_may_lack_classes(tmp_path: Path) -> None:
    """Its labels are the numbers that the classes have in training."""
    layout(tmp_path, "train/ant*2", "train/cat*2", "train/dog*2", "val/dog*1", "val/ant/")
    images = find_images(tmp_path, 0)
    assert (images.classes, images.val.labels.tolist()) == (("ant", "cat", "dog"), [2])
    assert told(tmp_path, images)[1:] == ["val/ has no images of ant, cat."]
    assert [(each.part, each.name) for each in images.skipped] == [("val", "ant/")]


def test_a_class_that_is_only_held_out_is_refused(tmp_path: Path) -> None:
    layout(tmp_path, "train/cat*2", "train/dog*2", "train/fox/", "val/dog*1", "val/fox*1")
    found = mistake(tmp_path)
    assert isinstance(found, diagnostics.ClassesDiffer)
    assert (found.other, found.names, found.known) == ("val/", "fox", "cat, dog")


# Shards


def write_shard(path: Path, *classes: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(classes):
            content = io.BytesIO()
            Image.fromarray(picture(number, number)).save(content, "PNG")
            for ending, data in (("png", content.getvalue()), ("cls", name.encode())):
                about = tarfile.TarInfo(f"{number}.{ending}")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train-0000", "valid-0000"),
        ("train-0000", "validation-0000"),
        ("Train_0", "Test_0"),
        ("imagenet-train-000000-of-000001", "imagenet-val-000000-of-000001"),
        ("training", "dev"),
    ],
)
def test_shards_have_parts_by_their_names(tmp_path: Path, train: str, val: str) -> None:
    write_shard(tmp_path / f"{train}.tar", "cat", "dog", "cat")
    write_shard(tmp_path / f"{val}.tar", "dog")
    (tmp_path / "logs").mkdir()
    images = find_images(tmp_path, 0)
    assert (images.classes, len(images.train)) == (("cat", "dog"), 3)
    assert images.val.labels.tolist() == [1]


def test_shards_that_are_not_used_are_named(tmp_path: Path) -> None:
    for name in ("train-0", "val-0", "test-0", "test-1", "more"):
        write_shard(tmp_path / f"{name}.tar", "cat", "dog")
    images = find_images(tmp_path, 0)
    assert (len(images.train), len(images.val)) == (2, 2)
    assert told(tmp_path, images) == [
        "In D, train-0.tar is trained on and val-0.tar held out.",
        "test-0.tar to test-1.tar is not used in training: "
        "`vggc eval RUN --data 'D/test-{0..1}.tar'` measures on it.",
        "Left out, since no part is called so: more.tar.",
    ]


@pytest.mark.parametrize(
    ("shards", "kind"),
    [
        (["0", "1", "val-0"], diagnostics.NoTrainingPart),
        (["val-0", "test-0"], diagnostics.NoTrainingPart),
        (["train-0", "val-0", "valid-0"], diagnostics.TwoForOne),
    ],
)
def test_shards_of_which_nothing_can_be_told(
    tmp_path: Path, shards: list[str], kind: type[Diagnostic]
) -> None:
    for name in shards:
        write_shard(tmp_path / f"{name}.tar", "cat", "dog")
    assert type(mistake(tmp_path)) is kind


def test_some_shards_have_a_pattern_that_means_just_them() -> None:
    assert pattern_of(["a/test-08.tar", "a/test-09.tar", "a/test-10.tar"]) == "a/test-{08..10}.tar"
    assert pattern_of(["t-0-of-2.tar", "t-1-of-2.tar"]) == "t-{0..1}-of-2.tar"
    assert pattern_of(["t-1.tar", "t-3.tar"]) is None
    assert pattern_of(["t-a.tar", "t-b.tar"]) is None


# With --val


def test_a_place_with_one_part_only_goes_with_another_place(tmp_path: Path) -> None:
    layout(tmp_path, "a/train/cat*2", "a/train/dog*2", "b/test/cat*1")
    images = find_images(tmp_path / "a", 0, tmp_path / "b")
    assert (images.classes, len(images.train), len(images.val)) == (("cat", "dog"), 4, 1)
    assert told(tmp_path, images) == ["D/b has no images of dog."]
    layout(tmp_path, "a/val/cat*1")
    found = mistake(tmp_path / "a", tmp_path / "b")
    assert isinstance(found, diagnostics.HeldOutTwice)
    assert found.names == "train/, val/"
