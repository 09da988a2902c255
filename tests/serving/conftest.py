"""Without the server's packages only what knows no web is tested."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("starlette") and find_spec("httpx") else ["test_app.py"]
