"""Artifacts: compiled, run without PyTorch, verified; and refused when they are damaged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.support.nets import compile_tiny, program
from tests.support.training_data import write_images
from vggc.api.trained import from_spec
from vggc.api.verify import Verdict
from vggc.backends.torch import reference
from vggc.cli import cli
from vggc.compiler.pipeline import Job, build_artifact
from vggc.compiler.targets import resolve
from vggc.ir.weights import save, seeded
from vggc.measure.bench import bench
from vggc.measure.verify import LIMITS, TOLERANCE, Verification, verify
from vggc.program import Program
from vggc.runtime.artifact import FILES, Manifest, sound_manifest
from vggc.runtime.cpu_session import CpuSession
from vggc.runtime.gpu_session import GpuSession
from vggc.runtime.session import Session
from vggc.support.diagnostics import UserError
from vggc.support.records import from_json
from vggc.support.tensors import read_all
from vggc.syntax.format import format_net
from vggc_runtime.json_file import MalformedError

Make = Callable[..., Path]
Noise = Callable[..., np.ndarray]


def test_an_artifact_computes_its_net(tiny: Program, tiny_artifact: Make, noise: Noise) -> None:
    session = Session.load(tiny_artifact(3))
    x = noise(3, 3, 16, 16)
    expected = reference(tiny.graph, seeded(tiny.graph, 0))(x)["softmax1"]
    np.testing.assert_allclose(session.run(x), expected, rtol=1e-5, atol=1e-7)


def test_its_manifest_tells_what_it_is(tiny: Program, tiny_artifact: Make) -> None:
    folder = tiny_artifact(2)
    manifest = sound_manifest(folder)
    assert (manifest.net, manifest.batches, manifest.input) == ("tiny", (2,), (3, 16, 16))
    assert manifest.classes == tuple("abcdefghij")
    assert manifest.weights_from == "seed 0"
    assert set(manifest.files) == set(FILES)
    (entry,) = manifest.entries
    layers = {kernel.layer: kernel.algorithm for kernel in entry.kernels}
    assert layers["conv1_1"] == "direct"
    assert layers["fc3"] == "gemm"
    assert (folder / "net.vgg").read_text() == format_net(tiny.net)


def test_a_library_refuses_what_it_was_not_compiled_for(tiny_artifact: Make, noise: Noise) -> None:
    """Its kernels look at nothing: they are given what follows from what was looked at before."""
    session = Session.load(tiny_artifact())
    for wrong in [(1, 3, 8, 8), (1, 16, 16, 3), (3, 16, 16)]:
        with pytest.raises(UserError, match=r"refuses its input|not compiled for images of"):
            session.invoke(session.tensor(noise(*wrong)))


def test_verify_compares_with_float64_on_noise_and_photographs(tiny_artifact: Make) -> None:
    results = verify(tiny_artifact())
    assert [result.input for result in results] == ["random", "china.jpg", "flower.jpg"]
    assert all(result.passed and result.first_departure is None for result in results)
    assert all(0 < result.error < TOLERANCE for result in results)


def test_images_that_cannot_be_used_do_not_end_verify(tiny_artifact: Make, tmp_path: Path) -> None:
    """They are named, counted, and others take their place."""
    write_images(tmp_path / "photos", ("cat", "dog"), 3)
    (tmp_path / "photos/cat/._0.png").write_bytes(b"?")
    (tmp_path / "photos/cat/0.png").write_bytes(b"?")
    arguments = ["verify", str(tiny_artifact()), "--data", str(tmp_path / "photos")]
    shown = CliRunner().invoke(cli, [*arguments, "--images", "5"])
    assert shown.exit_code == 0, shown.output
    assert "  skipped cat/0.png: not an image\n1 left out.\n" in shown.stderr
    assert shown.stdout.startswith("5 images: ok")
    told = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    (result,) = told["inputs"]
    assert (result["images"], [each["name"] for each in result["skipped"]]) == (5, ["cat/0.png"])


def test_a_net_that_takes_no_images_is_verified_on_noise(tmp_path: Path) -> None:
    spec = tmp_path / "four.vgg"
    spec.write_text("net four\ninput 4x16x16\n\n  conv3-16 | pool | fc-5 | softmax\n")
    folder = str(tmp_path / "artifact")
    assert CliRunner().invoke(cli, ["compile", str(spec), "-o", folder]).exit_code == 0
    result = CliRunner().invoke(cli, ["verify", folder])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("random: ok")
    assert result.output.count("\n") == 1


def test_verify_names_the_first_layer_that_departs(
    tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vggc.measure.verify as module

    original = module.original_weights

    def with_one_wrong_weight(*arguments: Any) -> Any:
        made_of = original(*arguments)
        wrong = made_of.weights["conv2_1.weight"].copy()
        wrong[0, 0, 0, 0] += 1.0
        return replace(made_of, weights={**made_of.weights, "conv2_1.weight": wrong})

    monkeypatch.setattr(module, "original_weights", with_one_wrong_weight)
    folder = tiny_artifact()
    result = verify(folder)[0]
    assert not result.passed
    assert result.first_departure == "conv2_1"
    shown = CliRunner().invoke(cli, ["verify", str(folder)])
    assert str(shown.exception) == (
        f"{folder} does not compute its net on random: its relative L2 error is "
        f"{result.error:.2e}, and is to be under 1e-05; the first layer that departs is conv2_1"
    )


def test_verify_names_the_layer_whose_values_are_infinite(
    tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a ReLU has made a zero of what came of them, and the scores are right."""
    layers = CpuSession.layers

    def overflowing(session: CpuSession, x: np.ndarray) -> list[np.ndarray]:
        values = [value.copy() for value in layers(session, x)]
        values[2][...] = np.inf
        return values

    monkeypatch.setattr(CpuSession, "layers", overflowing)
    folder = tiny_artifact()
    shown = CliRunner().invoke(cli, ["verify", str(folder), "--json"])
    assert str(shown.exception) == (
        f"{folder} does not compute its net on random: values of conv1_2 are infinite or no numbers"
    )
    found = json.loads(shown.stdout)["inputs"][0]
    assert found["not_finite"] == "conv1_2"
    assert [error for *_, error in found["step_errors"]].index(None) == 2
    assert found["error"] < 1e-5


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        (
            {"precision": "float16", "step_errors": (("a", "a", 1e-4), ("b", "b.relu", inf))},
            "values of b are infinite or no numbers: float16 holds up to 65,504; compile with "
            "`--precision bfloat16` or `--precision tf32`",
        ),
        ({"error": 0.2}, "its relative L2 error is 2.00e-01, and is to be under 0.15"),
        ({"error": float("nan")}, "its relative L2 error is nan, and is to be under 0.15"),
        ({"agreeing": 39}, None),
        (
            {"agreeing": 38},
            "the best class is the same on 38 of the images (95.0%), and is to be on 97%",
        ),
        ({"agreeing": 38, "judged": False}, None),
        ({"agreeing": 0, "images": 1}, "the best class is another"),
    ],
    ids=str,
)
def test_a_comparison_says_what_does_not_do(changes: dict[str, Any], fault: str | None) -> None:
    made = Verification("40 images", 1, (8, 8), "int8", 1e-3, 40, 40, True, (), (), "seed 0")
    found = replace(made, **changes)
    assert (found.fault, found.passed) == (fault, fault is None)


