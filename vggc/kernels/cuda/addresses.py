"""Addresses of global memory that go on while a kernel runs, for copies that follow one another.

What copies cost beside themselves is the arithmetic of their addresses. An instruction adds to an
address in registers a distance of its own, of 12 bits with a sign: copies that lie within 2 KB to
either side share an address, and it moves on once for all of them.
"""

from __future__ import annotations

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer
from vggc.kernels.cuda.emit import registers

REACH = 1 << 12
"""The bytes about an address that an instruction reaches."""

ADDRESS = """
__forceinline__ __device__ unsigned long long vggc_address(const void* pointer) {
  return (unsigned long long)pointer;
}
"""


class RunningAddresses:
    """Some addresses that a thread holds in registers, and that go on together."""

    def __init__(self, name: str, count: int) -> None:
        self._count = count
        self._held = registers(name, count, dtype="uint64")

    def start(self, number: int, buffer: Buffer, index: Expr) -> None:
        """The address of a number is that of an element of a buffer."""
        place = buffer.address(index)
        self._held[number] = T.cuda.func_call(
            "vggc_address", place, source_code=ADDRESS, return_type="uint64"
        )

    def at(self, number: int, distance: int = 0) -> Expr:
        """The place so many bytes behind the address of a number."""
        far = T.uint64(abs(distance))
        return self._held[number] - far if distance < 0 else self._held[number] + far

    def go_on(self, distance: Expr | int) -> None:
        """Moves all addresses on by so many bytes, 0 or more."""
        for number in range(self._count):
            self._held[number] += T.Cast("uint64", T.Cast("uint32", distance))
