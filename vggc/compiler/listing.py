"""What the stages of compiling make, as text that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from vggc.compiler.error_budget import Allotment, Offer
from vggc.compiler.quantize import Tensors, ValueRange
from vggc.compiler.relax import Lowered
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Activation, Op, describe
from vggc.kernels.workloads import Choice, Layout, Map, Workload
from vggc.passes.fold import Folded
from vggc.plan.plan import INPUT, Plan
from vggc.runtime.artifact import ChosenBy
from vggc.support.tensors import Pieces

LAYOUTS = ("input", "inputs", "output", "source", "batch")
"""What a workload says of layouts; the plan shows it in columns of its own."""


def folded(made: Folded) -> Mapping[str, str]:
    """Files that show the folded graph, and which normalisations went into which of its nodes."""
    rows = [(name, ", ".join(n.name for n in norms)) for name, norms in made.absorbed.items()]
    table = aligned(("node", "normalisations in it"), rows)
    return {"graph.txt": graph(made.graph)} | ({"absorbed.txt": table} if rows else {})


def graph(shown: Graph) -> str:
    """A graph as a table, a row a node: what it computes, reads and gives, and its weights."""
    rows = [
        (
            str(index),
            node.name,
            told(node.op),
            " ".join(map(str, node.inputs)),
            describe(node.shape),
            _weights(shown, node),
        )
        for index, node in enumerate(shown.nodes)
    ]
    heads = ", ".join(f"{head.name} = {head.node}" for head in shown.heads)
    table = aligned(("node", "name", "op", "reads", "gives", "weights"), rows)
    return f"{shown.name}: {heads}\n\n{table}"


def graphs(shown: Iterable[Graph]) -> Mapping[str, str]:
    """Files that show the graphs for each size of images."""
    return {"graph.txt": "\n".join(map(graph, shown))}


def plans(shown: Iterable[Plan]) -> Mapping[str, str]:
    """Files that show the plans of each size and batch."""
    return {"plan.txt": "\n".join(map(plan, shown))}


def plan(shown: Plan) -> str:
    """A plan as a table, a row a kernel call: the workload, what it reads and writes and how that
    lies in memory.
    """
    rows = [
        (
            str(index),
            step.layer,
            step.name,
            told(step.workload),
            " ".join("x" if read == INPUT else str(read) for read in step.reads),
            layout(step.output),
            " ".join(step.weights),
        )
        for index, step in enumerate(shown.steps)
    ]
    heads = ", ".join(f"{output.name} = {output.step}" for output in shown.outputs)
    header = ("step", "layer", "gives", "workload", "reads", "writes", "weights")
    what = f"batch {shown.batch} of {describe(shown.input)}"
    return f"{shown.net}, {what}: {heads}\n\n{aligned(header, rows)}"


def told(shown: Op | Workload) -> str:
    """An op or a workload in a few words, without layouts and without fields at their defaults:
    `Conv kernel=3×3`.
    """
    words = [type(shown).__name__]
    for field in fields(shown):
        value = getattr(shown, field.name)
        if field.name not in LAYOUTS and value != field.default:
            words.append(f"{field.name}={_value(value)}")
    return " ".join(words)


def layout(shown: Layout) -> str:
    """How a value lies in memory: `map 1×56×56×256 halo 1`, rows, and the format."""
    if not isinstance(shown, Map):
        return f"rows {describe(shown)}"
    size = describe((shown.batch, shown.height, shown.width, shown.channels))
    halo = f" halo {shown.halo}" if shown.halo else ""
    form = "" if shown.format == "float32" else f" {shown.format}"
    zero = f" zero {shown.zero}" if shown.zero else ""
    room = f" room {shown.room}" if shown.room else ""
    return f"map {size}{halo}{form}{zero}{room}"


def allotments(found: Mapping[str, Allotment]) -> Mapping[str, str]:
    """Files that show, of each variant, what each algorithm would add to the error, and what a
    layer may add.
    """
    return {_named("error", arch): allotment(may) for arch, may in found.items()}


def allotment(may: Allotment) -> str:
    """What each algorithm would add to the error, as a table, and what a layer may add."""
    rows = [
        (
            told(each),
            " ".join(map(layout, each.inputs)),
            layout(each.output),
            algorithm,
            f"{min(offer.cost[0] for offer in alike):.4g}",
            f"{alike[0].error:.2g}",
            "yes" if alike[0].error <= may.share else "no",
            str(sum(len(offer.choices) for offer in alike)),
            str(len(alike)),
        )
        for each, offers in may.offers.items()
        for algorithm, alike in _by_algorithm(offers).items()
    ]
    header = (
        *("workload", "reads", "writes", "algorithm"),
        *("least cost", "adds", "within", "choices", "packings"),
    )
    budget = f"The net may add {may.budget:g}, and a layer {may.share:.3g}.\n\n"
    return budget + aligned(header, rows)


def _by_algorithm(offers: Iterable[Offer]) -> dict[str, list[Offer]]:
    found: dict[str, list[Offer]] = {}
    for offer in offers:
        found.setdefault(offer.choice.algorithm, []).append(offer)
    return found


def choices(
    plans: Iterable[Plan],
    made: Mapping[Workload, Choice],
    by: Mapping[Workload, ChosenBy],
    arch: str = "",
) -> Mapping[str, str]:
    """Files that show the algorithm and knobs of each step of each size and batch, and who chose
    them, for one variant.
    """
    rows = []
    for plan in plans:
        for index, step in enumerate(plan.steps):
            choice = made.get(step.workload)
            knobs = " ".join(f"{name}={value}" for name, value in choice.knobs) if choice else ""
            algorithm = choice.algorithm if choice else ""
            where = (str(plan.batch), describe(plan.input), str(index), step.name)
            rows.append((*where, algorithm, knobs, by[step.workload]))
    header = ("batch", "of", "step", "gives", "algorithm", "knobs", "chosen by")
    return {_named("choices", arch): aligned(header, rows)}


def _named(page: str, arch: str) -> str:
    """The name of the file of a page on a variant."""
    return f"{page}-{arch}.txt" if arch else f"{page}.txt"


def kernels(code: Lowered) -> Mapping[str, str]:
    """Files that show each kernel, and the functions that call them, as TVMScript."""
    return {
        f"{variable.name_hint}.py": str(function.script())
        for variable, function in code.module.functions.items()
    }


def ranges(found: Mapping[str, ValueRange]) -> Mapping[str, str]:
    """Files that show where each value that int8 rounds is cut off."""
    rows = [(name, f"{each.limit:.6g}", f"{each.means.mean():.6g}") for name, each in found.items()]
    return {"ranges.txt": aligned(("value", "limit", "mean"), rows)} if rows else {}


def tensors(found: Tensors) -> Mapping[str, str]:
    """Files that show the weights that the plan takes, before they are packed."""
    rows = [(name, describe(each.shape), str(each.dtype)) for name, each in found.items()]
    return {"weights.txt": aligned(("weight", "shape", "type"), rows)}


def pieces(packed: Mapping[str, Pieces]) -> Mapping[str, str]:
    """Files that show the weights as kernels read them, packed."""
    rows = [
        (name, describe(each.shape), str(each.dtype), f"{each.bytes:,}")
        for name, each in packed.items()
    ]
    return {"packed.txt": aligned(("weight", "shape", "type", "bytes"), rows)}


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text, its columns as wide as they must be."""
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def _weights(shown: Graph, node: Node) -> str:
    return " ".join(
        f"{weight.role} {describe(weight.shape)}" for weight in shown.weights(node).values()
    )


def _value(value: Any) -> str:
    match value:
        case tuple():
            return describe(value)
        case Activation():
            return told(value).replace("Activation function=", "")
        case _:
            return str(value)
