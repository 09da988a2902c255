"""Sums that 1×1 convolutions compute: which are, and that each value is still what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nets import compile_net, graph_of, program
from vggc.compiler.targets import resolve
from vggc.kernels.workloads import Add, Conv
from vggc.measure.verify import verify
from vggc.plan.plan import Plan
from vggc.plan.verify import verify_plan
from vggc.runtime.artifact import ArtifactPrecision
from vggc.runtime.plans import plan_for

BLOCK = "conv3-4 | add(conv3-3 | conv1-4 act=none, skip) | relu"


def calls(body: str, target: str = "cpu", precision: ArtifactPrecision = "float32") -> Plan:
    found = plan_for(graph_of(body), 2, resolve(target), precision)
    verify_plan(found)
    return found


def sums(plan: Plan) -> list[str]:
    """What computes each sum: the call of its own, or the kernel of a convolution."""
    found = []
    for step in plan.steps:
        match step.workload:
            case Add():
                found.append("add")
            case Conv(addend=addend, kernel=(rows, _)) if addend is not None:
                found.append(f"conv{rows}")
            case _:
                pass
    return found


def test_a_residual_block_writes_its_output_once() -> None:
    plan = calls(BLOCK)
    assert sums(plan) == ["conv1"]
    (last,) = (
        step for step in plan.steps if isinstance(step.workload, Conv) and step.workload.addend
    )
    assert last.workload.act is not None
    assert last.name == "relu1"


def test_of_two_convolutions_the_later_one_adds() -> None:
    plan = calls("conv3-4 | add(conv1-5 act=none, conv1-5 act=none)")
    names = [step.weights[0] for step in plan.steps if step.weights]
    assert sums(plan) == ["conv1"]
    assert names[-1].startswith("add1_conv2")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("add(conv3-3 act=none, skip)", id="Winograd's kernels do not add"),
        pytest.param("add(conv1-3, skip)", id="the activation comes first"),
        pytest.param("add(conv1-3 act=none, skip, relu)", id="three terms"),
        pytest.param("add(a: conv1-3 act=none, skip) | concat(skip, @a)", id="another reads it"),
        pytest.param("add(conv1-3 groups=3 act=none, skip)", id="groups"),
    ],
)
def test_other_sums_are_calls_of_their_own(body: str) -> None:
    assert sums(calls(f"conv3-3 | {body}")) == ["add"]


@pytest.mark.parametrize(("target", "precision"), [("cuda", "float32"), ("cpu", "int8")])
def test_other_kernels_do_not_add(target: str, precision: ArtifactPrecision) -> None:
    assert sums(calls(BLOCK, target, precision)) == ["add"]


@pytest.mark.slow
def test_a_net_of_blocks_computes_what_it_did(tmp_path: Path) -> None:
    ends = "add(conv1-6 act=none, conv1-6 act=none) | relu | add(skip, conv1-6 act=none)"
    compile_net(
        program(f"net blocks input 3x13x11\n{BLOCK} | {ends} | gap | fc-3"), tmp_path / "net", 2
    )
    for result in verify(tmp_path / "net"):
        assert result.passed
        assert all(error < 1e-5 for *_, error in result.step_errors)
