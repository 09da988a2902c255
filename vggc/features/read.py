"""Features read from a file, whoever wrote it; hostile until they are checked."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.stores import Numbers
from vggc.data.strings import CODEC, ERRORS
from vggc.features import diagnostics
from vggc.features.file import ABOUT, METADATA, Provenance
from vggc.ir.weights import all_finite
from vggc.support.diagnostics import UserError, first_line, listed
from vggc.support.memory import memory
from vggc.support.paths import absence, is_file
from vggc.support.records import from_json
from vggc.support.tensors import DTYPES, FLOATS, PIECE, TensorFile, opened
from vggc_runtime.files import open_file
from vggc_runtime.json_file import MalformedError, parsed_json

MOST_MEMBERS = 64
MOST_HEADER = 10_000
"""The most arrays in an .npz, and bytes of what describes one."""
MOST_CLASSES = 1_000_000

Texts: TypeAlias = npt.NDArray[np.bytes_]
"""Texts in UTF-8."""


@dataclass(frozen=True)
class Features:
    """The features of N pictures, (N, D), as a file holds them; what it may lack is None.

    There are `labels` (N,) or `multilabels` (N, C), or both. Without names for them, classes are
    called by their numbers.
    """

    path: Path
    values: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    labels: Numbers | None
    multilabels: npt.NDArray[np.int8] | None
    names: Texts | None
    parts: Texts | None
    provenance: Provenance | None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shown(self) -> str:
        """What the features are of, in words: the net, its layers and their scales."""
        about = self.provenance
        if about is None:
            return self.path.name
        layers = ", ".join(dict.fromkeys(each.layer for each in about.columns))
        return f"{about.net} {layers}, {scales_shown(about)}"


def scales_shown(about: Provenance) -> str:
    """The scales of features in words, and what became of several."""
    scales = dict.fromkeys(scale for each in about.columns for scale in each.scales)
    told = ", ".join(str(scale or "covering the input") for scale in scales)
    return f"{told} ({about.combine})" if len(scales) > 1 else told


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, known before it is read."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[Any]]


def read_features(path: Path) -> Features:
    """The features in a file, whoever wrote it, checked.

    Raises:
        UserError: it is no such file, is damaged, or would not fit into memory.
    """
    if not is_file(path):
        raise UserError(diagnostics.NoFeatures(str(path), absence(path)))
    try:
        with stored(path) as (arrays, told):
            return checked(path, arrays, told)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(diagnostics.NoFeatures(str(path), reason)) from None
    except MalformedError as fault:
        raise UserError(diagnostics.NoFeatures(str(path), str(fault))) from None


@contextmanager
def stored(path: Path) -> Iterator[tuple[Mapping[str, StoredArray], str | None]]:
    """The arrays in a file, and its provenance as JSON if it has one.

    Raises: MalformedError or OSError, as `read_features` tells them; UserError where the file is
    larger than memory.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        is_zip = file.read(2) == b"PK"
        if size > memory():
            raise UserError(diagnostics.FeaturesTooLarge(str(path), size / 1e9, memory() / 1e9))
        if is_zip:
            with npz_arrays(file, size) as arrays:
                about = arrays.get(ABOUT)
                has_text = about is not None and about.dtype.kind == "U" and about.shape == ()
                yield arrays, str(about.read()) if about and has_text else None
            return
        if path.suffix == ".npz":
            raise MalformedError("it is no .npz")
    with opened(path) as tensors:
        yield tensor_arrays(tensors), tensors.metadata.get(METADATA)


def tensor_arrays(file: TensorFile) -> dict[str, StoredArray]:
    """The arrays of a safetensors file; floats of any kind are read as float32."""
    found = {}
    for name, each in file.tensors.items():
        is_float = each.kind in FLOATS
        dtype = "<f4" if is_float else DTYPES.get(each.kind, "V1")
        read = partial(file.floats if is_float else file.read, name)
        found[name] = StoredArray(np.dtype(dtype), each.shape, read)
    return found


