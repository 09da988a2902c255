"""The engines that an artifact is timed against, each in its best configuration.

All get the same folded net, the same input and the same number of threads, hold the input
before they are timed, and give their main output as an array of their own. What they write
while they convert a net goes to a temporary folder, what they print goes nowhere.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.measure import diagnostics
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.precision import ArtifactPrecision, precision_name

Engine: TypeAlias = Callable[[], Array]
"""Computes the net once on an input that it holds already, and gives the main output."""
Device: TypeAlias = Literal["cpu", "cuda"]

TRIALS = 3
"""Calls from which the faster memory format is told."""


@dataclass(frozen=True)
class Setup:
    """The net and the settings that every engine is given; `threads` count on the CPU only.

    `images` `(N, C, H, W)` are what an engine may take the range of activations from.
    `folder` is for files, and gone once all engines have started.
    """

    graph: Graph
    weights: Weights
    x: Array
    threads: int
    device: Device
    folder: Path
    images: Array | None = None

    @property
    def main(self) -> tuple[str, tuple[int, ...]]:
        """The name of the main output, and its shape, batch first."""
        name = self.graph.heads[0].name
        return name, (len(self.x), *self.graph.outputs[name])


@dataclass(frozen=True)
class Peer:
    """An engine to time beside an artifact: the modules that it needs, and how it is started.

    `tolerance` is the relative L2 difference of scores from the same net's in float64 beyond
    which it would be computing something else. `by_default` says whether it is timed unasked.
    """

    modules: tuple[str, ...]
    start: Callable[[Setup], Engine]
    about: str
    precision: ArtifactPrecision = "float32"
    devices: tuple[Device, ...] = ("cpu",)
    tolerance: float = 1e-4
    by_default: bool = True


# ---------------------------------------------------------------- torch


def _torch(setup: Setup) -> Engine:
    import torch

    formats = (torch.contiguous_format, torch.channels_last)
    engines = [_torch_engine(setup, memory_format) for memory_format in formats]
    return min(engines, key=lambda run: min(_seconds(run) for _ in range(TRIALS)))


def _torch_compile(setup: Setup) -> Engine:
    import torch

    # Its compilers leave no process behind that would share the processors while others run.
    options = {"compile_threads": 1}
    compiled = partial(torch.compile, dynamic=False, options=options)
    with _environment("TORCHINDUCTOR_CACHE_DIR", str(setup.folder / "inductor")):
        run = _torch_engine(setup, torch.channels_last, compiled)
        run()
    return run


def _torch_engine(
    setup: Setup, memory_format: Any, compiled: Callable[[Any], Any] = lambda net: net
) -> Engine:
    import torch

    from vggc.backends.torch import build

    if setup.device == "cuda" and not torch.cuda.is_available():
        raise UserError(diagnostics.PeerWithoutDevice("torch", setup.device))
    torch.set_num_threads(setup.threads)
    net: Any = build(setup.graph, setup.weights).eval().to(setup.device)
    net = compiled(net.to(memory_format=memory_format))
    image = torch.from_numpy(setup.x).to(setup.device, memory_format=memory_format)

    def run() -> Array:
        with torch.inference_mode():
            result = net(image)
        main = next(iter(result.values())) if isinstance(result, dict) else result
        output: Array = main.cpu().contiguous().numpy()
        return output

    return run


# ---------------------------------------------------------------- those that read ONNX


def _onnx_file(setup: Setup) -> Path:
    from vggc.backends.onnx import save_onnx

    path = setup.folder / "net.onnx"
    if not path.exists():
        save_onnx(setup.graph, setup.weights, path, {})
    return path


def _onnxruntime(setup: Setup) -> Engine:
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[setup.device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(diagnostics.PeerWithoutDevice("onnxruntime", setup.device))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    session = onnxruntime.InferenceSession(_onnx_file(setup), options, providers=[provider])
    name, _ = setup.main

    def run() -> Array:
        output: Array = session.run([name], {"input": setup.x})[0]
        return output

    return run


def _openvino(setup: Setup, precision: ArtifactPrecision) -> Engine:
    import openvino

    core = openvino.Core()
    model = core.read_model(_onnx_file(setup))
    if precision == "int8":
        model = _quantised(model, setup)
    model.reshape(list(setup.x.shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": setup.threads,
        # What int8 leaves over may be bfloat16, too: so it is where nobody says otherwise.
        "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(setup.x, shared_memory=True))

    def run() -> Array:
        request.infer()
        output: Array = request.get_output_tensor(0).data.copy()
        return output

    return run


def _quantised(model: Any, setup: Setup) -> Any:
    """The model in int8, by OpenVINO's own post-training quantisation."""
    images = setup.images
    if images is None:
        raise UserError(diagnostics.PeerWithoutImages("openvino-int8"))
    # It reports every use to its makers, unless it runs in continuous integration.
    with _environment("NNCF_CI", "1"):
        import nncf

        model.reshape([1, *images.shape[1:]])
        data = nncf.Dataset([images[i : i + 1] for i in range(len(images))])
        return nncf.quantize(model, data, subset_size=len(images))


