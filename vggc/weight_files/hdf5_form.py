"""Weights in files of Keras, which are HDF5: `.h5` and `.hdf5` of Keras 1 and 2, and of Keras 3
`.weights.h5`, and `.keras`, a zip archive with such a file in it.

HDF5 can hold links to other files, values in other files, tables without an end and groups in a
circle: whatever is no plain table of numbers in the file itself is refused by its name. A damaged
list of names may have HDF5 make room for 4 GiB, or look for seconds, and neither can be seen
beforehand: `hdf5_look.py` looks at a file first, in a process of its own that has little of both.
Kernels of convolutions are stored as (rows, columns, in, out), those of dense layers as (in, out).

Sources: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py of Keras 3.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import h5py
import numpy as np
from numpy.typing import NDArray

from vggc.ir.ops import Shape
from vggc.support.diagnostics import first_line
from vggc.weight_files.weight_file import (
    KERAS_WEIGHTS,
    MOST_DIMENSIONS,
    MOST_TENSORS,
    FileTensor,
    WeightFile,
)
from vggc_runtime.json_file import MalformedError

LOCAL_HEADER = 30
"""Bytes of what stands before a file in a zip archive, beside its name and extra fields."""

DEEPEST = 16
"""How many groups within one another are looked into."""
MOST_NAMES = 1 << 13
"""The most layers, and the most weights of one, in files of Keras 1 and 2."""
REFUSED = 3
"""How the process ends that looks at a file and finds it wrong; it prints the reason."""
TOO_MUCH = "it is damaged: looking at what it lists takes more time or memory than names need"
SECONDS_TO_LOOK = 60
"""How long the process that looks at a file may take in all, on a machine that is busy."""
LARGEST_CHUNK = 1 << 26
"""Bytes of a compressed part that is unpacked at once, unless its table is as large."""

ROLES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "pointwise_kernel": "weight",
    "W": "weight",
    "gamma": "weight",
    "alpha": "weight",
    "bias": "bias",
    "b": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "running_mean": "running_mean",
    "moving_variance": "running_var",
    "running_std": "running_var",
}
"""Our words for roles by those of Keras; Keras 1 calls the variance `running_std`."""
ROLE = re.compile(rf"(?:.*?[/_])??({'|'.join(ROLES)})(?:_\d+)?(?::0)?", re.DOTALL)
"""A name of a weight: `fc1_W_1:0` of Keras 1, `fc1/kernel:0` of Keras 2."""

BY_NUMBER = {1: ("weight",), 2: ("weight", "bias")}
NORMALISATION = ("weight", "bias", "running_mean", "running_var")
"""The roles of a layer's weights where they are numbered only, as in Keras 3."""


@dataclass(frozen=True)
class _Table:
    """A table of numbers in a file, where it has been looked at, and how its axes become ours."""

    data: Any
    axes: tuple[int, ...]
    shape: Shape

    def read(self) -> NDArray[np.float32]:
        """The values in our order of axes."""
        values = np.empty(self.data.shape, np.float32)
        with np.errstate(over="ignore"):
            self.data.read_direct(values)
        return np.ascontiguousarray(values.transpose(self.axes)).reshape(self.shape)


class Stretch(io.RawIOBase):
    """A part of a file as a file: what lies in an archive uncompressed."""

    def __init__(self, file: BufferedReader, start: int, size: int) -> None:
        self.file, self.start, self.size, self.place = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = max(0, base + offset)
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, room: Any) -> int:
        view = memoryview(room).cast("B")
        view = view[: max(0, min(len(view), self.size - self.place))]
        self.file.seek(self.start + self.place)
        count = self.file.readinto(view)
        self.place += count
        return count


@contextmanager
def opened_archive(file: BufferedReader, archive: ZipFile) -> Iterator[WeightFile]:
    """The weights in a `.keras` archive.

    Raises: MalformedError where it is damaged, or of a form that Keras does not write.
    """
    info = archive.getinfo(KERAS_WEIGHTS)
    if info.compress_type != ZIP_STORED or info.flag_bits & 1:
        raise MalformedError(f"{KERAS_WEIGHTS} is compressed in it, which Keras does not do")
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER:
        raise MalformedError("it is damaged")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    part = Stretch(file, info.header_offset + LOCAL_HEADER + names, info.file_size)
    with opened_hdf5(part) as found:
        yield found


