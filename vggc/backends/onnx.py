"""Graph to an ONNX model, opset 17."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Border,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    DepthToSpace,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Input,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Mul,
    Pad2d,
    Pool2d,
    PRelu,
    Scale,
    Shape,
    Shuffle,
    Sides,
    Softmax,
    Softmax2d,
    StochasticPool2d,
    TakeChannels,
    TakePart,
    Upsample,
)
from vggc.ir.weights import Weights
from vggc.passes.inference import drop_dropout
from vggc_runtime.version import __version__

OPSET = 17
IR_VERSION = 8
BATCH = "N"
"""The name of the batch's free dimension."""


@dataclass(frozen=True)
class Model:
    """An ONNX model, whose `constants` stand beside the `skeleton`: within it protobuf would copy
    them, and its tools do so several times.
    """

    skeleton: onnx.ModelProto
    constants: Mapping[str, NDArray[np.float32]]

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The bytes of the file, `skeleton` with the constants as its initialisers; constants are
        never copied.

        Source: https://protobuf.dev/programming-guides/encoding; a message may be split between
        its fields, which may come in any order.
        """
        head = onnx.ModelProto()
        head.CopyFrom(self.skeleton)
        head.ClearField("graph")
        graph = self.skeleton.graph.SerializeToString()
        starts = [_tensor_start(name, values) for name, values in self.constants.items()]
        starts = [
            _field_start(onnx.GraphProto, "initializer", len(start) + values.nbytes) + start
            for start, values in zip(starts, self.constants.values(), strict=True)
        ]
        size = len(graph) + sum(map(len, starts))
        size += sum(values.nbytes for values in self.constants.values())
        yield head.SerializeToString()
        yield _field_start(onnx.ModelProto, "graph", size) + graph
        for start, values in zip(starts, self.constants.values(), strict=True):
            yield start
            yield np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data


def _tensor_start(name: str, values: NDArray[np.float32]) -> bytes:
    """The bytes of a serialised tensor up to its values."""
    tensor = TensorProto(name=name, dims=values.shape, data_type=TensorProto.FLOAT)
    start: bytes = tensor.SerializeToString()
    return start + _field_start(TensorProto, "raw_data", values.nbytes)


def _field_start(message: Any, field: str, size: int) -> bytes:
    """The bytes that stand before the `size` bytes of a field: its number, that its length is told,
    and the length.
    """
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def to_onnx(graph: Graph, weights: Weights, metadata: Mapping[str, str] | None = None) -> Model:
    """The graph for inference as an ONNX model: input `input` `(N, C, H, W)`, an output for each
    head, N free.

    Outputs have the names of their heads, `output` where the net names none.

    Raises: onnx.checker.ValidationError where the model is unsound; a bug in vggc.
    """
    graph = drop_dropout(graph)
    writer = _Writer(graph, weights)
    for index in range(1, len(graph.nodes)):
        writer.write(index)
    for head in graph.heads:
        if writer.names[head.node] != head.name:
            writer.emit("Identity", [writer.names[head.node]], head.name)
    constants = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
        for name, values in writer.constants.items()
    ]
    body = helper.make_graph(
        writer.nodes,
        graph.name,
        [_value("input", graph.input), *constants],
        [_value(name, shape) for name, shape in graph.outputs.items()],
    )
    model: onnx.ModelProto = helper.make_model(
        body,
        producer_name="vggc",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata or {}))
    # Constants are checked as inputs, by their shapes: the checker would copy their values.
    onnx.checker.check_model(model, full_check=True)
    del model.graph.input[1:]
    return Model(model, writer.constants)


def save_onnx(graph: Graph, weights: Weights, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes the model that `to_onnx` makes to a file, with these metadata."""
    with path.open("wb") as file:
        for piece in to_onnx(graph, weights, metadata).pieces():
            file.write(piece)


def _value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])


