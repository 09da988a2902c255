"""The memory that a training takes: each term by hand, and the whole beside what is measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support import ROOT
from tests.support.nets import graph_of, program
from vggc import program as driver
from vggc.analysis.training import (
    COMPILER,
    GAPS,
    PROCESS,
    TrainingMemory,
    TrainingSetup,
    fullest,
    of_images,
    parts_of,
    training_need,
)
from vggc.ir.ops import LocalResponseNorm
from vggc.program import Program
from vggc.recipe.course import course_in, course_of
from vggc.recipe.train import AdamW, Recipe, Sgd
from vggc.support.diagnostics import UserError
from vggc.syntax.ast import block_of

GRAPH = graph_of("conv3-4 act=none | pool | fc-10 act=none", "3x8x8")
IMAGE, MAP, POOLED, SCORES = 3 * 8 * 8, 4 * 8 * 8, 4 * 4 * 4, 10
CONV, DENSE = 3 * 3 * 3 * 4 + 4, 64 * 10 + 10


def test_a_checkpoint_holds_weights_averages_and_moments() -> None:
    def state(**changes: object) -> int:
        return training_need(GRAPH, replace(TrainingSetup(), **changes)).state  # type: ignore[arg-type]

    weights = 4 * (CONV + DENSE)
    assert state(moments=0) == weights
    assert state(moments=1) == 2 * weights
    assert state(moments=2, averaged=True) == 4 * weights


def test_statistics_are_kept_and_averaged_but_have_no_moments() -> None:
    graph = graph_of("conv1-4 bias=off norm=batch | gap", "3x8x8")
    need = training_need(graph, TrainingSetup(averaged=True))
    assert need.state == 4 * (2 * (12 + 4 * 4) + 12 + 2 * 4)


def test_frozen_layers_have_neither_moments_nor_gradients_and_save_nothing() -> None:
    names = frozenset(name for name in GRAPH.all_weights if name.startswith("conv"))
    course = TrainingSetup(images=2, frozen=names)
    image, conv, pool, *rest = parts_of(GRAPH, course)
    assert (conv.stored, conv.trained, conv.saved, pool.saved) == (CONV, 0, 0, 0)
    assert image.saved == 2 * 4 * IMAGE
    assert rest[-1].trained == DENSE
    assert training_need(GRAPH, course).state == 4 * (CONV + 2 * DENSE)


def test_a_step_is_at_its_fullest_somewhere_on_the_way_back() -> None:
    batch = 5
    saved = batch * 4 * (IMAGE + MAP + POOLED + SCORES) + batch * 8 * POOLED
    places = {
        "scores": saved + batch * 4 * (POOLED + SCORES) + 4 * DENSE,
        # `flatten` saves nothing, and what `fc` saved is gone.
        "flatten": saved - batch * 4 * SCORES + batch * 4 * 2 * POOLED + 4 * DENSE,
        "pool": saved - batch * 4 * SCORES + batch * 4 * (MAP + POOLED) + 4 * DENSE,
        "conv": batch * 4 * (IMAGE + MAP) + batch * 4 * (IMAGE + MAP) + 4 * (DENSE + CONV),
    }
    assert fullest([*parts_of(GRAPH, TrainingSetup(images=batch))]) == max(places.values())


def test_a_step_holds_its_images_and_of_a_step_in_parts_one_part_goes_through_the_net() -> None:
    whole, parts = TrainingSetup(images=8), TrainingSetup(images=2, parts=4)
    assert of_images(GRAPH, whole) == 8 * 2 * IMAGE
    assert of_images(GRAPH, parts) == 8 * 2 * IMAGE + 6 * 4 * IMAGE
    assert training_need(GRAPH, parts).step < training_need(GRAPH, whole).step


def test_in_sixteen_bits_activations_halve_and_weights_are_cast() -> None:
    graph = graph_of("conv3-4", "3x8x8")
    full, half = ([*parts_of(graph, TrainingSetup(images=7, half=half))] for half in (False, True))
    assert sum(layer.saved for layer in half) == sum(layer.saved for layer in full) // 2 + 2 * CONV


def test_without_instructions_for_sixteen_bits_a_convolution_unfolds_its_input() -> None:
    def passing(text: str, by_columns: bool) -> int:
        course = TrainingSetup(images=7, half=True, by_columns=by_columns)
        return [*parts_of(graph_of(text, "3x8x8"), course)][1].passing

    assert passing("conv3-4", True) - passing("conv3-4", False) == 7 * 2 * (3 * 9) * 64
    assert passing("conv1-4", True) == passing("conv1-4", False)


def test_a_response_normalisation_needs_more_than_its_gradients() -> None:
    op, shape = LocalResponseNorm(5, 1e-4, 0.75, 2.0), (8, 4, 4)
    assert op.passing(4, shape) == 5 * 4 * 128


def test_on_a_cpu_the_process_a_checkpoint_and_gaps_count_on_a_gpu_none_of_them() -> None:
    need = TrainingMemory(process=1000, pictures=200, state=30, step=10)
    assert need.on_cpu == 1000 + 200 + 2 * 30 + round(GAPS * 10)
    assert need.on_gpu == 30 + 10
    assert training_need(GRAPH, TrainingSetup(compiled=True)).process == PROCESS + COMPILER
    assert training_need(GRAPH, TrainingSetup(pictures=77)).pictures == 77


def test_the_recipe_says_what_is_kept_of_a_weight() -> None:
    def moments(recipe: Recipe) -> int:
        return course_of(recipe, GRAPH, 1).moments

    assert moments(Recipe(optimiser=Sgd(momentum=0.0))) == 0
    assert moments(Recipe(optimiser=Sgd())) == 1
    assert moments(Recipe(optimiser=AdamW())) == 2
    course = course_of(Recipe(ema=0.99, accumulate=4), GRAPH, 16)
    assert (course.images, course.parts, course.averaged) == (16, 4, True)


def test_a_recipe_with_mistakes_still_has_a_cost() -> None:
    net = program("net n input 3x8x8 conv3-4 | fc-2 | softmax\ntrain { adamw; freeze nowhere }")
    course = course_in(block_of(net.net.blocks, "train"), net.graph, 3)
    assert course == TrainingSetup(3, moments=2)
    assert net.report(3).totals.training_bytes


# What is refused

LARGE = """net large input 3x64x64 conv3-64 ×2 | pool | fc-10 | softmax
train { batch 64 }"""


def refusal(
    net: Program, course: TrainingSetup, present: int, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(driver, "memory", lambda: present)
    with pytest.raises(UserError) as caught:
        net.check_memory(course)
    return str(caught.value)


def need(net: Program, **course: int) -> int:
    return training_need(net.graph, TrainingSetup(**course)).on_cpu


def test_the_batch_that_is_suggested_fits_and_the_next_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = program(LARGE)
    text = refusal(net, TrainingSetup(64), need(net, images=37), monkeypatch)
    assert "batches of 64 take about" in text
    assert "`--batch 37`" in text
    net.check_memory(TrainingSetup(37))
    with pytest.raises(UserError):
        net.check_memory(TrainingSetup(38))


def test_parts_are_suggested_in_which_the_same_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    net = program(LARGE)
    text = refusal(net, TrainingSetup(64), need(net, images=16, parts=4), monkeypatch)
    assert "in 4 parts: `--set train.accumulate=4`" in text
    net.check_memory(TrainingSetup(16, 4))


def test_nothing_is_suggested_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = program(LARGE)
    text = refusal(net, TrainingSetup(64), PROCESS, monkeypatch)
    assert "a batch of 1 does not fit either" in text
    assert "--batch" not in text


def test_a_run_that_goes_on_keeps_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net = program(LARGE)
    monkeypatch.setattr(driver, "memory", lambda: need(net, images=37))
    with pytest.raises(UserError, match="begin a new run"):
        net.check_memory(TrainingSetup(64), fixed=True)


def test_processes_on_one_machine_need_memory_each(monkeypatch: pytest.MonkeyPatch) -> None:
    net = program(LARGE)
    monkeypatch.setattr(driver, "memory", lambda: 2 * need(net, images=20) - 1)
    net.check_memory(TrainingSetup(20))
    with pytest.raises(UserError, match=r"batches of 40 [^\0]*--batch 38`"):
        net.check_memory(TrainingSetup(20), processes=2)


# What is measured

Measure = Callable[[str, int, int, tuple[str, ...]], float]


@pytest.fixture
def ratio(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Told over measured, by `benchmarks/training_memory.py`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from training_memory import Case, measured

    return lambda *case: measured(Case(*case)).ratio


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system tells of peaks")
@pytest.mark.parametrize(
    "case",
    [
        ("vgg_tiny_cifar", 32, 256, ()),
        ("vgg11_bn(width=0.5)", 64, 32, ("--set", "optimiser=adamw")),
    ],
)
def test_what_is_told_is_within_a_quarter_of_what_is_measured(
    case: tuple[str, int, int, tuple[str, ...]], ratio: Measure
) -> None:
    assert 1 / 1.25 <= ratio(*case) <= 1.25
