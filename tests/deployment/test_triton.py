"""A model in a repository is as Triton reads it, and answers as the artifact does, to the bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

from tests.support.nets import compile_net, program
from tests.support.triton_backend import TritonError, loaded
from vggc.api.deploy import plan_deployment
from vggc.api.run import session_of
from vggc.runtime.artifact import read_manifest

Make = Callable[..., Path]
Noise = Callable[..., np.ndarray]

CONFIG = {"parameters": {"threads": {"string_value": "1"}}}
"""What a model is told of its configuration by Triton, as far as it asks."""


def exported(artifact: Path, repository: Path, name: str | None = None) -> Path:
    plan = plan_deployment(str(artifact), "triton", repository, name)
    plan.write()
    return plan.folder


@pytest.fixture(scope="module")
def model(compiled_tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net's folder in a repository."""
    return exported(compiled_tiny(1, 4), tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with another head than that of the classes, which have no names."""
    text = "net two input 1x8x8\ntrunk: conv3-4 | gap | fc-3\nhead box: @trunk | boxes"
    compile_net(program(text), folder := tmp_path_factory.mktemp("two") / "art", 2)
    return folder


def configuration(folder: Path) -> Any:
    """What Triton reads, by its own definition of the message."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    message = pytest.importorskip("tritonclient.grpc.model_config_pb2").ModelConfig()
    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), message)


def test_triton_reads_what_the_artifact_is(model: Path) -> None:
    config = configuration(model)
    assert (config.name, config.backend) == (model.name, "python") == ("tiny", "python")
    assert config.max_batch_size == 4
    (images,) = config.input
    (scores,) = config.output
    assert (images.name, [*images.dims], images.data_type) == ("input", [3, 16, 16], 11)
    assert (scores.name, [*scores.dims], scores.data_type) == ("output", [10], 11)
    assert [*config.dynamic_batching.preferred_batch_size] == [1, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    (group,) = config.instance_group
    assert group.Kind.Name(group.kind) == "KIND_CPU"
    assert config.parameters["threads"].string_value == "all"
    labels = (model / scores.label_filename).read_text("utf-8")
    assert labels.split("\n") == [*"abcdefghij", ""]


def test_each_head_is_an_output_and_none_has_labels_where_classes_have_no_names(
    two_heads: Path, tmp_path: Path
) -> None:
    folder = exported(two_heads, tmp_path)
    config = configuration(folder)
    assert {each.name: [*each.dims] for each in config.output} == {"output": [3], "box": [4]}
    assert not any(each.label_filename for each in config.output)
    assert not (folder / "labels.txt").exists()


def test_requests_of_several_sizes_run_together_and_get_their_own_rows(
    model: Path, compiled_tiny: Make, noise: Noise
) -> None:
    """And one of another shape among them is refused, alone."""
    session = session_of(compiled_tiny(1, 4), threads=1)
    images = [noise(1, 3, 16, 16), noise(2, 3, 8, 8), noise(2, 3, 16, 16), noise(1, 3, 16, 16)]
    with loaded(model, CONFIG) as triton:
        one, refused, two, other = triton.execute(*images)
    together = session.run(np.concatenate([images[0], *images[2:]]))
    assert {*one.arrays()} == {"output"}
    for answer, rows in ((one, [0]), (two, [1, 2]), (other, [3])):
        np.testing.assert_array_equal(answer.arrays()["output"], together[rows])
    assert refused.error().code() == TritonError.INVALID_ARG
    reason = "the input is float32 (2, 3, 8, 8), and the net takes float32 (N, 3, 16, 16)"
    assert refused.error().message() == reason


def test_a_net_that_fails_is_told_to_each_request_without_its_secrets(
    model: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: np.ndarray) -> dict[str, np.ndarray]:
        raise ZeroDivisionError("a secret of /the/server")

    with loaded(model, CONFIG) as triton:
        object.__setattr__(triton.model.net, "run_all", fail)
        responses = triton.execute(noise(1, 3, 16, 16), noise(2, 3, 16, 16))
    assert [each.error().code() for each in responses] == [TritonError.INTERNAL] * 2
    assert all("secret" not in each.error().message() for each in responses)
    assert ["a secret of /the/server" in each for each in triton.log.errors] == [True]


def test_a_damaged_artifact_is_not_loaded(model: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "tiny"))
    weights = copied / "1/artifact/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with (
        pytest.raises(Exception, match="is not the file that was compiled"),
        loaded(copied, CONFIG),
    ):
        pass


@pytest.mark.parametrize(
    ("before", "device", "after"), [(None, 1, "1"), ("5,7", 1, "7"), ("GPU-a,GPU-b", 0, "GPU-a")]
)
def test_an_instance_sees_its_own_gpu(
    model: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, device: int, after: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before or "")
    with loaded(model, CONFIG) as triton:
        triton.module.see_only(device)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_a_repository_takes_several_models(compiled_tiny: Make, model: Path) -> None:
    other = exported(compiled_tiny(1), model.parent, "other")
    assert other == model.parent / "other"
    assert configuration(other).name == "other"
    assert read_manifest(other / "1/artifact").batches == (1,)
    assert read_manifest(model / "1/artifact").batches == (1, 4)


@pytest.mark.slow
@pytest.mark.skipif(which("tritonserver") is None, reason="Triton is not installed")
def test_triton_itself_serves_it(model: Path, compiled_tiny: Make, noise: Noise) -> None:
    """Its Python must have vggc and what the model's requirements.txt tells."""
    client_of = pytest.importorskip("tritonclient.http")
    images = noise(3, 3, 16, 16)
    ports = ["--http-port=18080", "--allow-grpc=false", "--allow-metrics=false"]
    command = ["tritonserver", f"--model-repository={model.parent}", *ports]
    with (
        subprocess.Popen(command) as server,
        client_of.InferenceServerClient("127.0.0.1:18080") as client,
    ):
        try:
            wait_for(server, client, model.name)
            tensor = client_of.InferInput("input", [*images.shape], "FP32")
            tensor.set_data_from_numpy(images)
            scores = client.infer(model.name, [tensor]).as_numpy("output")
        finally:
            server.terminate()
    session = session_of(compiled_tiny(1, 4), threads=1)
    np.testing.assert_array_equal(scores, session.run(images))


def wait_for(server: subprocess.Popen[bytes], client: Any, name: str) -> None:
    """Comes back when a model is ready, which it must be within two minutes."""
    for _ in range(120):
        assert server.poll() is None
        with suppress(ConnectionError):
            if client.is_model_ready(name):
                return
        time.sleep(1)
    raise TimeoutError(name)
