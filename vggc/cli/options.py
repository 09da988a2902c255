"""Kinds of values that several commands take."""

from __future__ import annotations

import re

import click

from vggc.values import MAX_SIDE


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


IMAGE_SIZE = ImageSize()
BATCH = click.IntRange(1, 1024)
THREADS = click.IntRange(1, 1024)
MAX_ERROR = click.FloatRange(0, 1)
PRECISION = click.Choice(["float32", "bf16", "int8"])
