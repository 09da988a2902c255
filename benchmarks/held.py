"""Engines held to the instructions of an older CPU: `python benchmarks/held.py torch`.

oneDNN takes a limit from the environment, and so do PyTorch's own kernels and oneMKL. Other engines
look at the CPU alone and cannot be held. Run as a program in such an environment, this computes a
small net by the engine named and prints the kernels that did it, a line each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CHANNELS, SIDE, FEATURES = 64, 28, 100


@dataclass(frozen=True)
class InstructionSet:
    """The instructions that engines are held to.

    `mcpu` is LLVM's name of a CPU that has them and nothing newer, `environment` what other
    engines are told, `newer` a part of the names of kernels that use more.
    """

    mcpu: str
    environment: dict[str, str]
    newer: str


INSTRUCTION_SETS = {
    "avx2": InstructionSet(
        mcpu="haswell",
        environment={
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        },
        newer="avx512",
    )
}


def why_not_held(name: str, isa: str) -> str | None:
    """Why an engine cannot be timed beside code for `isa`; None where it keeps to it."""
    if name not in ENGINES:
        return f"cannot be held to {isa}"
    limit = INSTRUCTION_SETS[isa]
    environment = {**os.environ, **limit.environment, "ONEDNN_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, name], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        return f"its kernels are not known: {said[-1][:200]}"
    kernels = done.stdout.lower().splitlines()
    if newer := next((kernel for kernel in kernels if limit.newer in kernel), None):
        return f"is not held to {isa}: it computes by {newer[:100]}"
    if not any(isa in kernel for kernel in kernels):
        return f"names no kernel for {isa}, so that it may not be held to it"
    return None


def _torch() -> None:
    """Of convolutions oneDNN itself prints the kernels."""
    import torch

    print("PyTorch's own kernels:", torch.backends.cpu.get_cpu_capability(), flush=True)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(CHANNELS, CHANNELS, 3),
        torch.nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS),
        torch.nn.Conv2d(CHANNELS, CHANNELS, 1),
    )
    with torch.inference_mode():
        net(torch.zeros(1, CHANNELS, SIDE, SIDE))


def _openvino() -> None:
    import openvino
    from openvino import opset14 as ops

    def weight(*shape: int) -> openvino.Node:
        return ops.constant(np.ones(shape, np.float32))

    def convolved(x: openvino.Node, kernel: int) -> openvino.Node:
        ones, zeros = [1, 1], [0, 0]
        filters = weight(CHANNELS, CHANNELS, kernel, kernel)
        return ops.relu(ops.convolution(x, filters, ones, zeros, zeros, ones))

    image = ops.parameter([1, CHANNELS, SIDE, SIDE], np.float32)
    rows = ops.reshape(convolved(convolved(image, 3), 1), ops.constant([1, -1]), False)
    scores = ops.matmul(rows, weight(CHANNELS * (SIDE - 2) ** 2, FEATURES), False, False)
    model = openvino.Model([ops.softmax(scores, 1)], [image])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    for op in compiled.get_runtime_model().get_ops():
        facts = op.get_rt_info()
        if "primitiveType" in facts:
            print(facts["primitiveType"].astype(str))


ENGINES: dict[str, Callable[[], None]] = {"torch": _torch, "openvino": _openvino}
"""The engines that can be held, each with what makes it name its kernels."""


if __name__ == "__main__":
    ENGINES[sys.argv[1]]()
