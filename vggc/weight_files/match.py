"""Which tensor of a file is which weight of a net: by names that are known, else by order and
shape. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import isqrt, prod
from pathlib import Path

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, Flatten, Linear, Misfit, Shape, Weight
from vggc.support.diagnostics import UserError, in_command, nearest
from vggc.weight_files import diagnostics
from vggc.weight_files.names import OWN, NameStyle, styles
from vggc.weight_files.order import (
    Alignment,
    FileModule,
    Fits,
    TooManySteps,
    WeightedNode,
    by_tree,
    file_modules,
    fits,
    fits_roughly,
    has_shape,
    in_sequence,
    weighted_nodes,
)
from vggc.weight_files.weight_file import WeightFile, is_counter

AUXILIARY = ("aux1", "aux2", "AuxLogits", "aux_classifier")
"""Parts of published files that only train a net, which most nets of that name do not have."""
LARGEST_TRIED = 1024
"""Pixels of the largest images of which it is tried whether a file's net takes them."""


@dataclass(frozen=True)
class Match:
    """For each weight of a net its tensor in a file. `matched_by` says in words what they were
    known by, nothing for our own names; `left_out` what of the file is in no net.
    """

    places: Mapping[str, str]
    matched_by: str
    left_out: tuple[str, ...] = ()


def match(path: Path, graph: Graph, file: WeightFile) -> Match:
    """The tensors of a file for all weights of a net.

    Raises: UserError where one is missing, there twice, unknown, or of another shape.
    """
    found = _by_names(path, graph, file, graph.all_weights, whole=True) or _by_order(
        path, graph, file
    )
    check(path, graph, file, found.places, graph.all_weights)
    return found


def match_part(
    path: Path, graph: Graph, names: Iterable[str], other: Graph | None, file: WeightFile
) -> Match:
    """The tensors of a file for some weights of a net; `other` is the net that the file is of,
    which has weights of the same names, where that net is known.

    Raises: UserError, as `match` does, but for tensors that are of none of these weights.
    """
    wanted = {name: graph.all_weights[name] for name in names}
    source = other or graph
    if not wanted.keys() <= source.all_weights.keys():
        source = graph
    found = _by_names(path, source, file, wanted, whole=False)
    if found is None:
        found = _by_order_of(source, file, wanted) or _by_order(path, source, file)
    places = {name: found.places[name] for name in wanted}
    check(path, graph, file, places, wanted)
    return Match(places, found.matched_by, found.left_out)


def check(
    path: Path,
    graph: Graph,
    file: WeightFile,
    places: Mapping[str, str],
    wanted: Mapping[str, Weight],
) -> None:
    """Raises: UserError unless tensors have the shapes of their weights, and are of floats."""
    for name, weight in wanted.items():
        tensor = file.tensors[places[name]]
        if not has_shape(weight.shape, tensor.shape):
            raise misshapen(path, graph, file, name, weight, places[name])
        if not tensor.is_float:
            reason = (
                f"the tensor `{tensor.name}` is of type {tensor.kind}, not of floats of 16 to 64"
                " bits"
            )
            raise UserError(diagnostics.WeightsUnreadable(str(path), reason))


# By names


def _by_names(
    path: Path, graph: Graph, file: WeightFile, wanted: Mapping[str, Weight], whole: bool
) -> Match | None:
    """The tensors by the first style of names of which a file has all that are wanted; None where
    it has few of any.

    Raises: UserError where it has most of one, or of two.
    """
    known = styles(graph, file.flat_order == "HWC")
    if not known:
        return None
    counts = [sum(style.names[name] in file.tensors for name in wanted) for style in known]
    best = max(range(len(known)), key=lambda each: counts[each])
    style = known[best]
    places = {name: style.names[name] for name in wanted}
    _refuse_twice(path, graph, file, wanted, style, known)
    if counts[best] == len(wanted):
        left = _auxiliary(graph, file)
        if whole:
            _refuse_unknown(path, graph, file, {*places.values()}, left)
        return Match(places, "" if style.maker == OWN else f"{style.maker}'s names", left)
    if 2 * counts[best] <= len(wanted):
        return None
    missing = next(name for name, place in places.items() if place not in file.tensors)
    near = nearest(missing, file.tensors)
    hint = f"the nearest name in the file is `{near}`" if near else "is it of another net?"
    shape = str(wanted[missing].shape)
    raise UserError(diagnostics.WeightMissing(str(path), missing, graph.name, shape, hint))


