"""Others that compute the same net with the same weights on the card, each at its best."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from card.device import Device, Work
from card.modules import PRECISIONS, TorchNet, torch_net, torch_settings, with_fused_relu
from card.tables import WEIGHTS_FILE, Bundle, NetLayers, NetRow
from card.values import layouts, weight_shapes


class Missing(Exception):
    """A peer is not installed, or cannot run here."""


@dataclass(frozen=True)
class Setup:
    """What a peer is to compute: a net in a precision, on images `(N, C, H, W)`."""

    bundle: Bundle
    device: Device
    net: NetRow
    weights: Mapping[str, Tensor]
    image: Tensor
    wanted: Tensor
    """The scores that the net gives in float64, or in float32, outputs behind one another."""
    folder: Path
    """For what a peer writes."""

    @property
    def layers(self) -> NetLayers:
        return self.bundle.tables.layers[self.net.net]

    @property
    def dtype(self) -> torch.dtype:
        """What torch computes in."""
        return PRECISIONS[self.net.precision]

    def torch_net(self, layout: torch.memory_format) -> tuple[TorchNet, Tensor]:
        """The net in torch and its images, in a memory format."""
        net = torch_net(self.layers, self.weights).to(self.dtype).to(memory_format=layout)
        return net, self.image.to(self.dtype).to(memory_format=layout)

    def inferring(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Work with torch's settings for the precision."""

        def inferring() -> Tensor:
            with torch_settings(self.net.precision), torch.inference_mode():
                return work()

        return inferring


@dataclass(frozen=True)
class Running:
    """A peer that is ready: `call` computes `output()`."""

    call: Work
    output: Callable[[], Tensor]


Start: TypeAlias = Callable[[Setup], Running]


def _held(work: Callable[[], Tensor]) -> tuple[Work, Callable[[], Tensor]]:
    """Work that keeps its result, and the result."""
    held: list[Tensor] = []

    def call() -> None:
        result = work()
        held[:] = [result]

    return call, lambda: held[0]


def eager(setup: Setup) -> Running:
    """Plain torch, layer by layer, in channels-last memory."""
    net, image = setup.torch_net(torch.channels_last)
    return Running(*_held(setup.inferring(lambda: net(image))))


def graph(setup: Setup, layout: torch.memory_format = torch.channels_last) -> Running:
    """Plain torch with cuDNN's fastest algorithms, captured as a CUDA graph."""
    net, image = setup.torch_net(layout)
    call, output = _held(setup.inferring(lambda: net(image)))
    return Running(setup.device.captured(call), output)


def planes(setup: Setup) -> Running:
    """The same in planes, as tutorials have it."""
    return graph(setup, torch.contiguous_format)


def fused(setup: Setup) -> Running:
    """The same in channels-last memory with cuDNN's kernels that are convolution, bias and ReLU."""
    net, image = setup.torch_net(torch.channels_last)
    net = with_fused_relu(setup.layers, net) if setup.device.type == "cuda" else net
    call, output = _held(setup.inferring(lambda: net(image)))
    return Running(setup.device.captured(call), output)


def compiled(setup: Setup, mode: str | None = None) -> Running:
    """`torch.compile`, captured as a CUDA graph."""
    net, image = setup.torch_net(torch.channels_last)
    torch.compiler.reset()
    if setup.device.type == "cuda":
        fast = torch.compile(net, mode=mode, fullgraph=True)
    else:  # of the emulated card nothing but the way is tried, and that without a C++ compiler
        fast = torch.compile(net, backend="eager", fullgraph=True)
    call, output = _held(setup.inferring(lambda: fast(image)))
    call()
    return Running(setup.device.captured(call), output)


def autotuned(setup: Setup) -> Running:
    """`torch.compile`, which also times Triton's kernels."""
    return compiled(setup, "max-autotune-no-cudagraphs")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(str(error)) from None


def onnx_model(setup: Setup) -> Path:
    """The net as ONNX in float16, with its weights in a file beside it."""
    model = setup.folder / f"{setup.net.net}.onnx"
    model.write_bytes(setup.bundle.read(model.name))
    with open(setup.folder / WEIGHTS_FILE, "wb") as file:
        for layer in setup.layers.rows:
            for name in layer.weights:
                file.write(setup.weights[name].half().cpu().numpy().tobytes())
    return model


