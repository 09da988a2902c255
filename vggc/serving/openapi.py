"""The description of the server's interface that tools read, OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vggc_runtime.version import __version__

NUMBER, TEXT = {"type": "number"}, {"type": "string"}
BINARY = {"type": "string", "format": "binary"}


def openapi(models: Iterable[str]) -> dict[str, Any]:
    """The interface of a server of these models."""
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": [*models]},
    }
    top = {
        "name": "top",
        "in": "query",
        "description": "How many classes are told.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5},
    }
    picture = {
        "required": True,
        "content": {
            "image/*": {"schema": BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": BINARY}},
            },
        },
    }
    tensors = {
        "required": True,
        "content": {
            "application/json": {"schema": _ref("InferenceRequest")},
            "application/octet-stream": {"schema": BINARY},
        },
    }
    infer = {
        "summary": "Run a net on tensors",
        "parameters": [name],
        "requestBody": tensors,
        "responses": _responses("What the net gives", _ref("InferenceResponse")),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "vggc", "version": __version__, "description": "Compiled nets."},
        "paths": {
            "/v1/predict/{name}": {
                "post": {
                    "summary": "Tell the classes of a picture, and boxes in its pixels",
                    "parameters": [name, top],
                    "requestBody": picture,
                    "responses": _responses("What the net sees", _ref("Prediction")),
                }
            },
            "/v1/models": {"get": _get("The nets that are served")},
            "/v1/drawing/{name}": {"get": _get("A drawing of a net, SVG", name)},
            "/v2": {"get": _get("What the server is")},
            "/v2/health/live": {"get": _get("Whether the server runs")},
            "/v2/health/ready": {"get": _get("Whether the nets take requests")},
            "/v2/models/{name}": {"get": _get("The tensors of a net", name)},
            "/v2/models/{name}/ready": {"get": _get("Whether a net takes requests", name)},
            "/v2/models/{name}/infer": {"post": infer},
            "/health": {"get": _get("Whether the nets take requests")},
            "/metrics": {"get": _get("Counters, as Prometheus reads them")},
        },
        "components": {"schemas": SCHEMAS},
    }


def _ref(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _get(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    record = {"summary": summary, "responses": {"200": {"description": summary}}}
    return record | {"parameters": [*parameters]} if parameters else record


def _responses(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": _ref("Error")}}
    refusals = {
        "400": "The request cannot be answered",
        "404": "There is no such net",
        "408": "The body took too long",
        "413": "The body is too large",
        "503": "Too much waits; Retry-After tells when to ask again",
    }
    return {
        "200": {"description": description, "content": {"application/json": {"schema": schema}}},
        **{status: {"description": why, "content": error} for status, why in refusals.items()},
    }


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


TENSOR = _object(
    "name shape datatype",
    name=TEXT,
    shape=_list({"type": "integer"}),
    datatype={"type": "string", "enum": ["FP32", "FP16"]},
    parameters={"type": "object"},
    data=_list(NUMBER),
)

SCHEMAS: dict[str, Any] = {
    "Error": _object("error", error=TEXT),
    "InferenceRequest": _object(
        "inputs",
        id=TEXT,
        parameters={"type": "object"},
        inputs=_list(TENSOR),
        outputs=_list(_object("name", name=TEXT, parameters={"type": "object"})),
    ),
    "InferenceResponse": _object(
        "model_name model_version outputs",
        id=TEXT,
        model_name=TEXT,
        model_version=TEXT,
        outputs=_list(TENSOR),
    ),
    "Prediction": _object(
        "model width height milliseconds",
        model=TEXT,
        width={"type": "integer"},
        height={"type": "integer"},
        classes=_list(_object("name probability", name=TEXT, probability=NUMBER)),
        boxes=_list(_object("name pixels", name=TEXT, pixels=_list(NUMBER))),
        milliseconds=_object("decoding waiting net", decoding=NUMBER, waiting=NUMBER, net=NUMBER),
    ),
}
