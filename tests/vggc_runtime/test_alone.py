"""Artifacts where neither vggc nor TVM nor PyTorch is: numpy and Pillow are all that there is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggc_runtime
from vggc.runtime.session import Session
from vggc_runtime import ArtifactError, Output
from vggc_runtime.__main__ import lines
from vggc_runtime.manifest import digest_of
from vggc_runtime.outputs import best_lines

MakeArtifact = Callable[..., Path]

OUTPUTS = """
import sys, numpy, vggc_runtime
net = vggc_runtime.load(sys.argv[1])
assert "PIL" not in sys.modules
numpy.savez(sys.argv[2], **net(numpy.load(sys.argv[3])))
print(sorted(name for name in sys.modules if "." not in name))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, numpy and Pillow, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    package = Path(vggc_runtime.__file__).parent
    (folder / "vggc_runtime").symlink_to(package, target_is_directory=True)
    for name in ("numpy", "PIL"):
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        installed = Path(found.origin).parent
        libraries = {"numpy": "numpy.libs", "PIL": "pillow.libs"}[name]
        for each in (installed, installed.parent / libraries):
            if each.exists():
                (folder / each.name).symlink_to(each, target_is_directory=True)
    return folder


@pytest.fixture
def alone(place: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python with that folder alone: no packages of this installation, no paths of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-s", "-B", "-P", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(place)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(3).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_artifact_gives_the_same_bits_without_vggc(
    tiny_artifact: MakeArtifact,
    alone: Callable[..., subprocess.CompletedProcess[str]],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    artifact = tiny_artifact(1, 4)
    images = noise(6, *Session.load(artifact).manifest.input)
    np.save(tmp_path / "images.npy", images)
    done = alone("-c", OUTPUTS, artifact, tmp_path / "outputs.npz", tmp_path / "images.npy")
    assert done.returncode == 0, done.stderr
    foreign = {"vggc", "tvm", "tvm_ffi", "torch", "lark", "click", "onnx", "PIL"}
    assert foreign.isdisjoint(eval(done.stdout))
    expected = Session.load(artifact).run_all(images)
    with np.load(tmp_path / "outputs.npz") as given:
        assert given.files == [*expected]
        for name, value in expected.items():
            np.testing.assert_array_equal(given[name], value)


def test_a_pictures_classes_are_told_as_by_vggc_run(
    tiny_artifact: MakeArtifact,
    alone: Callable[..., subprocess.CompletedProcess[str]],
    vggc_here: Callable[..., tuple[object, str, str]],
    picture: Path,
) -> None:
    artifact = tiny_artifact()
    done = alone("-m", "vggc_runtime", artifact, picture, "--top", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == vggc_here("run", artifact, "--input", picture, "--top", 3)[1]
    assert len(done.stdout.splitlines()) == 3
    told = json.loads(alone("-m", "vggc_runtime", artifact, picture, "--json").stdout)
    expected = json.loads(vggc_here("run", artifact, "--input", picture, "--json")[1])
    assert told == {name: expected[name] for name in ("net", "classes", "outputs")}


def test_a_path_bytes_and_an_open_image_are_one_picture(
    tiny_artifact: MakeArtifact, picture: Path
) -> None:
    net = vggc_runtime.load(tiny_artifact(), threads=1, mapped=False)
    expected = Session.load(net.folder).manifest.preprocessing.read(picture)
    for given in (picture, str(picture), picture.read_bytes(), Image.open(picture)):
        np.testing.assert_array_equal(net.prepared(given), expected)
    scores = net(expected)[net.outputs[0].name][0]
    best = net.classify(picture, top=2)
    assert [value for _, value in best] == sorted(scores.tolist(), reverse=True)[:2]
    assert best[0][0] == net.class_name(int(scores.argmax()))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["artifact", "gone.png"], "gone.png: No such file or directory; give a whole image file"),
        (["artifact", "artifact/net.vgg"], "artifact/net.vgg: not an image; give a whole image"),
        (["gone", "picture.png"], "gone: there is no manifest.json in it; give the folder that"),
        (["artifact", "picture.png", "--top", "0"], "'0' is no number from 1 to 1000"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    tiny_artifact: MakeArtifact,
    alone: Callable[..., subprocess.CompletedProcess[str]],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    tiny_artifact()
    monkeypatch.chdir(picture.parent)
    done = alone("-m", "vggc_runtime", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("given", [7, None, [b"x"]])
def test_what_is_no_picture_is_refused(tiny_artifact: MakeArtifact, given: object) -> None:
    net = vggc_runtime.load(tiny_artifact())
    with pytest.raises(ArtifactError, match="is no picture; give a path, bytes or an image"):
        net.prepared(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "images", [np.zeros((1, 1, 2, 3), np.float32), np.zeros((1, 3, 16, 16)), [], "x"]
)
def test_what_are_no_images_is_refused(tiny_artifact: MakeArtifact, images: object) -> None:
    net = vggc_runtime.load(tiny_artifact())
    with pytest.raises(ArtifactError, match=r"are no images .* in float32; `prepared` makes"):
        net(images)  # type: ignore[arg-type]


def test_a_number_of_threads_is_from_1_on(tiny_artifact: MakeArtifact) -> None:
    with pytest.raises(ArtifactError, match="0 threads run no net; give a number from 1 on"):
        vggc_runtime.load(tiny_artifact(), threads=0)


def test_other_outputs_than_classes_are_named_and_not_classified(
    tiny_artifact: MakeArtifact, picture: Path
) -> None:
    classes = vggc_runtime.load(tiny_artifact())
    vector = Output("vector", "features", (5,))
    net = replace(classes, outputs=(vector,))
    with pytest.raises(ArtifactError, match="it tells no classes, but features; call the net"):
        net.classify(picture)
    (scores,) = classes.outputs
    both = replace(classes, outputs=(vector, scores))
    values = {"vector": np.zeros((1, 5), np.float32), **classes(classes.prepared(picture))}
    assert [*lines(both, values, 2)] == [
        " vector",
        "  features of shape (5,); --json prints them",
        f" {scores.name}",
        *(f"  {line}" for line in best_lines(classes.classify(picture, 2))),
    ]


def changed(value: object, path: tuple[str | int, ...], new: object) -> None:
    """Puts something else in a place of a value; where that is `GONE`, nothing."""
    *way, last = path
    for step in way:
        value = value[step]  # type: ignore[index]
    if new is GONE:
        del value[last]  # type: ignore[attr-defined]
    else:
        value[last] = new  # type: ignore[index]


GONE = object()


@pytest.mark.parametrize(
    ("path", "new", "told"),
    [
        (("format",), "other", "is not that of an artifact"),
        (("format",), 7, "format has a wrong value"),
        (("format_version",), True, "format_version has a wrong value"),
        (("format_version",), 10**30, "it is of format 1000"),
        (("target", "kind"), "cuda", "it is compiled for a GPU; run it with vggc"),
        (("target",), [], "target has a wrong value"),
        (("net",), "other", "there is no net in lib.so"),
        (("net",), GONE, "net is missing"),
        (("sizes",), [], "there is no size of images"),
        (("sizes", 0, "input"), [3, 2], "input is not of three axes"),
        (("sizes", 0, "input"), [3, 0, 2], "input is out of range"),
        (("sizes", 0, "input"), [3, 2**70, 2], "input is out of range"),
        (("sizes", 0, "input"), [3, True, 2], "input has a wrong value"),
        (("sizes", 0, "input", 1), 8, "lib.so is of another net than the manifest"),
        (("sizes", 0, "outputs"), [], "there is no output"),
        (("sizes", 0, "outputs", 0, "kind"), "poems", "outputs: kind has a wrong value"),
        (("sizes", 0, "outputs", 0, "name"), "other", "lib.so is of another net than the manifest"),
        (("sizes", 0, "outputs", 0, "shape"), [], "shape has 0 axes"),
        (("sizes", 0, "outputs", 0), None, "kind is missing"),
        (("classes",), ["one"], "classes are not as many as the outputs"),
        (("classes",), [1], "classes has a wrong value"),
        (("files", "lib.so", "bytes"), 7, "bytes in place of 7"),
        (("files", "lib.so", "sha256"), "0" * 64, "its SHA-256 is not the one in the manifest"),
        (("files", "lib.so"), GONE, "lib.so is missing"),
        (("files", "weights.safetensors", "bytes"), 7, "bytes in place of 7"),
        (("preprocessing", "size"), [2], "size has 1 axes"),
        (("preprocessing", "size"), [1, 1], "size is not the height and width"),
        (("preprocessing", "mean"), ["x"], "mean has a wrong value"),
        (("preprocessing", "mean"), [10**400] * 3, "mean has a wrong value"),
        (("preprocessing", "std"), [0, 0, 0], "std is not above 0"),
        (("preprocessing", "white"), None, "white has a wrong value"),
        (("preprocessing", "white", "whole"), -1, "white is out of range"),
        (("preprocessing", "fit"), "stretch", "fit is none of crop, squash, pad"),
        (("preprocessing", "interpolation"), None, "interpolation has a wrong value"),
        (("preprocessing", "background"), [0, 0], "background is not three numbers from 0"),
        (("preprocessing", "order"), "gbr", "order is none of rgb, bgr"),
    ],
)
def test_a_hostile_manifest_is_refused_in_one_line(
    tiny_artifact: MakeArtifact, path: tuple[str | int, ...], new: object, told: str
) -> None:
    artifact = tiny_artifact()
    value = json.loads((artifact / "manifest.json").read_text())
    changed(value, path, new)
    value["sha256"] = digest_of(value)
    (artifact / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(ArtifactError) as refused:
        _ = vggc_runtime.load(artifact).preprocessing
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def damaged() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    """Files of an artifact that are not as they were, and what is said of them."""
    manifest, library, weights = "manifest.json", "lib.so", "weights.safetensors"
    yield manifest, lambda path: path.write_text("{"), "is not JSON"
    yield manifest, lambda path: path.write_text("[]"), "format is missing"
    yield manifest, lambda path: path.write_text(path.read_text() + " " * 2**26), "larger than 64"
    yield manifest, lambda path: os.truncate(path, 0), "is not JSON"
    yield (
        manifest,
        lambda path: path.write_text(path.read_text().replace('"net": "', '"net": "x')),
        "the SHA-256 of manifest.json is not the one that it gives",
    )
    for name in (library, weights):
        yield name, lambda path: path.unlink(), "No such file or directory"
        yield name, lambda path: os.truncate(path, 100), "it has 100 bytes in place of"
        yield name, lambda path: path.unlink() or path.mkdir(), "bytes in place of"
    yield library, lambda path: flip(path), "its SHA-256 is not the one in the manifest"
    yield weights, lambda path: flip(path), "is not what the net was compiled with"


def flip(path: Path) -> None:
    """Changes a file's last byte."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(("name", "damage", "told"), [*damaged()])
def test_a_damaged_artifact_is_refused_in_one_line(
    tiny_artifact: MakeArtifact, name: str, damage: Callable[[Path], object], told: str
) -> None:
    artifact = tiny_artifact()
    damage(artifact / name)
    with pytest.raises(ArtifactError, match=r"; copy the artifact again, whole") as refused:
        vggc_runtime.load(artifact)
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_artifact_runs_from_a_folder_whose_name_is_no_text(tiny_artifact: MakeArtifact) -> None:
    artifact = tiny_artifact()
    odd = artifact.with_name(os.fsdecode(b"\xff\n"))
    shutil.move(artifact, odd)
    net = vggc_runtime.load(odd)
    assert len(net(np.zeros((2, *net.input), np.float32))[net.outputs[0].name]) == 2