def _refuse_twice(
    path: Path,
    graph: Graph,
    file: WeightFile,
    wanted: Iterable[str],
    style: NameStyle,
    known: Sequence[NameStyle],
) -> None:
    """Raises: UserError where a file has a tensor for a weight by two styles of names."""
    for name in wanted:
        for other in known:
            one, two = style.names[name], other.names[name]
            if one != two and {one, two} <= file.tensors.keys():
                native, foreign = (two, one) if other.maker == OWN else (one, two)
                maker = style.maker if other.maker == OWN else other.maker
                raise UserError(
                    diagnostics.WeightTwice(
                        path=str(path),
                        name=name,
                        net=graph.name,
                        native=native,
                        foreign=foreign,
                        style=maker,
                    )
                )


def _refuse_unknown(
    path: Path, graph: Graph, file: WeightFile, known: set[str], left_out: Sequence[str]
) -> None:
    """Raises: UserError where a file has a tensor that is none of these, of no auxiliary part and
    no counter.
    """
    for name in sorted(file.tensors.keys() - known):
        if not is_counter(name) and name.split(".", 1)[0] not in left_out:
            found = file.tensors[name].name
            raise UserError(diagnostics.WeightUnknown(str(path), found, graph.name))


def _auxiliary(graph: Graph, file: WeightFile) -> tuple[str, ...]:
    """The auxiliary parts of a file, where a net has one output."""
    found = {name.split(".", 1)[0] for name in file.tensors}
    return tuple(each for each in AUXILIARY if each in found) if len(graph.heads) == 1 else ()


# By order and shape


def _by_order(path: Path, graph: Graph, file: WeightFile) -> Match:
    """Raises: UserError where there is no order, or more than one."""
    parts, left = weighted_nodes(graph), _auxiliary(graph, file)
    modules = [m for m in file_modules(file.tensors) if m.name.split(".", 1)[0] not in left]
    try:
        order = _order(parts, modules, fits, file.in_order)
        if order is None:
            order = _order(parts, modules, fits_roughly, file.in_order)
            if order is None:
                raise different(path, graph, parts, modules)
        elif order.also:
            one, other = (each.name for each in order.also)
            place = next(p.name for p, m in zip(parts, order.modules, strict=True) if m.name == one)
            raise UserError(
                diagnostics.MatchUnclear(str(path), graph.name, place, one, other),
            )
    except TooManySteps:
        raise different(path, graph, parts, modules) from None
    return _matched(parts, order.modules, left)


def _order(
    parts: Sequence[WeightedNode], modules: Sequence[FileModule], fit: Fits, in_order: bool
) -> Alignment | None:
    found = in_sequence(parts, modules, fit) if in_order else None
    return found or by_tree(parts, modules, fit, in_order)


def _by_order_of(graph: Graph, file: WeightFile, wanted: Iterable[str]) -> Match | None:
    """The tensors of a file that has the first layers of a net only, such as those without what
    classifies, or such in which others follow; None where it is no such file.
    """
    nodes = {name.rpartition(".")[0] for name in wanted}
    parts, modules = weighted_nodes(graph), file_modules(file.tensors)
    count = 1 + max((i for i, part in enumerate(parts) if part.name in nodes), default=-1)
    if not file.in_order:
        return None
    order = in_sequence(parts[:count], modules[:count], fits)
    return _matched(parts[:count], order.modules, ()) if order else None


def _matched(
    parts: Sequence[WeightedNode], modules: Sequence[FileModule], left_out: tuple[str, ...]
) -> Match:
    places = {
        f"{part.name}.{role}": module.place(role)
        for part, module in zip(parts, modules, strict=True)
        for role in part.weights
    }
    ends = [f"{m.name} is {p.name}" for p, m in (zip(parts, modules, strict=True))]
    told = ", …, ".join(dict.fromkeys((ends[0], ends[-1])))
    return Match(places, f"order and shape ({told})", left_out)


# What is wrong, in words


def different(
    path: Path, graph: Graph, parts: Sequence[WeightedNode], modules: Sequence[FileModule]
) -> UserError:
    """The first place where the layers of a net and of a file differ."""
    for part, module in zip_longest(parts, modules):
        if part is None or module is None or not fits_roughly(part, module):
            break
    place = f"at `{part.name}`" if part else f"behind `{parts[-1].name}`" if parts else "at once"
    wanted = _shapes({r: w.shape for r, w in part.weights.items()}) if part else "nothing more"
    held = f"`{module.name}` with {_tensors(module)}" if module else "nothing more"
    counts = f"the net has {len(parts)} layers with weights, the file {len(modules)}"
    return UserError(
        diagnostics.LayersDiffer(
            path=str(path),
            net=graph.name,
            where=place,
            difference=f"the net needs {wanted}, the file holds {held}",
            hint=_why_different(part, module) or f"{counts}: is it of another net?",
        )
    )


