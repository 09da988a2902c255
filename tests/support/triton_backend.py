"""Triton's Python backend as a model meets it: the module that it imports, and who calls it.

What stands here follows `src/pb_stub.cc` and `src/resources/triton_python_backend_utils.py` of the
Python backend: requests and responses, and that each request has one response.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

UTILS = "triton_python_backend_utils"


class Tensor:
    """A named array, as a model gives it or is given it."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        assert name
        assert isinstance(values, np.ndarray)
        self._name, self._values = name, np.ascontiguousarray(values)

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._values


class TritonError:
    """Why a request has no tensors."""

    INTERNAL, INVALID_ARG = 1, 3

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class InferenceResponse:
    """What a request is answered: tensors, or an error."""

    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None
    ) -> None:
        assert all(isinstance(each, Tensor) for each in output_tensors)
        self._tensors, self._error = [*output_tensors], error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors by their names, of a request that has no error."""
        assert not self.has_error(), self._error and self._error.message()
        return {each.name(): each.as_numpy() for each in self._tensors}


@dataclass(frozen=True)
class TritonRequest:
    """A request for images."""

    images: np.ndarray

    def inputs(self) -> list[Tensor]:
        return [Tensor("input", self.images)]


@dataclass
class BackendLog:
    """What a model writes to the log of its server."""

    errors: list[str] = field(default_factory=list)

    def log_error(self, message: str) -> None:
        self.errors.append(message)


def utils(log: BackendLog) -> ModuleType:
    """The module that models import."""
    module: Any = ModuleType(UTILS)
    module.Tensor, module.TritonError = Tensor, TritonError
    module.InferenceResponse, module.Logger = InferenceResponse, log
    module.get_input_tensor_by_name = lambda request, name: next(
        (each for each in request.inputs() if each.name() == name), None
    )
    return module


@dataclass(frozen=True)
class TritonModel:
    """A model that its backend has loaded, and the module that it is in."""

    module: Any
    model: Any
    log: BackendLog

    def execute(self, *images: np.ndarray) -> list[InferenceResponse]:
        """The response to a request for each of several images."""
        requests = [TritonRequest(each) for each in images]
        responses = self.model.execute(requests)
        assert isinstance(responses, list)
        assert len(responses) == len(requests)
        assert all(isinstance(each, InferenceResponse) for each in responses)
        return responses


@contextmanager
def loaded(folder: Path, config: dict[str, Any], kind: str = "CPU") -> Iterator[TritonModel]:
    """The first version of the model in the folder of a repository, by its configuration."""
    log = BackendLog()
    sys.modules[UTILS] = utils(log)
    try:
        spec = spec_from_file_location("model", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize(
            {
                "model_config": json.dumps(config),
                "model_instance_kind": kind,
                "model_instance_device_id": "0",
                "model_repository": str(folder),
                "model_version": "1",
                "model_name": folder.name,
            }
        )
        yield TritonModel(module, model, log)
    finally:
        del sys.modules[UTILS]
