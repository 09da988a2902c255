"""JSON from files that are hostile until checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vggc_runtime.files import open_file

MAX_BYTES = 64 * 2**20
"""The largest JSON file that is read: an ImageNet run's takes well under 1 MiB."""


class MalformedError(Exception):
    """A record is not what its type says; the message names the place and the reason."""


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        MalformedError: there is no such file, it is too large, or not JSON.
    """
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise MalformedError(f"{path.name}: {fault.strerror}") from None
    if len(content) > MAX_BYTES:
        raise MalformedError(f"{path.name} is larger than {MAX_BYTES // 2**20} MiB")
    try:
        return parsed_json(content)
    except MalformedError as fault:
        raise MalformedError(f"{path.name} {fault}") from None


def parsed_json(content: bytes) -> Any:
    """The value that a text in JSON says, if it says one: no key stands twice in one object, which
    readers would understand otherwise than one another.

    Raises:
        MalformedError: it is no such text; the message goes on from a name.
    """
    try:
        return json.loads(content, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError, OverflowError):
        raise MalformedError("is not JSON") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedError(f"has the key `{key[:100]}` twice in one object")
        found[key] = value
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
