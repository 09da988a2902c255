"""A server answers right, refuses with a reason, and loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.nets import compile_net, program
from tests.support.served import LARGEST_BODY, PATIENCE, BlockedNet, app_of, png, served
from vggc.api.evaluate import EvalOptions
from vggc.api.predict import predictor_of
from vggc.api.run import run, session_of
from vggc.serving.model import ServedModel, open_model
from vggc.serving.queue import ModelQueue
from vggc.serving.server import listening, named_artifacts
from vggc.support.diagnostics import UserError
from vggc_runtime.outputs import best_classes

Make = Callable[..., Path]
SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def tiny_model(compiled_tiny: Make) -> Iterator[ServedModel]:
    folder = compiled_tiny(1, 4)
    model = open_model(
        "tiny", folder, threads=1, capacity=32, turn=Lock(), watch=lambda images, seconds: None
    )
    yield model
    model.queue.close()


@pytest.fixture(scope="module")
def address(tiny_model: ServedModel) -> Iterator[str]:
    """A server of the tiny net that all tests ask."""
    with served(app_of(tiny_model)) as (address, _, _):
        yield address


@pytest.fixture
def blocked(tiny_model: ServedModel) -> Iterator[tuple[BlockedNet, str]]:
    """A net that is busy, and its server: eight images may wait."""
    net = BlockedNet()
    model = net.model(tiny_model, capacity=8)
    with served(app_of(model)) as (address, _, _):
        yield net, address
        net.may_end.set()


def tensor(images: np.ndarray, **more: Any) -> dict[str, Any]:
    """What asks for images in JSON."""
    data = {"data": images.ravel().tolist(), "shape": [*images.shape]}
    return {"inputs": [{"name": "input", "datatype": "FP32", **data, **more}]}


def infer(address: str, record: Any, **more: Any) -> Any:
    return httpx.post(f"{address}/v2/models/tiny/infer", json=record, timeout=PATIENCE, **more)


# ---------------------------------------------------------------- tensors


def test_tensors_in_json_give_what_the_session_gives(
    address: str, compiled_tiny: Make, noise: Any
) -> None:
    images = noise(3, *SHAPE)
    answer = infer(address, {**tensor(images), "id": "mine"}).json()
    (output,) = answer["outputs"]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "tiny", "1")
    assert (output["name"], output["datatype"], output["shape"]) == ("output", "FP32", [3, 10])
    expected = session_of(compiled_tiny(1, 4), 1).run(images)
    assert np.array_equal(np.float32(output["data"]), expected.ravel())


def test_a_client_of_triton_is_served(address: str, compiled_tiny: Make, noise: Any) -> None:
    client_of = pytest.importorskip("tritonclient.http")
    client = client_of.InferenceServerClient(address.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert client.get_server_metadata()["name"] == "vggc"
    assert client.get_model_metadata("tiny")["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, *SHAPE]}
    ]
    images = noise(2, *SHAPE)
    expected = session_of(compiled_tiny(1, 4), 1).run(images)
    for is_binary in (True, False):
        given = client_of.InferInput("input", [2, *SHAPE], "FP32")
        given.set_data_from_numpy(images, binary_data=is_binary)
        wanted = client_of.InferRequestedOutput("output", binary_data=is_binary)
        for outputs in ([wanted], None):
            answer = client.infer("tiny", [given], outputs=outputs, request_id="7")
            assert np.array_equal(answer.as_numpy("output"), expected)
            assert answer.get_response()["id"] == "7"
    with pytest.raises(client_of.InferenceServerException, match="there is no model `tinny`"):
        client.get_model_metadata("tinny")
    client.close()


def test_half_floats_are_taken_as_they_are(address: str, noise: Any) -> None:
    images = noise(1, *SHAPE).astype(np.float16)
    exact = infer(address, tensor(images.astype(np.float32))).json()["outputs"]
    record = tensor(images, datatype="FP16", parameters={"binary_data_size": images.nbytes})
    del record["inputs"][0]["data"]
    text = json.dumps(record).encode()
    answer = httpx.post(
        f"{address}/v2/models/tiny/infer",
        content=text + images.tobytes(),
        headers={"inference-header-content-length": str(len(text))},
    )
    assert answer.json()["outputs"] == exact


ZEROS = np.zeros((1, *SHAPE), np.float32)

WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "not a JSON object"),
    "no inputs": ({}, "`inputs` must hold one tensor"),
    "two inputs": ({"inputs": tensor(ZEROS)["inputs"] * 2}, "`inputs` must hold one tensor"),
    "no shape": ({"inputs": [{"name": "input", "datatype": "FP32"}]}, "needs `name`, `shape`"),
    "another name": (tensor(ZEROS, name="x"), "there is no input `x`"),
    "another type": (tensor(ZEROS, datatype="INT64"), "the datatype is `INT64`"),
    "another shape": (tensor(ZEROS, shape=[1, 16, 16, 3]), "the net takes [N, 3, 16, 16]"),
    "no image": (tensor(ZEROS[:0]), "from 1 to 32 images, not 0"),
    "too many": (tensor(ZEROS, shape=[33, *SHAPE]), "from 1 to 32 images, not 33"),
    "no whole number": (tensor(ZEROS, shape=[1.0, *SHAPE]), "`shape` is not a list of numbers"),
    "true": (tensor(ZEROS, shape=[True, *SHAPE]), "`shape` is not a list of numbers"),
    "no data": (tensor(ZEROS, data=None), "needs `data`"),
    "few data": (tensor(ZEROS, data=[1.0]), "`data` holds 1 numbers, and the shape makes 768"),
    "ragged": (tensor(ZEROS, data=[[1.0], [1.0, 2.0]]), "not a list of numbers of one shape"),
    "texts": (tensor(ZEROS, data=["1"] * 768), "what is no number"),
    "nulls": (tensor(ZEROS, data=[None] * 768), "what is no number"),
    "overflow": (tensor(ZEROS, data=[1e300] * 768), "not finite"),
    "bytes that are not there": (
        tensor(ZEROS, parameters={"binary_data_size": 3072}),
        "0 bytes stand behind the JSON in place of 3072",
    ),
    "few bytes": (tensor(ZEROS, parameters={"binary_data_size": 5}), "the shape makes 3072"),
    "another output": ({**tensor(ZEROS), "outputs": [{"name": "out"}]}, "no output `out`"),
    "an output twice": (
        {**tensor(ZEROS), "outputs": [{"name": "output"}] * 2},
        "`outputs` is not a list of outputs, each once",
    ),
    "a flag that is none": (
        {**tensor(ZEROS), "parameters": {"binary_data_output": 1}},
        "neither true nor false",
    ),
    "classification": (
        {**tensor(ZEROS), "outputs": [{"name": "output", "parameters": {"classification": 3}}]},
        "`classification` is not served",
    ),
    "an id that is none": ({**tensor(ZEROS), "id": 7}, "`id` is not a text"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_request_is_refused_with_a_reason(address: str, wrong: str) -> None:
    record, reason = WRONG[wrong]
    answer = infer(address, record)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"{", {}, 400, "the body is not JSON"),
        (b"[" * 100_000, {}, 400, "the body is not JSON"),
        (b"{}", {"inference-header-content-length": "3"}, 400, "the JSON has 3 bytes"),
        (b"{}", {"inference-header-content-length": "-3"}, 400, "is no number"),
        (b"{}" + b"x", {"inference-header-content-length": "2"}, 400, "`inputs` must hold"),
        (b"x" * (LARGEST_BODY + 1), {}, 413, "a body has at most 262,144 bytes"),
        (iter([b"x" * LARGEST_BODY, b"x"]), {}, 413, "a body has at most 262,144 bytes"),
        (b"x", {"content-encoding": "gzip"}, 415, "gzip"),
    ],
    ids=["cut", "deep", "header", "negative", "rest", "large", "chunks", "gzip"],
)
def test_a_body_that_is_none_is_refused_with_a_reason(
    address: str, content: Any, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = httpx.post(f"{address}/v2/models/tiny/infer", content=content, headers=headers)
    assert answer.status_code == status
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3", 404),
        ("GET", "/v2/models/tinny", 404),
        ("POST", "/v2/models/tinny/infer", 404),
        ("POST", "/v1/predict/tinny", 404),
        ("GET", "/v2/models/tiny/versions/2", 404),
        ("GET", "/v2/models/tiny/infer", 405),
    ],
)
def test_what_is_not_there_is_refused_as_json(
    address: str, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, address + path)
    assert (answer.status_code, [*answer.json()]) == (status, ["error"])


# ---------------------------------------------------------------- pictures


def test_a_picture_is_told_as_predict_tells_it(
    address: str, compiled_tiny: Make, tmp_path: Path
) -> None:
    picture = png(tmp_path, 40, 30)
    predictor = predictor_of(compiled_tiny(1, 4), EvalOptions())
    (seen,) = predictor.tell([str(tmp_path / "noise.png")])
    expected = best_classes(seen.probabilities, predictor.classes.__getitem__, 3)
    url = f"{address}/v1/predict/tiny?top=3"
    plain = httpx.post(url, content=picture).json()
    form = httpx.post(url, data={"note": "mine"}, files={"image": ("a.png", picture)}).json()
    for answer in (plain, form):
        assert [(e["name"], e["probability"]) for e in answer["classes"]] == expected
        assert (answer["width"], answer["height"], answer["batch"]) == (30, 40, 1)
        assert min(answer["milliseconds"].values()) >= 0
        assert "boxes" not in answer


def test_boxes_are_told_in_pixels_as_run_tells_them(tmp_path: Path) -> None:
    net = "net boxed input 3x16x16 conv3-8 | trunk: pool | gap | fc-3\nhead box: @trunk | boxes"
    folder = tmp_path / "boxed"
    compile_net(program(net), folder, 2)
    picture = png(tmp_path, 40, 30)
    result = run(folder, tmp_path / "noise.png", 1)
    model = open_model("boxed", folder, threads=1, capacity=4, turn=Lock(), watch=print)
    with served(app_of(model)) as (address, _, _):
        answer = httpx.post(f"{address}/v1/predict/boxed", content=picture).json()
    output = result.manifest.outputs[1]
    assert answer["boxes"] == [{"name": "box", "pixels": result.pixels(output, 0)[0].tolist()}]
    assert sum(each["probability"] for each in answer["classes"]) == pytest.approx(1)


def header_of(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and has none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    length, check = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + check + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "more", "reason"),
    [
        (b"", {}, "there is no picture"),
        (b"GIF89a", {}, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", {}, "not an image"),
        (header_of(9000, 9000), {}, "9000x9000 pixels are more than 50,000,000"),
        (header_of(90_000, 90_000), {}, "pixels"),
        (header_of(20, 20), {}, "truncated"),
        (b"x", {"headers": {"content-type": "multipart/form-data"}}, "Missing boundary"),
        (b"x", {"headers": {"content-type": "multipart/form-data; boundary=a"}}, "the form"),
        (b"", {"params": {"top": "0"}}, "`top` is no number from 1 to 1000"),
        (b"", {"params": {"top": "²"}}, "`top` is no number from 1 to 1000"),
    ],
    ids=["empty", "cut", "program", "large", "bomb", "header", "form", "parts", "top", "digit"],
)
def test_a_picture_that_is_none_is_refused_with_a_reason(
    address: str, content: bytes, more: dict[str, Any], reason: str
) -> None:
    answer = httpx.post(f"{address}/v1/predict/tiny", content=content, **more)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_a_form_without_a_file_holds_no_picture(address: str) -> None:
    form = httpx.post(f"{address}/v1/predict/tiny", files={"note": (None, "mine")})
    assert "there is no picture" in form.json()["error"]


# ---------------------------------------------------------------- load, and what breaks off


def sent(address: str, head: str, body: bytes = b"") -> socket.socket:
    """A connection over which a request has gone, or a part of it."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(f"{head} HTTP/1.1\r\nhost: vggc\r\n".encode() + body)
    return connection


