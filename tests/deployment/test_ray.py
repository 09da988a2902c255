"""An application of Ray Serve answers as the artifact does, to the bit, or says why not."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

from tests.support.ray_alone import application
from vggc.api.deploy import plan_deployment
from vggc.api.run import session_of

pytest.importorskip("starlette")

Make = Callable[..., Path]
Noise = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def folder(compiled_tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application of the tiny net, compiled for batches of 1 and 4."""
    folder = tmp_path_factory.mktemp("ray") / "app"
    plan_deployment(str(compiled_tiny(1, 4)), "ray", folder).write()
    return folder


@pytest.fixture
def net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return application(folder, 1, monkeypatch)


def request(images: np.ndarray, **more: Any) -> dict[str, Any]:
    """What asks for images by the Open Inference Protocol."""
    tensor = {"name": "input", "datatype": "FP32", "shape": [*images.shape]}
    return {"inputs": [tensor | {"data": images.ravel().tolist()} | more]}


def post(net: Any, body: bytes) -> tuple[int, Any]:
    """The status and the JSON that an application answers to a body."""
    from starlette.requests import Request

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    response = asyncio.run(net(Request({"type": "http", "headers": []}, receive)))
    return response.status_code, json.loads(response.body)


def test_images_of_a_request_give_what_the_session_gives(
    net: Any, compiled_tiny: Make, noise: Noise
) -> None:
    images = noise(5, 3, 16, 16)
    status, answer = post(net, json.dumps(request(images)).encode())
    assert status == 200
    (output,) = answer["outputs"]
    assert (answer["model_name"], output["name"], output["datatype"]) == ("tiny", "output", "FP32")
    values = np.asarray(output["data"], np.float32).reshape(output["shape"])
    session = session_of(compiled_tiny(1, 4), threads=1)
    np.testing.assert_array_equal(values, session.run(images))
    assert net.run.sizes == [4, 1]
    assert net.net.threads == 1


def test_images_of_several_callers_run_together(
    net: Any, compiled_tiny: Make, noise: Noise
) -> None:
    images = noise(3, 3, 16, 16)

    async def ask() -> list[dict[str, np.ndarray]]:
        return await asyncio.gather(*(net.run(image) for image in images))

    outputs = asyncio.run(ask())
    assert net.run.sizes == [3]
    values = session_of(compiled_tiny(1, 4), threads=1).run(images)
    for output, value in zip(outputs, values, strict=True):
        np.testing.assert_array_equal(output["output"], value)


IMAGE = np.zeros((1, 3, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xd8\xff", "codec can't decode"),
        (b"[]", "`inputs` must hold one tensor"),
        (request(IMAGE, datatype="INT8"), "one tensor of FP32"),
        (request(IMAGE, name="x"), "`input`"),
        (request(IMAGE[:, :, :8]), "the shape is [1, 3, 8, 16], and the net takes [N, 3, 16, 16]"),
        (request(IMAGE[:0]), "the shape is [0, 3, 16, 16]"),
        (request(IMAGE, shape=[2, 3, 16, 16]), "cannot reshape"),
        (request(IMAGE, shape="abc"), "cannot be interpreted as an integer"),
        (request(IMAGE, data=["a"]), "could not convert string"),
        (request(IMAGE, data=[[1], [1, 2]]), "inhomogeneous"),
        (request(np.full_like(IMAGE, np.nan)), "not finite"),
        (request(IMAGE, data=[10**400]), "too large"),
    ],
)
def test_what_the_net_does_not_take_is_refused_with_a_reason(
    net: Any, body: bytes | dict[str, Any], reason: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = post(net, content)
    assert status == 400
    assert reason in answer["error"]


def test_the_configuration_is_that_of_the_artifact(folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((folder / "serve_config.yaml").read_text("utf-8"))
    (app,) = config["applications"]
    assert app["name"] == "tiny"
    assert app["route_prefix"] == "/v2/models/tiny/infer"
    assert app["import_path"] == "deployment:app"
    (net,) = app["deployments"]
    assert net["max_ongoing_requests"] == 2 * 4
    assert net["ray_actor_options"].keys() == {"num_cpus", "num_gpus"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_itself_serves_it(folder: Path, compiled_tiny: Make, noise: Noise) -> None:
    """On a cluster of this machine alone, which ends with the process that began it."""
    images = noise(5, 3, 16, 16)
    body = json.dumps(request(images)).encode()
    command = [sys.executable, "-m", "ray.serve.scripts", "run", "serve_config.yaml"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(command, cwd=folder, env=environment) as server:
        try:
            answer = asked(server, "http://127.0.0.1:8000/v2/models/tiny/infer", body)
        finally:
            server.terminate()
    (output,) = answer["outputs"]
    values = np.asarray(output["data"], np.float32).reshape(output["shape"])
    session = session_of(compiled_tiny(1, 4), threads=1)
    np.testing.assert_array_equal(values, session.run(images))


def asked(server: subprocess.Popen[bytes], address: str, body: bytes) -> Any:
    """What a server answers once it listens, which it must do within two minutes."""
    for _ in range(120):
        assert server.poll() is None
        with suppress(URLError), urlopen(address, body, timeout=60) as response:
            return json.load(response)
        time.sleep(1)
    raise TimeoutError(address)
