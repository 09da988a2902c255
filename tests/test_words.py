"""Words of the code: what is public has a docstring, and docstrings stand by themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import vggc
import vggc_runtime

PACKAGES = [Path(package.__file__).parent for package in (vggc, vggc_runtime)]

LEANING = (
    *("Those", "The same", "That", "As", "Of", "Its", "Their", "These", "Also", "It", "They"),
    *("Them", "By", "Over", "Others", "The others", "Else", "Otherwise", "And", "Or", "But"),
)
"""Openers of a text that means something only beside another."""


@dataclass(frozen=True)
class Class:
    """A class of the package and the module that defines it."""

    module: str
    node: ast.ClassDef

    def bases(self) -> Iterator[Class | None]:
        """None stands for a base of another package."""
        for base in self.node.bases:
            yield class_of(self.module, base.value if isinstance(base, ast.Subscript) else base)

    def ancestors(self) -> Iterator[Class | None]:
        for base in self.bases():
            yield base
            if base is not None:
                yield from base.ancestors()

    def names(self) -> set[str]:
        return {self.node.name} | {each.node.name for each in self.ancestors() if each}

    def members(self) -> Iterator[ast.FunctionDef]:
        return (node for node in self.node.body if isinstance(node, ast.FunctionDef))

    def documents(self, member: str) -> bool:
        return any(each.name == member and ast.get_docstring(each) for each in self.members())


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return found


@cache
def names_in(module: str) -> dict[str, str]:
    """What the names of a module's classes and imports stand for: `module` or `module.name`."""
    found = {}
    for node in ast.walk(modules()[module]):
        match node:
            case ast.ImportFrom(module=str(source), names=names):
                found |= {each.asname or each.name: f"{source}.{each.name}" for each in names}
            case ast.Import(names=names):
                found |= {each.asname or each.name: each.name for each in names}
            case ast.ClassDef(name=name):
                found[name] = f"{module}.{name}"
    return found


def class_of(module: str, expression: ast.expr) -> Class | None:
    """The class of the package that an expression in a module stands for, if it is one."""
    first, *rest = ast.unparse(expression).split(".")
    full = ".".join([names_in(module).get(first, ""), *rest])
    place, _, name = full.rpartition(".")
    if place not in modules():
        return None
    for node in modules()[place].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Class(place, node)
    again = names_in(place).get(name, full)
    return None if again == full else class_of(place, ast.Name(name))


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def said_by_protocols(package: str) -> set[str]:
    """The members that protocols of a package document, for all classes that have their shape."""
    found = set()
    for name, tree in modules().items():
        for node in tree.body:
            if package_of(name) == package and isinstance(node, ast.ClassDef):
                protocol = Class(name, node)
                if "Protocol" in map(ast.unparse, node.bases):
                    found |= {each.name for each in protocol.members() if ast.get_docstring(each)}
    return found


def is_overload(function: ast.FunctionDef) -> bool:
    """Whether it is one of the signatures of a function that is documented itself."""
    return any("overload" in ast.unparse(each) for each in function.decorator_list)


def is_said_elsewhere(owner: Class, member: ast.FunctionDef) -> bool:
    """Whether a base or a protocol tells what a member does, or another overload of it."""
    without_words = {"ABC", "Exception", "Generic", "NamedTuple", "Protocol"}
    bases = [ast.unparse(each).split("[")[0] for each in owner.node.bases]
    return (
        any(each.documents(member.name) for each in owner.ancestors() if each)
        or (None in owner.ancestors() and not set(bases) <= without_words | owner.names())
        or member.name in said_by_protocols(package_of(owner.module))
        or is_overload(member)
    )


def without_docstring(module: str, tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) if not name.startswith("_"):
                if not ast.get_docstring(node) and not is_overload(node):
                    yield f"{module}.{name}"
            case ast.ClassDef(name=name) if not name.startswith("_"):
                owner = Class(module, node)
                if "Diagnostic" in owner.names():  # its text is its documentation
                    continue
                if not ast.get_docstring(node) and "Kind" not in owner.names():  # as is its `doc`
                    yield f"{module}.{name}"
                for each in owner.members():
                    is_told = ast.get_docstring(each) or is_said_elsewhere(owner, each)
                    if not each.name.startswith("_") and not is_told:
                        yield f"{module}.{name}.{each.name}"


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text that stands alone in a module, with its line: docstrings, and those of fields."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text)), lineno=line):
                yield line, text


def test_what_is_public_has_a_docstring() -> None:
    missing = [
        name for module, tree in modules().items() for name in without_docstring(module, tree)
    ]
    assert not missing


def test_docstrings_stand_by_themselves() -> None:
    leaning = re.compile(rf"\s*({'|'.join(LEANING)})\b")
    found = {
        f"{module}:{line}": text
        for module, tree in modules().items()
        for line, text in texts(tree)
        if leaning.match(text)
    }
    assert not found
