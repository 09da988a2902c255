"""The `train` block: what it means, how it is written, what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggc.diagnostics import UserError
from vggc.source import Source
from vggc.syntax.ast import Block
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse
from vggc.training import mistakes
from vggc.training.recipe import (
    Constant,
    Glorot,
    He,
    Normal,
    OneCycle,
    Plateau,
    Recipe,
    Sgd,
    check_scale,
    differences,
    flatten,
    override,
    read_recipe,
    to_block,
    unflatten,
)

PAPER = """
  batch 256
  epochs 74
  sgd lr=0.01 momentum=0.9 weight-decay=5e-4
  plateau factor=0.1 drops=3
  init glorot
  scale 256
  flip
"""


def block(settings: str) -> Block:
    net = parse(Source("x.vgg", f"net x\ninput 3x8x8\nfc-2\ntrain {{\n{settings}\n}}\n"))
    found = net.block("train")
    assert found
    return found


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
        ("init normal std=0.1", Recipe(init=Normal(0.1))),
        ("init he", Recipe(init=He())),
        ("scale 256..512", Recipe(scale=(256, 512))),
        ("scale off", Recipe()),
        ("sgd lr=1", Recipe(optimiser=Sgd(lr=1.0))),
    ],
)
def test_one_setting(line: str, recipe: Recipe) -> None:
    assert read_recipe(block(line)) == recipe


@pytest.mark.parametrize(
    ("lines", "mistake", "place", "help_text"),
    [
        ("ephocs 3", mistakes.UnknownSetting, "ephocs", "did you mean `epochs`?"),
        ("batch 1\nbatch 2", mistakes.RepeatedSetting, "batch", "keep one of the two"),
        ("constant\nplateau", mistakes.RivalSettings, "plateau", "a recipe has one schedule"),
        ("sgd lrr=1", mistakes.UnknownRecipeOption, "lrr", "did you mean `lr`?"),
        ("batch 3 lr=1", mistakes.UnknownRecipeOption, "lr", "it takes none"),
        ("flip lr=1", mistakes.UnknownRecipeOption, "lr", "it takes none"),
        ("sgd lr=1 lr=1", mistakes.RepeatedRecipeOption, "lr=1", "keep one of the two"),
        ("epochs", mistakes.WrongNumberOfValues, "epochs", "write it as `epochs 74`"),
        ("flip on", mistakes.WrongNumberOfValues, "flip on", "write it as `flip`"),
        ("batch 0", mistakes.WrongValue, "0", ""),
        ("batch 2.5", mistakes.WrongValue, "2.5", ""),
        ("batch many", mistakes.WrongValue, "many", ""),
        ("sgd lr=0", mistakes.WrongValue, "0", ""),
        ("sgd lr=fast", mistakes.WrongValue, "fast", ""),
        ("init hee", mistakes.WrongValue, "hee", "did you mean `he`?"),
        ("scale 512..256", mistakes.WrongValue, "512..256", ""),
        ("plateau drops=1000", mistakes.WrongValue, "1000", ""),
    ],
)
def test_a_mistake_is_refused_at_its_place(
    lines: str, mistake: type, place: str, help_text: str
) -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block(lines))
    (found,) = error.value.diagnostics
    assert type(found) is mistake
    assert found.span
    assert found.span.text == place
    assert help_text in found.fill(found.help)


def test_all_mistakes_are_told_at_once_in_order() -> None:
    with pytest.raises(UserError) as error:
        read_recipe(block("  batch 0\n  ephocs 3\n  sgd lr=-1"))
    assert [type(d) for d in error.value.diagnostics] == [
        mistakes.WrongValue,
        mistakes.UnknownSetting,
        mistakes.WrongValue,
    ]


fraction = st.floats(0, 1)
recipes = st.builds(
    Recipe,
    batch=st.integers(1, 65_536),
    epochs=st.integers(1, 100_000),
    optimiser=st.builds(Sgd, st.floats(1e-12, 1000), fraction, fraction),
    schedule=st.one_of(
        st.just(Constant()),
        st.builds(Plateau, st.floats(1e-12, 1), st.integers(0, 100), st.integers(1, 10_000)),
        st.builds(OneCycle, fraction, fraction, fraction),
    ),
    init=st.one_of(st.just(He()), st.just(Glorot()), st.builds(Normal, st.floats(1e-12, 1000))),
    scale=st.one_of(
        st.none(), st.tuples(st.integers(1, 8192), st.integers(1, 8192)).map(sorted).map(tuple)
    ),
    flip=st.booleans(),
)


@given(recipes)
def test_a_recipe_survives_being_written(recipe: Recipe) -> None:
    written = to_block(recipe)
    assert read_recipe(written) == recipe
    assert unflatten(flatten(recipe), "run.json") == recipe
    net = parse(Source("x.vgg", "net x\ninput 3x8x8\nfc-2\n"))
    text = format_net(type(net)(**{**vars(net), "blocks": (written,)}))
    assert read_recipe(parse(Source("x.vgg", text)).block("train")) == recipe


@pytest.mark.parametrize("key", ["lr", "sgd.lr", "train.sgd.lr"])
def test_set_takes_short_and_long_keys(key: str) -> None:
    assert override(Recipe(), [f"{key}=0.5"]) == Recipe(optimiser=Sgd(lr=0.5))


def test_set_can_choose_variants_and_their_options() -> None:
    changes = ["schedule=one-cycle", "warm-up=0.2", "init=normal", "std=0.3", "flip=on"]
    assert override(Recipe(), [*changes, "scale=256..512", "weight-decay=0"]) == Recipe(
        optimiser=Sgd(weight_decay=0.0),
        schedule=OneCycle(warm_up=0.2),
        init=Normal(0.3),
        scale=(256, 512),
        flip=True,
    )


def test_set_wins_by_coming_last() -> None:
    assert override(Recipe(), ["batch=2", "batch=3"]).batch == 3


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ("lr", mistakes.MalformedOverride),
        ("lr=", mistakes.MalformedOverride),
        ("lrr=1", mistakes.UnknownOverride),
        ("batch=none", mistakes.WrongValue),
        ("lr=1e999", mistakes.MalformedValue),
        ("batch=٣٢", mistakes.MalformedValue),
        ("batch=3=4", mistakes.MalformedValue),
        ("batch=3 2", mistakes.MalformedValue),
        ("batch=1,2", mistakes.WrongValue),
        ("lr=nan", mistakes.WrongValue),
        ("std=1", mistakes.UnusedOption),
        ("warm-up=0.1", mistakes.UnusedOption),
    ],
)
def test_set_is_checked_like_a_file(change: str, mistake: type) -> None:
    with pytest.raises(UserError) as error:
        override(Recipe(), [change])
    assert [type(d) for d in error.value.diagnostics] == [mistake]


def test_a_key_with_two_meanings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vggc.training import recipe

    monkeypatch.setattr(recipe, "KINDS", {**recipe.KINDS, "adam.lr": recipe.KINDS["sgd.lr"]})
    with pytest.raises(UserError) as error:
        override(Recipe(), ["lr=1"])
    assert isinstance(error.value.diagnostics[0], mistakes.AmbiguousOverride)


def test_differences_name_what_changed() -> None:
    after = Recipe(batch=32, schedule=Constant())
    assert differences(Recipe(), Recipe()) == []
    assert differences(Recipe(), after) == [
        ("batch", "256", "32"),
        ("schedule", "plateau", "constant"),
    ]
    cycle = Recipe(schedule=OneCycle(warm_up=0.1))
    assert differences(Recipe(), cycle) == [
        ("schedule", "plateau", "one-cycle"),
        ("one-cycle.warm-up", "0.3", "0.1"),
    ]


def test_a_scale_below_the_crop_is_refused() -> None:
    check_scale(Recipe(scale=(256, 256)), (224, 224))
    check_scale(Recipe(), (224, 224))
    with pytest.raises(UserError) as error:
        check_scale(Recipe(scale=(200, 512)), (224, 224))
    assert isinstance(error.value.diagnostics[0], mistakes.ScaleTooSmall)


@pytest.mark.parametrize("name", ["recipe", "run", "schedules", "mistakes"])
def test_reading_needs_no_torch(name: str) -> None:
    code = f"import sys, vggc.training.{name}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
