"""What float32 in three products errs by, on an emulated GPU whose tensor cores cut sums off.

`python -m tests.support.split_error` prints the relative L2 errors of a 3×3 convolution behind a
ReLU against float64: on ordinary cores, in three products of tf32, in one of tf32.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.cuda_on_cpu import call, compile_kernels, generate
from tests.support.tensor_core_kernels import conv
from vggc.kernels.cuda import AnyCudaAlgorithm
from vggc.kernels.cuda.gemm import ImplicitGemm
from vggc.kernels.cuda.mma import MmaKnobs, MmaWindows
from vggc.kernels.cuda.packing import to_tf32
from vggc.kernels.reference import reference

SIDE, OUTPUTS = 8, 64
KNOBS = MmaKnobs(
    rows=64, cols=64, warp_rows=32, warp_cols=32, depth=32, stages=3, splits=1, panel=64
)


def result(algorithm: AnyCudaAlgorithm, knobs: Any, *arrays: NDArray[Any]) -> NDArray[np.float32]:
    """What a kernel makes of a map, a weight that is not packed, and a bias."""
    kernel = algorithm.kernel(knobs)
    code, (x, weight, bias) = generate(kernel.func), arrays
    assert kernel.packing is not None
    y = np.empty((1, SIDE, SIDE, OUTPUTS), np.float32)
    with TemporaryDirectory() as folder:
        library = ctypes.CDLL(str(compile_kernels(code.source, Path(folder))))
        call(library, code, x, kernel.packing.pack(weight), bias, y)
    return y


def errors(channels: int) -> list[float]:
    """The errors of the three ways, and what the second states."""
    rng = np.random.default_rng(channels)
    shape = (1, SIDE, SIDE, channels)
    plain, tf32 = (
        conv(shape, OUTPUTS, form=form, halos=(1, 0), act=None, to_float32=True)
        for form in ("float32", "tf32")
    )
    inner = np.maximum(rng.standard_normal(shape, np.float32), 0)
    x = np.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0)))
    weight, bias = (
        rng.standard_normal(plain.weight_shape, np.float32),
        np.zeros(OUTPUTS, np.float32),
    )
    exact = reference(plain, [inner], [weight, bias])
    ordinary, split = ImplicitGemm(plain), MmaWindows(plain)
    made = (
        result(ordinary, ordinary.knobs()[0], x, weight, bias),
        result(split, KNOBS, x, weight, bias),
        result(MmaWindows(tf32), KNOBS, to_tf32(x), weight, bias),
    )
    found = [float(np.linalg.norm(y - exact) / np.linalg.norm(exact)) for y in made]
    return [*found, split.error]


def main() -> None:
    for channels in (64, 128, 256, 512):
        print(f"{channels:4}", *(f"{error:.1e}" for error in errors(channels)))


if __name__ == "__main__":
    main()
