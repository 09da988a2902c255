"""Makes a bundle: the machine code of every kernel that is to be timed, and its tables.

Kernels are compiled one by one, so that one that fails takes no other with it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import prod
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
    NetRow,
    Recipe,
    StepRow,
    Tables,
    WorkloadRow,
)
from tests.support import ROOT
from tests.support.cuda_on_cpu import CudaCode, compile_kernels, generate_all
from vggc.compiler.device_code import COMPILERS, CompilerError, code_by_nvrtc
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Activation, Conv2d, Flatten, Input, Linear, MaxPool2d
from vggc.kernels.algorithm import Cost
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cuda import H200, AnyCudaAlgorithm, Card, algorithms
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.workloads import Conv, Kernel, Map, Packing, Workload
from vggc.passes.inference import drop_final_softmax
from vggc.passes.prepare import prepared
from vggc.program import load
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plan_for
from vggc.support.records import to_json
from vggc.support.tvm_alone import tvm
from vggc.support.version import __version__
from vggc.tuning.revision import revision

EMULATED_DRIVER = ROOT / "tests" / "support" / "driver_on_cpu.cpp"
MIB = 1 << 20
MOST_BYTES = 60 * MIB
PRECISION = "float16"
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
DIGITS = {"float16": 2048, "bfloat16": 256}
"""Whole numbers below it are what they are in these formats."""


class BundleError(Exception):
    """What is asked for makes no bundle."""


@dataclass(frozen=True)
class BundleWish:
    """What a bundle is to hold: nets of the zoo, batches, and so many choices a workload."""

    nets: tuple[str, ...]
    batches: tuple[int, ...]
    choices: int
    emulated: bool = False
    """Whether its machine code is for the emulated card of the tests."""
    card: Card = H200


def make(wish: BundleWish, folder: Path) -> Tables:
    """Writes a bundle to a new folder.

    Raises: BundleError for nets that are no chain of VGG's layers, or a bundle that is too large.
    """
    started = time.perf_counter()
    (folder / "code").mkdir(parents=True)
    (folder / "indices").mkdir()
    maker = _Maker(wish, folder)
    with ThreadPoolExecutor(COMPILERS) as maker.compilers:
        for name in wish.nets:
            maker.add_net(name)
        maker.finish()
    leaving = shutil.ignore_patterns(*STAYING, "__pycache__")
    shutil.copytree(Path(__file__).parent, folder / "card", ignore=leaving)
    (folder / "run.py").write_text(RUN, encoding="utf-8")
    about = {
        "vggc": __version__,
        "tvm": tvm.__version__,
        "card": wish.card.name,
        "multiprocessors": wish.card.multiprocessors,
        "arch": wish.card.arch,
        "precision": PRECISION,
        "emulated": wish.emulated,
        "driver": _emulated_driver(folder) if wish.emulated else None,
        "made_in_seconds": round(time.perf_counter() - started, 1),
        "left_out": maker.left_out,
    }
    tables = Tables(
        about=about,
        kernels=maker.kernels,
        workloads={row.id: row for row in maker.workloads.values()},
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
    first, and then by cost, a few of each tile.
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
    return sorted([*found.values(), *others][:count], key=lambda offer: offer.cost)


@dataclass
class _Maker:
    wish: BundleWish
    folder: Path
    kernels: dict[str, KernelRow] = field(default_factory=dict)
    workloads: dict[Workload, WorkloadRow] = field(default_factory=dict)
    nets: list[NetRow] = field(default_factory=list)
    layers: dict[str, tuple[LayerRow, ...]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    recipes: dict[Packing, Recipe] = field(default_factory=dict)
    compiling: dict[str, Future[None]] = field(default_factory=dict)
    compilers: ThreadPoolExecutor = field(init=False)

    def add_net(self, name: str) -> None:
        graph = prepared(drop_final_softmax(load(name).graph))
        self.layers[graph.name] = chain(graph)
        model = onnx_skeleton(graph.name, graph.input, self.layers[graph.name])
        (self.folder / f"{graph.name}.onnx").write_bytes(model.SerializeToString())
        archs = (self.wish.card.arch,)
        target = Target(name="cuda", kind="cuda", attrs={"kind": "cuda"}, archs=archs)
        for batch in self.wish.batches:
            plan = plan_for(graph, batch, target, PRECISION)
            steps = tuple(
                StepRow(
                    layer=step.layer,
                    workload=self.workload(step.workload, step.layer),
                    reads=step.reads,
                    weights=step.weights,
                )
                for step in plan.steps
            )
            (output,) = plan.outputs
            channels, height, width = plan.input
            self.nets.append(
                NetRow(
                    net=graph.name,
                    batch=batch,
                    input=(channels, height, width),
                    steps=steps,
                    output=output.step,
                )
            )

    def workload(self, work: Workload, layer: str) -> str:
        """The row of a workload that a layer computes."""
        known = self.workloads.get(work)
        if known is not None:
            layers = tuple(dict.fromkeys((*known.layers, layer)))
            self.workloads[work] = replace(known, layers=layers)
            return known.id
        name = f"w{len(self.workloads):03}"
        macs = multiply_adds(work)
        (batch, *_) = work.output.shape if isinstance(work.output, Map) else work.output
        card = self.wish.card
        self.workloads[work] = WorkloadRow(
            id=name,
            workload={type(work).__name__: to_json(work)},
            batch=batch,
            layers=(layer,),
            kernels=tuple(self.kernels_for(work, name)),
            floor_seconds=max(2 * macs / card.peak_rate, moved_bytes(work) / card.memory_rate),
            flops=2 * macs,
            is_dense=is_dense(work),
            code=revision(algorithms(work, card)),
        )
        return name

    def kernels_for(self, work: Workload, name: str) -> Iterator[str]:
        """Has kernels of a workload compiled, and gives their names."""
        for offer in offers(work, self.wish.card, self.wish.choices):
            number = f"k{len(self.kernels):04}"
            try:
                kernel = offer.algorithm.kernel(offer.knobs)
                code = generate_all({number: kernel.func}, self.wish.card.arch)[number]
                row = kernel_row(number, name, work, kernel, code)
                recipe = self.recipe(kernel.packing, format_of(work))
            except Exception as error:  # whatever TVM says: the other kernels remain
                self.left_out.append(f"{work} by {offer.tile}: {error}"[:500])
                continue
            self.kernels[number] = replace(
                row,
                model_seconds=offer.algorithm.seconds(offer.knobs),
                recipe=recipe,
            )
            self.compile(number, code.source)
            yield number

    def compile(self, number: str, source: str) -> None:
        """Has the machine code of a kernel made."""
        if self.wish.emulated:
            self.compiling[number] = self.compilers.submit(self.by_gcc, number, source)
            return
        with zipfile.ZipFile(self.folder / SOURCES, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{number}.cu", source)
        self.compiling[number] = self.compilers.submit(self.by_nvrtc, number, source)

    def by_nvrtc(self, name: str, source: str) -> None:
        code = code_by_nvrtc(source, self.wish.card.arch)
        (self.folder / "code" / name).write_bytes(code)

    def by_gcc(self, name: str, source: str) -> None:
        with TemporaryDirectory() as temporary:
            library = compile_kernels(source, Path(temporary))
            shutil.copy(library, self.folder / "code" / name)

    def finish(self) -> None:
        """Waits for the compilers, and leaves out what they refuse."""
        for name, compiling in self.compiling.items():
            try:
                compiling.result()
            except (CompilerError, subprocess.CalledProcessError) as error:
                self.left_out.append(f"{name}: {error}"[:500])
                self.forget(name)

    def forget(self, number: str) -> None:
        """Takes a kernel out of the tables."""
        gone = self.kernels.pop(number)
        for work, row in self.workloads.items():
            if row.id == gone.workload:
                rest = tuple(each for each in row.kernels if each != number)
                self.workloads[work] = replace(row, kernels=rest)

    def recipe(self, packing: Packing | None, form: str) -> Recipe | None:
        """How a weight in a format is packed, in a file."""
        if packing is None:
            return None
        panel = getattr(packing, "cols", 1)
        one = with_outputs(packing, panel)
        if one not in self.recipes:
            index = packing_index(one, form)
            prove(packing, form, panel, index)
            content = zlib.compress(np.diff(index, prepend=np.int32(0)).tobytes(), 9)
            name = f"indices/{sha256(content).hexdigest()[:12]}"
            (self.folder / name).write_bytes(content)
            self.recipes[one] = Recipe(panel, name)
        return self.recipes[one]


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
        workspaces=workspaces(code, half),
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


def workspaces(code: CudaCode, half: str) -> tuple[Argument, ...]:
    """The memory beside its arguments that a kernel works with."""
    found = {
        name: Argument(name, (size,), torch_type(dtype, half))
        for launch in code.launches
        for name, (size, dtype) in launch.buffers.items()
        if name not in code.parameters
    }
    return tuple(found.values())


def torch_type(dtype: object, half: str) -> str:
    """The name that a type of TVM's has in torch; halves lie in uint16."""
    return half if str(dtype) == "uint16" else str(dtype)


