"""Foreign nets in their own engines, for comparing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggc.importing.foreign import OwnEngine


@dataclass(frozen=True)
class OnnxRuntime:
    """A net in an ONNX file, computed by ONNX Runtime."""

    title: str
    session: Any

    def run(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Each output of the net by its name."""
        (read,) = self.session.get_inputs()
        names = [output.name for output in self.session.get_outputs()]
        given = images.astype(np.float16) if read.type == "tensor(float16)" else images
        return dict(zip(names, self.session.run(names, {read.name: given}), strict=True))


def onnx_engine(path: Path) -> Callable[[], OwnEngine] | None:
    """What starts the net in an ONNX file; None where ONNX Runtime is not installed."""
    if find_spec("onnxruntime") is None:
        return None

    def start() -> OwnEngine:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False
        # Weights laid out anew beside those of the file would take their memory twice.
        options.add_session_config_entry("session.disable_prepacking", "1")
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        return OnnxRuntime(f"onnxruntime {onnxruntime.__version__}", session)

    return start
