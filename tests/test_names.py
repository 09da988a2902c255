"""One name, one thing: what bears a name of another thing is found here."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import vggc

PACKAGE = Path(vggc.__file__).parent

ONE_CONCEPT = {
    # What is computed, as an op of the graph, as the work of a kernel, as a layer of the language.
    *("Add", "AvgPool", "Concat", "Conv", "Lrn", "PRelu", "Softmax"),
    *("Head", "Layer"),  # of a net, as it is written and as it is built
    "Array",  # of numpy
    "Emitter",  # writes the body of a kernel; those of fewer bits are kinds of one
    "Pair",  # rows and columns
}


def named() -> Iterator[tuple[str, str]]:
    """The classes and type aliases of the package, each with its module."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            match node:
                case ast.ClassDef(name=name):
                    yield name, str(path.relative_to(PACKAGE))
                case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                    yield name, str(path.relative_to(PACKAGE))


def test_no_name_stands_for_two_things() -> None:
    places = defaultdict(list)
    for name, place in named():
        places[name].append(place)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice.keys() <= ONE_CONCEPT, {n: twice[n] for n in twice.keys() - ONE_CONCEPT}
    assert twice.keys() >= ONE_CONCEPT, "take out those that stand for one thing by now"