@pytest.mark.parametrize(
    ("archs", "kernels"),
    [((), ""), (("sm_80", "compute_90"), " with its kernels for sm_80 and compute_90")],
    ids=str,
)
def test_a_fault_says_whose_kernels_have_it(archs: tuple[str, ...], kernels: str) -> None:
    wrong = Verification(
        "random", 1, (8, 8), "float16", 1, 1, 1, False, (), (), "seed 0", archs=archs
    )
    fault = Verdict(Path("art"), (wrong,), LIMITS["float16"]).fault
    assert fault is not None
    assert fault.startswith(f"art does not compute its net{kernels} on random: its relative")


def test_running_needs_no_pytorch(tiny_artifact: Make, tmp_path: Path) -> None:
    folder, source = tiny_artifact(), tmp_path / "x.npy"
    np.save(source, np.zeros((3, 16, 16), np.float32))
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'onnx', 'sklearn', 'matplotlib'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        f"sys.argv = ['vggc', 'run', {str(folder)!r}, '--input', {str(source)!r}, '--json']\n"
        "from vggc.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    output = json.loads(done.stdout)["outputs"]["output"]
    assert output["kind"] == "classes"
    (scores,) = output["values"]
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)


# ---------------------------------------------------------------- several heads, branches

BRANCHED = """
net branched
input 3x16x16

  first: conv3-8 norm=batch | trunk: pool
| add(conv3-8 norm=batch | conv3-8 norm=batch act=none, skip) | batchnorm | relu
| gap | fc-10 | softmax

head spot: @trunk | fc-12 act=prelu | boxes
head spots: @trunk | gap | boxes-7
head trunk_map: @trunk
"""


