"""`import vggc`: light, typed, documented, and with the mistakes of the command line."""

from __future__ import annotations

import ast
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vggc
from vggc.support.sheet import Sheet, as_html, as_text
from vggc.training.progress import EpochDone, Event

HEAVY = ("torch", "tvm", "onnx", "numpy", "lark", "rich", "click", "PIL", "typing", "dataclasses")

TWO_HEADS = """
net two
input 3x8x8

  conv3-4 | pool

head classes: fc-3 | softmax
head box: boxes
"""

TRAINED = """
net trained
input 3x8x8

  conv3-4 | pool | fc-3 | softmax

train {
  batch 4
  epochs 2
  sgd lr=0.05
  constant
  init he
}
"""


@pytest.fixture
def artifact(compiled_tiny: Callable[[int], Path]) -> vggc.Artifact:
    """The tiny net, (3, 16, 16) to ten classes, two images at once."""
    return vggc.open_artifact(compiled_tiny(2))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of each of three classes; the name of one is hostile."""
    for label, name in enumerate(("a", "b", "<b>c")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(6):
            pixels = np.random.default_rng([label, index]).integers(0, 128, (8, 8, 3))
            pixels[:, :, label] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


# ---------------------------------------------------------------- what importing it costs


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import vggc, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_net_is_loaded_without_what_only_runs_or_trains() -> None:
    heavy = ("torch", "tvm", "onnx", "rich", "click")
    code = (
        "import vggc, sys; vggc.load('vgg16').report()._repr_html_(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_use_cases_load_their_libraries_when_they_are_carried_out() -> None:
    folder = Path(vggc.__file__).with_name("api")
    modules = ", ".join(f"vggc.api.{path.stem}" for path in sorted(folder.glob("[a-z]*.py")))
    heavy = ("torch", "tvm", "onnx", "click", "rich")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_what_it_offers_is_listed_and_what_it_lacks_is_told() -> None:
    assert dir(vggc) == sorted(vggc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        vggc.laod  # noqa: B018


# ---------------------------------------------------------------- types and docstrings


def test_types_and_table_name_the_same_things() -> None:
    """What mypy and editors see is what there is."""
    tree = ast.parse(Path(vggc.__file__).read_text("utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == vggc._PLACES


def public() -> Iterator[tuple[str, object]]:
    """Every name that `import vggc` gives, and the methods and properties of its classes."""
    for name in vggc._PLACES:
        value = getattr(vggc, name)
        yield name, value
        if inspect.isclass(value):
            for part, member in vars(value).items():
                if not part.startswith("_") or part == "__call__":
                    yield f"{name}.{part}", member


def function_in(value: object) -> object:
    """What is called, of a property what gives its value."""
    return getattr(value, "fget", None) or getattr(value, "func", value)


PUBLIC = {
    name: function_in(value)
    for name, value in public()
    if inspect.isfunction(function_in(value)) or inspect.isclass(value)
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", [n for n, v in PUBLIC.items() if inspect.isfunction(v)])
def test_every_public_function_is_typed(name: str) -> None:
    signature = inspect.signature(PUBLIC[name])
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.name == "self" or parameter.annotation is not signature.empty


def test_its_types_are_shipped() -> None:
    assert Path(vggc.__file__).with_name("py.typed").is_file()


# ---------------------------------------------------------------- nets


def test_a_net_is_a_file_a_name_of_the_zoo_or_a_text(tmp_path: Path) -> None:
    (tmp_path / "two.vgg").write_text(TWO_HEADS)
    assert vggc.load(tmp_path / "two.vgg").outputs == {"classes": (3,), "box": (4,)}
    assert vggc.load("vgg11_bn(width=0.125)", size=(64, 96)).input == (3, 64, 96)
    assert vggc.load("vgg11", changes=["lr=0.5"]).program.recipe.optimiser.lr == 0.5
    assert vggc.from_text(TWO_HEADS).text == vggc.load(tmp_path / "two.vgg").text
    assert vggc.zoo()[0] == "vgg11"


def test_a_module_has_the_weights_of_its_seed_or_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net, x = vggc.from_text(TRAINED), torch.ones(2, 3, 8, 8)
    module = net.module(seed=3)
    assert not module.training
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    assert torch.equal(net.module(tmp_path / "weights.safetensors")(x), module(x))
    assert not torch.equal(net.module(seed=0)(x), module(x))
    with pytest.raises(vggc.UserError, match="draws random weights"):
        net.module(tmp_path / "weights.safetensors", seed=3)


def test_random_weights_that_nobody_asked_for_are_warned_of(tmp_path: Path) -> None:
    net = vggc.from_text(TRAINED)
    with pytest.warns(UserWarning, match="trained has no weights yet") as told:
        assert torch.equal(net.module()(torch.ones(1, 3, 8, 8)), same_of_seed(net))
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="has no weights yet") as told:
        vggc.compile(net, out=tmp_path / "artifact")
    assert (len(told), told[0].filename) == (1, __file__)


def same_of_seed(net: vggc.Network) -> torch.Tensor:
    """What a net of seed 0 gives of ones."""
    found: torch.Tensor = net.module(seed=0)(torch.ones(1, 3, 8, 8))
    return found


# ---------------------------------------------------------------- notebooks

HOSTILE = "<script>alert(1)</script>\x1b[2J"


def test_what_comes_from_files_is_escaped() -> None:
    sheet = Sheet(HOSTILE, (HOSTILE,), ((HOSTILE,),), (False,), (HOSTILE,))
    assert "<script" not in as_html(sheet)
    assert "\x1b" not in as_html(sheet) + as_text(sheet)
    assert as_html(sheet).count("&lt;script&gt;alert(1)&lt;/script&gt;�[2J") == 4


def test_reprs_of_predictions_are_escaped() -> None:
    prediction = vggc.Prediction(HOSTILE, ((HOSTILE, 0.75), ("other", 0.25)))
    assert "<script" not in prediction._repr_html_()
    assert "\x1b" not in repr(prediction)
    assert prediction.label == HOSTILE
    assert prediction.probability == 0.75


def test_nets_show_a_table_and_a_picture() -> None:
    net = vggc.from_text(TWO_HEADS)
    for shown in (net, net.report(), net.graph):
        assert "conv" in shown._repr_html_()
        assert 'style="white-space: pre; text-align: left"' in shown._repr_html_()
    assert net.picture()._repr_svg_().startswith("<?xml")
    assert repr(net.picture()).startswith("<NetPicture, ")
    assert "\nconv1_1           conv3-4  " in repr(net.report())
    assert repr(net) == "<Network two: 3×8×8 → 3 and 4, 567 parameters>"


def test_a_picture_is_saved_as_the_command_draws_it(
    tmp_path: Path, vggc_here: Callable[..., tuple[object, str, str]]
) -> None:
    (tmp_path / "two.vgg").write_text(TWO_HEADS)
    picture = vggc.load(tmp_path / "two.vgg").picture()
    for name in ("mine.svg", "mine.png"):
        picture.save(tmp_path / name)
        vggc_here("draw", tmp_path / "two.vgg", "-o", tmp_path / f"its-{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"its-{name}").read_bytes()
    with pytest.raises(vggc.UserError, match="exists already"):
        picture.save(tmp_path / "mine.svg")
    with pytest.raises(vggc.UserError, match="no picture that vggc draws"):
        picture.save(str(tmp_path / "mine.pdf"))


# ---------------------------------------------------------------- other tools, and tuning


def test_a_net_is_exported_as_the_command_does(
    tmp_path: Path, vggc_here: Callable[..., tuple[object, str, str]]
) -> None:
    (tmp_path / "net.vgg").write_text(TRAINED)
    net = vggc.load(tmp_path / "net.vgg")
    made = vggc.export(net, tmp_path / "mine", format="torchvision", seed=3)
    options = ("--format", "torchvision", "--seed", 3)
    vggc_here("export", tmp_path / "net.vgg", "-o", tmp_path / "its", *options)
    assert made.read_bytes() == (tmp_path / "its").read_bytes()
    with pytest.warns(UserWarning, match="has no weights yet") as told:
        assert vggc.export(net, str(tmp_path / "net.onnx")) == tmp_path / "net.onnx"
    assert told[0].filename == __file__
    with pytest.raises(vggc.UserError, match="did you mean `onnx`"):
        vggc.export(net, tmp_path / "other", format="onxx")  # type: ignore[arg-type]


def test_what_tuning_cannot_do_is_told(tmp_path: Path) -> None:
    net = vggc.from_text("net one input 3x8x8 gap | fc-4")
    with pytest.raises(vggc.UserError, match="go together"):
        vggc.tune(net, rpc="localhost:9190")
    with pytest.raises(vggc.CheckFailed, match="the budget ended before the first"):
        vggc.tune(net, db=tmp_path / "db", budget=1e-9)


@pytest.mark.slow
def test_what_is_tuned_is_compiled(tmp_path: Path) -> None:
    net, said = vggc.from_text("net one input 3x8x8 gap | fc-4"), []
    tuned = vggc.tune(
        net, db=tmp_path / "db", budget=300, on_progress=lambda course, doing: said.append(doing)
    )
    assert tuned.db == tmp_path / "db"
    assert tuned.measured > 0
    assert "measuring fc1" in said
    assert "fc1" in tuned._repr_html_()
    artifact = vggc.compile(net, out=tmp_path / "artifact", db=tuned.db, seed=0)
    assert "measurement" in [kernel.chosen_by for kernel in artifact.manifest.largest.kernels]
    assert vggc.tune(net, db=tuned.db, budget=300).measured == 0


# ---------------------------------------------------------------- arrays


def aligned(x: np.ndarray) -> np.ndarray:
    """The same numbers where TVM can read them."""
    room = np.zeros(x.size + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    found = room[start : start + x.size].reshape(x.shape)
    found[...] = x
    return found


def test_any_array_of_images_gives_the_same(
    artifact: vggc.Artifact, noise: Callable[..., np.ndarray]
) -> None:
    x = noise(2, 3, 16, 16)
    frozen = x.copy()
    frozen.flags.writeable = False
    every_other = np.repeat(x, 2, axis=3)[..., ::2]
    wanted = artifact(x)
    assert wanted.shape == (2, 10)
    for same in (aligned(x), frozen, np.asfortranarray(x), every_other):
        np.testing.assert_array_equal(artifact(same), wanted)
    for tensor in (torch.from_numpy(x), torch.from_numpy(np.asfortranarray(x)).detach()):
        np.testing.assert_array_equal(artifact(tensor), wanted)


def test_any_number_of_images_is_computed_in_batches(
    artifact: vggc.Artifact, noise: Callable[..., np.ndarray]
) -> None:
    x = noise(5, 3, 16, 16)
    one_by_one = np.concatenate([artifact(x[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(artifact(x), one_by_one)
    np.testing.assert_array_equal(artifact(torch.from_numpy(x)), one_by_one)


def test_a_whole_batch_is_read_where_it_lies(
    artifact: vggc.Artifact, noise: Callable[..., np.ndarray]
) -> None:
    x = aligned(noise(2, 3, 16, 16))
    tensor = torch.zeros(2, 3, 16, 16)
    assert np.shares_memory(np.from_dlpack(artifact.session.lent(x)), x)
    assert np.from_dlpack(artifact.session.lent(tensor)).ctypes.data == tensor.data_ptr()
    before = x.copy()
    artifact(x)
    np.testing.assert_array_equal(x, before)


def test_what_it_gives_stays_when_it_is_called_again(
    artifact: vggc.Artifact, noise: Callable[..., np.ndarray]
) -> None:
    first = artifact(noise(2, 3, 16, 16))
    kept = first.copy()
    artifact(np.ones((2, 3, 16, 16), np.float32))
    np.testing.assert_array_equal(first, kept)


GOOD = np.zeros((2, 3, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("x", "given", "hint"),
    [
        (GOOD[0], "float32 of shape (3, 16, 16)", "`x[None]`"),
        (GOOD.astype(float), "float64 of shape (2, 3, 16, 16)", "`x.float()`"),
        (GOOD.astype(">f4"), ">f4 of shape (2, 3, 16, 16)", "`x.astype(numpy.float32)`"),
        (GOOD.astype(np.uint8), "uint8 of shape (2, 3, 16, 16)", "`predict` takes images"),
        (GOOD.transpose(0, 2, 3, 1), "float32 of shape (2, 16, 16, 3)", "channels come first"),
        (
            GOOD[:, :, :8],
            "float32 of shape (2, 3, 8, 16)",
            "`--input 16,8x16` is for those of this size",
        ),
        (GOOD[:0], "float32 of shape (0, 3, 16, 16)", "no image in it"),
        (torch.from_numpy(GOOD).double(), "float64 of shape (2, 3, 16, 16)", "`x.float()`"),
        (torch.zeros(2, 3, 16, 16, requires_grad=True), "a Tensor", "`x.detach()"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.bfloat16), "a Tensor", ".float()"),
        (GOOD.tolist(), "a list", "`numpy.asarray(x, numpy.float32)`"),
        (None, "a NoneType", "`numpy.asarray(x, numpy.float32)`"),
        ("cat.png", "a str", "`predict` takes images and the paths of images"),
        (Path("cat.png"), "a PosixPath", "`predict` takes images and the paths of images"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_array_of_images_is_told(
    artifact: vggc.Artifact, x: object, given: str, hint: str
) -> None:
    with pytest.raises(vggc.UserError) as caught:
        artifact(x)
    text = str(caught.value)
    assert f"  it is {given}" in text
    assert "and the net takes float32 of shape (N, 3, 16, 16)" in text
    assert hint in text


def test_a_net_of_several_heads_gives_each(
    tmp_path: Path, noise: Callable[..., np.ndarray]
) -> None:
    net = vggc.from_text(TWO_HEADS)
    artifact = vggc.compile(net, out=tmp_path / "two", batch=2, seed=1)
    x = noise(3, 3, 8, 8)
    found = artifact.run_all(x)
    assert {name: value.shape for name, value in found.items()} == {
        "classes": (3, 3),
        "box": (3, 4),
    }
    np.testing.assert_array_equal(artifact(x), found["classes"])
    wanted = net.module(seed=1)(torch.from_numpy(x))
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name].detach(), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- images


def test_images_of_pillow_are_seen_as_their_files(artifact: vggc.Artifact, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 24, 4), np.uint8)
    clear = Image.fromarray(pixels)
    clear.save(tmp_path / "clear.png")
    turned = Image.fromarray(pixels[:, :, :3])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    names = [tmp_path / "clear.png", tmp_path / "turned.png"]
    by_path = artifact.predict(names)
    by_image = artifact.predict([clear, Image.open(names[1])])
    assert [each.best for each in by_path] == [each.best for each in by_image]
    assert by_path[0].image == str(names[0])
    assert by_image[0].image == "RGBA image of 24×30"
    assert artifact.predict(str(names[0]), top=2).best == by_path[0].best[:2]
    assert artifact.predict([]) == []


def test_every_image_that_cannot_be_read_is_named(artifact: vggc.Artifact, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("none")
    closed = Image.new("RGB", (2, 999))
    with pytest.raises(vggc.UserError) as caught:
        artifact.predict([tmp_path / "text.png", tmp_path / "gone.png", closed])
    assert len(caught.value.diagnostics) == 3
    assert "text.png" in str(caught.value)
    assert "gone.png" in str(caught.value)
    assert "too long and narrow" in str(caught.value)


def test_the_command_says_the_same(
    artifact: vggc.Artifact,
    tmp_path: Path,
    vggc_here: Callable[..., tuple[object, str, str]],
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 24, 3), np.uint8)).save(path)
    _, out, _ = vggc_here("predict", artifact.path, path, "--top", 1)
    best = artifact.predict(path, top=1)
    assert out == f"{path}\n  {best.label}  {best.probability:.4f}\n"


def test_an_artifact_is_held_to_its_net(artifact: vggc.Artifact) -> None:
    verdict = artifact.verify()
    assert verdict.passed
    assert verdict.fault is None
    assert "china.jpg" in verdict._repr_html_()


def test_an_artifact_is_timed_beside_the_engines_that_are_installed(
    artifact: vggc.Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggc.measure.bench.default_peers", lambda manifest: ["torch"])
    assert [*artifact.bench(rounds=1).milliseconds] == ["vggc", "torch"]
    assert [*artifact.bench("torch", rounds=1).milliseconds] == ["vggc", "torch"]
    assert [*artifact.bench([], rounds=1).milliseconds] == ["vggc"]


# ---------------------------------------------------------------- training


def test_a_run_is_trained_tested_and_compiled(photos: Path, tmp_path: Path) -> None:
    net = vggc.from_text(TRAINED)
    run = vggc.train(net, data=photos, out=tmp_path / "run", seed=1, workers=0)
    assert run.record.state == "finished"
    assert run.path == tmp_path / "run"
    assert [epoch.epoch for epoch in run.history] == [1, 2]
    assert run.best in run.history
    assert run.classes == ("<b>c", "a", "b")
    assert run.net.outputs == {"output": (3,)}
    scores = vggc.evaluate(run, photos, workers=0)
    assert scores.num_images == 18
    assert scores.centre
    assert "<b>" not in run._repr_html_() + scores._repr_html_()
    seen = run.predict(photos / "a" / "0.png", top=3)
    artifact = vggc.compile(run, out=tmp_path / "artifact")
    assert artifact.classes == run.classes
    found = artifact.predict(photos / "a" / "0.png", top=3)
    assert "<b>" not in found._repr_html_()
    assert [name for name, _ in found.best] == [name for name, _ in seen.best]
    np.testing.assert_allclose([p for _, p in found.best], [p for _, p in seen.best], rtol=1e-4)


def test_ctrl_c_saves_and_is_raised_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, EpochDone):
            signal.raise_signal(signal.SIGINT)

    net = vggc.from_text(TRAINED)
    with pytest.raises(KeyboardInterrupt):
        vggc.train(net, data=photos, out=tmp_path / "run", workers=0, on_progress=interrupt)
    assert vggc.open_run(tmp_path / "run").record.state == "interrupted"
    run = vggc.train(resume=tmp_path / "run", workers=0)
    assert (run.record.state, len(run.history)) == ("finished", 2)
    assert vggc.train(resume=run, workers=0).history == run.history


def test_a_run_takes_images_as_an_artifact_does(photos: Path, tmp_path: Path) -> None:
    net = vggc.from_text(TRAINED)
    run = vggc.train(net, data=photos, out=tmp_path / "run", seed=1, workers=0)
    path = photos / "a" / "0.png"
    image, grey = Image.open(path), Image.open(path).convert("L")
    one, other, third = run.predict([image, str(path), grey], top=2)
    for same in (one, other):
        assert dict(same.best) == pytest.approx(dict(run.predict(path, top=2).best))
    assert (one.image, other.image, third.image) == (str(path), str(path), "L image of 8×8")
    assert third.best != one.best
    assert run.predict([]) == []
    with pytest.raises(vggc.UserError) as caught:
        run.predict([tmp_path / "gone.png", Image.new("RGB", (2, 999))])
    assert len(caught.value.diagnostics) == 2


def test_a_net_of_a_run_has_the_weights_of_the_run(photos: Path, tmp_path: Path) -> None:
    net = vggc.from_text(TRAINED)
    run = vggc.train(net, data=photos, out=tmp_path / "run", seed=1, workers=0)
    x = torch.ones(1, 3, 8, 8)
    loaded, wanted = vggc.load(run.path), run.module()(x)
    for same in (loaded, run.net, loaded.with_recipe("lr=0.5")):
        assert torch.equal(same.module()(x), wanted)
    assert torch.equal(loaded.module("best")(x), run.module("best")(x))
    of_run = vggc.compile(run, out=tmp_path / "of-run")
    of_net = vggc.compile(loaded, out=tmp_path / "of-net")
    assert of_net.manifest == of_run.manifest
    with pytest.raises(vggc.UserError, match="draws random weights"):
        loaded.module(seed=1)
    with pytest.raises(vggc.UserError, match="weights"):
        loaded.with_input(16, 16).module()


def test_a_net_of_a_run_takes_its_weights_to_another_size(photos: Path, tmp_path: Path) -> None:
    net = vggc.from_text(TRAINED.replace("| pool |", "| gap |"))
    run = vggc.train(net, data=photos, out=tmp_path / "run", seed=1, workers=0)
    sized = vggc.compile(run.net.with_input(16, 12), out=tmp_path / "sized")
    same = vggc.compile(run, size=(16, 12), out=tmp_path / "same")
    assert sized.manifest == same.manifest
    assert sized.input == (3, 16, 12)


def test_a_thread_trains_too(photos: Path, tmp_path: Path) -> None:
    """No signal reaches it."""
    runs: list[vggc.TrainingRun] = []

    def train() -> None:
        net = vggc.from_text(TRAINED)
        runs.append(vggc.train(net, data=photos, out=tmp_path / "run", workers=0))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert runs[0].record.state == "finished"


def test_a_training_that_diverges_says_so(photos: Path, tmp_path: Path) -> None:
    net = vggc.from_text(TRAINED)
    with pytest.raises(vggc.UserError, match="loss"):
        vggc.train(net, data=photos, out=tmp_path / "run", workers=0, lr=1000)
    assert vggc.open_run(tmp_path / "run").record.state == "stopped"


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_those_of_the_command_line(
    tmp_path: Path, vggc_here: Callable[..., tuple[object, str, str]]
) -> None:
    (tmp_path / "wrong.vgg").write_text("net wrong input 3x8x8\nconf3-8 | pol\n")
    with pytest.raises(vggc.UserError) as caught:
        vggc.load(tmp_path / "wrong.vgg")
    error = caught.value
    assert error.diagnostic is error.diagnostics[0]
    assert isinstance(error.diagnostic, vggc.Diagnostic)
    _, _, told = vggc_here("check", tmp_path / "wrong.vgg")
    assert str(error).splitlines() == [line for line in told.splitlines() if line]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: vggc.load("vgg61"), "no such file: vgg61"),
        (lambda: vggc.open_run("."), "is not the folder of a training run"),
        (lambda: vggc.open_artifact("nowhere"), "nowhere is not an artifact"),
        (lambda: vggc.train(), "needs a net"),
        (lambda: vggc.evaluate("nowhere"), "is not the folder of a training run"),
        (lambda: vggc.compile("vgg16", precision="int8"), "int8"),
        (lambda: vggc.compile("tiny_vgg", weights="best"), "best"),
    ],
    ids=["load", "open_run", "open_artifact", "train", "evaluate", "compile", "weights"],
)
def test_what_is_not_there_is_told(make: Callable[[], object], text: str) -> None:
    with pytest.raises(vggc.UserError) as caught:
        make()
    assert text in str(caught.value)


def test_a_net_that_is_loaded_twice_compiles_to_the_same(tmp_path: Path) -> None:
    """Compiling folds weights where they lie; nobody else's are touched."""
    net = vggc.from_text(TRAINED.replace("conv3-4", "conv3-4 norm=batch"))
    first = vggc.compile(net, out=tmp_path / "first", seed=0)
    second = vggc.compile(net, out=tmp_path / "second", seed=0)
    assert first.manifest.files == second.manifest.files