@contextmanager
def npz_arrays(file: BinaryIO, size: int) -> Iterator[dict[str, StoredArray]]:
    """The arrays of an .npz, each of which says truly how long it is.

    Raises: MalformedError where one does not, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS:
                raise MalformedError(f"it holds {len(members):,} arrays")
            yield {
                each.filename.removesuffix(".npy"): npz_array(archive, each, size)
                for each in members
            }
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as fault:
        raise MalformedError(f"it is no sound .npz: {first_line(fault)}") from None


def npz_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> StoredArray:
    """An array of an .npz, of which the header alone is read.

    Raises: MalformedError where it is compressed, or is no array of its length.
    """
    name = member.filename
    if member.compress_type != zipfile.ZIP_STORED:
        raise MalformedError(f"its {name} is compressed: save it by numpy.savez")
    with archive.open(member) as place:
        version = np.lib.format.read_magic(place)
        if version not in HEADERS:
            raise MalformedError(f"its {name} is in numpy's format {version[0]}.{version[1]}")
        shape, by_columns, dtype = HEADERS[version](place, MOST_HEADER)
        start = place.tell()
    if dtype.hasobject or dtype.fields or by_columns:
        raise MalformedError(f"its {name} is not a plain array, row by row")
    if bool in map(type, shape):  # which numpy lets pass as whole numbers
        raise MalformedError(f"its {name} has a shape that is none")
    length = dtype.itemsize * prod(shape)
    if not (min(shape, default=0) >= 0 and start + length == member.file_size <= size):
        raise MalformedError(f"its {name} is not as long as it says")

    def read() -> npt.NDArray[Any]:
        whole = np.empty(length, np.uint8)
        with archive.open(member) as place:
            place.read(start)
            done = 0
            while done < length:
                piece = place.read(min(PIECE, length - done))
                if not piece:
                    raise MalformedError(f"its {name} ends too soon")
                whole[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                done += len(piece)
            if place.read(1):  # beyond the last byte the sum over all is checked
                raise MalformedError(f"its {name} is longer than it says")
        if dtype.kind == "U" and not all_characters(whole, dtype):
            raise MalformedError(f"its {name} is no text")
        return whole.view(dtype).reshape(shape) if length else np.empty(shape, dtype)

    return StoredArray(dtype, shape, read)


def all_characters(whole: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> bool:
    """Whether the bytes of numpy's texts are of characters that there are: others numpy holds, and
    Python fails at.
    """
    numbers = whole.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
    return bool((numbers <= sys.maxunicode).all())


HEADERS: Mapping[tuple[int, int], Callable[[Any, int], tuple[tuple[int, ...], bool, Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads an array's header, by the version of numpy's format. It evaluates nothing."""


# Checked


def checked(path: Path, arrays: Mapping[str, StoredArray], told: str | None) -> Features:
    """The features that these arrays are.

    Raises: MalformedError where they are none.
    """
    values = wanted(arrays, "features", "f", 2)
    if values is None:
        raise MalformedError(f"it has no `features`, but {listed(tuple(arrays)) or 'nothing'}")
    count, width = values.shape
    if not (count and width):
        raise MalformedError(f"its features are {count}×{width}: nothing")
    columns = {
        name: wanted(arrays, name, kinds, dimensions, count)
        for name, kinds, dimensions in (("labels", "iu", 1), ("multilabels", "iu", 2))
    }
    if not any(columns.values()):
        raise MalformedError("it has neither `labels` nor `multilabels`")
    labels = whole_numbers(columns["labels"])
    multilabels = whole_numbers(columns["multilabels"])
    classes = class_names(text_of(arrays, "classes"), labels, multilabels)
    require_labels(labels, multilabels, len(classes))
    with np.errstate(over="ignore"):  # refused in the next line
        features = values.read().astype(np.float32, copy=False)
    if not all_finite(features):
        row = int(np.isfinite(features).all(1).argmin())
        raise MalformedError(f"the features in its row {row:,} are not all finite")
    return Features(
        path=path,
        values=features,
        classes=classes,
        labels=labels,
        multilabels=None if multilabels is None else multilabels.astype(np.int8),
        names=text_of(arrays, "names", count),
        parts=text_of(arrays, "parts", count),
        provenance=provenance_in(told),
    )


