"""`vggc features`: what it takes, where it goes on, and what it leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.runs import train
from tests.support.training_data import picture, write_images
from vggc.api.evaluate import EvalOptions
from vggc.api.features import FeatureOptions, pictures_for, source_of, written
from vggc.api.trained import from_run
from vggc.backends.torch import build
from vggc.features import describe, partial
from vggc.features.layers import feature_net
from vggc.features.read import Features, read_features
from vggc.features.rows import normalised
from vggc.ir.weights import digest, save, seeded
from vggc.passes.inference import drop_dropout
from vggc.program import load
from vggc.support.diagnostics import UserError
from vggc.training.run import Run

Here = Callable[..., tuple[object, str, str]]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny net, to be copied."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder)
    save(folder / "weights.safetensors", seeded(load(str(folder / "net.vgg")).graph, 0))
    return folder


@pytest.fixture
def folder(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, and images that have nothing to do with it."""
    shutil.copytree(trained, tmp_path / "run")
    for part, count in (("train", 7), ("test", 5)):
        write_images(tmp_path / "images" / part, ("car", "dog"), count)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(describe, "MOST_AT_ONCE", 8)
    return tmp_path


def found(path: str) -> Features:
    return read_features(Path(path))


def test_features_are_of_all_parts_with_names_classes_and_where_they_are_from(
    folder: Path, vggc_here: Here
) -> None:
    code, out, error = vggc_here("features", "run", "--data", "images", "-o", "f.npz", "--json")
    assert code == 0, error
    assert json.loads(out)["images"] == 24
    assert "14 of train, 10 of test" in error
    features = found("f.npz")
    assert features.classes == ("car", "dog")
    assert features.labels is not None
    assert features.parts is not None
    assert features.names is not None
    assert features.labels.tolist() == [0] * 7 + [1] * 7 + [0] * 5 + [1] * 5
    assert features.parts.tolist() == [b"train"] * 14 + [b"test"] * 10
    assert features.names[0] == b"car/0.png"
    np.testing.assert_allclose(np.linalg.norm(features.values, axis=1), 1, rtol=1e-6)
    about, run = features.provenance, Run.load(Path("run"))
    assert about is not None
    assert (about.net, about.combine, about.dense, about.flip) == ("tiny", "average", True, True)
    assert [each.layer for each in about.columns] == ["fc2"]
    assert about.weights_sha256 == digest(from_run(run, None).weights)
    assert about.pictures.place == str(folder / "images")
    assert sorted(path.name for path in folder.iterdir()) == ["f.npz", "images", "run"]


def test_the_centre_crop_alone_gives_what_the_net_gives(folder: Path, vggc_here: Here) -> None:
    looks = ("--protocol", "centre", "--part", "test", "-o", "f.safetensors")
    assert vggc_here("features", "run", "--data", "images", *looks)[0] == 0
    subject = from_run(Run.load(Path("run")), None)
    net = feature_net(subject.program.graph)
    pixels = np.stack([picture(label, index) for label in (0, 1) for index in range(5)])
    x = torch.from_numpy(subject.preprocessing.normalise(pixels))
    with torch.inference_mode():
        wanted = build(drop_dropout(net.graph), subject.weights).eval()(x).numpy()
    np.testing.assert_allclose(found("f.safetensors").values, normalised(wanted), atol=1e-6)


def test_scales_are_averaged_or_stacked(folder: Path, vggc_here: Here) -> None:
    looks = ("features", "run", "--data", "images", "--scales", "8,12", "--layer", "fc2,conv1_1")
    assert vggc_here(*looks, "-o", "mean.npz")[0] == 0
    assert vggc_here(*looks, "--combine", "stack", "-o", "stack.npz")[0] == 0
    mean, stack = found("mean.npz").values, found("stack.npz").values
    assert (mean.shape, stack.shape) == ((24, 12), (24, 24))
    fc, conv = stack[:, :16].reshape(24, 2, 8).mean(1), stack[:, 16:].reshape(24, 2, 4).mean(1)
    np.testing.assert_allclose(mean, np.concatenate([fc, conv], 1), atol=1e-6)


