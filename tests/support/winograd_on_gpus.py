"""What Winograd's algorithm would be worth on an H200 in float16, by counts and by its error.

`python -m tests.support.winograd_on_gpus` prints for the convolutions of VGG-16 how long direct
kernels are thought to take, and how long Winograd's at least: as the products alone at the card's
best rate, and the transformed maps and sums, in halves, that are written and read once. Then the
relative L2 errors of one layer behind a ReLU, whose transformed maps and weights are rounded to
float16 and whose sums are not.
"""

from __future__ import annotations

from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from vggc.compiler.targets import resolve
from vggc.kernels.cuda import H200, algorithms
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.cuda.card import LAUNCH
from vggc.kernels.toom_cook import POINTS, TAPS, transforms
from vggc.kernels.workloads import Conv
from vggc.program import load
from vggc.runtime.plans import plan_for

BATCH = 32
SIZE = 2
"""The bytes of a half."""


def direct_seconds(conv: Conv) -> float:
    """What the kernel of least stated cost takes."""
    return min(each.seconds(knobs) for each in algorithms(conv, H200) for knobs in each.knobs())


def winograd_seconds(conv: Conv, m: int) -> float:
    """What F(m×m, 3×3) takes at least: a kernel each for maps, products and sums."""
    height, width = conv.grid
    tiles = conv.output.batch * ceil(height / m) * ceil(width / m)
    points = (m + TAPS - 1) ** 2
    channels, outputs = conv.input.shape[-1], conv.output.channels
    products = 2 * tiles * points * channels * outputs / H200.peak_rate
    transformed = 2 * tiles * points * (channels + outputs) * SIZE
    rate = H200.cache_rate if transformed < 2 * H200.cache else H200.memory_rate
    return 3 * LAUNCH + products + transformed / rate + moved_bytes(conv) / H200.memory_rate


def errors(channels: int, outputs: int = 64, side: int = 24) -> dict[str, float]:
    """The errors of a convolution with as many channels: direct, and by each F(m×m, 3×3)."""
    rng = np.random.default_rng(channels)
    x = half(np.maximum(rng.standard_normal((channels, side + 2, side + 2)), 0))
    weight = rng.standard_normal((outputs, channels, TAPS, TAPS)) / np.sqrt(9 * channels)
    windows = np.lib.stride_tricks.sliding_window_view(x, (TAPS, TAPS), axis=(1, 2))
    exact = np.einsum("cyxab,kcab->kyx", windows, weight, optimize=True)
    found = {"direct": np.einsum("cyxab,kcab->kyx", windows, half(weight), optimize=True)}
    for m in (2, 4):
        found[f"F({m}×{m})"] = filtered(x, weight, m)
    scale = np.linalg.norm(exact)
    return {name: float(np.linalg.norm(each - exact) / scale) for name, each in found.items()}


def filtered(x: NDArray[np.float64], weight: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """A convolution by F(m×m, 3×3), whose factors are halves."""
    t, n = transforms(POINTS[m]), m + TAPS - 1
    tiles = np.lib.stride_tricks.sliding_window_view(x, (n, n), axis=(1, 2))[:, ::m, ::m]
    maps = half(np.einsum("ia,cyxab,jb->cyxij", t.input, tiles, t.input, optimize=True))
    filters = half(np.einsum("ia,kcab,jb->kcij", t.filter, weight, t.filter, optimize=True))
    sums = np.einsum("cyxij,kcij->kyxij", maps, filters, optimize=True)
    made = np.einsum("ai,kyxij,bj->kyaxb", t.output, sums, t.output, optimize=True)
    outputs, rows, _, columns, _ = made.shape
    return made.reshape(outputs, rows * m, columns * m)


def half(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers as float16 holds them."""
    return values.astype(np.float16).astype(np.float64)


def main() -> None:
    target = resolve("cuda", (H200.arch,))
    steps = plan_for(load("vgg16").graph, BATCH, target, "float16").steps
    print(f"microseconds at batch {BATCH}: direct, F(2×2), F(4×4)")
    for step in steps:
        work = step.workload
        if isinstance(work, Conv) and work.kernel == (TAPS, TAPS) and prod(work.grid) > 1:
            times = direct_seconds(work), winograd_seconds(work, 2), winograd_seconds(work, 4)
            print(f"  {step.layer:8}", *(f"{seconds * 1e6:6.0f}" for seconds in times))
    print("relative L2 error in float16 of a layer")
    for channels in (64, 256, 512):
        told = [f"{name} {error:.1e}" for name, error in errors(channels).items()]
        print(f"  {channels} channels:", ", ".join(told))


if __name__ == "__main__":
    main()
