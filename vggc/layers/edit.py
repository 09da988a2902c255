"""A net with something of it changed, as if its file had said so."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vggc.diagnostics import Diagnostic, UserError
from vggc.layers.kinds import BY_WORD, WITH_WEIGHTS, Fc
from vggc.syntax.ast import Block, Dims, Group, Item, Layer, Net, Option, Repeat, layers


@dataclass(frozen=True)
class NoClassifier(Diagnostic):
    title = "`{net}` does not end in a classifier"
    label = "{reason}"
    help = "end the net with `fc-CLASSES | softmax`"
    net: str
    reason: str


def with_input(net: Net, size: tuple[int, int]) -> Net:
    """The net reading images of another height and width."""
    match net.input.values:
        case (Dims(sizes=(channels, *_)) as dims,):
            changed = replace(dims, sizes=(channels, *size))
            return replace(net, input=replace(net.input, values=(changed,)))
        case _:
            return net


def with_block(net: Net, block: Block) -> Net:
    """The net with this block in place of its own of the same key, or behind the others."""
    kept = tuple(old for old in net.blocks if old.key != block.key)
    index = next((i for i, old in enumerate(net.blocks) if old.key == block.key), len(kept))
    return replace(net, blocks=(*kept[:index], block, *kept[index:]))


def with_classes(net: Net, num_classes: int) -> Net:
    """The net whose last fully-connected layer has one output for each class.

    Raises: UserError when its last layer with weights is none, or is part of a repeat.
    """
    weighted = [layer for layer in layers(net.body) if _kind(layer) in WITH_WEIGHTS]
    last = weighted[-1] if weighted else None
    if last is None or _kind(last) is not Fc:
        span = net.span if last is None else last.span
        reason = "its last layer with weights is not `fc`"
        raise UserError(NoClassifier(span, net.name, reason))
    if sum(layer is last for layer in weighted) > 1:
        reason = "its last `fc` is repeated, and only the last repetition could change"
        raise UserError(NoClassifier(last.span, net.name, reason))
    return replace(net, body=_replaced(net.body, last, _with_width(last, num_classes)))


def _kind(layer: Layer) -> object:
    match = re.match(r"[^\W\d]+", layer.word)
    return BY_WORD.get(match[0]) if match else None


def _with_width(layer: Layer, width: int) -> Layer:
    options: tuple[Option, ...] = tuple(o for o in layer.options if o.key != "width")
    stem = re.sub(r"-[0-9]+$", "", layer.word)
    return replace(layer, word=f"{stem}-{width}", options=options)


def _replaced(body: tuple[Item, ...], old: Layer, new: Layer) -> tuple[Item, ...]:
    return tuple(_replaced_in(item, old, new) for item in body)


def _replaced_in(item: Item, old: Layer, new: Layer) -> Item:
    match item:
        case Layer():
            return new if item is old else item
        case Group():
            return replace(item, body=_replaced(item.body, old, new))
        case Repeat():
            inner = _replaced_in(item.item, old, new)
            assert not isinstance(inner, Repeat)
            return replace(item, item=inner)
