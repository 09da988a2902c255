"""ONNX files: the graph is read, and its tensors are found where they lie, without reading them.

A file is a message of protobuf whose fields may come in any order. What is a tensor of weights is
told by its place in the file; everything else is small, and parsed by onnx. Files are hostile until
checked: every length is compared with what there is, and counts are bounded.

Source: https://protobuf.dev/programming-guides/encoding; onnx.proto of onnx 1.23.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedReader
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from vggc.importing.diagnostics import ForeignUnreadable
from vggc.importing.engines import onnx_engine
from vggc.importing.foreign import NOTHING, Foreign, ForeignTensor
from vggc.importing.operators import names_read
from vggc.importing.translation import MAX_NODES
from vggc.importing.wire import LENGTH, VARINT, field_at
from vggc.support.diagnostics import UserError
from vggc.support.records import from_json
from vggc.weight_files.facts import WeightFacts
from vggc_runtime.files import open_file, sha256
from vggc_runtime.json_file import MalformedError, parsed_json
from vggc_runtime.preprocessing import Preprocessing

MAX_FIELDS = 2_000_000
"""Fields of a file that are looked at, those of nodes and tensors included."""
MAX_SKELETON = 64 << 20
"""Bytes of a file that are no tensor's values."""
LARGE = 1 << 12
"""Bytes of a tensor within a node that are left in the file."""
MAX_TYPED = 64 << 20
"""Bytes of a tensor whose numbers are written one by one, which takes many times as much memory."""
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 16
MAX_VALUES = 1 << 48
"""Product of those axes of an empty tensor that are not empty themselves, which NumPy bounds, too.
"""
LEAST_OPSET, MOST_OPSET = 7, 30
DESCRIBED = ("fit", "scale", "interpolation", "background", "order", "mean", "std")
"""What files of vggc's own say of pictures."""

DTYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.FLOAT16: "<f2",
    TensorProto.BFLOAT16: "<u2",
    TensorProto.INT64: "<i8",
    TensorProto.INT32: "<i4",
    TensorProto.INT16: "<i2",
    TensorProto.INT8: "i1",
    TensorProto.UINT64: "<u8",
    TensorProto.UINT32: "<u4",
    TensorProto.UINT16: "<u2",
    TensorProto.UINT8: "u1",
    TensorProto.BOOL: "?",
}
"""Types of numbers as they lie in a file; those of bfloat16 by their bits, which numpy has not."""


INSIDE = tuple(kind for kind in DTYPES if kind != TensorProto.BFLOAT16)
"""Types of tensors that may be written anew as they are."""


def read_onnx(path: Path) -> Foreign:
    """The net in an ONNX file.

    Raises: UserError where it is none, or is damaged.
    """
    try:
        with open_file(path) as file:
            found = _FoundInFile(path=path)
            found.model(_FilePart(file, 0, file.seek(0, 2)))
            model = found.parsed()
        return Foreign(
            model=model,
            tensors=found.tensors,
            name=path.stem,
            files=(path.name,),
            sha256=sha256(path),
            facts=facts_in_model(model),
            engine=onnx_engine(path, model, found.places),
            no_engine="it takes ONNX Runtime: pip install onnxruntime",
        )
    except OSError as error:
        raise UserError(ForeignUnreadable(str(path), error.strerror or str(error))) from None
    except MalformedError as fault:
        raise UserError(ForeignUnreadable(str(path), str(fault))) from None


def facts_in_model(model: onnx.ModelProto) -> WeightFacts:
    """What a file that vggc has written says of pictures and classes; nothing of those of others,
    which have no common way to say it, and where what is said is not understood.
    """
    try:
        told = {
            each.key: parsed_json(each.value.encode("utf-8", "surrogatepass"))
            for each in model.metadata_props
        }
        fields = {key: told[key] for key in DESCRIBED if key in told}
        size = told["input"][1:] if "vggc" in told else []
        record = {**fields, "size": size}
        how = from_json(Preprocessing, record) if "mean" in fields and size else None
        classes = from_json(tuple[str, ...], told.get("classes", []))
    except (MalformedError, TypeError, KeyError):
        return NOTHING
    return WeightFacts(how, classes) if "vggc" in told else NOTHING


def is_onnx(start: bytes) -> bool:
    """Whether a file that begins like this may be one of ONNX: its first field is the version of
    the format, which every writer puts first.
    """
    return (
        len(start) > 2 and start[0] == 8 and 0 < start[1] < 32 and start[2] & 7 in (VARINT, LENGTH)
    )


