"""Nets small enough for every test."""

from __future__ import annotations

from pathlib import Path

from vggc.ir.graph import Graph
from vggc.program import Program
from vggc.support.source import Source
from vggc.syntax.parse import parse

TINY = """
net tiny
input 3x16x16

  conv3-8 ×2 | pool
| conv3-16 | lrn | pool
| (fc-24 | dropout) ×2
| fc-10 | softmax
"""


def program(text: str) -> Program:
    return Program(parse(Source("test.vgg", text)))


def graph_of(body: str, input_: str = "3x13x11") -> Graph:
    """The graph of a chain of layers."""
    graph = program(f"net sample input {input_}\n{body}").graph
    graph.verify()
    return graph


def compile_tiny(folder: Path, *batches: int) -> None:
    """Writes the artifact of the tiny net for some batches."""
    compile_net(program(TINY), folder, *batches, classes=tuple("abcdefghij"))


def compile_net(net: Program, folder: Path, *batches: int, classes: tuple[str, ...] = ()) -> None:
    """Writes the artifact of a net with random weights for some batches."""
    from vggc.api.trained import from_spec
    from vggc.compiler.pipeline import Job, build_artifact
    from vggc.compiler.targets import resolve

    subject = from_spec(net, None, seed=0)
    job = Job(
        net.net,
        net.graph,
        resolve("cpu"),
        batches,
        subject.weights,
        subject.weights_from,
        subject.preprocessing,
        classes,
    )
    build_artifact(job, folder)
