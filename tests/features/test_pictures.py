"""Which pictures features are of, and what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.cifar_files import LAYOUTS, files_of, write_folder
from tests.support.training_data import part, write_images
from vggc.data import cifar
from vggc.data.objects import Objects, PictureObjects
from vggc.data.parts import Part
from vggc.features.labels import multilabels_of
from vggc.features.pictures import pictures_at
from vggc.support.diagnostics import UserError


def shape(place: Path) -> list[tuple[str, int]]:
    return [(each.role, len(each.part)) for each in pictures_at(str(place)).parts]


def test_a_place_gives_all_its_parts_with_the_classes_of_all(tmp_path: Path) -> None:
    write_images(tmp_path / "valid", ("b", "c"), 2)
    write_images(tmp_path / "train", ("a", "b"), 3)
    write_images(tmp_path / "test", ("d",), 1)
    found = pictures_at(str(tmp_path))
    assert shape(tmp_path) == [("train", 6), ("val", 4), ("test", 1)]
    assert found.classes == ("a", "b", "c", "d")
    assert found.parts[1].part.labels.tolist() == [1, 1, 2, 2]
    assert [len(each.part) for each in pictures_at(str(tmp_path), "test").parts] == [1]


def test_a_place_without_parts_has_one_without_a_name(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b"), 3)
    assert shape(tmp_path) == [("", 6)]
    with pytest.raises(UserError, match="has no part"):
        pictures_at(str(tmp_path), "train")


def test_cifar_has_a_part_to_train_on_and_one_to_test_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "LAYOUTS", LAYOUTS)
    layout = LAYOUTS[0]
    write_folder(tmp_path / layout.folder, files_of(layout))
    assert shape(tmp_path / layout.folder) == [("train", 100), ("test", 15)]


# What they show


def objects(*pictures: list[tuple[int, bool]]) -> Objects:
    """Objects of these classes in each picture, which are difficult or not."""
    return Objects.of(
        PictureObjects(
            np.zeros((len(each), 4)),
            np.array([number for number, _ in each], np.int64),
            np.array([hard for _, hard in each], bool),
        )
        for each in pictures
    )


def with_objects(whole: Part, found: Objects | None) -> Part:
    return Part(whole.store, whole.numbers, whole.labels, found)


def test_a_picture_shows_the_classes_of_its_objects() -> None:
    shown = objects([(0, False), (2, False), (2, True)], [(1, True)], [])
    first = with_objects(part(1), shown)
    found = multilabels_of([first, part(1)], 3)
    assert found is not None
    assert found.dtype == np.int8
    assert found.tolist() == [[1, 0, 1], [0, -1, 0], [0, 0, 0], *np.eye(3).tolist()]


def test_pictures_without_objects_show_one_class_each() -> None:
    assert multilabels_of([part(2)], 3) is None
