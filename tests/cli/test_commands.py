"""The command line as a person meets it: exit codes, streams, what is written and what not."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support.training_data import TINY, write_images
from vggc import __version__
from vggc.cli import COMMANDS, cli
from vggc.cli.version import everything
from vggc.program import zoo
from vggc.support.resources import resource

Make = Callable[..., Path]
Here = Callable[..., tuple[object, str, str]]


class Vggc:
    """Runs `vggc` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vggc", *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def vggc(tmp_path: Path) -> Vggc:
    folder = tmp_path / "work"
    folder.mkdir()
    return Vggc(folder)


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        (["train", ""], "train"),
        (["train", "vgg16", "--data", ""], "--data"),
        (["eval", "run", "--data="], "--data"),
    ],
)
def test_an_empty_argument_is_not_this_folder(
    vggc_here: Here, arguments: list[str], before: str
) -> None:
    code, out, error = vggc_here(*arguments)
    assert (code, out) == (2, "")
    assert f"nothing is given after `{before}`" in error


def test_a_spec_without_its_ending_is_found_out(
    vggc_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.vgg").write_text("net mine\n")
    monkeypatch.chdir(tmp_path)
    code, _, error = vggc_here("summary", "mine")
    assert code == 2
    assert "did you mean `mine.vgg`?" in error


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(vggc: Vggc, name: str) -> None:
    text = vggc(name, "--help").stdout
    assert text.startswith(f"Usage: python -m vggc {name}")
    described = [line for line in text.splitlines() if line.startswith("  ")]
    assert len(described) > 2


def test_help_lists_every_command(vggc: Vggc) -> None:
    text = vggc("--help").stdout
    assert all(name in text for name in COMMANDS)


def test_an_unknown_command_is_a_mistake_with_exit_2(vggc: Vggc) -> None:
    assert "No such command 'sumary'" in vggc("sumary", code=2).stderr


HEAVY = {"torch", "tvm", "onnx", "onnxruntime", "sklearn", "matplotlib", "PIL"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["summary", "vgg19"], ["check", "vgg16"], ["zoo"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from vggc.cli import main\n"
        f"sys.argv = ['vggc', *{arguments!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    print('heavy:', sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stderr


# ---------------------------------------------------------------- check and fmt


def test_check_names_each_good_net(vggc: Vggc) -> None:
    text = vggc("check", *(resource("zoo", f"{name}.vgg") for name in zoo())).stdout
    assert text.count(": ok, net ") == len(zoo())


def test_check_reports_every_file_before_it_leaves(vggc: Vggc) -> None:
    (vggc.folder / "a.vgg").write_text("net a input 3x8x8 conw3-8")
    (vggc.folder / "b.vgg").write_text("net b input 3x8x8 pool-2")
    done = vggc("check", "a.vgg", "vgg16", "b.vgg", "c.vgg", code=2)
    assert "a.vgg:1:19" in done.stderr
    assert "b.vgg:1:24" in done.stderr
    assert "no such file: c.vgg" in done.stderr
    assert done.stdout == "vgg16: ok, net vgg16, 24 layers\n"


def test_check_reads_the_recipe(vggc: Vggc) -> None:
    (vggc.folder / "a.vgg").write_text("net a input 3x8x8 fc-10 train { bach 8 }")
    assert "did you mean `batch`?" in vggc("check", "a.vgg", code=2).stderr


def test_the_zoo_is_formatted(vggc: Vggc) -> None:
    vggc("fmt", "--check", *(resource("zoo", f"{name}.vgg") for name in zoo()))


def test_fmt_writes_the_canonical_form_and_check_only_shows_it(vggc: Vggc) -> None:
    path = vggc.folder / "a.vgg"
    path.write_text("net a input 3x8x8 conv3-8 x2|pool # why\n")
    shown = vggc("fmt", "--check", "a.vgg", code=1)
    assert "+  conv3-8 ×2 | pool  # why" in shown.stdout
    assert path.read_text().startswith("net a input")
    vggc("fmt", "a.vgg")
    assert path.read_text() == "net a\ninput 3x8x8\n\n  conv3-8 ×2 | pool  # why\n"
    vggc("fmt", "--check", "a.vgg")


def test_fmt_leaves_a_file_alone_that_somebody_saves_meanwhile(
    vggc_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggc.syntax import format

    (file := tmp_path / "a.vgg").write_text("net a input 3x8x8 fc-2")
    saved, real = "net a input 3x8x8 fc-3", format.format_net

    def while_somebody_saves(net: object) -> str:
        file.write_text(saved)
        return real(net)  # type: ignore[arg-type]

    monkeypatch.setattr(format, "format_net", while_somebody_saves)
    code, _, stderr = vggc_here("fmt", file)
    assert (code, file.read_text()) == (2, saved)
    assert "it has been changed meanwhile" in stderr


def test_of_two_drawings_of_one_name_the_second_is_refused(
    vggc_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggc.pictures import svg

    out, real = tmp_path / "a.svg", svg.as_svg

    def while_another_draws(picture: object) -> str:
        out.write_text("the other's")
        return real(picture)  # type: ignore[arg-type]

    monkeypatch.setattr(svg, "as_svg", while_another_draws)
    code, _, stderr = vggc_here("draw", "vgg11", "-o", out)
    assert (code, out.read_text()) == (2, "the other's")
    assert "exists already" in stderr


def test_fmt_leaves_a_broken_file_alone(vggc: Vggc) -> None:
    path = vggc.folder / "a.vgg"
    path.write_text("net a input 3x8x8 conv3-8 pool")
    assert "two layers with no `|`" in vggc("fmt", "a.vgg", code=2).stderr
    assert path.read_text() == "net a input 3x8x8 conv3-8 pool"


# ---------------------------------------------------------------- summary


def test_summary_as_json_has_its_documented_form(vggc: Vggc) -> None:
    report = json.loads(vggc("summary", "vgg16", "--format", "json").stdout)
    assert report["net"] == "vgg16"
    assert report["input"] == [3, 224, 224]
    assert report["totals"]["params"] == 138_357_544
    assert report["totals"]["macs"] == 15_470_264_320
    keys = [
        "name",
        "kind",
        "output_shape",
        "params",
        "macs",
        "activation_bytes",
        "receptive_field",
        "stride",
    ]
    assert all(set(keys) <= layer.keys() for layer in report["layers"])
    assert sum(layer["params"] for layer in report["layers"]) == report["totals"]["params"]
    (pool5,) = [layer for layer in report["layers"] if layer["name"] == "pool5"]
    assert (pool5["receptive_field"], pool5["stride"]) == (212, 32)


def test_summary_of_nothing_is_the_zoo(vggc: Vggc) -> None:
    rows = list(csv.DictReader(vggc("summary", "--format", "csv").stdout.splitlines()))
    assert [row["net"] for row in rows] == zoo()


def test_summary_takes_another_input(vggc: Vggc) -> None:
    text = vggc("summary", "vgg11", "--input", "64x96", "--format", "json").stdout
    report = json.loads(text)
    (pool5,) = [layer for layer in report["layers"] if layer["name"] == "pool5"]
    assert pool5["output_shape"] == [512, 2, 3]


def test_summary_of_an_input_that_is_too_small_points_at_the_layer(vggc: Vggc) -> None:
    text = vggc("summary", "vgg11", "--input", "16", code=2).stderr
    assert "`pool` does not fit here" in text
    assert "2×2 window is larger than the 1×1 map" in text


def test_summary_as_markdown_is_a_table(vggc: Vggc) -> None:
    lines = vggc("summary", "vgg11", "--format", "markdown").stdout.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


# ---------------------------------------------------------------- compile, run, verify, bench


@pytest.mark.slow
def test_the_way_from_a_spec_to_an_answer(vggc: Vggc, tiny_file: Path) -> None:
    done = vggc("compile", tiny_file, "-o", "art")
    assert "random ones of seed 0" in done.stderr
    assert "next: vggc verify art" in done.stderr
    assert "ok" in vggc("verify", "art").stdout
    Image.new("RGB", (40, 30), (200, 30, 60)).save(vggc.folder / "red.png")
    top = vggc("run", "art", "--input", "red.png").stdout.splitlines()
    assert len(top) == 5
    assert top[0].startswith("  class ")
    result = json.loads(vggc("bench", "art", "--rounds", 2, "--json").stdout)
    assert {"vggc", "torch", "onnxruntime"} <= set(result["median_ms"])
    assert set(result["ratio"]) == set(result["median_ms"]) - {"vggc"}
    medians = result["median_ms"]
    assert result["ratio"]["torch"] == pytest.approx(medians["vggc"] / medians["torch"])


def test_verify_leaves_with_1_and_a_name_when_a_layer_departs(
    vggc: Vggc, tiny_artifact: Make
) -> None:
    """An artifact whose library computes another net than its spec says."""
    folder = tiny_artifact()
    from vggc.runtime.artifact import Manifest, entry
    from vggc.support.records import from_json

    spec = folder / "net.vgg"
    spec.write_text(spec.read_text().replace("lrn", "lrn alpha=1"))
    manifest = json.loads((folder / "manifest.json").read_text())
    now = entry(spec)
    manifest["files"]["net.vgg"] = {"sha256": now.sha256, "bytes": now.bytes}
    manifest["sha256"] = from_json(Manifest, manifest).digest
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = vggc("verify", folder, code=1)
    assert "the first layer that departs is lrn1" in done.stderr


def test_run_refuses_what_is_no_input(vggc: Vggc, tiny_artifact: Make) -> None:
    folder = tiny_artifact()
    (vggc.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    np.save(vggc.folder / "shape.npy", np.zeros((3, 8, 8), np.float32))
    np.save(vggc.folder / "nan.npy", np.full((3, 16, 16), np.nan, np.float32))
    np.save(vggc.folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    reasons = {
        "none.png": "there is no such file",
        "broken.png": "not an image",
        "shape.npy": "of shape (3, 8, 8), and the net takes 3×16×16",
        "nan.npy": "not finite",
        "objects.npy": "not a .npy file of numbers",
    }
    for name, reason in reasons.items():
        assert reason in vggc("run", folder, "--input", name, code=2).stderr


def test_compile_without_a_spec_says_that_there_is_no_run(vggc: Vggc) -> None:
    assert "vggc train" in vggc("compile", code=2).stderr


@pytest.mark.parametrize("target", ["cud", "opencl", "nvidia/nvidia-h1000"])
def test_an_unknown_target_is_a_mistake(vggc_here: Here, tmp_path: Path, target: str) -> None:
    artifact = tmp_path / "art"
    code, _, error = vggc_here("compile", "vgg11", "--target", target, "-o", artifact)
    assert code == 2
    assert f"unknown target `{target}`" in error
    assert not artifact.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--mcpu", "haswel"), "name one such as `haswell`"),
        (("--mcpu", "pentium4"), "unknown CPU `pentium4`"),
        (("--mcpu", "znver4", "--target", "cuda"), "`--target cpu --mcpu znver4`"),
    ],
)
def test_a_cpu_that_there_is_none_of_is_a_mistake(
    vggc_here: Here, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    artifact = tmp_path / "art"
    code, _, error = vggc_here("compile", "vgg11", *options, "-o", artifact)
    assert code == 2
    assert told in error
    assert not artifact.exists()


@pytest.mark.parametrize("command", ["run", "verify", "bench"])
def test_more_threads_than_processors_are_a_mistake(vggc_here: Here, command: str) -> None:
    """They would wait for each other, for minutes."""
    too_many = (os.cpu_count() or 1) + 1
    code, _, error = vggc_here(command, "artifact", "--threads", too_many)
    assert code == 2
    assert f"{too_many} threads are too many: this machine has " in error


def test_compile_says_how_to_tune_what_was_compiled(vggc_here: Here, tmp_path: Path) -> None:
    spec, folder = tmp_path / "a net.vgg", tmp_path / "an artifact"
    spec.write_text("net deep input 3x16x16\n conv3-16")
    options = ["--batch", "2", "--input", "12x14", "--mcpu", "haswell", "--max-error", "1e-06"]
    code, _, told = vggc_here("compile", spec, *options, "--threads", 1, "-o", folder)
    assert code == 0
    assert (
        f"`vggc tune '{spec}' --mcpu haswell --batch 2 --input 12x14 --max-error 1e-06 "
        "--threads 1` measures"
    ) in told
    assert f"vggc verify '{folder}'" in told


@pytest.fixture(scope="module")
def trained_at_8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose net takes images of any size, trained at 8×8 of scale 10."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images", ("red", "green", "blue"), 6)
    text = TINY.replace("pool |", "gap |").replace("batch 4", "batch 4; scale 10")
    text = text.replace("epochs 3", "epochs 1")
    (folder / "tiny.vgg").write_text(text)
    arguments = ["train", str(folder / "tiny.vgg"), "--data", str(folder / "images")]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(folder / "run")])
    assert done.exit_code == 0, done.output
    return folder


def test_images_reach_a_run_of_another_input_in_proportion(
    vggc_here: Here, trained_at_8: Path, tmp_path: Path
) -> None:
    """A circle stays one."""
    folder = tmp_path / "artifact"
    code, _, told = vggc_here("compile", trained_at_8 / "run", "--input", "16", "-o", folder)
    assert code == 0
    assert "for 16×16 their shorter side is brought to 20 pixels, as to 10 for 8×8" in told
    preprocessing = json.loads((folder / "manifest.json").read_text())["preprocessing"]
    assert (preprocessing["size"], preprocessing["scale"]) == ([16, 16], 20)
    assert "scale 20" in (folder / "net.vgg").read_text()


def test_a_run_is_tuned_as_compile_recommends(
    vggc_here: Here, trained_at_8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs", "one").symlink_to(trained_at_8 / "run")
    _, _, told = vggc_here("compile", "--threads", 1, "-o", "artifact")
    assert "`vggc tune runs/one --threads 1` measures" in told
    code, _, told = vggc_here(
        *("tune", "runs/one", "--threads", 1, "--budget", "1s", "--db", "database")
    )
    assert code == 0, told


def test_a_net_over_whole_images_is_tuned_as_compile_recommends(
    vggc_here: Here, tmp_path: Path
) -> None:
    """Its kernels are those of the artifact, not those of its own input."""
    spec = tmp_path / "boxes.vgg"
    spec.write_text("net boxed input 3x8x8\n conv3-8 | boxes")
    how = ["--dense", "12x9", "--threads", 1]
    code, _, told = vggc_here("compile", spec, *how, "-o", tmp_path / "artifact")
    assert code == 0
    assert f"`vggc tune {spec} --dense 12x9 --threads 1` measures" in told
    shared = ["--db", tmp_path / "database"]
    code, _, told = vggc_here("tune", spec, *how, "--budget", "2s", *shared)
    assert code == 0, told
    for size, some in ((how, True), (how[2:], False)):
        folder = tmp_path / f"{some}"
        code, out, _ = vggc_here("compile", spec, *size, *shared, "--json", "-o", folder)
        assert code == 0
        assert (json.loads(out)["tuned"] > 0) == some


def test_tune_refuses_images_that_a_net_does_not_fit_into(vggc_here: Here, tmp_path: Path) -> None:
    spec = tmp_path / "boxes.vgg"
    spec.write_text("net boxed input 3x8x8\n conv3-8 | boxes")
    code, _, told = vggc_here("tune", spec, "--dense", "7x9", "--db", tmp_path / "database")
    assert code == 2
    assert "images of 7×9 pixels are smaller than what boxed takes, 8×8" in told
    assert not (tmp_path / "database").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--target", "cuda", "--precision", "tf32"),
        ("--precision", "bfloat16", "--mcpu", "znver4"),
    ],
    ids=["tf32", "bfloat16"],
)
def test_an_error_that_decides_nothing_is_a_mistake(
    vggc_here: Here, tmp_path: Path, options: tuple[str, ...]
) -> None:
    arguments = ["compile", "vgg11", "--max-error", "1e-6", *options, "-o", tmp_path / "art"]
    code, _, error = vggc_here(*arguments)
    assert code == 2
    assert "`--max-error` has nothing to say here" in error


@pytest.mark.parametrize("error", ["nan", "inf", "-1e-9", "1.1", "little"])
@pytest.mark.parametrize("command", ["compile", "tune"])
def test_an_error_that_is_no_share_is_a_mistake(vggc_here: Here, command: str, error: str) -> None:
    code, _, told = vggc_here(command, "vgg11", f"--max-error={error}")
    assert code == 2
    assert f"'{error}' is no number from 0 to 1" in told


def test_a_cuda_artifact_holds_machine_code_and_asks_for_a_gpu(vggc: Vggc, tiny_file: Path) -> None:
    made = vggc("compile", tiny_file, "--target", "cuda", "--arch", "sm_80,sm_90", "-o", "art")
    assert "kernel calls in CUDA graphs for sm_80, sm_90" in made.stdout
    library = (vggc.folder / "art" / "lib.so").read_bytes()
    fatbin_magic = (0xBA55ED50).to_bytes(4, "little")
    assert fatbin_magic in library
    assert b"__global__" not in library
    np.save(vggc.folder / "x.npy", np.zeros((3, 16, 16), np.float32))
    done = vggc("run", "art", "--input", "x.npy", code=2)
    assert "code for sm_80 and sm_90 GPUs" in done.stderr


def test_bench_knows_its_peers(vggc_here: Here, tiny_artifact: Make) -> None:
    code, _, error = vggc_here("bench", tiny_artifact(), "--against", "torhc")
    assert code == 2
    assert "did you mean `torch`?" in error


def test_export_overwrites_nothing(vggc: Vggc, tiny_file: Path) -> None:
    vggc("export", tiny_file, "-o", "tiny.onnx")
    before = (vggc.folder / "tiny.onnx").read_bytes()
    assert "exists already" in vggc("export", tiny_file, "-o", "tiny.onnx", code=2).stderr
    assert (vggc.folder / "tiny.onnx").read_bytes() == before


def test_import_writes_a_net_and_its_weights_and_compares_them(
    vggc_here: Here, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vggc_here("export", tiny_file, "-o", "net.onnx")[0] == 0
    code, told, _ = vggc_here("import", "net.onnx", "-o", "got.vgg")
    assert code == 0
    assert told.startswith("got.vgg: ")
    assert "beside onnxruntime" in told
    assert "relative L2" in told
    assert sorted(path.name for path in tmp_path.glob("got*")) == ["got.safetensors", "got.vgg"]
    assert vggc_here("import", "net.onnx", "-o", "got")[0] == 2


@pytest.mark.parametrize("command", [["compile", "-o", "art"], ["export", "-o", "a.onnx"]])
def test_a_net_that_no_memory_holds_is_a_mistake(vggc: Vggc, command: list[str]) -> None:
    (vggc.folder / "big.vgg").write_text("net big input 3x2048x2048 fc-1000000 ×3 | fc-10")
    text = vggc(*command, "big.vgg", code=2).stderr
    assert "too large for this machine" in text
    assert [path.name for path in vggc.folder.iterdir()] == ["big.vgg"]


def test_a_report_of_a_fault_begins_with_what_this_tells() -> None:
    told = CliRunner().invoke(cli, ["--version", "--verbose"])
    assert told.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in told.output.splitlines())
    assert lines["vggc"] == __version__
    assert lines["torch"] == version("torch")
    assert lines.keys() >= {"Python", "CPU", "instructions", "memory", "GPUs", "apache-tvm"}


def test_gpus_are_told_as_their_driver_does(tmp_path: Path) -> None:
    folder = tmp_path / "proc/driver/nvidia"
    (folder / "gpus/0000:01:00.0").mkdir(parents=True)
    (folder / "gpus/0000:01:00.0/information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    (folder / "version").write_text("NVRM version: NVIDIA UNIX Kernel Module  570.86.15  Thu\n")
    told = dict(everything(tmp_path))
    assert told["GPUs"] == "NVIDIA H200, driver 570.86.15"
    assert told["CPU"].startswith("unknown")


def test_verbose_alone_is_a_mistake() -> None:
    assert CliRunner().invoke(cli, ["--verbose", "zoo"]).exit_code == 2
