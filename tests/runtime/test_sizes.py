"""Artifacts for images of several sizes: one copy of the weights, and each size as if alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vggc
import vggc_runtime
from tests.support.nets import TINY, program
from tests.support.standalone import StandaloneNet
from vggc.api import tune
from vggc.api.compile import CompileOptions, applied_at, plan
from vggc.api.tune import TuneOptions
from vggc.backends.torch import reference
from vggc.evaluation.viewer import Viewer
from vggc.evaluation.views import View, Views
from vggc.ir.weights import seeded
from vggc.passes.dense import resized
from vggc.program import load, with_input, zoo
from vggc.runtime.artifact import read_manifest, sound_manifest
from vggc.runtime.session import Session
from vggc.support.diagnostics import UserError, render
from vggc.support.sizes import checked_sizes, sizes_of
from vggc.support.tensors import read_all
from vggc.training.learner import TrainMachine
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.manifest import digest_of

Here = Callable[..., tuple[object, str, str]]
Noise = Callable[..., np.ndarray]

OWN, WIDE, TALL = (16, 16), (20, 24), (40, 16)
BATCHES = (1, 3)
POOLED = "net pooled input 3x16x16 conv3-8 norm=batch | pool | conv3-12 | gap | fc-5"
"""A net that takes images of any size."""


def compiled(folder: Path, text: str, **options: Any) -> Path:
    asked = CompileOptions(out=folder, seed=0, threads=2, tuned=False, **options)
    plan(program(text), asked, lambda _: None).build()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net with fully-connected layers, for crops and whole images. Nobody writes to it."""
    out = tmp_path_factory.mktemp("sizes") / "tiny"
    sizes = {"sizes": (OWN,), "dense": (WIDE, TALL), "batches": BATCHES}
    return compiled(out, TINY, **sizes, standalone=True)


def expected(net: str, size: tuple[int, int], x: np.ndarray, dense: bool = True) -> np.ndarray:
    """What PyTorch computes in float64 of images of a size."""
    made = program(net)
    sizes = applied_at(made, (made.graph.input[1:],), (size,)) if dense else ()
    spread = sizes[-1].spread if sizes else applied_at(made, (OWN, size), ())[-1].spread
    graph, weights = spread.graph, spread.weights(seeded(made.graph, 0))
    value: np.ndarray = reference(graph, weights)(x)[graph.nodes[graph.heads[0].node].name]
    return value


# ---------------------------------------------------------------- what is in one artifact


