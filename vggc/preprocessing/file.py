"""Preprocessing from files: our own keys, Hugging Face's `preprocessor_config.json`, timm's
`config.json`.

Of foreign files the keys that say what becomes of a picture are read, and those that say other
things passed over; where one says what cannot be done here nothing is taken. A file is hostile
until checked.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import Any, Literal

from vggc.preprocessing import diagnostics
from vggc.preprocessing.presets import PRESETS
from vggc.recipe.lengths import for_input
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.records import from_json
from vggc_runtime.files import open_file
from vggc_runtime.greys import UNKNOWN, Greys
from vggc_runtime.json_file import MalformedError, read_json
from vggc_runtime.preprocessing import (
    MAX_SIDE,
    MOST,
    ChannelOrder,
    Colour,
    Fit,
    Interpolation,
    Preprocessing,
)

MOST_BYTES = 1 << 20
"""The largest TOML file that is read."""

PILLOW: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
}
"""Pillow's numbers of filters, which Hugging Face's files have. Source: `PIL.Image.Resampling`."""

TIMM: dict[str, Interpolation] = {
    name: name for name in ("nearest", "bilinear", "bicubic", "lanczos", "box")
}

LEAST_SHARE = 0.01

FOREIGN_HINT = "write what the net takes to a file of vggc's own keys: docs/importing.md"


@dataclass(frozen=True, kw_only=True)
class PreprocessingKeys:
    """What a file of our own keys may say; the preset says what it leaves open. `mean` and `std`
    are in units of which a pixel has `range` at most.
    """

    preset: str = "unit"
    range: Literal[1, 255] = 1
    order: ChannelOrder | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Fit | None = None
    size: tuple[int, int] | None = None
    scale: int | None = None
    interpolation: Interpolation | None = None
    background: Colour | None = None
    white: Greys = UNKNOWN


def read_preprocessing(path: Path, shape: tuple[int, ...]) -> Preprocessing:
    """The preprocessing that a file says, for inputs of a shape (C, H, W). One that is for another
    size is taken in proportion.

    Raises: UserError with the reason why there is none for such inputs.
    """
    channels, height, width = shape
    try:
        value = _content(path)
        how = _meant(value, shape)
        if problem := how.problem((channels, *how.size)):
            raise MalformedError(problem.removeprefix("preprocessing: "))
        if how.size != (height, width):
            how = for_input(how, (height, width))
        return how
    except NotDoneHereError as fault:
        found = diagnostics.PreprocessingFile(str(path), str(fault), FOREIGN_HINT)
        raise UserError(found) from None
    except MalformedError as fault:
        raise UserError(diagnostics.PreprocessingFile(str(path), str(fault))) from None


class NotDoneHereError(MalformedError):
    """A foreign file says what cannot be done here."""


def _content(path: Path) -> Any:
    """The value in a file of JSON, or of TOML where it is called so."""
    if path.suffix.lower() != ".toml":
        return read_json(path)
    try:
        with open_file(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as fault:
        raise MalformedError(fault.strerror or str(fault)) from None
    if len(content) > MOST_BYTES:
        raise MalformedError("it is larger than a MiB")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as fault:
        reason = (str(fault).splitlines() or ["it is not TOML"])[0]
        raise MalformedError(f"it is not TOML: {reason[:100]}") from None


def _meant(value: Any, shape: tuple[int, ...]) -> Preprocessing:
    """The preprocessing that the value of a file says, in whichever keys."""
    match value:
        case {"pretrained_cfg": dict(inner)} | {"default_cfg": dict(inner)}:
            return of_timm(inner)
        case {"crop_pct": _, "input_size": _}:
            return of_timm(value)
        case {"image_processor_type": _} | {"feature_extractor_type": _} | {"do_normalize": _}:
            return of_hugging_face(value, shape[0])
        case {"preprocessing": dict(inner)}:  # a run's record, an artifact's manifest
            return of_own(inner, shape)
        case dict():
            return of_own(value, shape)
        case _:
            raise MalformedError("it is not a table of keys and values")


# Our own


def of_own(value: Mapping[str, Any], shape: tuple[int, ...]) -> Preprocessing:
    """What our own keys say, which are also those of records and manifests.

    Raises: MalformedError where one is unknown or wrong.
    """
    known = [*PreprocessingKeys.__dataclass_fields__]
    for key in value:
        if key not in known:
            raise MalformedError(f"`{key}` is no key of it; {did_you_mean(key, known)}")
    keys = from_json(PreprocessingKeys, dict(value))
    if keys.preset not in PRESETS:
        found = did_you_mean(keys.preset, [*PRESETS])
        raise MalformedError(f"preset: there is no `{keys.preset}`; {found}")
    channels, *size = shape
    how = PRESETS[keys.preset].at((channels, *(keys.size or size)))
    changes: dict[str, Any] = {
        name: given
        for name in ("order", "fit", "scale", "interpolation", "background")
        if (given := getattr(keys, name)) is not None
    }
    is_whole = keys.fit not in (None, "crop") and keys.scale is None
    if is_whole or ("scale" in value and value["scale"] is None):
        changes["scale"] = None
    if keys.order not in (None, how.order):
        how = replace(how, mean=how.mean[::-1], std=how.std[::-1])
    for name, values in (("mean", keys.mean), ("std", keys.std)):
        if values is not None:
            changes[name] = tuple(each / keys.range for each in values)
    if keys.range == 255 and keys.std is None and "preset" not in value:
        changes["std"] = tuple(each / keys.range for each in how.std)
    return replace(how, white=keys.white, **changes)


# timm


def of_timm(value: Mapping[str, Any]) -> Preprocessing:
    """What timm's `pretrained_cfg` says.

    Source: timm, `data/transforms_factory.py`, `transforms_imagenet_eval`.

    Raises: MalformedError where something is missing or wrong, NotDoneHereError where vggc does
        otherwise.
    """
    match value.get("input_size"):
        case [int(_), int(height), int(width)]:
            height, width = _side(height), _side(width)
        case _:
            raise MalformedError("input_size is not channels, height and width")
    ratio = _share(value.get("crop_pct", 0.875), "crop_pct")
    name = value.get("interpolation", "bicubic")
    if not isinstance(name, str) or name not in TIMM:
        raise NotDoneHereError(f"interpolation `{str(name)[:30]}` is not one that vggc has")
    mode = value.get("crop_mode", "center")
    if mode not in ("center", "squash") or (mode == "squash" and ratio != 1):
        raise NotDoneHereError(
            f"crop_mode `{str(mode)[:30]}` with crop_pct {ratio:g} is not done here"
        )
    if mode == "center" and height != width:
        raise NotDoneHereError(
            "pictures that are cut to another shape than a square are not timm's usual"
        )
    return Preprocessing(
        size=(height, width),
        scale=None if mode == "squash" else floor(height / ratio),
        mean=_numbers(value, "mean"),
        std=_numbers(value, "std"),
        fit="squash" if mode == "squash" else "crop",
        interpolation=TIMM[name],
    )


# Hugging Face


PASSED_OVER = frozenset(
    (
        *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map"),
        *("_valid_processor_keys", "return_tensors", "data_format", "input_data_format", "device"),
        *("do_convert_rgb", "do_reduce_labels", "default_to_square", "size_divisor"),
    )
)
"""Keys of `preprocessor_config.json` that change nothing of one picture of three colours."""

READ = frozenset(
    (
        *("do_resize", "size", "resample", "crop_pct", "do_center_crop", "crop_size"),
        *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
        "do_flip_channel_order",
    )
)

LARGE_CONVNEXT = 384
"""From this size on ConvNeXt's pictures are squashed, and cut below it."""


