"""Nets of torchvision and timm, by their names: `torchvision:vgg16`, `timm:vgg16_bn`.

The packages are imported where they are installed, and nothing is ever downloaded: weights are
those of a file, those that the package has in its cache already, or random.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from vggc.importing.aten import NoOperatorError, graph_of
from vggc.importing.definitions import (
    ModuleUntraceable,
    ModuleWithoutWords,
    NoSuchModule,
    PackageMissing,
    StateUnfit,
)
from vggc.importing.foreign import Foreign, OwnEngine
from vggc.ir.ops import Pair, Shape
from vggc.support.diagnostics import UserError, did_you_mean, first_line, nearest
from vggc.weight_files.facts import WeightFacts
from vggc_runtime.files import open_file
from vggc_runtime.preprocessing import Interpolation, Preprocessing

INTERPOLATIONS: Mapping[str, Interpolation] = {
    "nearest": "nearest",
    "nearest-exact": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "box": "box",
}
SEED = 0
"""Random weights are always the same."""
FROM_HUBS = (":", "/")
"""Signs in names of timm's that stand for something to be downloaded, or for a folder."""


@dataclass(frozen=True)
class PackagedModule:
    """A module with random weights, what its package tells of its pictures and classes, and the
    files in which the package would keep published weights, the best first.
    """

    module: nn.Module
    shape: Shape
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    cached: tuple[Path, ...]


@dataclass(frozen=True)
class TorchEngine:
    """A module, computed by torch."""

    title: str
    module: nn.Module
    names: tuple[str, ...]

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Each output of the module by its name in the graph."""
        with torch.inference_mode():
            found = self.module(torch.from_numpy(images))
        given = [*found.values()] if isinstance(found, dict) else found
        outputs = [given] if isinstance(given, torch.Tensor) else [*given]
        arrays = (each.float().numpy() for each in outputs)
        return dict(zip(self.names, arrays, strict=True))


def read_module(spec: str, weights: Path | None = None, size: Pair | None = None) -> Foreign:
    """The net that `torchvision:NAME` or `timm:NAME` stands for, traced for pictures of `size`
    (H, W), or of that which its package tells.

    `weights` is a state dict, of torch's or in safetensors.

    Raises: UserError where the package is not there or has no such net, the weights are not its,
    or an operator is none that nets of the language have.
    """
    package, _, name = spec.partition(":")
    described = _described(spec, package, name)
    module = described.module
    path = weights or next((each for each in described.cached if each.is_file()), None)
    if path is not None:
        _load(spec, module, path)
    shape = described.shape if size is None else (described.shape[0], *size)
    program = _traced(spec, module, shape)
    try:
        graph, outputs = graph_of(program)
    except NoOperatorError as error:
        hint = "nets of convolutions, pools and dense layers come in"
        raise UserError(ModuleWithoutWords(spec, error.what, error.where, hint)) from None
    names = tuple(each.name for each in outputs)
    preprocessing = described.preprocessing if size is None else None

    def start() -> OwnEngine:
        return TorchEngine(f"torch {torch.__version__}", module, names)

    version = import_module(package).__version__
    return Foreign(
        model=graph.model(outputs),
        tensors=graph.read_tensors(),
        name=name,
        files=(spec, *([str(path)] if path else [])),
        sha256=_sha256(path) if path else "",
        facts=WeightFacts(
            preprocessing=preprocessing,
            classes=described.classes if path is not None and weights is None else (),
            source=f"{package} {version}, {path.name if path else 'random weights'}",
        ),
        engine=start,
        notes=(_told(package, path, weights is not None),),
    )


def _told(package: str, path: Path | None, is_given: bool) -> str:
    """Where the weights come from."""
    if path is None:
        return f"the weights are random: no file is given, and {package} has none in its cache"
    return f"the weights are those of {path}" + ("" if is_given else f", in {package}'s cache")


def _described(spec: str, package: str, name: str) -> PackagedModule:
    if find_spec(package) is None:
        raise UserError(PackageMissing(spec, package, "it is not installed"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = import_module(package)
    except Exception as error:  # whatever a package that does not fit this torch does
        raise UserError(PackageMissing(spec, package, first_line(error))) from None
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(SEED)
        return _of_torchvision(found, name) if package == "torchvision" else _of_timm(found, name)


def _refuse_unknown(package: str, name: str, known: Sequence[str], reason: str) -> None:
    if name not in known:
        hint = did_you_mean(name, known) if nearest(name, known) else f"{package} lists its nets"
        raise UserError(NoSuchModule(package, name, reason, hint))


def _of_torchvision(torchvision: Any, name: str) -> PackagedModule:
    models = torchvision.models
    known = models.list_models(module=models)
    _refuse_unknown("torchvision", name, known, "it is none of those that name classes")
    module = models.get_model(name, weights=None).eval()
    published = [*models.get_model_weights(name)]
    best = models.get_model_weights(name).DEFAULT
    published.sort(key=lambda each: each is not best)
    how = best.transforms()
    side = how.crop_size[0]
    mean, std = tuple(how.mean), tuple(how.std)
    if getattr(module, "transform_input", None) is not None:
        # Published weights of these want other values, which the net makes of those of the
        # others by itself. Source: `_transform_input` of inception.py and googlenet.py.
        module.transform_input = False
        mean = std = (0.5, 0.5, 0.5)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return PackagedModule(
        module=module,
        shape=(3, side, side),
        preprocessing=Preprocessing(
            size=(side, side),
            scale=how.resize_size[0],
            mean=mean,
            std=std,
            interpolation=INTERPOLATIONS.get(how.interpolation.value, "bilinear"),
        ),
        classes=tuple(best.meta.get("categories", ())),
        cached=tuple(folder / each.url.rpartition("/")[2] for each in published),
    )


def _of_timm(timm: Any, name: str) -> PackagedModule:
    plain = name.partition(".")[0]
    reason = "it is none that timm builds by itself"
    if any(sign in name for sign in FROM_HUBS):
        raise UserError(NoSuchModule("timm", name, reason, "give the name of an architecture"))
    _refuse_unknown("timm", plain, timm.list_models(), reason)
    try:
        module = timm.create_model(name, pretrained=False).eval()
    except RuntimeError as error:
        raise UserError(NoSuchModule("timm", name, first_line(error), "")) from None
    told = timm.data.resolve_model_data_config(module)
    channels, height, width = told["input_size"]
    is_squashed = told.get("crop_mode") == "squash"
    preprocessing = Preprocessing(
        size=(height, width),
        scale=None if is_squashed else max(height, width, int(height / told["crop_pct"])),
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        fit="squash" if is_squashed else "crop",
        interpolation=INTERPOLATIONS.get(told["interpolation"], "bicubic"),
    )
    return PackagedModule(
        module=module,
        shape=(channels, height, width),
        preprocessing=preprocessing,
        classes=(),
        cached=_cached_by_timm(getattr(module, "pretrained_cfg", {})),
    )


def _cached_by_timm(told: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where published weights of a net of timm's lie, if they are in a cache."""
    found = []
    if (hub := told.get("hf_hub_id")) and find_spec("huggingface_hub"):
        look: Any = import_module("huggingface_hub").try_to_load_from_cache
        for file in ("model.safetensors", "pytorch_model.bin"):
            place = look(hub, told.get("hf_hub_filename") or file)
            found += [Path(place)] if isinstance(place, str) else []
    if url := told.get("url"):
        found.append(Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2])
    return tuple(found)


