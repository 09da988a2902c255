"""Programs that libraries of nets are linked with: in C, C++ and Rust, by compilers, CMake and
pkg-config, of one C library or another, where there is nothing but a C compiler.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT
from tests.support.bare_root import can_enter, install_compiler, within
from tests.support.c_programs import WARNINGS, printed
from tests.support.nets import TINY
from tests.support.standalone import artifact
from tests.support.virtual_machine import outputs_by_machine
from vggc.runtime.artifact import read_manifest
from vggc.support.arrays import Array
from vggc.support.paths import STANDALONE
from vggc_runtime.folder import WEIGHTS

MOST_BYTES = 200_000
"""Of a static program of a small net."""


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skips a test where one of the tools is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("programs") / "tiny", TINY, 1)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "a.ppm"
    pixels = np.random.default_rng(0).integers(0, 256, (37, 29, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def ranked(scores: Array) -> list[str]:
    """What the example prints of scores."""
    best = sorted(enumerate(scores.tolist()), key=lambda each: -each[1])[:5]
    return [f"output {number}: {score:.9g}" for number, score in best]


def expected(folder: Path, picture: Path) -> list[str]:
    """What the example is to print of a picture, which is read in Python."""
    images = read_manifest(folder).preprocessing.read(picture)
    return ranked(outputs_by_machine(folder, images)["output"][0])


def build(command: Sequence[str | Path], folder: Path) -> None:
    """Compiles something without a warning."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def said(program: Path, folder: Path, picture: Path) -> list[str]:
    """The lines that the example prints of a picture."""
    return printed([program, folder / WEIGHTS, picture])


def lines_of(readme: Path) -> list[list[str]]:
    """The commands that the README of a library shows."""
    shown = re.findall(r"^    (.*)$", readme.read_text(), re.MULTILINE)
    return [line.replace("'", "").split() for line in shown]


def test_the_example_is_compiled_as_its_readme_says_and_answers(tiny: Path, picture: Path) -> None:
    shared, _, static, musl = lines_of(tiny / STANDALONE / "README")
    for command in (shared, static, *([musl] if shutil.which("musl-gcc") else [])):
        build([*command, *WARNINGS], tiny / STANDALONE)
        assert said(tiny / STANDALONE / "main", tiny, picture) == expected(tiny, picture)


@needs("musl-gcc")
def test_a_small_net_is_a_small_program_on_any_linux(tiny: Path, tmp_path: Path) -> None:
    """The library was compiled for another C library than the one that it is linked with."""
    command = ["musl-gcc", "-static", "-s", "main.c", "libtiny.a", "-o", tmp_path / "main"]
    build(command, tiny / STANDALONE)
    assert (tmp_path / "main").stat().st_size < MOST_BYTES


