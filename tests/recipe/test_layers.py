"""What layers say of their own training."""

from __future__ import annotations

import re

import pytest

from vggc.ir.layer_recipe import InitWord, LayerRecipe
from vggc.layers.kinds import INITS, NORMAL_STD
from vggc.program import Program
from vggc.recipe.layers import init_of, layer_recipes, layers_by_recipe
from vggc.recipe.train import INITS as RECIPE_INITS
from vggc.recipe.train import Glorot, He, Normal
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.parse import parse

OWN = LayerRecipe(init="normal", std=0.005, bias=0.1)


def program(text: str) -> Program:
    return Program(parse(Source("n.vgg", f"net n\ninput 3x8x8\n{text}")))


def test_they_say_it_of_their_own_weights_and_of_the_rate_of_all_of_theirs() -> None:
    """The weights of a normalisation and of a trained activation begin where they always do."""
    found = layer_recipes(
        program(
            "every fc init=normal std=0.005 bias=0.1\n"
            "conv3-4 norm=batch act=prelu bias=-1 init=he lr=2 | fc-8 | fc-3 bias=off init=glorot"
        ).graph
    )
    rate, conv = LayerRecipe(lr=2), LayerRecipe(init="he", bias=-1, lr=2)
    assert found == {
        "conv1_1.weight": conv,
        "conv1_1.bias": conv,
        **dict.fromkeys(
            (f"conv1_1.norm.{role}" for role in ("weight", "bias", "running_mean", "running_var")),
            rate,
        ),
        "conv1_1.prelu.weight": rate,
        "fc1.weight": OWN,
        "fc1.bias": OWN,
        "fc2.weight": LayerRecipe(init="glorot"),
    }


def test_a_net_that_says_nothing_has_nothing_to_say() -> None:
    graph = program("conv3-4 bias=0 lr=1 norm=batch | batchnorm | prelu | fc-3").graph
    assert layer_recipes(graph) == layers_by_recipe(graph) == {}


def test_layers_are_told_by_what_they_say() -> None:
    graph = program("every fc init=normal std=0.005 bias=0.1\nfc-8 | fc-8 | fc-3 lr=10").graph
    assert {str(said): layers for said, layers in layers_by_recipe(graph).items()} == {
        "init=normal std=0.005 bias=0.1": ["fc1", "fc2"],
        "init=normal std=0.005 bias=0.1 lr=10": ["fc3"],
    }


@pytest.mark.parametrize(
    ("word", "std", "meant"),
    [(None, None, He()), ("glorot", None, Glorot()), ("normal", 0.01, Normal(0.01))],
)
def test_their_words_are_the_recipes(word: InitWord | None, std: float | None, meant: He) -> None:
    assert init_of(LayerRecipe(init=word, std=std), otherwise=He()) == meant
    assert tuple(RECIPE_INITS.types) == INITS
    assert Normal().std == NORMAL_STD


def test_inference_knows_nothing_of_them() -> None:
    said, plain = (
        program(f"conv3-4 {words} | fc-3").graph
        for words in ("init=normal std=1 bias=1 lr=5", "bias=on")
    )
    assert [node.op for node in said.nodes] == [node.op for node in plain.nodes]


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ("std=0.1", "0.1", "the recipe's `init` takes no deviation from a layer"),
        ("init=he std=0.1", "0.1", "`init=he` takes no deviation from a layer"),
        ("lr=0", "0", "`freeze` in `train { … }` names layers whose weights do not move"),
        ("lr=-1", "-1", "expected a number above 0, at most 1,000"),
        ("bias=true", "true", "did you mean `on`?"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: str, place: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as error:
        program(f"conv3-4 {options} | fc-3").check()
    (found,) = error.value.diagnostics
    assert found.place
    assert found.place.text == place


def test_an_edit_that_draws_otherwise_takes_the_deviation_with_it() -> None:
    base = program("conv3-4 init=normal std=0.1 | fc-3").written.span.source
    edit = parse(Source("m.vgg", "net m from n\nset conv1_1 init=he lr=2"))
    edited = Program(edit, find=lambda name, source: base)
    assert edited.graph.nodes[1].layer.recipe == LayerRecipe(init="he", lr=2)
