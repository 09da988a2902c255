"""What commands take of memory, told before they take it.

Each is told as a sum whose largest part is the net's weights in float32, or what an artifact holds
of them. The numbers are measured: `python benchmarks/compile_memory.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from vggc.ir.graph import Graph
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.memory import free_memory, memory

GB = 1e9


class TooLarge(Diagnostic):
    title = "the net {net} is too large for this machine"
    label = (
        "{doing} takes about {needed:.1f} GB, and of {present:.1f} GB of memory {free:.1f} are free"
    )
    help = "that is {formula}; `vggc summary` shows which layer the weights are in"
    net: str
    doing: str
    needed: float
    present: float
    free: float
    formula: str


@dataclass(frozen=True)
class Need:
    """The most memory that a command takes, in bytes: `base` for the program and its libraries, and
    for each byte of the net's weights in float32, for each byte of an artifact's weights, for each
    op of the net (code, tables) and each value of a batch that its ops give.
    """

    doing: str
    base: float
    weights: float = 1.0
    stored: float = 0.0
    op: float = 0.0
    value: float = 0.0

    def bytes(self, graph: Graph, batch: int = 1, stored: int = 0) -> int:
        """The bytes that the command takes for a net and a batch; `stored` are those of an
        artifact's weights.
        """
        values = batch * sum(prod(node.shape) for node in graph.nodes)
        total = self.base + self.weights * weight_bytes(graph) + self.stored * stored
        return round(total + self.op * len(graph.nodes) + self.value * values)

    def formula(self, graph: Graph, batch: int = 1, stored: int = 0) -> str:
        """How the bytes that `bytes` gives come about, in words."""
        size, whole = weight_bytes(graph), self.bytes(graph, batch, stored)
        parts = []
        if self.weights:
            times = "" if self.weights == 1 else f"{self.weights:g} times "
            parts.append(f"{times}the {size / GB:.1f} GB of weights in float32")
        if self.stored:
            parts.append(f"the {stored / GB:.1f} GB of weights in the artifact")
        rest = whole - self.weights * size - self.stored * stored
        return ", ".join([*parts, f"and {rest / GB:.1f} GB"])

    def require(self, graph: Graph, batch: int = 1, stored: int = 0) -> None:
        """Raises: UserError when there is not so much memory that nobody uses."""
        needed, free = self.bytes(graph, batch, stored), free_memory()
        if needed > free:
            told = self.formula(graph, batch, stored)
            sizes = needed / GB, memory() / GB, free / GB
            raise UserError(TooLarge(graph.name, self.doing, *sizes, told))


def weight_bytes(graph: Graph) -> int:
    """The bytes of a net's weights in float32."""
    return 4 * sum(weight.size for weight in graph.all_weights.values())


LOADING = Need(doing="reading its weights", base=0.05e9)

EXPORTS = {
    "onnx": Need(doing="exporting it to ONNX", base=0.07e9),
    "pt2": Need(doing="exporting it to a torch.export program", base=0.37e9, op=0.2e6),
    "torchvision": Need(doing="writing its weights", base=0.055e9),
}

COMPILING = Need(doing="compiling it", base=0.265e9, weights=1.1, op=0.8e6)
COMPILING_CUDA = replace(COMPILING, base=0.33e9)
TENSOR_CORE_OP = 10e6
"""The bytes for each op of a net that is compiled for tensor cores, whose kernels are long."""
COMPILING_INT8 = replace(COMPILING, base=0.5e9, weights=1.3, value=4)
"""What compiling for int8 takes, whose images go through PyTorch."""
TUNING = Need(doing="tuning it", base=0.26e9, weights=0)

RUNNING = Need(doing="running it", base=0.135e9, weights=0, stored=1, value=2)
VERIFYING = Need(doing="verifying it", base=0.5e9, weights=3, stored=1, value=20)
TIMING = Need(doing="timing it", base=0.46e9, stored=1)
ENGINES = {"torch": 0.1, "torch-compile": 0.1}
"""How many times the weights other engines take beside those that all are given."""
OTHER_ENGINES = 2.0
"""How many times the weights engines take that read a file, of which they keep what they make."""
PROFILING = Need(doing="timing its layers", base=0.98e9, weights=0, stored=1, value=4)

TESTING = Need(doing="testing it", base=0.4e9)
INSPECTING = Need(doing="inspecting it", base=0.9e9, weights=1.1, value=12)
"""What a page on a net and an image takes: gradients of one image, and maps of several."""


def compiling(target: str, precision: str, entries: int = 1) -> Need:
    """What compiling for a target, as it is asked for, in a precision takes; each batch of each
    size of images has kernels of its own.
    """
    need = COMPILING if target == "cpu" else COMPILING_CUDA
    if precision == "int8":
        need = COMPILING_INT8
    op = need.op if target == "cpu" or precision == "float32" else TENSOR_CORE_OP
    return replace(need, op=entries * op)


def beside(engines: Iterable[str]) -> Need:
    """What timing an artifact beside these engines takes."""
    more = sum(ENGINES.get(name, OTHER_ENGINES) for name in engines)
    return replace(TIMING, weights=TIMING.weights + more)
