"""What is known of published weights, as a file of weights says it of itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vggc.pretrained.table import Published
from vggc.weight_files.facts import WeightFacts
from vggc_runtime.preprocessing import Preprocessing

NAMES = Path(__file__).with_name("imagenet_classes.txt")
NUMBERS = Path(__file__).with_name("imagenet_wnids.txt")


@cache
def class_names() -> tuple[str, ...]:
    """The names of ImageNet's thousand classes, in the order of the outputs."""
    return tuple(NAMES.read_text("utf-8").splitlines())


@cache
def wordnet_numbers() -> tuple[str, ...]:
    """What ImageNet's thousand classes are called in WordNet, in the order of the outputs, which is
    that of these numbers: `n02123045` is the tabby.
    """
    return tuple(NUMBERS.read_text("ascii").split())


def facts_of(published: Published) -> WeightFacts:
    """The preprocessing, the classes and the source of published weights."""
    how = Preprocessing(
        size=(published.crop, published.crop),
        scale=published.resize,
        mean=published.mean,
        std=published.std,
    )
    return WeightFacts(how, class_names(), published.title)
