"""The stages of compiling: what a watcher sees of them, what `--dump` writes, what is verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.nets import graph_of, program
from vggc.cli import cli
from vggc.compiler import listing
from vggc.compiler.dump import SECONDS
from vggc.compiler.pipeline import STAGES, require_countable
from vggc.kernels.workloads import Conv, Map
from vggc.plan.low_precision import in_format
from vggc.plan.plan import Plan, plan
from vggc.plan.verify import verify_plan
from vggc.program import load, zoo
from vggc.support.diagnostics import UserError

NET = """net small
input 3x16x16

every conv norm=batch
  conv3-8 | pool | add(skip, conv3-8 act=none) | gap | fc-5 | softmax
"""


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages made of a net."""
    folder = tmp_path_factory.mktemp("dump")
    (folder / "small.vgg").write_text(NET)
    arguments = [str(folder / "small.vgg"), "-o", str(folder / "a"), "--threads", "1", "--no-db"]
    arguments += ["--standalone"]
    done = CliRunner().invoke(cli, ["compile", *arguments, "--dump", str(folder / "d")])
    assert done.exit_code == 0, done.output
    return folder / "d"


def test_every_stage_is_timed_in_order(dumped: Path) -> None:
    lines = (dumped / SECONDS).read_text().splitlines()[2:]
    assert [line.split()[0] for line in lines] == [*STAGES, "all"]


def test_folders_are_numbered_as_the_stages_are(dumped: Path) -> None:
    for folder in dumped.iterdir():
        if folder.is_dir():
            number, _, name = folder.name.partition("-")
            assert STAGES[int(number) - 1] == name


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("01-fold/graph.txt", "conv1_1       Conv2d channels=8 kernel=3×3 padding=1×1"),
        ("01-fold/absorbed.txt", "conv1_1.norm"),
        ("12-export/small.c", '#include "net.c"'),
        ("03-plan/plan.txt", "Conv kernel=3×3 stride=1×1 padding=1×1 act=relu pool=True"),
        ("03-plan/plan.txt", "map 1×8×8×8 halo 1"),
        ("05-allot-error/error.txt", "The net may add 1e-05"),
        ("06-choose-kernels/choices.txt", "cost model"),
        ("07-lower/softmax_row.py", "def main("),
        ("09-convert-weights/weights.txt", "fc2.weight         5×8      float32"),
        ("10-generate/kernels.ll", "define"),
        ("11-pack/packed.txt", "fc2.weight"),
    ],
)
def test_what_a_stage_made_is_text(dumped: Path, file: str, said: str) -> None:
    assert said in (dumped / file).read_text("utf-8")


def test_nothing_is_written_over(dumped: Path, tmp_path: Path) -> None:
    spec, out = dumped.parent / "small.vgg", tmp_path / "artifact"
    arguments = ["compile", str(spec), "-o", str(out), "--dump", str(dumped)]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, UserError)
    assert not out.exists()


def test_no_dump_is_begun_where_there_is_no_room_for_the_artifact(
    dumped: Path, tmp_path: Path
) -> None:
    spec, dump = dumped.parent / "small.vgg", tmp_path / "stages"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    arguments = ["compile", str(spec), "-o", str(tmp_path / "taken"), "--dump", str(dump)]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, UserError)
    assert not dump.exists()


def test_no_dump_is_begun_where_nothing_can_be_linked(
    dumped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    spec, dump = dumped.parent / "small.vgg", tmp_path / "stages"
    arguments = ["compile", str(spec), "-o", str(tmp_path / "artifact"), "--dump", str(dump)]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, UserError)
    assert not dump.exists()


@pytest.mark.parametrize(("out", "dump"), [("a", "a/stages"), ("d/a", "d"), ("a", "b/../a")])
def test_dump_and_artifact_lie_apart(dumped: Path, tmp_path: Path, out: str, dump: str) -> None:
    spec = dumped.parent / "small.vgg"
    arguments = ["-o", str(tmp_path / out), "--dump", str(tmp_path / dump)]
    done = CliRunner().invoke(cli, ["compile", str(spec), *arguments])
    assert "lie one in the other" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is verified


@pytest.mark.parametrize("name", zoo())
def test_every_plan_of_the_zoo_is_sound(name: str) -> None:
    calls = plan(load(name).graph, 2, fuse_pools=True)
    for form in ("float32", "bfloat16", "uint8"):
        verify_plan(in_format(calls, form))


def other_halo(calls: Plan) -> Plan:
    first, second, *rest = calls.steps
    assert isinstance(second.workload, Conv)
    without = replace(second.workload.input, halo=0)
    return replace(
        calls,
        steps=(first, replace(second, workload=replace(second.workload, input=without)), *rest),
    )


def read_ahead(calls: Plan) -> Plan:
    first, second, *rest = calls.steps
    return replace(calls, steps=(first, replace(second, reads=(1,)), *rest))


def named_twice(calls: Plan) -> Plan:
    first, second, *rest = calls.steps
    return replace(calls, steps=(first, replace(second, name=first.name), *rest))


def other_output(calls: Plan) -> Plan:
    (output,) = calls.outputs
    return replace(calls, outputs=(replace(output, shape=(output.shape[0] + 1,)),))


@pytest.mark.parametrize("broken", [other_halo, read_ahead, named_twice, other_output])
def test_a_plan_that_contradicts_itself_is_found(broken: Callable[[Plan], Plan]) -> None:
    calls = plan(graph_of("conv3-8 | pool | fc-5"), 1)
    verify_plan(calls)
    with pytest.raises(AssertionError):
        verify_plan(broken(calls))


def test_layouts_in_words() -> None:
    assert listing.layout(Map(2, 5, 6, 7, halo=1, format="uint8", zero=128)) == (
        "map 2×5×6×7 halo 1 uint8 zero 128"
    )
    assert listing.layout((2, 10)) == "rows 2×10"
    assert program(NET).net.name in listing.graph(program(NET).graph)


def test_a_map_that_kernels_cannot_count_is_refused() -> None:
    calls = plan(graph_of("conv3-64", input_="3x224x224"), 1024)
    with pytest.raises(UserError) as caught:
        require_countable(calls)
    assert str(caught.value) == (
        "error: a map of `conv1_1` is too large for kernels\n"
        "  at batch 1024 it has 3,288,334,336 values, and kernels count up to 2,147,483,647\n"
        "  help: `--batch 668` fits"
    )
    require_countable(replace(calls, batch=1, steps=()))
