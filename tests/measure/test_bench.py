"""Other engines on the same net: they agree, they are timed in turn, and none is lost silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support.nets import program
from vggc.backends.torch import reference
from vggc.cli import cli
from vggc.cli.bench import ENGINES
from vggc.ir.weights import seeded
from vggc.measure import bench as module
from vggc.measure import engines as peers
from vggc.measure.bench import Timing, bench, default_peers
from vggc.measure.engines import PEERS, Peer, Setup, peer_name
from vggc.measure.verify import relative_error
from vggc.passes.fold import fold
from vggc.runtime.artifact import read_manifest
from vggc.support.diagnostics import CheckFailed, UserError
from vggc.support.precision import ArtifactPrecision

Make = Callable[..., Path]
Noise = Callable[..., np.ndarray]

NET = """
net mixed
input 3x20x24

  conv5-8 stride=2 norm=batch | conv3-16 | pool3 stride=2 padding=1
| concat(conv1-8, conv3-8)
| conv3-16 act=leaky | conv3-32 | fc-40
| fc-10 | softmax
"""


SLOW = {"torch-compile"}


@pytest.mark.parametrize(
    ("name", "batch"),
    [(name, batch) for name in PEERS for batch in (1, 3) if name not in SLOW]
    + [pytest.param(name, 3, marks=pytest.mark.slow) for name in SLOW],
)
def test_a_peer_computes_the_same_net(
    name: str, batch: int, tmp_path: Path, noise: Noise, capfd: pytest.CaptureFixture[str]
) -> None:
    """Silently, in float32 to the last digits, and in its own memory."""
    peer = PEERS[name]
    if needed := peers.missing_module(name):
        pytest.skip(f"{needed} is not installed")
    graph = program(NET).graph
    expected = reference(graph, seeded(graph, 0))(x := noise(batch, 3, 20, 24))["softmax1"]
    folded = fold(graph)
    weights = folded.weights(seeded(graph, 0))
    folder = tmp_path / "conversions"
    folder.mkdir()
    setup = Setup(folded.graph, weights, x, 1, "cpu", folder, images=noise(4, 3, 20, 24))
    run = peers.start(name, setup)
    first = run()
    assert first.shape == expected.shape
    assert first.dtype == np.float32
    bound = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.5}[peer.precision]
    assert relative_error(first, expected) < bound
    kept = first.copy()
    first[:] = np.nan
    np.testing.assert_allclose(run(), kept, rtol=1e-6)
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"conversions"}


def test_engines_take_turns_and_every_round_counts(tiny_artifact: Make) -> None:
    timing = bench(tiny_artifact(), ["torch", "onnxruntime"], threads=1, rounds=3)
    assert list(timing.milliseconds) == ["vggc", "torch", "onnxruntime"]
    assert all(len(times) == 3 for times in timing.milliseconds.values())
    assert all(0 < error < 1e-4 for error in timing.errors.values())
    assert timing.missing == {}


def test_a_ratio_is_vggcs_median_over_the_engines() -> None:
    timing = Timing(Path("artifact"), 2, 1, {"vggc": (3.0, 100.0, 4.0), "torch": (8.0, 7.0, 9.0)})
    assert timing.medians == {"vggc": 4.0, "torch": 8.0}
    assert timing.ratios == {"torch": 0.5}


def test_a_timing_is_shown_as_a_table_that_names_the_missing() -> None:
    times = {"vggc": (3.0, 4.0), "torch": (8.0, 8.0)}
    timing = Timing(Path("a"), 2, 8, times, {"torch": 1e-6}, {"<MNN>": "`import MNN` fails"})
    assert repr(timing).splitlines() == [
        "a: batch 8, 2 interleaved rounds, 2 threads",
        "engine  median ms      range ms  vggc / engine  scores differ by",
        "vggc         3.50  3.00 to 4.00",
        "torch        8.00  8.00 to 8.00           0.44           1.0e-06",
        "<MNN> is not timed: `import MNN` fails",
    ]
    assert "&lt;MNN&gt; is not timed" in timing._repr_html_()


# ---------------------------------------------------------------- engines that cannot


def broken(_: Setup) -> peers.Engine:
    raise ValueError("no such layer\nat line 3")


def wrong(setup: Setup) -> peers.Engine:
    shape = setup.main[1]
    return lambda: np.ones(shape, np.float32)


@pytest.fixture
def bad_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "absent", Peer(("no_such_module",), broken, ""))
    monkeypatch.setitem(PEERS, "broken", Peer((), broken, ""))
    monkeypatch.setitem(PEERS, "wrong", Peer((), wrong, ""))
    monkeypatch.setitem(PEERS, "gpu", Peer((), wrong, "", devices=("cuda",)))


@pytest.mark.usefixtures("bad_peers")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "absent",
            "error: cannot time against absent: it is not installed\n"
            "  `import no_such_module` fails\n"
            "  help: pip install 'vggc[bench]'",
        ),
        (
            "broken",
            "error: broken cannot compute this net here\n"
            "  ValueError: no such layer\n"
            "  help: leave broken out of --against",
        ),
        (
            "gpu",
            "error: gpu cannot use cpu here\n"
            "  the artifact runs on cpu, and a peer on another device is no comparison\n"
            "  help: leave gpu out of --against, or install its build for cpu",
        ),
        (
            "torhc",
            "error: cannot time against `torhc`\n  unknown engine\n  help: did you mean `torch`?",
        ),
    ],
)
def test_an_engine_that_was_named_and_cannot_run_is_a_mistake(
    tiny_artifact: Make, name: str, text: str
) -> None:
    with pytest.raises(UserError) as caught:
        bench(tiny_artifact(), [name], threads=1, rounds=1)
    assert str(caught.value) == text


def test_an_engine_that_quantises_asks_for_images(tiny_artifact: Make) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    with pytest.raises(UserError) as caught:
        bench(tiny_artifact(), ["openvino-int8"], threads=1, rounds=1)
    assert str(caught.value) == (
        "error: openvino-int8 needs images to take the ranges of activations from\n"
        "  it quantises the net after training\n"
        "  help: give a folder of a few hundred: `--calibrate DIR`"
    )


@pytest.mark.usefixtures("bad_peers")
def test_an_engine_with_another_output_is_not_timed(tiny_artifact: Make) -> None:
    with pytest.raises(CheckFailed, match="wrong gives another output: relative L2 difference"):
        bench(tiny_artifact(), ["wrong"], threads=1, rounds=1)


Change = Callable[[np.ndarray], np.ndarray]


def shifted_scores(size: float) -> Change:
    """Scores, behind a soft-max, that are off by a share of their spread."""

    def change(probabilities: np.ndarray) -> np.ndarray:
        scores = np.log(probabilities)
        scores -= scores.mean(1, keepdims=True)
        off = np.random.default_rng(1).standard_normal(scores.shape)
        off -= off.mean(1, keepdims=True)
        scores += size * off * np.linalg.norm(scores) / np.linalg.norm(off)
        power = np.exp(scores - scores.max())
        return np.float32(power / power.sum(1, keepdims=True))

    return change


WRONG = {
    "always the same": lambda y: np.full_like(y, 1 / y.shape[1]),
    "other classes": lambda y: y[:, ::-1],
    "other images": lambda y: y[::-1],
    "not a number": lambda y: np.full_like(y, np.nan),
    "nothing": np.zeros_like,
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("change", "timed"),
    [
        *(pytest.param(change, (), id=name) for name, change in WRONG.items()),
        pytest.param(shifted_scores(0.5), (), id="half off"),
        pytest.param(shifted_scores(0.1), ("int8",), id="as far off as int8"),
        pytest.param(shifted_scores(0.02), ("bfloat16", "int8"), id="as far off as bfloat16"),
        pytest.param(shifted_scores(1e-6), ("float32", "bfloat16", "int8"), id="rounded"),
    ],
)
def test_whoever_computes_something_else_is_not_timed_in_any_precision(
    precision: ArtifactPrecision, change: Change, timed: tuple[str, ...]
) -> None:
    """What is compared is in the precision of both, so the tolerance is of the artifact's."""
    manifest = SimpleNamespace(precision=precision)
    scores = 3 * np.random.default_rng(0).standard_normal((2, 10))
    expected = np.float32(np.exp(scores) / np.exp(scores).sum(1, keepdims=True))
    if precision in timed:
        module._compared("torch", change(expected), expected, manifest, of_softmax=True)
    else:
        with pytest.raises(CheckFailed, match="torch gives another output"):
            module._compared("torch", change(expected), expected, manifest, of_softmax=True)