@pytest.fixture(scope="module")
def branched() -> Program:
    return program(BRANCHED)


@pytest.fixture(scope="module")
def branched_artifact(branched: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once: nobody writes to it."""
    return build(branched, tmp_path_factory.mktemp("branched") / "artifact")


def build(net: Program, folder: Path) -> Path:
    """The artifact of a net with random weights, for batches of two."""
    subject = from_spec(net, None, seed=0)
    job = Job(
        net.net,
        net.graph,
        resolve("cpu"),
        (2,),
        subject.weights,
        subject.weights_from,
        subject.preprocessing,
        (),
    )
    build_artifact(job, folder)
    return folder


def test_a_session_gives_the_main_output_or_every_one_by_name(
    branched: Program, branched_artifact: Path, noise: Noise
) -> None:
    session, x, graph = Session.load(branched_artifact), noise(2, 3, 16, 16), branched.graph
    outputs = session.run_all(x)
    assert list(outputs) == ["output", "spot", "spots", "trunk_map"]
    assert np.array_equal(session.run(x), outputs["output"])
    expected = reference(graph, seeded(graph, 0))(x)
    for head in graph.heads:
        wanted = expected[graph.nodes[head.node].name]
        np.testing.assert_allclose(outputs[head.name], wanted, rtol=1e-4, atol=1e-5)


def test_the_manifest_tells_every_output_and_holds_folded_weights(branched_artifact: Path) -> None:
    manifest = sound_manifest(branched_artifact)
    outputs = [(output.name, output.kind, output.shape) for output in manifest.outputs]
    assert outputs == [
        ("output", "classes", (10,)),
        ("spot", "boxes", (4,)),
        ("spots", "boxes", (28,)),
        ("trunk_map", "features", (8, 8, 8)),
    ]
    assert {"first.weight", "first.bias"} <= manifest.weights.keys()
    assert not any("running" in name or ".norm" in name for name in manifest.weights)


def test_verify_looks_at_each_of_the_calls_that_a_join_of_many_paths_is(tmp_path: Path) -> None:
    paths = ", ".join(["conv1-2"] * 40)
    net = program(f"net wide input 3x6x6 many: add({paths}) | concat({paths}) | gap | fc-10")
    folder = build(net, tmp_path / "wide")
    layers = [entry.layer for entry in sound_manifest(folder).largest.kernels]
    assert layers.count("many") == layers.count("concat1") == 3
    for result in verify(folder):
        assert result.passed, result
        assert [step for layer, step, _ in result.step_errors if layer == "many"] == [
            "many.1",
            "many.2",
            "many",
        ]


def test_verify_compares_every_head(branched_artifact: Path) -> None:
    for result in verify(branched_artifact):
        assert result.passed, result
        assert [head for head, _ in result.head_errors] == ["output", "spot", "spots", "trunk_map"]
        assert result.error == max(error for _, error in result.head_errors) > 0


def test_the_error_of_a_soft_max_is_told_relative_to_its_scores(
    branched_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of some thousands leave no digit of a probability that float32 could get right."""
    import vggc.measure.verify as module

    def scaled(*arguments: Any) -> Any:
        run = reference(*arguments)
        factor = 5e3
        return lambda x: {
            name: value * factor if name == "fc2" else value for name, value in run(x).items()
        }

    before = verify(branched_artifact)[0]
    monkeypatch.setattr(module, "reference", scaled)
    after = verify(branched_artifact)[0]
    assert dict(after.head_errors)["output"] < dict(before.head_errors)["output"] / 100
    assert dict(after.head_errors)["spot"] == dict(before.head_errors)["spot"]


def test_run_says_of_every_output_what_it_is(
    branched_artifact: Path, tmp_path: Path, noise: Noise
) -> None:
    source = tmp_path / "x.npy"
    np.save(source, noise(1, 3, 16, 16))
    arguments = ["run", str(branched_artifact), "--input", str(source), "--top", "3"]
    text = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout.splitlines()
    assert [line for line in text if line[1] != " "] == [" output", " spot", " spots", " trunk_map"]
    assert sum(line.startswith("  class ") for line in text) == 3
    assert sum(line.startswith("  box  ") for line in text) == 1
    assert [line.split()[1] for line in text if re.match("  box [0-9]", line)] == ["0", "1", "2"]
    assert "  and 4 boxes more; --json prints them all" in text
    assert text[-1].startswith("  8×8×8, L2 norm ")
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    outputs = json.loads(done.stdout)["outputs"]
    shapes = {name: np.shape(output["values"]) for name, output in outputs.items()}
    assert shapes == {
        "output": (1, 10),
        "spot": (1, 4),
        "spots": (1, 28),
        "trunk_map": (1, 8, 8, 8),
    }


def test_bench_times_the_main_output_of_a_net_with_several(branched_artifact: Path) -> None:
    timing = bench(branched_artifact, ["torch", "onnxruntime"], threads=1, rounds=1)
    assert set(timing.milliseconds) == {"vggc", "torch", "onnxruntime"}


# ---------------------------------------------------------------- damage


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        Session.load(folder)
    return str(caught.value)


def edit_manifest(folder: Path, **changes: object) -> None:
    """Changes values as somebody would who knows that the manifest hashes itself."""
    path = folder / "manifest.json"
    value = {**json.loads(path.read_text()), **changes}
    with contextlib.suppress(MalformedError):
        value["sha256"] = from_json(Manifest, value).digest
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(tiny_artifact: Make, name: str) -> None:
    folder = tiny_artifact()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert f"{name} in the artifact {folder} is not the file that was compiled" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_off_file_is_found(tiny_artifact: Make, name: str) -> None:
    folder = tiny_artifact()
    (folder / name).write_bytes((folder / name).read_bytes()[:-10])
    text = refusal(folder)
    assert name in text
    assert "bytes in place of" in text


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tiny_artifact: Make, name: str) -> None:
    folder = tiny_artifact()
    (folder / name).unlink()
    assert f"has lost its file {name}" in refusal(folder)