@dataclass
class _Writer:
    """Gathers the nodes and the constants of a model."""

    graph: Graph
    weights: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Weights are called `conv1.weight`, so no name of a user's can be that of a value.
        self.names = [f"{node.name}.out" for node in self.graph.nodes]
        for head in reversed(self.graph.heads):
            self.names[head.node] = head.name
        self.names[0] = "input"

    def emit(self, kind: str, reads: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, reads, [output], output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def numbers(self, name: str, values: Sequence[int]) -> str:
        """Whole numbers, as axes and shapes are told."""
        return self.emit("Constant", [], name, value_ints=values)

    def write(self, index: int) -> None:
        """The ONNX nodes that compute a node."""
        node = self.graph.nodes[index]
        reads, output = [self.names[read] for read in node.inputs], self.names[index]

        def make(kind: str, **attributes: Any) -> None:
            roles = [self.constant(name, self.weights[name]) for name in self.graph.weights(node)]
            self.emit(kind, [*reads, *roles], output, **attributes)

        match node.op:
            case Conv2d() as conv:
                window = {"kernel_shape": conv.kernel, "strides": conv.stride}
                dilated = {"dilations": conv.dilation} if conv.dilation != (1, 1) else {}
                make("Conv", **window, **dilated, pads=conv.padding, group=conv.groups)
            case ConvTranspose2d() as conv:
                window = {"kernel_shape": conv.kernel, "strides": conv.stride}
                make("ConvTranspose", **window, pads=conv.padding, group=conv.groups)
            case DepthToSpace():
                self.place(node, node.op, reads[0], output)
            case Linear():
                make("Gemm", transB=1)
            case MaxPool2d():
                make("MaxPool", **self.placed(node, node.op))
            case AvgPool2d():
                self.average(node, node.op, reads, output)
            case StochasticPool2d():
                self.weigh(node, node.op, reads, output)
            case Pad2d(padding=padding, border="wrap"):
                self.wrap(node, padding, reads[0], output)
            case Pad2d(padding=padding, border=border):
                self.pad(f"{node.name}.padding", padding, border, reads[0], output)
            case GlobalAvgPool():
                means = self.emit("GlobalAveragePool", reads, f"{node.name}.means")
                self.emit("Flatten", [means], output, axis=1)
            case BatchNorm(eps=eps):
                make("BatchNormalization", epsilon=eps)
            case Scale():
                weight, *bias = (
                    self.constant(name, self.along(node, self.weights[name]))
                    for name in self.graph.weights(node)
                )
                scaled = f"{node.name}.scaled" if bias else output
                self.emit("Mul", [*reads, weight], scaled)
                if bias:
                    self.emit("Add", [scaled, *bias], output)
            case GroupNorm():
                self.normalise_groups(node, node.op, reads, output)
            case LayerNorm():
                self.normalise_places(node, node.op, reads, output)
            case LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k):
                # ONNX divides alpha by the size; the paper does not.
                make("LRN", size=size, alpha=alpha * size, beta=beta, bias=k)
            case Clip(low=low, high=high):
                limits = [
                    self.constant(f"{node.name}.{name}", limit) if isfinite(limit) else ""
                    for name, limit in (("low", low), ("high", high))
                ]
                self.emit("Clip", [*reads, *limits], output)
            case Activation():
                self.activate(node, node.op, reads, output)
            case PRelu():
                (name,) = self.graph.weights(node)
                slopes = self.constant(name, self.along(node, self.weights[name]))
                self.emit("PRelu", [*reads, slopes], output)
            case Flatten():
                make("Flatten", axis=1)
            case Softmax() | Softmax2d():
                make("Softmax", axis=1)
            case Shuffle(groups=groups):
                self.shuffle(node, groups, reads, output)
            case TakePart() | TakeChannels():
                ends = zip(("first", "end"), node.op.taken(self.graph.source(node)), strict=True)
                limits = [self.numbers(f"{node.name}.{name}", [at]) for name, at in ends]
                axis = self.numbers(f"{node.name}.axis", [1])
                self.emit("Slice", [*reads, *limits, axis], output)
            case Upsample(factors=factors, mode=mode):
                scales = self.constant(f"{node.name}.scales", [1, 1, *factors])
                way = (
                    {"coordinate_transformation_mode": "half_pixel", "mode": "linear"}
                    if mode == "bilinear"
                    else {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                )
                self.emit("Resize", [*reads, "", scales], output, **way)
            case Concat():
                make("Concat", axis=1)
            case Add():
                make("Sum")
            case Mul():
                self.multiply(node, reads, output)
            case Input() | Dropout():
                raise AssertionError(f"{node.name} has no place in a graph for inference")
            case _:
                assert_never(node.op)

    def place(self, node: Node, op: DepthToSpace, read: str, output: str) -> None:
        """The channels of each block of places at these places. ONNX has an operator for square
        blocks without groups only.
        """
        _, height, width = self.graph.source(node)
        channels, (down, across), (top, left, bottom, right) = node.shape[0], op.block, op.crop
        blocks = (0, op.groups, down, across, channels // op.groups, height, width)
        places = (0, channels, height * down, width * across)
        name = node.name
        parts = self.emit(
            "Reshape", [read, self.numbers(f"{name}.blocks", blocks)], f"{name}.parts"
        )
        turned = self.emit("Transpose", [parts], f"{name}.turned", perm=(0, 1, 4, 5, 2, 6, 3))
        whole = self.emit(
            "Reshape", [turned, self.numbers(f"{name}.places", places)], f"{name}.whole"
        )
        limits = {
            "starts": (top, left),
            "ends": (height * down - bottom, width * across - right),
            "axes": (2, 3),
        }
        cut = [self.numbers(f"{name}.{key}", values) for key, values in limits.items()]
        self.emit("Slice", [whole, *cut], output)

    def normalise_groups(self, node: Node, op: GroupNorm, reads: list[str], output: str) -> None:
        """Opset 17 has no group normalisation: each group is an instance of its own."""

        def step(kind: str, name: str, *inputs: str, **attributes: Any) -> str:
            return self.emit(kind, inputs, f"{node.name}.{name}", **attributes)

        ones = self.constant(f"{node.name}.ones", np.ones(op.groups))
        zeros = self.constant(f"{node.name}.zeros", np.zeros(op.groups))
        weight, bias = (
            self.constant(name, self.along(node, self.weights[name]))
            for name in self.graph.weights(node)
        )
        by_group = self.numbers(f"{node.name}.by_group", (0, op.groups, -1))
        by_channel = self.numbers(f"{node.name}.by_channel", (0, *node.shape))
        groups = step("Reshape", "groups", *reads, by_group)
        normal = step("InstanceNormalization", "normal", groups, ones, zeros, epsilon=op.eps)
        values = step("Reshape", "values", normal, by_channel)
        self.emit("Add", [step("Mul", "scaled", values, weight), bias], output)

    def normalise_places(self, node: Node, op: LayerNorm, reads: list[str], output: str) -> None:
        """ONNX normalises along the last axes: channels are brought there and back."""
        roles = [self.constant(name, self.weights[name]) for name in self.graph.weights(node)]
        if len(node.shape) == 1:
            self.emit("LayerNormalization", [*reads, *roles], output, axis=-1, epsilon=op.eps)
            return
        last = self.emit("Transpose", reads, f"{node.name}.last", perm=(0, 2, 3, 1))
        normal = self.emit(
            "LayerNormalization", [last, *roles], f"{node.name}.normal", axis=-1, epsilon=op.eps
        )
        self.emit("Transpose", [normal], output, perm=(0, 3, 1, 2))

    def activate(self, node: Node, op: Activation, reads: list[str], output: str) -> None:
        def constant(name: str, value: float) -> str:
            return self.constant(f"{node.name}.{name}", value)

        def step(kind: str, name: str, *inputs: str) -> str:
            return self.emit(kind, inputs, f"{node.name}.{name}")

        match op.function:
            case _ if op.facts.onnx is not None:
                alpha = {"alpha": op.slope} if op.facts.slope else {}
                self.emit(op.facts.onnx, reads, output, **alpha)
            case "relu6":
                self.emit("Clip", [*reads, constant("low", 0), constant("high", 6)], output)
            case "gelu":
                erf = step("Erf", "erf", step("Mul", "scaled", *reads, constant("root", sqrt(0.5))))
                twice = step("Mul", "twice", *reads, step("Add", "risen", erf, constant("one", 1)))
                self.emit("Mul", [twice, constant("half", 0.5)], output)
            case "hardsigmoid":
                self.emit("HardSigmoid", reads, output, alpha=1 / 6, beta=0.5)
            case "mish":
                bent = step("Tanh", "bent", step("Softplus", "above", *reads))
                self.emit("Mul", [*reads, bent], output)
            case "silu":
                self.emit("Mul", [*reads, step("Sigmoid", "gate", *reads)], output)
            case _:
                raise AssertionError(f"no ONNX nodes are known for {op.function}")

    def shuffle(self, node: Node, groups: int, reads: list[str], output: str) -> None:
        """The channels as a table of a row a group, turned; 0 keeps an extent."""
        channels, *size = node.shape
        rows = self.numbers(f"{node.name}.rows", [0, groups, channels // groups, *size])
        whole = self.numbers(f"{node.name}.whole", [0, channels, *size])
        table = self.emit("Reshape", [*reads, rows], f"{node.name}.table")
        turned = self.emit("Transpose", [table], f"{node.name}.turned", perm=[0, 2, 1, 3, 4])
        self.emit("Reshape", [turned, whole], output)

    def multiply(self, node: Node, reads: list[str], output: str) -> None:
        """The product of values two by two; vectors beside maps become maps of one pixel."""
        factors = []
        for number, (read, shape) in enumerate(zip(reads, self.graph.sources(node), strict=True)):
            if len(shape) < len(node.shape):
                axes = self.numbers(f"{node.name}.axes{number}", [2, 3])
                read = self.emit("Unsqueeze", [read, axes], f"{node.name}.factor{number}")
            factors.append(read)
        product, *others = factors
        for number, factor in enumerate(others, 1):
            name = output if number == len(others) else f"{node.name}.product{number}"
            product = self.emit("Mul", [product, factor], name)

    def placed(self, node: Node, op: Pool2d) -> dict[str, Any]:
        """The attributes that say where the windows of a pool lie, the last one's overhang written
        out. Padding that the last windows do not reach stays: it changes nothing, and what is even
        is read rightly by more programs (pnnx pads twice where the sides differ).
        """
        pads = [max(told, far) for told, far in zip(op.padding, self.reach(node, op), strict=True)]
        return {"kernel_shape": op.kernel, "strides": op.stride, "pads": pads}

    def reach(self, node: Node, op: Pool2d) -> Sides:
        """How far the windows of a pool reach beyond each side of what it reads."""
        source, (_, *count) = self.graph.source(node), node.shape
        return op.window(source).beyond((source[1], source[2]), (count[0], count[1]))

    def average(self, node: Node, op: AvgPool2d, reads: list[str], output: str) -> None:
        """A mean. What reaches beyond padding that is counted is not counted, which ONNX's own
        attribute cannot say: there the padding is a node by itself.
        """
        placed = self.placed(node, op)
        further = [max(0, a - b) for a, b in zip(self.reach(node, op), op.padding, strict=True)]
        if op.counts_padding and any(further):
            name = f"{node.name}.padded"
            reads = [self.pad(f"{node.name}.padding", op.padding, "zeros", reads[0], name)]
            placed |= {"pads": further}
        counted = int(op.counts_padding and not any(further))
        self.emit("AveragePool", reads, output, count_include_pad=counted, **placed)

    def weigh(self, node: Node, op: StochasticPool2d, reads: list[str], output: str) -> None:
        """The mean of each window weighted by its own values, as a quotient of means."""

        def mean(name: str, read: str) -> str:
            placed = self.placed(node, op)
            return self.emit("AveragePool", [read], f"{node.name}.{name}", **placed)

        values = self.emit("Relu", reads, f"{node.name}.values")
        squares = self.emit("Mul", [values, values], f"{node.name}.squares")
        least = self.constant(f"{node.name}.least", np.finfo(np.float32).tiny)
        sums = self.emit("Max", [mean("means", values), least], f"{node.name}.divisors")
        self.emit("Div", [mean("weighted", squares), sums], output)

    def pad(self, name: str, padding: Sides, border: Border, read: str, output: str) -> str:
        """A map with rows and columns around it."""
        top, left, bottom, right = padding
        pads = self.numbers(name, (0, 0, top, left, 0, 0, bottom, right))
        mode = "constant" if border == "zeros" else border
        return self.emit("Pad", [read, pads], output, mode=mode)

    def wrap(self, node: Node, padding: Sides, read: str, output: str) -> None:
        """A map with itself around it, first above and below, then left and right: `Pad` wraps
        around from opset 19 on only.
        """
        for axis, ends in ((2, padding[0::2]), (3, padding[1::2])):
            name = output if axis == 3 else f"{node.name}.rows"
            extent = self.graph.source(node)[axis - 1]
            cuts = {"before": (extent - ends[0], extent), "behind": (0, ends[1])}
            found = {
                side: self.cut(f"{node.name}.{axis}.{side}", read, axis, *cut)
                for side, cut in cuts.items()
                if cut[0] < cut[1]
            }
            parts = [found.get("before"), read, found.get("behind")]
            read = self.emit("Concat", [*filter(None, parts)], name, axis=axis)

    def cut(self, name: str, read: str, axis: int, start: int, end: int) -> str:
        """Some rows or columns of a map."""
        limits = {"starts": start, "ends": end, "axes": axis}
        operands = [self.numbers(f"{name}.{key}", [value]) for key, value in limits.items()]
        return self.emit("Slice", [read, *operands], name)

    def along(self, node: Node, values: np.ndarray) -> np.ndarray:
        """One number for each channel, in a shape that spreads over what the node gives."""
        return values.reshape(-1, *(1,) * (len(node.shape) - 1))
