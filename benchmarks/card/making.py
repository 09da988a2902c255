"""Makes a bundle: the machine code of every kernel that is to be timed, and its tables.

Workloads are shared out between processes. Kernels are compiled one by one, so that one that fails
takes no other with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from math import prod
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from card.tables import (
    SOURCES,
    WEIGHTS_FILE,
    Argument,
    KernelRow,
    Launch,
    LayerRow,
    NetLayers,
    NetRow,
    PanelRecipe,
    Recipe,
    StepRow,
    Tables,
    TurnedRecipe,
    WorkloadRow,
)
from tests.support import ROOT
from tests.support.cuda_on_cpu import CudaCode, compile_kernels, generate_all, precompiled
from vggc.compiler.device_code import COMPILERS, code_by_nvrtc
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Activation,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Softmax,
)
from vggc.kernels.algorithm import Cost
from vggc.kernels.cuda import H200, AnyCudaAlgorithm, Card, algorithms
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.cuda.packing import (
    DensePanelPacking,
    PanelPacking,
    RowPacking,
    TapsFirst,
    restored,
    stored,
)
from vggc.kernels.workloads import Conv, Dense, Format, Kernel, Map, Packing, Workload
from vggc.passes.inference import drop_final_softmax
from vggc.passes.prepare import prepared
from vggc.plan.plan import Step
from vggc.program import load
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision
from vggc.support.records import to_json
from vggc.support.tvm_alone import tvm
from vggc.tuning.revision import revision
from vggc_runtime.version import __version__

EMULATED_DRIVER = ROOT / "tests" / "support" / "driver_on_cpu.cpp"
MIB = 1 << 20
MOST_BYTES = 60 * MIB
NOT_OF_TILES = {"depth", "stages", "splits", "panel"}
"""Knobs by which two choices differ less than by their tiles."""
ALIKE = 2
"""Choices with the same tile that are taken at most."""
STAYING = ("making.py", "feeding.py")
"""The modules of this package that do not travel in a bundle."""
RUN = '''"""Measures the kernels of this folder: `python run.py --out FOLDER`."""

from pathlib import Path

from card.runner import main

if __name__ == "__main__":
    main(Path(__file__).parent)
'''
DIGITS: dict[str, int] = {
    "float32": 1 << 24,
    "tf32": 2048,
    "float16": 2048,
    "bfloat16": 256,
    "uint8": 128,
}
"""Whole numbers below it are what they are in the weights of kernels that read these formats."""
MANY = 40
"""Workloads that are worth more than one process."""
MOST_SLOW = 2.0
"""Kernels that the model thinks slower than so many times the best are left out, but for one."""


class BundleError(Exception):
    """What is asked for makes no bundle."""


@dataclass(frozen=True)
class NetWish:
    """A net of the zoo, or in a file, that a bundle is to hold in a precision: for some batches,
    with so many choices for each workload.
    """

    net: str
    precision: ArtifactPrecision = "float16"
    batches: tuple[int, ...] = (1,)
    choices: int = 1


@dataclass(frozen=True)
class BundleWish:
    """What a bundle is to hold, what is worth most first."""

    nets: tuple[NetWish, ...]
    emulated: bool = False
    """Whether its machine code is for the emulated card of the tests."""
    card: Card = H200


@dataclass(frozen=True)
class WorkloadWish:
    """A workload whose kernels are to be made."""

    name: str
    workload: Workload
    choices: int
    worth: int


@dataclass(frozen=True)
class MadeKernel:
    """A kernel: its row, its machine code and its source; how its weight is packed, in one panel,
    by a packing.
    """

    row: KernelRow
    code: bytes
    source: str
    packing: Packing | None


def make(wish: BundleWish, folder: Path) -> Tables:
    """Writes a bundle to a new folder.

    Raises: BundleError for nets with layers that are written down for no peer, or a bundle that is
    too large.
    """
    started = time.perf_counter()
    (folder / "code").mkdir(parents=True)
    (folder / "indices").mkdir()
    maker = _Maker(wish, folder)
    for worth, net in enumerate(wish.nets):
        maker.add_net(worth, net)
    maker.make_kernels()
    leaving = shutil.ignore_patterns(*STAYING, "__pycache__")
    shutil.copytree(Path(__file__).parent, folder / "card", ignore=leaving)
    (folder / "run.py").write_text(RUN, encoding="utf-8")
    about = {
        "vggc": __version__,
        "tvm": tvm.__version__,
        "card": wish.card.name,
        "multiprocessors": wish.card.multiprocessors,
        "arch": wish.card.arch,
        "emulated": wish.emulated,
        "driver": _emulated_driver(folder) if wish.emulated else None,
        "made_in_seconds": round(time.perf_counter() - started, 1),
        "left_out": maker.left_out,
    }
    tables = Tables(
        about=about,
        kernels=maker.kernels,
        workloads=maker.rows,
        nets=tuple(maker.nets),
        layers=maker.layers,
    )
    tables.write(folder)
    require_small(folder)
    return tables


def require_small(folder: Path) -> None:
    """Raises: BundleError where a bundle is too large to travel."""
    size = num_bytes(folder)
    if size > MOST_BYTES:
        raise BundleError(f"the bundle takes {size / MIB:.1f} MiB, more than {MOST_BYTES / MIB:g}")


def num_bytes(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Offer:
    """A way to carry out a workload."""

    algorithm: AnyCudaAlgorithm
    knobs: Any

    @property
    def cost(self) -> Cost:
        return self.algorithm.cost(self.knobs)

    @property
    def tile(self) -> tuple[object, ...]:
        """What differs where two ways are not much alike."""
        shown = self.algorithm.shown(self.knobs).items()
        return (self.algorithm.name, *(item for item in shown if item[0] not in NOT_OF_TILES))


def offers(workload: Workload, card: Card, count: int) -> list[Offer]:
    """Some ways to carry out a workload, that of least stated cost first: of each algorithm the
    first, and then by cost, a few of each tile. None is much slower than the best, but where all
    others of several algorithms are, the first of the next one.
    """
    every = [
        Offer(algorithm, knobs)
        for algorithm in algorithms(workload, card)
        for knobs in algorithm.knobs()
    ]
    every.sort(key=lambda offer: offer.cost)
    tiles: Counter[tuple[object, ...]] = Counter()
    found: dict[str, Offer] = {}
    others = []
    for offer in every:
        tiles[offer.tile] += 1
        if (
            found.setdefault(offer.algorithm.name, offer) is not offer
            and tiles[offer.tile] <= ALIKE
        ):
            others.append(offer)
    chosen = [*found.values(), *others]
    most = MOST_SLOW * chosen[0].cost[0]
    near = [offer for offer in chosen if offer.cost[0] <= most]
    if len({offer.algorithm.name for offer in near}) == 1:
        near[1:1] = chosen[1 : len(found)][:1]
    return sorted(near[:count], key=lambda offer: offer.cost)


@dataclass
class _Maker:
    wish: BundleWish
    folder: Path
    wanted: dict[Workload, WorkloadWish] = field(default_factory=dict)
    of_layers: dict[Workload, list[str]] = field(default_factory=dict)
    kernels: dict[str, KernelRow] = field(default_factory=dict)
    rows: dict[str, WorkloadRow] = field(default_factory=dict)
    nets: list[NetRow] = field(default_factory=list)
    layers: dict[str, NetLayers] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    recipes: dict[Packing, Recipe] = field(default_factory=dict)

    def add_net(self, worth: int, wish: NetWish) -> None:
        graph = prepared(drop_final_softmax(load(wish.net).graph))
        if graph.name not in self.layers:
            self.layers[graph.name] = layers_of(graph)
            model = onnx_skeleton(graph.name, graph.input, self.layers[graph.name])
            (self.folder / f"{graph.name}.onnx").write_bytes(model.SerializeToString())
        archs = (self.wish.card.arch,)
        target = Target(name="cuda", kind="cuda", attrs={"kind": "cuda"}, archs=archs)
        for batch in wish.batches:
            plan = plan_for(graph, batch, target, wish.precision)
            channels, height, width = plan.input
            steps = [self._step(worth, wish, step) for step in plan.steps]
            self.nets.append(
                NetRow(
                    net=graph.name,
                    precision=wish.precision,
                    worth=worth,
                    batch=batch,
                    input=(channels, height, width),
                    steps=tuple(steps),
                    outputs=tuple(output.step for output in plan.outputs),
                )
            )

    def _step(self, worth: int, wish: NetWish, step: Step) -> StepRow:
        """The row of a call, whose workload is to have as many kernels as who asks first wants."""
        work = step.workload
        name = f"w{len(self.wanted):03}"
        wanted = self.wanted.setdefault(work, WorkloadWish(name, work, wish.choices, worth))
        self.of_layers.setdefault(work, []).append(step.layer)
        weights = dict(zip(work.weights, step.weights, strict=True))
        return StepRow(layer=step.layer, workload=wanted.name, reads=step.reads, weights=weights)

    def make_kernels(self) -> None:
        """Has the kernels of all workloads made, and keeps them."""
        wanted = [*self.wanted.values()]
        headers = precompiled() if self.wish.emulated else None
        with compilers(len(wanted)) as crew:
            asked = [(each, self.wish.card, headers) for each in wanted]
            made = crew.map(kernels_for, *zip(*asked, strict=True))
            for each, (kernels, left_out) in zip(wanted, made, strict=True):
                self.left_out += left_out
                names = tuple(filter(None, map(partial(self._keep, each.workload), kernels)))
                self.rows[each.name] = self._row(each, names)

    def _keep(self, work: Workload, made: MadeKernel) -> str | None:
        """Writes what was made of a kernel; its name."""
        name = made.row.id
        try:
            recipe = self.recipe(made.packing, format_of(work))
        except BundleError as error:
            self.left_out.append(f"{name}: {error}"[:500])
            return None
        (self.folder / made.row.module).write_bytes(made.code)
        if not self.wish.emulated:
            with zipfile.ZipFile(self.folder / SOURCES, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{name}.cu", made.source)
        self.kernels[name] = replace(made.row, recipe=recipe)
        return name

    def _row(self, wanted: WorkloadWish, kernels: tuple[str, ...]) -> WorkloadRow:
        work, card = wanted.workload, self.wish.card
        macs = multiply_adds(work)
        (batch, *_) = work.output.shape if isinstance(work.output, Map) else work.output
        arithmetic = 2 * macs / card.peak(format_of(work))
        return WorkloadRow(
            id=wanted.name,
            workload={type(work).__name__: to_json(work)},
            worth=wanted.worth,
            batch=batch,
            layers=tuple(dict.fromkeys(self.of_layers[work])),
            kernels=kernels,
            floor_seconds=max(arithmetic, moved_bytes(work) / card.memory_rate),
            flops=2 * macs,
            is_dense=is_dense(work),
            code=revision(algorithms(work, card)),
        )

    def recipe(self, packing: Packing | None, form: Format) -> Recipe | None:
        """How a weight is packed for a kernel that reads a format, in a file where that is an
        index.

        Raises: BundleError for a packing that is not written down here.
        """
        if packing is None:
            return None
        turned = turned_recipe(packing)
        if turned is not None:
            prove_turned(packing, turned)
            return turned
        if not hasattr(packing, "shape"):
            raise BundleError(f"{packing} is no order of the weight's elements")
        panel = getattr(packing, "cols", 1)
        one = with_outputs(packing, panel)
        if one not in self.recipes:
            index = packing_index(one, form)
            prove(packing, form, panel, index)
            content = zlib.compress(np.diff(index, prepend=np.int32(0)).tobytes(), 9)
            name = f"indices/{sha256(content).hexdigest()[:12]}"
            (self.folder / name).write_bytes(content)
            self.recipes[one] = PanelRecipe(panel, name)
        return self.recipes[one]


def compilers(count: int) -> Executor:
    """Processes that share out so many workloads; of a few, which take less than processes take to
    begin, a thread.
    """
    if count < MANY:
        return ThreadPoolExecutor(1)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(COMPILERS, mp_context=context)


def kernels_for(
    wanted: WorkloadWish, card: Card, headers: str | None
) -> tuple[list[MadeKernel], list[str]]:
    """The kernels of a workload, and why others were left out; with `headers` for the emulated
    card.
    """
    made: list[MadeKernel] = []
    left_out: list[str] = []
    for rank, offer in enumerate(offers(wanted.workload, card, wanted.choices)):
        name = f"k{wanted.name.removeprefix('w')}{rank:02}"
        try:
            kernel = offer.algorithm.kernel(offer.knobs)
            code = generate_all({name: kernel.func}, card.arch)[name]
            row = kernel_row(name, wanted.name, wanted.workload, kernel, code)
            row = replace(row, model_seconds=offer.algorithm.seconds(offer.knobs))
            image = (
                by_gcc(code.source, headers) if headers else code_by_nvrtc(code.source, card.arch)
            )
            made.append(MadeKernel(row, image, code.source, kernel.packing))
        except Exception as error:  # whatever TVM or a compiler says: the other kernels remain
            left_out.append(f"{wanted.workload} by {offer.tile}: {error}"[:500])
    return made, left_out


def by_gcc(source: str, headers: str) -> bytes:
    """What the emulated card runs of a source."""
    with TemporaryDirectory() as temporary:
        return compile_kernels(source, Path(temporary), headers).read_bytes()


def kernel_row(
    number: str, workload: str, work: Workload, kernel: Kernel, code: CudaCode
) -> KernelRow:
    """How a kernel is launched, without what the model says and how its weight is packed."""
    half = format_of(work)
    parameters = {
        name: parameter.ty
        for name, parameter in zip(code.parameters, kernel.arguments, strict=True)
    }
    return KernelRow(
        id=number,
        workload=workload,
        algorithm=kernel.algorithm,
        knobs=kernel.knobs,
        model_seconds=0.0,
        module=f"code/{number}",
        arguments=tuple(
            Argument(name, tuple(map(int, kind.shape)), torch_type(kind.dtype, half))
            for name, kind in parameters.items()
        ),
        workspaces=workspaces(code, work),
        launches=tuple(
            Launch(
                function=launch.name,
                grid=launch.grid,
                threads=launch.threads,
                shared=launch.shared,
                arguments=tuple(launch.buffers),
            )
            for launch in code.launches
        ),
    )


def workspaces(code: CudaCode, work: Workload) -> tuple[Argument, ...]:
    """The memory that a kernel works with beside the arguments of its workload."""
    found = {
        name: Argument(name, (size,), torch_type(dtype, format_of(work)))
        for launch in code.launches
        for name, (size, dtype) in launch.buffers.items()
        if not is_argument(name, work)
    }
    return tuple(found.values())


def is_argument(name: str, work: Workload) -> bool:
    """Whether a buffer is an input, a weight or the output of a workload."""
    return name in work.weights or re.fullmatch(r"x\d*|y", name) is not None


def torch_type(dtype: object, half: str) -> str:
    """The name that a type of TVM's has in torch; halves lie in uint16."""
    return half if str(dtype) == "uint16" else str(dtype)


