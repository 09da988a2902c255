"""Artifacts for GPUs, from the command line and on an emulated GPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers, run_python
from tests.support.emulated_gpu import compiled, vggc
from tests.support.nets import TINY
from vggc.runtime.artifact import read_manifest

pytestmark = [pytest.mark.slow, needs_compilers]

BATCHES = "1,3"


@dataclass(frozen=True)
class Made:
    """An artifact in `folder/art`, and what a process needs to run it on a GPU that knows it."""

    folder: Path
    environment: dict[str, str]

    @property
    def artifact(self) -> Path:
        return self.folder / "art"


def make(
    folder: Path,
    precision: str,
    image: Path,
    batches: str = BATCHES,
    *,
    graphs: bool = True,
    sizes: Sequence[str] = (),
) -> Made:
    net = folder / "tiny.vgg"
    net.write_text(TINY)
    images = image.parent if precision == "int8" else None
    source = compiled(str(net), precision, batches, folder, images, graphs=graphs, sizes=sizes)
    return Made(folder, gpu_on_cpu.environment(source, folder))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def made(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An artifact in float32, two of whose convolutions split their reductions."""
    found = make(tmp_path_factory.mktemp("float32"), "float32", image)
    kernels = read_manifest(found.artifact).entries[0].kernels
    assert sum(kernel.knobs.get("splits", 1) > 1 for kernel in kernels) >= 2
    return found


def verify_and_run(made: Made, image: Path) -> None:
    told = vggc(["verify", str(made.artifact), "--layers"], made.environment)
    assert ", batch 1: ok" in told
    assert ", batch 3: ok" in told
    assert "conv1_1" in told
    scores = vggc(["run", str(made.artifact), "--input", str(image), "--json"], made.environment)
    assert json.loads(scores)


def test_an_artifact_is_verified_and_run(made: Made, image: Path) -> None:
    verify_and_run(made, image)


@pytest.mark.parametrize(("precision", "graphs"), [("float16", True), ("int8", False)])
def test_so_is_one_in_fewer_bits(precision: str, graphs: bool, image: Path, tmp_path: Path) -> None:
    """With CUDA graphs, each of which replays what it has recorded, and without."""
    verify_and_run(make(tmp_path, precision, image, graphs=graphs), image)
    assert read_manifest(tmp_path / "art").target.graphs == graphs
    kinds = {line.split()[0] for line in gpu_on_cpu.launched(tmp_path)}
    assert kinds == ({"kernel", "capture", "graph"} if graphs else {"kernel"})


def test_so_is_one_for_crops_and_for_whole_images(image: Path, tmp_path: Path) -> None:
    """Whose fully-connected layers slide over the latter, with the same weights."""
    sizes = ["--input", "16", "--dense", "18x20"]
    found = make(tmp_path, "float32", image, "2", sizes=sizes)
    told = vggc(["verify", str(found.artifact)], found.environment)
    assert "random of 16×16: ok" in told
    assert "random of 18×20: ok" in told


SCRIPT = """
import numpy
from pathlib import Path
from vggc.runtime.session import Session
inputs = [*numpy.load("inputs.npz").values()]
sessions = [Session.load(Path("art")) for _ in range(2)]
lent = [(session, session.lent(x)) for x in inputs for session in sessions]
kept = [next(iter(session.outputs(x).values())) for session, x in lent]
numpy.savez("graphs.npz", *(output.numpy() for output in kept))
print("one by one", file=open("launched", "a"))
numpy.savez("kernels.npz", *(sessions[0].layers(x)[-1] for x in inputs))
"""


@pytest.fixture(scope="module")
def called(made: Made) -> list[str]:
    """What is launched by calls of two sessions in turn, of one image and of three, all of whose
    outputs are kept until the last one; and then, behind a line, by kernels one by one on the same
    images.
    """
    random = np.random.default_rng(0)
    sizes = (1, 3, 1, 3, 3, 1)
    inputs = [random.standard_normal((size, 3, 16, 16), np.float32) for size in sizes]
    np.savez(made.folder / "inputs.npz", *inputs)
    before = made.folder / "launched"
    before.unlink(missing_ok=True)
    run_python(SCRIPT, made.folder, made.environment)
    return gpu_on_cpu.launched(made.folder)


def test_graphs_answer_as_kernels_one_by_one(made: Made, called: list[str]) -> None:
    """Bit for bit, whichever batches are called in between, and without one output in the memory of
    another.
    """
    expected = [*np.load(made.folder / "kernels.npz").values()]
    assert all(np.isfinite(each).all() for each in expected)
    assert len({each.tobytes() for each in expected}) == len(expected)
    got = [*np.load(made.folder / "graphs.npz").values()]
    assert len(got) == 2 * len(expected)
    for index, each in enumerate(got):
        np.testing.assert_array_equal(each, expected[index // 2])


def test_each_session_records_a_graph_for_each_batch_and_replays_it(called: list[str]) -> None:
    end = called.index("one by one")
    graphs = [line for line in called[:end] if line != "kernel"]
    kernels = int(graphs[0].removeprefix("capture "))
    assert kernels > 8
    assert [line.split()[0] for line in graphs] == ["capture"] * 4 + ["graph"] * 8
    assert {*called[end + 1 :]} == {"kernel"}


def test_only_what_reads_the_input_or_writes_the_output_is_launched_by_itself(
    called: list[str],
) -> None:
    replayed = called[called.index("one by one") - 8 * 3 : called.index("one by one")]
    calls = [replayed[first : first + 3] for first in range(0, len(replayed), 3)]
    assert all(
        (first, graph.split()[0], last) == ("kernel", "graph", "kernel")
        for first, graph, last in calls
    )
