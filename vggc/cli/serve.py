"""`vggc serve`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.cli.options import THREADS_HERE
from vggc.ir.ops import describe
from vggc.serving.diagnostics import ServerMissing
from vggc.support import signals
from vggc.support.diagnostics import UserError
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.serving.model import ServedModel

PACKAGES = ("starlette", "uvicorn", "httptools", "orjson", "prometheus_client")
MIB = 1 << 20
COLLECTING = (700, 10, 10)
"""When Python looks for cycles, as it does by itself."""


@click.command("serve")
@click.argument("artifacts", nargs=-1, required=True, metavar="[NAME=]ARTIFACT...")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for every network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option(
    "--queue",
    type=click.IntRange(1, 65536),
    default=64,
    show_default=True,
    help="Images that may wait for a net; its largest batch always may.",
)
@click.option("--threads", type=THREADS_HERE, help="[default: all physical cores]")
@click.option(
    "--max-body",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    metavar="MiB",
    help="The largest request.",
)
def command(
    artifacts: tuple[str, ...], host: str, port: int, queue: int, threads: int | None, max_body: int
) -> None:
    """Serve artifacts over HTTP: pictures, tensors, metrics, a page to try them.

    Each is called by its net's name, or by NAME. POST a picture to /v1/predict/NAME for its classes
    and boxes; /v2 speaks the Open Inference Protocol; / is a page to drop a picture on.

    What waits while a batch runs is the next batch. Ctrl-C or SIGTERM ends the server when it has
    answered all that it has taken. Nobody is asked who they are: whoever reaches the address may
    use it. Needs `pip install vggc[serve]`.
    """
    try:
        from vggc.serving.server import (
            HttpServer,
            ServeLimits,
            address_of,
            listening,
            named_artifacts,
            serving_app,
        )
    except ModuleNotFoundError as error:
        if error.name is None or (name := error.name.partition(".")[0]) not in PACKAGES:
            raise
        raise UserError(ServerMissing(name)) from None
    named = named_artifacts(artifacts)
    with listening(host, port) as listener:
        app = serving_app(named, ServeLimits(queue, max_body * MIB, threads))
        server = HttpServer(app, listener)
        console.sheet(models_sheet(app.models.values()))
        console.out(f"Serving at {address_of(listener)}")
        sys.stdout.flush()
        # Cycles are collected rarely, as commands are short; each refused request is one that
        # holds its body.
        gc.freeze()
        gc.set_threshold(*COLLECTING)
        server.answer()
    if signals.any_received():
        console.status("all requests are answered")
        sys.exit(signals.exit_code())


def models_sheet(models: Iterable[ServedModel]) -> Sheet:
    """What is served, a row a model."""
    rows = []
    for model in models:
        manifest = model.manifest
        given = ", ".join(f"{each.name} {describe(each.shape)}" for each in manifest.outputs)
        batches = ", ".join(map(str, manifest.batches))
        row = (model.name, describe(manifest.input), given, manifest.precision, batches)
        rows.append(row)
    header = ("model", "input", "outputs", "precision", "batches")
    return Sheet(title="", header=header, rows=tuple(rows), numbers=(False,) * len(header))