def test_what_cannot_be_read_has_no_row_and_is_named(folder: Path, vggc_here: Here) -> None:
    Path("images/train/dog/zz.jpg").write_text("no image")
    code, out, error = vggc_here("features", "run", "--data", "images", "-o", "f.npz", "--json")
    assert code == 0
    assert "skipped dog/zz.jpg: not an image" in error
    assert (json.loads(out)["images"], json.loads(out)["skipped"]) == (24, 1)
    names = found("f.npz").names
    assert names is not None
    assert b"dog/zz.jpg" not in names.tolist()
    assert len(names) == 24


# Interrupted


def take(
    out: str,
    stop: int | None = None,
    overwrite: bool = False,
    place: str = "images",
    **looks: str,
) -> int:
    """Takes features, and is interrupted when so many are done; how many were done before."""
    source = source_of("run", FeatureOptions(looks=EvalOptions(**looks)), print)

    def on_progress(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    images = pictures_for(place, None)
    return written(source, images, Path(out), on_progress, overwrite=overwrite).before


@pytest.mark.parametrize("stop", [8, 15, 23, 25])
def test_what_was_interrupted_goes_on_to_the_same_bytes(folder: Path, stop: int) -> None:
    """Whether within a part, between parts, or when all is done; 15 images are in the first."""
    Path("images/train/car/a.jpg").write_text("no image")
    assert take("whole.npz") == 0
    with pytest.raises(KeyboardInterrupt):
        take("f.npz", stop=stop)
    assert not Path("f.npz").exists()
    assert take("f.npz") == stop
    assert Path("f.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not [*folder.glob("f.npz.*")]


def test_who_comes_while_another_ends_computes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finished the file, and took its rows away, before this one had the lock."""
    lock = partial.locked

    def ended_first(file: BufferedRandom) -> bool:
        Path("f.npz.partial").unlink()
        Path("f.npz").write_text("its features")
        return lock(file)

    with monkeypatch.context() as other:
        other.setattr(partial, "locked", ended_first)
        with pytest.raises(UserError, match="another process is taking features"):
            take("f.npz")
    assert [*folder.glob("f.npz*")] == [folder / "f.npz"]
    assert Path("f.npz").read_text() == "its features"


def test_rows_that_no_journal_tells_of_are_cut_off(folder: Path) -> None:
    """As after a kill between the two."""
    take("whole.npz")
    with pytest.raises(KeyboardInterrupt):
        take("f.npz", stop=8)
    with Path("f.npz.partial").open("ab") as file:
        file.write(b"rows that were half written")
    assert take("f.npz") == 8
    assert Path("f.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_an_interrupt_before_anything_is_done_leaves_nothing(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        take("f.npz", stop=0)
    assert not [*folder.glob("f.npz*")]


def test_another_command_does_not_go_on_with_what_was_begun(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        take("f.npz", stop=8)
    with pytest.raises(UserError, match="scales: covering the input then, 12 now"):
        take("f.npz", scales="12")
    with pytest.raises(UserError, match="looked at: the whole image then, 1×1 crops now"):
        take("f.npz", protocol="centre")
    shutil.copytree("images", "others")
    with pytest.raises(UserError, match=r"place of the pictures: \S+/images then, \S+/others now"):
        take("f.npz", place="others")
    assert take("f.npz", overwrite=True, scales="12") == 0


def test_pictures_that_have_changed_are_not_gone_on_with(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        take("f.npz", stop=8)
    shutil.copy("images/train/dog/0.png", "images/train/car/0.png")
    with pytest.raises(UserError, match="some have changed since"):
        take("f.npz")


@pytest.mark.parametrize("damage", ["{", '{"format": 1}', None])
def test_a_damaged_beginning_is_told(folder: Path, damage: str | None) -> None:
    with pytest.raises(KeyboardInterrupt):
        take("f.npz", stop=8)
    if damage is None:
        Path("f.npz.partial").write_bytes(b"")
    else:
        Path("f.npz.journal").write_text(damage)
    with pytest.raises(UserError, match="cannot be gone on with"):
        take("f.npz")
    assert take("f.npz", overwrite=True) == 0


# Mistakes


@pytest.fixture
def nothing_made(folder: Path) -> Iterator[Path]:
    before = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("run", "--data", "nosuch", "-o", "f.npz"), "there is no folder `nosuch`"),
        (("run", "--data", "images", "-o", "f.txt"), "cannot be written to `f.txt`"),
        (("run", "--data", "images", "-o", "no/f.npz"), "there is no folder no"),
        (("run", "--data", "images", "-o", "f.npz", "--part", "val"), "has no part `val`"),
        (("run", "--data", "images", "-o", "f.npz", "--layer", "fc9"), "known: `conv1_1`"),
        (("run", "--data", "images", "-o", "f.npz", "--scales", "4"), "scales"),
        (("run", "--data", "images", "-o", "f.npz", "--grid", "3x3"), "nothing is tested on crops"),
        (("nosuch", "--data", "images", "-o", "f.npz"), "nosuch"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(
    nothing_made: Path, vggc_here: Here, arguments: tuple[str, ...], reason: str
) -> None:
    code, _, error = vggc_here("features", *arguments)
    assert code == 2
    assert reason in error


def test_nothing_is_overwritten_unasked(folder: Path, vggc_here: Here) -> None:
    Path("f.npz").write_text("mine")
    arguments = ("features", "run", "--data", "images", "-o", "f.npz")
    assert vggc_here(*arguments)[0] == 2
    assert Path("f.npz").read_text() == "mine"
    assert vggc_here(*arguments, "--overwrite")[0] == 0
    assert len(found("f.npz")) == 24


def test_a_disk_without_room_is_told_before_anything_is_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(UserError, match="the disk has no room"):
        take("f.npz")
    assert not [*folder.glob("f.npz*")]


def test_a_disk_that_fills_up_is_told_and_what_is_kept_is_gone_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take("whole.npz")
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(partial.os, "fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            take("f.npz")
    assert take("f.npz") > 0
    assert Path("f.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_images_of_which_none_can_be_read_give_no_file(folder: Path) -> None:
    for path in Path("images").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(UserError, match="none of the pictures in `images` can be read"):
        take("f.npz")
    assert not Path("f.npz").exists()


# Artifacts


def test_an_artifact_without_such_a_head_tells_how_it_would_get_one(
    tiny_artifact: Callable[..., Path], folder: Path, vggc_here: Here
) -> None:
    arguments = ("--data", "images", "-o", "f.npz")
    code, _, error = vggc_here("features", tiny_artifact(name="a"), *arguments)
    assert code == 2
    assert "gives no features" in error
    assert "head features: @fc4" in error
    code, _, error = vggc_here("features", "a", *arguments, "--scales", "20", "--flip")
    assert code == 2
    assert "`--scales`, `--flip` cannot be had from an artifact" in error


@pytest.mark.slow
def test_an_artifact_gives_what_its_run_gives_of_the_centre(folder: Path, vggc_here: Here) -> None:
    spec = Path("run/net.vgg")
    Path("headed.vgg").write_text(spec.read_text().partition("train {")[0] + "\nhead code: @fc2\n")
    compiled = ("compile", "headed.vgg", "-o", "artifact", "--weights", "run/weights.safetensors")
    code, _, error = vggc_here(*compiled, "--batch", "4")
    assert code == 0, error
    code, _, error = vggc_here("features", "artifact", "--data", "images", "-o", "a.npz")
    assert code == 0, error
    looks = ("--protocol", "centre", "--weights", "run/weights.safetensors")
    code, _, error = vggc_here("features", "headed.vgg", "--data", "images", "-o", "r.npz", *looks)
    assert code == 0, error
    artifact, run = found("a.npz"), found("r.npz")
    np.testing.assert_allclose(artifact.values, run.values, atol=1e-4)
    assert artifact.provenance is not None
    assert run.provenance is not None
    assert artifact.provenance.weights_sha256 == run.provenance.weights_sha256
    code, _, error = vggc_here(
        "features", "artifact", "--data", "images", "-o", "b.npz", "--layer", "cod"
    )
    assert code == 2
    assert "did you mean `code`?" in error
