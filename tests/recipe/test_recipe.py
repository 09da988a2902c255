"""The `train` block: what it means, how it is written, what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggc.ir.graph import Graph
from vggc.program import load
from vggc.recipe import diagnostics
from vggc.recipe.augment import ColourJitter, Cutmix, Erasing, Mixup, RandAugment, ResizedCrop
from vggc.recipe.edit import merge, override_blocks, resolved_blocks, unflatten
from vggc.recipe.heads import (
    CUT_BOXES,
    LOSSES,
    OBJECT_CHOICES,
    BoxTargets,
    HeadLoss,
    trained_heads,
)
from vggc.recipe.layer_names import layer_names, selected
from vggc.recipe.protocol import TEST, Crops, Protocol, read_protocol
from vggc.recipe.train import (
    TRAIN,
    AdamW,
    Constant,
    Cosine,
    Glorot,
    He,
    InitFrom,
    Normal,
    OneCycle,
    Plateau,
    Poly,
    Recipe,
    Sgd,
    StepSchedule,
    read_recipe,
)
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.ast import Block
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse
from vggc.syntax.values import WrongUnit, WrongValue

PAPER = """
  batch 256
  epochs 74
  sgd lr=0.01 momentum=0.9 weight-decay=5e-4
  plateau factor=0.1 drops=3
  init glorot
  scale 256
  flip
