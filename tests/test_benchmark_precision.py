"""What measures how exact each precision is."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.nets import graph_of
from vggc.backends.torch import reference
from vggc.ir.weights import seeded
from vggc.passes.fold import fold

SCRIPT = ROOT / "benchmarks" / "precision.py"


@pytest.fixture(scope="module")
def precision() -> ModuleType:
    spec = spec_from_file_location("benchmarks_precision", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_wider_net_gives_each_score_of_the_trained_one(precision: ModuleType) -> None:
    small, large = (
        fold(graph_of(text, "3x2x2")).graph
        for text in ("conv3-4 | pool | fc-6 | fc-3", "conv3-9 | pool | fc-20 | fc-7")
    )
    trained = seeded(small, 0)
    x = np.random.default_rng(0).standard_normal((5, 3, 2, 2), np.float32)
    wanted = reference(small, trained)(x)["fc3"]
    got = reference(large, precision.widened(small, trained, large))(x)["fc3"]
    copies = np.abs(got[:, :, None] - wanted[:, None]).max(0) < 1e-6
    assert (copies.sum(1) == 1).all(), "each score is that of one class"
    assert copies.any(0).all(), "each class has a copy"


def test_errors_grow_as_bits_are_fewer(precision: ModuleType) -> None:
    graph = graph_of("conv3-8 | pool | conv3-8 | fc-6 | softmax", "3x8x8")
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((1, 3, 8, 8), np.float32) for _ in range(5)]
    case = precision.Case(graph, seeded(fold(graph).graph, 0), images, images, 2)
    exact = case.exact_scores()
    errors = [precision.error(case.scores(each), exact) for each in precision.PRECISIONS]
    float32, tf32, float16, bfloat16, int8 = errors
    assert float32 < 1e-6
    assert 1e-4 < tf32 < 1e-3
    assert 1e-4 < float16 < 1e-3
    assert 1e-3 < bfloat16 < 1e-2
    assert 3e-3 < int8 < 5e-2
