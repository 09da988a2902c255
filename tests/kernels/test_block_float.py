"""Dense layers in block floating point: what the packing keeps, and what is never read."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from click.testing import CliRunner

from tests.support.cpu_kernels import HOST, TARGETS, library
from vggc.cli import cli
from vggc.ir.ops import RELU
from vggc.ir.weights import save
from vggc.kernels.cpu import Machine, choices, kernel
from vggc.kernels.cpu.block_float import (
    BITS_20,
    BITS_24,
    FORMATS,
    BlockFloatColumns,
    DenseBlockFloat20,
    DenseBlockFloat24,
    WordFormat,
    error_of,
)
from vggc.kernels.cpu.columns import ColumnKnobs
from vggc.kernels.workloads import Dense, Map
from vggc.measure.verify import verify
from vggc.program import load
from vggc.runtime.artifact import read_manifest

SHAPES = {
    "one piece": ((70, 300), 300, 8, 8),
    "pieces of a map": ((70, 4 * 333), 333, 8, 8),
    "more than a panel": ((130, 600), 50, 4, 16),
    "one weight": ((1, 1), 1, 16, 8),
}

WEIGHTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Any]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_cauchy(shape),
    "mostly zero": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.01),
    "tiny": lambda rng, shape: 1e-30 * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e37 * rng.standard_normal(shape),
    "all equal": lambda rng, shape: np.full(shape, -0.1),
    "zero": lambda rng, shape: np.zeros(shape),
}


BY_FORMAT = {BITS_24: DenseBlockFloat24, BITS_20: DenseBlockFloat20}

by_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.bits} bits")


@by_format
def test_a_format_uses_each_bit_of_its_words_once(form: WordFormat) -> None:
    left = {(word, bit) for word in range(form.words) for bit in range(form.shift)}
    for number in form.rest:
        places = set()
        for each in number:
            bits = {(each.word, each.low + bit) for bit in range(each.size)}
            assert bits <= left
            left -= bits
            places |= {each.place + bit for bit in range(each.size)}
        assert places == set(range(form.shift, 32))
    assert not left


@by_format
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_no_weight_is_off_by_more_than_half_a_step_of_its_piece(
    shape: str, kind: str, form: WordFormat
) -> None:
    """A step is what the largest number is a multiple of; of 24 bits, float32 rounds the largest
    weight by as much.
    """
    packing = BlockFloatColumns(*SHAPES[shape], form)
    weight = WEIGHTS[kind](np.random.default_rng(0), packing.shape).astype(np.float32)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    got = packing.unpack(packed)
    assert got.shape == weight.shape
    assert got.dtype == np.float32

    def by_pieces(each: np.ndarray) -> list[np.ndarray]:
        maps = each.reshape(len(each), packing.channels, -1).transpose(0, 2, 1)
        rows = maps.reshape(len(each), -1)
        return np.split(rows, range(packing.piece, rows.shape[1], packing.piece), axis=1)

    for before, after in zip(by_pieces(weight), by_pieces(got), strict=True):
        largest = np.abs(before).max(1, keepdims=True).astype(float)
        off = np.abs(before.astype(float) - after)
        assert (off <= largest * 2.0**-form.bits * 1.001 + np.abs(after) * 2.0**-24).all()
        assert (after[before == 0] == 0).all()


@by_format
def test_normal_weights_are_off_by_what_the_algorithm_says(form: WordFormat) -> None:
    packing = BlockFloatColumns((256, 4096), 4096, 16, 16, form)
    weight = np.random.default_rng(0).standard_normal(packing.shape, np.float32)
    off = packing.unpack(packing.pack(weight)) - weight.astype(float)
    error = np.linalg.norm(off) / np.linalg.norm(weight)
    assert error == pytest.approx(form.error, rel=0.05)


@by_format
def test_the_error_with_a_weight_is_told_beside_those_of_usual_size(form: WordFormat) -> None:
    rng = np.random.default_rng(0)
    dense = Dense(1, 2048, 64, RELU, Map(1, 2, 2, 512))
    weight = rng.standard_normal(dense.weight_shape, np.float32)
    assert error_of(dense, form, weight) == pytest.approx(form.error, rel=0.1)
    # By whole maps: pieces are in the order in which a map lies in memory.
    channel = weight.copy()
    channel.reshape(64, 512, 4)[:, 7] *= 1e4
    assert error_of(dense, form, channel) > 1e3 * form.error
    pruned = np.where(rng.random(weight.shape) < 0.9, 0, weight)
    assert error_of(dense, form, pruned) == inf
    assert error_of(dense, form, np.zeros_like(weight)) == 0


def test_weights_beside_far_larger_ones_that_are_not_used_are_not_rounded_away(
    tmp_path: Path,
) -> None:
    """Their inputs are zero whatever the image: each is behind a ReLU with a bias below zero."""
    spec = tmp_path / "net.vgg"
    spec.write_text("net wide input 3x16x16 | fc-2500 | fc-2500 | fc-10")
    program = load(str(spec))
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(each.shape, np.float32) / np.float32(np.sqrt(each.shape[-1]))
        for name, each in program.graph.all_weights.items()
    }
    found = {}
    for kind in ("usual", "far larger"):
        if kind == "far larger":
            weights["fc1.weight"][:20], weights["fc1.bias"][:20] = 0, -1
            weights["fc2.weight"][:, :20] *= 1e4
        save(tmp_path / f"{kind}.safetensors", weights)
        folder = tmp_path / kind
        options = ["--weights", str(tmp_path / f"{kind}.safetensors"), "--no-db"]
        CliRunner().invoke(
            cli, ["compile", str(spec), "-o", str(folder), *options], catch_exceptions=False
        )
        found[kind] = [entry.algorithm for entry in read_manifest(folder).largest.kernels]
        assert all(each.passed for each in verify(folder))
    assert "gemv-bfp20" in found["usual"]
    assert found["far larger"].count("gemv") > found["usual"].count("gemv")


@by_format
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", [1, 3])
def test_columns_whose_inputs_are_zero_are_not_read(
    rows: int, target: dict[str, str], form: WordFormat
) -> None:
    """What stands for them in memory does not matter."""
    goal = tvm.target.Target(target)
    dense = Dense(rows, 2 * 700, 100, RELU, Map(rows, 1, 2, 700))
    made = BY_FORMAT[form](dense, Machine.of(goal)).kernel(ColumnKnobs(rows, 8))
    run = library([made.func], goal)(0)
    rng = np.random.default_rng(0)
    zero = rng.random(2 * 700) < 0.5
    x = np.where(zero, 0, rng.standard_normal((rows, 2 * 700))).astype(np.float32)
    bias = rng.standard_normal(100, np.float32)
    weight = rng.standard_normal(dense.weight_shape, np.float32)

    def output(weight: np.ndarray) -> np.ndarray:
        y = tvm.runtime.tensor(np.full((rows, 100), np.nan, np.float32))
        packing = made.packing
        assert packing is not None
        x_map = x.reshape(rows, 1, 2, 700)
        run(*map(tvm.runtime.tensor, (x_map, packing.pack(weight), bias)), y)
        return y.numpy()

    in_order = np.ascontiguousarray(zero.reshape(2, 700).T).ravel()
    # No larger than the rest, or the scales would change.
    weight = np.where(in_order, np.clip(weight, -1, 1), weight)
    others = np.where(in_order, -weight, weight)
    np.testing.assert_array_equal(output(weight), output(others))


@by_format
def test_no_input_and_inputs_that_are_no_numbers(form: WordFormat) -> None:
    goal = tvm.target.Target(HOST)
    dense = Dense(1, 1000, 100, None)
    made = BY_FORMAT[form](dense, Machine.of(goal)).kernel(ColumnKnobs(1, 8))
    assert made.packing is not None
    run = library([made.func], goal)(0)
    rng = np.random.default_rng(0)
    bias = rng.standard_normal(100, np.float32)
    weight = made.packing.pack(rng.standard_normal((100, 1000), np.float32))

    def output(x: np.ndarray) -> np.ndarray:
        y = tvm.runtime.tensor(np.zeros((1, 100), np.float32))
        run(*map(tvm.runtime.tensor, (x, weight, bias)), y)
        return y.numpy()[0]

    x = np.zeros((1, 1000), np.float32)
    np.testing.assert_array_equal(output(x), bias)
    np.testing.assert_array_equal(output(-x), bias)
    x[0, 999] = np.nan
    assert np.isnan(output(x)).all()


@pytest.mark.parametrize(("batch", "algorithm"), [(1, "gemv"), (2, "gemm"), (4, "gemm")])
def test_weights_that_come_from_memory_are_read_in_fewer_bytes(batch: int, algorithm: str) -> None:
    """As few as the error budget allows; without one they are float32."""
    machine = Machine(lanes=16, registers=32, cache=1 << 20, cores=2)
    fc6 = Dense(batch, 25088, 4096, RELU, Map(batch, 7, 7, 512))
    for budget, ending in ((2e-6, "-bfp20"), (1e-6, "-bfp24"), (0, "")):
        assert choices(fc6, machine, budget)[0].algorithm == algorithm + ending
    small = Dense(batch, 256, 10, None)
    assert kernel(small, machine).algorithm == algorithm