def test_another_formats_manifest_is_refused_by_both_versions(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    edit_manifest(folder, format_version=99, unheard_of=1)
    assert "made by format 99; this is format 7" in refusal(folder)


def test_another_vggcs_artifact_is_refused_by_both_versions(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    edit_manifest(folder, vggc="9.9.9")
    assert "made by vggc 9.9.9" in refusal(folder)


def test_another_tvms_artifact_is_refused_on_gpus(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    edit_manifest(folder, tvm="0.1.0")
    with pytest.raises(UserError, match=r"made by TVM 0\.1\.0"):
        GpuSession.open(folder)
    Session.load(folder)  # what runs on a CPU has nothing of TVM


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": "other"}', "[" * 100_000, '{"format": NaN}']
)
def test_a_manifest_that_is_none_is_refused(tiny_artifact: Make, content: str) -> None:
    folder = tiny_artifact()
    (folder / "manifest.json").write_text(content)
    assert refusal(folder).startswith(f"error: {folder} is not an artifact")


OUTPUTS = [{"name": "output", "kind": "classes", "shape": [10]}]


@pytest.mark.parametrize(
    "changes",
    [
        {"entries": [{"batch": "one", "size": [16, 16], "kernels": []}]},
        {"entries": [{"batch": 1, "kernels": []}]},
        {"sizes": [{"input": [3, 16], "outputs": OUTPUTS}]},
        {"sizes": []},
        {"files": {"../lib.so": {"sha256": "", "bytes": 0}}},
        {"precision": "float128"},
        {"entries": [{"batch": 1, "size": [16, 16], "kernels": 3}]},
        {"surprise": 1},
        {"entries": []},
        *(
            {"entries": [{"batch": batch, "size": [16, 16], "kernels": []} for batch in batches]}
            for batches in ([0], [10**9], [2, 1], range(1, 10))
        ),
        {"sizes": [{"input": [3, 33, 19], "outputs": OUTPUTS}]},
        *(
            {"sizes": [{"input": [3, 16, 16], "outputs": outputs}]}
            for outputs in (
                [],
                [OUTPUTS[0] | {"shape": [9]}],
                [OUTPUTS[0] | {"kind": "boxes"}],
                [OUTPUTS[0] | {"name": "scores"}],
            )
        ),
        {"classes": ["a", "b"]},
    ],
    ids=str,
)
def test_a_manifest_with_a_wrong_value_is_refused(
    tiny_artifact: Make, changes: dict[str, object]
) -> None:
    folder = tiny_artifact()
    edit_manifest(folder, **changes)
    assert refusal(folder).startswith(f"error: {folder} is not an artifact")


@pytest.mark.parametrize(
    "changes",
    [{"mean": [0.1]}, {"std": [0, 0, 0]}, {"scale": -4}, {"scale": 10**9}, {"size": [9, 9]}],
    ids=str,
)
def test_a_preprocessing_that_cannot_be_is_refused(
    tiny_artifact: Make, changes: dict[str, object]
) -> None:
    folder = tiny_artifact()
    manifest = json.loads((folder / "manifest.json").read_text())
    edit_manifest(folder, preprocessing={**manifest["preprocessing"], **changes})
    assert "manifest.json: preprocessing: " in refusal(folder)


@pytest.mark.parametrize(
    "attrs", [{}, {"kind": "zzz"}, {"kind": "llvm", "mtriple": "zz80-linux"}], ids=str
)
def test_a_target_that_cannot_be_is_refused(tiny_artifact: Make, attrs: dict[str, object]) -> None:
    folder = tiny_artifact()
    manifest = json.loads((folder / "manifest.json").read_text())
    edit_manifest(folder, target={**manifest["target"], "attrs": attrs})
    assert refusal(folder).startswith("error: ")


def test_a_manifest_that_was_edited_by_hand_is_found(tiny_artifact: Make) -> None:
    path = tiny_artifact() / "manifest.json"
    path.write_text(path.read_text().replace('"seed 0"', '"seed 1"'))
    assert "manifest.json in the artifact" in refusal(path.parent)


def test_a_library_for_other_instructions_is_not_loaded(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    manifest = json.loads((folder / "manifest.json").read_text())
    other = {"kind": "llvm", "mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}
    edit_manifest(folder, target={**manifest["target"], "attrs": other})
    assert "it is compiled for aarch64-linux-gnu" in refusal(folder)


def test_a_library_for_instructions_that_this_cpu_lacks_is_not_loaded(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    target = json.loads((folder / "manifest.json").read_text())["target"]
    edit_manifest(folder, target={**target, "instructions": ["avx1024f", *target["instructions"]]})
    assert "this CPU lacks avx1024f" in refusal(folder)


def test_weights_that_do_not_fit_their_library_are_refused(tiny_artifact: Make) -> None:
    from vggc.runtime.artifact import entry

    folder = tiny_artifact()
    path = folder / "weights.safetensors"
    tensors = read_all(path)
    save(path, {**tensors, "fc5.bias": np.zeros(3, np.float32)})
    manifest = json.loads((folder / "manifest.json").read_text())
    now = entry(path)
    files = {**manifest["files"], path.name: {"sha256": now.sha256, "bytes": now.bytes}}
    edit_manifest(folder, files=files)
    assert "it is the weights of another net" in refusal(folder)


def test_a_manifest_that_no_writer_ever_ends_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert "manifest.json: it is a named pipe, not a file" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"algorithm": "nonsense"}, "is computed by "),
        ({"chosen_by": "only", "algorithm": "nonsense"}, "is computed by "),
        ({"macs": -5}, "a kernel multiplies less than nothing"),
        ({"macs": 5}, "is computed by "),
    ],
    ids=str,
)
def test_a_manifest_tells_the_kernels_that_there_are(
    tiny_artifact: Make, change: dict[str, Any], reason: str
) -> None:
    folder = tiny_artifact()
    (entry,) = json.loads((folder / "manifest.json").read_text())["entries"]
    *others, last = entry["kernels"]
    edit_manifest(folder, entries=[{**entry, "kernels": [*others, {**last, **change}]}])
    with pytest.raises(UserError, match=reason):
        verify(folder)


@pytest.mark.parametrize("cores", [0, -3, "two"])
def test_a_number_of_cores_is_one_or_more(tiny_artifact: Make, cores: object) -> None:
    folder = tiny_artifact()
    target = json.loads((folder / "manifest.json").read_text())["target"]
    edit_manifest(folder, target={**target, "attrs": {**target["attrs"], "num-cores": cores}})
    assert "num-cores is no number from 1 on" in refusal(folder)


def test_only_code_for_a_gpu_has_cuda_graphs(tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    target = json.loads((folder / "manifest.json").read_text())["target"]
    edit_manifest(folder, target={**target, "graphs": True})
    assert "code for a CPU has CUDA graphs" in refusal(folder)


def test_an_artifact_may_lie_in_a_folder_whose_name_is_no_text(
    tiny: Program, tmp_path: Path, noise: Noise
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9") / "artifact"
    compile_tiny(folder, 1)
    x = noise(1, 3, 16, 16)
    expected = reference(tiny.graph, seeded(tiny.graph, 0))(x)["softmax1"]
    np.testing.assert_allclose(Session.load(folder).run(x), expected, rtol=1e-5, atol=1e-7)
    assert all(result.passed for result in verify(folder))


def test_two_artifacts_whose_paths_are_no_text_are_two(tmp_path: Path, noise: Noise) -> None:
    """A loader takes what has the path of a library for that library."""
    from vggc.program import load

    x, shapes = noise(1, 3, 16, 16), []
    for classes in (3, 4):
        (spec := tmp_path / "net.vgg").write_text(f"net n input 3x16x16 | fc-{classes}")
        program = load(str(spec))
        subject = from_spec(program, None, seed=0)
        rest = subject.weights, "seed 0", subject.preprocessing, ()
        folder = tmp_path / os.fsdecode(b"\xe9%d" % classes)
        build_artifact(Job(program.net, program.graph, resolve("cpu"), (1,), *rest), folder)
        shapes.append(Session.load(folder).run(x).shape)
    assert shapes == [(1, 3), (1, 4)]


def test_a_folder_without_manifest_and_a_file_are_no_artifacts(tmp_path: Path) -> None:
    assert "it has no manifest.json" in refusal(tmp_path)
    assert "there is no such folder" in refusal(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "it is a file" in refusal(tmp_path / "file")


def test_nothing_is_overwritten_and_nothing_left_half_written(tmp_path: Path) -> None:
    compile_tiny(tmp_path / "artifact", 1)
    with pytest.raises(UserError, match="exists already"):
        compile_tiny(tmp_path / "artifact", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