def wanted(
    arrays: Mapping[str, StoredArray],
    name: str,
    kinds: str,
    dimensions: int,
    count: int | None = None,
) -> StoredArray | None:
    """An array by its name, of one of some kinds of elements, with so many rows; None where there
    is none of the name.

    Raises: MalformedError where there is another one.
    """
    found = arrays.get(name)
    if found is None:
        return None
    fits = found.dtype.kind in kinds and len(found.shape) == dimensions
    if not fits or (count is not None and found.shape[0] != count):
        shape = "×".join(map(str, found.shape)) or "one value"
        rows = "" if count is None else f" for {count:,} pictures"
        raise MalformedError(f"its `{name}` is {found.dtype} of {shape}{rows}")
    return found


def whole_numbers(found: StoredArray | None) -> Numbers | None:
    """An array of whole numbers in int64."""
    return None if found is None else found.read().astype(np.int64)


def text_of(arrays: Mapping[str, StoredArray], name: str, count: int | None = None) -> Texts | None:
    """An array of texts, as either kind of file holds it; None where there is none.

    Raises: MalformedError where it is none of texts, or of another number.
    """
    if name not in arrays:
        return None
    if arrays[name].dtype.kind in "US":
        found = wanted(arrays, name, "US", 1, count)
        assert found is not None
        texts = found.read()
        return np.char.encode(texts, CODEC, ERRORS) if texts.dtype.kind == "U" else texts
    found = wanted(arrays, name, "u", 2, count)
    assert found is not None
    rows, width = found.shape
    if found.dtype.itemsize != 1 or not width:
        raise MalformedError(f"its `{name}` is {found.dtype}, not text in UTF-8")
    return found.read().view(f"S{width}").reshape(rows)


def class_names(
    texts: Texts | None, labels: Numbers | None, multilabels: Numbers | None
) -> tuple[str, ...]:
    """The names of the classes; their numbers where nobody names them."""
    if texts is not None:
        return tuple(text.decode(CODEC, ERRORS) for text in texts.tolist())
    count = multilabels.shape[1] if multilabels is not None else 0
    if labels is not None and len(labels):
        count = max(count, int(labels.max()) + 1)
    if count > MOST_CLASSES:
        raise MalformedError(f"its labels run to {count - 1:,}, and it names no classes")
    return tuple(map(str, range(count)))


def require_labels(labels: Numbers | None, multilabels: Numbers | None, count: int) -> None:
    """Raises: MalformedError where labels are none of so many classes, or are none at all."""
    if labels is not None and not ((labels >= 0) & (labels < count)).all():
        raise MalformedError(f"its labels are not all from 0 to {count - 1:,}, its classes")
    if multilabels is None:
        return
    if not count:
        raise MalformedError("its multilabels are of no class")
    if multilabels.shape[1] != count:
        raise MalformedError(f"its multilabels are of {multilabels.shape[1]} classes, not {count}")
    if not np.isin(multilabels, (-1, 0, 1)).all():
        raise MalformedError("its multilabels are not all 1, 0 or -1")


def provenance_in(told: str | None) -> Provenance | None:
    """How features came about; None where a file does not say, or says it in words of its own.

    Raises: MalformedError where it says what cannot be.
    """
    if told is None:
        return None
    try:
        value = parsed_json(told.encode(CODEC, ERRORS))
    except MalformedError:
        return None
    if not (isinstance(value, dict) and value.get("format") == 1):
        return None
    try:
        found = from_json(Provenance, value)
    except MalformedError as fault:
        raise MalformedError(f"where it says how it came about, {fault}") from None
    if not found.columns:
        raise MalformedError("it has columns of no layer")
    return found
