"""The Open Inference Protocol: what a request asks for, and its answer. Knows nothing of the web.

A body is JSON, behind which tensors may stand as they lie in memory, little-endian.

Source: https://github.com/open-inference/open-inference-protocol, and the binary tensor data
extension in Triton's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from vggc.runtime.artifact import Manifest
from vggc.serving.queue import NetOutputs
from vggc.support.arrays import Array
from vggc.support.diagnostics import did_you_mean
from vggc_runtime.outputs import Output
from vggc_runtime.version import __version__

INPUT = "input"
"""The name of a net's input, which a net in ONNX has, too."""

VERSION = "1"
"""The one version that a model has."""

DATATYPES: Mapping[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}
"""What an input may be sent as: numbers that float32 holds as they are."""

MOST_DIMENSIONS = 8


class BadRequest(Exception):
    """A request cannot be answered; the message says why."""


@dataclass(frozen=True)
class WantedOutput:
    """An output that a client asks for, as bytes behind the JSON or as numbers in it."""

    output: Output
    is_binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """What a client asks for: images (N, C, H, W), and what of them it wants."""

    id: str | None
    images: Array
    wanted: tuple[WantedOutput, ...]


@dataclass(frozen=True)
class InferenceResponse:
    """A body; its first `json_bytes` are JSON where tensors stand behind it, else None."""

    body: bytes
    json_bytes: int | None


def server_record() -> dict[str, Any]:
    """What the server says of itself."""
    return {"name": "vggc", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_record(name: str, manifest: Manifest) -> dict[str, Any]:
    """What the server says of a model; -1 stands for any number of images."""
    tensors = [(INPUT, manifest.input), *((each.name, each.shape) for each in manifest.outputs)]
    first, *others = (
        {"name": tensor, "datatype": "FP32", "shape": [-1, *shape]} for tensor, shape in tensors
    )
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "vggc",
        "inputs": [first],
        "outputs": others,
    }


# Requests


def read_request(
    body: bytes, json_bytes: int | None, manifest: Manifest, most: int
) -> InferenceRequest:
    """What a body asks a net for, whose first `json_bytes` are JSON, or all of it; `most` images
    may be in one request.

    Raises:
        BadRequest: it cannot be answered.
    """
    end = len(body) if json_bytes is None else json_bytes
    if not 0 <= end <= len(body):
        raise BadRequest(f"the JSON has {end} bytes by its header, and the body {len(body)}")
    record = record_in(body[:end])
    id_ = record.get("id")
    if not isinstance(id_, str | None):
        raise BadRequest("`id` is not a text")
    images = read_input_tensor(record, memoryview(body)[end:], manifest, most)
    return InferenceRequest(id_, images, tuple(wanted_outputs(record, manifest)))


def record_in(text: bytes) -> dict[str, Any]:
    """Raises: BadRequest where a text is no JSON object."""
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadRequest("the body is not a JSON object")
    return record


def read_input_tensor(
    record: Mapping[str, Any], binary: memoryview, manifest: Manifest, most: int
) -> Array:
    """The images (N, C, H, W) of a request.

    Raises:
        BadRequest: there are none, or the net takes others.
    """
    match record.get("inputs"):
        case [{"name": str(name), "shape": list(shape), "datatype": str(datatype)} as tensor]:
            pass
        case [_]:
            raise BadRequest("an input needs `name`, `shape` and `datatype`")
        case _:
            raise BadRequest(f"`inputs` must hold one tensor, `{INPUT}`")
    if name != INPUT:
        raise BadRequest(f"there is no input `{name}`: the net takes `{INPUT}`")
    if datatype not in DATATYPES:
        known = " or ".join(DATATYPES)
        raise BadRequest(f"the datatype is `{datatype}`, and the net takes {known}, normalised")
    count = checked_count(shape, manifest.input, most)
    size = count * math.prod(manifest.input)
    parameters = tensor.get("parameters")
    num_bytes = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    dtype = DATATYPES[datatype]
    if num_bytes is not None:
        values = from_bytes(binary, num_bytes, dtype, size)
    elif len(binary):
        raise BadRequest("bytes stand behind the JSON, and no input has a `binary_data_size`")
    else:
        values = from_numbers(tensor.get("data"), size)
    if not np.isfinite(values).all():
        raise BadRequest("the input holds values that are not finite")
    return values.reshape(count, *manifest.input)


