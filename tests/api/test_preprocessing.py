"""Where the preprocessing of weights comes from, and that all that reads pictures keeps to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggc_runtime
from tests.support.nets import program
from tests.support.runs import train
from tests.support.training_data import picture
from vggc.api.trained import PreprocessingOfRun, facts_of, from_run, from_spec
from vggc.backends.torch import reference
from vggc.features.read import read_features
from vggc.ir.weights import save, seeded
from vggc.preprocessing.presets import PRESETS
from vggc.program import Program, load
from vggc.support.diagnostics import UserError
from vggc.training.run import BEST, Run
from vggc.weight_files.diagnostics import WeightsUnreadable
from vggc.weight_files.facts import PREPROCESSING, WeightFacts, metadata_of

Here = Callable[..., tuple[object, str, str]]

NET = "net small input 3x16x16 conv3-4 | gap | fc-3"
APART = "net apart input 3x16x16 conv3-6 groups=3 | gap | fc-3"
"""A net that reads each colour apart: their order is no matter of weights."""

FILE = Path("w.safetensors")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, facts: WeightFacts | None = None) -> Program:
    """Writes weights of a net, with what the file says of them."""
    Path("net.vgg").write_text(text)
    net = program(text)
    save(FILE, seeded(net.graph, 3), metadata_of(facts) if facts else {})
    return net


def test_what_a_file_says_of_its_weights_counts() -> None:
    unit = PRESETS["unit"].at((3, 32, 32))
    net = write(NET, WeightFacts(unit, ("a", "b", "c")))
    subject = from_spec(net, FILE, 0)
    assert subject.preprocessing == PRESETS["unit"].at((3, 16, 16))
    assert subject.classes == ("a", "b", "c")
    assert subject.preprocessing_from == "preprocessing: that of w.safetensors"
    named = from_spec(net, FILE, 0, preprocessing="torchvision")
    assert named.preprocessing == PRESETS["torchvision"].at((3, 16, 16))


def test_what_is_assumed_is_said() -> None:
    net = write(NET)
    subject = from_spec(net, FILE, 0)
    assert subject.preprocessing == PRESETS["torchvision"].at((3, 16, 16))
    assert "torchvision's, assumed; `--preprocessing`" in subject.preprocessing_from
    assert from_spec(net, None, 0).preprocessing_from == ""  # random weights are of no pictures


def test_what_a_file_says_may_be_no_preprocessing() -> None:
    net = write(NET)
    save(FILE, seeded(net.graph, 3), {PREPROCESSING: '{"size": 3}'})
    with pytest.raises(UserError) as error:
        from_spec(net, FILE, 0)
    assert isinstance(error.value.diagnostic, WeightsUnreadable)


def test_the_weights_of_a_run_bring_its_preprocessing_with_them() -> None:
    train(Path("run"))
    run = Run.load(Path("run"))
    for path in (run.weights_path, Path("alone.safetensors")):
        save(path, seeded(load(str(run.net_path)).graph, 0))
    own = from_run(run, None)
    assert own.preprocessing_from == ""
    lent = from_spec(own.program, run.weights_path, 0)
    assert (lent.preprocessing, lent.classes) == (run.record.preprocessing, run.record.classes)
    for which in (None, BEST):
        with pytest.raises(UserError) as error:
            from_run(run, which, preprocessing="unit")
        assert isinstance(error.value.diagnostic, PreprocessingOfRun)
    foreign = from_run(run, Path("alone.safetensors"), preprocessing="unit")
    assert foreign.preprocessing == PRESETS["unit"].at(run.record.input)
    assert from_run(run, Path("alone.safetensors")).preprocessing == run.record.preprocessing


def wide() -> Image.Image:
    return Image.fromarray(picture(0, 1, 24, 40))


@pytest.mark.parametrize("text", [NET, APART], ids=["folded", "carried out"])
def test_features_are_those_of_pictures_as_keras_prepares_them(text: str, vggc_here: Here) -> None:
    net = write(text)
    Path("images/a").mkdir(parents=True)
    wide().save("images/a/x.png")
    given = ("features", "net.vgg", "--weights", FILE, "--data", "images", "-o", "f.npz")
    looks = ("--preprocessing", "keras", "--layer", "conv1_1", "--no-flip")
    code, _, error = vggc_here(*given, *looks)
    assert code == 0, error
    assert "preprocessing: keras's" in error
    x = PRESETS["keras"].at(net.graph.input).of_picture(wide())
    maps = reference(net.graph, seeded(net.graph, 3))(x)["conv1_1.relu"]
    wanted = maps.mean((2, 3))[0]
    found = read_features(Path("f.npz")).values[0]
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), rtol=1e-4)
    code, _, error = vggc_here(*given, *looks, "--scales", "32", "--overwrite")
    assert code == 2
    assert "`--scales` is of pictures that are cut" in error


def test_a_file_for_others_says_what_is_done(vggc_here: Here) -> None:
    write(NET)
    given = ("export", "net.vgg", "--weights", FILE, "--format", "torchvision", "-o", "x.st")
    code, out, error = vggc_here(*given, "--preprocessing", "keras")
    assert code == 0, error
    assert "resized to 16×16, whatever its proportion (nearest)" in out
    assert ", RGB" in out  # the first convolution has taken in the order


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_an_artifact_prepares_pictures_alike_in_python_and_c(order: str, vggc_here: Here) -> None:
    net = write(NET if order == "rgb" else APART)
    keys = {"preset": "caffe", "fit": "pad", "interpolation": "bicubic", "background": [9, 99, 200]}
    Path("how.json").write_text(json.dumps(keys))
    given = ("compile", "net.vgg", "--weights", FILE, "--preprocessing", "how.json", "-o", "a")
    code, _, error = vggc_here(*given)
    assert code == 0, error
    made = vggc_runtime.load("a")
    how = made.preprocessing
    assert (how.order, how.fit, how.background) == (order, "pad", (9, 99, 200))
    x = made.prepared(wide())
    assert (made._pinned.native.prepare(np.asarray(wide())) == x).all()
    of_file = reference(net.graph, seeded(net.graph, 3))
    head = net.graph.nodes[net.graph.heads[0].node].name
    wanted = of_file(x if order == "bgr" else x[:, ::-1].copy())[head]
    (found,) = made(x).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    code, out, error = vggc_here("verify", "a")
    assert code == 0, out + error


@pytest.mark.slow
def test_an_import_writes_down_what_somebody_names_or_its_file_tells(vggc_here: Here) -> None:
    write(NET)
    given = ("export", "net.vgg", "--weights", FILE, "--preprocessing", "unit", "-o", "x.onnx")
    code, _, error = vggc_here(*given)
    assert code == 0, error
    for options, told, name in (
        (("--preprocessing", "keras"), "preprocessing: keras's", "keras"),
        ((), "preprocessing: that of x.onnx", "unit"),
    ):
        code, _, error = vggc_here("import", "x.onnx", "-o", name, *options)
        assert code == 0, error
        assert told in error
        facts = facts_of(Path(f"{name}.safetensors"))
        assert facts.preprocessing == PRESETS[name].at((3, 16, 16))
