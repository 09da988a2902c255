"""What is told of servers is what was measured, and a soak test finds what it is there to find."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest

from tests.support import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield import_module("serving")
    del sys.modules["serving"]


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield import_module("soak")
    del sys.modules["soak"]


def test_ratios_are_of_medians_and_of_the_faster_ways(serving: ModuleType) -> None:
    speeds = {"vggc, 1": [5, 90, 10], "vggc, 2": [20, 20, 1], "mlserver, 1": [4, 4, 4]}
    ways = [
        serving.Contender(name, int(processes), lambda port: [])
        for name, processes in (key.split(", ") for key in speeds)
    ]
    found = {
        key: [serving.Round(serving.Asked(speed, 1.5, 2.5, 0, 0.1), 0.25) for speed in each]
        for key, each in speeds.items()
    }
    table = serving.told(ways, found)
    assert "| vggc | 1 | 10 | 1.50 | 2.50 | 0.250 | 0 | 0.10 of a processor |" in table
    assert "vggc / mlserver, each in its faster way: **5.00**" in table


def test_all_servers_are_asked_the_same(serving: ModuleType) -> None:
    image = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    for request in (serving.json_request("net", image), serving.binary_request("net", image)):
        head, _, body = request.text.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v2/models/net/infer HTTP/1.1\r\n")
        assert f"content-length: {len(body)}".encode() in head
    assert body.endswith(image.tobytes())
    assert json.loads(serving.json_request("net", image).body)["inputs"][0]["shape"] == [1, 1, 2, 3]


def pool_in(soak: ModuleType) -> object:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((soak.POOL, 1, 2, 2)).astype(np.float32)
    return soak.Pool("net", "output", images, images.reshape(soak.POOL, -1) / 2)


def test_an_answer_of_another_image_is_wrong(soak: ModuleType) -> None:
    pool = pool_in(soak)

    def answer(numbers: list[int]) -> bytes:
        data = pool.expected[numbers].ravel().tolist()
        return json.dumps({"outputs": [{"name": "output", "data": data}]}).encode()

    assert pool.is_right([3, 5], answer([3, 5]))
    assert not pool.is_right([3, 5], answer([5, 3]))
    assert not pool.is_right([3], b'{"outputs": []}')


def test_counts_have_to_add_up(soak: ModuleType) -> None:
    tally = soak.Tally()
    for outcome in ("200", "200", "503"):
        tally.note("good", outcome, ("200", "503"))
    tally.note("vanish_before_answer", "gone", ("gone",))
    assert tally.wrong == []
    assert soak.faults_of_counts(tally, Counter({"200": 3, "503": 1})) == []
    assert soak.faults_of_counts(tally, Counter({"200": 1, "503": 1})) == [
        "200: clients were told 2, the server counts 1"
    ]
    assert len(soak.faults_of_counts(tally, Counter({"200": 4, "503": 3}))) == 2
    tally.note("good", "lost", ("200", "503"))
    assert tally.wrong == ["good: lost"]


def test_memory_is_compared_by_quarters(soak: ModuleType) -> None:
    assert soak.Sampled([9, 9, 1, 2, 3, 4, 7, 8], [0] * 8).quarters == (1.5, 7.5)
