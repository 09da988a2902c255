"""A plan in float32 to one that multiplies in fewer bits.

Convolutions and dense layers are carried out in the format asked for, a dense layer as the
convolution that covers its map. A value that only they read, or between them what keeps a format
(max pools, and of floats on GPUs all that computes on maps), lies in memory in that format; any
other stays float32, and is converted once for all who multiply it. All other workloads compute in
float32, so every net has such a plan. What is multiplied in float32: grouped convolutions and
scales, and in int8 sums of more terms than an int32 holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

from vggc.kernels.workloads import (
    MAX_INT8_TERMS,
    Add,
    AvgPool,
    Concat,
    Conv,
    Convert,
    Dense,
    DepthToSpace,
    Format,
    GroupNorm,
    LayerNorm,
    Lrn,
    Map,
    MaxPool,
    Mul,
    Pad,
    Pointwise,
    PRelu,
    Shuffle,
    StochasticPool,
    Take,
    ToNhwc,
    Upsample,
    Workload,
)
from vggc.plan.plan import INPUT, Plan, Step, as_map

ZERO = 128
"""What stands for zero in a uint8 value that may be negative."""


Keeps: TypeAlias = Callable[[Workload], bool]
"""Whether there are kernels for a workload that multiplies nothing, or in groups, whose maps are
all of one format of fewer bits."""


def is_max_pool(workload: Workload) -> bool:
    """Whether a workload takes the largest of windows: it does in any format."""
    return isinstance(workload, MaxPool)


def in_format(plan: Plan, form: Format, vector: int = 1, keeps: Keeps = is_max_pool) -> Plan:
    """A plan in float32, with what can be multiplied in `form`; maps of fewer bits lie in whole
    vectors of so many channels. What `keeps` a format has its maps in it where that spares a
    conversion.

    New weights are, in int8, `NAME.rescale` of a convolution `NAME`, the scales `(K,)` of its
    sums, and `VALUE.scale`, the scale `(1,)` of a step's value in memory.
    """
    return (
        plan
        if form == "float32"
        else _Rewriter(plan=plan, form=form, vector=vector, keeps=keeps).run()
    )


def scale_name(plan: Plan, index: int) -> str:
    """The weight that holds the scale of a step's uint8 value."""
    while isinstance(plan.steps[index].workload, MaxPool):  # the largest keeps its scale
        index = plan.steps[index].reads[0]
    return f"{plan.steps[index].name}.scale"


