"""Every mistake in a `train` or `test` block, or in a `--set`, has one exact message:
`diagnostics/recipe/NAME.err`.

After a change of wording: `UPDATE_GOLDEN=1 pytest tests/recipe/test_diagnostics.py`, then
read the difference aloud.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import vggc.syntax.values
from tests.support import GOLDENS
from vggc.ir.graph import Graph
from vggc.program import Program, load
from vggc.recipe import diagnostics
from vggc.recipe.edit import override_blocks
from vggc.recipe.protocol import read_protocol
from vggc.recipe.train import Recipe, read_recipe
from vggc.support.diagnostics import Diagnostic, UserError, render
from vggc.support.source import Source
from vggc.syntax.parse import parse, parse_block

FOLDER = GOLDENS / "recipe"
VGG11, VGG16 = load("vgg11").graph, load("vgg16").graph


def graph(text: str) -> Graph:
    return Program(parse(Source("x.vgg", text))).graph


def find(name: str) -> Graph | None:
    return {"vgg11": VGG11, "vgg16": VGG16}.get(name)


def in_train(settings: str, net: Graph = VGG16) -> None:
    block = parse_block(Source("tiny.vgg", f"train {{\n  {settings}\n}}\n"))
    read_recipe(block, net, find, ("vgg11", "vgg16"))


def in_test(settings: str, net: Graph = VGG16) -> None:
    block = parse_block(Source("tiny.vgg", f"test {{\n  {settings}\n}}\n"))
    read_protocol(block, Recipe(), net, find, ("vgg11", "vgg16"))


def change(*changes: str) -> None:
    override_blocks((), changes)


BOXES = graph("net b input 3x8x8 fc-8 | boxes")
HEADS = graph("net h input 3x8x8 fc-8 head what: fc-3 head where: boxes head code: fc-5 | relu")

SAMPLES: dict[str, Callable[[], None]] = {
    "AmbiguousOverride": lambda: change("flip=off"),
    "BackwardRange": lambda: in_train("freeze fc7..conv1_1"),
    "CropMismatch": lambda: in_train("scale 256; crop 192"),
    "DropAfterTheEnd": lambda: in_train("epochs 50; step at=30,60"),
    "DropsOutOfOrder": lambda: in_train("step at=60,30"),
    "FusedOutputs": lambda: in_test("fuse vgg11", graph("net x input 3x8x8 fc-10")),
    "LayerNotInOther": lambda: in_train("init-from vgg11 layers=conv1_1..conv2_2,fc6"),
    "LayersWithoutWeights": lambda: in_train("freeze pool1,pool2"),
    "BetaInVain": lambda: in_train("loss cross-entropy beta=1"),
    "BoxesInVain": lambda: in_train("boxes objects=each"),
    "BoxesOff": lambda: in_train("boxes off", BOXES),
    "BoxesTurned": lambda: in_train("rotate 10", BOXES),
    "LossMismatch": lambda: in_train("loss euclidean"),
    "LossMismatch_boxes": lambda: in_train("loss cross-entropy", BOXES),
    "LossOfFeatures": lambda: in_train("loss cross-entropy head=code", HEADS),
    "NoClassesFor": lambda: in_train("label-smoothing 0.1", BOXES),
    "NoHeadTrained": lambda: in_train("loss off"),
    "NotMeasured": lambda: in_train("best-by top-1", BOXES),
    "UnknownLossHead": lambda: in_train("loss giou head=were", HEADS),
    "WhichHead": lambda: in_train("loss giou", HEADS),
    "MalformedOverride": lambda: change("batch"),
    "MalformedValue": lambda: change("batch=٣٢"),
    "MissingOption": lambda: in_train("init-from vgg11"),
    "DecayOfNothing": lambda: in_train("sgd weight-decay=0 decay-norms=on"),
    "NesterovWithoutMomentum": lambda: in_train("sgd momentum=0 nesterov=on"),
    "NothingTested": lambda: in_test("dense off"),
    "NothingToTrainLeft": lambda: in_train("freeze conv1_1..fc8"),
    "OptionOfNothing": lambda: in_test("crops off grid=5x5"),
    "RepeatedRecipeOption": lambda: in_train("sgd lr=1 lr=2"),
    "RepeatedSetting": lambda: in_train("batch 1; batch 2"),
    "RestartsOutOfOrder": lambda: in_train("epochs 20; restarts 10,30"),
    "RivalSettings": lambda: in_train("constant; plateau"),
    "RivalSettings_length": lambda: in_train("epochs 74; steps 370000"),
    "ScaleTooSmall": lambda: in_train("scale 192..512"),
    "ScaleTooSmall_test": lambda: in_test("scales 256,192"),
    "BalancedTwice": lambda: in_train("class-weights balanced; sampler balanced"),
    "JitterOfNothing": lambda: in_train("colour-jitter hue=0"),
    "ScalesInVain": lambda: in_train("scale 256..512; resized-crop"),
    "WrongNumberOfWeights": lambda: in_train("class-weights 1,2"),
    "ShiftWithoutColours": lambda: in_train("rgb-shift 0.1", graph("net x input 1x8x8 fc-10")),
    "MorePartsThanImages": lambda: in_train("batch 2; accumulate 4"),
    "TooManyCrops": lambda: in_test("scales 224,256; crops grid=5x5"),
    "UnknownLayerName": lambda: in_train("freeze cov1_1..pool5"),
    "UnknownLayerName_far": lambda: in_train("freeze stem"),
    "UnknownNetName": lambda: in_test("fuse vgg61"),
    "UnknownOverride": lambda: change("lrr=1"),
    "UnknownRecipeOption": lambda: in_train("sgd lrr=1"),
    "UnknownSetting": lambda: in_train("ephocs 3"),
    "UnknownSetting_option": lambda: in_train("lr 0.01"),
    "UnusedOption": lambda: change("power=0.9"),
    "WeightsDiffer": lambda: in_train(
        "init-from vgg16 layers=conv1_1", graph("net x input 3x8x8 conv3-32 | fc-10")
    ),
    "WrongNumberOfValues": lambda: in_train("epochs"),
    "WrongNumberOfValues_list": lambda: in_test("scales 224 256 288"),
    "WrongUnit": lambda: in_test("scales 224px,10%"),
    "WrongUnit_share": lambda: in_train("plateau factor=1px"),
    "WrongValue": lambda: in_train("init hee"),
    "WrongValue_layers": lambda: in_train("freeze 3"),
}


def found(name: str) -> Diagnostic:
    with pytest.raises(UserError) as error:
        SAMPLES[name]()
    return error.value.diagnostics[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_message_of_a_mistake_is_exactly_this(name: str) -> None:
    mistake = found(name)
    assert type(mistake).__name__ == name.partition("_")[0]
    text = render(mistake) + "\n"
    golden = FOLDER / f"{name}.err"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_mistake_is_without_a_golden() -> None:
    kinds = {
        kind.__name__
        for module in (diagnostics, vggc.syntax.values)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Diagnostic) and kind is not Diagnostic
    }
    assert kinds == {name.partition("_")[0] for name in SAMPLES}
    assert {*SAMPLES} == {path.stem for path in FOLDER.glob("*.err")}
