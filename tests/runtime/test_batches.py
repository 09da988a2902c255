"""Artifacts for several batches: images go to those that compute them at the least cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import vggc
from tests.support.low_precision_kernels import LACKS
from tests.support.nets import TINY
from vggc.backends.torch import reference
from vggc.cli import cli
from vggc.compiler.buckets import fewest_images
from vggc.ir import needs
from vggc.ir.weights import seeded
from vggc.program import Program
from vggc.runtime.artifact import require_memory, sound_manifest
from vggc.runtime.cpu_session import CpuSession
from vggc.runtime.gpu_session import GpuSession
from vggc.runtime.session import Session
from vggc.support.batches import checked_batches, parse_batches
from vggc.support.diagnostics import UserError, render
from vggc.support.records import write_record
from vggc.support.tensors import read_all
from vggc.support.tvm_alone import tvm
from vggc_runtime.folder import MANIFEST, WEIGHTS
from vggc_runtime.native import NativeStep

Make = Callable[..., Path]
Noise = Callable[..., np.ndarray]
BATCHES = (1, 3, 8)


@pytest.fixture(scope="module")
def folder(compiled_tiny: Callable[..., Path]) -> Path:
    return compiled_tiny(*BATCHES)


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_images_gives_the_same_bits_as_each_by_itself(
    folder: Path, tiny: Program, noise: Noise, threads: int
) -> None:
    """By whichever batches; of zeros beside them nothing is seen."""
    session = Session.load(folder, threads=threads)
    x = noise(18, *tiny.graph.input)
    alone = np.concatenate([session.run(x[i : i + 1]) for i in range(len(x))])
    expected = reference(tiny.graph, seeded(tiny.graph, 0))(x)["softmax1"]
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-7)
    for images in range(1, len(x) + 1):
        np.testing.assert_array_equal(session.run(x[:images]), alone[:images])


@pytest.mark.parametrize("images", range(1, 19))
def test_the_library_computes_images_by_the_batches_that_the_manifest_tells(
    folder: Path, tiny: Program, noise: Noise, images: int
) -> None:
    session = Session.load(folder)
    x = noise(images, *tiny.graph.input)
    assert isinstance(session, CpuSession)
    computed, left = [], images
    while left > 0:
        computed.append(session.manifest.entry_for(left).batch)
        left -= computed[-1]
    called: list[int] = []

    def watch(step: NativeStep) -> None:
        if step.name.startswith("softmax"):
            called.append(step.shape[0])

    (found,) = session.watch(x, watch).values()
    assert called == computed
    assert len(found) == images


def test_the_next_batch_is_the_largest_that_is_taken_for_as_many_images(folder: Path) -> None:
    manifest = sound_manifest(folder)
    fewest = dict(zip(BATCHES, (1, 3, 6), strict=True))
    entries = tuple(replace(each, fewest=fewest[each.batch]) for each in manifest.entries)
    changed = replace(manifest, entries=entries)
    found = {images: changed.entry_for(images).batch for images in (0, 1, 2, 3, 5, 6, 8, 99)}
    assert found == {0: 1, 1: 1, 2: 1, 3: 3, 5: 3, 6: 8, 8: 8, 99: 8}


def test_a_batch_is_taken_for_fewer_images_where_it_costs_less() -> None:
    batches = (1, 4, 16)
    assert fewest_images(batches, (10, 40, 160)) == batches, "zeros are never computed in vain"
    assert fewest_images(batches, (10, 10, 10)) == (1, 2, 5), "one call does not cost more"
    assert fewest_images(batches, (10, 25, 95)) == (1, 3, 14)
    assert fewest_images(batches, (10, 30, 200)) == (1, 3, 16), "it was asked for"
    assert fewest_images((2, 3), (0, 0)) == (1, 3)


@pytest.mark.parametrize("fewest", [(2, 3, 8), (1, 1, 8), (1, 4, 8), (1, 3, 3)])
def test_a_manifest_that_takes_no_batch_for_some_images_is_refused(
    tiny_artifact: Make, fewest: tuple[int, ...]
) -> None:
    copy = tiny_artifact(*BATCHES)
    manifest = sound_manifest(copy)
    pairs = zip(manifest.entries, fewest, strict=True)
    entries = tuple(replace(entry, fewest=images) for entry, images in pairs)
    changed = replace(manifest, entries=entries)
    write_record(copy / MANIFEST, replace(changed, sha256=changed.digest))
    with pytest.raises(UserError, match="is not taken for the images for which it must be"):
        sound_manifest(copy)


def test_all_batches_share_one_copy_of_the_weights(
    folder: Path, compiled_tiny: Callable[..., Path]
) -> None:
    alone, together = (read_all(each / WEIGHTS) for each in (compiled_tiny(8), folder))
    assert {name: each.size for name, each in together.items()} == {
        name: each.size for name, each in alone.items()
    }


def test_a_manifest_tells_the_kernels_of_each_batch(folder: Path) -> None:
    manifest = sound_manifest(folder)
    assert manifest.batches == BATCHES
    first, *others = ([kernel.step for kernel in each.kernels] for each in manifest.entries)
    assert others == [first, first]


def test_an_array_on_another_device_than_the_weights_is_copied(
    folder: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's kernels would read memory that is not theirs."""
    of_cpu = Session.load(folder)
    on_gpu = GpuSession(
        folder=folder,
        manifest=of_cpu.manifest,
        threads=1,
        own_archs=(),
        device=tvm.cuda(),
        machine=None,
        weights=(),
        calls={},
    )
    copied: list[np.ndarray] = []
    monkeypatch.setattr(GpuSession, "tensor", lambda self, x: copied.append(x))
    x = noise(3, 3, 16, 16)
    on_gpu.lent(x)
    assert copied == [x]


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_verify_looks_at_each_batch(folder: Path) -> None:
    told = invoke("verify", folder, "--layers")
    for batch in BATCHES:
        assert f"random, batch {batch}: ok, relative L2 error" in told
    found = json.loads(invoke("verify", folder, "--json"))["inputs"]
    assert [each["batch"] for each in found] == [*BATCHES] * 3
    assert {each["images"] for each in found} == {8}


