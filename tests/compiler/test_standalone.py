"""Libraries that run nets without Python: what they compute, refuse, and bear."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import aarch64
from tests.support.c_programs import WARNINGS
from tests.support.standalone import (
    BRANCHES,
    Driver,
    RefusedError,
    StandaloneNet,
    artifact,
    images_for,
)
from tests.support.virtual_machine import outputs_by_machine
from vggc.api.compile import CompileOptions, plan
from vggc.compiler import cpu_library
from vggc.compiler.cpu_library import c_library
from vggc.compiler.diagnostics import StandaloneForGpu
from vggc.compiler.plan_table import (
    PlanTable,
    StoredWeights,
    TableCall,
    TableEntry,
    TableHead,
    TableSize,
    TableTensor,
    c_source,
    symbols,
)
from vggc.compiler.targets import resolve
from vggc.runtime.artifact import read_manifest
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError
from vggc.support.paths import STANDALONE
from vggc.support.precision import ArtifactPrecision
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.native import prefix_of


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("standalone") / "branches", BRANCHES, 1, 4)


def as_bytes(folder: Path, images: Array) -> bytes:
    """What the virtual machine gives of images: all of one output, then of the next."""
    outputs = outputs_by_machine(folder, images)
    return b"".join(value.tobytes() for value in outputs.values())


def require_equal(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_the_outputs_are_those_of_the_virtual_machine_to_the_bit(
    branches: Path, count: int
) -> None:
    images = images_for(branches, count)
    net = StandaloneNet.open(branches)
    require_equal(net.run(images), outputs_by_machine(branches, images))
    net.close()


def test_images_may_begin_anywhere(branches: Path) -> None:
    images = images_for(branches, 4)
    room = np.zeros(images.nbytes + 64, np.uint8)
    moved = room[4 : 4 + images.nbytes].view(np.float32).reshape(images.shape)
    moved[:] = images
    net = StandaloneNet.open(branches)
    require_equal(net.run(moved), net.run(images))
    net.close()


def test_mapped_weights_give_the_same(branches: Path) -> None:
    images = images_for(branches, 4)
    net, mapped = StandaloneNet.open(branches), StandaloneNet.open(branches, map_=True)
    require_equal(mapped.run(images), net.run(images))
    net.close()
    mapped.close()


def test_the_net_is_described(branches: Path) -> None:
    net = StandaloneNet.open(branches)
    assert net.value("input") == ("input", (3, 19, 17))
    assert net.value("output", 0) == ("output", (10,))
    assert net.value("output", 1) == ("features", (24,))
    assert net.value("output", 2)[0] is None
    assert net.value("output", -1)[0] is None
    net.close()


def test_several_threads_run_one_net_at_once(branches: Path) -> None:
    """Of each number of images another entry, in a workspace that was another's before."""
    several = [images_for(branches, count) for count in (1, 2, 4, 5)]
    net = StandaloneNet.open(branches)
    expected = [outputs_by_machine(branches, images) for images in several]
    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(net.run, several * 8), expected * 8, strict=True):
            require_equal(found, wanted)
    net.close()


def test_what_is_no_run_is_refused_with_a_reason(branches: Path) -> None:
    net = StandaloneNet.open(branches)
    with pytest.raises(RefusedError, match="0 images were given"):
        net.run(images_for(branches, 0))
    with pytest.raises(RefusedError, match="NULL"):
        net.call("run", net.handle, 1, None, None)
    net.close()
    net.library.of_branches_close(None)


def test_a_mapped_file_may_be_replaced(branches: Path, tmp_path: Path) -> None:
    path, images = tmp_path / WEIGHTS, images_for(branches, 4)
    shutil.copy(branches / WEIGHTS, path)
    net = StandaloneNet.open(branches, weights=path, map_=True)
    (tmp_path / "other").write_bytes(bytes(path.stat().st_size))
    os.replace(tmp_path / "other", path)
    require_equal(net.run(images), outputs_by_machine(branches, images))
    net.close()


