"""What torch.export traced of a module, operator by operator, as a graph of ONNX operators.

Source: the schemas in aten/src/ATen/native/native_functions.yaml of PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import Node

from vggc.importing.assembly import Assembly, Wire
from vggc.importing.foreign import ForeignTensor
from vggc.ir.ops import Pair, Shape

FLOAT32 = np.dtype(np.float32)
LAST = (1 << 63) - 1
"""What ends a slice that has no end."""
PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class NoOperatorError(Exception):
    """What an operator of torch has no counterpart for, and where it stands in the module."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where


@dataclass
class _Slot:
    """A value in memory, which an operator may change in its place.

    `shares` are other values that are seen in the same memory. Once one of them has changed in its
    place, the others are `stale`: what they hold then is not in the graph.
    """

    held: Wire | str
    shares: list[_Slot]
    is_stale: bool = False


@dataclass(frozen=True)
class AtenCall:
    """One operator of a traced module: its arguments by name, and the shape of what it gives."""

    name: str
    where: str
    arguments: Mapping[str, Any]
    shape: Shape

    def __getitem__(self, key: str) -> Any:
        return self.arguments[key]

    def refused(self, why: str = "") -> NoOperatorError:
        """The error that this operator has no counterpart."""
        return NoOperatorError(f"`{self.name}`{f' {why}' if why else ''}", self.where)


def graph_of(program: ExportedProgram) -> tuple[Assembly, list[Wire]]:
    """The operators of a traced module of one input, and what it gives.

    Raises: NoOperatorError at the first operator that has no counterpart.
    """
    return _Translation(program).outputs()


