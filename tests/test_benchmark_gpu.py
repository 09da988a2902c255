"""The bundle that measures kernels on a card: what it holds, and that it runs to its end."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cuda.bindings import driver as cuda

from tests.support import ROOT
from tests.support.cuda_on_cpu import generate_all
from vggc.cli import cli
from vggc.ir.ops import RELU, Activation
from vggc.kernels.cuda import H200, algorithms, choices
from vggc.kernels.cuda.packing import (
    ChannelOrder,
    DensePanelPacking,
    PanelPacking,
    RowPacking,
    TapsFirst,
    restored,
    stored,
)
from vggc.kernels.reference import reference
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Convert,
    Dense,
    Format,
    Lrn,
    Map,
    MaxPool,
    Packing,
    Softmax,
    ToNhwc,
    Workload,
)
from vggc.runtime.artifact import sound_manifest
from vggc.support.records import to_json
from vggc.support.tvm_alone import tvm
from vggc.tuning import lookup
from vggc.tuning.database import read
from vggc.tuning.revision import revision

NET = """net small
input 3x8x8
conv3-32 | pool | (add(conv3-32 act=none, skip) | relu) | concat(pool3 stride=1 padding=1, skip)
| gap | fc-10 | softmax

head second:
  @concat1 | gap | fc-10 | softmax
"""


@pytest.fixture(scope="module")
def card() -> Iterator[SimpleNamespace]:
    """The modules of `benchmarks/card`."""
    names = ["device", "driver", "journal", "kernels", "making", "nets", "parts", "peers"]
    names += ["report", "runner", "steps", "tables", "values", "feeding", "modules"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        found: dict[str, ModuleType] = {name: import_module(f"card.{name}") for name in names}
        yield SimpleNamespace(**found)


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.vgg"
    path.write_text(NET, encoding="utf-8")
    return path


def halves(map: Map, form: Format = "float16") -> Map:
    """A map of halves as kernels for GPUs read it."""
    return replace(map, format=form, vector=8)


def conv(
    shape: tuple[int, int, int, int],
    channels: int,
    stride: int = 1,
    pool: bool = False,
    act: Activation | None = RELU,
    form: Format = "float16",
) -> Conv:
    """A 3×3 convolution of a map `(N, H, W, C)` with a halo."""
    batch, height, width, _ = shape
    scale = 2 if pool else stride
    size = (height // scale, width // scale) if pool else (-(-height // scale), -(-width // scale))
    return Conv(
        input=halves(Map(*shape, halo=1), form),
        output=halves(Map(batch, *size, channels, halo=1), form),
        kernel=(3, 3),
        stride=(stride, stride),
        padding=(1, 1),
        act=act,
        pool=pool,
    )


WORKS: dict[str, Workload] = {
    "planes": ToNhwc(halves(Map(2, 4, 6, 3, 1))),
    "conv": conv((1, 9, 8, 16), 24, stride=2, act=None),
    "pooled": conv((2, 9, 7, 5), 12, pool=True),
    "dense": Conv(
        input=halves(Map(3, 2, 4, 8)),
        output=Map(3, 1, 1, 21),
        kernel=(2, 4),
        stride=(1, 1),
        padding=(0, 0),
        act=RELU,
    ),
    "rows": Dense(2, 9, 5, RELU),
    "maximum": MaxPool(
        input=halves(Map(2, 9, 8, 20, 1)),
        output=halves(Map(2, 5, 4, 20, 1)),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
    ),
    "mean": AvgPool(
        input=halves(Map(1, 13, 12, 20, 1)),
        output=halves(Map(1, 7, 6, 20, 2)),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
    ),
    "sum": Add((halves(Map(2, 4, 3, 19)), halves(Map(2, 4, 3, 19, 1))), Map(2, 4, 3, 19), RELU),
    "concat": Concat((halves(Map(2, 4, 3, 5)), halves(Map(2, 4, 3, 16))), Map(2, 4, 3, 21)),
    "lrn": Lrn(halves(Map(2, 3, 4, 9)), Map(2, 3, 4, 9), 5, 1e-2, 0.75, 2.0),
    "softmax": Softmax(3, 7),
    "format": Convert(halves(Map(1, 3, 4, 11, 1)), Map(1, 3, 4, 11)),
}
"""What the layers of nets like VGG are as workloads."""


ABORTS, NOTHING = "__builtin_trap();", ""


def spoil(bundle: Any, kernel: str, body: str) -> None:
    """Puts other code in the place of a kernel."""
    row = bundle.tables.kernels[kernel]
    launch = row.launches[0]
    source = f'extern "C" void run_{launch.function}() {{ {body} }}\n'
    source += f'extern "C" const int num_arguments_{launch.function} = {len(launch.arguments)};'
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(bundle.folder / row.module)]
    subprocess.run(command, input=source, text=True, check=True)


@dataclass(frozen=True)
class Run:
    """A run of a small net's bundle on the emulated card, three of whose kernels are spoiled."""

    tables: Any
    folder: Path
    told: str
    crashing: str
    no_code: str
    wrong: str

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found


