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
        for feature, lanes, registers in (
            ("avx512f", 16, 32),
            ("avx2", 8, 16),
            ("neon", 4, 32),
        ):
            if has_feature(feature, target):
                return cls(lanes, registers)
        return cls(lanes=4, registers=16)
