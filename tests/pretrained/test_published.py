"""`imagenet` where weights are named: predicting, compiling, beginning a training with them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vggc
import vggc.program as programs
from tests.support.nets import program
from tests.support.weight_site import WeightSite, published, serving
from vggc.api.first_weights import published_layers, taken_weights
from vggc.api.published import hint_at, published_for
from vggc.evaluation.class_match import ClassMatch, match_classes
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, save, seeded
from vggc.preprocessing.presets import PRESETS
from vggc.pretrained import table
from vggc.pretrained.diagnostics import NoPublishedWeights, PublishedMisfit
from vggc.pretrained.facts import class_names, facts_of, wordnet_numbers
from vggc.pretrained.table import CLASSES, MEAN, PUBLISHED, STD
from vggc.program import Program, from_zoo, load, zoo
from vggc.recipe.train import InitFrom
from vggc.support.diagnostics import UserError
from vggc.training.run import Run
from vggc.weight_files.facts import WeightFacts, metadata_of
from vggc.weight_files.load import load as load_weights
from vggc_runtime.preprocessing import Preprocessing

Here = Callable[..., tuple[object, str, str]]

TABBY = 281
NET = "squeezenet"


def of_tabbies(graph: Graph) -> Weights:
    """Weights by which a net takes every picture for a tabby: `conv4_5` gives its scores."""
    weights = seeded(graph, 0)
    weights["conv4_5.weight"] *= 0
    weights["conv4_5.bias"][:] = 0
    weights["conv4_5.bias"][TABBY] = 10
    return weights


def content_of(weights: Weights) -> bytes:
    """A PyTorch file of these weights."""
    room = io.BytesIO()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, room)
    return room.getvalue()


@pytest.fixture(scope="module")
def weights() -> Weights:
    return of_tabbies(from_zoo(NET).graph)


@pytest.fixture
def site(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightSite]:
    """SqueezeNet's weights on a site on this machine, in place of the published ones."""
    content = content_of(weights)
    row = published(NET, content)
    monkeypatch.setitem(dict_of(PUBLISHED), NET, row)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with serving(WeightSite({row.file: content})) as site:
        monkeypatch.setenv("VGGC_WEIGHTS_URL", site.url)
        yield site


def dict_of(mapping: Mapping[str, object]) -> dict[str, object]:
    assert isinstance(mapping, dict)
    return mapping


def photos(folder: Path, classes: int = 2, each: int = 4) -> Path:
    """A folder of class folders of noise."""
    drawn = np.random.default_rng(0)
    for name in "abcdef"[:classes]:
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = drawn.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


# One line


def test_predict_names_what_it_sees_and_fetches_once(site: WeightSite, vggc_here: Here) -> None:
    picture = photos(Path("photos")) / "a" / "0.png"
    arguments = ("predict", NET, "--weights", "imagenet", picture, "--device", "cpu")
    code, out, error = vggc_here(*arguments)
    assert code == 0, error
    assert out.splitlines()[1].split() == ["tabby", "0.9566"]  # e¹⁰ / (e¹⁰ + 999)
    assert f"Fetching {site.url}/" in error
    code, again, error = vggc_here(*arguments)
    assert (code, again) == (0, out), error
    assert len(site.asked) == 1
    assert error.splitlines()[1:] == [
        "preprocessing: that of torchvision's IMAGENET1K_V1 of squeezenet"
    ]
    for words, told in (
        (("squeznet", picture), "the net `squeezenet`?"),
        (arguments[1:2], "`imagenet`?"),
    ):
        code, _, error = vggc_here("predict", *words, picture, "--weights", "imagnet")
        assert code == 2
        assert f"did you mean {told}" in error


def test_eval_knows_the_names_of_the_classes(site: WeightSite, vggc_here: Here) -> None:
    photos(Path("photos"))
    Path("photos/a").rename("photos/tabby")
    Path("photos/b").rename("photos/tench")
    arguments = ("eval", NET, "--weights", "imagenet", "--protocol", "centre", "--json")
    code, out, error = vggc_here(*arguments, "--data", "photos", "--device", "cpu")
    assert code == 0, error
    assert json.loads(out)["runs"][0]["top1_error"] == 0.5
    code, _, error = vggc_here(*arguments)
    assert code == 2
    assert "`squeezenet` is no run, which would have held images out" in error


def test_eval_takes_folders_of_imagenet(site: WeightSite, vggc_here: Here) -> None:
    """A few of the classes, by numbers in WordNet and by names, are looked for among all."""
    photos(Path("photos"), 3)
    for before, after in {"a": "n02123045", "b": "n01440764", "c": "English_Springer"}.items():
        Path("photos", before).rename(Path("photos", after))
    arguments = ("eval", NET, "--weights", "imagenet", "--protocol", "centre", "--json")
    code, out, error = vggc_here(*arguments, "--data", "photos", "--device", "cpu")
    assert code == 0, error
    assert json.loads(out)["runs"][0]["top1_error"] == pytest.approx(2 / 3)
    assert (
        "Classes are known by WordNet's numbers and ImageNet's names: English_Springer is English "
        "springer, n01440764 is tench, n02123045 is tabby."
    ) in error
    assert "The images are of 3 of the 1,000 classes that the net chooses among." in error
    Path("photos/n02123045").rename("photos/tabbi")
    code, _, error = vggc_here(*arguments, "--data", "photos", "--device", "cpu")
    assert code == 2
    assert "holds classes that are none of ImageNet's thousand: tabbi" in error
    assert "did you mean `tabby`?" in error