def request_of(images: np.ndarray) -> bytes:
    """The rest of a request for images."""
    text = json.dumps(tensor(images)).encode()
    return f"content-length: {len(text)}\r\n\r\n".encode() + text


INFER = "POST /v2/models/tiny/infer"


def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def counted(address: str, status: int) -> float:
    """How many requests were answered with a status."""
    text = httpx.get(f"{address}/metrics").text
    found = re.search(rf'vggc_requests_total{{model="tiny",status="{status}"}} (.*)', text)
    return float(found[1]) if found else 0


def test_many_clients_get_their_own_answers_from_common_batches(
    blocked: tuple[BlockedNet, str], tiny_model: ServedModel
) -> None:
    net, address = blocked
    with ThreadPoolExecutor(9) as clients:
        first = clients.submit(infer, address, tensor(ZEROS + 1))
        assert net.has_begun.wait(PATIENCE)
        others = [clients.submit(infer, address, tensor(ZEROS + 1)) for _ in range(8)]
        until(lambda: 'waiting_images{model="tiny"} 8' in httpx.get(f"{address}/metrics").text)
        refused = infer(address, tensor(ZEROS))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "too many images wait" in refused.json()["error"]
        net.may_end.set()
        assert [each.result().status_code for each in (first, *others)] == [200] * 9
    assert net.batches == [1, 4, 4]
    assert (counted(address, 200), counted(address, 503)) == (9, 1)