@contextmanager
def opened_hdf5(file: BufferedReader | Stretch) -> Iterator[WeightFile]:
    """The weights in an open HDF5 file of Keras.

    Raises: MalformedError where it is damaged, holds what Keras does not write, or no weights.
    """
    _require_harmless(file)
    with explained():
        hdf5 = h5py.File(file, "r")
    with hdf5:
        found, is_old = tables_in(hdf5)
        if not found:
            raise MalformedError("it holds no weights of Keras")

        def reader(name: str) -> NDArray[np.float32]:
            with explained():
                return tables[name].read()

        tables = dict(found)
        if len(tables) < len(found):
            raise MalformedError("it has two weights of one name")
        told = {
            name: FileTensor(table.data.name, table.shape, str(table.data.dtype), _is_float(table))
            for name, table in found
        }
        yield WeightFile(
            form="HDF5 of Keras",
            tensors=told,
            reader=reader,
            in_order=is_old,
            flat_order="HWC",
        )


def tables_in(hdf5: Any) -> tuple[list[tuple[str, _Table]], bool]:
    """The tables of weights in an HDF5 file by their names, and whether groups list them, as in
    files of Keras 1 and 2, in order.

    Raises: MalformedError where it is damaged, or holds what Keras does not write.
    """
    with explained():
        root = _child(hdf5, "model_weights") if "model_weights" in hdf5 else hdf5
        is_old = _attribute_names(root, "layer_names") is not None
        return (_by_layers(root) if is_old else _by_paths(root)), is_old


def _require_harmless(file: BufferedReader | Stretch) -> None:
    """Raises: MalformedError where looking at a file fails, or takes much time or memory."""
    part = file if isinstance(file, Stretch) else None
    whole = part.file if part else file
    number = whole.fileno()
    start, size = (part.start, part.size) if part else (0, -1)
    look = [sys.executable, "-m", "vggc.weight_files.hdf5_look", *map(str, (number, start, size))]
    folders = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            look,
            pass_fds=(number,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_TO_LOOK,
            env=os.environ | {"PYTHONPATH": folders},
        )
    except subprocess.TimeoutExpired:
        raise MalformedError(TOO_MUCH) from None
    if done.returncode == REFUSED:
        raise MalformedError(done.stdout.decode("utf-8", "replace").strip())
    if done.returncode:
        raise MalformedError(TOO_MUCH)


@contextmanager
def explained() -> Iterator[None]:
    """Raises: MalformedError for whatever h5py raises on a hostile file."""
    try:
        yield
    except MalformedError:
        raise
    except Exception as fault:
        raise MalformedError(f"HDF5 cannot read it: {first_line(fault)[:200]}") from None


def _is_float(table: _Table) -> bool:
    return bool(table.data.dtype.kind == "f" and table.data.dtype.itemsize <= 8)


def _by_layers(root: Any) -> list[tuple[str, _Table]]:
    """The weights of Keras 1 and 2, where groups say which weights they have, in order."""
    found = []
    for layer in _attribute_names(root, "layer_names") or ():
        group = _child(root, layer)
        names = _attribute_names(group, "weight_names") or ()
        roles = [_role(name) for name in names]
        is_separable = "pointwise_kernel" in roles
        for name, role in zip(names, roles, strict=True):
            data = group
            for part in name.split("/"):
                data = _child(data, part)
            step = ""
            if is_separable:  # which is two convolutions
                step = ".depthwise" if role == "depthwise_kernel" else ".pointwise"
            table = _table(data, role == "depthwise_kernel")
            found.append((f"{layer}{step}.{ROLES[role]}", table))
    return found


def _by_paths(root: Any) -> list[tuple[str, _Table]]:
    """The weights of Keras 3, where numbered ones lie in a group `vars` of each layer's."""
    found = []
    for path, group in _layers(root, "", (), [0]):
        tables = [_child(group, str(number)) for number in range(len(group))]
        roles = BY_NUMBER.get(len(tables), ())
        if len(tables) == len(NORMALISATION) and all(each.ndim == 1 for each in tables):
            roles = NORMALISATION
        if len(roles) != len(tables):
            raise MalformedError(f"its layer `{path}` has {len(tables)} weights of unknown roles")
        is_depthwise = "depthwise" in path
        found += [
            (f"{path.replace('/', '.')}.{role}", _table(data, is_depthwise))
            for role, data in zip(roles, tables, strict=True)
        ]
    return found


