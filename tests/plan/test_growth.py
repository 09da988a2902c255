"""Concatenations that grow in place: which do, and that each value is still what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nets import compile_net, graph_of, program
from vggc.compiler.memory import lifetimes, pieces
from vggc.compiler.targets import resolve
from vggc.kernels.workloads import Concat, Map
from vggc.measure.verify import verify
from vggc.plan.plan import Plan
from vggc.plan.verify import verify_plan
from vggc.runtime.plans import plan_for

BLOCK = "conv1-4 | concat(skip, batchnorm | relu | conv3-3) ×3 | batchnorm | relu | conv1-5"


def calls(body: str, target: str = "cpu") -> Plan:
    found = plan_for(graph_of(body), 2, resolve(target), "float32")
    verify_plan(found)
    return found


def growing(plan: Plan) -> list[bool]:
    return [step.workload.grows for step in plan.steps if isinstance(step.workload, Concat)]


def test_a_dense_block_lies_in_one_piece_of_memory() -> None:
    plan = calls(BLOCK)
    joins = [n for n, step in enumerate(plan.steps) if isinstance(step.workload, Concat)]
    maps = [plan.steps[number].output for number in joins]
    assert growing(plan) == [False, True, True]
    assert all(isinstance(map_, Map) and map_.shape == (2, 13, 11, 13) for map_ in maps)
    assert [map_.channels for map_ in maps if isinstance(map_, Map)] == [7, 10, 13]
    (piece,) = {pieces(plan)[number] for number in joins}
    life = lifetimes(plan)[piece]
    readers = [n for n, step in enumerate(plan.steps) if joins[-1] in step.reads]
    assert (life.bytes, life.first, life.last) == (4 * 2 * 13 * 11 * 13, joins[0], readers[-1])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("concat(skip, conv1-4) | concat(batchnorm, skip)", id="it is not the first"),
        pytest.param("a: concat(skip, conv1-4) | concat(skip, @a)", id="it is there twice"),
        pytest.param("concat(skip, conv1-4) | concat(skip, conv1-2)", id="others read no room"),
        pytest.param("a: concat(skip, gap) head h: @a | concat(skip, batchnorm)", id="a head"),
        pytest.param("concat(skip, batchnorm) | concat(skip, batchnorm) | conv3-3", id="a halo"),
    ],
)
def test_what_does_not_lie_first_and_alone_is_copied(body: str) -> None:
    assert not any(growing(calls(body.replace("gap", "conv1-2"))))


def test_only_one_of_two_that_read_a_value_first_grows() -> None:
    plan = calls("a: concat(skip, batchnorm) | concat(skip, batchnorm) | concat(@a, skip) | gap")
    assert growing(plan) == [False, False, True]


def test_kernels_for_gpus_know_no_room() -> None:
    assert not any(growing(calls(BLOCK, "cuda")))


@pytest.mark.slow
def test_each_value_of_a_dense_block_is_what_it_was(tmp_path: Path) -> None:
    compile_net(program(f"net dense input 3x13x11\n{BLOCK} | gap | fc-3"), tmp_path / "net", 2)
    for result in verify(tmp_path / "net"):
        assert result.passed
        assert all(error < 1e-5 for *_, error in result.step_errors)