def test_a_manifest_tells_each_size_with_each_batch(folder: Path) -> None:
    manifest = sound_manifest(folder)
    assert (manifest.input, manifest.inputs) == (
        (3, *OWN),
        ((3, *OWN), (3, *WIDE), (3, *TALL)),
    )
    assert [each.dense for each in manifest.sizes] == [False, True, True]
    assert [each.name for each in manifest.entries] == [
        *("1_16x16", "3_16x16", "1_20x24", "3_20x24", "1_40x16", "3_40x16")
    ]
    assert manifest.largest.name == "3_16x16"
    assert manifest.preprocessing.size == OWN
    assert manifest.at(WIDE).preprocessing.size == WIDE
    assert manifest.at(WIDE).preprocessing.scale is None


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same net for crops alone. Nobody writes to it."""
    return compiled(tmp_path_factory.mktemp("alone") / "tiny", TINY, batches=BATCHES)


def test_all_sizes_share_one_copy_of_the_weights(folder: Path, alone: Path) -> None:
    """Layers that slide read what the fully-connected layers of crops read."""
    before, together = (read_all(each / WEIGHTS) for each in (alone, folder))
    assert {name: each.nbytes for name, each in together.items()} == {
        name: each.nbytes for name, each in before.items()
    }
    for each in sound_manifest(folder).entries:
        assert set(each.weights) == set(before)


@pytest.mark.parametrize("size", [OWN, WIDE, TALL])
@pytest.mark.parametrize("images", [1, 2, 4])
def test_images_of_each_size_are_computed(
    folder: Path, size: tuple[int, int], images: int, noise: Noise
) -> None:
    x = noise(images, 3, *size)
    found = Session.load(folder).run(x)
    np.testing.assert_allclose(found, expected(TINY, size, x), rtol=1e-5, atol=1e-7)


def test_a_size_gives_what_an_artifact_for_it_alone_gives(
    folder: Path, alone: Path, noise: Noise
) -> None:
    """To the bit, where its kernels are the same."""
    made = [
        [(kernel.algorithm, kernel.knobs) for kernel in manifest.at(OWN).entries[-1].kernels]
        for manifest in map(sound_manifest, (alone, folder))
    ]
    x = noise(3, 3, *OWN)
    one, other = (Session.load(each).run(x) for each in (alone, folder))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert made[0] != made[1] or one.tobytes() == other.tobytes()


def test_a_dense_entry_gives_the_scores_that_eval_computes(folder: Path) -> None:
    net, how = program(TINY), sound_manifest(folder).at(WIDE).preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (3, *WIDE, 3), np.uint8)
    views, machine = Views((View(None, None, 1.0),), flip=False), TrainMachine("cpu", "float32")
    weights, device = seeded(net.graph, 0), torch.device("cpu")
    eval_ = Viewer(net.graph, weights, how, views, machine, device, 4)
    wanted = eval_(eval_.framings[0], torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    found = Session.load(folder).run(how.normalise(pixels))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_net_that_pools_all_of_its_map_is_built_at_each_size(
    tmp_path: Path, noise: Noise
) -> None:
    made = compiled(tmp_path / "pooled", POOLED, sizes=(OWN, (9, 12)))
    manifest = sound_manifest(made)
    assert not any(each.dense for each in manifest.sizes)
    assert manifest.at((9, 12)).preprocessing.scale is not None
    x = noise(2, 3, 9, 12)
    wanted = expected(POOLED, (9, 12), x, dense=False)
    np.testing.assert_allclose(Session.load(made).run(x), wanted, rtol=1e-5, atol=1e-7)
    assert all(result.passed for result in vggc.open_artifact(made).verify().results)


@pytest.mark.slow
def test_a_graph_at_another_size_is_that_of_the_spec_with_another_input() -> None:
    for name in zoo():
        found = load(name)
        _, height, width = found.graph.input
        size = (height + 32, width + 64)
        other = found.replace(with_input(found.net, size)).graph
        there = resized(found.graph, size)
        assert [(n.op, n.inputs, n.shape) for n in there.nodes] == [
            (n.op, n.inputs, n.shape) for n in other.nodes
        ], name


def test_verify_looks_at_each_size(folder: Path, vggc_here: Here) -> None:
    code, out, _ = vggc_here("verify", folder)
    assert code == 0
    for size in ("16×16", "20×24", "40×16"):
        for batch in BATCHES:
            assert f"random of {size}, batch {batch}: ok" in out


def test_an_artifact_that_has_lost_its_seed_is_verified_with_its_own_weights(
    folder: Path, tmp_path: Path, vggc_here: Here
) -> None:
    changed = changed_manifest(folder, tmp_path / "a", lambda m: m | {"weights_from": "gone"})
    code, out, _ = vggc_here("verify", changed)
    assert code == 0, out
    assert "the artifact's own weights, unpacked" in out


# ---------------------------------------------------------------- C


def test_c_computes_each_size(folder: Path, noise: Noise) -> None:
    net, session = StandaloneNet.open(folder), Session.load(folder)
    for number, size in enumerate((OWN, WIDE, TALL)):
        assert net.size(*size) == number
        assert net.value("input_at", number) == ("input", (3, *size))
        assert net.value("output_at", number, 0) == ("output", (10,))
        for count in (1, 4):
            x = noise(count, 3, *size)
            assert net.run(x, size=number)["output"].tobytes() == session.run(x).tobytes()
    net.close()


def test_c_prepares_pictures_for_each_size(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    manifest, net = read_manifest(folder), StandaloneNet.open(folder)
    for number, size in enumerate((OWN, WIDE, TALL)):
        wanted = manifest.at(size).preprocessing.of(Image.fromarray(pixels))
        assert net.prepared(pixels, number).tobytes() == wanted.tobytes()
    net.close()


def test_c_refuses_other_sizes_with_a_reason(folder: Path) -> None:
    net = StandaloneNet.open(folder)
    assert net.size(16, 17) == -1
    reason = "not compiled for images of 16x17, height by width: it takes 16x16, 20x24, 40x16"
    assert reason in net.error()
    assert net.value("input_at", 3)[0] is None
    assert "there is no size 3: the net takes 3, from 0 on" in net.error()
    assert net.value("output_at", -1, 0)[0] is None
    net.close()


# ---------------------------------------------------------------- what cannot be asked for


@pytest.mark.parametrize(
    ("net", "sizes", "dense", "words"),
    [
        (TINY, [OWN, WIDE], [], "`--input 16 --dense 20x24` slides it over the larger images"),
        (TINY, [WIDE, OWN], [], "`--input 16 --dense 20x24` slides it over the larger images"),
        (TINY, [OWN], [(15, 40)], "images of 15×40 pixels are smaller than what tiny takes, 16×16"),
        (TINY, [OWN], [OWN], "16 pixels are asked for by `--input` and by `--dense`"),
        (TINY, [OWN], [(16, 17 + i) for i in range(8)], "cannot compile for 9 sizes of images"),
        (
            "net odd input 3x8x8 add(conv3-4 stride=2, conv1-4 | pool) | gap | fc-3",
            [(8, 8), (9, 12)],
            [],
            "odd cannot be applied to images of 9×12 pixels",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(
    net: str, sizes: list[Any], dense: list[Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        compiled(tmp_path / "a", net, sizes=tuple(sizes), dense=tuple(dense))
    assert words in render(caught.value.diagnostics[0])
    assert not (tmp_path / "a").exists()


def test_sizes_are_each_once_and_in_order() -> None:
    assert checked_sizes([WIDE, OWN, WIDE], []) == ((WIDE, OWN), ())


# ---------------------------------------------------------------- the commands


def test_the_commands_take_sizes(tmp_path: Path, vggc_here: Here) -> None:
    (tmp_path / "net.vgg").write_text(TINY)
    made = tmp_path / "a"
    how = ["--input", "16", "--dense", "20x24", "--seed", 0, "--threads", 1]
    code, out, err = vggc_here("compile", tmp_path / "net.vgg", *how, "-o", made)
    assert code == 0
    assert "for images of 16×16 or 20×24 pixels" in out
    Image.new("RGB", (60, 50)).save(tmp_path / "x.png")
    for more in ([], ["--size", "20x24"]):
        assert vggc_here("run", made, "--input", tmp_path / "x.png", *more)[0] == 0
    code, out, err = vggc_here("run", made, "--input", tmp_path / "x.png", "--size", "24x20")
    assert code == 2
    assert "it is compiled for 16×16 or 20×24" in err
    assert "`--input 16 --dense 20x24,24x20`" in err
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 20, 24), np.float32))
    assert vggc_here("run", made, "--input", tmp_path / "x.npy")[0] == 0


def test_tune_measures_the_kernels_of_each_size(tmp_path: Path) -> None:
    asked = TuneOptions(sizes=(OWN,), dense=(WIDE,), threads=1, db=tmp_path)
    found = tune.plan(program(TINY), asked).layers
    names = {name for layer in found for name in layer.layers}
    assert {"conv1_1 16", "conv1_1 20x24", "fc3 16", "fc3 20x24"} <= names


@pytest.mark.slow
def test_bench_times_the_size_that_is_asked_for(folder: Path, vggc_here: Here) -> None:
    how = ["--batch", 1, "--rounds", 1, "--threads", 1, "--json"]
    found = {}
    for size in (OWN, WIDE):
        asked = ["--input", "x".join(map(str, size)), *how]
        code, out, _ = vggc_here("bench", folder, "--layers", *asked)
        assert code == 0
        (conv,) = (e for e in json.loads(out)["layers"] if e["step"] == "conv1_1.relu")
        found[size] = conv["macs"]
        assert vggc_here("bench", folder, "--against", "torch", *asked)[0] == 0
    assert found[WIDE] * 16 * 16 == found[OWN] * 20 * 24


def test_python_takes_arrays_of_each_size(folder: Path, noise: Noise) -> None:
    made = vggc.open_artifact(folder)
    assert (made.input, made.inputs) == ((3, *OWN), ((3, *OWN), (3, *WIDE), (3, *TALL)))
    for count in (1, 2, 3, 5):
        x = noise(count, 3, *WIDE)
        np.testing.assert_allclose(made(x), expected(TINY, WIDE, x), rtol=1e-5, atol=1e-7)
    (output,) = made.on_device(noise(3, 3, *WIDE)).values()
    assert output.shape == (3, 10)
    with pytest.raises(vggc.UserError) as caught:
        made(noise(1, 3, 24, 20))
    told = str(caught.value)
    assert "float32 of shape (N, 3, 16, 16) or (N, 3, 20, 24) or (N, 3, 40, 16)" in told
    assert "`vggc compile` with `--input 16 --dense 20x24,40x16,24x20`" in told


def test_the_small_package_takes_arrays_of_each_size(folder: Path, noise: Noise) -> None:
    net, session = vggc_runtime.load(folder, threads=2), Session.load(folder, 2)
    assert net.input == (3, *OWN)
    for size in (OWN, WIDE, TALL):
        x = noise(2, 3, *size)
        assert net(x)["output"].tobytes() == session.run(x).tobytes()


def test_python_takes_one_size_or_several() -> None:
    assert sizes_of(None) == ()
    assert sizes_of(WIDE) == (WIDE,)
    assert sizes_of([OWN, WIDE]) == (OWN, WIDE)


# ---------------------------------------------------------------- hostile manifests


def changed_manifest(
    folder: Path, to: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Path:
    """A copy of an artifact with another manifest, hashed anew."""
    shutil.copytree(folder, to)
    path = to / "manifest.json"
    written = change(json.loads(path.read_text()))
    path.write_text(json.dumps(written | {"sha256": digest_of(written)}))
    return to


def of_size(number: int, **changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Changes what a manifest says of one size."""

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        manifest["sizes"][number] |= changes
        return manifest

    return change


