"""The net @NAME@ in the Python backend of Triton Inference Server. Written by vggc @VERSION@."""

import json
import os
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

import vggc

ARTIFACT = Path(__file__).with_name("artifact")


class TritonPythonModel:
    """An instance of the net, in a process of its own."""

    def initialize(self, args):
        """Loads the net, which checks the hashes of its files, and calls it with each batch."""
        config = json.loads(args["model_config"])
        threads = config["parameters"]["threads"]["string_value"]
        if args["model_instance_kind"] == "GPU":
            see_only(int(args["model_instance_device_id"]))
        self.net = vggc.open_artifact(ARTIFACT, threads=None if threads == "all" else int(threads))
        for batch in self.net.batches:
            self.net.run_all(np.zeros((batch, *self.net.input), np.float32))

    def execute(self, requests):
        """Answers each request; the images of all that fit the net run together."""
        inputs = [
            pb_utils.get_input_tensor_by_name(request, "input").as_numpy() for request in requests
        ]
        answers = iter(self.answers([images for images in inputs if self.fits(images)]))
        return [next(answers) if self.fits(images) else self.refusal(images) for images in inputs]

    def fits(self, images):
        """Whether the net takes these images."""
        return images.dtype == np.float32 and images.shape[1:] == self.net.input

    def refusal(self, images):
        """The answer to images that the net does not take."""
        expected = ", ".join(map(str, self.net.input))
        reason = (
            f"the input is {images.dtype} {images.shape}, and the net takes float32 (N, {expected})"
        )
        return failure(reason, pb_utils.TritonError.INVALID_ARG)

    def answers(self, inputs):
        """The answers to several requests, whose images run together."""
        if not inputs:
            return []
        try:
            outputs = self.net.run_all(np.concatenate(inputs))
        except Exception:
            pb_utils.Logger.log_error(traceback.format_exc())
            reason = "the net failed, and the log of the server says why"
            return [failure(reason, pb_utils.TritonError.INTERNAL) for _ in inputs]
        ends = np.cumsum([len(images) for images in inputs])[:-1]
        parts = {name: np.split(values, ends) for name, values in outputs.items()}
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, part[number]) for name, part in parts.items()]
            )
            for number in range(len(inputs))
        ]


def failure(reason, code):
    """An answer that says why there is none."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, code))


def see_only(device):
    """Lets this process see no GPU but one of those that the server sees, by its number there."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device] if visible else str(device)
