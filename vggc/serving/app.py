"""What the server answers at which address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from importlib.resources import files
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from vggc.serving import protocol
from vggc.serving.bodies import Bodies, Refused, file_in
from vggc.serving.crew import ServerCrew
from vggc.serving.metrics import CONTENT_TYPE, Metrics
from vggc.serving.model import ServedModel
from vggc.serving.openapi import openapi
from vggc.serving.protocol import BadRequest
from vggc.serving.queue import NetAnswer, NetOutputs, QueueClosed, QueueFull
from vggc.support.diagnostics import CheckFailed, UserError, did_you_mean
from vggc_runtime.preprocessing import BrokenImageError

log = logging.getLogger("vggc.serving")

T = TypeVar("T")

JSON_BYTES = "Inference-Header-Content-Length"
"""The header that tells how much of a body is JSON, where tensors stand behind that."""

SHORT_BODY = 1 << 16
"""Bodies up to so many bytes are read at once; longer ones in another thread, beside which the
server answers others."""

GONE = 499
"""What is counted of clients that vanish: nobody is answered."""

MOST_TOLD = 1000
"""The most classes that are told of a picture."""

PAGE_RULES = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'",
    "x-content-type-options": "nosniff",
}
"""What browsers may do on the page and with the drawings: nothing comes from elsewhere."""

ModelAnswer = Callable[[Request, ServedModel], Awaitable[Response]]


class ServingApp:
    """The addresses of a server of these models, which may be one process of a crew."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        metrics: Metrics,
        bodies: Bodies,
        crew: ServerCrew | None = None,
    ) -> None:
        self.models = models
        self.metrics = metrics
        self.bodies = bodies
        self.crew = crew
        self.is_ending = False
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="vggc-decoder")
        for name, model in models.items():
            metrics.watch_waiting(name, partial(getattr, model.queue, "waiting"))

    def asgi(self) -> Starlette:
        """The application that an ASGI server runs."""
        infer, versioned = self._counted(self._infer), "/v2/models/{name}/versions/{version}"
        routes = [
            Route("/", self._page),
            Route("/health", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
            Route("/v1/models", self._models),
            Route("/v1/drawing/{name}", self._drawing),
            Route("/v1/predict/{name}", self._counted(self._predict), methods=["POST"]),
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
        ]
        for model in ("/v2/models/{name}", versioned):
            routes += [
                Route(model, self._model),
                Route(f"{model}/ready", self._model_ready),
                Route(f"{model}/infer", infer, methods=["POST"]),
            ]
        handlers: dict[Any, Any] = {HTTPException: self._refuse, Refused: self._refuse}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Behind the last request, waits for what the nets have begun."""
        yield
        self.is_ending = True
        for model in self.models.values():
            await asyncio.to_thread(model.queue.close)
        self._threads.shutdown()

    # What the server says of itself

    @cached_property
    def _page_text(self) -> bytes:
        return files("vggc.serving").joinpath("page.html").read_bytes()

    async def _page(self, request: Request) -> Response:
        return Response(self._page_text, media_type="text/html", headers=PAGE_RULES)

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _openapi(self, request: Request) -> Response:
        return answer_of(openapi(self.models))

    async def _server(self, request: Request) -> Response:
        return answer_of(protocol.server_record())

    async def _live(self, request: Request) -> Response:
        return answer_of({"live": True})

    async def _ready(self, request: Request) -> Response:
        record: dict[str, Any] = {"ready": not self.is_ending}
        if self.crew is not None:
            record["processes"] = {"wanted": self.crew.size, "ready": len([*self.crew.ready()])}
        return answer_of(record, 503 if self.is_ending else 200)

    async def _models(self, request: Request) -> Response:
        return answer_of({"models": [told_of(model) for model in self.models.values()]})

    async def _drawing(self, request: Request) -> Response:
        drawing = self._model_in(request).drawing
        if drawing is None:
            raise Refused(404, "the net has too many layers to be drawn")
        return Response(drawing, media_type="image/svg+xml", headers=PAGE_RULES)

    async def _model(self, request: Request) -> Response:
        model = self._model_in(request)
        return answer_of(protocol.model_record(model.name, model.manifest))

    async def _model_ready(self, request: Request) -> Response:
        model = self._model_in(request)
        return answer_of({"name": model.name, "ready": True})

    def _model_in(self, request: Request) -> ServedModel:
        """The model that an address names.

        Raises:
            Refused: there is none.
        """
        name, version = request.path_params["name"], request.path_params.get("version")
        if name not in self.models:
            raise Refused(404, f"there is no model `{name}`: {did_you_mean(name, [*self.models])}")
        if version not in (None, protocol.VERSION):
            raise Refused(404, f"`{name}` has no version `{version}`: its one is 1")
        return self.models[name]

    # What the nets say

    def _counted(self, answer: ModelAnswer) -> Callable[[Request], Awaitable[Response]]:
        """An answer of a model that is counted, whatever comes of it."""

        async def endpoint(request: Request) -> Response:
            model, begin, status = self._model_in(request), perf_counter(), 500
            try:
                model.queue.require_room()
                with self.bodies.room_for(request):
                    response = await answer(request, model)
                status = response.status_code
                return response
            except Exception as error:
                refused = refusal_of(error)
                status = refused.status
                raise refused from None
            finally:
                self.metrics.count_request(model.name, status, perf_counter() - begin)

        return endpoint

    async def _infer(self, request: Request, model: ServedModel) -> Response:
        json_bytes = json_bytes_in(request)
        body = await self.bodies.read(request)
        read = partial(
            protocol.read_request, body, json_bytes, model.manifest, model.queue.capacity
        )
        asked = await self._beside(read) if len(body) > SHORT_BODY else read()
        answer = await answered(request, model.queue.submit(asked.images))
        require_finite_outputs(answer.outputs)
        given = protocol.response(model.name, asked, answer.outputs)
        if given.json_bytes is None:
            return Response(given.body, media_type="application/json")
        headers = {JSON_BYTES: str(given.json_bytes)}
        return Response(given.body, media_type="application/octet-stream", headers=headers)

    async def _predict(self, request: Request, model: ServedModel) -> Response:
        top = top_in(request)
        data = await file_in(request, await self.bodies.read(request))
        begin = perf_counter()
        prepared = await self._beside(partial(model.prepared, data))
        decoding = perf_counter() - begin
        answer = await answered(request, model.queue.submit(prepared.images))
        require_finite_outputs(answer.outputs)
        record = model.told(answer.outputs, prepared.size, top)
        record["milliseconds"] = {
            "decoding": milliseconds(decoding),
            "waiting": milliseconds(answer.waiting_seconds),
            "net": milliseconds(answer.net_seconds),
        }
        return answer_of(record | {"batch": answer.batch})

    async def _beside(self, work: Callable[[], T]) -> T:
        """What work gives that is done in another thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    # What goes wrong

    async def _refuse(self, request: Request, error: Exception) -> Response:
        refused = refusal_of(error)
        headers = {}
        if refused.retry_after is not None:
            headers["retry-after"] = str(refused.retry_after)
        return answer_of({"error": refused.reason}, refused.status, headers)


def refusal_of(error: Exception) -> Refused:
    """How a request is answered that an error ended. What the client is not to blame for is logged,
    and no traceback leaves the server.
    """
    match error:
        case Refused():
            return error
        case HTTPException(status_code=404):
            return Refused(404, "there is nothing at this address: /openapi.json lists them all")
        case HTTPException(status_code=status, detail=detail):
            return Refused(status, detail)
        case BadRequest() | BrokenImageError():
            return Refused(400, str(error))
        case QueueFull():
            return Refused(503, str(error), error.retry_after)
        case QueueClosed():
            return Refused(503, "the server ends")
        case ClientDisconnect():
            return Refused(GONE, "the client went away")
        case CheckFailed() | UserError():
            log.error("%s", error)
            return Refused(500, "the net gives no values that could be told")
        case _:
            log.error("a request could not be answered", exc_info=error)
            return Refused(500, "internal error")


async def answered(request: Request, future: Future[NetAnswer]) -> NetAnswer:
    """What a net gives, for as long as the client waits for it.

    Raises:
        ClientDisconnect: the client went away; what has not begun to run does not run.
    """
    answer, gone = asyncio.wrap_future(future), asyncio.ensure_future(disconnected(request))
    both: set[asyncio.Future[Any]] = {answer, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


async def disconnected(request: Request) -> None:
    """Comes back when the client of a request whose body is read goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def require_finite_outputs(outputs: NetOutputs) -> None:
    """Raises: CheckFailed where an output holds what is not finite."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise CheckFailed(f"{name} is not finite")


def json_bytes_in(request: Request) -> int | None:
    """How much of a body is JSON, where the client tells.

    Raises:
        Refused: it tells no number.
    """
    told = request.headers.get(JSON_BYTES)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) <= 18):
        raise Refused(400, f"{JSON_BYTES} is no number")
    return int(told)


def top_in(request: Request) -> int:
    """How many classes a client wants to be told.

    Raises:
        Refused: that is no such number.
    """
    told = request.query_params.get("top", "5")
    if not (told.isascii() and told.isdigit() and len(told) <= 4 and 1 <= int(told) <= MOST_TOLD):
        raise Refused(400, f"`top` is no number from 1 to {MOST_TOLD}")
    return int(told)


def told_of(model: ServedModel) -> dict[str, Any]:
    """What the page says of a model."""
    manifest = model.manifest
    return {
        "name": model.name,
        "net": manifest.net,
        "input": manifest.input,
        "precision": manifest.precision,
        "batches": manifest.batches,
        "outputs": [{"name": each.name, "kind": each.kind} for each in manifest.outputs],
        "has_drawing": model.drawing is not None,
    }


def answer_of(
    record: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A record as JSON."""
    text = orjson.dumps(record)
    return Response(text, status, headers, media_type="application/json")


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)
