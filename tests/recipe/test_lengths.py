"""Lengths in pixels that belong to a net's input move with it."""

from __future__ import annotations

import pytest

from vggc.program import Program, load, with_input
from vggc.recipe.lengths import for_input, in_proportion
from vggc.support.source import Source
from vggc.syntax.parse import parse
from vggc_runtime.preprocessing import Preprocessing

BASE = """
net base
input 3x224x224
conv3-8 | gap | fc-3 | softmax
train { scale 256..512; crop 224 }
test { scales 224,256 }
"""


@pytest.mark.parametrize(
    ("length", "before", "after", "expected"),
    [
        (256, (224, 224), (32, 32), 37),
        (36, (32, 32), (64, 64), 72),
        (256, (224, 224), (224, 224), 256),
        (40, (32, 20), (64, 40), 80),
        (224, (224, 224), (50, 33), 50),
    ],
)
def test_a_length_keeps_its_ratio_to_the_longer_side(
    length: int, before: tuple[int, int], after: tuple[int, int], expected: int
) -> None:
    assert in_proportion(length, before, after) == expected


def test_images_still_cover_an_input_that_is_longer_than_in_proportion() -> None:
    assert in_proportion(20, (20, 10), (9, 5)) == 9
    assert in_proportion(100, (99, 99), (16_384, 16_384)) == 16_384


def test_a_recipe_and_a_protocol_move_with_the_input_of_a_command() -> None:
    program = load("vgg11")
    small = program.replace(with_input(program.net, (32, 32)))
    assert small.recipe.scale == (37, 37)
    assert small.protocol.scales == (32, 37, 41)


def derived(text: str) -> Program:
    base = Source("base.vgg", BASE)
    return Program(parse(Source("net.vgg", text)), find=lambda name, source: base)


def test_what_a_derived_net_inherits_moves_with_its_own_input() -> None:
    program = derived("net small from base\ninput 3x32x32\n")
    assert (program.recipe.scale, program.recipe.crop) == ((37, 73), (32, 32))
    assert program.protocol.scales == (32, 37)


def test_what_a_derived_net_says_itself_is_taken_as_it_is() -> None:
    text = "net small from base\ninput 3x32x32\ntrain { scale 36 }\ntest { scales 40 }\n"
    program = derived(text)
    assert (program.recipe.scale, program.protocol.scales) == ((36, 36), (40,))


def test_lengths_that_are_off_stay_off() -> None:
    text = BASE.replace("scale 256..512", "scale off").replace("scales 224,256", "scales off")
    program = Program(parse(Source("base.vgg", text)))
    small = program.replace(with_input(program.net, (32, 48)))
    assert (small.recipe.scale, small.recipe.crop) == (None, (32, 48))
    assert small.protocol.scales is None


def test_a_crop_that_is_not_the_input_is_a_mistake_for_any_input() -> None:
    program = Program(parse(Source("base.vgg", BASE.replace("crop 224", "crop 200"))))
    resized = program.replace(with_input(program.net, (32, 32)))
    with pytest.raises(Exception, match="200"):
        _ = resized.recipe


@pytest.mark.parametrize(("scale", "expected"), [(36, 72), (None, None)])
def test_images_reach_a_net_of_another_input_in_proportion(
    scale: int | None, expected: int | None
) -> None:
    before = Preprocessing((32, 32), scale, (0.5,), (0.2,))
    assert for_input(before, (64, 64)) == Preprocessing((64, 64), expected, (0.5,), (0.2,))


def test_a_scale_at_which_images_would_not_cover_the_input_is_refused() -> None:
    narrow = Preprocessing((64, 64), 36, (0.5,), (0.2,))
    assert narrow.problem((1, 64, 64)) is not None
    assert (
        for_input(Preprocessing((32, 32), 36, (0.5,), (0.2,)), (64, 64)).problem((1, 64, 64))
        is None
    )


def test_moved_lengths_survive_being_written() -> None:
    """What a command changes is in the text that a run or an artifact keeps."""
    from vggc.syntax.format import format_net

    program = load("vgg11")
    resized = with_input(program.net, (64, 64))
    again = Program(parse(Source("again.vgg", format_net(resized))))
    assert again.recipe.scale == (73, 73)