def arranged(*numbers: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Has the sizes of a manifest in another order."""
    return lambda m: m | {"sizes": [m["sizes"][number] for number in numbers]}


def taken_for(number: int, fewest: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Has an entry taken for other numbers of images."""

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        manifest["entries"][number]["fewest"] = fewest
        return manifest

    return change


BOX = {"name": "output", "kind": "boxes", "shape": [12]}
HOSTILE = {
    "no size": (arranged(), "it is not for from 1 to 8 sizes"),
    "too many": (arranged(*[0] * 9), "it is not for from 1 to 8 sizes"),
    "twice the same": (arranged(0, 1, 1), "a size stands twice"),
    "one less": (arranged(0, 1), "not each size with each batch"),
    "another order": (arranged(0, 2, 1), "not each size with each batch"),
    "dense first": (arranged(1, 0, 2), "a size that is not dense stands behind one that is"),
    "nothing": (of_size(1, input=[3, 0, 24]), "a size is not from 1 to"),
    "enormous": (of_size(1, input=[3, 2**40, 24]), "a size is not from 1 to"),
    "other channels": (of_size(1, input=[1, 20, 24]), "have other channels"),
    "no outputs": (of_size(1, outputs=[]), "sizes differ in the heads|there is no output"),
    "another kind": (of_size(1, outputs=[BOX]), "sizes differ in the heads"),
    "another input": (of_size(1, input=[3, 20, 25]), "not each size with each batch"),
    "never taken": (taken_for(2, 2), "an entry is not taken for the images"),
    "always taken": (taken_for(3, 1), "an entry is not taken for the images"),
    "not dense": (of_size(1, dense=False), "of nets of other shapes"),
    "a map": (
        of_size(1, outputs=[{"name": "output", "kind": "classes", "shape": [10, 1, 1]}]),
        "of nets of other shapes",
    ),
}


@pytest.mark.parametrize(("change", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_whose_sizes_cannot_be_is_refused(
    folder: Path, change: Callable[..., Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        Session.load(changed_manifest(folder, tmp_path / "a", change))
