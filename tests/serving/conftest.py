"""Without the server's packages only what knows no web is tested."""

from __future__ import annotations

from importlib.util import find_spec

WEB = ["test_app.py", "test_connections.py", "test_processes.py"]

collect_ignore = [] if find_spec("starlette") and find_spec("httpx") else WEB