"""


VGG11 = load("vgg11").graph
VGG16 = load("vgg16").graph


def find(name: str) -> Graph | None:
    return {"vgg11": VGG11, "vgg16": VGG16}.get(name)


def block(settings: str, key: str = "train") -> Block:
    net = parse(Source("x.vgg", f"net x\ninput 3x8x8\nfc-2\n{key} {{\n{settings}\n}}\n"))
    found = net.block(key)
    assert found
    return found


def protocol(settings: str, recipe: Recipe | None = None, graph: Graph | None = None) -> Protocol:
    return read_protocol(block(settings, "test"), recipe or Recipe(), graph)


def test_the_papers_recipe() -> None:
    assert read_recipe(block(PAPER)) == Recipe(
        batch=256,
        epochs=74,
        optimiser=Sgd(lr=0.01, momentum=0.9, weight_decay=5e-4),
        schedule=Plateau(factor=0.1, drops=3, patience=5),
        init=Glorot(),
        scale=(256, 256),
        flip=True,
    )


def test_what_a_block_leaves_out_keeps_its_default() -> None:
    assert read_recipe(None) == read_recipe(block("  batch 256")) == Recipe()


@pytest.mark.parametrize(
    ("line", "recipe"),
    [
        ("constant", Recipe(schedule=Constant())),
        ("one-cycle warm-up=0.1", Recipe(schedule=OneCycle(warm_up=0.1))),
        ("cosine warm-up=5%", Recipe(schedule=Cosine(warm_up=0.05))),
        (
            "step at=30,60,65 factor=20% warm-up=5%",
            Recipe(schedule=StepSchedule((30, 60, 65), 0.2, 0.05)),
        ),
        ("step at=30", Recipe(schedule=StepSchedule((30,)))),
        ("poly power=0.9 warm-up=5% end=1%", Recipe(schedule=Poly(0.9, 0.05, 0.01))),
        ("plateau warm-up=5%", Recipe(schedule=Plateau(warm_up=0.05))),
        ("constant warm-up=5%", Recipe(schedule=Constant(warm_up=0.05))),
        (
            "adamw lr=3e-4 betas=0.9,0.95 eps=1e-6 weight-decay=0.05",
            Recipe(optimiser=AdamW(3e-4, (0.9, 0.95), 1e-6, 0.05)),
        ),
        ("adamw decay-norms=on", Recipe(optimiser=AdamW(decay_norms=True))),
        (
            "resized-crop area=25% ratio=0.5..2; rotate 10; randaugment",
            Recipe(
                resized_crop=ResizedCrop((0.25, 0.25), (0.5, 2.0)),
                rotate=10.0,
                randaugment=RandAugment(2, 9),
            ),
        ),
        ("resized-crop", Recipe(resized_crop=ResizedCrop((0.08, 1.0), (0.75, 1.3333)))),
        (
            "colour-jitter brightness=40% hue=0.1; erasing 25% area=2%..10%",
            Recipe(
                colour_jitter=ColourJitter(brightness=0.4, hue=0.1),
                erasing=Erasing(0.25, area=(0.02, 0.1)),
            ),
        ),
        ("resized-crop off; erasing off; colour-jitter off; mixup off", Recipe()),
        (
            "mixup 0.2 chance=50%; cutmix 1 chance=0.3",
            Recipe(mixup=Mixup(0.2, 0.5), cutmix=Cutmix(1.0, 0.3)),
        ),
        ("class-weights balanced", Recipe(class_weights="balanced")),
        ("class-weights 1,2.5", Recipe(class_weights=(1.0, 2.5))),
        ("class-weights off; sampler shuffled", Recipe()),
        ("sampler balanced", Recipe(sampler="balanced")),
        ("mixup 0.2; cutmix 1; ema 0.999", Recipe(mixup=Mixup(0.2), cutmix=Cutmix(1.0), ema=0.999)),
        (
            "accumulate 4; clip 0.5; label-smoothing 0.1",
            Recipe(accumulate=4, clip=0.5, label_smoothing=0.1),
        ),
        ("sgd nesterov=on decay-norms=on", Recipe(optimiser=Sgd(nesterov=True, decay_norms=True))),
        ("init normal std=0.1", Recipe(init=Normal(0.1))),
        ("init he", Recipe(init=He())),
        ("scale 256..512", Recipe(scale=(256, 512))),
        ("scale 256px..512px", Recipe(scale=(256, 512))),
        ("scale off", Recipe()),
        ("sgd lr=1", Recipe(optimiser=Sgd(lr=1.0))),
        ("plateau factor=10%", Recipe()),
        ("steps 370000", Recipe(epochs=None, steps=370_000)),
        ("loss euclidean", Recipe(loss=(HeadLoss("euclidean"),))),
        (
            "loss giou head=boxes weight=0.5; loss cross-entropy",
            Recipe(loss=(HeadLoss("giou", "boxes", 0.5), HeadLoss("cross-entropy"))),
        ),
        ("loss smooth-l1 beta=0.2", Recipe(loss=(HeadLoss("smooth-l1", beta=0.2),))),
        ("loss off head=aux1", Recipe(loss=(HeadLoss("off", "aux1"),))),
        (
            "boxes objects=each cut=clip least-shown=30%",
            Recipe(boxes=BoxTargets("each", "clip", 0.3)),
        ),
        ("boxes", Recipe(boxes=BoxTargets())),
        ("boxes off", Recipe()),
        ("crop 224px", Recipe(crop=(224, 224))),
        ("crop 224x160", Recipe(crop=(224, 160))),
        ("rgb-shift 0.1", Recipe(rgb_shift=0.1)),
        ("flip on", Recipe(flip=True)),
        ("flip off", Recipe()),
        ("freeze conv1_1..pool5", Recipe(freeze=("conv1_1..pool5",))),
        (
            "init-from vgg11 layers=conv1_1,conv2_1,fc6..fc8",
            Recipe(init_from=InitFrom("vgg11", ("conv1_1", "conv2_1", "fc6..fc8"))),
        ),
        ("init-from off", Recipe()),
    ],
)
def test_one_setting(line: str, recipe: Recipe) -> None:
    assert read_recipe(block(line)) == recipe


@pytest.mark.parametrize(
    ("lines", "mistake", "place", "help_text"),
    [
        ("ephocs 3", diagnostics.UnknownSetting, "ephocs", "did you mean `epochs`?"),
        ("lr 0.1", diagnostics.UnknownSetting, "lr", "it is an option: `sgd lr=…`"),
        ("std 0.1", diagnostics.UnknownSetting, "std", "it is an option: `init normal std=…`"),
        ("layers a", diagnostics.UnknownSetting, "layers", "it is an option: `init-from layers=…`"),
        ("batch 1\nbatch 2", diagnostics.RepeatedSetting, "batch", "keep one of the two"),
        ("constant\nplateau", diagnostics.RivalSettings, "plateau", "a recipe has one schedule"),
        ("epochs 1\nsteps 2", diagnostics.RivalSettings, "steps", "a recipe has one length"),
        ("sgd lrr=1", diagnostics.UnknownRecipeOption, "lrr", "did you mean `lr`?"),
        ("batch 3 lr=1", diagnostics.UnknownRecipeOption, "lr", "it takes none"),
        ("flip lr=1", diagnostics.UnknownRecipeOption, "lr", "it takes none"),
        ("sgd lr=1 lr=1", diagnostics.RepeatedRecipeOption, "lr=1", "keep one of the two"),
        ("epochs", diagnostics.WrongNumberOfValues, "epochs", "write it as `epochs 74`"),
        (
            "sgd on",
            diagnostics.WrongNumberOfValues,
            "sgd on",
            "write it as `sgd lr=0.01 momentum=0.9`",
        ),
        ("init", diagnostics.WrongNumberOfValues, "init", "write it as `init glorot`"),
        ("flip on off", diagnostics.WrongNumberOfValues, "flip on off", "write it as `flip`"),
        ("init-from", diagnostics.WrongNumberOfValues, "init-from", "write it as `init-from vgg11"),
        ("init-from vgg11", diagnostics.MissingOption, "init-from vgg11", "layers=conv1_1"),
        ("init-from off layers=a", diagnostics.OptionOfNothing, "layers=a", "leave out `off`"),
        ("flip yes", WrongValue, "yes", "did you mean `on`?"),
        ("batch 0", WrongValue, "0", ""),
        ("batch 2.5", WrongValue, "2.5", ""),
        ("batch many", WrongValue, "many", ""),
        ("batch 256px", WrongUnit, "256px", "write `256`"),
        ("sgd lr=10%", WrongUnit, "10%", "write `0.1`"),
        ("scale 10%", WrongUnit, "10%", "write `10px`"),
        ("sgd lr=0", WrongValue, "0", ""),
        ("sgd lr=fast", WrongValue, "fast", ""),
        ("init hee", WrongValue, "hee", "did you mean `he`?"),
        ("init 3", WrongValue, "3", ""),
        (
            "loss l2",
            WrongValue,
            "l2",
            "known: `cross-entropy`, `euclidean`, `smooth-l1`, `giou`, `off`",
        ),
        ("scale 512..256", WrongValue, "512..256", "the lower end comes first"),
        ("crop 1..2", WrongValue, "1..2", ""),
        ("plateau drops=1000", WrongValue, "1000", ""),
        ("init-from vgg11 layers=3", WrongValue, "3", ""),
        ("sgd; adamw", diagnostics.RivalSettings, "adamw", "a recipe has one optimiser"),
        ("adamw betas=0.9", WrongValue, "0.9", ""),
        ("adamw betas=0.9,0.99,0.999", WrongValue, "0.9,0.99,0.999", ""),
        ("adamw betas=0.9,1", WrongValue, "1", ""),
        ("adamw momentum=0.9", diagnostics.UnknownRecipeOption, "momentum", ""),
        ("step at=0", WrongValue, "0", ""),
        ("mixup", diagnostics.WrongNumberOfValues, "mixup", "write it as `mixup 0.2`"),
        ("mixup 0.2 chance=0", WrongValue, "0", ""),
        ("mixup chance=0.5", diagnostics.WrongNumberOfValues, "mixup chance=0.5", "`mixup 0.2`"),
        ("erasing 150%", WrongValue, "150%", ""),
        ("resized-crop area=100%..8%", WrongValue, "100%..8%", "first: `8%..100%`"),
        ("resized-crop area=0..1", WrongValue, "0..1", ""),
        ("resized-crop area=8px", WrongUnit, "8px", ""),
        ("randaugment magnitude=31", WrongValue, "31", ""),
        ("randaugment 9", WrongValue, "9", ""),
        ("rand-augment", diagnostics.UnknownSetting, "rand-augment", "did you mean `randaugment`?"),
        (
            "color-jitter",
            diagnostics.UnknownSetting,
            "color-jitter",
            "did you mean `colour-jitter`?",
        ),
        ("class-weights balance", WrongValue, "balance", "did you mean `balanced`?"),
        ("class-weights 1,0", WrongValue, "0", ""),
        ("sampler weighted", WrongValue, "weighted", "known: `shuffled`, `balanced`"),
    ],
)
def test_a_mistake_is_refused_at_its_place(
    lines: str, mistake: type, place: str, help_text: str
) -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block(lines))
    (found,) = error.value.diagnostics
    assert type(found) is mistake
    assert found.place
    assert found.place.text == place
    assert help_text in found.fill(found.help)


def test_all_mistakes_are_told_at_once_in_order() -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block("  batch 0\n  ephocs 3\n  sgd lr=-1"))
    assert [type(d) for d in error.value.diagnostics] == [
        WrongValue,
        diagnostics.UnknownSetting,
        WrongValue,
    ]


def test_the_papers_protocol() -> None:
    said = "scales 224,256px,288\ndense\ncrops grid=5x5\nflip\nfuse vgg16,vgg19"
    assert protocol(said) == Protocol((224, 256, 288), True, Crops(5), True, ("vgg16", "vgg19"))


@pytest.mark.parametrize(
    ("recipe", "scales"),
    [(Recipe(), None), (Recipe(scale=(384, 384)), (384,)), (Recipe(scale=(256, 512)), (384,))],
)
def test_without_a_test_block_nets_are_tested_as_in_the_paper(
    recipe: Recipe, scales: tuple[int, ...] | None
) -> None:
    assert read_protocol(None, recipe) == Protocol(scales, dense=True, crops=None, flip=True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("crops grid=3x3", Protocol(dense=False, crops=Crops(3))),
        ("crops", Protocol(dense=False, crops=Crops(5))),
        ("dense; crops", Protocol(dense=True, crops=Crops(5))),
        ("flip off", Protocol(flip=False)),
        ("scales off", Protocol(scales=None)),
        ("fuse vgg19", Protocol(fuse=("vgg19",))),
    ],
)
def test_one_setting_of_a_protocol(settings: str, expected: Protocol) -> None:
    assert protocol(settings) == expected


@pytest.mark.parametrize(
    ("settings", "mistake", "place", "help_text"),
    [
        ("scale 256", diagnostics.UnknownSetting, "scale", "did you mean `scales`?"),
        ("grid 5x5", diagnostics.UnknownSetting, "grid", "it is an option: `crops grid=…`"),
        ("dense off", diagnostics.NothingTested, "off", "`crops grid=1x1`"),
        ("crops grid=5x4", WrongValue, "5x4", ""),
        ("crops grid=5", WrongValue, "5", "did you mean `5x5`?"),
        ("crops grid=21x21", WrongValue, "21x21", ""),
        (
            "scales 256 384",
            diagnostics.WrongNumberOfValues,
            "scales 256 384",
            "`scales 224,256,288`",
        ),
        ("scales 224,256%", WrongUnit, "256%", "write `256px`"),
        ("scales 224,0", WrongValue, "0", ""),
        ("fuse 3", WrongValue, "3", ""),
    ],
)
def test_a_mistake_in_a_protocol_is_refused_at_its_place(
    settings: str, mistake: type, place: str, help_text: str
) -> None:
    with pytest.raises(UserError) as error:
        protocol(settings)
    (found,) = error.value.diagnostics
    assert type(found) is mistake
    assert found.place
    assert found.place.text == place
    assert help_text in found.fill(found.help)


# ---------------------------------------------------------------- round trips

fraction = st.floats(0, 1)
share = st.floats(1e-12, 1)
ends = st.tuples(share, share).map(sorted).map(tuple)
side = st.integers(1, 16_384)
name = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda n: n not in ("off", "on")
)
part = st.one_of(name, st.tuples(name, name).map("..".join))
names = st.lists(part, min_size=1, max_size=4).map(tuple)
recipes = st.builds(
    Recipe,
    batch=st.integers(1, 65_536),
    epochs=st.integers(1, 100_000),
    loss=st.lists(
        st.builds(
            HeadLoss,
            st.sampled_from(LOSSES),
            st.one_of(st.none(), name),
            st.floats(1e-12, 1e6),
            st.floats(1e-12, 1000),
        ),
        max_size=4,
        unique_by=lambda loss: loss.head,
    ).map(tuple),
    boxes=st.one_of(
        st.none(),
        st.builds(
            BoxTargets, st.sampled_from(OBJECT_CHOICES), st.sampled_from(CUT_BOXES), fraction
        ),
    ),
    optimiser=st.one_of(
        st.builds(Sgd, st.floats(1e-12, 1000), fraction, fraction),
        st.builds(AdamW, st.floats(1e-12, 1000), st.tuples(*[st.floats(0, 0.999999)] * 2)),
    ),
    schedule=st.one_of(
        st.builds(Constant, fraction),
        st.builds(Plateau, st.floats(1e-12, 1), st.integers(0, 100), st.integers(1, 10_000)),
        st.builds(
            StepSchedule, st.lists(st.integers(1, 100_000), min_size=1, max_size=9).map(tuple)
        ),
        st.builds(Poly, st.floats(1e-12, 100), fraction, fraction),
        st.builds(OneCycle, fraction, fraction, fraction),
    ),
    init=st.one_of(st.just(He()), st.just(Glorot()), st.builds(Normal, st.floats(1e-12, 1000))),
    init_from=st.one_of(st.none(), st.builds(InitFrom, name, names)),
    freeze=st.one_of(st.none(), names),
    scale=st.one_of(st.none(), st.tuples(side, side).map(sorted).map(tuple)),
    crop=st.one_of(st.none(), st.tuples(side, side)),
    flip=st.booleans(),
    rgb_shift=st.one_of(st.none(), st.floats(1e-12, 10)),
    resized_crop=st.one_of(st.none(), st.builds(ResizedCrop, ends, ends)),
    colour_jitter=st.one_of(st.none(), st.builds(ColourJitter, fraction, fraction, fraction)),
    randaugment=st.one_of(st.none(), st.builds(RandAugment, st.integers(1, 14))),
    erasing=st.one_of(st.none(), st.builds(Erasing, share, ends)),
    mixup=st.one_of(st.none(), st.builds(Mixup, st.floats(1e-12, 1000), share)),
    cutmix=st.one_of(st.none(), st.builds(Cutmix, st.floats(1e-12, 1000), share)),
    sampler=st.sampled_from(("shuffled", "balanced")),
    class_weights=st.one_of(
        st.none(), st.just("balanced"), st.lists(share, min_size=1, max_size=4).map(tuple)
    ),
)
in_steps = st.builds(
    lambda recipe, steps: replace(recipe, epochs=None, steps=steps),
    recipes,
    st.integers(1, 1_000_000_000),
)
protocols = st.builds(
    Protocol,
    scales=st.one_of(st.none(), st.lists(side, min_size=1, max_size=16).map(tuple)),
    dense=st.booleans(),
    crops=st.one_of(st.none(), st.builds(Crops, st.integers(1, 20))),
    flip=st.booleans(),
    fuse=st.one_of(st.none(), st.lists(name, min_size=1, max_size=4).map(tuple)),
).filter(lambda protocol: protocol.dense or protocol.crops)


def written(*blocks: Block) -> tuple[Block, ...]:
    """The blocks read back from the text of a net that has them."""
    net = replace(parse(Source("x.vgg", "net x\ninput 3x8x8\nfc-2\n")), blocks=blocks)
    return parse(Source("x.vgg", format_net(net))).blocks


@given(st.one_of(recipes, in_steps))
def test_a_recipe_survives_being_written(recipe: Recipe) -> None:
    block = TRAIN.to_block(recipe)
    assert read_recipe(block) == recipe
    assert read_recipe(*written(block)) == recipe
    assert unflatten(TRAIN.flatten(recipe), "run.json") == recipe


@given(protocols, recipes)
def test_a_protocol_survives_being_written(protocol: Protocol, recipe: Recipe) -> None:
    block = TEST.to_block(protocol)
    assert read_protocol(block, recipe) == protocol
    assert read_protocol(*written(block), recipe) == protocol


@given(recipes, st.one_of(recipes, in_steps))
def test_a_full_block_over_another_is_that_block(base: Recipe, over: Recipe) -> None:
    # Of heads that only the base speaks of, the base's losses stay.
    base = replace(base, loss=())
    merged = merge(TRAIN.to_block(base), TRAIN.to_block(over))
    assert read_recipe(merged) == over


words = st.sampled_from(
    [*TRAIN.settings, *TEST.settings, "on", "off", "he", "vgg11", "conv1_1..fc7", "pool5", "x"]
)
numbers = st.sampled_from(
    ["0", "1", "3.5", "-1", "1e-3", "256px", "10%", "224..256", "5x5", "9x9x9"]
)
value = st.one_of(
    words, numbers, st.lists(st.one_of(words, numbers), min_size=2, max_size=4).map(",".join)
)
keys = st.sampled_from(
    [*{key.rpartition(".")[2] for key in (*TRAIN.kinds, *TEST.kinds)}, "lrr", "conv"]
)
lines = st.builds(
    lambda word, values, options: " ".join([word, *values, *(f"{k}={v}" for k, v in options)]),
    words,
    st.lists(value, max_size=2),
    st.lists(st.tuples(keys, value), max_size=3),
)
full_keys = st.sampled_from([*TRAIN.kinds, *(f"test.{key}" for key in TEST.kinds), "lr", "flip"])
some_changes = st.lists(st.tuples(full_keys, value).map("=".join), max_size=3)
some_lines = st.lists(lines, max_size=4).map("\n".join)


@settings(max_examples=300)
@given(some_lines, some_lines, some_lines, some_changes)
def test_whatever_is_written_ends_in_blocks_or_in_mistakes(
    base: str, over: str, tests: str, changes: list[str]
) -> None:
    """And what there is no mistake in says the same when it is resolved."""
    blocks = [merge(block(base), block(over)), block(tests, "test")]
    try:
        resolved = resolved_blocks(override_blocks(blocks, changes), VGG16, find)
    except UserError:  # whose words are made when it is raised
        return
    assert resolved_blocks(resolved, VGG16, find) == resolved


# ---------------------------------------------------------------- changes


def changed(changes: list[str], base: str = "", prefer: str | None = None) -> Recipe:
    blocks = override_blocks([block(base)], changes, prefer=prefer)
    return read_recipe(next(b for b in blocks if b.key == "train"))


@pytest.mark.parametrize("key", ["lr", "sgd.lr", "train.lr", "train.sgd.lr"])
def test_set_takes_short_and_long_keys(key: str) -> None:
    assert changed([f"{key}=0.5"]) == Recipe(optimiser=Sgd(lr=0.5))


def test_set_keeps_what_the_file_says_of_the_rest() -> None:
    assert changed(["lr=0.5"], "sgd momentum=0.5; flip") == Recipe(
        optimiser=Sgd(lr=0.5, momentum=0.5), flip=True
    )


def test_an_option_of_several_variants_is_that_of_the_chosen_one() -> None:
    for schedule, chosen in (("cosine", Cosine(warm_up=0.2)), ("one-cycle", OneCycle(0.2))):
        assert changed(["warm-up=0.2", f"schedule={schedule}"]).schedule == chosen
        assert changed(["warm-up=0.2"], schedule).schedule == chosen
    assert changed(["end=0.5"], "cosine").schedule == Cosine(end=0.5)


def test_set_can_choose_variants_and_their_options_in_any_order() -> None:
    changes = ["warm-up=0.2", "schedule=one-cycle", "std=0.3", "init=normal", "train.flip=on"]
    assert changed([*changes, "scale=256..512", "weight-decay=0", "steps=9"], "epochs 3") == Recipe(
        epochs=None,
        steps=9,
        optimiser=Sgd(weight_decay=0.0),
        schedule=OneCycle(warm_up=0.2),
        init=Normal(0.3),
        scale=(256, 512),
        flip=True,
    )


def test_set_changes_the_test_block_as_well() -> None:
    blocks = override_blocks([block("scale 256")], ["test.scales=256,384", "crops.grid=3x3"])
    recipe = read_recipe(blocks[0])
    assert read_protocol(blocks[1], recipe) == Protocol(
        scales=(256, 384), dense=False, crops=Crops(3)
    )


def test_set_can_switch_off() -> None:
    base = "scale 256; rgb-shift 0.1; freeze a; init-from vgg11 layers=a"
    assert changed(["scale=off", "rgb-shift=off", "freeze=off", "init-from=off"], base) == Recipe()


def test_set_wins_by_coming_last() -> None:
    assert changed(["batch=2", "batch=3"]).batch == 3
    assert changed(["steps=2", "epochs=3"]) == Recipe(epochs=3)
    assert changed(["schedule=constant", "schedule=one-cycle"]).schedule == OneCycle()


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ("lr", diagnostics.MalformedOverride),
        ("lr=", diagnostics.MalformedOverride),
        ("=1", diagnostics.MalformedOverride),
        ("train=off", diagnostics.UnknownOverride),
        ("lrr=1", diagnostics.UnknownOverride),
        ("test.lr=1", diagnostics.UnknownOverride),
        ("flip=on", diagnostics.AmbiguousOverride),
        ("batch=none", WrongValue),
        ("batch=3px", WrongUnit),
        ("schedule=fast", WrongValue),
        ("schedule=3", WrongValue),
        ("epochs=off", WrongValue),
        ("lr=1e999", diagnostics.MalformedValue),
        ("batch=٣٢", diagnostics.MalformedValue),
        ("batch=3=4", diagnostics.MalformedValue),
        ("batch=3 2", diagnostics.MalformedValue),
        ("batch=1,2", WrongValue),
        ("lr=nan", WrongValue),
        ("std=1", diagnostics.UnusedOption),
        ("power=0.9", diagnostics.UnusedOption),
        ("cosine.end=0.1", diagnostics.UnusedOption),
        ("layers=a", diagnostics.WrongNumberOfValues),
    ],
)
def test_set_is_checked_like_a_file(change: str, mistake: type) -> None:
    with pytest.raises(UserError) as error:
        changed([change])
    assert [type(d) for d in error.value.diagnostics] == [mistake]
    assert all(d.place and d.place.source.name == "--set" for d in error.value.diagnostics)


def test_an_option_under_a_wrong_name_is_found_by_its_own() -> None:
    hint = "did you mean `one-cycle.start`"
    with pytest.raises(UserError, match=hint):
        override_blocks([], ["schedule.start=5%"])
    hint = "did you mean `warm-up`"
    with pytest.raises(UserError, match=hint):
        changed(["schedule.warm-up=5%"])


def test_what_is_known_is_listed_once_and_a_block_is_no_setting() -> None:
    with pytest.raises(UserError) as error:
        changed(["test.foo=1"])
    hint = "known: `scales`, `dense`, `crops`, `crops.grid`, `flip`, `fuse`, `grid`"
    assert hint in str(error.value)
    with pytest.raises(UserError, match=r"key by key: `test\.scales`"):
        changed(["test=off"])


def test_the_place_of_a_value_in_a_list_is_found_in_a_change() -> None:
    (changed,) = override_blocks([], ["test.scales=224,256%"])
    with pytest.raises(UserError) as error:
        read_protocol(changed, Recipe())
    (found,) = error.value.diagnostics
    assert found.place
    assert (found.place.text, found.place.start) == ("256%", 16)


def test_a_command_may_prefer_a_block() -> None:
    assert changed(["flip=on"], prefer="train").flip


def test_differences_name_what_changed() -> None:
    after = Recipe(batch=32, schedule=Constant())
    assert TRAIN.differences(Recipe(), Recipe()) == []
    assert TRAIN.differences(Recipe(), after) == [
        ("batch", "256", "32"),
        ("schedule", "plateau", "constant"),
    ]
    cycle = Recipe(schedule=OneCycle(warm_up=0.1))
    assert TRAIN.differences(Recipe(), cycle) == [
        ("schedule", "plateau", "one-cycle"),
        ("one-cycle.warm-up", "0.3", "0.1"),
    ]
    assert TRAIN.differences(Recipe(), Recipe(epochs=None, steps=9)) == [("steps", "off", "9")]


# ---------------------------------------------------------------- building on a net


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ("sgd lr=1 momentum=0.5", "sgd lr=2", "sgd lr=2 momentum=0.5"),
        ("sgd lr=1", "sgd momentum=0.5", "sgd lr=1 momentum=0.5"),
        ("batch 2\nflip", "batch 3", "batch 3\nflip"),
        ("plateau drops=2\nflip", "constant", "constant\nflip"),
        ("plateau drops=2", "plateau factor=0.2", "plateau drops=2 factor=0.2"),
        ("epochs 74\nflip", "steps 9", "steps 9\nflip"),
        ("flip", "flip off", "flip off"),
        ("flip off", "flip", "flip"),
        ("init normal std=0.2", "init normal", "init normal std=0.2"),
        ("init normal std=0.2", "init he", "init he"),
        ("init normal", "init std=0.2", "init normal std=0.2"),
        ("scale 256", "scale off\ncrop 8", "scale off\ncrop 8"),
        ("init-from a layers=c..d", "init-from b", "init-from b layers=c..d"),
        ("init-from a layers=c", "init-from layers=d", "init-from a layers=d"),
        ("init-from a layers=c", "init-from off", "init-from off"),
        ("", "flip", "flip"),
        # Mistakes stay mistakes.
        ("flip\nflip", "flip off", "flip off\nflip"),
        ("flip", "flip off\nflip off", "flip off\nflip off"),
        ("sgd lr=1", "sgd lr=2 lr=3", "sgd lr=2 lr=3"),
        ("flop", "flop", "flop\nflop"),
    ],
)
def test_a_derived_net_says_only_what_differs(base: str, over: str, expected: str) -> None:
    assert merge(block(base), block(over)) == block(expected)


def test_crops_are_merged_by_their_options() -> None:
    base, over = block("crops grid=5x5\ndense", "test"), block("crops grid=3x3", "test")
    assert merge(base, over) == block("crops grid=3x3\ndense", "test")
    off = block("crops off", "test")
    assert merge(base, off) == block("crops off\ndense", "test")
    assert merge(off, over) == over


def test_comments_of_the_base_stay() -> None:
    base = block("# how many\nbatch 2  # few\nsgd lr=1  # fast\nplateau  # slow\n# end")
    merged = merge(base, block("batch 3\nsgd momentum=0.5\nconstant  # steady"))
    (found,) = written(merged)
    net = replace(parse(Source("x.vgg", "net x\ninput 3x8x8\nfc-2\n")), blocks=(found,))
    assert (
        format_net(net).partition("fc-2\n")[2]
        == """
