"""An artifact that holds kernels for each kind of GPU: a GPU runs its own, with its own weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers
from tests.support.emulated_gpu import vggc
from tests.support.machine_code import cubins, disassembler, instructions, is_product
from tests.support.variants import ARCHS, BATCHES, compile_variants
from vggc.compiler.choose import rebuilt
from vggc.measure.estimates import estimate
from vggc.runtime.artifact import SPEC, Manifest, own_weight, read_manifest
from vggc.runtime.plans import plans_in
from vggc.support.diagnostics import UserError
from vggc.support.records import from_json, to_json
from vggc_runtime.folder import LIBRARY, MANIFEST

pytestmark = [pytest.mark.slow, needs_compilers]

OTHERS, HOPPER = "", "sm_90a"
PACKED_TWICE = {"conv1_1.weight", "conv1_2.weight"}
"""The weights that kernels by warpgroups want packed in another way."""


@dataclass(frozen=True)
class Made:
    """An artifact, and the CUDA C++ of its kernels."""

    folder: Path
    source: str

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("variants") / "art"
    return Made(folder, compile_variants(folder))


def test_each_batch_has_kernels_for_each_kind_of_gpu(made: Made) -> None:
    manifest = made.manifest
    assert manifest.batches == BATCHES
    assert [(entry.arch, entry.batch) for entry in manifest.entries] == [
        (arch, batch) for arch in (OTHERS, HOPPER) for batch in BATCHES
    ]
    variants = manifest.variants
    assert {name: each.target.archs for name, each in variants.items()} == {
        OTHERS: ("sm_80",),
        HOPPER: ("sm_90a",),
    }
    by_warpgroups = {
        arch: {kernel.algorithm == "wgmma_patches" for kernel in each.largest.kernels}
        for arch, each in variants.items()
    }
    assert by_warpgroups == {OTHERS: {False}, HOPPER: {False, True}}


def test_only_what_is_packed_otherwise_is_stored_twice(made: Made) -> None:
    others, hopper = (made.manifest.variants[arch].weights for arch in (OTHERS, HOPPER))
    assert hopper.keys() - others.keys() == {own_weight(name, HOPPER) for name in PACKED_TWICE}
    assert others.keys() - hopper.keys() == PACKED_TWICE
    assert made.manifest.weights.keys() == others.keys() | hopper.keys()


@pytest.mark.parametrize(
    ("device", "arch"),
    [((8, 0), OTHERS), ((8, 9), OTHERS), ((9, 0), HOPPER), ((10, 0), OTHERS)],
)
def test_which_kernels_a_gpu_gets(made: Made, device: tuple[int, int], arch: str) -> None:
    manifest = made.manifest
    assert manifest.variant_for(device) == manifest.variants[arch]


@pytest.mark.parametrize("arch", ARCHS)
def test_a_gpu_runs_its_own_kernels(made: Made, arch: str, tmp_path: Path) -> None:
    """The emulated GPU of each architecture knows no kernels but those in the code for it."""
    environment = gpu_on_cpu.environment(made.source, tmp_path, arch)
    found = json.loads(vggc(["verify", str(made.folder), "--json"], environment))["inputs"]
    assert {(*each["archs"], each["batch"]) for each in found} == {(arch, b) for b in BATCHES}
    assert all(each["passed"] for each in found)
    graphs = [line for line in gpu_on_cpu.launched(tmp_path) if line.startswith("capture")]
    assert graphs == ["capture 3 overlapping 3" if arch == HOPPER else "capture 3"] * len(BATCHES)


def test_an_estimate_is_of_the_kernels_that_the_card_would_run(made: Made) -> None:
    for card, arch in (("a100", "sm_80"), ("rtx4090", "sm_80"), ("h200", "sm_90a")):
        found = estimate(made.folder, card)
        assert found.archs == (arch,)
        by_warpgroups = {call.algorithm == "wgmma_patches" for call in found.calls}
        assert (True in by_warpgroups) == (card == "h200")


def test_the_kernels_of_both_can_be_made_again(made: Made) -> None:
    manifest = made.manifest
    assert [*rebuilt(made.folder, manifest)] == [entry.name for entry in manifest.entries]
    last = manifest.entries[-1]
    swapped = replace(last, kernels=manifest.variants[OTHERS].largest.kernels)
    with pytest.raises(UserError, match=r"is computed by|is packed in|there is no"):
        rebuilt(made.folder, replace(manifest, entries=(*manifest.entries[:-1], swapped)))


def test_machine_code_has_the_kernels_of_its_architecture(made: Made, tmp_path: Path) -> None:
    if disassembler() is None:
        pytest.skip("no nvdisasm")
    found = dict(cubins((made.folder / LIBRARY).read_bytes()))
    assert [*found] == ["sm_80", "sm_90"]
    names: dict[str, set[str]] = {}
    products: dict[str, set[str]] = {}
    for arch, cubin in found.items():
        code = instructions(cubin, tmp_path)
        names[arch] = {*code}
        products[arch] = {
            name.partition(".")[0]
            for kernel in code.values()
            for name, _ in kernel
            if is_product(name)
        }
    assert not names["sm_80"] & names["sm_90"]
    assert products == {"sm_80": {"HMMA"}, "sm_90": {"HGMMA"}}


Entries = list[dict[str, Any]]


def renamed(entries: Entries, **changes: Any) -> Entries:
    """The entries with changes in those for Hopper's GPUs."""
    return [{**each, **changes} if each["arch"] else each for each in entries]


