"""What a running net takes of its machine: memory in large pages, once; threads; instructions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.system_files import tree
from vggc.api.trained import from_spec
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import resolve, tvm_target
from vggc.ir.weights import save
from vggc.kernels.cpu import Machine, winograd
from vggc.kernels.workloads import Choice, Conv, Workload
from vggc.program import load
from vggc.runtime.cpu_info import instructions, plain
from vggc.runtime.huge_pages import LARGE_PAGE, large_pages, read_in_place
from vggc.support.tensors import ALIGNMENT
from vggc_runtime.json_file import MalformedError

MB = 10**6

# ---------------------------------------------------------------- memory


def test_memory_begins_at_a_large_page_and_outlives_its_maker() -> None:
    memory = large_pages(3 * LARGE_PAGE + 5)
    assert memory.ctypes.data % LARGE_PAGE == 0
    assert memory.size == 3 * LARGE_PAGE + 5
    assert not memory.any()
    part = memory[-5:]
    del memory
    part[:] = 7
    assert part.tolist() == [7] * 5


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint16", "int8", "int32"])
def test_tensors_of_every_type_are_read_to_aligned_places(tmp_path: Path, dtype: str) -> None:
    path, generator = tmp_path / "t.safetensors", np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (7,), "empty": (0, 4), "c": (2, 3, 4)}
    tensors = {
        name: (100 * generator.standard_normal(shape)).astype(dtype)
        for name, shape in shapes.items()
    }
    save(path, tensors)
    found = read_in_place(path, tensors.keys())
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == np.dtype(dtype)
        assert found[name].shape == tensor.shape
        assert np.array_equal(found[name], tensor)
        assert found[name].ctypes.data % ALIGNMENT == 0


def test_bfloat16_is_told_by_its_bits(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.randn(4, 6).to(torch.bfloat16)
    save_file({"w": values}, tmp_path / "t.safetensors")
    found = read_in_place(tmp_path / "t.safetensors", ["w"])["w"]
    assert found.dtype == np.uint16
    assert np.array_equal(found, values.view(torch.uint16).numpy())


def test_only_the_tensors_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save(path, {name: np.ones(2, np.float32) for name in "abc"})
    assert read_in_place(path, ["c", "x"]).keys() == {"c"}


def written(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: str, shape: object, begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"", b"", "no header"),
        (b"{", b"", "no header"),
        (b"{]", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        ([], b"", "not a table"),
        ({"a": 3}, b"", "`a` is described wrongly"),
        ({"a": tensor("F33", [1], 0, 4)}, bytes(4), "`a` is of type F33"),
        ({"a": tensor("F32", [1], 0, 8)}, bytes(8), "`a` is described wrongly"),
        ({"a": tensor("F32", [-1], 0, -4)}, b"", "`a` is described wrongly"),
        ({"a": tensor("F32", [1.0], 0, 4)}, bytes(4), "`a` is described wrongly"),
        ({"a": tensor("F32", [True], 0, 4)}, bytes(4), "`a` is described wrongly"),
        ({"a": tensor("F32", [1], -8, -4)}, bytes(4), "`a` is described wrongly"),
        ({"a": tensor("F32", [1 << 60] * 9, 0, 4)}, bytes(4), "`a` is described wrongly"),
        ({"a": tensor("F32", [1], 4, 8)}, bytes(8), "does not begin where"),
        ({n: tensor("F32", [1], 0, 4) for n in "ab"}, bytes(8), "does not begin where"),
        ({"a": tensor("F32", [1], 0, 4)}, bytes(3), "do not end where"),
        ({"a": tensor("F32", [1], 0, 4)}, bytes(5), "do not end where"),
    ],
)
def test_files_that_are_none_are_refused(
    tmp_path: Path, header: object, data: bytes, reason: str
) -> None:
    path = written(tmp_path / "t.safetensors", header, data)
    with pytest.raises(MalformedError, match=reason):
        read_in_place(path, ["a", "b"])


@given(st.binary(max_size=200))
def test_any_bytes_are_tensors_or_refused(
    tmp_path_factory: pytest.TempPathFactory, b: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(b)
    with suppress(MalformedError):
        assert read_in_place(path, ["a"]) == {}


MEASURED = """
import sys
import numpy as np
from pathlib import Path
from vggc.runtime.session import Session

