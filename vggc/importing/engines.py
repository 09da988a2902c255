"""Foreign nets in their own engines, for comparing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from vggc.importing.foreign import OwnEngine

LEAST_IR = 4
"""The first version of the format in which initialisers need not stand among the inputs."""
TYPES: Mapping[str, str] = {
    "tensor(float16)": "f2",
    "tensor(double)": "f8",
    "tensor(uint8)": "u1",
    "tensor(int8)": "i1",
    "tensor(uint16)": "u2",
    "tensor(int16)": "i2",
    "tensor(int32)": "i4",
    "tensor(int64)": "i8",
}
"""What ONNX Runtime calls the types of inputs that are not float32."""
FOLDER_ENTRY = "session.model_external_initializers_file_folder_path"
"""The setting that says where the files of tensors lie."""


@dataclass(frozen=True)
class OnnxRuntime:
    """A net in an ONNX file, computed by ONNX Runtime."""

    title: str
    session: Any

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Each output of the net by its name."""
        (read,) = self.session.get_inputs()
        names = [output.name for output in self.session.get_outputs()]
        given = images.astype(TYPES.get(read.type, "f4"))
        return dict(zip(names, self.session.run(names, {read.name: given}), strict=True))


def onnx_engine(
    path: Path, model: onnx.ModelProto, tensors: Sequence[onnx.TensorProto]
) -> Callable[[], OwnEngine] | None:
    """What starts the net in an ONNX file, whose `model` is without its tensors, and whose
    `tensors` tell where in the file, or in one beside it, they lie: the engine then maps them. None
    where ONNX Runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        return None

    def start() -> OwnEngine:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False
        # As it stands in the file: what is made of it would take memory beside it.
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        folder = str(path.parent.resolve())
        options.add_session_config_entry(FOLDER_ENTRY, folder)
        # Weights laid out anew beside those of the file would take their memory twice.
        options.add_session_config_entry("session.disable_prepacking", "1")
        providers = ["CPUExecutionProvider"]
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        whole.graph.initializer.extend(tensors)
        whole.ir_version = max(whole.ir_version, LEAST_IR)
        session = onnxruntime.InferenceSession(
            whole.SerializeToString(), options, providers=providers
        )
        return OnnxRuntime(f"onnxruntime {onnxruntime.__version__}", session)

    return start