def format_of(work: Workload) -> str:
    """The format of the halves that a workload has to do with."""
    layouts = (*work.inputs, work.output)
    found = [each.format for each in layouts if isinstance(each, Map)]
    return next((each for each in found if each != "float32"), PRECISION)


def is_dense(work: Workload) -> bool:
    """Whether a workload is a dense layer, as plans in halves have it: a convolution of its whole
    map.
    """
    if not isinstance(work, Conv):
        return False
    return (work.input.height, work.input.width) == work.kernel and work.padding == (0, 0)


def multiply_adds(work: Workload) -> int:
    """What a workload asks for."""
    if not isinstance(work, Conv):
        return 0
    return work.output.batch * prod(work.grid) * prod(work.weight_shape)


# How weights are packed, as numbers


def with_outputs(packing: Packing, count: int) -> Packing:
    """The same packing of a weight with so many output channels."""
    some = cast("Any", packing)
    changed: Packing = replace(some, shape=(count, *some.shape[1:]))
    return changed


def packing_index(packing: Packing, form: str) -> np.ndarray:
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
        found += floats(form, packing.pack(digit)).ravel().astype(np.int64) * weight
        weight *= base
    return (found - 1).astype(np.int32)


def prove(packing: Packing, form: str, panel: int, index: np.ndarray) -> None:
    """Compares what an index gives with what the packing gives, of a weight with a panel that is
    not full.

    Raises: BundleError where they differ.
    """
    outputs = panel + max(1, panel // 3)
    part = with_outputs(packing, outputs)
    weight = np.random.default_rng(0).standard_normal(shape_of(part), np.float32)
    wanted = part.pack(weight).ravel()
    panels = wanted.size // index.size
    rows = np.zeros((panels * panel, weight[0].size), np.uint16)
    rows[:outputs] = bits(form, weight).reshape(outputs, -1)
    given = np.concatenate([rows.reshape(panels, -1), np.zeros((panels, 1), np.uint16)], 1)
    if not np.array_equal(given[:, index].ravel(), wanted):
        raise BundleError(f"{packing} is no order of the weight's elements")


def shape_of(packing: Packing) -> tuple[int, ...]:
    """The shape of the weight that is packed."""
    found: tuple[int, ...] = cast("Any", packing).shape
    return found


def floats(form: str, halves: np.ndarray) -> np.ndarray:
    """The floats that the bits of halves stand for."""
    return halves.view(np.float16) if form == "float16" else from_bfloat16(halves)


def bits(form: str, values: np.ndarray) -> np.ndarray:
    """The bits of the nearest halves."""
    return values.astype(np.float16).view(np.uint16) if form == "float16" else to_bfloat16(values)


# The net as torch and ONNX have it


def chain(graph: Graph) -> tuple[LayerRow, ...]:
    """The layers of a net, each of which reads the one before it.

    Raises: BundleError for a net that is none, or has other layers than VGG's.
    """
    found = []
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Input):
            continue
        if node.inputs != (index - 1,):
            raise BundleError(f"{graph.name} is no chain: {node.name}")
        found.append(_layer(graph, node))
    return tuple(found)


