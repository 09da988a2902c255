"""NVIDIA's driver through its C interface: loading machine code, and launching it.

Context and memory are torch's: `torch.cuda` makes the context before the first module is loaded.
Layouts and numbers are those of CUDA 12 and 13's `cuda.h`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REGISTERS, LOCAL_BYTES, MOST_DYNAMIC_SHARED = 4, 3, 8
"""Attributes of a function: `CU_FUNC_ATTRIBUTE_NUM_REGS`, `…_LOCAL_SIZE_BYTES`,
`…_MAX_DYNAMIC_SHARED_SIZE_BYTES`."""
SERIALIZATION = 6
"""The attribute `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION` of a launch."""
MOST_ARGUMENTS = 64
"""No kernel here takes more."""
USUAL_SHARED = 48 << 10
"""The shared memory that a launch may ask for without the function having been told."""


class DriverError(Exception):
    """The driver refused something."""


class LaunchAttribute(ctypes.Structure):
    """`CUlaunchAttribute`: a number, and 64 bytes of which these attributes use an int."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("value", ctypes.c_int),
        ("rest", ctypes.c_char * 60),
    )


class LaunchConfig(ctypes.Structure):
    """`CUlaunchConfig`."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("num_attributes", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Function:
    """A CUDA kernel of a loaded module."""

    driver: Driver
    handle: ctypes.c_void_p

    def attribute(self, number: int) -> int:
        """One of the numbers above."""
        value = ctypes.c_int()
        self.driver.call("cuFuncGetAttribute", ctypes.byref(value), number, self.handle)
        return value.value

    @cached_property
    def num_arguments(self) -> int | None:
        """How many arguments the kernel takes; None where the driver is too old to tell."""
        offset, size, number = ctypes.c_size_t(), ctypes.c_size_t(), 0
        if not self.driver.has("cuFuncGetParamInfo"):
            return None
        with suppress(DriverError):
            while number < MOST_ARGUMENTS:
                places = ctypes.byref(offset), ctypes.byref(size)
                index = ctypes.c_size_t(number)
                self.driver.call("cuFuncGetParamInfo", self.handle, index, *places)
                number += 1
        return number

    def prepared(
        self,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        pointers: Sequence[int],
        dependent: bool = False,
    ) -> Callable[[int], None]:
        """A launch with these arguments, each a pointer to device memory, to the stream given.

        A `dependent` launch may begin before the one before it has ended.

        Raises: DriverError where the kernel takes another number of arguments, or less shared
        memory.
        """
        if self.num_arguments not in (None, len(pointers)):
            raise DriverError(f"it takes {self.num_arguments} arguments, not {len(pointers)}")
        if shared > USUAL_SHARED:
            self.driver.call("cuFuncSetAttribute", self.handle, MOST_DYNAMIC_SHARED, shared)
        values = (ctypes.c_void_p * len(pointers))(*pointers)
        size = ctypes.sizeof(ctypes.c_void_p)
        places = [ctypes.addressof(values) + size * index for index in range(len(pointers))]
        arguments = (ctypes.c_void_p * len(pointers))(*places)
        config = LaunchConfig((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(threads, 1, 1))
        config.shared = shared
        attribute = LaunchAttribute(SERIALIZATION, 0, 1)
        if dependent:
            config.attributes, config.num_attributes = ctypes.pointer(attribute), 1
        alive = (values, attribute)

        def launch(stream: int) -> None:
            config.stream = stream
            assert alive
            self.driver.call("cuLaunchKernelEx", ctypes.byref(config), self.handle, arguments, None)

        return launch


class Driver:
    """The driver, or what stands in for it."""

    def __init__(self, path: Path | str = "libcuda.so.1") -> None:
        self._library = ctypes.CDLL(str(path))
        self._modules: dict[bytes, ctypes.c_void_p] = {}
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: object) -> None:
        """Raises: DriverError where the driver says so."""
        error = getattr(self._library, name)(*arguments)
        if error:
            raise DriverError(f"{name}: {self._text(error)}")

    def has(self, name: str) -> bool:
        """Whether the driver is new enough to have a function."""
        return hasattr(self._library, name)

    def function(self, image: bytes, name: str) -> Function:
        """A kernel of a module, which is loaded once and stays so."""
        if image not in self._modules:
            module = ctypes.c_void_p()
            self.call("cuModuleLoadData", ctypes.byref(module), image)
            self._modules[image] = module
        handle = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(handle), self._modules[image], name.encode())
        return Function(self, handle)

    @cached_property
    def version(self) -> int:
        """The newest CUDA that the driver knows: 13000 for 13.0."""
        value = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(value))
        return value.value

    def _text(self, error: int) -> str:
        text = ctypes.c_char_p()
        if self._library.cuGetErrorString(error, ctypes.byref(text)) or not text.value:
            return f"error {error}"
        return f"error {error}, {text.value.decode()}"
