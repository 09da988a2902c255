"""What is deployed is written whole or not at all, with the artifact as it was compiled."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import vggc
from vggc.api.deploy import DEPLOY_FORMATS, DeployFormat, plan_deployment
from vggc.api.export import ExportOptions, plan
from vggc.deployment import requirements
from vggc.deployment.docker import docker_files
from vggc.deployment.ray_serve import ray_files
from vggc.deployment.requirements import CUDA, RUNTIME, SERVER, installed
from vggc.deployment.triton import triton_files
from vggc.runtime.artifact import Target, read_manifest, sound_manifest
from vggc.support.diagnostics import UserError
from vggc_runtime.version import __version__

Make = Callable[..., Path]

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
    "project"
]

every_format = pytest.mark.parametrize("style", DEPLOY_FORMATS)


def refused(given: str | None, out: Path, style: DeployFormat = "ray", **options: object) -> str:
    with pytest.raises(UserError) as caught:
        plan(given, ExportOptions(out=out, format=style, **options), print)
    return str(caught.value)


@every_format
def test_the_artifact_is_copied_whole_and_without_what_is_beside_it(
    tiny_artifact: Make, tmp_path: Path, style: DeployFormat
) -> None:
    artifact = tiny_artifact(1)
    (artifact / "standalone").mkdir()
    planned = plan_deployment(str(artifact), style, tmp_path / "out")
    planned.write()
    (copied,) = planned.folder.rglob("artifact")
    assert sound_manifest(copied) == sound_manifest(artifact)
    names = {"manifest.json", "lib.so", "weights.safetensors", "net.vgg"}
    assert {path.name for path in copied.iterdir()} == names


@every_format
def test_a_full_disk_is_told_and_leaves_nothing(
    tiny_artifact: Make, tmp_path: Path, style: DeployFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    planned = plan_deployment(str(tiny_artifact(1)), style, tmp_path / "a" / "out")
    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(UserError, match="No space left on device"):
        planned.write()
    assert [path for path in (tmp_path / "a").rglob("*") if not path.is_dir()] == []


def test_nothing_is_overwritten(tiny_artifact: Make, tmp_path: Path) -> None:
    artifact = tiny_artifact(1)
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / "mine").touch()
    for style in DEPLOY_FORMATS:
        assert "exists already" in refused(str(artifact), tmp_path / "out", style)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["tiny", "mine"]


def test_a_damaged_artifact_is_refused_before_anything_is_written(
    tiny_artifact: Make, tmp_path: Path
) -> None:
    artifact = tiny_artifact(1)
    with (artifact / "lib.so").open("ab") as file:
        file.write(b"more")
    assert "lib.so" in refused(str(artifact), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_artifact_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "net.vgg").touch()
    (tmp_path / "run").mkdir()
    out = tmp_path / "out"
    for given, reason, spec in (
        ("vgg16", "vgg16: there is no such folder", "vgg16"),
        (f"{tmp_path}/net.vgg", "it is a file", f"{tmp_path}/net.vgg"),
        (f"{tmp_path}/run", "it has no manifest.json", f"{tmp_path}/run"),
        (f"{tmp_path}/missing", "there is no such folder", "SPEC"),
        (None, "none is given", "SPEC"),
    ):
        text = refused(given, out)
        assert "`--format ray` takes an artifact" in text
        assert reason in text
        assert f"`vggc compile {spec}`" in text
    with pytest.raises(UserError, match="a net is given that is not compiled"):
        vggc.export(vggc.load("tiny_vgg"), out, format="docker")


def test_what_is_fixed_once_a_net_is_compiled_is_no_option(
    compiled_tiny: Make, tmp_path: Path
) -> None:
    given = {"seed": 0, "size": (8, 8), "weights": Path("best")}
    text = refused(str(compiled_tiny(1)), tmp_path / "out", **given)
    assert re.findall(r"`--(\w+)` does nothing", text) == ["weights", "seed", "input"]


@pytest.mark.parametrize("name", ["", "grün", "a/b", "..", "-a", "a" * 101, "a b", 'a"b'])
def test_a_model_has_a_name_that_addresses_hold(
    compiled_tiny: Make, tmp_path: Path, name: str
) -> None:
    assert "is no name for a model" in refused(str(compiled_tiny(1)), tmp_path / "out", name=name)


def test_an_artifact_becomes_no_file_of_a_net(compiled_tiny: Make, tmp_path: Path) -> None:
    text = refused(str(compiled_tiny(1)), tmp_path / "net.onnx", "onnx")
    assert "formats that take artifacts are `triton`, `ray`, `docker`" in text
    assert "`--name` names a model" in refused("vgg16", tmp_path / "net.onnx", "onnx", name="a")


@pytest.mark.parametrize(
    ("style", "started"),
    [
        ("triton", "tritonserver --model-repository=out"),
        ("ray", "cd out && serve run serve_config.yaml"),
        ("docker", "docker build -t vggc-net out"),
    ],
)
def test_the_command_tells_what_it_wrote_and_what_comes_next(
    style: str,
    started: str,
    tiny_artifact: Make,
    vggc_here: Callable[..., tuple[object, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tiny_artifact(1)
    monkeypatch.chdir(tmp_path)
    code, told, hints = vggc_here("export", "artifact", "--format", style, "-o", "out")
    assert code == 0
    folder = "out/tiny" if style == "triton" else "out"
    assert told.startswith(f"{folder}: tiny, ")
    assert hints == f"next: {started}\n"
    assert any(Path(folder).rglob("lib.so"))


def test_an_artifact_is_exported_from_python(compiled_tiny: Make, tmp_path: Path) -> None:
    artifact = vggc.open_artifact(compiled_tiny(1))
    made = vggc.export(artifact, tmp_path / "models", format="triton", name="mine")
    assert made == tmp_path / "models" / "mine"
    assert (made / "1" / "model.py").is_file()


def test_code_for_gpus_is_deployed_where_gpus_are(compiled_tiny: Make) -> None:
    manifest = read_manifest(compiled_tiny(1))
    target = Target("cuda", "cuda", {"kind": "cuda"}, archs=("sm_80", "sm_90a"))
    manifest = replace(manifest, target=target)
    config = triton_files("tiny", manifest).texts["config.pbtxt"]
    assert "compiled for sm_80, sm_90a in float32" in config
    assert "kind: KIND_GPU count: 1" in config
    assert "num_gpus: 1" in ray_files("tiny", manifest).texts["serve_config.yaml"]
    docker = docker_files("tiny", manifest).texts
    assert "docker run --rm --gpus all -p" in docker["Dockerfile"]
    assert {"apache-tvm==", "ml-dtypes==", "nvidia-cuda-runtime=="} <= {
        re.sub("==.*", "==", line) for line in docker["requirements.txt"].splitlines()
    }


# ---------------------------------------------------------------- versions


def test_versions_are_pinned_with_all_that_is_needed_and_nothing_that_trains(
    compiled_tiny: Make,
) -> None:
    target = read_manifest(compiled_tiny(1)).target
    lines = requirements.requirements(target, SERVER).splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["vggc"] == __version__
    assert pins.keys() >= {*RUNTIME, *SERVER, "h11"}
    others = {"torch", "apache-tvm", "onnx", "scikit-learn", "matplotlib", "httpx"}
    assert not pins.keys() & others


def test_what_is_pinned_is_what_the_project_asks_for() -> None:
    def names(lines: list[str]) -> set[str]:
        return {re.match(r"[\w-]+", line)[0] for line in lines}

    extras = PROJECT["optional-dependencies"]
    whole = names(PROJECT["dependencies"])
    assert {*RUNTIME, "click", "rich"} <= whole
    assert {*SERVER} - {"click", "rich"} == names(extras["serve"])
    assert {*CUDA} <= whole | names(extras["cuda"])


def test_a_package_that_is_missing_is_told_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(requirements.EXTRAS, "no-such-package", "vggc[serve]")
    with pytest.raises(UserError, match="no-such-package is not installed") as caught:
        installed(["numpy", "no-such-package"])
    assert "pip install 'vggc[serve]'" in str(caught.value)
