"""Artifacts that somebody has changed and hashed anew: each is refused in one line, or runs."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.nets import TINY
from vggc.ir.weights import save
from vggc.measure.bench import bench
from vggc.measure.profile import profile
from vggc.measure.verify import verify
from vggc.runtime.artifact import FILES, Manifest, entry
from vggc.runtime.session import Session
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.records import from_json
from vggc.support.tensors import read_all
from vggc_runtime.json_file import MalformedError

Make = Callable[..., Path]
Here = Callable[..., tuple[object, str, str]]

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 7, 2**62, 10**30, 0.5, -1e308),
    *("", "a\nb", "\ud800", "../x", [], {}, ["x"], [1] * 20),
)
"""What takes the place of the values of a manifest: one half that of every other, the other half
that of those between."""


def hashed_anew(folder: Path, manifest: Any = None) -> None:
    """Writes a manifest, with the hashes of what there is now."""
    path = folder / "manifest.json"
    if manifest is None:
        manifest = json.loads(path.read_text())
        for name in FILES:
            found = entry(folder / name)
            manifest["files"][name] = {"sha256": found.sha256, "bytes": found.bytes}
    if isinstance(manifest, dict):
        with contextlib.suppress(MalformedError):
            manifest["sha256"] = from_json(Manifest, manifest).digest
    path.write_text(json.dumps(manifest))


def digest_of(manifest: Any) -> str | None:
    """The hash of what a manifest says; None where it is none."""
    with contextlib.suppress(MalformedError):
        return from_json(Manifest, manifest).digest
    return None


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value stands in a value; of a list the first and the last alone."""
    yield place
    match value:
        case dict():
            for key in value:
                yield from places(value[key], (*place, key))
        case [first, *rest]:
            yield from places(first, (*place, 0))
            if rest:
                yield from places(rest[-1], (*place, len(rest)))


