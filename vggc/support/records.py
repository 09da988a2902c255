"""Frozen dataclasses as JSON, and back from files that are hostile until checked."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vggc.support.files import replacing
from vggc.support.precision import PRECISION_TYPES, precision_name
from vggc_runtime.json_file import MalformedError, read_json

MOST = 2**63
"""Whole numbers are below it: no count, size or seed is beyond it."""

T = TypeVar("T")


def to_json(record: Any) -> Any:
    """Dataclasses, tuples and plain values as what `json` writes."""
    match record:
        case tuple():
            return [to_json(item) for item in record]
        case dict():
            return {key: to_json(value) for key, value in record.items()}
        case _ if is_dataclass(record):
            return {f.name: to_json(getattr(record, f.name)) for f in fields(record)}
        case _:
            return record


def from_json(kind: type[T], value: Any) -> T:
    """The record of a dataclass `kind` that `to_json` gave as `value`.

    Understands dataclasses, tuples, dicts with string keys, unions with None, literals,
    str, int (of 64 bits), bool and finite floats. Every field without a default must be there, and
    no other.

    Raises:
        MalformedError: the value is anything else.
    """
    record: T = checked(kind, value, "")
    return record


def checked(kind: Any, value: Any, place: str) -> Any:
    """The value as `kind`; `place` says where it stands in the whole."""
    origin, arguments = get_origin(kind), get_args(kind)
    match value:
        case dict() if is_dataclass(kind) and isinstance(kind, type):
            return checked_fields(kind, value, place)
        case dict() if origin in (dict, Mapping):
            return {key: checked(arguments[1], v, f"{place}.{key}") for key, v in value.items()}
        case list() if origin is tuple:
            return checked_tuple(arguments, value, place)
        case str() if kind in PRECISION_TYPES:
            if precision_name(value) in arguments:
                return precision_name(value)
        case _ if origin is Literal and any(_same(value, a) for a in arguments):
            return value
        case _ if origin in (types.UnionType, Union):
            return checked_union(arguments, value, place)
        case float() | int() if kind is float and not isinstance(value, bool):
            return checked_float(value, place)
        case int() if kind is int and type(value) is int:
            if not -MOST <= value < MOST:
                raise MalformedError(f"{place.lstrip('.') or 'the whole'} is out of range")
            return value
        case _ if kind in (str, bool, type(None)) and type(value) is kind:
            return value
    raise MalformedError(f"{place.lstrip('.') or 'the whole'} has a wrong value")


def _same(value: Any, wanted: Any) -> bool:
    """Equal and of one type: `True` is not 1."""
    return type(value) is type(wanted) and bool(value == wanted)


def checked_fields(kind: type, value: Mapping[str, Any], place: str) -> Any:
    """The record of a dataclass whose fields an object's values are.

    Raises:
        MalformedError: a field is missing, unknown or wrong; `place` says where.
    """
    hints = get_type_hints(kind)
    names = {f.name for f in fields(kind)}
    spared = {
        f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING
    }
    for name in sorted((names ^ value.keys()) - (spared - value.keys())):
        raise MalformedError(f"{place}.{name}".lstrip(".") + f" is {_fault(name in names)}")
    return kind(**{n: checked(hints[n], value[n], f"{place}.{n}") for n in names & value.keys()})


def _fault(known: bool) -> str:
    return "missing" if known else "unknown"


def checked_tuple(arguments: tuple[Any, ...], value: list[Any], place: str) -> tuple[Any, ...]:
    """The items of a list as the types in `arguments`, of which one may stand for all (`...`).

    Raises:
        MalformedError: they are not as many, or one is wrong.
    """
    kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(value):
        raise MalformedError(f"{place.lstrip('.')} has {len(value)} items, not {len(kinds)}")
    return tuple(
        checked(kind, item, f"{place}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def checked_union(arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    """The value as the first of the types in `arguments` that it is of.

    Raises:
        MalformedError: it is of none; the last one's reason.
    """
    for kind in arguments:
        try:
            return checked(kind, value, place)
        except MalformedError as fault:
            last = fault
    raise last


def checked_float(value: float, place: str) -> float:
    """A finite number as a float.

    Raises:
        MalformedError: it is infinite, or too large to be one.
    """
    # An int too large for a float is compared exactly.
    if not abs(value) <= sys.float_info.max:
        raise MalformedError(f"{place.lstrip('.')} is not finite")
    return float(value)


def read_record(path: Path, kind: type[T]) -> T:
    """The record in a JSON file.

    Raises:
        MalformedError: there is no such file, it is too large, or not such a record.
    """
    value = read_json(path)
    try:
        return from_json(kind, value)
    except MalformedError as fault:
        raise MalformedError(f"{path.name}: {fault}") from None


def write_record(path: Path, record: Any) -> None:
    """Writes a record as JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    text = json.dumps(to_json(record), indent=2, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
