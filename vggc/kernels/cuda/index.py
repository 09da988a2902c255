"""Arithmetic on indices that a kernel does and that says beforehand what a kernel will touch.

An index is an expression of TVM where a kernel is written, and an array of numbers where somebody
asks which bytes the kernel's blocks read and write (`accesses.py`). Both take the same functions.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tvm.tirx import Expr
from tvm.tirx.script import builder as T

IndexArray: TypeAlias = NDArray[np.int64]
Position: TypeAlias = "Expr | IndexArray"


def at_most(index: Position, bound: int) -> Position:
    """The index, or the bound where it is larger."""
    return np.minimum(index, bound) if isinstance(index, np.ndarray) else T.min(index, bound)


def both(first: Position, second: Position) -> Position:
    """Whether two conditions hold."""
    if isinstance(first, np.ndarray):
        return np.logical_and(first, second)
    return T.And(first, second)


def either(condition: Position, then: Position, otherwise: Position) -> Position:
    """One of two indices: the second where the condition does not hold."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, then, otherwise)
    return T.Select(condition, then, otherwise)
