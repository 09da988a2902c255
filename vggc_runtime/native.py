"""A compiled net's library, called through ctypes: `vggc/native/net.h.in` describes its functions.

Needs numpy alone.
"""

from __future__ import annotations

import ctypes
import os
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]

KINDS = "iuf"
"""The letters that numpy has for DLPack's kinds of elements, by their numbers."""


class NativeError(Exception):
    """What a library says of a call that failed."""


def prefix_of(net: str) -> str:
    """What C calls a net: its name, with `_` for what no identifier of C has."""
    return re.sub(r"[^A-Za-z0-9_]", "_", net)


class NetOptions(ctypes.Structure):
    """`NET_options`."""

    _fields_ = (
        ("threads", ctypes.c_int),
        ("map", ctypes.c_int),
        ("trusted", ctypes.c_int),
        ("processors", ctypes.POINTER(ctypes.c_int)),
        ("num_processors", ctypes.c_int),
    )


class NetValue(ctypes.Structure):
    """`NET_value`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("ndim", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("count", ctypes.c_size_t),
    )


class _Step(ctypes.Structure):
    """`NET_step`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("nanoseconds", ctypes.c_int64),
        ("moved", ctypes.c_uint64),
        ("values", ctypes.c_void_p),
        ("ndim", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("kind", ctypes.c_int),
        ("bits", ctypes.c_int),
    )


_WATCHER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_Step))


