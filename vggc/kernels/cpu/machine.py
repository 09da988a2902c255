"""The facts about a CPU that decide the shape of a register tile."""

from __future__ import annotations

from dataclasses import dataclass

import tvm


@dataclass(frozen=True)
class Machine:
    """A CPU's vector registers: how many, and how many float32 lanes in each."""

    lanes: int
    registers: int

    @classmethod
    def of(cls, target: tvm.target.Target) -> Machine:
        """The vector registers that code generated for `target` may use."""
        has_feature = tvm.get_global_func("target.target_has_feature")
        match target.attrs.get("mtriple", ""):
            case str(triple) if triple.startswith(("aarch64", "arm64")):
                return cls(lanes=4, registers=32)
            case _ if has_feature("avx512f", target):
                return cls(lanes=16, registers=32)
            case _ if has_feature("avx2", target):
                return cls(lanes=8, registers=16)
            case _:
                return cls(lanes=4, registers=16)