@pytest.fixture(scope="module")
def run(card: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    small, tiny = folder / "small.vgg", folder / "tiny.vgg"
    small.write_text(NET, encoding="utf-8")
    tiny.write_text("net tiny\ninput 3x8x8\nconv3-16 | pool | fc-5 | softmax\n", encoding="utf-8")
    nets = (
        card.making.NetWish(str(small), "float16", (2,), 2),
        card.making.NetWish(str(tiny), "float32", (2,)),
        card.making.NetWish(str(tiny), "int8", (2,)),
    )
    wish = card.making.BundleWish(nets, emulated=True)
    tables = card.making.make(wish, folder / "bundle")
    assert tables.about["left_out"] == []
    bundle = card.tables.Bundle(folder / "bundle")
    by_layer = {row.layers[0]: row for row in tables.workloads.values() if row.worth == 0}
    crashing = by_layer["fc2"].kernels[1]
    spoil(bundle, crashing, ABORTS)
    wrong = by_layer["add1_conv1"].kernels[0]
    spoil(bundle, wrong, NOTHING)
    no_code = by_layer["conv1_1"].kernels[0]
    (bundle.folder / tables.kernels[no_code].module).write_bytes(b"no machine code at all")
    command = [sys.executable, str(bundle.folder / "run.py"), "--out", str(folder / "results")]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Run(tables, folder / "results", done.stdout, crashing, no_code, wrong)


@pytest.mark.slow
def test_a_small_net_goes_all_the_way_whatever_becomes_of_a_kernel(
    card: SimpleNamespace, run: Run
) -> None:
    parts = run.results["parts"]
    assert list(parts) == card.parts.keys(run.tables)
    failed = {key: part["error"] for key, part in parts.items() if part["error"]}
    assert failed.pop(f"check:{run.crashing}").startswith("the process ended with -")
    assert "cuModuleLoadData" in failed.pop(f"check:{run.no_code}")
    assert "some of the output is not written" in failed.pop(f"check:{run.wrong}")
    assert all("tensorrt" in key for key in failed)
    net = parts["nets:small/float16/2"]["result"]
    assert set(net["seconds"]) == {"launches", "graph", "tuned", "dependent", "torch graph"}
    assert all(0 < error < 1e-3 for error in net["errors"].values())
    assert not {run.no_code, run.wrong} & {*net["kernels"]["graph"]}
    assert parts["peers:small/float16/2/onnxruntime"]["result"]["error"] < 1e-3
    assert (run.folder / parts["profile:0"]["result"]["file"]).exists()
    for precision, limit in (("float32", 1e-6), ("int8", 2e-2)):
        found = parts[f"others:net:tiny/{precision}/2"]["result"]
        assert set(found["seconds"]) == {"graph", "torch graph"}
        assert 0 < max(found["errors"].values()) < limit
    assert "The card is emulated" in run.told


@pytest.mark.slow
def test_what_was_measured_decides_when_a_net_is_compiled(
    card: SimpleNamespace, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, results = run.results, tmp_path / "results.json"
    slow_first = {}
    for row in (each for each in run.tables.workloads.values() if each.worth == 0):
        kernels = [run.tables.kernels[name] for name in row.kernels]
        said = [one for one in measured["records"]["kernels"] if one["workload"] == row.workload]
        timed = [one for one in said if one["seconds"]]
        for rank, one in enumerate(timed):
            one["seconds"] = 1e-3 / (1 + rank)
        if len(kernels) > 1:
            last = timed[-1]["algorithm"], timed[-1]["knobs"]
            slow_first |= dict.fromkeys(row.layers, last)
    results.write_text(json.dumps(measured))
    with pytest.raises(card.making.BundleError, match="is of an emulated card"):
        list(card.feeding.feed(results, tmp_path / "records"))
    *_, told = card.feeding.feed(results, tmp_path / "records", emulated=True)
    assert told.endswith("on emulated (sm_90, 132 multiprocessors)")

    monkeypatch.setattr(lookup, "SHIPPED", tmp_path / "records")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "small.vgg").write_text(NET, encoding="utf-8")
    options = ["--target", "cuda", "--arch", "sm_90a", "--precision", "float16", "--batch", "2"]
    places = [str(tmp_path / "small.vgg"), "-o", str(tmp_path / "art")]
    done = CliRunner().invoke(cli, ["compile", *places, *options])
    assert done.exit_code == 0, done.stderr
    assert f"{len(slow_first)} of {len(slow_first)} kernels tuned" in done.stderr
    assert "records of emulated (sm_90, 132 multiprocessors) decide on" in done.stderr
    (entry,) = sound_manifest(tmp_path / "art").entries
    tuned = {each.layer: each for each in entry.kernels if each.chosen_by == "measurement"}
    assert {name: (one.algorithm, one.knobs) for name, one in tuned.items()} == slow_first


@pytest.mark.slow
def test_a_bundle_has_machine_code_and_how_to_launch_it(
    card: SimpleNamespace, net_file: Path, tmp_path: Path
) -> None:
    wish = card.making.BundleWish((card.making.NetWish(str(net_file)),))
    made = card.making.make(wish, tmp_path / "bundle")
    assert made.about["left_out"] == []
    bundle = card.tables.Bundle(tmp_path / "bundle")
    tables = bundle.tables
    assert tables == made
    assert card.making.num_bytes(bundle.folder) < card.making.MOST_BYTES
    assert [row.batch for row in tables.nets] == [1]
    for kernel in tables.kernels.values():
        code = bundle.read(kernel.module)
        assert code.startswith(b"\x7fELF")
        assert all(launch.function.encode() in code for launch in kernel.launches)
    assert not list((bundle.folder / "card").glob("making*"))


def test_a_net_with_a_layer_that_peers_do_not_know_here_is_refused(
    card: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "net.vgg"
    path.write_text("net n\ninput 3x8x8\nconv3-8 act=silu | gap | fc-2 | softmax\n")
    wish = card.making.BundleWish((card.making.NetWish(str(path)),))
    with pytest.raises(card.making.BundleError, match="is not written down for torch"):
        card.making.make(wish, tmp_path / "bundle")


def test_a_bundle_that_is_too_large_to_travel_is_refused(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").write_bytes(bytes(3 << 20))
    card.making.require_small(tmp_path)
    monkeypatch.setattr(card.making, "MOST_BYTES", 2 << 20)
    with pytest.raises(card.making.BundleError, match=r"takes 3\.0 MiB, more than 2"):
        card.making.require_small(tmp_path)


def test_choices_are_the_best_of_each_algorithm_and_differ_in_their_tiles(
    card: SimpleNamespace,
) -> None:
    work = conv((1, 28, 28, 512), 512)
    found = card.making.offers(work, H200, 8)
    costs = [offer.cost for offer in found]
    assert costs == sorted(costs)
    assert costs[-1] <= (card.making.MOST_SLOW * costs[0][0],)
    for algorithm in algorithms(work, H200):
        best = min(map(algorithm.cost, algorithm.knobs()))
        if best[0] <= card.making.MOST_SLOW * costs[0][0]:
            assert best in [each.cost for each in found if each.algorithm == algorithm]
    tiles = [offer.tile for offer in found]
    assert len(tiles) == 8
    assert len(set(tiles)) >= 4
    assert max(map(tiles.count, tiles)) <= 2


def test_there_is_a_kernel_by_another_algorithm_for_where_the_best_is_wrong(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card.making, "MOST_SLOW", 1.0)
    found = card.making.offers(conv((1, 28, 28, 512), 512), H200, 8)
    assert len({offer.algorithm.name for offer in found}) == 2


def test_a_workspace_has_room_for_what_a_thread_writes_at_once(card: SimpleNamespace) -> None:
    work = conv((1, 4, 4, 64), 64)
    (mma,) = (each for each in algorithms(work, H200) if each.name == "mma")
    knobs: Any = next(each for each in mma.knobs() if each.splits > 1 and each.rows == 64)
    code = generate_all({"k": mma.kernel(knobs).func}, "sm_90")["k"]
    (parts,) = card.making.workspaces(code, work)
    assert parts.dtype == "float32"
    assert parts.shape[0] >= knobs.splits * 64 * 64


# What a run has measured, as records


def measured(**changes: Any) -> dict[str, Any]:
    """The records of a run with one kernel."""
    work = conv((1, 28, 28, 512), 512)
    (best, *_) = choices(work, H200)
    kernel = {
        "workload": {"Conv": to_json(work)},
        "algorithm": best.algorithm,
        "knobs": dict(best.knobs),
        "code": revision(algorithms(work, H200)),
        "seconds": 1e-5,
        "error": None,
    }
    card = {"name": "NVIDIA H200", "capability": "9.0", "multiprocessors": 132, "cache": 50 << 20}
    said = {"emulated": False, "tvm": tvm.__version__, "card": card}
    of_kernel = {name: value for name, value in changes.items() if name in kernel}
    return {"records": {**said, **changes, "kernels": [{**kernel, **of_kernel}]}}


def test_a_kernel_that_was_wrong_on_a_card_is_a_choice_that_fails(
    card: SimpleNamespace, tmp_path: Path
) -> None:
    said, work = measured(), conv((1, 28, 28, 512), 512)
    (first,) = said["records"]["kernels"]
    second = choices(work, H200)[1]
    wrong = {"knobs": dict(second.knobs), "algorithm": second.algorithm, "seconds": None}
    said["records"]["kernels"].append({**first, **wrong, "error": "WrongKernel: it writes beside"})
    (tmp_path / "results.json").write_text(json.dumps(said))
    *_, told = card.feeding.feed(tmp_path / "results.json", tmp_path / "records")
    assert "2 records of 1 kernels on NVIDIA H200 (sm_90, 132 multiprocessors)" in told
    (known,) = read(tmp_path / "records").values()
    assert known.failed == {second}
    assert known.best((second, *choices(work, H200))) == choices(work, H200)[0]


def test_of_layers_that_are_one_task_the_first_that_was_timed_decides(
    card: SimpleNamespace, tmp_path: Path
) -> None:
    said = measured(seconds=None, error="no time was left for it")
    (first,) = said["records"]["kernels"]
    for act, seconds in ((None, 2e-5), (Activation("relu6"), 3e-5)):
        workload = {"Conv": to_json(conv((1, 28, 28, 512), 512, act=act))}
        timed = {"workload": workload, "seconds": seconds, "error": None}
        said["records"]["kernels"].append({**first, **timed})
    (tmp_path / "results.json").write_text(json.dumps(said))
    _, (times,) = card.feeding.read_results(tmp_path / "results.json")
    assert [*times.seconds.values()] == [2e-5]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code": "0123456789abcdef"}, "records count for the code"),
        ({"tvm": "0.1"}, "another TVM"),
        ({"emulated": True}, "of an emulated card"),
        ({"seconds": -1.0}, "no time of a kernel"),
        ({"seconds": "fast"}, "no file that a run writes"),
        ({"algorithm": "magic"}, "there is no Choice"),
        ({"workload": {"Conv": {"input": 1}}}, "no file that a run writes"),
        ({"workload": {"os": {}}}, "no file that a run writes"),
        ({"card": {"name": "\x1b[2J"}}, "no file that a run writes"),
    ],
    ids=str,
)
def test_results_that_say_something_else_are_refused(
    card: SimpleNamespace, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(measured(**changes)))
    with pytest.raises(card.making.BundleError, match=reason):
        list(card.feeding.feed(path, tmp_path / "records"))
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("content", [b"\xff", b"[]", b"{}", b'{"records": 1}', b"[" * 10**5])
def test_what_is_no_file_of_a_run_is_refused(
    card: SimpleNamespace, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(card.making.BundleError, match="is no file that a run writes"):
        list(card.feeding.feed(tmp_path / "results.json", tmp_path / "records"))


# What is carried of vggc, and what of it is said anew


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_a_packing_is_an_order_of_the_weights_elements(card: SimpleNamespace, form: Format) -> None:
    work = conv((1, 9, 8, 40), 64, form=form)
    algorithm = algorithms(work, H200)[-1]
    packing: Any = algorithm.packing(next(iter(algorithm.knobs())))
    index = card.making.packing_index(card.making.with_outputs(packing, packing.cols), form)
    assert sorted(index[index >= 0]) == list(range(packing.cols * 40 * 9))
    card.making.prove(packing, form, packing.cols, index)
    with pytest.raises(card.making.BundleError, match="is no order"):
        card.making.prove(packing, form, packing.cols, index[::-1])


@pytest.mark.parametrize("form", ["tf32", "float16", "bfloat16"])
def test_values_are_rounded_as_vggc_rounds_them(card: SimpleNamespace, form: Format) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    wanted = restored(form, stored(form, values.numpy()))
    assert np.array_equal(card.values.rounded(values, form).numpy(), wanted)


PANELS = PanelPacking((5, 24, 1, 1), 32, 8)
TURNED: dict[str, Packing] = {
    "panels": PanelPacking((5, 6, 3, 2), 8, 8),
    "dense of a map": DensePanelPacking(
        PanelPacking((5, 24, 1, 1), 32, 8), ChannelOrder((6, 2, 2))
    ),
    "dense of rows": DensePanelPacking(PanelPacking((5, 7, 1, 1), 16, 8), ChannelOrder(None)),
    "rows": RowPacking((5, 24), ChannelOrder((6, 2, 2))),
    "taps": TapsFirst((6, 2, 3, 1)),
}


@pytest.mark.parametrize("name", TURNED)
def test_a_weight_in_float32_is_packed_by_turning_its_axes(
    card: SimpleNamespace, name: str
) -> None:
    packing = TURNED[name]
    recipe = card.making.turned_recipe(packing)
    card.making.prove_turned(packing, recipe)
    weight = torch.randn(recipe.view)
    argument = card.tables.Argument("weight", packing.packed_shape, "float32")
    got = card.kernels.Loaded(None, None).packed(recipe, weight, argument).numpy()
    shape = (len(weight), -1) if "of" in name or name == "rows" else recipe.view
    shape = getattr(packing, "weight_shape", shape)
    assert np.array_equal(got, packing.pack(weight.numpy().reshape(shape)))
    with pytest.raises(card.making.BundleError, match="does not turn"):
        card.making.prove_turned(packing, replace(recipe, order=recipe.order[::-1]))


@pytest.mark.parametrize("name", WORKS)
def test_workloads_mean_in_torch_what_they_mean_in_vggc(card: SimpleNamespace, name: str) -> None:
    work = WORKS[name]
    kind, fields = type(work).__name__, to_json(work)
    inputs, output = card.values.layouts(kind, fields)
    drawn = torch.Generator().manual_seed(0)
    values = [
        layout.unpack(layout.pack(torch.randn(layout.shape, generator=drawn))) for layout in inputs
    ]
    shapes = card.values.weight_shapes(kind, fields)
    assert shapes == work.weights
    weights = {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}

    def in_vggc(value: torch.Tensor, is_map: bool) -> Any:
        return (value.permute(0, 2, 3, 1) if is_map else value).numpy()

    contents = [in_vggc(value, layout.is_map) for layout, value in zip(inputs, values, strict=True)]
    wanted = reference(work, contents, [each.numpy() for each in weights.values()])
    got = card.values.expected(kind, fields, values, weights)
    assert tuple(got.shape) == output.shape
    torch.testing.assert_close(
        torch.from_numpy(in_vggc(got.double(), output.is_map).copy()),
        torch.from_numpy(wanted),
        rtol=1e-4,
        atol=1e-4,
    )


def test_values_lie_as_kernels_read_them(card: SimpleNamespace) -> None:
    said = to_json(conv((2, 5, 4, 11), 3).input)
    layout = card.values.Layout.of(said)
    assert layout.stored == (2, 7, 6, 16)
    value = torch.randn(2, 11, 5, 4).half().float()
    stored = layout.pack(value)
    assert torch.equal(layout.unpack(stored), value)
    assert layout.clean(stored)
    stored[1, 0, 2, 3] = 1.0
    assert not layout.clean(stored)


def test_each_peer_of_a_run_can_be_started(card: SimpleNamespace) -> None:
    assert tuple(card.peers.STARTS) == (*card.parts.PEERS, *card.parts.COMPILED)
    assert set(card.parts.BUDGET) == set(card.parts.LIMIT)


FAULTS = {
    "none": None,
    "beside": "it writes beside its output",
    "halo": "the halo or the padding is not zero",
    "nothing": "some of the output is not written",
    "wrong": "relative error 0",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kernel_that_is_wrong_is_told_how(card: SimpleNamespace, fault: str) -> None:
    work = WORKS["planes"]
    row = replace(work_row(card), workload={"ToNhwc": to_json(work)})
    device = SimpleNamespace(type="cpu", wait=lambda: None)
    made = card.kernels.case(row, device)
    right = card.values.Layout.of(to_json(work)["output"]).pack(made.result)
    if fault == "halo":
        right[0, 0, 0, 0] = 1
    elif fault == "wrong":
        right[0, 1:-1, 1:-1, :3] *= 1.01

    def prepared(_: object, pointers: dict[str, int]) -> Callable[[], None]:
        def call() -> None:
            if fault != "nothing":
                ctypes.memmove(pointers["y"], right.data_ptr(), right.nbytes)
            if fault == "beside":
                ctypes.memset(pointers["y"] + right.nbytes, 0, 1)

        return call

    loaded = SimpleNamespace(
        device=device,
        prepared=prepared,
        resources=lambda _: {"registers": 7},
        arranged=lambda *_: [],
    )
    arguments = [card.tables.Argument(name, (), "float32") for name in ("x", "y")]
    kernel = replace(kernel_row(card, "k0", 1e-6), arguments=tuple(arguments))
    if reason := FAULTS[fault]:
        with pytest.raises(card.kernels.WrongKernel, match=reason):
            card.kernels.check(loaded, row, kernel, made)
    else:
        assert card.kernels.check(loaded, row, kernel, made)["registers"] == 7


# Memory, driver and journal


def test_values_of_one_time_never_share_memory(card: SimpleNamespace) -> None:
    rng = random.Random(0)
    for _ in range(50):
        wanted = []
        for _ in range(12):
            first = rng.randrange(10)
            lasts = first + rng.randrange(4)
            wanted.append(card.nets.Lifetime(rng.randint(1, 2000), first, lasts))
        at, total = card.nets.places(wanted)
        for index, (start, one) in enumerate(zip(at, wanted, strict=True)):
            assert start % card.nets.ALIGNMENT == 0
            assert start + one.num_bytes <= total
            for other_start, other in zip(at[:index], wanted[:index], strict=True):
                if one.first <= other.last and other.first <= one.last:
                    apart = start + one.num_bytes <= other_start
                    assert apart or other_start + other.num_bytes <= start
    chain = [card.nets.Lifetime(1000, index, index + 1) for index in range(8)]
    assert card.nets.places(chain)[1] == 1000 + 1024


def test_a_launch_is_laid_out_as_the_driver_reads_it(card: SimpleNamespace) -> None:
    ours = card.driver.LaunchConfig((ctypes.c_uint * 3)(5, 6, 7), (ctypes.c_uint * 3)(8, 1, 1))
    ours.shared, ours.stream, ours.num_attributes = 9, 0x1234, 0
    theirs = cuda.CUlaunchConfig()
    theirs.gridDimX, theirs.gridDimY, theirs.gridDimZ = 5, 6, 7
    theirs.blockDimX, theirs.blockDimY, theirs.blockDimZ = 8, 1, 1
    theirs.sharedMemBytes, theirs.hStream = 9, cuda.CUstream(0x1234)
    size = ctypes.sizeof(ours)
    assert ctypes.string_at(ctypes.addressof(ours), size) == ctypes.string_at(theirs.getPtr(), size)
    attribute = cuda.CUlaunchAttribute()
    which = cuda.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.id = which
    attribute.value.programmaticStreamSerializationAllowed = 1
    mine = card.driver.LaunchAttribute(card.driver.SERIALIZATION, 0, 1)
    size = ctypes.sizeof(mine)
    assert ctypes.string_at(ctypes.addressof(mine), size) == ctypes.string_at(
        attribute.getPtr(), size
    )
    names = cuda.CUfunction_attribute
    assert names.CU_FUNC_ATTRIBUTE_NUM_REGS == card.driver.REGISTERS
    assert names.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES == card.driver.LOCAL_BYTES
    most = names.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert most == card.driver.MOST_DYNAMIC_SHARED


@pytest.fixture(scope="module")
def emulated(card: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kernel of two arguments and 128 threads, with 2 KiB of shared memory, and its driver."""
    folder = tmp_path_factory.mktemp("driver")
    source = 'extern "C" { void run_k(const int*, int, void**) {} int own_shared() { return 2048; }'
    source += " extern const int num_arguments_k = 2, most_threads_k = 128; }"
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(folder / "k.so")]
    subprocess.run(command, input=source, text=True, check=True)
    card.making._emulated_driver(folder)
    driver = card.driver.Driver(folder / "driver")
    return driver.function((folder / "k.so").read_bytes(), "k")


LAUNCHES: dict[str, tuple[dict[str, Any], str | None]] = {
    "as it is": ({}, None),
    "much shared memory": ({"shared": 225 << 10}, None),
    "more shared memory than a block has": ({"shared": 226 << 10}, "cuFuncSetAttribute: error 1"),
    "a missing argument": ({"pointers": (0,)}, "it takes 2 arguments, not 1"),
    "more threads than it is compiled for": ({"threads": 160}, "cuLaunchKernelEx: error 1"),
    "no block": ({"grid": (0, 1, 1)}, "cuLaunchKernelEx: error 1"),
    "many blocks": ({"grid": (70_000, 1, 1)}, None),
    "too many blocks along y": ({"grid": (1, 70_000, 1)}, "cuLaunchKernelEx: error 1"),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_emulated_driver_refuses_what_a_card_refuses(
    card: SimpleNamespace, emulated: Any, name: str
) -> None:
    changes, refusal = LAUNCHES[name]
    said = {"grid": (1, 1, 1), "threads": 128, "shared": 0, "pointers": (0, 0), **changes}
    if refusal is None:
        emulated.prepared(**said)(0)
        return
    with pytest.raises(card.driver.DriverError, match=refusal):
        emulated.prepared(**said)(0)


def test_a_journal_that_was_cut_off_goes_on(card: SimpleNamespace, tmp_path: Path) -> None:
    journal = card.journal.Journal(tmp_path / "journal.jsonl")
    assert journal.entries() == {}
    journal.begin("check:k1")
    journal.end("check:k1", result={"error": 0.5})
    journal.begin("check:k2")
    with open(journal.path, "a") as file:
        file.write('{"end": "check:k2", "res')
    assert [each.key for each in journal.unfinished()] == ["check:k2"]
    journal.end("check:k2", error="it took too long")
    entries = journal.entries()
    assert entries["check:k1"].result == {"error": 0.5}
    assert entries["check:k2"].error == "it took too long"
    assert entries["check:k2"].step == "check"


def test_a_step_whose_time_is_up_is_left(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = SimpleNamespace(tables=SimpleNamespace(kernels={}))
    monkeypatch.setattr(card.runner, "keys", lambda _: ["rates:1", "compiled:1"])
    monkeypatch.setattr(card.steps.Worker, "run", lambda _, key: {"done": key})
    journal = card.journal.Journal(tmp_path / card.runner.JOURNAL)
    assert card.runner.work(bundle, tmp_path, time.time() - 581, 580.0) == 0
    assert {each.error for each in journal.entries().values()} == {card.journal.NO_TIME}
    # A run that is begun again has time for them.
    assert card.runner.work(bundle, tmp_path, time.time(), 580.0) == 0
    assert journal.entries()["rates:1"].result == {"done": "rates:1"}
    assert journal.entries()["compiled:1"].error is None


def test_a_step_has_its_own_time_and_what_others_leave_and_no_run_more_than_its_own(
    card: SimpleNamespace,
) -> None:
    parts = card.parts
    assert parts.TOTAL < 600
    early, late = (parts.deadline("check", parts.TOTAL, started) for started in (0.0, 80.0))
    assert early == sum(parts.BUDGET[step] for step in ("machine", "rates", "check"))
    assert late == 80.0 + parts.BUDGET["check"]
    assert parts.deadline("compiled", 300.0, 290.0) == 300.0
    assert parts.deadline("check", parts.TOTAL / 2, 0.0) == early / 2


def test_a_way_that_fails_takes_no_other_with_it(card: SimpleNamespace) -> None:
    problems: dict[str, str] = {}
    for way in ("graph", "dependent"):
        with card.steps.noted(problems, way):
            assert way == "graph", "no such launch"
    assert list(problems) == ["dependent"]
    entry = card.journal.Entry("nets:n", 0.0, 1.0, {"problems": problems})
    (line,) = (line for line in card.report._failures({"nets:n": entry}) if "dependent" in line)
    assert line.startswith("- nets:n, dependent: AssertionError: no such launch")


def test_a_part_that_hangs_is_ended(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(card.runner.LIMIT, "check", 0.1)
    journal = card.journal.Journal(tmp_path / "journal.jsonl")
    journal.begin("check:k0")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        why = card.runner._watched(child, journal, time.time() + 60)
        child.kill()
    assert why == "it took too long"


def test_an_algorithm_that_ends_processes_is_tried_no_more(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument = card.tables.Argument("x", (1,), "float16")
    kernels = {
        name: replace(kernel_row(card, name, 1e-6), arguments=(argument,))
        for name in ("k0", "k1", "k2", "k3")
    }
    kernels["k3"] = replace(kernels["k3"], algorithm="gemv")
    bundle = SimpleNamespace(tables=SimpleNamespace(kernels=kernels))
    monkeypatch.setattr(card.runner, "keys", lambda _: [f"check:{name}" for name in kernels])
    monkeypatch.setattr(card.steps.Worker, "run", lambda _, key: {"error": 0.0})
    journal = card.journal.Journal(tmp_path / card.runner.JOURNAL)
    for name, why in (("k0", "it took too long"), ("k1", "the process ended with -11")):
        journal.begin(f"check:{name}")
        journal.end(f"check:{name}", error=why)
    assert card.runner.work(bundle, tmp_path, time.time(), 580.0) == 0
    entries = journal.entries()
    assert entries["check:k2"].error == "mma on float16 has ended 2 processes before"
    assert entries["check:k3"].result == {"error": 0.0}


def test_a_device_that_answers_no_more_costs_its_process(
    card: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    bundle = SimpleNamespace(tables=SimpleNamespace(kernels={}))
    monkeypatch.setattr(card.runner, "keys", lambda _: ["rates", "peers:1"])
    monkeypatch.setattr(card.steps.Worker, "run", fail)
    monkeypatch.setattr(
        card.steps.Worker, "device", SimpleNamespace(release=lambda: None, wait=fail)
    )
    assert card.runner.work(bundle, tmp_path, time.time(), 580.0) == card.runner.BROKEN
    entries = card.journal.Journal(tmp_path / card.runner.JOURNAL).entries()
    assert "the process ended, as its device answers no more" in entries["rates"].error
    assert "peers:1" not in entries


# The card's own part of the runner, with torch's names for it


class FakeEvent:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: FakeEvent) -> float:
        return 3.0


class FakeContext:
    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class FakeStream(FakeContext):
    cuda_stream = 77

    def wait_stream(self, other: FakeStream) -> None:
        assert isinstance(other, FakeStream)


class FakeGraph:
    replays = 0

    def replay(self) -> None:
        FakeGraph.replays += 1


def test_the_card_is_timed_by_events_and_graphs(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes: dict[str, Any] = {
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "current_stream": FakeStream,
        "Stream": FakeStream,
        "stream": FakeContext,
        "graph": FakeContext,
        "CUDAGraph": FakeGraph,
        "Event": FakeEvent,
        "get_device_properties": lambda _: SimpleNamespace(
            name="a card", major=9, minor=0, multi_processor_count=132, total_memory=1
        ),
    }
    for name, fake in fakes.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(card.device, "Driver", lambda: SimpleNamespace(version=13000))
    device = card.device.CudaDevice()
    assert device.stream == 77
    assert device.machine()["name"] == "a card"
    calls: list[int] = []
    replay = device.captured(lambda: calls.append(1))
    assert len(calls) == 2  # once to warm up, once to be captured
    replay()
    assert FakeGraph.replays == 1
    device.release()
    assert device.rounds({"work": replay}, 2)["work"] == [3e-3 / 2] * 9


# The tables of a run


def test_kernels_are_told_by_time_beside_what_the_model_says(card: SimpleNamespace) -> None:
    tables = card.tables.Tables(
        about={"vggc": "1.2", "tvm": "0.27", "emulated": False},
        kernels={
            name: kernel_row(card, name, seconds) for name, seconds in (("k0", 1e-6), ("k1", 2e-6))
        },
        workloads={"w0": work_row(card)},
        nets=(net_row(card),),
        layers={"vgg": card.tables.NetLayers((), ())},
    )
    entry = card.journal.Entry
    of_nets = {"graph": [2e-3], "tuned": [1e-3], "torch graph": [3e-3]}
    found = {
        "machine": {"name": "a card"},
        "check:k0": {"error": 1e-4, "registers": 128, "spilled_bytes": 0},
        "layers:w0": {"seconds": {"k0": [4e-6, 9e-6, 4e-6], "k1": [2e-6], "torch": [5e-6]}},
        "nets:vgg/float16/8": {"seconds": of_nets},
        "peers:vgg/float16/8/tensorrt": {"seconds": [1.5e-3], "error": 1e-3},
    }
    entries = {key: entry(key, 0.0, 1.0, result) for key, result in found.items()}
    entries["check:k1"] = entry("check:k1", 0.0, 1.0, None, "it took too long")
    text = card.report.markdown(tables, entries)
    assert "| conv1_1 | 8 | mma rows=1 | 2.0 | 5.0 | 2.50 | 1.0 | 50% | 1 | 2 of 2 |" in text
    assert (
        "| vgg float16 | 8 | – | 2.000 | 1.000 | – | 3.000 | tensorrt, 1.500 | **1.50** |" in text
    )
    assert text.index("| mma rows=1 | 2.0 | 2.0 |") < text.index("| mma rows=0 | 4.0 | 1.0 |")
    assert "1 of 2 kernels are right" in text
    assert "- check:k1: it took too long" in text
    said = card.report.records(tables, entries)
    assert said["card"]["name"] == "a card"
    assert [row["seconds"] for row in said["kernels"]] == [4e-6, 2e-6]
    assert [row["error"] for row in said["kernels"]] == [None, "it took too long"]
    assert said["kernels"][0]["workload"] == {"Conv": {}}


def kernel_row(card: SimpleNamespace, name: str, seconds: float) -> Any:
    return card.tables.KernelRow(
        id=name,
        workload="w0",
        algorithm="mma",
        knobs={"rows": int(name[1:])},
        model_seconds=seconds,
        module="code/k",
        arguments=(),
        workspaces=(),
        launches=(),
    )


def work_row(card: SimpleNamespace) -> Any:
    return card.tables.WorkloadRow(
        id="w0",
        workload={"Conv": {}},
        worth=0,
        batch=8,
        layers=("conv1_1",),
        kernels=("k0", "k1"),
        floor_seconds=1e-6,
        flops=2_000_000,
        is_dense=False,
        code="0123",
    )


def net_row(card: SimpleNamespace) -> Any:
    step = card.tables.StepRow(layer="conv1_1", workload="w0", reads=(-1,), weights={})
    return card.tables.NetRow(
        net="vgg",
        precision="float16",
        worth=0,
        batch=8,
        input=(3, 4, 4),
        steps=(step,),
        outputs=(0,),
    )