def test_the_example_tells_what_it_cannot_read(tiny: Path, tmp_path: Path, picture: Path) -> None:
    build(
        ["cc", "main.c", "libtiny.a", "-lm", "-pthread", "-o", tmp_path / "main"], tiny / STANDALONE
    )
    (tmp_path / "short").write_bytes(b"P6 1 1 255\nx")
    (tmp_path / "long").write_bytes(b"P6 1 64 255\n" + bytes(3 * 64))
    weights = tiny / WEIGHTS
    for words, reason in (
        ([weights, tmp_path / "short"], "it ends before its picture does"),
        ([weights, tmp_path / "long"], "too long and narrow"),
        ([picture, picture], "the weights of another net"),
        ([weights], "give weights.safetensors and a picture"),
    ):
        done = subprocess.run([tmp_path / "main", *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr


@needs("cmake", "g++")
@pytest.mark.slow
def test_cmake_finds_the_library(tiny: Path, tmp_path: Path, picture: Path) -> None:
    place = tiny / STANDALONE
    (tmp_path / "CMakeLists.txt").write_text(
        f"""
cmake_minimum_required(VERSION 3.13)
project(example C)
find_package(tiny REQUIRED)
add_executable(shared {place}/main.c)
target_link_libraries(shared tiny::tiny)
add_executable(static {place}/main.c)
target_link_libraries(static tiny::static)
"""
    )
    build(["cmake", "-S", ".", "-B", "build", f"-Dtiny_DIR={place}"], tmp_path)
    build(["cmake", "--build", "build"], tmp_path)
    for name in ("shared", "static"):
        assert said(tmp_path / "build" / name, tiny, picture) == expected(tiny, picture)


@needs("pkg-config")
@pytest.mark.parametrize("kind", [[], ["--static"]])
def test_pkg_config_finds_the_library(
    tiny: Path, tmp_path: Path, picture: Path, kind: list[str]
) -> None:
    place = tiny / STANDALONE
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", *kind, "tiny"],
        env={**os.environ, "PKG_CONFIG_PATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    shutil.copy(place / "main.c", tmp_path)
    build(["cc", "main.c", *flags, f"-Wl,-rpath,{place}", "-o", "main"], tmp_path)
    assert said(tmp_path / "main", tiny, picture) == expected(tiny, picture)


def rust() -> tuple[int, ...]:
    """The version of Rust's compiler; 0.0 where there is none."""
    if shutil.which("rustc") is None:
        return 0, 0
    told = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout
    return tuple(map(int, re.findall(r"\d+", told)[:2]))


RUST = re.compile(r"```rust\n(.*?)```", re.DOTALL)


@pytest.mark.skipif(rust() < (1, 82), reason="needs rustc, of version 1.82 at least")
@pytest.mark.slow
def test_rust_calls_the_library_as_the_documentation_shows(tiny: Path, tmp_path: Path) -> None:
    (source,) = RUST.findall((ROOT / "docs" / "standalone.md").read_text())
    (tmp_path / "main.rs").write_text(source.replace("vgg16", "tiny"))
    link = ["-L", tiny / STANDALONE, "-l", "static=tiny", "-D", "warnings"]
    build(["rustc", "main.rs", *link], tmp_path)
    images = np.full((1, *read_manifest(tiny).input), 0.5, np.float32)
    scores = outputs_by_machine(tiny, images)["output"][0]
    done = subprocess.run([tmp_path / "main", tiny / WEIGHTS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    best = int(scores.argmax())
    number, score = done.stdout.split()
    assert (int(number), np.float32(score)) == (best, scores[best])


BOTH = """
#include <cstdio>
#include <vector>
#include "tiny.h"
#include "twin.h"
#define RUN(net, weights)                                                                \\
  do {                                                                                   \\
    net##_net *opened;                                                                   \\
    std::vector<float> x(net##_input().count, 0.5f), y(net##_output(0).count);           \\
    float *const outputs[net##_HEADS] = {y.data()};                                      \\
    if (net##_open(weights, nullptr, &opened)) return std::puts(net##_error()), 1;       \\
    if (net##_run(opened, 1, x.data(), outputs)) return std::puts(net##_error()), 1;     \\
    std::fwrite(y.data(), sizeof(float), y.size(), stdout);                              \\
    net##_close(opened);                                                                 \\
  } while (0)
int main(int, char **words) {
  RUN(tiny, words[1]);
  RUN(twin, words[2]);
}
"""


@needs("g++")
def test_two_nets_are_linked_into_one_program(tiny: Path, tmp_path: Path) -> None:
    """In C++, by the static libraries: equal functions of both have other names, or none."""
    text = TINY.replace("net tiny", "net twin").replace("fc-24", "fc-20")
    nets = {"tiny": tiny, "twin": artifact(tmp_path / "twin", text, 1)}
    (tmp_path / "both.cc").write_text(BOTH)
    libraries = [folder / STANDALONE / f"lib{name}.a" for name, folder in nets.items()]
    include = [f"-I{folder / STANDALONE}" for folder in nets.values()]
    words = ["-std=c++17", *WARNINGS, *include, "both.cc", *libraries, "-pthread", "-lm"]
    build(["g++", *words, "-o", "both"], tmp_path)
    weights = [folder / WEIGHTS for folder in nets.values()]
    given = subprocess.run([tmp_path / "both", *weights], capture_output=True, check=True)
    outputs = b""
    for folder in nets.values():
        half = np.full((1, *read_manifest(folder).input), 0.5, np.float32)
        outputs += outputs_by_machine(folder, half)["output"].tobytes()
    assert given.stdout == outputs


needs_root = pytest.mark.skipif(not can_enter(), reason="a root folder cannot be entered")


@needs("gcc")
@needs_root
@pytest.mark.slow
def test_where_there_is_but_a_c_compiler_the_net_answers_as_in_python(
    tiny: Path, tmp_path: Path, picture: Path
) -> None:
    """Where the root has the compiler's own files and those that were copied there, no others."""
    shared, run, static, _ = lines_of(tiny / STANDALONE / "README")
    root, place = tmp_path / "root", tmp_path / "root" / "net" / STANDALONE
    install_compiler(root, [shared, static], tiny / STANDALONE)
    (tiny / STANDALONE / "main").unlink()
    shutil.copytree(tiny / STANDALONE, place)
    shutil.copy(tiny / WEIGHTS, root / "net")
    shutil.copy(picture, place / run[-1])
    files = " ".join(str(path.relative_to(root)) for path in root.rglob("*"))
    assert not re.search("(?i)python|tvm|vggc|torch", files)
    # The loader asks /proc for $ORIGIN, and that is not mounted.
    there = ["env", "LD_LIBRARY_PATH=/net/standalone", *within(root, "/net/standalone")]
    for command in (shared, static):
        build([*there, *command], tmp_path)
        assert printed([*there, *run]) == in_python(tiny, picture)


@needs("musl-gcc")
@needs_root
@pytest.mark.slow
def test_a_static_program_answers_where_there_is_nothing(
    tiny: Path, tmp_path: Path, picture: Path
) -> None:
    *_, command = lines_of(tiny / STANDALONE / "README")
    build(command, tiny / STANDALONE)
    for path in (tiny / STANDALONE / "main", tiny / WEIGHTS, picture):
        shutil.copy(path, tmp_path)
    words = ["/main", f"/{WEIGHTS}", f"/{picture.name}"]
    assert printed([*within(tmp_path), *words]) == in_python(tiny, picture)


def in_python(folder: Path, picture: Path) -> list[str]:
    """What the example is to print, by `vggc run`."""
    command = [sys.executable, "-m", "vggc", "run", folder, "--input", picture, "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    return ranked(np.float32(json.loads(done.stdout)["outputs"]["output"]["values"][0]))