# What classes are called


def test_classes_are_matched_as_imagenets_where_a_net_knows_no_others() -> None:
    assert [*wordnet_numbers()] == sorted({*wordnet_numbers()})
    assert wordnet_numbers()[TABBY] == "n02123045"
    names, numbers = class_names(), wordnet_numbers()
    assert match_classes(("cat", "dog"), ("dog", "cat"), is_named=True) == ClassMatch((1, 0))
    of_all = match_classes(("n02123045", "Cardigan", "cardigan", "CARDIGAN"), names, is_named=True)
    assert of_all.numbers == (TABBY, names.index("Cardigan"), names.index("cardigan"), -1)
    of_some = match_classes(("tabby", "tench"), (numbers[TABBY], numbers[5]), is_named=True)
    assert of_some.numbers == (0, -1)
    assert match_classes(("tabby",), ("mine", numbers[TABBY]), is_named=True).numbers == (-1,)
    unnamed = tuple(f"class {index}" for index in range(CLASSES))
    assumed = match_classes(("n02123045", "class 1"), unnamed, is_named=False)
    assert assumed.numbers == (TABBY, -1)
    assert assumed.told.endswith("order is assumed.")
    assert match_classes(("tabby",), unnamed[:10], is_named=False).numbers == (-1,)


# Looking into a net


def test_a_page_tells_how_a_net_sees_a_picture(site: WeightSite, vggc_here: Here) -> None:
    picture = photos(Path("photos"), 1, 1) / "a" / "0.png"
    arguments = ("inspect", NET, picture, "--weights", "imagenet", "--device", "cpu")
    code, _, error = vggc_here(*arguments, "--layer", "conv9_9")
    assert (code, site.asked) == (2, []), error
    code, out, error = vggc_here(*arguments, "--sections", "image", "--class", "n01440764")
    assert code == 0, error
    assert out.startswith("inspect-squeezenet-0.html: squeezenet gives tench 0.0%")
    page = Path("inspect-squeezenet-0.html").read_text("utf-8")
    assert "torchvision's IMAGENET1K_V1 of squeezenet" in unescape(page)
    assert "tabby" in page


def test_in_python_a_net_has_them_and_knows_their_classes(
    site: WeightSite, weights: Weights
) -> None:
    photos(Path("photos"), 1, 1)
    net = vggc.load(NET, weights="imagenet")
    assert net.predict("photos/a/0.png").label == "tabby"
    assert net.classes == class_names()
    assert net.preprocessing == facts_of(PUBLISHED[NET]).preprocessing
    picture = torch.from_numpy(net.preprocessing.read(Path("photos/a/0.png")))
    assert int(net.module()(picture).argmax()) == TABBY
    assert torch.equal(
        net.module().state_dict()["conv4_5.bias"], torch.from_numpy(weights["conv4_5.bias"])
    )
    assert len(site.asked) == 1
    with pytest.raises(UserError, match="nobody has published weights for tiny_vgg"):
        vggc.load("tiny_vgg", weights="imagenet")
    with pytest.raises(UserError, match="cannot read the weights in gone"):
        vggc.load(NET, weights="gone.pth")


# Beginning a training


@pytest.mark.slow
def test_a_training_begins_with_published_weights(
    site: WeightSite, weights: Weights, vggc_here: Here
) -> None:
    """Pictures have the mean and deviation that the weights know, and the last layer begins anew
    for other classes.
    """
    photos(Path("photos"))
    arguments = ("--data", "photos", "--epochs", 1, "--set", "sgd.lr=1e-12", "--device", "cpu")
    changes = ("--batch", 4, "--input", 64, "--set", "sgd.weight-decay=0", "--out", "run")
    code, _, error = vggc_here("train", NET, "--init-from", "imagenet", *arguments, *changes)
    assert code == 0, error
    assert "weights: torchvision's IMAGENET1K_V1 of squeezenet; `conv4_5` begins anew" in error
    run = Run.load(Path("run"))
    assert run.record.recipe["init-from"] == "imagenet"
    assert run.record.recipe["init-from.layers"] == "conv1_1..fire9_conv2"
    assert (run.record.preprocessing.mean, run.record.preprocessing.std) == (MEAN, STD)
    assert run.record.classes == ("a", "b")
    trained = load_weights(run.weights_path, load("run/net.vgg").graph).weights
    for name, tensor in trained.items():
        if not name.startswith("conv4_5"):
            np.testing.assert_allclose(tensor, weights[name], atol=1e-6, err_msg=name)
    code, _, error = vggc_here("train", "--resume", "run", "--epochs", 2)
    assert code == 0, error


