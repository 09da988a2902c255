"""Machine code in the exported library. No GPU is needed, and none is used."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.lib.stride_tricks import sliding_window_view
from tvm import relax

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers, needs_nvcc, needs_nvrtc, run_python
from tests.support.machine_code import cubins
from vggc.compiler import device_code
from vggc.compiler.device_code import (
    DEFAULT_ARCHS,
    CompilerError,
    DeviceLibrary,
    compile_device,
    compile_fatbin,
)
from vggc.compiler.relax import emit_output, results
from vggc.ir.ops import RELU
from vggc.kernels.cuda import kernel
from vggc.kernels.workloads import Conv, Map, ToNhwc
from vggc.runtime import device as device_module
from vggc.runtime.archs import runs_on
from vggc.runtime.device import DeviceError, require_device

KERNEL = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'
IMAGE, HIDDEN = Map(1, 8, 8, 3, halo=1), Map(1, 8, 8, 16)
CONV = Conv(IMAGE, HIDDEN, kernel=(3, 3), stride=(1, 1), padding=(1, 1), act=RELU)

needs_no_gpu = pytest.mark.skipif(tvm.cuda().exist, reason="a GPU is there")


def conv_and_relu() -> Any:
    """A Relax module: the image to NHWC, then a convolution with its bias and ReLU."""
    to_nhwc, convolve = kernel(ToNhwc(IMAGE)), kernel(CONV)
    assert convolve.packing is not None

    builder = relax.BlockBuilder()
    x = relax.Var("x", tensor(1, 3, 8, 8))
    weight = relax.Var("weight", tensor(*convolve.packing.packed_shape))
    bias = relax.Var("bias", tensor(16))
    with builder.function("main", [x, weight, bias]):
        with builder.dataflow():
            entry = builder.add_func(to_nhwc.func, "to_nhwc")
            conv1 = builder.add_func(convolve.func, "conv1")
            pixels = builder.emit(relax.call_tir(entry, [x], tensor(*IMAGE.shape)))
            call = relax.call_tir(conv1, [pixels, weight, bias], results(convolve))
            y = builder.emit_output(emit_output(builder, convolve, call))
        builder.emit_func_output(y)
    return builder.finalize()


def tensor(*shape: int) -> Any:
    return relax.TensorType(shape, "float32")


@pytest.fixture(scope="module")
def compiled() -> DeviceLibrary:
    return compile_device(conv_and_relu())


@pytest.fixture(scope="module")
def library(compiled: DeviceLibrary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "lib.so"
    compiled.export(path)
    return path


@needs_nvrtc
def test_the_library_holds_machine_code_and_no_source(
    compiled: DeviceLibrary, library: Path
) -> None:
    content = library.read_bytes()
    assert compiled.archs == DEFAULT_ARCHS == ("sm_80", "sm_90a", "compute_90")
    assert compiled.fatbin in content
    assert b"__global__" in compiled.source.encode()
    assert b"__global__" not in content
    assert cubin_archs(compiled.fatbin) == ["sm_80", "sm_90"]
    assert b".target sm_90\n" in compiled.fatbin  # PTX


@needs_nvrtc
def test_every_kernel_is_in_the_machine_code(compiled: DeviceLibrary) -> None:
    for name in ("to_nhwc_kernel", "conv1_kernel", "conv1_kernel_1"):
        assert f".text.{name}\0".encode() in compiled.fatbin


@needs_nvrtc
def test_architectures_are_sorted_and_distinct() -> None:
    library = compile_device(conv_and_relu(), ["sm_120", "sm_86", "sm_120"])
    assert library.archs == ("sm_86", "sm_120")
    assert cubin_archs(library.fatbin) == ["sm_86", "sm_120"]


@needs_nvcc
@pytest.mark.slow
def test_nvcc_makes_the_same_kind_of_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_code, "_has_nvrtc", lambda: False)
    assert cubin_archs(compile_fatbin(KERNEL, ["sm_80", "sm_90"])) == ["sm_80", "sm_90"]
    with pytest.raises(CompilerError, match="nvcc on sm_99: "):
        compile_fatbin(KERNEL, ["sm_99"])


@needs_nvrtc
def test_an_architecture_that_the_compiler_does_not_know() -> None:
    with pytest.raises(CompilerError, match=r"NVRTC on sm_99: .*--gpu-architecture"):
        compile_fatbin(KERNEL, ["sm_99"])


@pytest.mark.parametrize("name", ["ampere", "compute_90a", "sm_90b", "sm_a"])
def test_a_name_that_is_no_architecture(name: str) -> None:
    with pytest.raises(CompilerError, match=f"'{name}' is not a GPU architecture"):
        compile_device(conv_and_relu(), [name])


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_code, "_has_nvrtc", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CompilerError, match="neither NVRTC nor nvcc"):
        compile_fatbin(KERNEL, ["sm_80"])


def test_compiling_leaves_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_COMPILE_FORCE_FALLBACK", "0")
    with device_code._source_only():
        assert os.environ["TVM_COMPILE_FORCE_FALLBACK"] == "1"
    assert os.environ["TVM_COMPILE_FORCE_FALLBACK"] == "0"


@pytest.mark.parametrize(
    ("arch", "device", "runs"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 9), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90", (8, 6), False),
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_100", (10, 3), True),
        ("sm_120", (12, 1), True),
    ],
)
def test_which_device_runs_which_code(arch: str, device: tuple[int, int], runs: bool) -> None:
    assert runs_on(arch, device) == runs


@needs_no_gpu
def test_no_device() -> None:
    message = "code for sm_80, sm_90a and compute_90 GPUs; no CUDA device was found on this"
    with pytest.raises(DeviceError, match=message):
        require_device(DEFAULT_ARCHS)


@dataclass(frozen=True)
class FakeDevice:
    exist: bool
    compute_version: str
    device_name: str = "NVIDIA Test"


def test_a_device_of_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "load_cuda_runtime", lambda: None)
    monkeypatch.setattr(tvm, "cuda", lambda index: FakeDevice(True, "12.0"))
    with pytest.raises(DeviceError) as error:
        require_device(["sm_80", "sm_86", "sm_90"])
    assert str(error.value) == (
        "this artifact holds code for sm_80, sm_86 and sm_90 GPUs; NVIDIA Test is sm_120"
    )


def test_a_device_that_runs_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(True, "8.9")
    monkeypatch.setattr(device_module, "load_cuda_runtime", lambda: None)
    monkeypatch.setattr(tvm, "cuda", lambda index: device)
    assert require_device(["sm_80"]) is device


@needs_compilers
def test_the_library_computes(compiled: DeviceLibrary, library: Path, tmp_path: Path) -> None:
    """From loading to launching; only the GPU is not one, and nothing may be compiled."""
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 3, 8, 8), np.float32)
    weight = random.standard_normal((16, 3, 3, 3), np.float32)
    bias = random.standard_normal((16,), np.float32)
    packing = kernel(CONV).packing
    assert packing is not None
    np.savez(tmp_path / "inputs.npz", image, packing.pack(weight), bias)
    script = f"""
