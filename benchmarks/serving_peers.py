"""What `benchmarks/serving.py` runs in an environment that has MLServer, LitServe and ONNX Runtime:
a net in ONNX behind the one or the other.

    python serving_peers.py {mlserver,litserve} NET.onnx NAME --port P --workers N --batch B
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

try:
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse
except ModuleNotFoundError:
    MLModel = object
try:
    from litserve import LitAPI, LitServer
except ModuleNotFoundError:
    LitAPI = object

BATCH_SECONDS = 0.002
"""How long both wait for a batch to fill."""


def session_of(net: str, threads: int) -> Any:
    """A net in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(net, options, ["CPUExecutionProvider"])


class OnnxModel(MLModel):
    """A custom runtime of MLServer, as its documentation writes one."""

    async def load(self) -> bool:
        """Loads the net."""
        parameters = self.settings.parameters
        self.session = session_of(parameters.uri, parameters.extra["threads"])
        self.input = self.session.get_inputs()[0].name
        return True

    async def predict(self, payload: Any) -> Any:
        """Answers a batch."""
        images = NumpyCodec.decode_input(payload.inputs[0])
        (values, *_) = self.session.run(None, {self.input: images})
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output", values)]
        )


class OnnxAPI(LitAPI):
    """What LitServe calls, as its documentation writes it: one image a request."""

    def __init__(self, net: str, threads: int, **more: Any) -> None:
        super().__init__(**more)
        self.net, self.threads = net, threads

    def setup(self, device: str) -> None:
        """Loads the net."""
        self.session = session_of(self.net, self.threads)
        self.input = self.session.get_inputs()[0].name

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # by which it knows JSON
        """The image in a request."""
        tensor = request["inputs"][0]
        return np.asarray(tensor["data"], np.float32).reshape(tensor["shape"][1:])

    def predict(self, x: Any) -> Any:
        """Answers a batch, or an image where none is gathered."""
        images = x if x.ndim == 4 else x[None]
        return self.session.run(None, {self.input: images})[0]

    def encode_response(self, output: Any) -> Any:
        """An answer in the form of the others."""
        values = np.asarray(output).ravel()
        shape = [1, values.size]
        tensor = {"name": "output", "datatype": "FP32", "shape": shape, "data": values.tolist()}
        return {"outputs": [tensor]}


def run_mlserver(options: argparse.Namespace) -> None:
    """Serves with MLServer, with adaptive batching and parallel inference by its settings."""
    model = {
        "name": options.name,
        "implementation": "serving_peers.OnnxModel",
        "max_batch_size": options.batch,
        "max_batch_time": BATCH_SECONDS,
        "parameters": {"uri": str(options.net.resolve()), "extra": {"threads": options.threads}},
    }
    settings = {
        "host": "127.0.0.1",
        "http_port": options.port,
        "grpc_port": options.port + 1,
        "metrics_port": options.port + 2,
        "parallel_workers": options.workers,
        "debug": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model-settings.json").write_text(json.dumps(model), "utf-8")
        Path(folder, "settings.json").write_text(json.dumps(settings), "utf-8")
        command = Path(sys.executable).parent / "mlserver"
        subprocess.run([command, "start", folder], check=True)


def run_litserve(options: argparse.Namespace) -> None:
    """Serves with LitServe: batches, its faster queue, as many processes for HTTP as workers."""
    api = OnnxAPI(
        str(options.net),
        options.threads,
        max_batch_size=options.batch,
        batch_timeout=BATCH_SECONDS,
        api_path=f"/v2/models/{options.name}/infer",
    )
    server = LitServer(
        api, accelerator="cpu", workers_per_device=max(1, options.workers), fast_queue=True
    )
    server.run(host="127.0.0.1", port=options.port, log_level="warning", generate_client_file=False)


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=("mlserver", "litserve"))
    parser.add_argument("net", type=Path)
    parser.add_argument("name")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    (run_mlserver if options.server == "mlserver" else run_litserve)(options)


if __name__ == "__main__":
    main()