def test_who_vanishes_before_his_turn_is_not_run(blocked: tuple[BlockedNet, str]) -> None:
    net, address = blocked
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(infer, address, tensor(ZEROS + 1))
        assert net.has_begun.wait(PATIENCE)
        gone = sent(address, INFER, request_of(np.ones((3, *SHAPE))))
        until(lambda: 'waiting_images{model="tiny"} 3' in httpx.get(f"{address}/metrics").text)
        gone.close()
        until(lambda: counted(address, 499) == 1)
        last = clients.submit(infer, address, tensor(ZEROS + 1))
        until(lambda: 'waiting_images{model="tiny"} 4' in httpx.get(f"{address}/metrics").text)
        net.may_end.set()
        assert (first.result().status_code, last.result().status_code) == (200, 200)
    assert net.batches == [1, 1]


def test_an_error_of_the_net_is_told_without_its_traceback(
    blocked: tuple[BlockedNet, str], caplog: pytest.LogCaptureFixture
) -> None:
    net, address = blocked
    net.may_end.set()
    answer = infer(address, tensor(ZEROS))
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
    assert "a secret of /the/server" in caplog.text
    assert infer(address, tensor(ZEROS + 1)).status_code == 200


def test_values_that_are_not_finite_are_no_answer(tiny_model: ServedModel) -> None:
    queue = ModelQueue(lambda x: {"output": np.full((len(x), 10), np.nan, np.float32)}, 4, 4)
    model = ServedModel(**{**vars(tiny_model), "queue": queue})
    with served(app_of(model)) as (address, _, _):
        answer = infer(address, tensor(ZEROS))
    assert (answer.status_code, [*answer.json()]) == (500, ["error"])


