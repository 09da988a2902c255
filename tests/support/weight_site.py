"""A site on this machine that published weights are fetched from, and small weights to publish."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from vggc.pretrained.table import MEBIBYTE, Published


@dataclass
class WeightSite:
    """What a site gives, by path, and how it behaves: it cuts the first `cuts` answers after so
    many bytes, honours ranges or not, and redirects or fails where it is told so. `asked` are the
    requests, each with its range.
    """

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: WeightSite) -> Iterator[WeightSite]:
    """Within it, a site answers on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/models/")
            wanted = self.headers.get("Range")
            site.asked.append((name, wanted))
            if name in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[name])
                self.end_headers()
                return
            if name not in site.files:
                self.send_error(404)
                return
            content = site.files[name]
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            start = 0
            found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
            if found and site.ranges and self.headers.get("If-Range", tag) == tag:
                start = int(found[1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", tag)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.end_headers()
            end = start + site.cuts.pop(0) if site.cuts else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/models"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def published(net: str, content: bytes, whole: bool = True) -> Published:
    """Published weights of a net whose file has this content."""
    sha256 = hashlib.sha256(content).hexdigest()
    return Published(
        net=net,
        file=f"{net}-{sha256[:8]}.pth",
        sha256=sha256 if whole else sha256[:8],
        mebibytes=round(len(content) / MEBIBYTE, 3),
        top1=58.178,
        top5=80.624,
    )
