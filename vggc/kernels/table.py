"""The table of algorithms in docs/kernels.md.

`python -m vggc.kernels.table docs/kernels.md` writes it anew, after an algorithm was added.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin

from vggc.kernels import cpu, cuda
from vggc.kernels.algorithm import Algorithm

BEGIN, END = "<!-- made by vggc/kernels/table.py -->", "<!-- to here -->"
PACKAGE = Path(__file__).parents[1]


def markdown(algorithms: tuple[type[Algorithm[Any, Any]], ...]) -> str:
    """A Markdown table, a row for each algorithm: its names, what it applies to, how, its knobs and
    its file.
    """
    lines = ["| algorithm | applies to | how | knobs | file |", "| --- | --- | --- | --- | --- |"]
    for algorithm in algorithms:
        names = ", ".join(f"`{name}`" for name in algorithm.names)
        knobs = ", ".join(knobs_of(algorithm)) or "none"
        path = Path(inspect.getfile(algorithm)).relative_to(PACKAGE)
        file = f"[`{path.name}`](../vggc/{path.as_posix()})"
        lines.append(
            f"| {names} | {applies_to(algorithm)} | {first(algorithm)} | {knobs} | {file} |"
        )
    return "\n".join(lines)


def applies_to(algorithm: type[Algorithm[Any, Any]]) -> str:
    """What an algorithm's `applies` says it applies to, or else the kinds of workloads."""
    told = first(algorithm.applies)
    if told != first(Algorithm.applies):
        return told
    kinds = algorithm.computes if isinstance(algorithm.computes, tuple) else (algorithm.computes,)
    return ", ".join(f"`{kind.__name__}`" for kind in kinds)


def first(documented: object) -> str:
    """The first paragraph of a docstring, without its full stop."""
    paragraph = (inspect.getdoc(documented) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).removesuffix(".")


def knobs_of(algorithm: type[Algorithm[Any, Any]]) -> Iterator[str]:
    """The names of an algorithm's knobs."""
    for base in algorithm.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            found = get_args(generic)[1:] if get_origin(generic) else ()
            if found and isinstance(found[0], type):
                yield from (f"`{field.name}`" for field in fields(found[0]))
                return


def written(text: str) -> str:
    """The text of docs/kernels.md with the tables of today in the place of its own."""
    for algorithms in (cpu.ALGORITHMS, cuda.ALGORITHMS):
        kind = algorithms[0].__module__.split(".")[2]
        begin = BEGIN.replace(" -->", f", {kind} -->")
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(END)
        text = f"{head}{begin}\n{markdown(algorithms)}\n{END}{tail}"
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text("utf-8")), "utf-8")