def test_a_recipe_may_name_published_weights_and_layers(site: WeightSite, vggc_here: Here) -> None:
    photos(Path("photos"))
    text = "net mine from squeezenet\ntrain { init-from imagenet layers=conv1_1 }"
    Path("mine.vgg").write_text(text)
    code, _, error = vggc_here(
        "train", "mine.vgg", "--data", "photos", "--epochs", 1, "--batch", 4, "--input", 64,
        "--device", "cpu", "--out", "run",
    )  # fmt: skip
    assert code == 0, error
    assert "It begins with 2 weights of " in error


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("net a from vgg16", ("conv1_1..fc8",)),
        ("net a from vgg16(classes=10)", ("conv1_1..fc7",)),
        ("net a from vgg16_gap(classes=10)", ("conv1_1..conv5_3",)),
        ("net a from vgg16\nreplace conv2_1 with conv5-128", ("conv1_1..conv1_2", "conv2_2..fc8")),
    ],
)
def test_layers_that_are_alike_begin_with_published_weights(
    spec: str, layers: tuple[str, ...]
) -> None:
    net = program(spec)
    assert published_layers(net, net.graph) == layers


# Which nets have such


def test_a_net_that_builds_on_one_takes_its_weights_where_all_fit() -> None:
    assert published_for(program("net mine from vgg16\ntrain { epochs 1 }")) == PUBLISHED["vgg16"]
    assert published_for(load("resnet18")).net == "resnet18"
    resized = Program(load("resnet18").net)
    assert published_for(resized.replace(programs.with_input(resized.net, (96, 64))))


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("tiny_vgg", NoPublishedWeights, "builds on none"),
        ("vgg16(classes=10)", PublishedMisfit, "`fc8.weight` has the shape 10×4096"),
        ("vgg16_1x1", PublishedMisfit, "in vgg16"),
        ("vgg16_gap", PublishedMisfit, "`cam.weight`"),
    ],
)
def test_others_have_none_and_are_told_why(
    spec: str, kind: type[NoPublishedWeights | PublishedMisfit], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        published_for(load(spec))
    found = caught.value.diagnostics[0]
    assert isinstance(found, kind)
    assert words in found.reason


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "vgg16",
            "weights are published: top-1 71.59 %, top-5 90.38 % on ImageNet; "
            "`vggc predict vgg16 --weights imagenet IMAGE` takes them",
        ),
        (
            "vgg16(classes=10)",
            "weights of vgg16 are published, which layers that are alike can begin with: "
            "`vggc train 'vgg16(classes=10)' --init-from imagenet`",
        ),
        ("tiny_vgg", ""),
    ],
)
def test_a_summary_says_that_weights_are_published(spec: str, told: str) -> None:
    assert hint_at(spec, load(spec)) == told


def test_each_row_is_of_a_net_of_the_zoo_for_pictures_of_its_size() -> None:
    for net, row in PUBLISHED.items():
        assert net in zoo()
        found = from_zoo(net).graph
        how = facts_of(row).preprocessing
        assert how is not None
        assert how.problem(found.input) is None
        assert found.num_classes == CLASSES
        size = sum(4 * np.prod(each.shape) for each in found.all_weights.values()) / table.MEBIBYTE
        # GoogLeNet's and Inception's files have their auxiliary classifiers, too.
        assert 0.999 * size < row.mebibytes < (2.1 if row.mean == table.HALF else 1.005) * size


def test_there_are_a_thousand_names_of_classes() -> None:
    names = class_names()
    assert len(names) == len({*names}) == CLASSES
    assert (names[0], names[TABBY], names[-1]) == ("tench", "tabby", "toilet tissue")


def test_what_is_known_of_weights_is_told(site: WeightSite, vggc_here: Here) -> None:
    code, out, _ = vggc_here("weights", "googlenet")
    assert code == 0
    assert "top-1 69.78 %, top-5 89.53 %" in out
    assert "(v/255 - 0.5/0.5/0.5) / 0.5/0.5/0.5" in out
    assert "(not fetched yet)" in out
    assert site.asked == []
    code, out, _ = vggc_here("weights", NET, "--fetch", "--json")
    assert code == 0
    assert json.loads(out)["fetched"]
    code, out, _ = vggc_here("weights", "--json")
    assert [each["net"] for each in json.loads(out)] == [*PUBLISHED]


# What pictures go through in a training


def test_pictures_have_the_values_that_first_weights_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caffe's weights want blue first, from 0 to 255: so does a training that begins with them."""
    monkeypatch.chdir(tmp_path)
    caffe = PRESETS["caffe"].at((3, 16, 16))
    net = program("net small input 3x16x16 conv3-4 | conv3-4 | gap | fc-3")
    save(Path("w.safetensors"), seeded(net.graph, 3), metadata_of(WeightFacts(caffe)))
    own = PRESETS["unit"].at((3, 16, 16))

    def begun_with(layer: str) -> Preprocessing:
        part = InitFrom(net="small", layers=(layer,))
        first = taken_weights(part, net.graph, net.graph, Path("w.safetensors"), None)
        return first.prepared(own)

    assert begun_with("conv1_1") == replace(own, mean=caffe.mean, std=caffe.std, order="bgr")
    assert begun_with("conv1_2") == own