def test_bodies_that_are_cut_or_slow_hold_nobody_up(
    tiny_model: ServedModel, blocked: tuple[BlockedNet, str]
) -> None:
    net, _ = blocked
    with served(app_of(net.model(tiny_model, 8), body_seconds=0.2)) as (address, _, _):
        cut = sent(address, INFER, b"content-length: 1000\r\n\r\n{")
        cut.close()
        slow = sent(address, INFER, b"content-length: 1000\r\n\r\n{")
        assert slow.recv(20).startswith(b"HTTP/1.1 408")
        slow.close()
        net.may_end.set()
        assert infer(address, tensor(ZEROS + 1)).status_code == 200
        assert (counted(address, 499), counted(address, 408)) == (1, 1)


def test_a_server_that_ends_answers_what_it_has_taken(tiny_model: ServedModel) -> None:
    net = BlockedNet()
    with (
        ThreadPoolExecutor(2) as clients,
        served(app_of(net.model(tiny_model, 8))) as (address, server, thread),
    ):
        running = clients.submit(infer, address, tensor(ZEROS + 1))
        assert net.has_begun.wait(PATIENCE)
        waiting = clients.submit(infer, address, tensor(ZEROS + 1))
        until(lambda: 'waiting_images{model="tiny"} 1' in httpx.get(f"{address}/metrics").text)
        server.end()
        until(lambda: not accepts(address))
        assert thread.is_alive()
        net.may_end.set()
        assert [running.result().status_code, waiting.result().status_code] == [200, 200]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def accepts(address: str) -> bool:
    try:
        sent(address, "GET /health", b"\r\n").close()
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- what the server says of itself