def checked_count(shape: list[Any], expected: tuple[int, ...], most: int) -> int:
    """How many images a tensor of a shape is.

    Raises:
        BadRequest: it is not a whole number of the net's images, from 1 to `most`.
    """
    if not all(type(side) is int for side in shape) or len(shape) > MOST_DIMENSIONS:
        raise BadRequest("`shape` is not a list of numbers")
    if len(shape) != len(expected) + 1 or tuple(shape[1:]) != expected:
        sides = ", ".join(map(str, expected))
        raise BadRequest(f"the shape is {shape}, and the net takes [N, {sides}]")
    if not 1 <= (count := int(shape[0])) <= most:
        raise BadRequest(f"a request holds from 1 to {most} images, not {count}")
    return count


def from_bytes(binary: memoryview, num_bytes: object, dtype: np.dtype[Any], size: int) -> Array:
    """So many numbers that lie in bytes.

    Raises:
        BadRequest: the bytes are not as many.
    """
    expected = size * dtype.itemsize
    if num_bytes != expected:
        raise BadRequest(f"`binary_data_size` is {num_bytes!r}, and the shape makes {expected}")
    if len(binary) != expected:
        raise BadRequest(f"{len(binary)} bytes stand behind the JSON in place of {expected}")
    return np.frombuffer(binary, dtype).astype(np.float32)


def from_numbers(data: object, size: int) -> Array:
    """So many numbers that stand in JSON, in one list or in nested ones.

    Raises:
        BadRequest: they are others, or no numbers.
    """
    if not isinstance(data, list):
        raise BadRequest("an input needs `data`, a list of numbers, or a `binary_data_size`")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError):
        raise BadRequest("`data` is not a list of numbers of one shape") from None
    if values.dtype.kind not in "iuf":
        raise BadRequest("`data` holds what is no number")
    if values.size != size:
        raise BadRequest(f"`data` holds {values.size} numbers, and the shape makes {size}")
    with np.errstate(over="ignore"):
        return values.ravel().astype(np.float32)


def wanted_outputs(record: Mapping[str, Any], manifest: Manifest) -> Iterator[WantedOutput]:
    """The outputs that a client asks for; all where it names none.

    Raises:
        BadRequest: the net has no such output, or what is wanted of it is not known.
    """
    known = {output.name: output for output in manifest.outputs}
    usual = flag(record, "binary_data_output", default=False)
    asked = record.get("outputs")
    if not asked:
        asked = [{"name": name} for name in known]
    if not isinstance(asked, list) or len(asked) > len(known):
        raise BadRequest("`outputs` is not a list of outputs, each once")
    names = set()
    for each in asked:
        if not isinstance(each, dict) or not isinstance(name := each.get("name"), str):
            raise BadRequest("an output needs a `name`")
        if name not in known or name in names:
            hint = "it is asked for twice" if name in names else did_you_mean(name, [*known])
            raise BadRequest(f"there is no output `{name}`: {hint}")
        names.add(name)
        is_binary = flag(each, "binary_data", default=usual)
        if "classification" in (each.get("parameters") or {}):
            raise BadRequest("`classification` is not served: /v1/predict tells names of classes")
        yield WantedOutput(known[name], is_binary)


def flag(record: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """A parameter of a request or of an output.

    Raises:
        BadRequest: it is neither true nor false.
    """
    parameters = record.get("parameters")
    if parameters is None:
        return default
    if not isinstance(parameters, dict) or not isinstance(
        value := parameters.get(name, default), bool
    ):
        raise BadRequest(f"`parameters` is no object, or its `{name}` neither true nor false")
    return value


# Answers


def response(name: str, request: InferenceRequest, outputs: NetOutputs) -> InferenceResponse:
    """What a client is given for its request."""
    binary = []
    tensors: list[dict[str, Any]] = []
    for wanted in request.wanted:
        values = np.ascontiguousarray(outputs[wanted.output.name], "<f4")
        tensor: dict[str, Any] = {
            "name": wanted.output.name,
            "datatype": "FP32",
            "shape": [*values.shape],
        }
        if wanted.is_binary:
            binary.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": values.nbytes}
        else:
            tensor["data"] = values.ravel()
        tensors.append(tensor)
    record: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": tensors}
    if request.id is not None:
        record["id"] = request.id
    text = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return InferenceResponse(text, None)
    return InferenceResponse(b"".join([text, *binary]), len(text))