@dataclass(frozen=True)
class Value:
    """What one image is, or what a head gives of one, in float32."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NativeSize:
    """What an image of one size is, and what the heads give of one."""

    input: Value
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class NativeStep:
    """What a step of a net has done.

    `moved` are the bytes of all that its kernel reads and writes, each counted once.
    """

    name: str
    seconds: float
    moved: int
    shape: tuple[int, ...]
    dtype: str
    address: int

    def values(self) -> NDArray[Any]:
        """A copy of what the step gives, in the layout of its kernel. To be asked for while the
        step is shown, as other steps may have the memory next.
        """
        dtype = np.dtype(self.dtype)
        size = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize
        return np.frombuffer(ctypes.string_at(self.address, size), dtype).reshape(self.shape)


Watcher: TypeAlias = Callable[[NativeStep], None]


@dataclass(frozen=True)
class NativeNet:
    """A net that is open, for any thread of the process that opened it. It is closed when nothing
    knows it any more. Of the `sizes` of images that it takes the first is the main one.
    """

    sizes: tuple[NativeSize, ...]
    _functions: dict[str, Any]
    _handle: ctypes.c_void_p

    @classmethod
    def open(
        cls,
        library: Path,
        net: str,
        weights: Path,
        *,
        threads: int = 0,
        processors: Sequence[int] = (),
        mapped: bool = False,
        trusted: bool = False,
    ) -> NativeNet:
        """The net of that name in a library, with its weights: `NET_open` in C.

        A library that is loaded may do what any program may: load one only from where you would
        run a program from.

        Raises:
            OSError: the library cannot be loaded.
            AttributeError: it has no such net.
            NativeError: the weights are not those of the net, or this machine cannot run it.
        """
        functions = _functions(_loaded(library), prefix_of(net))
        handle = ctypes.c_void_p()
        options = NetOptions(
            threads=threads,
            map=int(mapped),
            trusted=int(trusted),
            processors=(ctypes.c_int * len(processors))(*processors),
            num_processors=len(processors),
        )
        path = bytes(weights)
        _check(functions, functions["open"](path, ctypes.byref(options), ctypes.byref(handle)))
        made = cls(_sizes(functions), functions, handle)
        # When the process ends, threads may still run it; memory goes with the process.
        weakref.finalize(made, functions["close"], handle).atexit = False
        return made

    @property
    def input(self) -> Value:
        """What an image of the main size is."""
        return self.sizes[0].input

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What each head gives of an image of the main size."""
        return self.sizes[0].outputs

    def run(self, images: Array) -> tuple[Array, ...]:
        """What each head gives of images (N, C, H, W) of one of the sizes, N any number.

        Raises:
            ValueError: they are of another shape.
            NativeError: the net cannot be run, as memory is short.
        """
        return self._called("run_at", images)

    def watch(self, images: Array, watcher: Watcher) -> tuple[Array, ...]:
        """What `run` gives; `watcher` is shown each step when it has ended.

        Raises:
            ValueError: they are of another shape.
            NativeError: the net cannot be run, as memory is short.
            Exception: whatever the watcher raises first, when the run has ended.
        """
        faults: list[BaseException] = []

        def shown(_: Any, pointer: Any) -> None:
            if faults:
                return
            try:
                watcher(_step(pointer.contents))
            except BaseException as fault:
                faults.append(fault)

        given = self._called("watch", images, _WATCHER(shown), None)
        if faults:
            raise faults[0]
        return given

    def prepare(self, pixels: NDArray[np.uint8], size: int = 0) -> Array:
        """What the net takes of a picture's pixels, RGB (H, W, 3), at one of the sizes, by its
        number: see `NET_prepare`.

        Raises:
            ValueError: they are no such pixels.
            NativeError: no pictures become this net's input in C, or this one cannot.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"{pixels.dtype} of shape {pixels.shape} are no pixels (H, W, 3)")
        rows = np.ascontiguousarray(pixels)
        height, width, _ = rows.shape
        image = np.empty(self.sizes[size].input.shape, np.float32)
        prepare = self._functions["prepare_at"]
        _check(
            self._functions,
            prepare(size, rows.ctypes.data, width, height, rows.strides[0], image.ctypes.data),
        )
        return image

    def _called(self, function: str, images: Array, *more: Any) -> tuple[Array, ...]:
        shapes = [each.input.shape for each in self.sizes]
        if images.shape[1:] not in shapes or images.dtype != np.float32:
            what = f"{images.dtype} of shape {images.shape}"
            takes = " or ".join(str(("N", *shape)) for shape in shapes)
            raise ValueError(f"{what} are no images {takes} in float32")
        size = shapes.index(images.shape[1:])
        rows, outputs = np.ascontiguousarray(images), self.sizes[size].outputs
        given = tuple(np.empty((len(rows), *each.shape), np.float32) for each in outputs)
        if len(rows):
            places = (ctypes.c_void_p * len(given))(*(each.ctypes.data for each in given))
            call = self._functions[function]
            _check(
                self._functions,
                call(self._handle, size, len(rows), rows.ctypes.data, places, *more),
            )
        return given


_LIBRARIES: dict[tuple[int, int], ctypes.CDLL] = {}
_LOADING = Lock()


def _loaded(path: Path) -> ctypes.CDLL:
    """The library that is in a file now. A loader takes a path for the file that it has loaded from
    there before, so each file gets a spelling of its path that no other had.

    Raises: OSError where it cannot be loaded.
    """
    with _LOADING:
        found = os.stat(path)
        file = found.st_dev, found.st_ino
        if file not in _LIBRARIES:
            spelling = "./" * len(_LIBRARIES)
            _LIBRARIES[file] = ctypes.CDLL(f"{path.parent}/{spelling}{path.name}")
        return _LIBRARIES[file]


def _functions(library: ctypes.CDLL, prefix: str) -> dict[str, Any]:
    """The functions of a net by their names without its prefix.

    Raises:
        AttributeError: the library lacks one.
    """
    pointer, count = ctypes.c_void_p, ctypes.c_int
    run = (pointer, count, count, pointer, pointer)
    types: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "open": (count, (ctypes.c_char_p, pointer, pointer)),
        "input_at": (NetValue, (count,)),
        "output_at": (NetValue, (count, count)),
        "prepare_at": (
            count,
            (count, pointer, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, pointer),
        ),
        "run_at": (count, run),
        "watch": (count, (*run, _WATCHER, pointer)),
        "error": (ctypes.c_char_p, ()),
        "close": (None, (pointer,)),
    }
    found = {}
    for name, (result, arguments) in types.items():
        found[name] = getattr(library, f"{prefix}_{name}")
        found[name].restype, found[name].argtypes = result, arguments
    return found


def _check(functions: dict[str, Any], failed: int) -> None:
    if failed:
        raise NativeError(functions["error"]().decode("utf-8", "replace"))


def _sizes(functions: dict[str, Any]) -> tuple[NativeSize, ...]:
    """All sizes of images that a net takes."""
    sizes: list[NativeSize] = []
    while (image := functions["input_at"](len(sizes))).name is not None:
        outputs: list[Value] = []
        while (found := functions["output_at"](len(sizes), len(outputs))).name is not None:
            outputs.append(_value(found))
        sizes.append(NativeSize(_value(image), tuple(outputs)))
    return tuple(sizes)


def _value(found: NetValue) -> Value:
    shape = tuple(found.shape[place] for place in range(found.ndim))
    return Value(found.name.decode("utf-8", "replace"), shape)


def _step(found: _Step) -> NativeStep:
    return NativeStep(
        name=found.name.decode("utf-8", "replace"),
        seconds=found.nanoseconds / 1e9,
        moved=found.moved,
        shape=tuple(found.shape[place] for place in range(found.ndim)),
        dtype=f"{KINDS[found.kind]}{found.bits // 8}",
        address=found.values,
    )