# ---------------------------------------------------------------- fields


@dataclass(frozen=True)
class _FilePart:
    """A part of a file, from one offset to another."""

    file: BufferedReader
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def read(self) -> bytes:
        self.file.seek(self.start)
        found = self.file.read(self.size)
        if len(found) != self.size:
            raise MalformedError("it has become shorter while it was read")
        return found


@dataclass(frozen=True)
class _MessageField:
    """A field of a message: its number, how it is written, its bytes and those of its value."""

    number: int
    wire: int
    whole: _FilePart
    value: _FilePart


def _fields(message: _FilePart, budget: list[int]) -> Iterator[_MessageField]:
    """The fields of a message in their order.

    Raises: MalformedError where it is none, or all messages together have too many fields.
    """
    at, file = message.start, message.file
    while at < message.end:
        budget[0] -= 1
        if budget[0] < 0:
            raise MalformedError(f"it has more than {MAX_FIELDS:,} fields")
        found = field_at(file, at, message.end)
        whole, value = (_FilePart(file, start, found.end) for start in (at, found.start))
        yield _MessageField(found.number, found.wire, whole, value)
        at = found.end


# ---------------------------------------------------------------- what is found


def _number(message: Any, name: str) -> int:
    found: int = message.DESCRIPTOR.fields_by_name[name].number
    return found


GRAPH = _number(onnx.ModelProto, "graph")
NODE, INITIALIZER = (_number(onnx.GraphProto, name) for name in ("node", "initializer"))
ATTRIBUTE = _number(onnx.NodeProto, "attribute")
TENSOR = _number(onnx.AttributeProto, "t")
RAW, FLOATS = (_number(TensorProto, name) for name in ("raw_data", "float_data"))