def test_a_file_that_is_cut_ends_those_that_map_it_and_no_others(
    branches: Path, tmp_path: Path
) -> None:
    path, images = tmp_path / WEIGHTS, images_for(branches, 1)
    driver = Driver.of(branches, tmp_path / "driver")
    for map_, code in ((1, -signal.SIGBUS), (0, 0)):
        shutil.copy(branches / WEIGHTS, path)
        words = map(str, (driver.path, path, 1, 2, 1, map_))
        with subprocess.Popen([*words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            wait_for_threads(process)
            os.truncate(path, 0)
            given, _ = process.communicate(images.tobytes())
        assert process.returncode == code
        assert given == (b"" if code else as_bytes(branches, images))


def wait_for_threads(process: subprocess.Popen[bytes]) -> None:
    """Returns when a process has the threads of a net, which start when its weights are there."""
    while process.poll() is None:
        with suppress(OSError):
            tasks = [*Path(f"/proc/{process.pid}/task").iterdir()]
            if any(task.joinpath("comm").read_text() == "vggc-1\n" for task in tasks):
                return
        time.sleep(0.01)


@pytest.mark.parametrize("harm", ["missing", "cut off", "other values", "other names"])
def test_other_weights_are_refused_with_a_reason(branches: Path, tmp_path: Path, harm: str) -> None:
    whole = (branches / WEIGHTS).read_bytes()
    path = tmp_path / "other.safetensors"
    match harm:
        case "cut off":
            path.write_bytes(whole[:-1])
        case "other values":
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "other names":
            path.write_bytes(whole.replace(b"conv", b"fold", 1))
        case _:
            pass
    with pytest.raises(RefusedError, match=r"other\.safetensors"):
        StandaloneNet.open(branches, weights=path)


def test_a_cpu_without_the_instructions_is_refused_with_the_reason(
    branches: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The net is called as a type of the runtime is, and a file."""
    foreign = ("sse2", "avxifma", "sse4a", "avx512vp2intersect", "anything-else")

    def demanding(table: PlanTable) -> str:
        return c_source(replace(table, instructions=foreign))

    monkeypatch.setattr(cpu_library, "c_source", demanding)
    folder = artifact(tmp_path / "a", "net plan input 1x4x4\nfc-2", 1)
    with pytest.raises(RefusedError, match=r"compiled for .*, and this CPU lacks avx"):
        StandaloneNet.open(folder)


def test_a_forked_process_is_refused_and_may_open_the_net_again(
    branches: Path, tmp_path: Path
) -> None:
    driver = Driver.of(branches, tmp_path / "driver")
    images = images_for(branches, 3)
    given, said = driver.run(images, runners=0)
    assert said == "the net was opened before this process was forked: open it here, too\n"
    assert given == as_bytes(branches, images)


def test_nothing_but_the_public_functions_is_seen_from_outside(branches: Path) -> None:
    place = branches / STANDALONE
    expected = sorted(f"of_branches_{name}" for name in cpu_library.PUBLIC)
    for library, kind in (("libof_branches.so", "-D"), ("libof_branches.a", "-g")):
        command = ["nm", kind, "--defined-only", "-j", library]
        found = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
        names = [name for name in found.stdout.split() if not name.endswith(":")]
        assert sorted(names) == expected
    command = ["readelf", "-d", "libof_branches.so"]
    needed = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout
    libraries = {line.split("[")[1] for line in needed.splitlines() if "(NEEDED)" in line}
    assert libraries <= {"libc.so.6]", "libm.so.6]", "ld-linux-x86-64.so.2]"}


def test_the_static_library_asks_for_nothing_that_one_c_library_alone_has(branches: Path) -> None:
    """As glibc's checked functions, and those of its generations of `scanf` and sets of CPUs."""
    command = ["nm", "-u", "-j", branches / STANDALONE / "libof_branches.a"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pthread_create\n" in names
    assert not re.search(r"_chk$|^__isoc|^__sched_cpu(alloc|free)$", names, re.MULTILINE)


@pytest.mark.parametrize("compiler", ["gcc", "clang", "musl-gcc"])
def test_compilers_warn_of_nothing(branches: Path, tmp_path: Path, compiler: str) -> None:
    """Neither of the runtime's sources, all in one file, nor of the header."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    manifest = read_manifest(branches)
    heads = tuple(TableHead(each.name, each.shape) for each in manifest.outputs)
    call = TableCall("conv", "conv 1", (0, 1))
    entry = TableEntry(1, 64, (TableTensor("input", 0, "float32", (1,)),), (call,), (0,))
    table = PlanTable(
        net="net",
        cpu="any",
        instructions=(),
        sizes=(TableSize(manifest.input, None, heads, (entry,)),),
        weights=StoredWeights.of(branches / WEIGHTS),
    )
    header = (branches / STANDALONE / "of_branches.h").read_text().replace("of_branches", "net")
    (tmp_path / "whole.c").write_text(c_library(table, manifest.preprocessing, header))
    words = ["-std=c11", "-O2", *WARNINGS, f"-I{cpu_library.NATIVE}", "-c", "whole.c"]
    subprocess.run([compiler, *words], cwd=tmp_path, check=True)


def test_gpus_have_no_such_library() -> None:
    options = CompileOptions(target="cuda", standalone=True, seed=0)
    with pytest.raises(UserError) as mistake:
        plan("tiny_vgg", options, print)
    assert isinstance(mistake.value.diagnostics[0], StandaloneForGpu)


def test_names_of_functions_stay_apart_in_c() -> None:
    made = symbols(["a-b", "a_b", "a-b"])
    assert len(made) == len({*made.values()}) == 2
    assert prefix_of("größe_1") == "gr__e_1"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_fewer_bits_give_the_same_bits_as_the_virtual_machine(
    tmp_path: Path, precision: ArtifactPrecision
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 3), np.uint8)
    pictures = tuple(tmp_path / f"{number}.png" for number in range(8))
    for path, each in zip(pictures, pixels, strict=True):
        Image.fromarray(each).save(path)
    folder = artifact(
        tmp_path / "a",
        BRANCHES,
        1,
        3,
        precision=precision,
        images=pictures if precision == "int8" else (),
    )
    images = images_for(folder, 4)
    net = StandaloneNet.open(folder)
    require_equal(net.run(images), outputs_by_machine(folder, images))
    net.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (f"-fsanitize={kind}", "-fno-sanitize-recover=all", "-g")
    monkeypatch.setattr(cpu_library, "C_FLAGS", (*cpu_library.C_FLAGS, *flags))
    folder = artifact(tmp_path / "a", BRANCHES, 1, 4)
    driver = Driver.of(folder, tmp_path / "driver", *flags)
    images = images_for(folder, 5)
    expected = as_bytes(folder, images)
    for map_ in (False, True):
        given, said = driver.run(images, threads=3, map_=map_)
        assert (given, said) == (expected, "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    """With code for a CPU that it can imitate."""
    haswell = resolve("cpu", mcpu="haswell")
    folder = artifact(tmp_path / "a", BRANCHES, 1, 4, target=haswell)
    valgrind = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full"]
    driver = Driver.of(folder, tmp_path / "driver", "-g", command=valgrind)
    images = images_for(folder, 5)
    given, said = driver.run(images, runners=2)
    assert (given, said) == (as_bytes(folder, images), "")


@pytest.mark.slow
@pytest.mark.skipif(bool(aarch64.MISSING), reason=f"needs {' and '.join(aarch64.MISSING)}")
def test_code_for_other_machines_answers_there(tmp_path: Path) -> None:
    """On aarch64, under qemu: the same classes, within what other orders of sums round."""
    target = resolve("cpu")
    attrs = aarch64.TARGET | {"num-cores": 2}
    foreign = replace(target, attrs=attrs, instructions=("neon",))
    folder = artifact(tmp_path / "a", BRANCHES, 1, 4, target=foreign)
    here = artifact(tmp_path / "here", BRANCHES, 1, 4)
    driver = Driver.of(
        folder,
        tmp_path / "driver",
        "-static",
        compiler=str(aarch64.COMPILER).replace("g++", "gcc"),
        command=[str(aarch64.QEMU)],
    )
    images = images_for(here, 5)
    given, _ = driver.run(images, runners=2)
    found, expected = (np.frombuffer(each, np.float32) for each in (given, as_bytes(here, images)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
