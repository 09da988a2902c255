"""A precision has one name; older words for it are read from options and files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from vggc import __version__
from vggc.runtime.artifact import (
    FILES,
    ArtifactEntry,
    InputSize,
    Manifest,
    Target,
    read_manifest,
)
from vggc.support.diagnostics import UserError
from vggc.support.precision import (
    ARTIFACT_PRECISIONS,
    NUMBER_BYTES,
    SPELLINGS,
    TRAIN_PRECISIONS,
    Precision,
    TrainPrecision,
    parse_precision,
)
from vggc.support.records import from_json, to_json
from vggc.training.run import RunRecord
from vggc_runtime.json_file import MalformedError
from vggc_runtime.manifest import FORMAT, FORMAT_VERSION, FileEntry
from vggc_runtime.outputs import Output
from vggc_runtime.preprocessing import Preprocessing

MANIFEST = Manifest(
    format=FORMAT,
    format_version=FORMAT_VERSION,
    vggc=__version__,
    tvm="0",
    net="tiny",
    target=Target("cpu", "cpu", {"kind": "llvm"}),
    precision="bfloat16",
    sizes=(InputSize((3, 8, 8), (Output("output", "classes", (2,)),)),),
    preprocessing=Preprocessing((8, 8), None, (0.45,) * 3, (0.25,) * 3),
    classes=("cat", "dog"),
    weights_from="seed 0",
    float32_sha256="",
    weights={},
    entries=(ArtifactEntry(1, (8, 8), ()),),
    files={name: FileEntry("", 0) for name in FILES},
)


def test_every_precision_has_one_name() -> None:
    assert {*TRAIN_PRECISIONS, *ARTIFACT_PRECISIONS} == set(get_args(Precision)) == {*NUMBER_BYTES}
    assert not SPELLINGS.keys() & NUMBER_BYTES.keys()


@pytest.mark.parametrize(
    ("text", "name"), [("bf16", "bfloat16"), ("BF16", "bfloat16"), ("fp32", "float32")]
)
def test_an_option_takes_other_words(text: str, name: str) -> None:
    assert parse_precision(text, ARTIFACT_PRECISIONS) == name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("bf61", "did you mean `bfloat16`?"),
        ("fp8", "known: `float32`, `tf32`, `bfloat16`, `float16`, `int8`"),
    ],
)
def test_another_word_is_refused_with_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_precision(text, ARTIFACT_PRECISIONS)
    assert hint in str(caught.value)


@dataclass(frozen=True)
class Record:
    precision: TrainPrecision
    note: str = ""


@pytest.mark.parametrize(("written", "read"), [("fp32", "float32"), ("float16", "float16")])
def test_a_record_may_hold_an_older_word(written: str, read: str) -> None:
    assert from_json(Record, {"precision": written}).precision == read
    assert get_type_hints(RunRecord)["precision"] == TrainPrecision


@pytest.mark.parametrize("written", ["int8", "fp8", 32])
def test_a_record_holds_no_other_word(written: object) -> None:
    with pytest.raises(MalformedError):
        from_json(Record, {"precision": written})


def test_words_elsewhere_in_a_record_stay() -> None:
    assert from_json(Record, {"precision": "bf16", "note": "bf16"}) == Record("bfloat16", "bf16")


def test_a_manifest_written_with_an_older_word_is_whole(tmp_path: Path) -> None:
    older = to_json(MANIFEST) | {"precision": "bf16"}
    older["sha256"] = hashlib.sha256(json.dumps(older).encode()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(older))
    manifest = read_manifest(tmp_path)
    assert replace(manifest, sha256="") == MANIFEST


def test_a_manifest_whose_precision_was_changed_is_not(tmp_path: Path) -> None:
    changed = to_json(replace(MANIFEST, sha256=MANIFEST.digest)) | {"precision": "int8"}
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="is not the file that was compiled"):
        read_manifest(tmp_path)