train {
  # how many
  batch 3  # few
  sgd lr=1 momentum=0.5  # fast
  constant  # steady
  # end
}
"""
    )


# ---------------------------------------------------------------- against the net

FIRST = "conv1_1,conv2_1,conv3_1,conv3_2,fc6,fc7,fc8"


def graph(text: str) -> Graph:
    from vggc.program import Program

    return Program(parse(Source("x.vgg", text))).graph


def test_names_and_ranges_mean_layers_in_the_nets_order() -> None:
    order = layer_names(VGG11)
    assert order[:4] == ("conv1_1", "pool1", "conv2_1", "pool2")
    found = selected(["fc8", "pool1..conv2_1", "conv2_1"], VGG11)
    assert [*found] == ["pool1", "conv2_1", "fc8"]
    assert found["conv2_1"] == "pool1..conv2_1"


def test_the_papers_first_weights_come_from_net_a() -> None:
    for said in (f"init-from vgg11 layers={FIRST}", "init-from vgg11 layers=conv1_1,fc6..fc8"):
        assert read_recipe(block(said), VGG16, find).init_from


def test_localisation_trains_only_the_fully_connected_layers() -> None:
    assert read_recipe(block("freeze conv1_1..pool5"), VGG16).freeze == ("conv1_1..pool5",)


def test_nets_that_give_boxes_are_fitted_to_them_by_default() -> None:
    boxes = graph("net b input 3x8x8 fc-8 | boxes")
    for recipe in (read_recipe(None, boxes), read_recipe(block("batch 3"), boxes)):
        assert recipe.loss == (HeadLoss("euclidean"),)
        assert recipe.boxes == BoxTargets()
        assert recipe.best_by == "iou"


HEADS = "net h input 3x8x8 conv3-4 | pool head what: fc-3 head where: boxes head code: fc-5 | relu"


def test_each_head_has_the_usual_loss_of_its_kind_unless_a_line_says_otherwise() -> None:
    heads = graph(HEADS)
    assert [head.kind for head in heads.heads] == ["classes", "boxes", "features"]
    assert read_recipe(None, heads).loss == (
        HeadLoss("cross-entropy", "what"),
        HeadLoss("euclidean", "where"),
    )
    changed = read_recipe(block("loss giou head=where weight=2"), heads)
    assert changed.loss == (
        HeadLoss("cross-entropy", "what"),
        HeadLoss("giou", "where", 2),
    )
    assert [*trained_heads(changed.loss, heads)] == ["what", "where"]
    off = read_recipe(block("loss off head=where"), heads)
    assert [*trained_heads(off.loss, heads)] == ["what"]


def test_a_change_of_one_heads_loss_leaves_the_others() -> None:
    heads = graph(HEADS)
    blocks = override_blocks((), ["train.loss[where]=giou", "loss[what].weight=0.5"])
    recipe = read_recipe(blocks[0], heads)
    assert recipe.loss == (HeadLoss("cross-entropy", "what", 0.5), HeadLoss("giou", "where"))
    again = override_blocks((TRAIN.to_block(recipe),), ["train.loss[where]=euclidean"])
    assert read_recipe(again[0], heads).loss[1] == HeadLoss("euclidean", "where")


def test_a_net_that_builds_on_another_changes_the_loss_of_one_head() -> None:
    base, over = (
        block("loss giou head=where weight=2\n loss off head=what"),
        block("loss euclidean head=where"),
    )
    merged = TRAIN.read(merge(base, over)).value
    assert merged.loss == (HeadLoss("euclidean", "where", 2), HeadLoss("off", "what"))


@pytest.mark.parametrize(
    ("settings", "mistake", "place", "help_text"),
    [
        (
            "scale 200..512",
            diagnostics.ScaleTooSmall,
            "200..512",
            "use at least 224, or `scale off`",
        ),
        ("crop 256", diagnostics.CropMismatch, "256", "write `crop 224`, or leave it out"),
        ("crop 224x160", diagnostics.CropMismatch, "224x160", "write `crop 224`"),
        ("loss euclidean", diagnostics.LossMismatch, "euclidean", "write `loss cross-entropy`"),
        (
            "loss cross-entropy head=aux",
            diagnostics.UnknownLossHead,
            "cross-entropy",
            "main output",
        ),
        ("loss off", diagnostics.NoHeadTrained, "off", "leave one"),
        ("loss cross-entropy beta=1", diagnostics.BetaInVain, "1", "`loss smooth-l1`"),
        ("boxes", diagnostics.BoxesInVain, "boxes", "leave it out"),
        ("best-by iou", diagnostics.NotMeasured, "iou", "write `best-by loss`"),
        ("freeze conv1_1,conv9", diagnostics.UnknownLayerName, "conv9", ""),
        (
            "freeze conv1_1..conv5_9",
            diagnostics.UnknownLayerName,
            "conv5_9",
            "did you mean `conv5_",
        ),
        ("freeze fc7..fc6", diagnostics.BackwardRange, "fc7..fc6", "write `fc6..fc7`"),
        ("freeze pool1,pool2", diagnostics.LayersWithoutWeights, "pool1,pool2", "`conv1_1`"),
        ("freeze conv1_1..fc8", diagnostics.NothingToTrainLeft, "conv1_1..fc8", "such as `fc8`"),
        (
            "init-from vgg99 layers=fc6",
            diagnostics.UnknownNetName,
            "vgg99",
            "known: `vgg11`, `vgg16`",
        ),
        ("init-from vgg11 layers=cov1_1", diagnostics.UnknownLayerName, "cov1_1", "`conv1_1`"),
        ("init-from vgg11 layers=pool1", diagnostics.LayersWithoutWeights, "pool1", "`conv1_1`"),
        (
            "init-from vgg11 layers=conv1_2",
            diagnostics.LayerNotInOther,
            "conv1_2",
            "it has `conv1_1`",
        ),
        ("init-from vgg11 layers=conv5_2..fc6", diagnostics.LayerNotInOther, "conv5_2..fc6", ""),
    ],
)
def test_what_the_net_cannot_do_is_refused(
    settings: str, mistake: type, place: str, help_text: str
) -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block(settings), VGG16, find, ["vgg11", "vgg16"])
    (found,) = error.value.diagnostics
    assert type(found) is mistake
    assert found.place
    assert found.place.text == place
    assert help_text in found.fill(found.help)


def test_a_range_that_another_net_does_not_have_is_told_once() -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block("init-from vgg11 layers=conv1_1..conv3_2,fc6,conv3_3"), VGG16, find)
    places = [d.place.text for d in error.value.diagnostics if d.place]
    assert places == ["conv1_1..conv3_2", "conv3_3"]


def test_weights_of_another_shape_are_not_taken() -> None:
    small = graph("net s input 3x224x224 conv3-32 | pool | fc-4")
    with pytest.raises(
        UserError, match=r"`conv1_1\.weight` is 64×3×3×3 in vgg11 and 32×3×3×3 here"
    ):
        read_recipe(block("init-from vgg11 layers=conv1_1"), small, find)


@pytest.mark.parametrize(
    ("settings", "mistake", "place"),
    [
        ("step at=60,30", diagnostics.DropsOutOfOrder, "60,30"),
        ("step at=30,30", diagnostics.DropsOutOfOrder, "30,30"),
        ("epochs 30; step at=10,30", diagnostics.DropAfterTheEnd, "10,30"),
        ("epochs 30; step", diagnostics.DropAfterTheEnd, "step"),
        ("steps 900; step at=300,900", diagnostics.DropAfterTheEnd, "300,900"),
    ],
)
def test_a_rate_that_could_not_drop_as_told_is_refused(
    settings: str, mistake: type, place: str
) -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block(settings), VGG16)
    (found,) = error.value.diagnostics
    assert type(found) is mistake
    assert found.place
    assert found.place.text == place
    assert read_recipe(block("steps 900; step at=300,899"), VGG16).unit == "steps"


def test_a_net_without_colours_has_none_to_shift() -> None:
    grey = graph("net g input 1x8x8 fc-4")
    with pytest.raises(UserError, match="the net reads images of 1×8×8"):
        read_recipe(block("rgb-shift 0.1"), grey)


@pytest.mark.parametrize(
    ("settings", "mistake", "place"),
    [
        ("scales 256,192", diagnostics.ScaleTooSmall, "192"),
        ("fuse vgg11,vgg99", diagnostics.UnknownNetName, "vgg99"),
    ],
)
def test_a_protocol_that_the_net_cannot_follow_is_refused(
    settings: str, mistake: type, place: str
) -> None:
    with pytest.raises(UserError) as error:
        read_protocol(block(settings, "test"), Recipe(), VGG16, find)
    (found,) = error.value.diagnostics
    assert type(found) is mistake
    assert found.place
    assert found.place.text == place


def test_only_the_same_classes_can_be_fused() -> None:
    ten = graph("net t input 3x224x224 fc-10")
    with pytest.raises(UserError, match="vgg11 has 1000 outputs and this net 10"):
        read_protocol(block("fuse vgg11", "test"), Recipe(), ten, find)
    assert read_protocol(block("fuse vgg11", "test"), Recipe(), VGG16, find).fuse == ("vgg11",)


def test_resolved_blocks_say_everything() -> None:
    train, test = resolved_blocks([block("# so many\nbatch 2\nscale 256..512")], VGG16)
    net = replace(parse(Source("x.vgg", "net x\ninput 3x8x8\nfc-2\n")), blocks=(train, test))
    assert (
        format_net(net).partition("fc-2\n")[2]
        == """
train {
  # so many
  batch 2
  scale 256..512
  epochs 74
  loss cross-entropy
  boxes off
  class-weights off
  sampler shuffled
  sgd lr=0.01 momentum=0.9 weight-decay=5e-4 decay-norms=off nesterov=off
  plateau factor=0.1 drops=3 patience=5 warm-up=0.0
  init glorot
  init-from off
  freeze off
  resized-crop off
  crop 224
  flip off
  rotate off
  colour-jitter off
  randaugment off
  rgb-shift off
  erasing off
  label-smoothing off
  mixup off
  cutmix off
  ema off
  accumulate 1
  clip off
  best-by top-1
  early-stop off
  restarts off
  give-up
}

test {
  scales 384
  dense
  crops off
  flip
  fuse off
}
"""
    )
    recipe = read_recipe(train, VGG16)
    again = resolved_blocks([train, test], VGG16)
    assert again == (train, test)
    expected = read_recipe(block("batch 2\nscale 256..512"), VGG16)
    assert recipe == replace(expected, crop=(224, 224))


@pytest.mark.parametrize("module", ["recipe.edit", "training.run", "training.schedules"])
def test_reading_needs_no_torch(module: str) -> None:
    code = f"import sys, vggc.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