def test_verify_tells_which_batch_departs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = CpuSession.run_all

    def wrong_for_three(self: CpuSession, x: np.ndarray) -> dict[str, np.ndarray]:
        found = right(self, x)
        return {name: 0 * value for name, value in found.items()} if len(x) == 3 else found

    monkeypatch.setattr(CpuSession, "run_all", wrong_for_three)
    verdict = vggc.open_artifact(folder).verify()
    assert verdict.fault is not None
    assert "does not compute its net on random, batch 3: its relative L2 error" in verdict.fault
    assert {each.batch for each in verdict.results if not each.passed} == {3}


@pytest.mark.slow
def test_bench_times_the_batch_that_is_asked_for(folder: Path) -> None:
    artifact = vggc.open_artifact(folder)
    assert artifact.bench([], rounds=1).batch == 8
    assert artifact.bench([], rounds=1, batch=3).batch == 3
    options = ["--batch", 3, "--rounds", 1, "--threads", 1, "--json"]
    found = json.loads(invoke("bench", folder, "--layers", *options))
    assert found["batch"] == 3
    (conv,) = (each for each in found["layers"] if each["step"] == "conv1_1.relu")
    assert conv["macs"] == 3 * 16 * 16 * 8 * 27


def test_a_batch_that_an_artifact_has_not_is_refused(folder: Path) -> None:
    for more in ([], ["--layers"]):
        done = CliRunner().invoke(cli, ["bench", str(folder), "--batch", "4", *more])
        assert isinstance(done.exception, UserError)
        told = render(done.exception.diagnostics[0])
        assert "it is compiled for batches of 1, 3, 8" in told
        assert "`--batch 1,3,4,8`" in told


