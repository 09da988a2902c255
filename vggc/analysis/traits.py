"""What of a layer a reader cannot see from its word, in the language's own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import assert_never

from vggc.analysis.outline import Join, Outline, OutlineItem, OutlineRepeat, OutlineStep
from vggc.ir.ops import (
    Activation,
    AvgPool2d,
    BatchNorm,
    Clip,
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    LayerNorm,
    Linear,
    MaxPool2d,
    Op,
    Pad2d,
    Pair,
    PRelu,
    Scale,
    Shuffle,
    Sides,
    StochasticPool2d,
    TakeChannels,
    TakePart,
    Upsample,
)

NORMS: dict[type[Op], str] = {BatchNorm: "batch", GroupNorm: "group", LayerNorm: "layer"}
"""What `norm=` says of each normalisation."""


@dataclass(frozen=True)
class Traits:
    """What the layers of one net have in common, and what is out of the ordinary of each."""

    outputs: frozenset[str]
    """The names of the layers that give an output: without activation, as nobody need say."""
    common: frozenset[str]
    """What is said once, of all convolutions but those."""

    @classmethod
    def of(cls, outline: Outline) -> Traits:
        """The traits of a net, by its outline."""
        steps = [list(_steps(branch.path.items)) for branch in outline.branches]
        outputs = set()
        for branch in steps:
            weighted = (step for step in reversed(branch) if step.row.macs)
            outputs |= {step.row.name for step in [*weighted][:1]}
        hidden = [
            frozenset(manner(step.ops))
            for branch in steps
            for step in branch
            if step.row.kind == "conv" and step.row.name not in outputs
        ]
        common = frozenset.intersection(*hidden) if hidden else frozenset()
        return cls(frozenset(outputs), common - {"act=none"})

    @property
    def everywhere(self) -> str:
        """What the convolutions have in common, as words: `norm=batch bias=no`."""
        return " ".join(sorted(self.common, reverse=True))

    def manner(self, step: OutlineStep) -> list[str]:
        """Words for normalisation, bias and activation of a layer, where they are not those of the
        others.
        """
        said = manner(step.ops) - (self.common if step.row.kind == "conv" else set())
        if step.row.name in self.outputs:
            said -= {"act=none"}
        return sorted(said, reverse=True)


def manner(ops: tuple[Op, ...]) -> set[str]:
    """Words for normalisation, bias and activation of a layer with weights, given by its ops; relu
    goes unsaid.
    """
    if not any(isinstance(op, Conv2d | ConvTranspose2d | Linear) for op in ops):
        return set()
    found = {f"norm={NORMS[type(op)]}" for op in ops if type(op) in NORMS}
    functions: list[str] = [op.function for op in ops if isinstance(op, Activation)]
    functions += ["prelu" for op in ops if isinstance(op, PRelu)]
    if any(isinstance(op, Conv2d | ConvTranspose2d | Linear) and not op.bias for op in ops):
        found.add("bias=off")
    if functions != ["relu"]:
        found.add(f"act={functions[0] if functions else 'none'}")
    return found


def steps_of(ops: tuple[Op, ...]) -> list[str]:
    """Words for stride, dilation, groups and border of the window of a layer, given by its ops,
    where they are not the usual ones; and what a layer that pads, or normalises groups, alone does.
    """
    words = [word for op in ops for word in _steps_of(op)]
    match ops:
        case (Pad2d(padding=padding),):
            return [f"padding={around(padding)}", *words]
        case (GroupNorm(groups=groups),):
            return [f"groups={groups}"]
        case _:
            return words


def _steps_of(op: Op) -> list[str]:
    match op:
        case Conv2d():
            words = [f"stride={one(op.stride)}"] if op.stride != (1, 1) else []
            words += [f"dilation={one(op.dilation)}"] if op.dilation != (1, 1) else []
            return [*words, f"groups={op.groups}"] if op.groups != 1 else words
        case ConvTranspose2d():
            words = [f"stride={one(op.stride)}"] if op.stride != (1, 1) else []
            return [*words, f"groups={op.groups}"] if op.groups != 1 else words
        case MaxPool2d() | AvgPool2d() | StochasticPool2d():
            words = [f"stride={one(op.stride)}"] if op.stride != op.kernel else []
            counts = isinstance(op, AvgPool2d) and op.counts_padding and any(op.padding)
            return [*words, "border=zeros"] if counts else words
        case Clip(low=low, high=high):
            limits = ("min", low), ("max", high)
            return [f"{name}={limit:g}" for name, limit in limits if isfinite(limit)]
        case Scale(bias=False):
            return ["bias=off"]
        case Upsample(mode="bilinear"):
            return ["mode=bilinear"]
        case Shuffle(groups=groups):
            return [f"groups={groups}"]
        case TakePart(part=part, parts=parts):
            return [f"part={part}", f"of={parts}"]
        case TakeChannels(first=first, last=last):
            return [f"channels={first}..{last}" if first < last else f"channels={first}"]
        case Pad2d(border=border):
            return [f"border={border}"] if border != "zeros" else []
        case _:
            return []


def one(pair: Pair) -> str:
    """A pair as the language writes it: one number where both are the same, otherwise `1x7`."""
    return str(pair[0]) if pair[0] == pair[1] else "x".join(map(str, pair))


def around(padding: Sides) -> str:
    """What lies around a map as the language writes it: `1`, `0x3`, or all four sides."""
    top, left, bottom, right = padding
    symmetric = (top, left) == (bottom, right)
    return one((top, left)) if symmetric else "x".join(map(str, padding))


def _steps(items: tuple[OutlineItem, ...]) -> Iterator[OutlineStep]:
    for item in items:
        match item:
            case OutlineStep():
                yield item
            case Join(paths=paths):
                for path in paths:
                    yield from _steps(path.items)
            case OutlineRepeat(first=first):
                yield from _steps(first)
            case _:
                assert_never(item)
