"""A dataclass of many fields is built with keywords: nobody counts arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import vggc

PACKAGE = Path(vggc.__file__).parent
FEW = 5
"""So many fields may be given in order."""

PACKAGES = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})


@cache
def tree(module: str) -> ast.Module:
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@cache
def names_in(module: str) -> Mapping[str, tuple[str, str]]:
    """What the names of a module stand for: a module, and a class in it or nothing."""
    found = {}
    for node in ast.walk(tree(module)):
        match node:
            case ast.ImportFrom(module=str(source), names=names) if source.startswith("vggc"):
                for each in names:
                    inner = f"{source}.{each.name}"
                    meant = (inner, "") if is_module(inner) else (source, each.name)
                    found[each.asname or each.name] = meant
            case ast.ClassDef(name=name):
                found[name] = (module, name)
    return found


def meant_by(expression: ast.expr, module: str) -> tuple[str, str] | None:
    """The module and the class that `Name` or `module.Name` stands for, if it is one of ours."""
    match expression:
        case ast.Name(id=name):
            source, inner = names_in(module).get(name, ("", ""))
            return (source, inner) if inner else None
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            source, inner = names_in(module).get(owner, ("", "."))
            return (source, name) if not inner else None
    return None


@cache
def fields_of(module: str, name: str) -> dict[str, bool]:
    """The fields of a dataclass, its bases' first, and whether each may be given in order; none of
    another class.
    """
    classes = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]
    node = next((each for each in classes if each.name == name), None)
    if node is None:
        meant = names_in(module).get(name)
        return fields_of(*meant) if meant and meant[1] and meant != (module, name) else {}
    bases = [found for base in node.bases if (found := meant_by(base, module))]
    inherited = {name: free for base in bases for name, free in fields_of(*base).items()}
    how = [text for each in node.decorator_list if "dataclass" in (text := ast.unparse(each))]
    if not how:
        return inherited
    return inherited | {
        line.target.id: "kw_only=True" not in how[0]
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and not ast.unparse(line.annotation).startswith("ClassVar")
        and not (line.value and "init=False" in ast.unparse(line.value))
    }


def counted(module: str) -> Iterator[tuple[ast.Call, tuple[str, ...]]]:
    """The calls of a module that give a dataclass of many fields some of them in order, and those
    that may be given so.
    """
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and node.args and (meant := meant_by(node.func, module)):
            fields = fields_of(*meant) if is_module(meant[0]) else {}
            if len(fields) > FEW:
                yield node, tuple(name for name, free in fields.items() if free)


def modules(package: str) -> list[str]:
    """The modules of a package, which may be one itself."""
    inside = PACKAGE / package
    paths = sorted(inside.rglob("*.py")) if inside.is_dir() else [inside]
    parts = (path.relative_to(PACKAGE.parent).with_suffix("").parts for path in paths)
    return [".".join(each).removesuffix(".__init__") for each in parts]


@pytest.mark.parametrize("package", PACKAGES)
def test_many_fields_are_given_by_name(package: str) -> None:
    wrong = [
        f"{module}:{call.lineno} {ast.unparse(call.func)}"
        for module in modules(package)
        for call, _ in counted(module)
    ]
    assert not wrong
