"""The table of algorithms: complete, told in docs/kernels.md, each algorithm by itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest

from vggc.kernels import cpu, cuda, table
from vggc.kernels.algorithm import Algorithm
from vggc.kernels.workloads import Workload

DOCS = Path(__file__).parents[2] / "docs"
ALGORITHMS: tuple[type[Algorithm[Any, Any]], ...] = (*cpu.ALGORITHMS, *cuda.ALGORITHMS)


def named(algorithm: type[Algorithm[Any, Any]]) -> str:
    return f"{algorithm.__module__}.{algorithm.__name__}"


def kinds(algorithm: type[Algorithm[Any, Any]]) -> set[type]:
    found = algorithm.computes
    return set(found if isinstance(found, tuple) else (found,))


def test_docs_show_the_table_of_today() -> None:
    text = (DOCS / "kernels.md").read_text("utf-8")
    assert text == table.written(text), "run `python -m vggc.kernels.table docs/kernels.md`"


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=named)
def test_an_algorithm_says_how_it_works(algorithm: type[Algorithm[Any, Any]]) -> None:
    assert algorithm.__doc__
    assert not algorithm.__doc__.startswith("The same")


@pytest.mark.parametrize("place", [cpu, cuda])
def test_every_kind_of_workload_has_an_algorithm(place: Any) -> None:
    assert set().union(*map(kinds, place.ALGORITHMS)) == set(get_args(Workload))


@pytest.mark.parametrize("place", [cpu, cuda])
def test_the_table_holds_every_algorithm_that_there_is(place: Any) -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    found = {each for each in below(Algorithm) if hasattr(each, "names")}
    inside = {each for each in found if each.__module__.startswith(place.__name__)}
    assert {each for each in inside if not inspect.isabstract(each)} == set(place.ALGORITHMS)


@pytest.mark.parametrize("place", [cpu, cuda])
def test_names_tell_the_algorithms_of_a_workload_apart(place: Any) -> None:
    for kind in get_args(Workload):
        names = [name for each in place.ALGORITHMS if kind in kinds(each) for name in each.names]
        assert len(set(names)) == len(names), kind