def test_every_address_is_described(address: str, tiny_model: ServedModel) -> None:
    described = httpx.get(f"{address}/openapi.json").json()
    assert described["openapi"].startswith("3.")
    routes = {route.path: route for route in app_of(tiny_model).asgi().routes}
    own = {path for path in routes if "versions" not in path} - {"/", "/openapi.json"}
    assert described["paths"].keys() == own
    for path, methods in described["paths"].items():
        assert {each.upper() for each in methods} <= routes[path].methods


def test_the_page_and_the_drawing_take_nothing_from_elsewhere(address: str) -> None:
    page, drawing = httpx.get(f"{address}/"), httpx.get(f"{address}/v1/drawing/tiny")
    assert page.headers["content-type"].startswith("text/html")
    assert drawing.headers["content-type"].startswith("image/svg+xml")
    for each in (page, drawing):
        assert "default-src 'none'" in each.headers["content-security-policy"]
        assert set(re.findall(r"https?://[\w.]+", each.text)) <= {"http://www.w3.org"}


def test_health_is_told(address: str) -> None:
    for path in ("/health", "/v2/health/ready", "/v2/health/live"):
        assert httpx.get(address + path).status_code == 200


# ---------------------------------------------------------------- the command


def test_models_have_their_nets_names_or_given_ones(tiny_artifact: Make, tmp_path: Path) -> None:
    one, two = tiny_artifact(name="one"), tiny_artifact(name="two=2")
    assert named_artifacts([str(one), f"b={two}"]) == {"tiny": one, "b": two}
    with pytest.raises(UserError, match="two artifacts are called `tiny`"):
        named_artifacts([str(one), str(two)])
    with pytest.raises(UserError, match="`a b` is no name for a model"):
        named_artifacts([f"a b={one}"])
    with pytest.raises(UserError, match="is not an artifact"):
        named_artifacts([str(tmp_path)])


def test_answers_are_sent_at_once() -> None:
    """Otherwise each would wait 40 ms for the client to acknowledge its headers."""
    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # by which asyncio knows whom to tell so


def test_a_port_that_is_taken_is_told() -> None:
    with listening("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port}\n.*in use"):
            listening("127.0.0.1", port)
    with pytest.raises(UserError, match=r"cannot listen on 192.0.2.1:0"):
        listening("192.0.2.1", 0)


def test_without_its_packages_the_command_names_the_extra(
    vggc_here: Callable[..., tuple[object, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.startswith("vggc.serving.") and not name.endswith("diagnostics"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = vggc_here("serve", "nowhere")
    assert code == 2
    assert "the server needs the package uvicorn" in err
    assert "pip install 'vggc[serve]'" in err


def test_sigterm_lets_a_request_that_is_under_way_be_answered(compiled_tiny: Make) -> None:
    command = [sys.executable, "-m", "vggc", "serve", str(compiled_tiny(1, 4)), "--port", "0"]
    with subprocess.Popen(
        [*command, "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            lines = iter(process.stdout.readline, "")
            address = next(line.split()[-1] for line in lines if "Serving at" in line)
            request = request_of(ZEROS)
            client = sent(address, INFER, request[:-100])
            httpx.get(f"{address}/health")  # behind which the server has begun to read the request
            os.kill(process.pid, signal.SIGTERM)
            until(lambda: not accepts(address))
            client.sendall(request[-100:])
            assert client.recv(20).startswith(b"HTTP/1.1 200")
            client.close()
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, said) == (143, "all requests are answered\n")