def _layer(graph: Graph, node: Node) -> LayerRow:
    source = graph.nodes[node.inputs[0]].shape
    weights = {name: tuple(weight.shape) for name, weight in graph.weights(node).items()}
    match node.op:
        case Conv2d(bias=True, groups=1) as op:
            sizes: dict[str, Any] = {
                "in_channels": source[0],
                "out_channels": op.channels,
                "kernel_size": [*op.kernel],
                "stride": [*op.stride],
                "padding": [*op.padding],
            }
            return LayerRow("conv", sizes, weights)
        case Linear(bias=True) as op:
            sizes = {"in_features": source[0], "out_features": op.features}
            return LayerRow("linear", sizes, weights)
        case MaxPool2d(ceil=False) as op:
            window = (op.kernel, op.stride, op.padding)
            names = ("kernel_size", "stride", "padding")
            sizes = {name: [*pair] for name, pair in zip(names, window, strict=True)}
            return LayerRow("pool", sizes, {})
        case Activation(function="relu"):
            return LayerRow("relu", {}, {})
        case Flatten():
            return LayerRow("flatten", {}, {})
        case op:
            raise BundleError(f"{graph.name} has a layer that VGG has not: {op}")


def onnx_skeleton(name: str, image: Sequence[int], layers: Sequence[LayerRow]) -> onnx.ModelProto:
    """The net in float16 as ONNX, whose weights lie one after the other in a file that is written
    on the card.
    """
    half, nodes, tensors, offset, value = TensorProto.FLOAT16, [], [], 0, "image"
    for index, layer in enumerate(layers):
        for weight, shape in layer.weights.items():
            tensor = TensorProto(name=weight, data_type=half, dims=shape)
            size = 2 * prod(shape)
            tensor.data_location = TensorProto.EXTERNAL
            told = {"location": WEIGHTS_FILE, "offset": offset, "length": size}
            for key, said in told.items():
                tensor.external_data.add(key=key, value=str(said))
            tensors.append(tensor)
            offset += size
        output = f"value{index}"
        kind, attributes = _onnx_op(layer)
        nodes.append(helper.make_node(kind, [value, *layer.weights], [output], **attributes))
        value = output
    source = helper.make_tensor_value_info("image", half, ["N", *image])
    target = helper.make_tensor_value_info(value, half, ["N", None])
    graph = helper.make_graph(nodes, name, [source], [target], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _onnx_op(layer: LayerRow) -> tuple[str, dict[str, Any]]:
    sizes = layer.sizes
    match layer.kind:
        case "conv" | "pool":
            pads = [*sizes["padding"], *sizes["padding"]]
            window = {"kernel_shape": sizes["kernel_size"], "strides": sizes["stride"]}
            return "Conv" if layer.kind == "conv" else "MaxPool", {**window, "pads": pads}
        case "linear":
            return "Gemm", {"transB": 1}
        case "relu":
            return "Relu", {}
        case _:
            return "Flatten", {}


def _emulated_driver(folder: Path) -> str:
    """Compiles what stands in for NVIDIA's driver."""
    command = ["g++", "-shared", "-fPIC", "-O1", "-o", str(folder / "driver"), str(EMULATED_DRIVER)]
    subprocess.run(command, check=True)
    return "driver"