class Tired(Exception):
    pass


@pytest.mark.parametrize("calls", [1, 2, 5, 6])
def test_an_engine_that_fails_later_does_not_end_the_others(
    calls: int, tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts, is compared, warms up thrice and takes part in the rounds, until it fails."""
    left = iter(range(calls))

    def start(setup: Setup) -> peers.Engine:
        run = PEERS["torch"].start(setup)

        def tiring() -> np.ndarray:
            if next(left, None) is None:
                raise Tired("out of memory\nsomewhere")
            return run()

        return tiring

    monkeypatch.setitem(PEERS, "tiring", Peer((), start, ""))
    timing = bench(tiny_artifact(), ["tiring", "torch"], threads=1, rounds=3, lenient=True)
    assert {name: len(times) for name, times in timing.milliseconds.items()} == {
        "vggc": 3,
        "torch": 3,
    }
    assert timing.errors.keys() == {"torch"}
    assert timing.missing == {"tiring": "tiring cannot compute this net here: Tired: out of memory"}
    left = iter(range(calls))
    with pytest.raises(UserError, match="tiring cannot compute this net here"):
        bench(tiny_artifact(name="again"), ["tiring"], threads=1, rounds=3)


@pytest.mark.usefixtures("bad_peers")
def test_a_lenient_run_names_whom_it_leaves_out_and_why(tiny_artifact: Make) -> None:
    names = ["absent", "broken", "wrong", "gpu", "torch"]
    timing = bench(tiny_artifact(), names, threads=1, rounds=1, lenient=True)
    assert set(timing.milliseconds) == {"vggc", "torch"}
    assert timing.missing["absent"] == "`import no_such_module` fails"
    assert timing.missing["broken"] == (
        "broken cannot compute this net here: ValueError: no such layer"
    )
    assert timing.missing["gpu"].startswith("gpu cannot use cpu here")
    assert timing.missing["wrong"].startswith("wrong gives another output")


@pytest.mark.usefixtures("bad_peers")
def test_the_command_tells_whom_it_leaves_out(
    tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "default_peers", lambda _: ["torch", "absent"])
    arguments = ["bench", str(tiny_artifact()), "--rounds", "1", "--threads", "1"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "torch" in done.stdout
    assert "absent is not timed: `import no_such_module` fails" in done.stderr
    assert "pip install 'vggc[bench]'" in done.stderr


def test_help_names_every_engine() -> None:
    assert ENGINES.split(", ") == list(PEERS)


def test_the_precision_of_an_engine_may_be_told_in_another_word(
    tiny_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS, "torch-bfloat16", PEERS["torch"])
    arguments = ["bench", str(tiny_artifact()), "--rounds", "1", "--threads", "1"]
    arguments += ["--against", "torch-bf16"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "torch-bfloat16" in done.stdout


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ncnn-bf16", "ncnn-bfloat16"),
        ("openvino-bf16", "openvino-bfloat16"),
        ("openvino-bfloat16", "openvino-bfloat16"),
        ("mnn-small-tiles", "mnn-small-tiles"),
        ("mnn-bf16", "mnn-bf16"),  # there is none: it is named as it was asked for
    ],
)
def test_what_an_engine_is_called(text: str, name: str) -> None:
    assert peer_name(text) == name


def test_unasked_an_artifact_meets_the_engines_of_its_kind(tiny_artifact: Make) -> None:
    names = default_peers(read_manifest(tiny_artifact()))
    assert names == ["torch", "onnxruntime", "openvino", "mnn", "ncnn"]


# ---------------------------------------------------------------- images


def test_images_are_the_input_where_they_are_given(
    tiny_artifact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / "images", []
    folder.mkdir()
    for name, grey in (("b.png", 0), ("a.png", 255)):
        Image.new("RGB", (20, 30), (grey, grey, grey)).save(folder / name)
    monkeypatch.setitem(
        PEERS, "spy", Peer((), lambda setup: seen.append(setup) or broken(setup), "")
    )
    bench(tiny_artifact(3), ["spy"], 1, 1, images=folder, lenient=True)
    (setup,) = seen
    assert setup.images.shape == (2, 3, 16, 16)
    assert setup.images[0].mean() > setup.images[1].mean()
    assert np.array_equal(setup.x, setup.images[[0, 1, 0]])


def test_a_folder_without_images_is_a_mistake(tiny_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no images in"):
        bench(tiny_artifact(), ["torch"], 1, 1, images=tmp_path / "none")


def test_the_result_as_json(tiny_artifact: Make) -> None:
    arguments = ["bench", str(tiny_artifact()), "--against", "torch", "--rounds", "2", "--json"]
    result = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout)
    circumstances = {"archs", "batch", "threads", "rounds"}
    assert set(result) == {"median_ms", "ratio", "difference", "missing"} | circumstances
    assert set(result["difference"]) == set(result["ratio"]) == {"torch"}