def format_of(work: Workload) -> Format:
    """The format of what a workload multiplies, or has to do with."""
    layouts = (*work.inputs, work.output)
    found = [each.format for each in layouts if isinstance(each, Map)]
    return next((each for each in found if each != "float32"), "float32")


def is_dense(work: Workload) -> bool:
    """Whether a workload is a dense layer, in fewer bits the convolution of its whole map."""
    if not isinstance(work, Conv):
        return isinstance(work, Dense)
    return (work.input.height, work.input.width) == work.kernel and work.padding == (0, 0)


def multiply_adds(work: Workload) -> int:
    """What a workload asks for."""
    match work:
        case Conv():
            return work.output.batch * prod(work.grid) * prod(work.weight_shape)
        case Dense():
            return work.batch * prod(work.weight_shape)
        case _:
            return 0


# How weights are packed, as numbers


def with_outputs(packing: Packing, count: int) -> Packing:
    """The same packing of a weight with so many output channels."""
    some = cast("Any", packing)
    changed: Packing = replace(some, shape=(count, *some.shape[1:]))
    return changed


def packing_index(packing: Packing, form: Format) -> np.ndarray:
    """Where each element of the packed weight comes from, -1 for zeros.

    A weight that holds numbers is packed: their digits, one after the other, which the format does
    not round.
    """
    shape, base = shape_of(packing), DIGITS[form]
    numbers = np.arange(1, prod(shape) + 1, dtype=np.int64)
    found = np.zeros(prod(packing.packed_shape), np.int64)
    weight = 1
    while weight <= prod(shape):
        digit = (numbers // weight % base).astype(np.float32).reshape(shape)
        found += restored(form, packing.pack(digit)).ravel().astype(np.int64) * weight
        weight *= base
    return (found - 1).astype(np.int32)


def prove(packing: Packing, form: Format, panel: int, index: np.ndarray) -> None:
    """Compares what an index gives with what the packing gives, of a weight with a panel that is
    not full.

    Raises: BundleError where they differ.
    """
    outputs = panel + max(1, panel // 3)
    part = with_outputs(packing, outputs)
    weight = np.random.default_rng(0).integers(-127, 128, shape_of(part)).astype(np.float32)
    wanted = part.pack(weight).ravel()
    panels = wanted.size // index.size
    rows = np.zeros((panels * panel, weight[0].size), wanted.dtype)
    rows[:outputs] = stored(form, weight).reshape(outputs, -1)
    given = np.concatenate([rows.reshape(panels, -1), np.zeros((panels, 1), wanted.dtype)], 1)
    if not np.array_equal(given[:, index].ravel(), wanted):
        raise BundleError(f"{packing} is no order of the weight's elements")


def turned_recipe(packing: Packing) -> TurnedRecipe | None:
    """How a weight is packed whose axes are turned; None for what is packed otherwise."""
    match packing:
        case PanelPacking(weight_shape=(outputs, inputs, height, width)):
            taps = height * width
            return TurnedRecipe((outputs, inputs, taps), (2, 1, 0), (taps, inputs, outputs))
        case DensePanelPacking(panels=panels, order=order):
            outputs, inputs, *_ = panels.weight_shape
            planes = order.planes or (inputs, 1, 1)
            return TurnedRecipe((outputs, *planes), (2, 3, 1, 0), (1, inputs, outputs))
        case RowPacking(weight_shape=(outputs, inputs), order=order):
            planes = order.planes or (inputs, 1, 1)
            return TurnedRecipe((outputs, *planes), (0, 2, 3, 1), (outputs, inputs))
        case TapsFirst(weight_shape=shape):
            outputs, inputs, height, width = shape
            return TurnedRecipe(shape, (2, 3, 1, 0), (height, width, inputs, outputs))
        case _:
            return None


def prove_turned(packing: Packing, recipe: TurnedRecipe) -> None:
    """Compares what a recipe gives with what the packing gives.

    Raises: BundleError where they differ.
    """
    weight = np.arange(prod(recipe.view), dtype=np.float32)
    shape = getattr(packing, "weight_shape", None) or (recipe.view[0], prod(recipe.view[1:]))
    turned = weight.reshape(recipe.view).transpose(recipe.order).reshape(recipe.dense)
    wanted = packing.pack(weight.reshape(shape))
    sides = [(0, whole - part) for whole, part in zip(wanted.shape, turned.shape, strict=True)]
    if not np.array_equal(np.pad(turned, sides), wanted):
        raise BundleError(f"{packing} does not turn the weight's axes")


def shape_of(packing: Packing) -> tuple[int, ...]:
    """The shape of the weight that is packed."""
    found: tuple[int, ...] = cast("Any", packing).shape
    return found


# The net as torch and ONNX have it


def layers_of(graph: Graph) -> NetLayers:
    """The layers of a net, each with those that it reads.

    Raises: BundleError for a net with a layer that is not written down here.
    """
    # The image is node 0 of every net, and -1 here.
    rows = tuple(_layer(graph, node) for node in graph.nodes[1:])
    return NetLayers(rows, tuple(head.node - 1 for head in graph.heads))


def _layer(graph: Graph, node: Node) -> LayerRow:
    source = graph.nodes[node.inputs[0]].shape
    weights = {name: tuple(weight.shape) for name, weight in graph.weights(node).items()}
    kind, sizes = _torch_layer(graph.name, node, source)
    return LayerRow(kind, sizes, tuple(read - 1 for read in node.inputs), weights)


def _torch_layer(net: str, node: Node, source: Sequence[int]) -> tuple[str, dict[str, Any]]:
    match node.op:
        case Conv2d(bias=True, dilation=(1, 1)) as op if op.window(source).is_even:
            return "conv", {
                "in_channels": source[0],
                "out_channels": op.channels,
                "kernel_size": [*op.kernel],
                "stride": [*op.stride],
                "padding": [*op.padding[:2]],
                "groups": op.groups,
            }
        case Linear(bias=True) as op:
            return "linear", {"in_features": source[0], "out_features": op.features}
        case MaxPool2d() | AvgPool2d(counts_padding=False) as op if op.window(source).is_even:
            window = {"kernel_size": op.kernel, "stride": op.stride, "padding": op.padding[:2]}
            sizes: dict[str, Any] = {name: [*pair] for name, pair in window.items()}
            return "pool" if isinstance(op, MaxPool2d) else "avgpool", {
                **sizes,
                "ceil_mode": op.ceil,
            }
        case LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
            # torch and ONNX divide alpha by the size; vggc does not.
            return "lrn", {"size": size, "alpha": alpha * size, "beta": beta, "k": k}
        case op if type(op) in PLAIN:
            return PLAIN[type(op)], {}
        case Activation(function="relu"):
            return "relu", {}
        case op:
            raise BundleError(f"{net} has a layer that is not written down for torch: {op}")


PLAIN: dict[type[Any], str] = {
    GlobalAvgPool: "mean",
    Add: "add",
    Concat: "concat",
    Flatten: "flatten",
    Softmax: "softmax",
}
"""Layers that have no sizes."""


def onnx_skeleton(name: str, image: Sequence[int], layers: NetLayers) -> onnx.ModelProto:
    """The net in float16 as ONNX, its outputs behind one another, whose weights lie one after the
    other in a file that is written on the card.
    """
    half, nodes, tensors, offset = TensorProto.FLOAT16, [], [], 0
    for index, layer in enumerate(layers.rows):
        for weight, shape in layer.weights.items():
            tensor = TensorProto(name=weight, data_type=half, dims=shape)
            size = 2 * prod(shape)
            tensor.data_location = TensorProto.EXTERNAL
            told = {"location": WEIGHTS_FILE, "offset": offset, "length": size}
            for key, said in told.items():
                tensor.external_data.add(key=key, value=str(said))
            tensors.append(tensor)
            offset += size
        reads = ["image" if read < 0 else f"value{read}" for read in layer.reads]
        output, (kind, attributes) = f"value{index}", _onnx_op(layer)
        made = f"mean{index}" if layer.kind == "mean" else output
        nodes.append(helper.make_node(kind, [*reads, *layer.weights], [made], **attributes))
        if made != output:
            nodes.append(helper.make_node("Flatten", [made], [output]))
    for index in layers.outputs:
        nodes.append(helper.make_node("Flatten", [f"value{index}"], [f"rows{index}"]))
    rows = [f"rows{index}" for index in layers.outputs]
    nodes.append(helper.make_node("Concat", rows, ["scores"], axis=1))
    source = helper.make_tensor_value_info("image", half, ["N", *image])
    target = helper.make_tensor_value_info("scores", half, ["N", None])
    graph = helper.make_graph(nodes, name, [source], [target], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _onnx_op(layer: LayerRow) -> tuple[str, dict[str, Any]]:
    sizes = layer.sizes
    match layer.kind:
        case "conv" | "pool" | "avgpool":
            pads = [*sizes["padding"], *sizes["padding"]]
            window = {"kernel_shape": sizes["kernel_size"], "strides": sizes["stride"]}
            if layer.kind == "conv":
                return "Conv", {**window, "pads": pads, "group": sizes["groups"]}
            kind = "MaxPool" if layer.kind == "pool" else "AveragePool"
            return kind, {**window, "pads": pads, "ceil_mode": int(sizes["ceil_mode"])}
        case "linear":
            return "Gemm", {"transB": 1}
        case "lrn":
            bias = float(sizes["k"])
            return "LRN", {
                "size": sizes["size"],
                "alpha": sizes["alpha"],
                "beta": sizes["beta"],
                "bias": bias,
            }
        case "concat" | "softmax":
            return layer.kind.capitalize(), {"axis": 1}
        case kind:
            return ONNX[kind], {}


ONNX = {"relu": "Relu", "flatten": "Flatten", "mean": "GlobalAveragePool", "add": "Sum"}
"""The operators of layers that have no sizes."""


def _emulated_driver(folder: Path) -> str:
    """Compiles what stands in for NVIDIA's driver."""
    command = ["g++", "-shared", "-fPIC", "-O1", "-o", str(folder / "driver"), str(EMULATED_DRIVER)]
    subprocess.run(command, check=True)
    return "driver"