def onnxruntime(setup: Setup) -> Running:
    """ONNX Runtime, inputs and outputs on the card, as a CUDA graph."""
    ort = _module("onnxruntime")
    on_card = setup.device.type == "cuda"
    provider: Any = "CPUExecutionProvider"
    if on_card:
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise Missing("onnxruntime has no CUDA provider here")
        options = {
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "prefer_nhwc": "1",
            "enable_cuda_graph": "1",
        }
        provider = ("CUDAExecutionProvider", options)
    setup.device.wait()
    session = ort.InferenceSession(str(onnx_model(setup)), providers=[provider])
    image = setup.image.half().contiguous()
    output = torch.empty(_output_shape(setup), dtype=torch.float16, device=setup.device.type)
    binding = session.io_binding()
    bound = (
        (binding.bind_input, session.get_inputs()),
        (binding.bind_output, session.get_outputs()),
    )
    for (bind, (said,)), tensor in zip(bound, (image, output), strict=True):
        shape = tuple(tensor.shape)
        bind(said.name, setup.device.type, 0, np.float16, shape, tensor.data_ptr())

    def call() -> Any:
        session.run_with_iobinding(binding)
        return image  # which must live as long

    return Running(call, lambda: output)


def tensorrt(setup: Setup) -> Running:
    """TensorRT's engine of the ONNX model, captured as a CUDA graph."""
    trt = _module("tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_model(setup))):
        raise Missing(str(parser.get_error(0)))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    shape = tuple(setup.image.shape)
    source, target = network.get_input(0).name, network.get_output(0).name
    profile.set_shape(source, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Missing("TensorRT builds no engine of this net")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    image = setup.image.half().contiguous()
    output = torch.empty(_output_shape(setup), dtype=torch.float16, device=setup.device.type)
    context.set_input_shape(source, shape)
    context.set_tensor_address(source, image.data_ptr())
    context.set_tensor_address(target, output.data_ptr())

    def call() -> Any:
        if not context.execute_async_v3(setup.device.stream):
            raise RuntimeError("TensorRT does not run its engine")
        return engine, image  # which must live as long

    return Running(setup.device.captured(call), lambda: output)


def _output_shape(setup: Setup) -> Sequence[int]:
    return tuple(setup.wanted.shape)


STARTS: dict[str, Start] = {
    "torch graph": graph,
    "torch graph fused": fused,
    "torch eager": eager,
    "torch graph NCHW": planes,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "torch.compile": compiled,
    "torch.compile max-autotune": autotuned,
}
"""What makes each peer ready."""


def layer_works(
    kind: str, fields: dict[str, Any], device: Device, copies: int, launches: int
) -> dict[str, Work]:
    """Ways to have cuDNN or cuBLAS compute a convolution or dense layer with bias, activation and
    pool in the precision of its input, many times, on operands in turn.
    """
    (source, *_), _ = layouts(kind, fields)
    precision = "int8" if source.format == "uint8" else source.format
    shapes = weight_shapes(kind, fields)
    dense = kind == "Dense" or (
        source.shape[2:] == tuple(fields["kernel"]) and tuple(fields["padding"]) == (0, 0)
    )

    def drawn(extents: Sequence[int]) -> Tensor:
        values = torch.empty(tuple(extents), dtype=PRECISIONS[precision], device=device.type)
        return values.uniform_(-0.05, 0.1)

    operands = []
    for _ in range(copies):
        x, weight, bias = (drawn(each) for each in (source.shape, shapes["weight"], shapes["bias"]))
        if dense:
            operands.append((x.flatten(1), weight.flatten(1), bias))
        else:
            last = torch.channels_last
            operands.append((x.to(memory_format=last), weight.to(memory_format=last), bias))

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if dense:
            result = nn.functional.linear(x, weight, bias)
        else:
            result = nn.functional.conv2d(
                x, weight, bias, fields["stride"], fields["padding"], groups=fields["groups"]
            )
        return _pooled(fields, result.relu_() if fields["act"] else result)

    def in_one(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        sizes = fields["stride"], fields["padding"], [1, 1], fields["groups"]
        return _pooled(fields, torch.cudnn_convolution_relu(x, weight, bias, *sizes))

    ways = {"torch": plain}
    if device.type == "cuda" and fields["act"] and not dense:
        ways["torch fused"] = in_one
    return {name: _in_turn(way, operands, launches, precision) for name, way in ways.items()}


def _in_turn(
    one: Callable[[Tensor, Tensor, Tensor], Tensor],
    operands: Sequence[tuple[Tensor, Tensor, Tensor]],
    launches: int,
    precision: str,
) -> Work:
    def several() -> None:
        with torch_settings(precision), torch.inference_mode():
            for number in range(launches):
                one(*operands[number % len(operands)])

    return several


def _pooled(fields: dict[str, Any], x: Tensor) -> Tensor:
    return nn.functional.max_pool2d(x, 2) if fields.get("pool") else x
