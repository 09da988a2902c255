"""Which code a measurement is of: a hash that changes when the algorithms' code does."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vggc.kernels.algorithm import Algorithm

MEASURING = 2
"""To be raised when seconds are measured in another way and do not compare with those before."""
PACKAGE = "vggc.kernels"


def revision(algorithms: Sequence[Algorithm[Any, Any]]) -> str:
    """A hash that tells the code of algorithms, and of everything that it is made with, from other
    code.

    Comments, docstrings and layout make no difference; that of one algorithm to another's does,
    where they share code.
    """
    return _revision(tuple(sorted({type(algorithm).__module__ for algorithm in algorithms})))


@cache
def _revision(modules: tuple[str, ...]) -> str:
    texts = "\0".join([str(MEASURING), *(_code(name) for name in closure(modules))])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def closure(modules: tuple[str, ...]) -> list[str]:
    """The names of modules and of all those of the kernels that they import, sorted."""
    found: set[str] = set()
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(name)
    return sorted(found)


def _imported(name: str) -> Iterator[str]:
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _is_module(inner) else str(node.module)


@cache
def _is_module(name: str) -> bool:
    package = find_spec(name.rpartition(".")[0])
    is_package = package is not None and package.submodule_search_locations is not None
    return is_package and find_spec(name) is not None


@cache
def _tree(name: str) -> ast.Module:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def _code(name: str) -> str:
    return ast.unparse(_WithoutText().visit(_tree(name)))


class _WithoutText(ast.NodeTransformer):
    """Leaves out what stands for nothing but its reader."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node
