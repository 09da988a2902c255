"""What larger Winograd tiles cost in accuracy: `python benchmarks/winograd.py [NET ...]`.

First layers by themselves: relative L2 errors against float64, by taps and channels, on noise and
on what follows a ReLU, with the points of interpolation that vggc uses and with the usual ones.
Then whole nets, by default vgg_tiny_cifar and vgg16, with one tile size for every layer that there
is Winograd for: the error of the last layer on random and real images.
"""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "1")

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vggc.api.trained import from_spec
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import resolve, tvm_target
from vggc.kernels import toom_cook
from vggc.kernels.cpu import Machine, choices
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.conv import Direct
from vggc.kernels.cpu.winograd import ROUNDING, Winograd2, Winograd4, Winograd6
from vggc.kernels.workloads import Choice, Conv, Map, Workload
from vggc.measure.verify import verify
from vggc.program import load
from vggc.support.tvm_alone import tvm

BY_TILE = {each.m: each for each in (Winograd2, Winograd4, Winograd6)}

CHANNELS = (64, 128, 256, 512)
USUAL = {4: (0.0, 1.0, -1.0, 2.0, -2.0)}
"""Points that others use; those of F(2×2) and F(6×6) are ours too."""
EXTENT, OUTPUTS = 24, 32
CPU = resolve("cpu")
MACHINE = Machine.of(tvm_target(CPU))


# Layers


def layer_errors(inputs: NDArray[np.float32], taps: int) -> dict[str, float]:
    """The relative L2 error of each algorithm on a layer with this input `(1, H, W, C)`."""
    channels, padding = inputs.shape[-1], taps // 2
    conv = Conv(
        Map(1, EXTENT, EXTENT, channels, padding),
        Map(1, EXTENT, EXTENT, OUTPUTS),
        kernel=(taps, taps),
        stride=(1, 1),
        padding=(padding, padding),
    )
    rng = np.random.default_rng(1)
    scale = np.sqrt(2 / taps**2 / channels)
    weight = (rng.standard_normal(conv.weight_shape) * scale).astype(np.float32)
    x = np.pad(inputs, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = sliding_window_view(x.astype(float), (taps, taps), axis=(1, 2))
    expected = np.einsum("nyxcij,kcij->nyxk", windows, weight.astype(float), optimize=True)
    found = {}
    for name, algorithm in algorithms(conv):
        got = computed(algorithm, x, weight, expected.shape)
        found[name] = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    return found


def algorithms(conv: Conv) -> Iterator[tuple[str, CpuAlgorithm[Any, Any]]]:
    yield "direct", Direct(conv, MACHINE)
    for m, winograd in BY_TILE.items():
        if not winograd.applies(conv):
            continue
        yield f"F({m}×{m})", winograd(conv, MACHINE)
        if m in USUAL and conv.kernel == (3, 3):
            with points(m):
                yield f"F({m}×{m}), points ±1, ±2", winograd(conv, MACHINE)


@contextmanager
def points(m: int) -> Iterator[None]:
    """With the usual points of interpolation in place of ours."""
    with patch.dict(toom_cook.POINTS, {m: USUAL[m]}):
        yield


def computed(
    algorithm: CpuAlgorithm[Any, Any],
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    kernel = algorithm.kernel(min(algorithm.knobs(), key=algorithm.cost))
    assert kernel.packing is not None
    module = tvm.IRModule({"f": kernel.func.with_attr("global_symbol", "f")})
    run = tvm.compile(module, target=tvm_target(CPU))["f"]
    arrays = [x, kernel.packing.pack(weight), np.zeros(shape[-1], np.float32)]
    y = tvm.runtime.tensor(np.zeros(shape, np.float32))
    run(*map(tvm.runtime.tensor, arrays), y)
    return np.asarray(y.numpy())


def show_layers(taps: int) -> None:
    rng = np.random.default_rng(0)
    kinds = {"noise": lambda x: x, "behind ReLU": lambda x: np.maximum(x, 0)}
    titled = False
    for kind, function in kinds.items():
        for channels in CHANNELS:
            noise = rng.standard_normal((1, EXTENT, EXTENT, channels)).astype(np.float32)
            errors = layer_errors(function(noise), taps)
            if not titled:
                row("taps", "input", "channels", *errors)
                row("---", "---", *["---:"] * (len(errors) + 1))
                titled = True
            row(f"{taps}×{taps}", kind, str(channels), *map("{:.1e}".format, errors.values()))


# Nets


def chosen(algorithm: str, workload: Workload, max_error: float) -> dict[Choice, float]:
    """The cheapest choice of an algorithm, whatever its error, as if it alone had been measured;
    nothing where it does not apply.
    """
    found = (each for each in choices(workload, MACHINE, 1.0) if each.algorithm == algorithm)
    return dict.fromkeys(islice(found, 1), 1.0)


def show_net(name: str) -> None:
    program = load(name)
    subject = from_spec(program, None, seed=0)
    titled = False
    for algorithm in ("direct", "winograd2", "winograd4", "winograd6"):
        with TemporaryDirectory() as folder:
            artifact = Path(folder) / "artifact"
            manifest = build_artifact(
                Job(
                    program.net,
                    program.graph,
                    CPU,
                    (1,),
                    subject.weights,
                    subject.weights_from,
                    subject.preprocessing,
                    subject.classes,
                    times_of={"": partial(chosen, algorithm)},
                ),
                artifact,
            )
            layers = sum(each.algorithm == algorithm for each in manifest.largest.kernels)
            compared = verify(artifact)
        if not titled:
            inputs = [each.input for each in compared]
            row("net", "algorithm", "layers", *inputs, *(f"scores, {each}" for each in inputs))
            row("---", "---", *["---:"] * (2 * len(inputs) + 1))
            titled = True
        errors = [each.error for each in compared]
        # The last step may be a soft-max, whose scores hide errors; the one before it does not.
        scores = [each.step_errors[-2][-1] for each in compared]
        row(name, algorithm, str(layers), *map("{:.1e}".format, [*errors, *scores]))


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    for taps in ROUNDING:
        show_layers(taps)
        print()
    for name in sys.argv[1:] or ("vgg_tiny_cifar", "vgg16"):
        show_net(name)
        print()


if __name__ == "__main__":
    main()