def test_memory_is_told_for_the_largest_batch(
    folder: Path, tiny: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches are computed in the room of the largest."""
    need = replace(needs.RUNNING, value=1e6)
    stored = (folder / WEIGHTS).stat().st_size
    monkeypatch.setattr(needs, "free_memory", lambda: need.bytes(tiny.graph, 3, stored))
    for batch in (None, 3):
        with pytest.raises(UserError, match="too large for this machine"):
            require_memory(folder, need, batch)
    monkeypatch.setattr(needs, "free_memory", lambda: need.bytes(tiny.graph, 8, stored))
    require_memory(folder, need)


# ---------------------------------------------------------------- what the user asks for


def test_batches_are_each_once_and_in_order() -> None:
    assert parse_batches("8, 1,8,32") == (1, 8, 32)
    assert checked_batches([4]) == (4,)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("0", "0 is out of range: it is from 1 to 1,024 images"),
        ("1,1025", "1,025 is out of range"),
        ("-3", "-3 is out of range"),
        ("1,,8", "there is none beside a comma"),
        ("", "there is none beside a comma"),
        ("1,x", "`x` is no whole number"),
        ("1.5", "`1.5` is no whole number"),
        ("1" * 20, "is no whole number"),
        ("1,2,3,4,5,6,7,8,9", "these are 9, and an artifact is for 8 at most"),
    ],
)
def test_what_is_no_batch_is_told(given: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_batches(given)
    told = render(caught.value.diagnostics[0])
    assert reason in told
    assert "several: 1,8,32" in told


def test_compile_tells_and_dumps_each_batch(tiny_file: Path, tmp_path: Path) -> None:
    out, dump = tmp_path / "art", tmp_path / "dump"
    told = CliRunner().invoke(
        cli, ["compile", str(tiny_file), "--batch", "4,1", "-o", str(out), "--dump", str(dump)]
    )
    assert told.exit_code == 0, told.output
    assert f"{out}: tiny, batches of 1 and 4, " in told.stdout
    assert "--batch 1,4` measures" in told.stderr
    plans = (dump / "03-plan/plan.txt").read_text()
    assert "tiny, batch 1 of 3×16×16: " in plans
    assert "tiny, batch 4 of 3×16×16: " in plans
    choices = (dump / "06-choose-kernels/choices.txt").read_text().splitlines()[2:]
    assert {line.split()[0] for line in choices} == {"1", "4"}
    source = (dump / "12-export/tiny.c").read_text()
    assert "table_calls_0" in source
    assert "table_calls_1" in source


# ---------------------------------------------------------------- Python


def test_python_compiles_for_several_batches(tmp_path: Path, noise: Noise) -> None:
    artifact = vggc.compile(vggc.from_text(TINY), out=tmp_path / "a", batch=[4, 1], seed=0)
    assert artifact.batches == (1, 4)
    assert artifact.batch == 4
    assert "batch 1, 4>" in repr(artifact)
    x = noise(6, 3, 16, 16)
    one_by_one = np.concatenate([artifact(x[i : i + 1]) for i in range(6)])
    np.testing.assert_array_equal(artifact(x), one_by_one)
    with pytest.raises(vggc.UserError, match="0 is out of range"):
        vggc.compile(vggc.from_text(TINY), out=tmp_path / "b", batch=0)


def test_outputs_stay_where_they_lie(folder: Path, noise: Noise) -> None:
    artifact = vggc.open_artifact(folder)
    x = noise(3, 3, 16, 16)
    (output,) = artifact.on_device(torch.from_numpy(x)).values()
    tensor = torch.from_dlpack(output)
    assert tensor.data_ptr() == np.from_dlpack(output).ctypes.data
    before = tensor.clone()
    wanted = artifact(x)
    np.testing.assert_array_equal(tensor, wanted)
    artifact(noise(3, 3, 16, 16) + 1)
    assert torch.equal(tensor, before)
    with pytest.raises(vggc.UserError, match="an array of 2 images") as caught:
        artifact.on_device(x[:2])
    assert "a whole batch of 1 or 3 or 8" in str(caught.value)


# ---------------------------------------------------------------- bits

MANY_KINDS = """
net kinds
input 3x12x12

  conv3-32 norm=batch | lrn
| add(conv3-32 | conv3-32 act=none, skip) | relu
| conv3-32 groups=32 | pool
| conv3-64 | avgpool2 stride=2
| fc-70 | fc-12 act=none | softmax
"""
"""Convolutions of several kinds, a join, pools; some are for Winograd, some stay in float32."""


@pytest.mark.slow
def test_bits_do_not_depend_on_the_batch_in_int8(tmp_path: Path, noise: Noise) -> None:
    if LACKS:
        pytest.skip("this CPU has no such instructions")
    rng = np.random.default_rng(0)
    for index in range(3):
        picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
        picture.save(tmp_path / f"{index}.png")
    net, out = vggc.from_text(MANY_KINDS), tmp_path / "a"
    artifact = vggc.compile(
        net, out=out, batch=[1, 4, 16], seed=0, precision="int8", images=tmp_path
    )
    x = noise(21, 3, 12, 12)
    alone = np.concatenate([artifact(x[i : i + 1]) for i in range(len(x))])
    for count in (3, 4, 5, 15, 16, 17, 21):
        np.testing.assert_array_equal(artifact(x[-count:]), alone[-count:])
