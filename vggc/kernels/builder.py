"""What kernels are written with: buffers, named loops, and the frame of a function.

TVM's builder notes what is done to a `Buffer` while Python runs: `sums[k] += x[k] * w[k]` writes a
store into the kernel. Names are for those who read the TVMScript of `vggc compile --dump`; the
code that is made of it does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import PrimFunc, const
from tvm.tirx.script import builder as T

BufferIndex: TypeAlias = "Expr | int | tuple[Expr | int, ...]"


class Buffer:
    """Memory of a kernel, read and written by index: one of TVM's buffers.

    An index is one number a dimension. In the last dimension a `T.Ramp` takes a vector.
    """

    __slots__ = ("buffer",)

    def __init__(self, buffer: tirx.Buffer) -> None:
        self.buffer = buffer

    @property
    def name(self) -> str:
        """The buffer's name in TVMScript."""
        return str(self.buffer.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The extent of each dimension, in elements."""
        return tuple(int(extent) for extent in self.buffer.shape)

    @property
    def dtype(self) -> str:
        """The type of the elements, `float32` for one."""
        return str(self.buffer.dtype)

    def __getitem__(self, at: BufferIndex) -> Expr:
        return self.buffer[at]

    def __setitem__(self, at: BufferIndex, value: Expr | float) -> None:
        stored = const(value, self.dtype) if isinstance(value, int | float) else value
        T.buffer_store(self.buffer, stored, [*at] if isinstance(at, tuple) else [at])

    def view(self, name: str, *shape: int, dtype: str | None = None) -> Buffer:
        """The buffer's memory under another shape, or as elements of another type."""
        other = T.decl_buffer(shape, dtype or self.dtype, data=self.buffer.data)
        return Buffer(IRBuilder.name(name, other))

    def address(self, *at: Expr | int) -> Expr:
        """Where the element at an index lies in memory."""
        return T.address_of(self.buffer[at])


def allocated(name: str, *shape: int, dtype: str = "float32", scope: str = "global") -> Buffer:
    """A new buffer of the scope; what it holds at first is left open."""
    return Buffer(IRBuilder.name(name, T.alloc_buffer(shape, dtype, scope=scope)))


@dataclass(frozen=True)
class Argument:
    """A buffer that a kernel's function is called with: its name, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


def function(
    body: Callable[..., None], arguments: Iterable[Argument], attributes: Mapping[str, Any]
) -> PrimFunc:
    """The function that `body` writes; it is given a buffer for each of the arguments.

    No two of them share memory.
    """
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({"tirx.noalias": True, **attributes})
        buffers = [
            Buffer(T.arg(argument.name, T.buffer(argument.shape, argument.dtype)))
            for argument in arguments
        ]
        with T.sblock("root"):
            body(*buffers)
    return builder.get()


@contextmanager
def serial(name: str, extent: Expr | int, *, unroll: bool | None = None) -> Iterator[Expr]:
    """A loop; with `unroll` the compiler of machine code is asked to write it out, or not to."""
    with T.serial(extent, unroll=unroll) as index:
        yield IRBuilder.name(name, index)


@contextmanager
def parallel(name: str, extent: Expr | int) -> Iterator[Expr]:
    """A loop whose turns the threads of a CPU share."""
    with T.parallel(extent) as index:
        yield IRBuilder.name(name, index)


@contextmanager
def vectorized(name: str, lanes: int) -> Iterator[Expr]:
    """The lanes of a vector, all at once."""
    with T.vectorized(lanes) as lane:
        yield IRBuilder.name(name, lane)


@contextmanager
def unrolled(names: str, *extents: int) -> Iterator[tuple[Expr, ...]]:
    """Nested loops, written out; `names` holds the name of each, between spaces."""
    with ExitStack() as stack:
        yield tuple(
            IRBuilder.name(name, stack.enter_context(T.unroll(extent)))
            for name, extent in zip(names.split(), extents, strict=True)
        )


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """What runs only where `condition` holds."""
    with T.If(condition), T.Then():
        yield