import numpy
from vggc.support.tvm_alone import tvm
from vggc.runtime.device import require_device
tvm.register_global_func("tvm_callback_cuda_compile", lambda code: 1 / 0, override=True)
device = require_device(["sm_80", "sm_90"])
inputs = numpy.load("inputs.npz").values()
machine = tvm.relax.VirtualMachine(tvm.runtime.load_module({str(library)!r}), device)
y = machine["main"](*(tvm.runtime.tensor(array, device) for array in inputs))
numpy.save("output.npy", y.numpy())
"""
    gpu = gpu_on_cpu.environment(compiled.source, tmp_path)
    run_python(script, tmp_path, gpu)
    windows = sliding_window_view(np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    expected = np.einsum("nchwij,kcij->nhwk", windows, weight.astype(np.float64)) + bias
    actual = np.load(tmp_path / "output.npy")
    np.testing.assert_allclose(actual, np.maximum(expected, 0), rtol=0, atol=1e-5)


@needs_no_gpu
@needs_compilers
def test_the_library_loads_where_there_is_a_driver(library: Path, tmp_path: Path) -> None:
    """A stand-in for NVIDIA's driver with no device: the code is read, nothing is compiled."""
    build_driver_without_device(tmp_path)
    script = f"""
from vggc.support.tvm_alone import tvm
from vggc.runtime.device import DeviceError, require_device
try:
    require_device(["sm_80"])
except DeviceError as error:
    assert str(error).endswith("no CUDA device was found on this machine"), error
tvm.register_global_func("tvm_callback_cuda_compile", lambda code: 1 / 0, override=True)
(host,) = tvm.runtime.load_module({str(library)!r}).imports
(device,) = host.imports
assert device.kind == "cuda" and device.inspect_source("cuda") == ""
assert device.get_function("conv1_kernel") is not None
"""
    run_python(script, tmp_path, {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})


def build_driver_without_device(folder: Path) -> None:
    """A libcuda that answers every call with CUDA_ERROR_NO_DEVICE."""
    names = """
        cuDeviceGetName cuDriverGetVersion cuFuncSetAttribute cuGetErrorName cuGetErrorString
        cuGetExportTable cuGetProcAddress cuGetProcAddress_v2 cuInit cuLaunchKernelEx
        cuModuleGetFunction cuModuleLoadData cuModuleUnload cuTensorMapEncodeTiled
    """
    source = folder / "driver.cpp"
    source.write_text("".join(f'extern "C" int {n}() {{ return 100; }}\n' for n in names.split()))
    library = folder / "libcuda.so.1"
    command = ["g++", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, source]
    subprocess.run(command, check=True)


def cubin_archs(fatbin: bytes) -> list[str]:
    """The architecture of every cubin."""
    return [arch for arch, _ in cubins(fatbin)]