def changed(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """A copy of a value with another one at a place in it."""
    if not place:
        return other
    found = copy.copy(value)
    found[place[0]] = changed(value[place[0]], place[1:], other)
    return found


def rearranged(value: Any) -> list[Any]:
    """What else may stand in the place of a value: nearly the same."""
    match value:
        case bool() | None | float():
            return []
        case int():
            return [value + 1, value - 1, 2 * value]
        case str():
            return [f"{value}x", value[:-1]]
        case list():
            return [value[::-1], value[:-1], value + value[-1:]]
        case dict():
            items = [*value.items()]
            return [dict(items[::-1]), dict(items[1:])]
    raise AssertionError(value)


def ends_well(work: Callable[[], object]) -> bool:
    """Whether a piece of work is done; a mistake that is explained is the only other end."""
    try:
        work()
    except (UserError, CheckFailed):
        return False
    return True


@pytest.mark.slow
def test_whatever_a_manifest_says_it_is_refused_or_the_artifact_runs(tiny_artifact: Make) -> None:
    folder, x = tiny_artifact(), np.zeros((1, 3, 16, 16), np.float32)
    whole = json.loads((folder / "manifest.json").read_text())
    accepted = set()
    for index, place in enumerate(places(whole)):
        old = whole
        for key in place:
            old = old[key]
        for value in (*VALUES[index % 2 :: 2], *rearranged(old)):
            now = changed(whole, place, value)
            if now is None or digest_of(now) == digest_of(whole):
                continue  # it says the same in another order
            hashed_anew(folder, now)
            if ends_well(lambda: Session.load(folder).run(x)):
                accepted.add(place[0])
                if place[0] in ("entries", "target", "weights"):
                    ends_well(lambda: verify(folder))
    # What decides on no number may be anything of its kind.
    assert accepted <= {"net", "target", "preprocessing", "classes", "weights_from", "entries"} | {
        "float32_sha256",
        "precision",
        "files",  # in another order
        *("tvm", "weights"),  # a CPU's library knows its weights, and nothing of TVM
    }


def test_exchanged_weights_are_refused_whoever_hashed_them(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    manifest = json.loads((folder / "manifest.json").read_text())
    names = list(manifest["weights"])
    names[0], names[2] = names[2], names[0]
    manifest["weights"] = {name: manifest["weights"][name] for name in names}
    manifest["entries"][0]["weights"] = names
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="its SHA-256 is not the one that it gives"):
        Session.load(folder)
    hashed_anew(folder, manifest)
    with pytest.raises(UserError, match="weights, or another order of them,"):
        verify(folder)


def test_a_manifest_that_says_something_twice_is_refused(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"batch": 1,', '"batch": 2, "batch": 1,'))
    with pytest.raises(UserError, match=r"manifest\.json has the key `batch` twice in one object"):
        Session.load(folder)


OTHER = TINY.replace("fc-10", "fc-12")


def of_another_net(folder: Path) -> bytes:
    """The library of a net that takes the same input and as many weights."""
    from vggc.api.trained import from_spec
    from vggc.compiler.pipeline import Job, build_artifact
    from vggc.compiler.targets import resolve
    from vggc.program import Program
    from vggc.support.source import Source
    from vggc.syntax.parse import parse

    program = Program(parse(Source("other.vgg", OTHER)))
    subject = from_spec(program, None, 0)
    rest = subject.weights, "seed 0", subject.preprocessing, ()
    build_artifact(Job(program.net, program.graph, resolve("cpu"), (1,), *rest), folder)
    return (folder / "lib.so").read_bytes()


def commands(folder: Path, tmp_path: Path) -> list[tuple[object, ...]]:
    from PIL import Image

    np.save(tmp_path / "x.npy", np.zeros((3, 16, 16), np.float32))
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    return [
        ("run", folder, "--input", tmp_path / "x.npy"),
        ("predict", folder, tmp_path / "x.png"),
        ("verify", folder),
        ("bench", folder, "--layers", "--rounds", "1"),
    ]


def refused_everywhere(
    folder: Path, tmp_path: Path, vggc_here: Here, *, looking: bool = False
) -> set[str]:
    """What the commands say of an artifact, each in one line and what may help; or only those that
    are `looking` at kernels, while others run the library, which needs no manifest for that.
    """
    said = set()
    for command in commands(folder, tmp_path):
        if looking and command[0] in ("run", "predict"):
            assert vggc_here(*command)[0] == 0
            continue
        code, _, stderr = vggc_here(*command)
        assert code in (1, 2), (command, stderr)
        assert "Traceback" not in stderr
        assert stderr.startswith("error: ")
        assert len(stderr.splitlines()) <= 6
        said.add(stderr)
    return said


def library(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "lib.so"
        path.write_bytes(content(path.read_bytes()))

    return change


def spec(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "net.vgg").write_text(text)

    return change


def weights(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "weights.safetensors"
        tensors = read_all(path)
        save(path, {**tensors, name: change(tensors[name])})

    return rewrite


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (library(lambda whole: b""), "lib.so: it is no shared library"),
        (library(lambda whole: b"\x7fELF"), "lib.so: it is no shared library"),
        (library(lambda whole: b"#!/bin/sh\n" * 99), "lib.so: it is no shared library"),
        (library(lambda whole: whole[: len(whole) // 2]), "that is cut off"),
        (library(lambda whole: whole[:4] + b"\x01" + whole[5:]), "it is no shared library"),
        (library(lambda whole: whole[:18] + b"\x28" + whole[19:]), "for other machines than"),
        (library(lambda whole: whole[:56] + b"\0\0" + whole[58:]), "without anything to load"),
        (spec(TINY.replace("fc-24", "fc-25")), "tells of other shapes of weights than"),
        (spec(TINY.replace("| lrn ", "")), "tells of other kernels than the net"),
        (spec("net tiny from vgg16"), "net.vgg builds on other nets or values"),
        (spec("net tiny(n=2)\ninput 3x16x16\n conv3-n | fc-10 | softmax"), ""),
        (spec("net tiny input 3x16x16"), ""),
        (spec("?"), ""),
        (weights("fc5.bias", lambda whole: whole[:3]), "it is the weights of another net"),
        (weights("fc5.bias", lambda whole: whole.astype(np.float64)), ""),
        (weights("fc5.bias", lambda whole: whole.astype(np.int8)), ""),
    ],
)
def test_parts_that_do_not_go_together_are_refused_by_every_command(
    tiny_artifact: Make,
    tmp_path: Path,
    vggc_here: Here,
    change: Callable[[Path], None],
    reason: str,
) -> None:
    folder = tiny_artifact()
    change(folder)
    hashed_anew(folder)
    looking = reason.startswith("tells of other")
    for said in refused_everywhere(folder, tmp_path, vggc_here, looking=looking):
        assert reason in said


def test_libraries_of_something_else_are_refused_by_every_command(
    tiny_artifact: Make, tmp_path: Path, vggc_here: Here
) -> None:
    import safetensors

    folder = tiny_artifact()
    others = {
        "it is the weights of another net": of_another_net(tmp_path / "other"),
        "there is no net in its lib.so": next(
            Path(safetensors.__file__).parent.glob("*.so")
        ).read_bytes(),
    }
    for number, (reason, content) in enumerate(others.items()):
        # The system's loader knows a library by its path.
        other = Path(shutil.copytree(folder, tmp_path / str(number)))
        (other / "lib.so").write_bytes(content)
        hashed_anew(other)
        for said in refused_everywhere(other, tmp_path, vggc_here):
            assert reason in said


def test_profiles_and_peers_take_the_artifact_as_it_was(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    hashed_anew(folder)
    assert ends_well(lambda: profile(folder, 1, 1))
    assert ends_well(lambda: bench(folder, ["torch"], 1, 1))
