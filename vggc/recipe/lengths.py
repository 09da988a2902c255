"""Lengths in pixels that belong to a net's input: they move with it, in proportion.

A recipe brings an image's shorter side to a scale and cuts the input's size out of that. What it
means is their ratio: 256 for an input of 224 is 37 for one of 32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vggc.layers import edit
from vggc.layers.edit import input_size
from vggc.support.sizes import HeightWidth
from vggc.support.source import Span
from vggc.syntax import ast
from vggc.syntax.values import MAX_SIDE, Size, written

if TYPE_CHECKING:
    from vggc_runtime.preprocessing import Preprocessing

SCALES = {"train": ("scale",), "test": ("scales",)}
"""The settings of a block that hold lengths of an image's shorter side."""


def in_proportion(length: int, before: HeightWidth, after: HeightWidth) -> int:
    """What a length in pixels beside an input of `before` (H, W) is beside one of `after`.

    An image whose shorter side is that long covers the input, as it must.
    """
    moved = round(length * max(after) / max(before))
    return max(*after, min(moved, MAX_SIDE))


def for_input(preprocessing: Preprocessing, size: HeightWidth) -> Preprocessing:
    """The preprocessing for a net of another input size: the same in proportion."""
    scale = preprocessing.scale
    if scale is not None:
        scale = in_proportion(scale, preprocessing.size, size)
    return replace(preprocessing, size=size, scale=scale)


def with_input(net: ast.Net, size: HeightWidth) -> ast.Net:
    """The net reading images of another height and width, and the lengths in its blocks for it."""
    before = input_size(net)
    resized = edit.with_input(net, size)
    if before is None:
        return resized
    return replace(resized, blocks=tuple(moved(block, before, size) for block in net.blocks))


def moved(block: ast.Block, before: HeightWidth, after: HeightWidth) -> ast.Block:
    """A block that was written for an input of `before` (H, W), for one of `after`.

    What is no length keeps its value, and so does what is `off`.
    """
    if before == after:
        return block
    settings = tuple(_moved_setting(block.key, line, before, after) for line in block.settings)
    return replace(block, settings=settings)


def _moved_setting(
    block: str, line: ast.Setting, before: HeightWidth, after: HeightWidth
) -> ast.Setting:
    if line.key in SCALES.get(block, ()):
        return replace(line, values=tuple(_moved(value, before, after) for value in line.values))
    if (block, line.key) == ("train", "crop"):
        return replace(line, values=tuple(_input(value, before, after) for value in line.values))
    return line


def _moved(value: Any, before: HeightWidth, after: HeightWidth) -> Any:
    match value:
        case ast.Number(int(length), "" | "px") if length > 0:
            return replace(value, value=in_proportion(length, before, after))
        case ast.Range(low, high):
            ends = _moved(low, before, after), _moved(high, before, after)
            return replace(value, low=ends[0], high=ends[1])
        case ast.Many(items):
            return replace(value, items=tuple(_moved(item, before, after) for item in items))
        case _:
            return value


def _input(value: ast.Value, before: HeightWidth, after: HeightWidth) -> ast.Value:
    """A crop of the input before as one of the input after; another is a mistake and stays one."""
    spelled = {"x".join(map(str, before)), written(Size(), before)}
    if str(value).removesuffix("px") not in spelled:
        return value
    return _size(after, value.span)


def _size(size: HeightWidth, span: Span) -> ast.Value:
    height, width = size
    if height == width:
        return ast.Number(height, span=span)
    return ast.Dims(size, span=span)
