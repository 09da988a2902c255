"""Which reader takes the files that somebody names, by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from vggc.importing.caffe import read_caffe
from vggc.importing.darknet import read_darknet
from vggc.importing.diagnostics import ForeignUnreadable, NoNetIn, WhatTogether
from vggc.importing.foreign import Foreign
from vggc.importing.onnx_file import is_onnx, read_onnx
from vggc.ir.ops import Pair
from vggc.support.diagnostics import UserError
from vggc.weight_files.mistaken import Mistaken, is_text, mistaken, text_instead
from vggc_runtime.files import open_file

LOOKED_AT = 4096
"""Bytes of a file that tell its form."""
SAVED_MODEL = "saved_model.pb"
TENSORFLOW = (
    "is it TensorFlow's? make it ONNX: python -m tf2onnx.convert --saved-model FOLDER "
    "--output NET.onnx"
)
NUMBERS: Mapping[str, str] = {
    ".onnx": "ONNX file",
    ".caffemodel": "file of Caffe's weights",
    ".weights": "file of Darknet's weights",
    ".pth": "file of weights",
    ".pt": "file of weights",
    ".safetensors": "file of weights",
    ".h5": "file of weights",
}
"""Endings of files that are no texts, and what these are."""
ZIP = b"PK\x03\x04"

FileForm: TypeAlias = Literal["onnx", "caffe", "darknet", "weights"]
"""What a file holds: a net of ONNX, a definition of Caffe or of Darknet, or weights alone."""

DEFINED: Mapping[FileForm, Callable[[Path, Path | None], Foreign]] = {
    "caffe": read_caffe,
    "darknet": read_darknet,
}
"""The readers of definitions, which take a file of weights besides."""


PACKAGES = ("torchvision", "timm")
"""Packages whose nets are named: `torchvision:vgg16`."""


def is_module(word: str) -> bool:
    """Whether a word names a net of one of the packages."""
    package, sign, _ = word.partition(":")
    return bool(sign) and package in PACKAGES


def read_net(named: Sequence[str], size: Pair | None = None) -> Foreign:
    """The net that files hold together, or the one of a package that is named, with the weights in
    a file or without. `size` (H, W) is that of pictures, where the net leaves it open.

    Raises: UserError where there is none in them, they do not belong together, or are damaged.
    """
    if any(map(is_module, named)):
        return _module(named, size)
    forms = [(Path(each), form_of(Path(each))) for each in named]
    definitions = [(path, form) for path, form in forms if form != "weights"]
    weights = [path for path, form in forms if form == "weights"]
    match definitions, weights:
        case [(path, "onnx")], []:
            return read_onnx(path)
        case [(path, ("caffe" | "darknet") as form)], ([] | [_]):
            return DEFINED[form](path, weights[0] if weights else None)
        case [], [path]:
            raise UserError(NoNetIn(str(path)))
        case _:
            raise UserError(WhatTogether(", ".join(named)))


def _module(named: Sequence[str], size: Pair | None) -> Foreign:
    from vggc.importing.torch_module import read_module

    match named:
        case [spec] if is_module(spec):
            return read_module(spec, size=size)
        case [spec, weights] if is_module(spec):
            return read_module(spec, Path(weights), size)
        case _:
            raise UserError(WhatTogether(", ".join(named)))


def _other(path: Path, start: bytes) -> Mistaken | None:
    """What a file is instead of a net or its weights, if that is known."""
    wanted = NUMBERS.get(path.suffix.lower())
    if found := mistaken(start):
        return found
    if wanted and is_text(start):
        return text_instead(start, wanted)
    if start.startswith(ZIP) and wanted == NUMBERS[".onnx"]:
        return Mistaken("an archive", "unpack it, and give the ONNX file that is in it")
    if path.suffix.lower() == ".pb" and not is_onnx(start):
        return Mistaken("no ONNX file", TENSORFLOW)
    return None


def form_of(path: Path) -> FileForm:
    """What a file holds, by how it begins. Raises: UserError where it cannot be read."""
    try:
        with open_file(path) as file:
            start = file.read(LOOKED_AT)
    except IsADirectoryError as error:
        hint = TENSORFLOW if (path / SAVED_MODEL).exists() else "give a file in it"
        raise UserError(ForeignUnreadable(str(path), str(error.strerror), hint)) from None
    except OSError as error:
        raise UserError(ForeignUnreadable(str(path), error.strerror or str(error))) from None
    if other := _other(path, start):
        raise UserError(ForeignUnreadable(str(path), other.reason, other.hint))
    if is_onnx(start):
        return "onnx"
    if b"\0" in start:
        return "weights"
    try:
        text = start.decode("utf-8", "strict" if len(start) < LOOKED_AT else "ignore")
    except UnicodeDecodeError:
        return "weights"
    told = [line for line in map(str.strip, text.splitlines()) if line and line[0] not in "#;"]
    return "darknet" if told and told[0].startswith("[") else "caffe"