class _Translation:
    """One walk over a traced module's operators."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = Assembly()
        self.cells: dict[Node, _Slot] = {}
        signature = program.graph_signature
        self.names: Mapping[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.images = set(signature.user_inputs)

    def outputs(self) -> tuple[Assembly, list[Wire]]:
        found: list[Wire] = []
        for node in self.program.graph.nodes:
            match node.op:
                case "placeholder":
                    self.cells[node] = _Slot(self.placeholder(node), [])
                case "call_function":
                    self.call(node)
                case "output":
                    given = [each for each in node.args[0] if isinstance(each, Node)]
                    found = [self.wire(each, "the output") for each in given]
                case _:
                    raise NoOperatorError(f"`{node.op}`", _where(node))
        return self.graph, found

    def placeholder(self, node: Node) -> Wire | str:
        """An input, or the name in the graph of a parameter."""
        if node.name in self.images:
            return self.graph.image(node.name, _shape(node))
        name = self.names[node.name]
        held = self.program.state_dict.get(name)
        if held is None:
            held = self.program.constants[name]
        tensor: torch.Tensor = held

        def read() -> NDArray[Any]:
            values: NDArray[Any] = tensor.detach().float().numpy()
            return values

        return self.graph.tensor(name, ForeignTensor(tuple(tensor.shape), FLOAT32, read))

    def call(self, node: Node) -> None:
        target = str(getattr(node.target, "__name__", node.target))
        if target == "getitem":
            source, index = node.args
            assert isinstance(source, Node)
            pieces: Any = self.cells[source]
            if not isinstance(pieces, list) or not isinstance(index, int):
                raise NoOperatorError("a part of several values", _where(node))
            self.cells[node] = pieces[index]
            return
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            raise NoOperatorError(f"`{target}`", _where(node))
        name = str(schema.name).removeprefix("aten::")
        is_in_place = name.endswith("_") and not name.endswith("__")
        values = dict(zip((each.name for each in schema.arguments), node.args, strict=False))
        defaults = {each.name: each.default_value for each in schema.arguments}
        arguments = {**defaults, **values, **node.kwargs}
        if name in ("chunk", "split", "split_with_sizes"):
            self.cells[node] = self.split(node, arguments)  # type: ignore[assignment]
            return
        call = AtenCall(name.rstrip("_"), _where(node), arguments, _shape(node))
        wire = self.made(call)
        first = next((each for each in node.args if isinstance(each, Node)), None)
        if is_in_place and first is not None:
            cell = self.cells[first]
            for other in cell.shares:
                other.is_stale = True
            cell.held = wire
            self.cells[node] = cell
        elif call.name in VIEWS and first is not None:
            base = self.cells[first]
            seen = _Slot(wire, [base, *base.shares])
            for other in seen.shares:
                other.shares.append(seen)
            self.cells[node] = seen
        else:
            self.cells[node] = _Slot(wire, [])

    def split(self, node: Node, arguments: Mapping[str, Any]) -> list[_Slot]:
        """The parts of a value, one node each, which are seen in its memory."""
        read = self.wire(arguments["self"], _where(node))
        base = self.cells[arguments["self"]]
        seen = [base, *base.shares]
        axis = arguments["dim"] % len(read.shape)
        cells, start = [], 0
        for part in node.meta["val"]:
            shape = tuple(int(side) for side in part.shape)
            end = start + shape[axis]
            limits = [
                self.graph.numbers(f"{_where(node)}.{role}", [number], np.int64)
                for role, number in (("starts", start), ("ends", end), ("axes", axis))
            ]
            wire = self.graph.node("Slice", [read, *limits], shape, _where(node))
            cells.append(_Slot(wire, [*seen]))
            start = end
        for other in seen:
            other.shares += cells
        return cells

    def wire(self, value: Any, where: str) -> Wire:
        """A value that is computed."""
        held = self.held(value, where)
        if isinstance(held, str):
            raise NoOperatorError("an operator on parameters", where)
        return held

    def held(self, value: Any, where: str) -> Wire | str:
        """A value that is computed, or the name of a parameter."""
        cell = self.cells[value]
        if cell.is_stale:
            raise NoOperatorError("a value that another operator changes in its place", where)
        return cell.held

    def parameter(self, value: Any, where: str) -> str:
        """The name of a parameter."""
        held = self.held(value, where)
        if isinstance(held, Wire):
            raise NoOperatorError("a weight that is computed", where)
        return held

    def node(self, call: AtenCall, op: str, *reads: Wire | str, **attributes: Any) -> Wire:
        """A node that gives what a call gives."""
        return self.graph.node(op, reads, call.shape, call.where, **attributes)

    def numbers(self, call: AtenCall, role: str, values: Any, dtype: type = np.float32) -> str:
        return self.graph.numbers(f"{call.where}.{role}", values, dtype)

    def made(self, call: AtenCall) -> Wire:
        """What an operator gives."""
        rule = RULES.get(call.name)
        if rule is None:
            raise call.refused()
        return rule(self, call)

    def read(self, call: AtenCall) -> Wire:
        """What an operator reads first."""
        first = "input" if "input" in call.arguments else "self"
        return self.wire(call[first], call.where)

    def given(self, call: AtenCall, *keys: str) -> list[str]:
        """The parameters of an operator, but those that are None."""
        values = (call[key] for key in keys)
        return [self.parameter(each, call.where) for each in values if each is not None]

    def learned(self, call: AtenCall, key: str, default: NDArray[Any]) -> str:
        """The name of a parameter, or of what stands for it where there is none."""
        if call[key] is None:
            return self.numbers(call, key, default)
        return self.parameter(call[key], call.where)


# ---------------------------------------------------------------- operators by name

AtenRule: TypeAlias = Callable[[_Translation, AtenCall], Wire]


def _convolution(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    weight = net.parameter(call["weight"], call.where)
    kernel = net.graph.tensors[weight].shape[2:]
    if len(kernel) != 2:
        raise call.refused("of a kernel that is not of two sides")
    padding, dilation = call["padding"], _two(call["dilation"])
    if isinstance(padding, str):
        needed = [d * (k - 1) if padding == "same" else 0 for d, k in _zip(dilation, kernel)]
        pads = [each // 2 for each in needed] + [each - each // 2 for each in needed]
    else:
        pads = [*_two(padding)] * 2
    return net.node(
        call, "Conv", read, weight, *net.given(call, "bias"), kernel_shape=kernel,
        strides=_two(call["stride"]), pads=pads, dilations=dilation, group=call["groups"],
    )  # fmt: skip


def _transposed_convolution(net: _Translation, call: AtenCall) -> Wire:
    weight = net.parameter(call["weight"], call.where)
    return net.node(
        call, "ConvTranspose", net.read(call), weight, *net.given(call, "bias"),
        kernel_shape=net.graph.tensors[weight].shape[2:], strides=_two(call["stride"]),
        pads=[*_two(call["padding"])] * 2, output_padding=_two(call["output_padding"]),
        dilations=_two(call["dilation"]), group=call["groups"],
    )  # fmt: skip


def _batch_norm(net: _Translation, call: AtenCall) -> Wire:
    if call["training"] or call["running_mean"] is None:
        raise call.refused("with the statistics of each batch")
    read = net.read(call)
    channels = read.shape[1]
    ones, zeros = np.ones(channels), np.zeros(channels)
    affine = [net.learned(call, "weight", ones), net.learned(call, "bias", zeros)]
    statistics = net.given(call, "running_mean", "running_var")
    reads = [*affine, *statistics]
    return net.node(call, "BatchNormalization", read, *reads, epsilon=call["eps"])


def _linear(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    weight = net.parameter(call["weight"], call.where)
    if len(read.shape) == 2:
        return net.node(call, "Gemm", read, weight, *net.given(call, "bias"), transB=1)
    tensor = net.graph.tensors[weight]
    shape = tensor.shape[::-1]
    turned = net.graph.tensor(f"{weight}.T", tensor.changed(shape, np.transpose))
    product = net.node(call, "MatMul", read, turned)
    bias = net.given(call, "bias")
    return net.node(call, "Add", product, *bias) if bias else product


def _matmul(net: _Translation, call: AtenCall) -> Wire:
    return net.node(call, "MatMul", net.read(call), net.held(call["other"], call.where))


def _max_pool(net: _Translation, call: AtenCall) -> Wire:
    kernel = _two(call["kernel_size"])
    return net.node(
        call, "MaxPool", net.read(call), kernel_shape=kernel,
        strides=_two(call["stride"] or kernel), pads=[*_two(call["padding"])] * 2,
        dilations=_two(call["dilation"]), ceil_mode=int(call["ceil_mode"]),
    )  # fmt: skip


def _average_pool(net: _Translation, call: AtenCall) -> Wire:
    if call["divisor_override"] is not None:
        raise call.refused("with a divisor of its own")
    kernel = _two(call["kernel_size"])
    return net.node(
        call, "AveragePool", net.read(call), kernel_shape=kernel,
        strides=_two(call["stride"] or kernel), pads=[*_two(call["padding"])] * 2,
        ceil_mode=int(call["ceil_mode"]), count_include_pad=int(call["count_include_pad"]),
    )  # fmt: skip


def _adaptive_pool(net: _Translation, call: AtenCall) -> Wire:
    """A mean over windows as many as are asked for, which are of one size where they divide the
    map.
    """
    read = net.read(call)
    size, wanted = read.shape[2:], call.shape[2:]
    if size == wanted:
        return read
    if wanted == (1, 1):
        return net.node(call, "GlobalAveragePool", read)
    if any(n % w for n, w in _zip(size, wanted)):
        raise call.refused(
            f"of {size[0]}×{size[1]} to {wanted[0]}×{wanted[1]}, no whole times less"
        )
    window = [n // w for n, w in _zip(size, wanted)]
    return net.node(call, "AveragePool", read, kernel_shape=window, strides=window)


def _mean(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    axes = sorted(axis % len(read.shape) for axis in call["dim"] or ())
    if read.is_map and axes == [2, 3]:
        shape = (*read.shape[:2], 1, 1)
        wire = net.graph.node("GlobalAveragePool", [read], shape, call.where)
        return wire if call["keepdim"] else net.graph.flat(wire, call.where)
    numbers = net.numbers(call, "axes", axes, np.int64)
    return net.node(call, "ReduceMean", read, numbers, keepdims=int(call["keepdim"]))


def _reshape(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    if call.shape == read.shape:
        return read
    if len(call.shape) == 2 and call.shape == (1, prod(read.shape)):
        return net.node(call, "Flatten", read, axis=1)
    return net.node(call, "Reshape", read, net.numbers(call, "shape", call.shape, np.int64))


def _permute(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    order = [axis % len(read.shape) for axis in call["dims"]]
    return net.node(call, "Transpose", read, perm=order)


def _transpose(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    order = [*range(len(read.shape))]
    one, other = (call[key] % len(order) for key in ("dim0", "dim1"))
    order[one], order[other] = order[other], order[one]
    return net.node(call, "Transpose", read, perm=order)


def _shuffled(net: _Translation, call: AtenCall) -> Wire:
    """Channels in so many groups, dealt out one of each group after another."""
    read, groups = net.read(call), call["groups"]
    _, channels, *size = read.shape
    apart, dealt = (1, groups, channels // groups, *size), (1, channels // groups, groups, *size)
    split = net.graph.node(
        "Reshape", [read, net.numbers(call, "apart", apart, np.int64)], apart, call.where
    )
    turned = net.graph.node("Transpose", [split], dealt, call.where, perm=[0, 2, 1, 3, 4])
    return net.node(call, "Reshape", turned, net.numbers(call, "shape", call.shape, np.int64))


def _concatenation(net: _Translation, call: AtenCall) -> Wire:
    reads = [net.wire(each, call.where) for each in call["tensors"]]
    return net.node(call, "Concat", *reads, axis=call["dim"] % len(call.shape))


def _arithmetic(op: str) -> AtenRule:
    """Two values, of which the second may be a number or a parameter."""

    def rule(net: _Translation, call: AtenCall) -> Wire:
        sides: list[Wire | str] = []
        for key in ("self", "other"):
            value = call[key]
            if isinstance(value, torch.fx.Node):
                sides.append(net.held(value, call.where))
            else:
                sides.append(net.numbers(call, key, value))
        if call.arguments.get("alpha", 1) != 1:
            raise call.refused("with `alpha`")
        if all(isinstance(each, str) for each in sides):
            raise call.refused("on parameters")
        return net.node(call, op, *sides)

    return rule


def _activation(op: str, **attributes: Any) -> AtenRule:
    return lambda net, call: net.node(call, op, net.read(call), **attributes)


def _clipped(low: str, high: str) -> AtenRule:
    """Values within limits, which are arguments by these names, or numbers."""

    def rule(net: _Translation, call: AtenCall) -> Wire:
        limits = [call.arguments.get(each, each) for each in (low, high)]
        names = [
            "" if limit is None else net.numbers(call, role, float(limit))
            for role, limit in zip(("min", "max"), limits, strict=True)
        ]
        return net.node(call, "Clip", net.read(call), *names)

    return rule


def _leaky_relu(net: _Translation, call: AtenCall) -> Wire:
    return net.node(call, "LeakyRelu", net.read(call), alpha=float(call["negative_slope"]))


def _elu(net: _Translation, call: AtenCall) -> Wire:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise call.refused("with a scale")
    return net.node(call, "Elu", net.read(call), alpha=float(call["alpha"]))


def _softplus(net: _Translation, call: AtenCall) -> Wire:
    if call["beta"] != 1:
        raise call.refused("with another `beta` than 1")
    return net.node(call, "Softplus", net.read(call))


def _gelu(net: _Translation, call: AtenCall) -> Wire:
    return net.node(call, "Gelu", net.read(call), approximate=call["approximate"])


def _silu(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    return net.node(call, "Mul", read, net.node(call, "Sigmoid", read))


def _prelu(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    weight = net.parameter(call["weight"], call.where)
    tensor = net.graph.tensors[weight]
    shape = (tensor.size, *(1 for _ in read.shape[2:]))
    spread = tensor.changed(shape, lambda values: values.reshape(shape))
    return net.node(call, "PRelu", read, net.graph.tensor(f"{weight}.slope", spread))


def _dropout(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    share = float(call["p"])
    if call["train"]:
        raise call.refused("that is in training")
    if not 0 < share < 1:
        return read
    return net.node(call, "Dropout", read, net.numbers(call, "ratio", share))


def _softmax(net: _Translation, call: AtenCall) -> Wire:
    return net.node(call, "Softmax", net.read(call), axis=call["dim"] % len(call.shape))


def _layer_norm(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    sides = call["normalized_shape"]
    weight = net.learned(call, "weight", np.ones(sides))
    reads = [weight, *net.given(call, "bias")]
    return net.node(call, "LayerNormalization", read, *reads, axis=-len(sides), epsilon=call["eps"])


def _group_norm(net: _Translation, call: AtenCall) -> Wire:
    read = net.read(call)
    channels = read.shape[1]
    ones, zeros = np.ones(channels), np.zeros(channels)
    affine = [net.learned(call, "weight", ones), net.learned(call, "bias", zeros)]
    return net.node(
        call, "GroupNormalization", read, *affine, num_groups=call["num_groups"],
        epsilon=call["eps"],
    )  # fmt: skip


def _upsampled(mode: str) -> AtenRule:
    def rule(net: _Translation, call: AtenCall) -> Wire:
        read = net.read(call)
        if call.arguments.get("align_corners"):
            raise call.refused("with aligned corners")
        factors = [wide / n for wide, n in _zip(call.shape, read.shape)]
        if any(factor != int(factor) for factor in factors):
            raise call.refused("by a factor that is not whole")
        how = {"coordinate_transformation_mode": "half_pixel"}
        if mode == "nearest":
            how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return net.node(
            call, "Resize", read, "", net.numbers(call, "scales", factors), mode=mode, **how
        )

    return rule


def _pad(net: _Translation, call: AtenCall) -> Wire:
    """Numbers before and after each axis, the last axis first."""
    read = net.read(call)
    mode = call.arguments.get("mode", "constant")
    value = call.arguments.get("value") or 0.0
    pairs = [*zip(call["pad"][::2], call["pad"][1::2], strict=True)][::-1]
    pairs = [(0, 0)] * (len(read.shape) - len(pairs)) + pairs
    if mode not in PAD_MODES or not isfinite(value):
        raise call.refused(f"with `{mode}`")
    befores, afters = zip(*pairs, strict=True)
    sides = net.numbers(call, "pads", [*befores, *afters], np.int64)
    filled = net.numbers(call, "value", value)
    return net.node(call, "Pad", read, sides, filled, mode=PAD_MODES[mode])


def _slice(net: _Translation, call: AtenCall) -> Wire:
    """Some of the values along an axis, each `step`-th from `start` to before `end`."""
    bounds = {
        "starts": call["start"] or 0,
        "ends": LAST if call["end"] is None else call["end"],
        "axes": call["dim"] % len(call.shape),
        "steps": call["step"],
    }
    limits = [net.numbers(call, role, [number], np.int64) for role, number in bounds.items()]
    return net.node(call, "Slice", net.read(call), *limits)


def _narrow(net: _Translation, call: AtenCall) -> Wire:
    start, axis = call["start"], call["dim"] % len(call.shape)
    if not isinstance(start, int):
        raise call.refused("from where the image decides")
    start += net.read(call).shape[axis] if start < 0 else 0
    bounds = {"starts": start, "ends": start + call["length"], "axes": axis}
    limits = [net.numbers(call, role, [number], np.int64) for role, number in bounds.items()]
    return net.node(call, "Slice", net.read(call), *limits)


def _select(net: _Translation, call: AtenCall) -> Wire:
    """The values at one place of an axis, which is no axis any more."""
    axis = call["dim"] % (len(call.shape) + 1)
    return net.node(
        call, "Gather", net.read(call), net.numbers(call, "place", call["index"], np.int64),
        axis=axis,
    )  # fmt: skip


def _same(net: _Translation, call: AtenCall) -> Wire:
    return net.read(call)


VIEWS = (
    *("adaptive_avg_pool2d", "alias", "contiguous", "detach", "dropout", "feature_dropout"),
    *("flatten", "narrow", "permute", "reshape", "select", "slice", "squeeze", "t", "to"),
    *("transpose", "unsqueeze", "view"),
)
"""Operators that may give what they read, seen in another way."""

RULES: Mapping[str, AtenRule] = {
    "adaptive_avg_pool2d": _adaptive_pool,
    "add": _arithmetic("Add"),
    "alias": _same,
    "avg_pool2d": _average_pool,
    "batch_norm": _batch_norm,
    "cat": _concatenation,
    "channel_shuffle": _shuffled,
    "clamp": _clipped("min", "max"),
    "clone": _same,
    "constant_pad_nd": _pad,
    "contiguous": _same,
    "conv2d": _convolution,
    "conv_transpose2d": _transposed_convolution,
    "detach": _same,
    "div": _arithmetic("Div"),
    "dropout": _dropout,
    "elu": _elu,
    "feature_dropout": _dropout,
    "flatten": _reshape,
    "gelu": _gelu,
    "group_norm": _group_norm,
    "hardsigmoid": _activation("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": _activation("HardSwish"),
    "hardtanh": _clipped("min_val", "max_val"),
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool2d": _max_pool,
    "mean": _mean,
    "mish": _activation("Mish"),
    "mul": _arithmetic("Mul"),
    "narrow": _narrow,
    "pad": _pad,
    "permute": _permute,
    "prelu": _prelu,
    "relu": _activation("Relu"),
    "relu6": _clipped("0", "6"),
    "reshape": _reshape,
    "select": _select,
    "sigmoid": _activation("Sigmoid"),
    "silu": _silu,
    "slice": _slice,
    "softmax": _softmax,
    "softplus": _softplus,
    "squeeze": _reshape,
    "sub": _arithmetic("Sub"),
    "tanh": _activation("Tanh"),
    "transpose": _transpose,
    "unsqueeze": _reshape,
    "upsample_bilinear2d": _upsampled("linear"),
    "upsample_nearest2d": _upsampled("nearest"),
    "view": _reshape,
}
"""What stands for each operator, by its name without a mark of being in place."""


def _shape(node: Node) -> Shape:
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        raise NoOperatorError(f"`{node.target}`, which gives no tensor", _where(node))
    return tuple(int(side) for side in value.shape)


def _where(node: Node) -> str:
    """The part of the module that an operator is of: `features.0`."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed([path for path, _ in stack.values()]), "") if stack else ""
    path = re.sub(r"^L\['self'\]\.?", "", path)
    return path or node.name


def _two(value: Sequence[int] | int) -> Pair:
    """Rows and columns, which torch writes as one number where they are equal."""
    sides = [value] if isinstance(value, int) else [*value]
    return sides[0], sides[-1]


def _zip(left: Sequence[int], right: Sequence[int]) -> zip[tuple[int, int]]:
    return zip(left, right, strict=True)
