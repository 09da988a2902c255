"""The net @NAME@ on Ray Serve: `serve run serve_config.yaml`. Written by vggc @VERSION@."""

import asyncio
import json
import os
from pathlib import Path

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import vggc

ARTIFACT = Path(__file__).with_name("artifact")


@serve.deployment
class CompiledNet:
    """A replica of the net: requests of the Open Inference Protocol, tensors in JSON.

    Other deployments call `run` with an image, `await net.run.remote(image)`.
    """

    def __init__(self):
        # Ray says in this variable how many processors are the replica's, its `num_cpus`.
        threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        self.net = vggc.open_artifact(ARTIFACT, threads=threads or None)
        for batch in self.net.batches:
            self.net.run_all(np.zeros((batch, *self.net.input), np.float32))
        self.run.set_max_batch_size(max(self.net.batches))

    @serve.batch(batch_wait_timeout_s=0)
    async def run(self, images):
        """Every output, by its name, of each image (C, H, W) of float32, normalised."""
        # It runs in the loop of events, as what comes meanwhile then waits and is the next batch.
        outputs = self.net.run_all(np.stack(images))
        rows = range(len(images))
        return [{name: values[row] for name, values in outputs.items()} for row in rows]

    async def __call__(self, request: Request):
        """Answers a request whose body asks for images."""
        try:
            images = images_in(await request.body(), self.net.input)
        except (ValueError, TypeError, OverflowError) as error:
            return JSONResponse({"error": str(error)}, 400)
        each = await asyncio.gather(*(self.run(image) for image in images))
        outputs = {name: np.stack([one[name] for one in each]) for name in each[0]}
        return JSONResponse(
            {
                "model_name": "@NAME@",
                "outputs": [
                    {
                        "name": name,
                        "datatype": "FP32",
                        "shape": values.shape,
                        "data": values.ravel().tolist(),
                    }
                    for name, values in outputs.items()
                ],
            }
        )


def images_in(body, shape):
    """The images that a body asks for.

    Raises: ValueError, TypeError or OverflowError where it asks for none that the net takes.
    """
    match json.loads(body):
        case {"inputs": [{"name": "input", "datatype": "FP32", "shape": sides, "data": data}]}:
            images = np.asarray(data, np.float32).reshape(sides)
        case _:
            raise ValueError("`inputs` must hold one tensor of FP32, `input`, with its `data`")
    if images.shape[1:] != tuple(shape) or len(images) < 1:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"the shape is {sides}, and the net takes [N, {expected}]")
    if not np.isfinite(images).all():
        raise ValueError("the input holds values that are not finite")
    return images


app = CompiledNet.bind()