WINOGRAD_MEMORY_LEVEL = 3
"""The number of one of MNN's hints."""


def _mnn(setup: Setup, winograd_level: int | None) -> Engine:
    # The converter itself: MNN's command for it installs a package and calls home.
    path = setup.folder / "net.mnn"
    if not path.exists():
        source = ["-f", "ONNX", "--modelFile", str(_onnx_file(setup))]
        target = ["--MNNModel", str(path), "--bizCode", "vggc"]
        code = "import sys, _tools; _tools.mnnconvert(sys.argv)"
        _converted([sys.executable, "-c", code, *source, *target], setup.folder)
    import MNN

    functions = MNN.expr
    name, shape = setup.main
    config = {"backend": 0, "precision": "high", "numThread": setup.threads}
    runtime = MNN.nn.create_runtime_manager((config,))
    if winograd_level is not None:
        runtime.set_hint(WINOGRAD_MEMORY_LEVEL, winograd_level)
    net = MNN.nn.load_module_from_file(
        str(path), ["input"], [name], runtime_manager=runtime, shape_mutable=False
    )
    image = functions.placeholder(list(setup.x.shape), functions.NCHW)
    image.write(setup.x)

    def run() -> Array:
        (value,) = net.forward([image])
        if value.data_format != functions.NCHW:
            value = functions.convert(value, functions.NCHW)
        return np.array(value.read(), np.float32).reshape(shape)

    return run