def weights(entries: Entries, old: str, new: str) -> Entries:
    """The entries with another name of a weight in those for Hopper's GPUs."""
    (taken,) = {tuple(each["weights"]) for each in entries if each["arch"]}
    return renamed(entries, weights=[new if name == old else name for name in taken])


ONE = "conv1_2.weight"
TWICE = own_weight(ONE, HOPPER)
HOSTILE = {
    "an unknown architecture": (lambda e: renamed(e, arch="../x"), "no code of its own"),
    "one without code": (lambda e: renamed(e, arch="sm_100a"), "no code of its own"),
    "one of several": (lambda e: renamed(e, arch="sm_80"), "no code of its own"),
    "twice the same": (lambda e: [*e, e[-1]], "each batch for each choice"),
    "a batch less": (lambda e: e[:-1], "each batch for each choice"),
    "in another order": (lambda e: [e[0], e[2], e[1], e[3]], "each batch for each choice"),
    "none for others": (lambda e: e[2:], "no kernels for all other"),
    "no weight": (lambda e: weights(e, TWICE, "nothing"), "its weights are not"),
    "a weight twice": (
        lambda e: weights(e, TWICE, own_weight("conv1_1.weight", HOPPER)),
        "its weights are not",
    ),
    "a weight of others": (lambda e: weights(e, TWICE, ONE), "its weights are not"),
    "fewer weights": (lambda e: renamed(e, weights=[]), "its weights are not"),
}


@pytest.mark.parametrize(("change", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_whose_entries_cannot_be_is_refused(
    made: Made, change: Any, reason: str, tmp_path: Path
) -> None:
    written = json.loads(json.dumps(to_json(made.manifest)))
    written["entries"] = change(written["entries"])
    write(tmp_path, written)
    with pytest.raises(UserError, match=reason):
        read_manifest(tmp_path)


@pytest.mark.parametrize("old", ["conv1_1.bias", "fc2.weight"])
@pytest.mark.parametrize("new", ["{}@sm_80", "{}@", "conv9.weight"])
def test_weights_under_names_that_the_net_does_not_have_are_refused(
    made: Made, old: str, new: str, tmp_path: Path
) -> None:
    """However whole the manifest is by itself."""
    written = json.loads(json.dumps(to_json(made.manifest)))
    name = new.format(old)
    written["entries"] = weights(written["entries"], old, name)
    shapes = {**written["weights"], name: written["weights"][old]}
    order = dict.fromkeys([*written["entries"][0]["weights"], *written["entries"][2]["weights"]])
    written["weights"] = {each: shapes[each] for each in order}
    write(tmp_path, written)
    (tmp_path / SPEC).write_text((made.folder / SPEC).read_text())
    with pytest.raises(UserError, match="tells of other weights"):
        plans_in(tmp_path, read_manifest(tmp_path))


def write(folder: Path, written: dict[str, Any]) -> None:
    """Writes a manifest as somebody would who knows that it hashes itself."""
    digest = from_json(Manifest, written).digest
    (folder / MANIFEST).write_text(json.dumps({**written, "sha256": digest}))