def of_hugging_face(value: Mapping[str, Any], channels: int) -> Preprocessing:
    """What Hugging Face's `preprocessor_config.json` says.

    Source: transformers, `models/*/image_processing_*.py`: in this order resized, cut, brought from
    255 to 1, normalised.

    Raises: MalformedError where something is missing or wrong, NotDoneHereError where vggc does
        otherwise.
    """
    for key, said in value.items():
        if key not in READ | PASSED_OVER and said not in (None, False):
            raise NotDoneHereError(f"`{key}` is {str(said)[:40]}, which vggc does not know")
    if not value.get("do_resize", True):
        raise NotDoneHereError("`do_resize` is false: pictures of any size are no input of a net")
    number = value.get("resample")
    if not isinstance(number, int) or number not in PILLOW:
        raise NotDoneHereError(f"`resample` is {str(number)[:30]}, which is not one that vggc has")
    size, scale, fit = _fitted(value)
    factor = 1 / 255 if value.get("do_rescale", True) else 1.0
    if value.get("do_rescale", True) and value.get("rescale_factor") is not None:
        factor = _number(value["rescale_factor"], "rescale_factor")
    if factor <= 0:
        raise NotDoneHereError(f"`rescale_factor` is {factor:g}")
    mean, std = (0.0,) * channels, (1.0,) * channels
    if value.get("do_normalize", True):
        mean, std = _numbers(value, "image_mean"), _numbers(value, "image_std")
    greatest = factor * 255
    return Preprocessing(
        size=size,
        scale=scale,
        mean=tuple(each / greatest for each in mean) if greatest != 1 else mean,
        std=tuple(each / greatest for each in std) if greatest != 1 else std,
        fit=fit,
        interpolation=PILLOW[number],
        order="bgr" if value.get("do_flip_channel_order") else "rgb",
    )