@dataclass
class _FoundInFile:
    """What there is in a file: its tensors, and the bytes of all else."""

    path: Path
    head: list[bytes] = field(default_factory=list)
    """The fields of the model but for its graph."""
    body: list[bytes] = field(default_factory=list)
    """The fields of the graph but for its tensors."""
    tensors: dict[str, ForeignTensor] = field(default_factory=dict)
    places: list[TensorProto] = field(default_factory=list)
    """The tensors again, as messages that tell where their values lie."""
    budget: list[int] = field(default_factory=lambda: [MAX_FIELDS])
    kept: int = 0
    nodes: int = 0

    def model(self, message: _FilePart) -> None:
        """Takes in a model."""
        for each in _fields(message, self.budget):
            if each.number != GRAPH or each.wire != LENGTH:
                self.keep(self.head, each)
                continue
            for part in _fields(each.value, self.budget):
                self.nodes += part.number == NODE
                if self.nodes > MAX_NODES:
                    raise MalformedError(f"it has more than {MAX_NODES:,} nodes")
                if part.number == INITIALIZER and part.wire == LENGTH:
                    tensor = self.tensor(part.value)
                    self.add(tensor.name, tensor)
                elif part.number == NODE and part.value.size > LARGE:
                    self.node(part)
                else:
                    self.keep(self.body, part)

    def keep(self, where: list[bytes], each: _MessageField) -> None:
        """Keeps a field for onnx to parse."""
        self.kept += each.whole.size
        if self.kept > MAX_SKELETON:
            reason = f"more than {MAX_SKELETON >> 20} MiB of it are no tensors of its graph"
            raise MalformedError(reason)
        where.append(each.whole.read())

    def node(self, each: _MessageField) -> None:
        """Takes in a large node: a constant, whose values stay in the file."""
        for part in _fields(each.value, self.budget):
            if part.number == ATTRIBUTE and part.wire == LENGTH and part.value.size > LARGE:
                attribute = [*_fields(part.value, self.budget)]
                values = [f.value for f in attribute if f.number == TENSOR and f.wire == LENGTH]
                rest = b"".join(
                    f.whole.read()
                    for f in _fields(each.value, self.budget)
                    if f.number != ATTRIBUTE and f.whole.size < LARGE
                )
                node = _parsed(onnx.NodeProto, rest)
                if len(values) == 1 and node.op_type == "Constant" and len(node.output) == 1:
                    self.add(node.output[0], self.tensor(values[0]))
                    return
        self.keep(self.body, each)

    def add(self, name: str, tensor: _Tensor) -> None:
        """Takes in a tensor by its name."""
        if not isinstance(name, str):
            raise MalformedError("it is damaged: a name in it is no text")
        if name in self.tensors:
            raise MalformedError(f"it has two tensors called `{name}`")
        if len(self.tensors) >= MAX_TENSORS:
            raise MalformedError(f"it has more than {MAX_TENSORS:,} tensors")
        self.tensors[name] = found = tensor.foreign(self.path)
        is_small = found.size * found.dtype.itemsize <= LARGE
        # Numbers that decide shapes are wanted in the message itself.
        inside = is_small and tensor.told.data_type in INSIDE
        self.places.append(
            numpy_helper.from_array(found.read(), name)
            if inside
            else tensor.placed(self.path, name)
        )

    def tensor(self, message: _FilePart) -> _Tensor:
        """Where a tensor's values lie, and what they are."""
        small: list[bytes] = []
        values: _MessageField | None = None
        for each in _fields(message, self.budget):
            if each.wire == LENGTH and each.number in (RAW, FLOATS) and values is None:
                values = each
            elif each.value.size > MAX_TYPED:
                raise MalformedError("a tensor's numbers are written one by one, and too many")
            else:
                small.append(each.whole.read())
        told = _parsed(TensorProto, b"".join(small))
        is_huge = 0 in told.dims and prod(n or 1 for n in told.dims) > MAX_VALUES
        if len(told.dims) > MAX_DIMENSIONS or any(n < 0 for n in told.dims) or is_huge:
            raise MalformedError(f"the tensor `{told.name}` has no possible shape")
        places = (text for each in told.external_data for text in (each.key, each.value))
        if not all(isinstance(text, str) for text in places):
            raise MalformedError(f"the place of the tensor `{told.name}` is no text")
        return _Tensor(told, values.value if values else None)

    def parsed(self) -> onnx.ModelProto:
        """The model without its tensors."""
        model: onnx.ModelProto = _parsed(onnx.ModelProto, b"".join(self.head))
        model.graph.MergeFrom(_parsed(onnx.GraphProto, b"".join(self.body)))
        if not all(isinstance(name, str) for name in _names(model)):
            raise MalformedError("it is damaged: a name in it is no text")
        if not model.graph.node:
            raise MalformedError("it holds no net: there is no node in it")
        versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
        if versions and not LEAST_OPSET <= versions[0] <= MOST_OPSET:
            reason = f"it is of opset {versions[0]}, and those from {LEAST_OPSET} on are read"
            raise MalformedError(reason)
        # Files of old versions name their tensors among the inputs, too.
        inputs = [each for each in model.graph.input if each.name not in self.tensors]
        # What is left of a training, such as a switch, is read by nothing.
        told = {*names_read(model.graph), *(each.name for each in model.graph.output)}
        inputs = [each for each in inputs if each.name in told] or inputs
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        return model


def _names(model: onnx.ModelProto) -> Iterator[object]:
    """All names in a model; protobuf gives those that are no text as bytes."""
    graph = model.graph
    yield from (each.domain for each in model.opset_import)
    yield from (text for each in model.metadata_props for text in (each.key, each.value))
    yield from (each.name for each in (*graph.input, *graph.output))
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (each.name for each in node.attribute)


def _parsed(kind: Callable[[], Any], data: bytes) -> Any:
    found = kind()
    try:
        found.ParseFromString(data)
    except (DecodeError, RecursionError):
        raise MalformedError("it is no ONNX file, or damaged") from None
    return found


# ---------------------------------------------------------------- tensors


