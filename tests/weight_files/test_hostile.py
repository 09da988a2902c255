"""Files that nobody should trust: what would run code, leads elsewhere or has no end is refused."""

from __future__ import annotations

import io
import pickle
import resource
import shlex
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.nets import graph_of
from tests.support.weight_files import of_keras, write_keras, write_keras_h5, write_pytorch
from vggc.ir.weights import seeded
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load

GRAPH = graph_of("conv3-4 | pool | fc-6 | fc-3")
WEIGHTS = seeded(GRAPH, 0)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path, GRAPH)
    return str(caught.value)


# Code


class Call:
    """What a pickle would call when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_calls_something_is_not_run(tmp_path: Path, legacy: bool) -> None:
    state = {**WEIGHTS, "epoch": Call(tmp_path / "called")}
    text = refusal(write_pytorch(tmp_path / "net.pth", state, legacy))
    assert "cannot be read without running code from that file" in text
    assert "it holds more than tensors: `pathlib.Path.touch`" in text or "getattr" in text
    assert not (tmp_path / "called").exists()


def convert(text: str) -> None:
    """Runs the command that a refusal names."""
    command = text.partition("this makes a file of weights alone: ")[2]
    python, option, code = shlex.split(command)
    assert (python, option) == ("python", "-c")
    exec(code, {})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["module", "checkpoint", "script", "pickle"])
def test_the_command_that_is_named_makes_weights_of_it(tmp_path: Path, kind: str) -> None:
    import torch
    from torch import nn

    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(120, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip
    path = tmp_path / "a net's.pth"
    match kind:
        case "module":
            torch.save(module, path)
        case "checkpoint":
            torch.save({"model": module, "epoch": 3}, path)
        case "script":
            torch.jit.trace(module, torch.zeros(1, 3, 13, 11)).save(path)
        case "pickle":
            state = {name: each.numpy() for name, each in module.state_dict().items()}
            path.write_bytes(pickle.dumps(state))
    convert(refusal(path))
    loaded = load(tmp_path / "a net's-weights.pth", GRAPH)
    assert np.array_equal(loaded.weights["fc3.bias"], module[6].bias.detach().numpy())


def test_the_tar_of_the_first_pytorch_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.pth", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"\x80\x02N."))
    text = refusal(tmp_path / "old.pth")
    assert "it is of the form that PyTorch wrote before 0.1.10" in text
    assert "torch.load(" in text


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    """Where PyTorch's archives and Keras's are compressed, somebody else has made them."""
    with zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(1 << 26))
    assert "which torch.save does not do" in refusal(tmp_path / "net.pth")
    pytest.importorskip("h5py")
    write_keras(tmp_path / "net.keras", {}, zipfile.ZIP_DEFLATED)
    assert "which Keras does not do" in refusal(tmp_path / "net.keras")


def test_a_tensor_that_claims_more_than_its_storage_is_refused(tmp_path: Path) -> None:
    import torch

    huge = torch.zeros(1).expand(1 << 40)
    tracemalloc.start()
    refusal(write_pytorch(tmp_path / "net.pth", {**WEIGHTS, "fc3.bias": huge}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_tuples_in_one_another_without_end_are_refused(tmp_path: Path) -> None:
    """To hash the last one, as the key of a table, takes 10⁶⁰ steps."""
    nested = b")q\x00"
    for number in range(1, 60):
        nested += b"(" + 10 * bytes([ord("h"), number - 1]) + b"tq" + bytes([number])
    table = b"\x80\x02" + nested + b"}h\x3bK\x01s."
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("net/data.pkl", table)
    assert "holds tuples in one another without end" in refusal(tmp_path / "net.pth")


def test_an_archive_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", a=np.zeros(3))
    assert "not an archive that torch.save has written" in refusal(tmp_path / "net.npz")


@pytest.mark.parametrize("what", [3, [1, 2], {}, {"a": 3}, {"a": {"b": {}}}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, what: Any) -> None:
    assert "no table of tensors by their names" in refusal(
        write_pytorch(tmp_path / "net.pth", what)
    )


# HDF5


def link_elsewhere(file: Any) -> None:
    import h5py

    del file["conv1_1/conv1_1/kernel:0"]
    file["conv1_1/conv1_1/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def link_softly(file: Any) -> None:
    import h5py

    del file["conv1_1"]
    file["conv1_1"] = h5py.SoftLink("/conv1_1")


def values_elsewhere(file: Any) -> None:
    del file["fc3/fc3/bias:0"]
    file["fc3/fc3"].create_dataset("bias:0", (3,), "f4", external=[("/etc/passwd", 0, 12)])


def values_of_others(file: Any) -> None:
    import h5py

    del file["fc3/fc3/bias:0"]
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
    file["fc3/fc3"].create_virtual_dataset("bias:0", layout)


def huge_shape(file: Any) -> None:
    del file["fc3/fc3/bias:0"]
    file["fc3/fc3"].create_dataset("bias:0", (1 << 40,), "f4", chunks=(1 << 10,))


def huge_parts(file: Any) -> None:
    del file["fc3/fc3/bias:0"]
    file["fc3/fc3"].create_dataset(
        "bias:0", (3,), "f4", chunks=(1 << 28,), maxshape=(None,), compression="gzip"
    )


def a_text(file: Any) -> None:
    del file["fc3/fc3/bias:0"]
    file["fc3/fc3/bias:0"] = "text"


HDF5 = {
    link_elsewhere: "`kernel:0` is a link to another place",
    link_softly: "`conv1_1` is a link to another place",
    values_elsewhere: "`/fc3/fc3/bias:0` lie in other files",
    values_of_others: "`/fc3/fc3/bias:0` lie in other files",
    huge_shape: "the file holds (1099511627776,)",
    huge_parts: "the parts of its `/fc3/fc3/bias:0` are larger than the whole",
    a_text: "`/fc3/fc3/bias:0` is no table of numbers",
}


@pytest.mark.parametrize("change", HDF5, ids=lambda change: change.__name__)
def test_what_keras_does_not_write_is_refused_by_name(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    h5py = pytest.importorskip("h5py")
    keras = {name: of_keras(name, each) for name, each in WEIGHTS.items()}
    path = write_keras_h5(tmp_path / "net.h5", keras, None)
    with h5py.File(path, "r+") as file:
        change(file)
    assert HDF5[change] in refusal(path)


def test_a_name_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """Names lie elsewhere in the file; a list holds how long each is, where it lies and its number
    there.
    """
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        file.attrs.create("layer_names", ["conv1_1"], dtype=h5py.string_dtype())
    content = path.read_bytes()
    heap = content.index(b"GCOL").to_bytes(8, "little")
    reference = len("conv1_1").to_bytes(4, "little") + heap
    assert content.count(reference) == 1
    path.write_bytes(content.replace(reference, (0xFFFFFFF0).to_bytes(4, "little") + heap))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit = resource.getrlimit(resource.RLIMIT_AS)
    assert "HDF5 cannot read it" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


def test_groups_in_a_circle_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        group = file.create_group("layers/conv2d")
        group["again"] = file["layers"]
    assert "holds itself, or groups too deeply" in refusal(tmp_path / "net.weights.h5")
