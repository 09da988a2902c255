"""Kernels for CPUs, written for a machine's vector registers."""

from __future__ import annotations

from math import inf
from typing import assert_never

from vggc.kernels.cpu import (
    block_float,
    conv,
    dense,
    depthwise,
    dot,
    elementwise,
    formats,
    layout,
    lrn,
    pool,
    softmax,
    winograd,
    winograd_bf16,
    winograd_int16,
    word_columns,
)
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.cpu.template import Template
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Choice,
    Concat,
    Conv,
    Convert,
    Dense,
    Kernel,
    Lrn,
    MaxPool,
    Pointwise,
    PRelu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

__all__ = ["Machine", "choices", "kernel", "templates"]


def choices(workload: Workload, machine: Machine, max_error: float = inf) -> tuple[Choice, ...]:
    """Every way to carry out `workload` that adds a relative L2 error of at most `max_error`,
    that of least stated cost first.

    Empty where there is nothing to choose.
    """
    found = [
        (template.cost(knobs), template.choice(knobs))
        for template in templates(workload, machine)
        for knobs in template.knobs
        if template.error <= max_error
    ]
    return tuple(choice for _, choice in sorted(found, key=lambda pair: pair[0]))


def kernel(
    workload: Workload,
    machine: Machine,
    choice: Choice | None = None,
    max_error: float = inf,
) -> Kernel:
    """Code for `workload`, the same function whenever all arguments are the same.

    `choice` is any way to carry it out, by default the first of `choices` within `max_error`.

    Raises: ValueError for a choice that is none.
    """
    if found := templates(workload, machine):
        return _chosen(found, choice, max_error)
    if choice is not None:
        raise ValueError(f"{type(workload).__name__} leaves nothing to choose")
    return _only(workload, machine)


def templates(workload: Workload, machine: Machine) -> tuple[Template, ...]:
    """The algorithms there are for `workload`, the simplest first."""
    match workload:
        case Conv() if winograd_bf16.applies(workload):
            return (dot.template(workload, machine), winograd_bf16.template(workload, machine))
        case Conv() if winograd_int16.applies(workload):
            return (dot.template(workload, machine), winograd_int16.template(workload, machine))
        case Conv() if word_columns.applies(workload):
            listed = word_columns.template(workload, machine)
            return (dot.template(workload, machine), listed)
        case Conv() if workload.input.format != "float32":
            return (dot.template(workload, machine),)
        case Conv() if depthwise.applies(workload):
            return (depthwise.template(workload, machine),)
        case Conv() if winograd.applies(workload):
            direct = conv.template(workload, machine)
            return (direct, *winograd.templates(workload, machine))
        case Conv():
            return (conv.template(workload, machine),)
        case Dense() if block_float.applies(workload):
            exact = dense.template(workload, machine)
            return (exact, *block_float.templates(workload, machine))
        case Dense():
            return (dense.template(workload, machine),)
        case _:
            return ()


def _chosen(found: tuple[Template, ...], choice: Choice | None, max_error: float) -> Kernel:
    offers = ((template, knobs) for template in found for knobs in template.knobs)
    if choice is None:
        within = (offer for offer in offers if offer[0].error <= max_error)
        template, knobs = min(within, key=lambda offer: offer[0].cost(offer[1]))
        return template.kernel(knobs)
    for template, knobs in offers:
        if template.algorithm == choice.algorithm and template.choice(knobs) == choice:
            return template.kernel(knobs)
    raise ValueError(f"there is no {choice}")


def _only(workload: Workload, machine: Machine) -> Kernel:
    """Code for a workload that leaves nothing to choose."""
    match workload:
        case Conv() | Dense():
            raise AssertionError("chosen among templates")
        case MaxPool() | AvgPool():
            return pool.kernel(workload, machine)
        case Lrn():
            return lrn.kernel(workload)
        case Pointwise():
            return elementwise.pointwise(workload)
        case PRelu():
            return elementwise.prelu(workload)
        case Concat():
            return elementwise.concat(workload)
        case Add():
            return elementwise.add(workload)
        case Softmax():
            return softmax.kernel(workload)
        case Convert():
            return formats.convert(workload)
        case ToNhwc():
            return layout.to_nhwc(workload)
        case ToNchw():
            return layout.to_nchw(workload)
    assert_never(workload)