def _ncnn(setup: Setup, *, bf16: bool) -> Engine:
    import ncnn
    import pnnx

    folder = setup.folder / "ncnn"
    if not folder.exists():
        folder.mkdir()
        model = folder / "net.onnx"
        model.symlink_to(_onnx_file(setup))
        size = ",".join(map(str, (1, *setup.x.shape[1:])))
        _converted([pnnx.EXEC_PATH, str(model), f"inputshape=[{size}]", "fp16=0"], folder)
    net = ncnn.Net()
    net.opt.num_threads = setup.threads
    # Left alone, it computes with half precision and calls that float32.
    for option in ("use_fp16_storage", "use_fp16_packed", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    for option in ("use_bf16_storage", "use_bf16_packed"):
        setattr(net.opt, option, bf16)
    if net.load_param(str(folder / "net.ncnn.param")) or net.load_model(
        str(folder / "net.ncnn.bin")
    ):
        raise RuntimeError("it does not load what its converter made")
    images = [ncnn.Mat(image).clone() for image in setup.x]
    _, shape = setup.main

    def run() -> Array:
        outputs = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("in0", image)
            status, output = extractor.extract("out0")
            if status:
                raise RuntimeError(f"it ends with status {status}")
            outputs.append(np.array(output, np.float32))  # a copy: it is the extractor's memory
        return np.stack(outputs).reshape(shape)

    return run


PEERS = {
    "torch": Peer(
        modules=("torch",),
        start=_torch,
        about="eager, in its faster memory format",
        devices=("cpu", "cuda"),
    ),
    "torch-compile": Peer(
        modules=("torch",),
        start=_torch_compile,
        about="torch.compile, channels_last",
        devices=("cpu", "cuda"),
        by_default=False,
    ),
    "onnxruntime": Peer(
        modules=("onnxruntime",),
        start=_onnxruntime,
        about="its CPU or CUDA provider",
        devices=("cpu", "cuda"),
    ),
    "openvino": Peer(
        modules=("openvino",),
        start=partial(_openvino, precision="float32"),
        about="latency mode, float32",
    ),
    "mnn": Peer(
        modules=("MNN",),
        start=partial(_mnn, winograd_level=None),
        about="high precision; large Winograd tiles, its default",
        tolerance=1e-3,
    ),
    "mnn-small-tiles": Peer(
        modules=("MNN",),
        start=partial(_mnn, winograd_level=1),
        about="high precision; small Winograd tiles, more accurate",
        by_default=False,
    ),
    "ncnn": Peer(
        modules=("ncnn", "pnnx"),
        start=partial(_ncnn, bf16=False),
        about="float32 throughout; image by image, as it knows no batch",
    ),
    "openvino-bfloat16": Peer(
        modules=("openvino",),
        start=partial(_openvino, precision="bfloat16"),
        about="latency mode, bfloat16",
        precision="bfloat16",
        tolerance=0.05,
        by_default=False,
    ),
    "ncnn-bfloat16": Peer(
        modules=("ncnn", "pnnx"),
        start=partial(_ncnn, bf16=True),
        about="bfloat16; image by image, as it knows no batch",
        precision="bfloat16",
        tolerance=0.05,
        by_default=False,
    ),
    "openvino-int8": Peer(
        modules=("openvino", "nncf"),
        start=partial(_openvino, precision="int8"),
        about="latency mode, quantised after training by nncf",
        precision="int8",
        tolerance=0.25,
        by_default=False,
    ),
}


def peer_name(text: str) -> str:
    """The name of a peer whose precision may be told in another word, as in `ncnn-bf16`; any other
    text as it is.
    """
    engine, dash, precision = text.rpartition("-")
    name = f"{engine}{dash}{precision_name(precision)}"
    return name if name in PEERS else text


def check_installed(peers: Sequence[str]) -> None:
    """Raises: UserError for a peer that is unknown or not installed."""
    for peer in peers:
        if peer not in PEERS:
            raise UserError(diagnostics.UnknownPeer(peer, did_you_mean(peer, list(PEERS))))
        if module := missing_module(peer):
            raise UserError(diagnostics.PeerMissing(peer, module))


def missing_module(peer: str) -> str | None:
    """The first module that a peer needs and that is not installed."""
    return next((m for m in PEERS[peer].modules if find_spec(m) is None), None)


def versions(peers: Sequence[str]) -> dict[str, str]:
    """The versions of the packages behind the peers that are installed."""
    modules = dict.fromkeys(module for peer in peers for module in PEERS[peer].modules)
    return {module: version(module) for module in modules if find_spec(module)}


def start(peer: str, setup: Setup) -> Engine:
    """An engine, ready to be timed: it has computed the net once.

    Raises: UserError, as the engine itself does later, where it cannot use the device or cannot
    compute this net.
    """
    if setup.device not in PEERS[peer].devices:
        raise UserError(diagnostics.PeerWithoutDevice(peer, setup.device))
    with _failures(peer), _quiet():
        engine = PEERS[peer].start(setup)
        engine()

    def run() -> Array:
        with _failures(peer):
            return engine()

    return run


@contextmanager
def _failures(peer: str) -> Iterator[None]:
    """Within it, whatever an engine raises becomes a mistake that names the engine."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what another engine raises can be anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
        raise UserError(diagnostics.PeerFailed(peer, reason[:200])) from error


# ---------------------------------------------------------------- help


def _converted(command: list[str], folder: Path) -> None:
    """Runs a converter of models.

    Raises: RuntimeError with the last that it said where it fails.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or ["nothing"]
        raise RuntimeError(f"its converter ended with {done.returncode}, saying {said[-1]}")


def _seconds(run: Engine) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, nothing that a library prints or warns of gets through, be it from Python or from
    C.
    """
    flush_c = ctypes.CDLL(None).fflush
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        _flush(flush_c)
        for number in (1, 2):
            os.dup2(nowhere, number)
        with (
            os.fdopen(os.dup(nowhere), "w") as null,
            redirect_stdout(null),
            redirect_stderr(null),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        _flush(flush_c)
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nowhere)


def _flush(flush_c: Callable[[None], object]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    flush_c(None)
