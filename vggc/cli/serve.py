"""`vggc serve`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.cli.options import THREADS_HERE
from vggc.ir.ops import describe
from vggc.serving.diagnostics import ServerMissing
from vggc.support import signals
from vggc.support.diagnostics import UserError
from vggc.support.sheet import Sheet
from vggc_runtime.processors import num_cores

if TYPE_CHECKING:
    import socket

    from vggc.runtime.artifact import Manifest
    from vggc.serving.server import ServeLimits

PACKAGES = ("starlette", "uvicorn", "httptools", "orjson", "prometheus_client")
MIB = 1 << 20


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
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option(
    "--threads",
    type=THREADS_HERE,
    help="Of each process, for its nets.  [default: all physical cores, shared out]",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    metavar="MiB",
    help="The largest request.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 65536),
    default=1000,
    show_default=True,
    help="Clients at once, of each process.",
)
def command(
    artifacts: tuple[str, ...],
    host: str,
    port: int,
    queue: int,
    processes: int,
    threads: int | None,
    max_body: int,
    connections: int,
) -> None:
    """Serve artifacts over HTTP: pictures, tensors, metrics, a page to try them.

    Each is called by its net's name, or by NAME. POST a picture to /v1/predict/NAME for its classes
    and boxes; /v2 speaks the Open Inference Protocol; / is a page to drop a picture on.

    What waits while a batch runs is the next batch. Several processes, for small nets, each have
    their own queue and limits; one that dies is replaced. Ctrl-C or SIGTERM ends the server when it
    has answered all that it has taken. Nobody is asked who they are: whoever reaches the address
    may use it. Needs `pip install vggc[serve]`.
    """
    try:
        from vggc.serving.server import ServeLimits, listening, named_artifacts
    except ModuleNotFoundError as error:
        if error.name is None or (name := error.name.partition(".")[0]) not in PACKAGES:
            raise
        raise UserError(ServerMissing(name)) from None
    named = named_artifacts(artifacts)
    if processes > 1 and threads is None:
        threads = max(1, num_cores() // processes)
    limits = ServeLimits(queue, max_body * MIB, connections, threads)
    with listening(host, port) as listener:
        if processes > 1:
            serve_by_several(named, limits, processes, listener)
        else:
            serve_here(named, limits, listener)
    if signals.any_received():
        console.status("all requests are answered")
        sys.exit(signals.exit_code())


def serve_here(artifacts: Mapping[str, Path], limits: ServeLimits, listener: socket.socket) -> None:
    """Serves in this process until a signal ends it."""
    from vggc.serving.connections import ConnectionLimits
    from vggc.serving.metrics import Metrics
    from vggc.serving.server import HttpServer, collect_cycles, serving_app

    app = serving_app(artifacts, limits, Metrics())
    server = HttpServer(app, listener, ConnectionLimits(limits.max_body, limits.connections))
    show_served(artifacts, listener)
    collect_cycles()
    server.answer()


def serve_by_several(
    artifacts: Mapping[str, Path], limits: ServeLimits, processes: int, listener: socket.socket
) -> None:
    """Serves in other processes until a signal ends them."""
    from vggc.serving.supervisor import Supervisor

    def ready() -> None:
        show_served(artifacts, listener)

    server = Supervisor(
        artifacts=artifacts,
        limits=limits,
        processes=processes,
        listener=listener,
        tell=console.status,
        ready=ready,
    )
    server.answer()


def show_served(artifacts: Mapping[str, Path], listener: socket.socket) -> None:
    """Tells what is served, and where."""
    from vggc.runtime.artifact import read_manifest
    from vggc.serving.server import address_of

    manifests = {name: read_manifest(folder) for name, folder in artifacts.items()}
    console.sheet(models_sheet(manifests))
    console.out(f"Serving at {address_of(listener)}")
    sys.stdout.flush()


def models_sheet(models: Mapping[str, Manifest]) -> Sheet:
    """What is served, a row a model."""
    rows = []
    for name, manifest in models.items():
        given = ", ".join(f"{each.name} {describe(each.shape)}" for each in manifest.outputs)
        batches = ", ".join(map(str, manifest.batches))
        row = (name, describe(manifest.input), given, manifest.precision, batches)
        rows.append(row)
    header = ("model", "input", "outputs", "precision", "batches")
    return Sheet(title="", header=header, rows=tuple(rows), numbers=(False,) * len(header))
