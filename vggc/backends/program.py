"""Graph to a program of `torch.export`, in a file whose weights are written from where they lie."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter
from torch.export.pt2_archive.constants import (
    CONSTANTS_DIR,
    EXTRA_DIR,
    MODELS_DIR,
    SAMPLE_INPUTS_DIR,
    WEIGHT_FILENAME_PREFIX,
    WEIGHTS_CONFIG_FILENAME_FORMAT,
    WEIGHTS_DIR,
)

from vggc.backends.torch import TorchNet, build
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.support.signals import held

MODEL = "model"
"""What PyTorch calls the only program of an archive."""


def save_program(
    graph: Graph, weights: Weights, path: Path, extra_files: Mapping[str, str]
) -> None:
    """Writes the graph as a `torch.export` program `(N, C, H, W)`, N free, and texts beside it.

    It gives what `TorchNet` does: a tensor, or a dict of several heads' by name. The weight
    `fc6.weight` is called `layer_fc6.weight` in it.
    """
    example = torch.zeros(2, *graph.input)
    free = {"x": {0: torch.export.Dim("batch", min=1)}}
    module = in_modules(build(graph, weights)).eval()
    program = torch.export.export(module, (example,), dynamic_shapes=free)
    with path.open("wb") as file, held():
        kept = Kept(file)
        _write(program, kept, extra_files)
        if kept.fault:
            raise kept.fault


def in_modules(net: TorchNet) -> TorchNet:
    """The net, its weights moved to modules inside one another, where torch.export looks for them
    and whoever loads a program: `fc6.weight` is then `layer_fc6.weight`. No module has anything
    else called `layer_…`. Python reads some letters as others (`ﬁ` as `fi`), but not behind a
    hyphen: `layer-ﬁ.weight`.
    """
    for name, tensor in net.state_dict(keep_vars=True).items():
        start = "layer_" if unicodedata.is_normalized("NFKC", name) else "layer-"
        *owners, role = f"{start}{name}".split(".")
        module: nn.Module = net
        for part in owners:
            module = module._modules.setdefault(part, nn.Module())  # type: ignore[assignment]
        kept = net._parameters if name in net._parameters else net._buffers
        del kept[name]
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(role, tensor)
        else:
            module.register_buffer(role, tensor)
        net.moved[name] = module, role
    return net


def _write(program: ExportedProgram, file: Kept, extra_files: Mapping[str, str]) -> None:
    """Writes what `torch.export.save` would, which copies each weight twice.

    PyTorch is given weights without values, and the values are put in the place of the empty
    records.
    """
    values: dict[str, Tensor] = dict(program.state_dict)
    fake = FakeTensorMode()
    for name, tensor in values.items():
        program.state_dict[name] = fake.from_tensor(tensor)
    hollow = io.BytesIO()
    torch.export.save(program, hollow)
    places = {name: f"{WEIGHT_FILENAME_PREFIX}{index}" for index, name in enumerate(values)}
    config_path = WEIGHTS_CONFIG_FILENAME_FORMAT.format(MODEL)
    with PT2ArchiveReader(hollow) as read, PT2ArchiveWriter(file) as archive:  # type: ignore[arg-type]  # it only writes
        config = json.loads(read.read_bytes(config_path))
        for name, entry in config["config"].items():
            entry["path_name"] = places[name]
        for name, tensor in values.items():
            storage = (tensor.clone() if tensor.storage_offset() else tensor).untyped_storage()
            place = f"{WEIGHTS_DIR}{places[name]}"
            archive.archive_file.write_record(place, storage, tensor.nbytes)  # type: ignore[arg-type]  # its stub knows typed ones only
        archive.write_string(config_path, json.dumps(config))
        for name in read.get_file_names():
            if name.startswith((CONSTANTS_DIR, MODELS_DIR, SAMPLE_INPUTS_DIR)):
                archive.write_bytes(name, read.read_bytes(name))
        for name, text in extra_files.items():
            archive.write_string(f"{EXTRA_DIR}{name}", text)


class Kept(io.RawIOBase):
    """A file for PyTorch's writer, which ends the process where a write fails or is interrupted:
    the first `fault` is kept, and what comes after it is passed over.

    It is a stream that goes back, as PyTorch warns of any other; nobody reads it, so it need not.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file
        self.fault: OSError | None = None

    def writable(self) -> bool:
        """Whether it can be written to: always."""
        return True

    def seekable(self) -> bool:
        """Whether it goes back: PyTorch asks for it."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Stays where it is and says that it is at 0, as nobody reads it."""
        return 0

    def write(self, data: Any) -> int:
        """Writes `data` unless a write has failed; gives its length in any case."""
        try:
            if self.fault is None:
                self.file.write(data)
        except OSError as fault:
            self.fault = fault
        return len(data)

    def flush(self) -> None:
        """Does nothing yet: the file is closed behind it."""