session = Session.load(Path(sys.argv[1]), int(sys.argv[2]))
x = np.zeros((session.manifest.largest.batch, *session.manifest.input), np.float32)
for _ in range(3):
    session.run(x)
status = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
print(*(1024 * int(status[name].split()[0]) for name in ("VmHWM", "VmRSS")))
"""


@pytest.mark.slow
def test_vgg16_takes_its_weights_and_200_mb_at_most(tmp_path: Path) -> None:
    folder = tmp_path / "vgg16"
    compile_ = [sys.executable, "-m", "vggc", "compile", "vgg16", "-o", str(folder)]
    subprocess.run(compile_, check=True, capture_output=True)
    weights, steady, peak = memory_of(folder, threads=2)
    assert weights > 500 * MB
    assert weights < steady <= peak < weights + 200 * MB


def memory_of(folder: Path, threads: int) -> tuple[int, int, int]:
    """The bytes of an artifact's weights, and of a process that runs it: at the end, at most."""
    command = [sys.executable, "-c", MEASURED, str(folder), str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, steady = map(int, done.stdout.split())
    return (folder / "weights.safetensors").stat().st_size, steady, peak


def largest(workload: Workload, machine: Machine) -> Choice | None:
    """Of the choices by Winograd, that which takes the most memory."""
    if not (isinstance(workload, Conv) and winograd.Winograd2.applies(workload)):
        return None
    emitters = [
        winograd.Emitter(workload, machine, m, knobs)
        for m in winograd.ROUNDING[3]
        for knobs in winograd.blocks(workload, machine, m)
    ]
    most = max(emitters, key=lambda emitter: emitter.scratch_bytes)
    return Choice(f"winograd{most.m}", tuple(asdict(most.knobs).items()))


@pytest.mark.slow
def test_many_threads_and_images_take_no_more_than_their_maps(tmp_path: Path) -> None:
    """With the choices that take the most, as measuring might make them."""
    batch, threads = 4, 16
    program, target = load("vgg11(width=0.25)"), resolve("cpu")
    target = replace(target, attrs={**target.attrs, "num-cores": threads})
    machine = Machine.of(tvm_target(target))
    subject = from_spec(program, None, seed=0)
    job = Job(
        program.net,
        program.graph,
        target,
        (batch,),
        subject.weights,
        subject.weights_from,
        subject.preprocessing,
        (),
        times_of={"": lambda workload, _: {largest(workload, machine): 1.0}},
    )
    build_artifact(job, tmp_path / "vgg11")
    weights, steady, peak = memory_of(tmp_path / "vgg11", threads)
    largest_map = 4 * 16 * 226 * 226
    assert weights < steady <= peak < weights + 200 * MB + (batch - 1) * 2 * largest_map


def test_running_loads_nothing_of_tvm(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "x.npy"
    np.save(source, np.zeros((3, 16, 16), np.float32))
    code = (
        "import sys\n"
        f"sys.argv = ['vggc', 'run', {str(tiny_artifact())!r}, '--input', {str(source)!r}]\n"
        "from vggc.cli import cli\n"
        "cli(standalone_mode=False)\n"
        "assert not {'torch', 'tvm', 'tvm_ffi'} & {*sys.modules}\n"
        "assert 'libtvm' not in open('/proc/self/maps').read()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# ---------------------------------------------------------------- instructions


def test_instructions_bear_llvms_names(tmp_path: Path) -> None:
    x86 = tree(tmp_path / "x86", {"proc/cpuinfo": "flags\t\t: pni sse4_1 avx512_bf16 abm bmi1\n"})
    names = ("sse3", "sse4.1", "avx512bf16", "lzcnt", "bmi")
    assert instructions(x86) == {plain(name) for name in names}
    arm = tree(tmp_path / "arm", {"proc/cpuinfo": "Features\t: asimd asimddp i8mm\nflags : x\n"})
    assert instructions(arm) == {"neon", "dotprod", "i8mm"}
    assert instructions(tmp_path / "nothing") is None


def test_code_for_this_cpu_uses_only_what_this_cpu_says_it_has() -> None:
    target, present = resolve("cpu"), instructions()
    assert present is not None
    assert target.instructions
    assert {plain(name) for name in target.instructions} <= present
