"""The lines of a Dockerfile: what is copied is there, and what is run is a command of vggc."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vggc.api.deploy import plan_deployment
from vggc.cli.serve import command as serve_command
from vggc.runtime.artifact import read_manifest

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def image(compiled_tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an image is built from."""
    folder = tmp_path_factory.mktemp("docker") / "image"
    plan_deployment(str(compiled_tiny(1, 4)), "docker", folder, "small").write()
    return folder


@pytest.fixture(scope="module")
def instructions(image: Path) -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with what stands behind it."""
    lines = (image / "Dockerfile").read_text("utf-8").splitlines()
    told = [line for line in lines if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in told)]


def only(instructions: list[tuple[str, str]], word: str) -> str:
    (found,) = [rest for each, rest in instructions if each == word]
    return found


def test_what_is_copied_is_there(image: Path, instructions: list[tuple[str, str]]) -> None:
    copied = [rest.split()[:-1] for word, rest in instructions if word == "COPY"]
    names = [name for each in copied for name in each if not name.startswith("--")]
    assert names == ["requirements.txt", "*.whl", "artifact"]
    assert {path.name for path in image.iterdir()} == {"Dockerfile", "requirements.txt", "artifact"}


def test_the_container_serves_the_artifact_to_others(
    image: Path, instructions: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, name, *arguments = json.loads(only(instructions, "CMD"))
    assert (program, name) == ("vggc", "serve")
    given = serve_command.make_context(name, arguments).params
    assert (given["host"], str(given["port"])) == ("0.0.0.0", only(instructions, "EXPOSE"))
    model, _, artifact = given["artifacts"][0].partition("=")
    assert model == "small"
    assert read_manifest(image / artifact).batches == (1, 4)


def test_its_health_is_asked_where_it_listens(instructions: list[tuple[str, str]]) -> None:
    _, _, listed = only(instructions, "HEALTHCHECK").partition("CMD ")
    python, option, program = json.loads(listed)
    assert (python, option) == ("python", "-c")
    compile(program, "health", "exec")
    (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/health'", program)
    assert port == only(instructions, "EXPOSE")


def test_it_runs_by_nobody_who_may_do_all_and_in_this_python(
    instructions: list[tuple[str, str]],
) -> None:
    words = [word for word, _ in instructions]
    assert words.index("USER") < words.index("CMD")
    assert only(instructions, "USER") == "vggc"
    major, minor = sys.version_info[:2]
    assert only(instructions, "FROM") == f"python:{major}.{minor}-slim"