def _layers(
    group: Any, path: str, above: tuple[Any, ...], count: list[int]
) -> Iterator[tuple[str, Any]]:
    """The groups `vars` below a group that hold anything, with the path of the layer of each; the
    optimiser's are left out.
    """
    place = h5py.h5o.get_info(group.id).addr
    if place in above or len(above) > DEEPEST:
        raise MalformedError(f"its group `{path}` holds itself, or groups too deeply")
    for name in sorted(group):
        count[0] += 1
        if count[0] > MOST_TENSORS:
            raise MalformedError("it holds too many groups")
        if not path and name == "optimizer":
            continue
        child = _child(group, name)
        if not isinstance(child, h5py.Group):
            raise MalformedError(f"`{path}/{name}` stands where Keras writes no weights")
        if name == "vars":
            if len(child):
                yield path, child
        else:
            below = name if path in ("", "layers") and name != "layers" else f"{path}/{name}"
            yield from _layers(child, below.strip("/"), (*above, place), count)


def _child(group: Any, name: str) -> Any:
    """What a group holds itself under a name.

    Raises: MalformedError where it is not there, or a link to something else.
    """
    if not isinstance(group, h5py.Group) or not name or "/" in name or name == ".":
        raise MalformedError(f"its weight `{name[:100]}` is described wrongly")
    link = group.get(name, getlink=True)
    if link is None:
        raise MalformedError(f"its `{name[:100]}` is missing")
    if not isinstance(link, h5py.HardLink):
        raise MalformedError(f"its `{name[:100]}` is a link to another place")
    return group[name]


def _attribute_names(group: Any, key: str) -> tuple[str, ...] | None:
    """The names that an attribute lists, which is cut in numbered parts where it is long."""
    if not isinstance(group, h5py.Group):
        raise MalformedError(f"its layer `{group.name}` is no group")
    parts = [key] if key in group.attrs else []
    while f"{key}{len(parts)}" in group.attrs and key not in parts:
        parts.append(f"{key}{len(parts)}")
    if not parts:
        return None
    names: list[str] = []
    for part in parts:
        stored = group.attrs.get_id(part)
        count = prod(stored.shape)
        if len(names) + count > MOST_NAMES or count * stored.dtype.itemsize > LARGEST_CHUNK:
            raise MalformedError(f"its list {part} is too long")
        if count and h5py.check_string_dtype(stored.dtype) is None:
            raise MalformedError(f"its list {part} holds something else than names")
        names += map(_text, np.asarray(group.attrs[part]).reshape(-1).tolist())
    return tuple(names)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    raise MalformedError("its lists of names hold something else")


def _role(name: str) -> str:
    """Keras's word for the role of a weight: a key of `ROLES`."""
    found = ROLE.fullmatch(name)
    if found is None:
        raise MalformedError(f"the role of its weight `{name[:100]}` is unknown")
    return found[1]


def _table(data: Any, is_depthwise: bool) -> _Table:
    """A table of numbers that has been looked at.

    Raises: MalformedError where it is none, or its values lie elsewhere, or take more memory to
    unpack than they have.
    """
    name = getattr(data, "name", "?")
    is_plain = isinstance(data, h5py.Dataset) and data.shape is not None
    if not is_plain or data.dtype.kind not in "fiu":
        raise MalformedError(f"its `{name}` is no table of numbers")
    if len(data.shape) > MOST_DIMENSIONS:
        raise MalformedError(f"its `{name}` has too many axes")
    if data.external or data.is_virtual:
        raise MalformedError(f"the values of its `{name}` lie in other files")
    filters = data.id.get_create_plist()
    known = {  # others are libraries that HDF5 would load
        h5py.h5z.FILTER_DEFLATE,
        h5py.h5z.FILTER_SHUFFLE,
        h5py.h5z.FILTER_FLETCHER32,
    }
    known |= {h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SZIP}
    if any(filters.get_filter(i)[0] not in known for i in range(filters.get_nfilters())):
        raise MalformedError(f"its `{name}` is compressed in a way that HDF5 has not itself")
    whole = prod(data.shape) * data.dtype.itemsize
    chunk = prod(data.chunks or ()) * data.dtype.itemsize
    if chunk > max(LARGEST_CHUNK, whole):
        raise MalformedError(f"the parts of its `{name}` are larger than the whole")
    return _Table(data, *_laid_out(data.shape, is_depthwise))


def _laid_out(shape: Sequence[int], is_depthwise: bool) -> tuple[tuple[int, ...], Shape]:
    """How axes of Keras follow in PyTorch's order, and the shape that a weight then has."""
    match tuple(shape):
        case (rows, columns, channels, times) if is_depthwise:
            return (2, 3, 0, 1), (channels * times, 1, rows, columns)
        case (rows, columns, inputs, outputs):
            return (3, 2, 0, 1), (outputs, inputs, rows, columns)
        case (inputs, outputs):
            return (1, 0), (outputs, inputs)
        case other:
            return tuple(range(len(other))), other
