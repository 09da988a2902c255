"""Files of Caffe's and Darknet's, written from what is published of their formats."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vggc.importing.foreign import Foreign

Arrays = Mapping[str, Sequence[NDArray[Any]]]


def varint(value: int) -> bytes:
    """A number of protocol buffers: seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def key(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def message(number: int, data: bytes) -> bytes:
    """A field that holds so many bytes."""
    return key(number, 2) + varint(len(data)) + data


def blob(
    values: NDArray[Any], *, old: bool = False, packed: bool = True, double: bool = False
) -> bytes:
    """A BlobProto. `old` ones have four sides by name, others a shape."""
    if old:
        sides = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(key(at + 1, 0) + varint(side) for at, side in enumerate(sides))
    else:
        shape = message(7, message(1, b"".join(map(varint, values.shape))))
    number, dtype = (8, "<f8") if double else (5, "<f4")
    flat = values.astype(dtype).ravel()
    if packed:
        return shape + message(number, flat.tobytes())
    head = key(number, 1 if double else 5)
    return shape + b"".join(head + each.tobytes() for each in flat)


def caffemodel(arrays: Arrays, *, v1: bool = False, **how: Any) -> bytes:
    """A NetParameter that holds the arrays of layers, of the first generation or the second."""
    name, blobs, layer = (4, 6, 2) if v1 else (1, 7, 100)
    return message(1, b"net") + b"".join(
        message(layer, message(name, layer_name.encode()) + b"".join(
            message(blobs, blob(each, **how)) for each in of_layer
        ))
        for layer_name, of_layer in arrays.items()
    )  # fmt: skip


def darknet_weights(
    arrays: Iterable[NDArray[Any]], version: tuple[int, int, int] = (0, 2, 0)
) -> bytes:
    """Weights of Darknet's behind one another, below a header."""
    major, minor, _ = version
    is_new = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    seen = struct.pack("<Q" if is_new else "<I", 32_013_312)
    flat = b"".join(np.ascontiguousarray(each, "<f4").tobytes() for each in arrays)
    return struct.pack("<iii", *version) + seen + flat


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def drawn_arrays(foreign: Foreign, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Values for the tensors of a net that came without weights, so that no signal dies out."""
    draw = np.random.default_rng(seed)
    found = {}
    for name, tensor in foreign.tensors.items():
        if name.endswith(("variance", "scale")):
            found[name] = draw.uniform(0.5, 1.5, tensor.shape).astype(np.float32)
        else:
            fan = max(1, tensor.size // tensor.shape[0]) if tensor.shape else 1
            found[name] = draw.normal(0, (2 / fan) ** 0.5, tensor.shape).astype(np.float32)
    return found


def whole_model(foreign: Foreign) -> onnx.ModelProto:
    """The net with its tensors in it, as ONNX's own tools take it."""
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(tensor.read(), order="C"), name)
        for name, tensor in foreign.tensors.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def outputs(foreign: Foreign, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What a net gives, computed by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = whole_model(foreign)
    model.ir_version = min(model.ir_version, 11)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: images})
    return found


def arrays_of(
    shapes: Mapping[str, Sequence[tuple[int, ...]]], seed: int = 0
) -> dict[str, list[NDArray[np.float32]]]:
    """Random arrays of these shapes, in which what may stand below a root is above 0."""
    draw = np.random.default_rng(seed)
    return {
        name: [
            draw.uniform(0.5, 1.5, shape).astype(np.float32)
            if len(shape) == 1
            else draw.normal(0, (2 * shape[0] / np.prod(shape)) ** 0.5, shape).astype(np.float32)
            for shape in of_layer
        ]
        for name, of_layer in shapes.items()
    }
