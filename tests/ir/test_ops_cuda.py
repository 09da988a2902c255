"""The op matrix for GPUs: every sample as device code, run by TVM's CUDA runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers, run_python
from tests.support.nets import graph_of
from tests.support.op_samples import BATCH, SAMPLES, assert_agree, torch_outputs, weights_of
from vggc.compiler.device_code import compile_device
from vggc.compiler.packing import pack
from vggc.compiler.relax import lower_together
from vggc.ir.graph import Graph
from vggc.kernels import cuda
from vggc.passes.fold import fold
from vggc.plan.plan import plan

ARCH = "sm_80"
GRAPHS = {name: graph_of(text) for name, text in SAMPLES.items()}

SCRIPT = """
import numpy
from vggc.support.tvm_alone import tvm
from vggc.runtime.device import require_device
tvm.register_global_func("tvm_callback_cuda_compile", lambda code: 1 / 0, override=True)
device = require_device(["{arch}"])
machine = tvm.relax.VirtualMachine(tvm.runtime.load_module("lib.so"), device)
for name in {names}:
    inputs = numpy.load(name + ".npz").values()
    result = machine[name](*(tvm.runtime.tensor(array, device) for array in inputs))
    outputs = [result] if isinstance(result, tvm.runtime.Tensor) else result
    numpy.savez(name + ".outputs.npz", *(output.numpy() for output in outputs))
"""


def image(graph: Graph) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BATCH, *graph.input), np.float32)


def run_on_gpu(graphs: Mapping[str, Graph], folder: Path) -> None:
    """Writes the outputs of nets into a folder: one library, one process, for all of them."""
    plans = {name: plan(graph, BATCH) for name, graph in graphs.items()}
    code = lower_together(plans, cuda.kernel)
    for name, graph in graphs.items():
        pieces = pack(plans[name], code[name].kernels, fold(graph).weights(weights_of(graph)))
        packed = {weight: each.whole() for weight, each in pieces.items()}
        weights = [packed[weight] for weight in plans[name].weights]
        np.savez(folder / f"{name}.npz", image(graph), *weights)
    (module,) = {each.module for each in code.values()}
    library = compile_device(module, [ARCH])
    library.export(folder / "lib.so")
    script = SCRIPT.format(arch=ARCH, names=list(graphs))
    run_python(script, folder, gpu_on_cpu.environment(library.source, folder))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of every sample in float32."""
    folder = tmp_path_factory.mktemp("samples")
    run_on_gpu(GRAPHS, folder)
    return folder


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize("name", SAMPLES)
def test_compiled_for_a_gpu_it_agrees_with_float64(name: str, outputs: Path) -> None:
    graph = GRAPHS[name]
    got = np.load(outputs / f"{name}.outputs.npz").values()
    assert_agree(got, torch_outputs(graph, image(graph)))
