"""As much of Ray Serve, in one process, as a deployment meets: its decorators, and batches of what
waits in the loop of events.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class Batched:
    """A method of lists that is called with one item of a list: `ray.serve.batch`."""

    def __init__(self, method: Callable[[Any, list[Any]], Awaitable[list[Any]]]) -> None:
        self._method = method
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._largest = 10
        self.sizes: list[int] = []

    def __get__(self, instance: Any, owner: type) -> Any:
        async def call(item: Any) -> Any:
            answer = asyncio.get_running_loop().create_future()
            self._waiting.append((item, answer))
            if len(self._waiting) == 1:
                asyncio.get_running_loop().create_task(self._work(instance))
            return await answer

        call.set_max_batch_size = self._limit  # type: ignore[attr-defined]
        call.sizes = self.sizes  # type: ignore[attr-defined]
        return call

    def _limit(self, largest: int) -> None:
        self._largest = largest

    async def _work(self, instance: Any) -> None:
        while batch := self._waiting[: self._largest]:
            items, answers = zip(*batch, strict=True)
            self.sizes.append(len(items))
            results = await self._method(instance, [*items])
            assert len(results) == len(items)
            for answer, result in zip(answers, results, strict=True):
                answer.set_result(result)
            del self._waiting[: len(batch)]


def batch(*, batch_wait_timeout_s: float) -> Callable[[Any], Batched]:
    assert batch_wait_timeout_s == 0
    return Batched


def deployment(kind: Any) -> Any:
    """Leaves a class as it is; what is bound to no arguments is the class."""
    kind.bind = classmethod(lambda cls: cls)
    return kind


def application(folder: Path, num_cpus: int, patch: pytest.MonkeyPatch) -> Any:
    """A replica of the application in a folder, to which Ray lends so many processors."""
    ray: Any = ModuleType("ray")
    ray.serve = ModuleType("ray.serve")
    ray.serve.deployment, ray.serve.batch = deployment, batch
    patch.setitem(sys.modules, "ray", ray)
    patch.setitem(sys.modules, "ray.serve", ray.serve)
    patch.setenv("OMP_NUM_THREADS", str(num_cpus))
    spec = spec_from_file_location("deployment", folder / "deployment.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app()