def _why_different(part: WeightedNode | None, module: FileModule | None) -> str:
    if part is None or module is None:
        return ""
    match part.weights.keys() - module.tensors.keys(), module.tensors.keys() - part.weights.keys():
        case [missing, more] if missing == {"bias"} and not more:
            return "the file's layers have no bias: write `bias=off`"
        case [missing, more] if more == {"bias"} and not missing:
            return "the file's layers have a bias: write `bias=on`"
        case [_, more] if "running_var" in more:
            return "the file has a normalisation there: write `norm=batch`"
        case _:
            return ""


def _shapes(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{role} {shape}" for role, shape in shapes.items())


def _tensors(module: FileModule) -> str:
    shown = dict([*module.tensors.items()][:4])
    return _shapes({role: tensor.shape for role, tensor in shown.items()})


def misshapen(
    path: Path, graph: Graph, file: WeightFile, name: str, weight: Weight, place: str
) -> UserError:
    """A tensor of another shape than a weight, and the likely reason."""
    tensor = file.tensors[place]
    layer = name.rpartition(".")[0]
    node = next(node for node in graph.nodes if node.name == layer)
    return UserError(
        diagnostics.WeightMisshapen(
            path=str(path),
            name=tensor.name,
            layer=layer,
            net=graph.name,
            wanted=str(weight.shape),
            found=str(tensor.shape),
            hint=likely(graph, node, weight.shape, tensor.shape),
        )
    )


def likely(graph: Graph, node: Node, wanted: Shape, found: Shape) -> str:
    """Why a weight of a net has another shape in a file, most likely."""
    if wanted[1:] == found[1:] and _classifies(graph, node):
        return (
            f"the file's net tells {found[0]:,} classes apart: name the net with as many,"
            f" {in_command(f'{graph.name}(classes={found[0]})')}, or its file likewise"
        )
    if isinstance(node.op, Conv2d) and len(found) == 4:
        outputs, inputs, height, width = wanted
        if found == (width, height, outputs, inputs):
            return "its kernels are laid out as Theano's were, which vggc does not read"
        is_first = graph.source(node) == graph.input
        if is_first and found == (outputs, found[1], height, width):
            return f"the file's net reads images with {found[1]} in place of {inputs} channels"
    if isinstance(node.op, Linear) and (seen := flattened(graph, node)):
        channels, height, width = seen
        side = isqrt(prod(found[1:]) // channels)
        if found[0] == wanted[0] and side * side * channels == prod(found[1:]):
            return (
                f"the file's net sees maps of {side}x{side} here, this one of {height}x{width}:"
                f" it takes images of another size{_size_for(graph, node, side)}"
            )
    return "is the file of another net, another input size or another number of classes?"


def _classifies(graph: Graph, node: Node) -> bool:
    """Whether a layer is the last one with weights in front of an output."""
    index = graph.nodes.index(node)
    reached = {index}
    for later, each in enumerate(graph.nodes[index + 1 :], start=index + 1):
        if reached & {*each.inputs}:
            if each.op.weights(graph.source(each)):
                return False
            reached.add(later)
    return True


def _size_for(graph: Graph, node: Node, side: int) -> str:
    """How to ask for images of which a dense layer sees maps of that side, in words; nothing where
    no square ones of up to `LARGEST_TRIED` pixels are such.
    """
    flatten = next(i for i in _line(graph, node) if isinstance(graph.nodes[i].op, Flatten))
    before = graph.nodes[: graph.nodes[flatten].inputs[0] + 1]
    for size in chain(range(32, LARGEST_TRIED + 1, 32), range(1, LARGEST_TRIED + 1)):
        if _map_at(before, size) == (side, side):
            return (
                f": `--input {size}`, or `input {graph.input[0]}x{size}x{size}` in the net's file"
            )
    return ""


def _map_at(nodes: Sequence[Node], size: int) -> tuple[int, ...]:
    """Height and width of what the last of these nodes gives of square images; nothing where they
    are too small.
    """
    shapes: list[Shape] = [(nodes[0].shape[0], size, size)]
    try:
        for node in nodes[1:]:
            shapes.append(node.op.output(*(shapes[read] for read in node.inputs)))
    except Misfit:
        return ()
    return shapes[-1][1:]


def _line(graph: Graph, node: Node) -> Iterator[int]:
    """The nodes that one node reads, one behind the other, as far as each reads one alone."""
    while len(node.inputs) == 1:
        yield node.inputs[0]
        node = graph.nodes[node.inputs[0]]


def flattened(graph: Graph, node: Node) -> tuple[int, int, int] | None:
    """The map (C, H, W) whose values a node reads one behind the other, if it reads such."""
    for index in _line(graph, node):
        each = graph.nodes[index]
        if isinstance(each.op, Flatten):
            channels, height, width = graph.source(each)
            return channels, height, width
        if len(each.shape) != 1 or not each.op.elementwise:
            return None
    return None
