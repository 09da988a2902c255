"""Kinds of values that several commands take."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import TypeAlias, TypeVar

import click

from vggc.cli import console
from vggc.support.batches import MAX_BATCH, parse_batches
from vggc.support.precision import (
    ARTIFACT_PRECISIONS,
    NUMBER_BYTES,
    TRAIN_PRECISIONS,
    parse_precision,
)
from vggc.syntax.values import MAX_SIDE


class ImageSize(click.ParamType[tuple[int, int]]):
    """`224x320` (height, width), or `224` for both."""

    name = "HxW"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"([0-9]{1,6})(?:[x×]([0-9]{1,6}))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no image size; write 224x320 or 224", param, ctx)
        height, width = int(match[1]), int(match[2] or match[1])
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            self.fail(f"{value!r} is out of range: each side is from 1 to {MAX_SIDE}", param, ctx)
        return height, width


class ImageSizes(click.ParamType[tuple[tuple[int, int], ...]]):
    """`224,256x320`: sizes of images, or one."""

    name = "HxW,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        return tuple(IMAGE_SIZE(part.strip(), param, ctx) for part in str(value).split(","))


class Batches(click.ParamType[tuple[int, ...]]):
    """Numbers of images, `1,8,32`, or one."""

    name = "N,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else parse_batches(str(value))


class ShareType(click.ParamType[float]):
    """A number from 0 to 1; what is not a number is none of them."""

    name = "0 to 1"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = nan
        if not 0 <= number <= 1:
            self.fail(f"{value!r} is no number from 0 to 1", param, ctx)
        return number


class ThreadsHere(click.ParamType[int]):
    """Threads that run on this machine: more than it has processors would wait for each other."""

    name = "INTEGER"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        number = int(THREADS(value, param, ctx))
        if number > (processors := os.cpu_count() or 1):
            few = console.count(processors, "processor")
            self.fail(f"{number} threads are too many: this machine has {few}", param, ctx)
        return number


class PrecisionType(click.Choice[str]):
    """One of some precisions, by its name or by another word for it."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        return parse_precision(str(value), [*self.choices])


Command = TypeVar("Command", bound=Callable[..., None])


Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def together(*options: Decorator) -> Decorator:
    """Options that several commands have, in the order in which `--help` lists them."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


def weights_option(command: Command) -> Command:
    """Which weights a command takes, of a run or of a net."""
    option = click.option(
        "--weights",
        type=click.Path(path_type=Path),
        metavar="last|best|imagenet|FILE",
        help="Of a run its last weights or its best; those that are published for a net of the zoo"
        " (`vggc weights`); or a file of weights.  [default: last]",
    )
    return option(command)


def preprocessing_option(command: Command) -> Command:
    """What the pictures of weights from elsewhere go through."""
    option = click.option(
        "--preprocessing",
        metavar="NAME|FILE",
        help="What pictures go through, of weights from elsewhere: torchvision, caffe, keras, "
        "darknet, unit, or a file.  [default: what the weights' file says, else torchvision]",
    )
    return option(command)


def device_option(command: Command) -> Command:
    """What trains or tests a net."""
    option = click.option(
        "--device",
        type=click.Choice(["cpu", "cuda", "auto"]),
        help="[default: auto, CUDA if present]",
    )
    return option(command)


def workers_option(command: Command) -> Command:
    """How many processes read images."""
    option = click.option(
        "--workers",
        type=click.IntRange(0, 256),
        metavar="N",
        help="Processes that decode images.  [default: one a processor, 8 at most]",
    )
    return option(command)


IMAGE_SIZE = ImageSize()
IMAGE_SIZES = ImageSizes()
BATCH = click.IntRange(1, MAX_BATCH)
BATCHES = Batches()
THREADS = click.IntRange(1, 1024)
THREADS_HERE = ThreadsHere()
MAX_ERROR = ShareType()
PRECISION = PrecisionType(ARTIFACT_PRECISIONS)
TRAIN_PRECISION = PrecisionType(TRAIN_PRECISIONS)
DTYPE = PrecisionType(tuple(NUMBER_BYTES))