@dataclass
class _Rewriter:
    """Walks the steps of a plan in order and notes where the value of each lies."""

    plan: Plan
    form: Format
    vector: int
    keeps: Keeps
    steps: list[Step] = field(default_factory=list)
    values: dict[tuple[int, Format], int] = field(default_factory=dict)
    """The step of the new plan, by the step of the old one and the format."""

    def __post_init__(self) -> None:
        self.signed = _signed(self.plan)
        self.kept = self._kept()

    def run(self) -> Plan:
        for index, step in enumerate(self.plan.steps):
            self._rewrite(index, step)
        outputs = tuple(
            replace(output, step=self._value(output.step, "float32"))
            for output in self.plan.outputs
        )
        return replace(self.plan, outputs=outputs, steps=tuple(self.steps))

    def _multiplied(self, step: Step) -> bool:
        """Whether a step is carried out in fewer bits."""
        match step.workload:
            case Conv(groups=1) | Dense():
                terms = prod(step.workload.weight_shape[1:])
                return self.form != "uint8" or terms <= MAX_INT8_TERMS
            case _:
                return False

    def _kept(self) -> tuple[bool, ...]:
        """Which values lie in memory in fewer bits alone."""
        steps = self.plan.steps
        readers: list[list[int]] = [[] for _ in steps]
        for index, step in enumerate(steps):
            for read in step.reads:
                if read != INPUT:
                    readers[read].append(index)
        heads = {output.step for output in self.plan.outputs}
        wanted = [False] * len(steps)
        for index in reversed(range(len(steps))):
            wanted[index] = (
                bool(readers[index])
                and index not in heads
                and all(
                    self._multiplied(steps[reader])
                    or (self.keeps(steps[reader].workload) and wanted[reader])
                    for reader in readers[index]
                )
            )
        kept: list[bool] = []
        for index, step in enumerate(steps):
            # Of several values that a step reads those that are float32 are converted.
            sources = any(read == INPUT or kept[read] for read in step.reads)
            keeps = self.keeps(step.workload) and sources
            kept.append(wanted[index] and (self._multiplied(step) or keeps))
        return tuple(kept)

    def _rewrite(self, index: int, step: Step) -> None:
        workload = step.workload
        if self._multiplied(step):
            assert isinstance(workload, Conv | Dense)
            read = self._value(step.reads[0], self.form)
            self._emit(index, self._product(index, step, workload), (read,), self._weights(step))
        elif self.kept[index]:
            reads = tuple(
                read if read == INPUT else self._value(read, self.form) for read in step.reads
            )
            self._emit(index, self._in_low(index, workload), reads, step.weights)
        else:
            reads = tuple(
                read if read == INPUT else self._value(read, "float32") for read in step.reads
            )
            self._emit(index, workload, reads, step.weights)

    def _product(self, index: int, step: Step, workload: Conv | Dense) -> Conv:
        """A convolution or dense layer in fewer bits."""
        conv = as_conv(workload) if isinstance(workload, Dense) else workload
        source = self._low(step.reads[0], conv.input)
        out = self._low(index, conv.output) if self.kept[index] else conv.output
        return replace(conv, input=source, output=out)

    def _in_low(self, index: int, workload: Workload) -> Workload:
        """A workload that keeps a format, on maps in it."""
        match workload:
            case Add() | Mul() | Concat():
                sources = tuple(self._low(index, each) for each in workload.inputs)
                return replace(workload, inputs=sources, output=self._low(index, workload.output))
            case ToNhwc():
                return replace(workload, output=self._low(index, workload.output))
            case (
                MaxPool()
                | AvgPool()
                | StochasticPool()
                | Pad()
                | Lrn()
                | DepthToSpace()
                | GroupNorm()
                | LayerNorm()
                | Pointwise()
                | PRelu()
                | Shuffle()
                | Take()
                | Upsample()
                | Conv()
            ):
                source, out = self._low(index, workload.input), self._low(index, workload.output)
                return replace(workload, input=source, output=out)
            case _:
                raise AssertionError(f"{workload} has no map that could be in fewer bits")

    def _weights(self, step: Step) -> tuple[str, ...]:
        if self.form != "uint8":
            return step.weights
        weight, bias = step.weights
        return (weight, f"{weight.rpartition('.')[0]}.rescale", bias)

    def _emit(
        self, index: int, workload: Workload, reads: tuple[int, ...], weights: tuple[str, ...]
    ) -> None:
        step = self.plan.steps[index]
        form: Format = "float32"
        layout = workload.output
        if isinstance(layout, Map):
            form = layout.format
        if form == "uint8" and isinstance(workload, Conv | Convert):
            weights = (*weights, f"{step.name}.scale")
        self.values[index, form] = len(self.steps)
        self.steps.append(replace(step, workload=workload, reads=reads, weights=weights))

    def _value(self, index: int, form: Format) -> int:
        """The step that gives a value in a format; converts it where none does yet."""
        if (index, form) not in self.values:
            read = self.values[index, "float32"]
            source = as_map(self.steps[read].output)
            self._emit(index, Convert(source, self._low(index, source)), (read,), ())
        return self.values[index, form]

    def _low(self, index: int, map_: Map) -> Map:
        """The map of a step's value in fewer bits."""
        zero = ZERO if self.form == "uint8" and self.signed[index] else 0
        return replace(map_, format=self.form, zero=zero, vector=self.vector)


def with_convolutions(plan: Plan, names: Collection[str]) -> Plan:
    """A plan whose dense layers with weights of these names are the convolutions that cover their
    maps.
    """
    return replace(
        plan,
        steps=tuple(
            replace(step, workload=as_conv(step.workload))
            if isinstance(step.workload, Dense) and step.weights[0] in names
            else step
            for step in plan.steps
        ),
    )


def as_conv(dense: Dense) -> Conv:
    """The convolution that computes `dense`: its kernel covers the map, its output is 1×1."""
    source = dense.source or Map(batch=dense.batch, height=1, width=1, channels=dense.in_features)
    output = Map(batch=dense.batch, height=1, width=1, channels=dense.out_features)
    return Conv(
        input=source,
        output=output,
        kernel=(source.height, source.width),
        stride=(1, 1),
        padding=(0, 0),
        act=dense.act,
    )


def _signed(plan: Plan) -> tuple[bool, ...]:
    """Which steps' values may be negative."""
    found: list[bool] = []
    for step in plan.steps:
        reads = [read == INPUT or found[read] for read in step.reads]
        found.append(step.workload.may_be_negative(any(reads)))
    return tuple(found)