def _fitted(value: Mapping[str, Any]) -> tuple[tuple[int, int], int | None, Fit]:
    """The size, the length of the shorter side, and how a picture comes to have that size."""
    kind = str(value.get("image_processor_type", value.get("feature_extractor_type", "")))
    wanted = _cut(value)
    match value.get("size"):
        case {"shortest_edge": int(edge)}:
            pass
        case {"height": int(height), "width": int(width)}:
            return _squashed((height, width), wanted)
        case int(edge) if not isinstance(edge, bool):
            by_edge = value.get("default_to_square") is False or "CLIP" in kind
            if not by_edge and "ConvNext" not in kind:
                return _squashed((edge, edge), wanted)
        case other:
            raise NotDoneHereError(f"`size` is {str(other)[:60]}, which vggc does not know")
    if "ConvNext" in kind or "crop_pct" in value:
        if edge >= LARGE_CONVNEXT:
            return (edge, edge), None, "squash"
        share = _share(value.get("crop_pct", 224 / 256), "crop_pct")
        return (edge, edge), int(_side(edge) / share), "crop"
    if wanted is None:
        raise NotDoneHereError("`size` is of the shorter side alone, and nothing is cut out")
    return wanted, edge, "crop"


def _squashed(
    size: tuple[int, int], wanted: tuple[int, int] | None
) -> tuple[tuple[int, int], None, Fit]:
    if wanted not in (None, size):
        raise NotDoneHereError(f"pictures are squashed to {size[0]}x{size[1]}, and then cut")
    return size, None, "squash"


def _cut(value: Mapping[str, Any]) -> tuple[int, int] | None:
    """The size that is cut out of the centre, if something is."""
    if not value.get("do_center_crop", False):
        return None
    match value.get("crop_size"):
        case {"height": int(height), "width": int(width)}:
            return height, width
        case int(side) if not isinstance(side, bool):
            return side, side
        case other:
            raise NotDoneHereError(f"`crop_size` is {str(other)[:60]}, which vggc does not know")


def _side(length: int) -> int:
    if not 1 <= length <= MAX_SIDE:
        raise MalformedError(f"a side is not from 1 to {MAX_SIDE} pixels")
    return length


def _share(value: Any, name: str) -> float:
    """How much of a picture's shorter side is cut out."""
    found = _number(value, name)
    if not LEAST_SHARE <= found <= 1:
        raise NotDoneHereError(f"{name} of {found:g} is not from {LEAST_SHARE} to 1")
    return found


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"{name} is no number")
    if not abs(value) <= MOST:
        raise MalformedError(f"{name} is out of range")
    return float(value)


def _numbers(value: Mapping[str, Any], name: str) -> tuple[float, ...]:
    found = value.get(name)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise MalformedError(f"{name} is no list of numbers")
    return tuple(_number(each, name) for each in found)
