"""Files of weights as other programs write them, each made from its format.

Keras's layouts are those of keras/src/legacy/saving/legacy_h5_format.py (`.h5`) and
keras/src/saving/saving_lib.py (`.keras`, `.weights.h5`) of Keras 3.15, whose own files were
read alike.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]

KERAS_ROLES = {
    "weight": "kernel",
    "bias": "bias",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
NORMALISATION = {"weight": "gamma", "bias": "beta"}

BASIC_BLOCK = ["conv1", "bn1", "conv2", "bn2"]


def write_pytorch(path: Path, what: Any, legacy: bool = False) -> Path:
    """What `torch.save` makes of tensors in tables; arrays become tensors."""
    import torch

    def made(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        return {k: made(v) for k, v in value.items()} if isinstance(value, dict) else value

    torch.save(made(what), path, _use_new_zipfile_serialization=not legacy)
    return path


def of_keras(name: str, tensor: np.ndarray, layers: Mapping[str, int] | None = None) -> np.ndarray:
    """A weight of ours in Keras's order of axes; that of a dense layer behind a map of the shape
    that `layers` tells reads it by rows, columns, channels.
    """
    layer, _, role = name.rpartition(".")
    if role != "weight" or tensor.ndim == 1:
        return tensor
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    seen: Any = (layers or {}).get(layer)
    if seen:
        tensor = tensor.reshape(-1, *seen).transpose(0, 2, 3, 1).reshape(tensor.shape)
    return tensor.T


def layers_of(tensors: Tensors) -> dict[str, dict[str, np.ndarray]]:
    """Tensors by their layers and roles."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        layer, _, role = name.rpartition(".")
        found.setdefault(layer, {})[role] = tensor
    return found


def write_keras_h5(path: Path, tensors: Tensors, below: str | None = "model_weights") -> Path:
    """A file of Keras 2: groups of layers, which say in attributes what they hold, in order; those
    of a whole model lie below `model_weights`.
    """
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group(below) if below else file
        layers = layers_of(tensors)
        root.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers, "flatten")]
        root.attrs["backend"] = b"tensorflow"
        for layer in ("input_1", "flatten"):
            root.create_group(layer).attrs["weight_names"] = np.array([], "S1")
        for layer, roles in layers.items():
            words = KERAS_ROLES | (NORMALISATION if "running_var" in roles else {})
            group = root.create_group(layer)
            names = {role: f"{layer}/{words[role]}:0" for role in roles}
            group.attrs["weight_names"] = [name.encode() for name in names.values()]
            for role, tensor in roles.items():
                group[names[role]] = tensor
    return path


def weights_of_keras_3(tensors: Tensors) -> bytes:
    """A `.weights.h5` of Keras 3: layers are numbered by their kind, and their weights from 0."""
    import h5py

    room = io.BytesIO()
    with h5py.File(room, "w") as file:
        counts: dict[str, int] = {}
        for roles in layers_of(tensors).values():
            kind = "conv2d" if roles["weight"].ndim == 4 else "dense"
            kind = "batch_normalization" if "running_var" in roles else kind
            number = counts[kind] = counts.get(kind, -1) + 1
            group = file.create_group(f"layers/{kind}_{number}" if number else f"layers/{kind}")
            for place, tensor in enumerate(roles.values()):
                group[f"vars/{place}"] = tensor
        file["optimizer/vars/0"] = np.zeros(())
    return room.getvalue()


def write_keras(path: Path, tensors: Tensors, compression: int = zipfile.ZIP_STORED) -> Path:
    """A `.keras` archive of Keras 3."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional"}))
        archive.writestr("model.weights.h5", weights_of_keras_3(tensors))
    return path


def torchvision_resnet(stages: int, blocks: int) -> list[str]:
    """The modules of torchvision's ResNet of basic blocks with weights, as its class makes them."""
    found = ["conv1", "bn1"]
    for stage in range(1, stages + 1):
        for block in range(blocks):
            found += [f"layer{stage}.{block}.{module}" for module in BASIC_BLOCK]
            if block == 0 and stage > 1:
                found += [f"layer{stage}.0.downsample.{i}" for i in (0, 1)]
    return [*found, "fc"]


def renamed(tensors: Tensors, modules: list[str]) -> dict[str, np.ndarray]:
    """Tensors of a net whose layers with weights have other names, in order."""
    layers = layers_of(tensors)
    return {
        f"{module}.{role}": tensor
        for module, roles in zip(modules, layers.values(), strict=True)
        for role, tensor in roles.items()
    }