@dataclass(frozen=True)
class _Tensor:
    """A tensor as its message tells it, and where its values lie in the file if in one piece."""

    told: TensorProto
    values: _FilePart | None

    @property
    def name(self) -> str:
        found: str = self.told.name
        return found

    def foreign(self, path: Path) -> ForeignTensor:
        """The tensor, to be read later. Raises: MalformedError where it is not all there."""
        shape, kind = tuple(self.told.dims), self.told.data_type
        if kind not in DTYPES:
            return _unknown(path, self.name, shape, kind)
        place = self.place(path, np.dtype(DTYPES[kind]).itemsize * prod(shape))
        if place is None:
            return self.typed(shape)
        if kind == TensorProto.BFLOAT16:
            widened = replace(place, dtype=DTYPES[kind])
            return ForeignTensor(shape, np.dtype("f4"), lambda: _widened(widened.read(shape)))
        found = replace(place, dtype=DTYPES[kind])
        return ForeignTensor(shape, np.dtype(found.dtype), lambda: found.read(shape))

    def placed(self, path: Path, name: str) -> TensorProto:
        """The message of the tensor with its values, if they are in the net's own file, as those of
        a file beside the net.
        """
        found = TensorProto()
        found.CopyFrom(self.told)
        found.name = name
        if self.values is not None:
            found.data_location = TensorProto.EXTERNAL
            place = {"location": path.name, "offset": self.values.start, "length": self.values.size}
            for key, value in place.items():
                found.external_data.add(key=key, value=str(value))
        return found

    def place(self, path: Path, size: int) -> _PlaceInFile | None:
        """Where so many bytes of values lie in one piece; None where they are written one by one.

        Raises: MalformedError where there are more or fewer.
        """
        if self.told.data_location == TensorProto.EXTERNAL:
            return _external(path, self.told, size)
        if self.values is None:
            return None
        if self.values.size != size:
            shape = "×".join(map(str, self.told.dims))
            reason = f"the tensor `{self.name}` is to be {shape}, {size:,} bytes, and has"
            raise MalformedError(f"{reason} {self.values.size:,}")
        return _PlaceInFile(path, self.values.start, size)

    def typed(self, shape: tuple[int, ...]) -> ForeignTensor:
        """A tensor whose numbers are written one by one, as onnx reads them."""
        told = self.told
        fields = (told.float_data, told.int32_data, told.int64_data, told.double_data)
        if prod(shape) > max(map(len, (*fields, told.uint64_data))):
            raise MalformedError(f"the tensor `{self.name}` has fewer numbers than its shape")
        try:
            return ForeignTensor.of(np.asarray(numpy_helper.to_array(told)))
        except (ValueError, TypeError):
            raise MalformedError(f"the tensor `{self.name}` is damaged") from None


@dataclass(frozen=True)
class _PlaceInFile:
    """Where values lie in a file, in bytes from its beginning."""

    path: Path
    offset: int
    bytes: int
    dtype: str = "u1"

    def read(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """The values in this shape. Raises: UserError where the file has changed since."""
        room = np.empty(self.bytes, np.uint8)
        try:
            with open_file(self.path) as file:
                file.seek(self.offset)
                count = file.readinto(room.data)
        except OSError as error:
            raise UserError(
                ForeignUnreadable(str(self.path), error.strerror or str(error))
            ) from None
        if count != self.bytes:
            reason = "it has become shorter while it was read"
            raise UserError(ForeignUnreadable(str(self.path), reason))
        return room.view(self.dtype).reshape(shape)


def _external(path: Path, told: TensorProto, size: int) -> _PlaceInFile:
    """Where values lie in a file beside that of the net.

    Raises: MalformedError where that would be a file elsewhere, or is too short; OSError.
    """
    entries = {each.key: each.value for each in told.external_data}
    location = entries.get("location", "")
    relative = PurePosixPath(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        reason = f"the tensor `{told.name}` is to be read from `{location}`, which is no file in"
        raise MalformedError(f"{reason} the net's own folder")
    target = path.parent / relative
    # Caches keep files elsewhere and link to them, side by side.
    homes = (path.parent.resolve(), path.resolve().parent)
    if not any(target.resolve().is_relative_to(home) for home in homes):
        raise MalformedError(f"`{location}` leads out of the net's own folder")
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries.get("length", "") or size)
    except ValueError:
        raise MalformedError(f"the tensor `{told.name}` has no number as its place") from None
    try:
        with open_file(target) as file:
            end = file.seek(0, 2)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MalformedError(f"its tensors lie in `{location}`: {reason}") from None
    if length != size or not 0 <= offset <= end - size:
        reason = f"the tensor `{told.name}` is to be {size:,} bytes at {offset:,} of `{location}`,"
        raise MalformedError(f"{reason} which has {end:,}")
    return _PlaceInFile(target, offset, size)


def _widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Numbers of bfloat16 as float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _unknown(path: Path, name: str, shape: tuple[int, ...], kind: int) -> ForeignTensor:
    """A tensor of a type that is never read; that is a mistake where somebody wants its values."""
    known = TensorProto.DataType.items()
    title = next((text for text, number in known if number == kind), str(kind))

    def refuse() -> NDArray[Any]:
        reason = f"its tensor `{name}` is of type {title}"
        raise UserError(ForeignUnreadable(str(path), reason))

    return ForeignTensor(shape, np.dtype("V1"), refuse)
