"""What an artifact for GPUs is thought to take on a card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.device import needs_compilers
from tests.support.nets import TINY, compile_tiny, program
from vggc.api.trained import from_spec
from vggc.compiler.cards import card_for
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import resolve
from vggc.kernels.cuda import A100, H200, RTX4090, Card
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.measure.estimates import card_named, estimate
from vggc.support.diagnostics import UserError

Command: TypeAlias = Callable[..., tuple[object, str, str]]

WORK = BlockWork(
    format="float16",
    blocks=132,
    threads=256,
    shared=100 << 10,
    registers=128,
    operations=1e9,
    cache_bytes=1e5,
    memory_bytes=1e6,
    stages=4,
    steps=10,
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("art") / "art"
    net = program(TINY)
    subject = from_spec(net, None, seed=0)
    job = Job(
        net=net.net,
        graph=net.graph,
        target=resolve("cuda", ["sm_80"]),
        batches=(2,),
        weights=subject.weights,
        weights_from=subject.weights_from,
        preprocessing=subject.preprocessing,
        classes=(),
        precision="float16",
    )
    build_artifact(job, folder)
    return folder


def with_blocks(count: int) -> BlockWork:
    return replace(WORK, blocks=count)


def test_a_wave_more_takes_longer() -> None:
    room = WORK.resident(H200)
    assert room == 2
    whole = seconds(with_blocks(132 * room), H200)
    assert seconds(with_blocks(132 * room + 1), H200) > whole
    assert seconds(with_blocks(132 * room - 1), H200) == whole


def test_what_takes_longest_decides() -> None:
    read = replace(WORK, memory_bytes=4e9)
    assert seconds(read, H200) == pytest.approx(1e-3, rel=0.01)
    copied = replace(WORK, cache_bytes=1e9)
    assert seconds(copied, H200) == pytest.approx(132e9 / 5.5e12, rel=0.01)


def test_products_take_as_long_as_tensor_cores_need_for_their_format() -> None:
    work = replace(WORK, operations=1e12)
    assert seconds(replace(work, format="uint8"), H200) < 0.51 * seconds(work, H200)
    assert seconds(replace(work, format="uint8"), RTX4090) < 0.26 * seconds(work, RTX4090)


@pytest.mark.parametrize(
    ("archs", "card", "shared"),
    [
        (["sm_90"], H200, 227),
        (["sm_80", "sm_90", "compute_90"], H200, 99),  # sm_86 runs code for sm_80
        (["sm_90", "compute_90"], H200, 99),  # and sm_120 any PTX
        (["sm_80", "compute_90"], A100, 99),  # which are cards that nobody knows yet
        (["sm_80", "sm_89", "compute_90"], RTX4090, 99),
        (["compute_90"], H200, 99),
        (["sm_86"], A100, 99),
        (["sm_89"], RTX4090, 99),
        (["sm_75"], A100, 163),
        (["sm_120"], H200, 99),
    ],
)
def test_kernels_are_chosen_for_the_newest_card_that_machine_code_is_for(
    archs: list[str], card: Card, shared: int
) -> None:
    chosen = card_for(archs)
    assert (chosen.name, chosen.block_shared) == (card.name, shared << 10)


@needs_compilers
def test_every_kernel_is_estimated(artifact: Path) -> None:
    found = estimate(artifact, "h200")
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert [call.algorithm for call in found.calls] == [
        kernel["algorithm"] for kernel in manifest["entries"][0]["kernels"]
    ]
    assert {"mma_image", "gemv_segments"} <= {call.algorithm for call in found.calls}
    assert all(0 < call.floor < call.seconds < 1e-3 for call in found.calls)
    assert found.seconds == sum(call.seconds for call in found.calls)
    counted = [call.moved for call in found.calls if call.moved is not None]
    told = {call.algorithm for call in found.calls if call.moved}
    assert told == {"to_nhwc", "mma_image", "gemv_segments"}
    assert all(each.ratio == pytest.approx(1, rel=0.1) for each in counted)
    assert found.moved is not None
    assert found.moved.total == sum(each.total for each in counted)


@needs_compilers
def test_an_estimate_says_that_it_is_one(
    artifact: Path, vggc_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifact.parent)
    code, shown, _ = vggc_here("bench", "art", "--layers", "--card", "H200")
    assert code == 0
    assert "an estimate for h200" in shown
    assert "Estimated by a model of the card, not measured." in shown
    assert "MB to and from memory are counted" in shown
    _, told, _ = vggc_here("bench", "art", "--layers", "--card", "a100", "--json")
    record = json.loads(told)
    assert record["estimated"] is True
    assert record["sum_seconds"] >= record["floor_seconds"]
    assert record["layers"][1]["moved"]["read"] > 0


def test_a_card_that_is_not_known() -> None:
    with pytest.raises(UserError, match="unknown card `h20`"):
        card_named("h20")


def test_an_artifact_for_a_cpu_has_no_estimate(tmp_path: Path) -> None:
    compile_tiny(tmp_path / "art", 1)
    with pytest.raises(UserError, match="is not for GPUs"):
        estimate(tmp_path / "art", "h200")


@pytest.mark.parametrize("more", [[], ["--layers", "--threads", "1"]])
def test_a_card_goes_with_layers_alone(more: list[str], vggc_here: Command) -> None:
    code, _, said = vggc_here("bench", "art", "--card", "h200", *more)
    assert code == 2
    assert "--card goes with --layers" in said