def _load(spec: str, module: nn.Module, path: Path) -> None:
    """Gives a module the weights in a file, which take no memory of their own where the file can
    be mapped.

    Raises: UserError where it holds others, or none.
    """
    state = _state_in(spec, path)
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("_tracked")]
    if missing:
        hint = did_you_mean(missing[0], [*state]) if nearest(missing[0], [*state]) else ""
        raise UserError(StateUnfit(str(path), spec, f"it has no `{missing[0]}`", hint))
    for name, tensor in wanted.items():
        if name in state and state[name].shape != tensor.shape:
            theirs, ours = ("×".join(map(str, each.shape)) for each in (state[name], tensor))
            reason = f"`{name}` is of {theirs or 'one number'} there, of {ours} in the net"
            raise UserError(StateUnfit(str(path), spec, reason))
    taken = {name: state[name].to(tensor.dtype) for name, tensor in wanted.items() if name in state}
    module.load_state_dict(taken, strict=False, assign=True)


def _state_in(spec: str, path: Path) -> dict[str, torch.Tensor]:
    """The tensors by their names in a file of torch's or of safetensors."""
    try:
        open_file(path).close()
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        is_mapped = is_zipfile(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # whatever a decoder does on hostile bytes
        raise UserError(StateUnfit(str(path), spec, first_line(error))) from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise UserError(StateUnfit(str(path), spec, "it is no table of tensors"))
    return {
        str(name).removeprefix("module."): tensor
        for name, tensor in found.items()
        if isinstance(tensor, torch.Tensor)
    }


def _traced(spec: str, module: nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    images = torch.zeros(1, *shape)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (images,), strict=False)
    except Exception as error:  # whatever code of others does while it is traced
        raise UserError(ModuleUntraceable(spec, first_line(error))) from None


def _sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
