"""The facts about a CPU that decide the shape of a register tile."""

from __future__ import annotations

from dataclasses import dataclass

import tvm

FLOAT = 4
"""The bytes of a float32."""

LINE = 64
"""The bytes of memory that are fetched at once."""

SHARED_CACHE = 16 << 20
"""What several cores share a cache of, in bytes: what is usual."""

MEMORY_OF_CORE, MEMORY_OF_ALL = 3.0, 16.0
"""Bytes a half cycle that memory gives to one core, and to all cores together: what is usual."""


@dataclass(frozen=True)
class Machine:
    """A CPU's vector registers: how many, and how many float32 lanes in each; and its cores.

    `cache` is what one core has for itself, in bytes: what is usual beside such registers.
    """

    lanes: int
    registers: int
    cache: int = 256 << 10
    cores: int = 1

    def delivery(self, size: int) -> float:
        """The bytes a half cycle in which a core gets what lies among `size` bytes.

        All cores read at once: they share the memory, but caches grow with their number.
        """
        if size <= self.cache:
            return 32.0
        if size <= SHARED_CACHE:
            return 8.0
        return min(MEMORY_OF_CORE, MEMORY_OF_ALL / self.cores)

    @classmethod
    def of(cls, target: tvm.target.Target) -> Machine:
        """The machine that code generated for `target` may use."""
        has_feature = tvm.get_global_func("target.target_has_feature")
        cores = int(target.attrs.get("num-cores", 1))
        for feature, lanes, registers, cache in (
            ("avx512f", 16, 32, 1 << 20),
            ("avx2", 8, 16, 256 << 10),
            ("neon", 4, 32, 512 << 10),
        ):
            if has_feature(feature, target):
                return cls(lanes, registers, cache, cores)
        return cls(lanes=4, registers=16, cores=cores)
