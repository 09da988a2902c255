"""One name, one thing: what bears a name of another thing is found here."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import vggc

PACKAGE = Path(vggc.__file__).parent

ONE_CONCEPT = {
    # What is computed, as an op of the graph, as the work of a kernel, as a layer of the language.
    *("Add", "AvgPool", "Concat", "Conv", "DepthToSpace", "GroupNorm", "LayerNorm", "Lrn", "Mul"),
    *("PRelu", "Shuffle", "StochasticPool", "Softmax", "Softmax2d", "Take", "Upsample"),
    *("Head", "Layer"),  # of a net, as it is written and as it is built
    "Emitter",  # writes the body of a Winograd kernel; those of fewer bits are kinds of one
}


def at_the_top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """What a module defines, under a condition too."""
    for node in body:
        match node:
            case ast.If(body=then, orelse=otherwise):
                yield from at_the_top([*then, *otherwise])
            case ast.Try(body=then):
                yield from at_the_top(then)
            case _:
                yield node


def is_type(name: str, value: ast.expr | None) -> bool:
    """A type is written `LikeThis`; one letter stands for any type."""
    is_variable = isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar"
    return len(name) > 1 and (is_variable or re.fullmatch("_?[A-Z].*[a-z].*", name) is not None)


def defined(text: str, module: str) -> Iterator[tuple[str, str]]:
    """The names of classes, of types and of what is imported under another name, and what bears
    each: what has the same words here is one thing.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield name, f"{module}.{name}"
            case ast.ImportFrom(module=source, names=names):
                for each in names:
                    if each.asname and each.asname != each.name:
                        yield each.asname, f"{source}.{each.name}"
            case ast.Import(names=names):
                for each in names:
                    if each.asname:
                        yield each.asname, each.name
    for statement in at_the_top(tree.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_type(name, value):
                yield name, f"{module}.{name}"
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if is_type(name, value):
                yield name, f"{module}.{name}"


def modules() -> dict[str, str]:
    """The text of each module."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file.read_text("utf-8")
        for file in files
    }


def twice(texts: dict[str, str]) -> dict[str, list[str]]:
    """The names that stand for several things, packages among them."""
    things = defaultdict(set)
    for file in PACKAGE.glob("*/__init__.py"):
        things[file.parent.name].add(f"vggc.{file.parent.name}")
    for module, text in texts.items():
        for name, thing in defined(text, module):
            things[name].add(thing)
    return {name: sorted(found) for name, found in things.items() if len(found) > 1}


def test_no_name_stands_for_two_things() -> None:
    found = twice(modules())
    assert found.keys() <= ONE_CONCEPT, {n: found[n] for n in found.keys() - ONE_CONCEPT}
    assert found.keys() >= ONE_CONCEPT, "take out those that stand for one thing by now"


@pytest.mark.parametrize(
    "text",
    [
        "class Thing: ...",
        "def function():\n    class Thing: ...",
        "Thing = tuple[int, int]",
        "Thing: TypeAlias = int",
        "Thing = TypeVar('Thing')",
        "if TYPE_CHECKING:\n    Thing = int",
        "from vggc.ir.graph import Graph as Thing",
        "def function():\n    from rich.table import Table as Thing",
    ],
)
def test_however_a_name_is_given_it_is_seen(text: str) -> None:
    assert "Thing" in twice({"vggc.one": "class Thing: ...", "vggc.other": text})


@pytest.mark.parametrize(
    "text", ["import numpy as np", "T = TypeVar('T')", "MOST = 3", "from vggc.ir import ops as o"]
)
def test_what_is_the_same_in_two_modules_is_one_thing(text: str) -> None:
    assert twice({"vggc.one": text, "vggc.other": text}) == {}


def test_a_class_is_imported_by_its_own_name() -> None:
    texts = modules()
    classes = {
        thing
        for module, text in texts.items()
        for name, thing in defined(text, module)
        if thing == f"{module}.{name}"
    }
    renamed = {
        f"{thing} as {name}"
        for module, text in texts.items()
        for name, thing in defined(text, module)
        if thing in classes and not thing.endswith(f".{name}")
    }
    assert renamed == set()
