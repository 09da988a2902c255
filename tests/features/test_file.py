"""The file of features: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.support.features import PROVENANCE, table
from vggc.features.file import ENDINGS, check_ending, write_table
from vggc.features.read import read_features
from vggc.support.diagnostics import UserError

NAMES = ("red/1.png", "grün/2.png", "caf\udce9.png")
"""The last one's file has a name that is no UTF-8."""


def written(path: Path, **more: object) -> Path:
    with path.open("wb") as file:
        write_table(file, table(NAMES, **more), path.suffix)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_what_is_read(tmp_path: Path, ending: str) -> None:
    shown = np.array([[1, 0], [0, 1], [-1, 1]], np.int8)
    found = read_features(written(tmp_path / f"f{ending}", multilabels=shown))
    assert found.values.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 0]
    assert found.multilabels is not None
    assert (found.multilabels == shown).all()
    assert found.names is not None
    assert [each.decode("utf-8", "surrogateescape") for each in found.names] == [*NAMES]
    assert found.parts is not None
    assert found.parts.tolist() == [b"train", b"train", b"test"]
    assert found.classes == ("a", "größer")
    assert found.provenance == PROVENANCE
    assert "tiny fc7, 256" in found.shown


def test_whoever_has_numpy_reads_an_npz_without_pickle(tmp_path: Path) -> None:
    with np.load(written(tmp_path / "f.npz"), allow_pickle=False) as found:
        assert found["features"].dtype == np.float32
        assert found["names"].tolist() == [*NAMES]
        assert found["classes"].tolist() == ["a", "größer"]
        assert json.loads(str(found["provenance"]))["net"] == "tiny"


def test_whoever_has_safetensors_reads_the_other(tmp_path: Path) -> None:
    with safe_open(written(tmp_path / "f.safetensors"), "np") as file:
        assert json.loads(file.metadata()["features"])["net"] == "tiny"
        classes = file.get_tensor("classes")
        assert classes.view(f"S{classes.shape[1]}").ravel()[1].decode() == "größer"


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_features_make_the_same_file(tmp_path: Path, ending: str) -> None:
    first, second = (written(tmp_path / f"{name}{ending}").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("name", ["f", "f.npy", "f.safetensor", "f.csv"])
def test_the_end_of_a_name_tells_the_kind(name: str) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        check_ending(Path(name))


# Files of others


def good() -> dict[str, np.ndarray]:
    return {"features": np.eye(4, 3, dtype=np.float32), "labels": np.array([0, 1, 1, 0])}


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_features_and_labels_are_enough(tmp_path: Path, ending: str, kind: type) -> None:
    arrays = good() | {"features": good()["features"].astype(kind)}
    found = read_features(save(tmp_path / f"f{ending}", arrays))
    assert found.values.dtype == np.float32
    assert found.classes == ("0", "1")
    assert (found.names, found.parts, found.provenance) == (None, None, None)


def without(name: str) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda arrays: arrays.pop(name)


def changed(name: str, value: np.ndarray) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda arrays: arrays.update({name: value})


BAD = {
    "no features": (without("features"), "no `features`"),
    "no labels": (without("labels"), "neither `labels` nor"),
    "NaN": (changed("features", np.array([[0, 1], [np.nan, 2]] * 2, np.float32)), "row 1 are not"),
    "whole numbers": (changed("features", np.eye(4, dtype=np.int32)), "its `features` is int32"),
    "a vector": (changed("features", np.zeros(4, np.float32)), "its `features` is float32 of 4"),
    "nothing": (changed("features", np.zeros((0, 3), np.float32)), "0×3: nothing"),
    "other labels": (changed("labels", np.array([0, 1])), "its `labels` is int64 of 2 for 4"),
    "a label below": (changed("labels", np.array([0, -1, 0, 1])), "not all from 0 to 1"),
    "a label of millions": (changed("labels", np.array([0, 1, 2, 10**9])), "names no classes"),
    "other names": (changed("names", np.zeros((3, 5), np.uint8)), "its `names` is uint8 of 3×5"),
    "few classes": (changed("classes", np.zeros((1, 5), np.uint8)), "not all from 0 to 0"),
    "multilabels of nothing": (changed("multilabels", np.zeros((4, 0), np.int8)), "of 0 classes"),
    "other multilabels": (changed("multilabels", np.full((4, 2), 3, np.int8)), "not all 1, 0 or"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("case", BAD)
def test_what_is_none_is_refused_with_the_reason(tmp_path: Path, ending: str, case: str) -> None:
    change, reason = BAD[case]
    arrays = good()
    change(arrays)
    with pytest.raises(UserError) as found:
        read_features(save(tmp_path / f"f{ending}", arrays))
    assert reason in str(found.value)


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", good() | {"names": np.array([{}, [], "", None], object)})
    with pytest.raises(UserError, match="is not a plain array"):
        read_features(path)


def test_texts_of_no_characters_are_refused(tmp_path: Path) -> None:
    names = np.full(4, 2**32 - 1, np.uint32).view("<U1")
    for name in ("names", "classes"):
        with pytest.raises(UserError, match="is no text"):
            read_features(save(tmp_path / "f.npz", good() | {name: names}))


def test_a_shape_of_truths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("features.npy", "w") as place:
        described = {"descr": "<f4", "fortran_order": False, "shape": (True, 2)}
        np.lib.format.write_array_header_1_0(place, described)
        place.write(bytes(8))
    with pytest.raises(UserError, match="has a shape that is none"):
        read_features(path)


def test_numbers_beyond_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    arrays = good() | {"features": np.full((4, 3), 1e300)}
    path = save(tmp_path / "f.npz", arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="row 0 are not all finite"):
            read_features(path)


def test_a_file_called_npz_that_is_none_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    path.write_bytes(pickle.dumps(good()))
    with pytest.raises(UserError, match="it is no "):
        read_features(path)


def test_a_provenance_in_words_of_others_is_let_be(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", good() | {"provenance": np.array("a camera")})
    assert read_features(path).provenance is None
    save(path, good() | {"provenance": np.array('{"format": 1}')})
    with pytest.raises(UserError, match="how it came about, batch is missing"):
        read_features(path)


def test_compressed_arrays_are_refused_before_they_unfold(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez_compressed(path, **good())
    with pytest.raises(UserError, match="is compressed"):
        read_features(path)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("features.npy", "w") as place:
        described = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4096)}
        np.lib.format.write_array_header_1_0(place, described)
    with pytest.raises(UserError, match="is not as long as it says"):
        read_features(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_file_is_refused_wherever_the_damage_is(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"f{ending}")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is no file of features"):
            read_features(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nosuch.npz"):
        with pytest.raises(UserError, match="is no file of features"):
            read_features(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_bytes_are_changed_it_is_read_or_refused(tmp_path: Path, ending: str) -> None:
    whole = written(tmp_path / f"f{ending}").read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / f"g{ending}"
    for _ in range(400):
        changed = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        path.write_bytes(changed)
        with suppress(UserError):
            read_features(path)
