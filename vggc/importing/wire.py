"""The wire format of protocol buffers, walked field by field without a schema; values stay in their
file.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedReader

from vggc_runtime.json_file import MalformedError

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
"""Wire types: how the value of a field is written."""


@dataclass(frozen=True)
class WireField:
    """A field of a message: its number, its wire type, its value where that is a varint, and where
    the field, its value, and both end.
    """

    number: int
    wire: int
    value: int
    begin: int
    start: int
    end: int


def field_at(file: BufferedReader, at: int, end: int) -> WireField:
    """The field at a place of a message that ends at `end`.

    Raises: MalformedError where there is none.
    """
    key, start = varint_at(file, at, end)
    number, wire, value = key >> 3, key & 7, 0
    match wire:
        case 0:
            value, behind = varint_at(file, start, end)
        case 1:
            behind = start + 8
        case 2:
            length, start = varint_at(file, start, end)
            behind = start + length
        case 5:
            behind = start + 4
        case _:
            raise MalformedError("it is no message of protobuf, or damaged")
    if number == 0:
        raise MalformedError("it is no message of protobuf, or damaged")
    if behind > end:
        raise MalformedError("it is cut off, or damaged: a field ends beyond what it lies in")
    return WireField(number=number, wire=wire, value=value, begin=at, start=start, end=behind)


def varint_at(file: BufferedReader, at: int, end: int) -> tuple[int, int]:
    """The number at a place, seven bits a byte, the lowest first, and the place behind it.

    Raises: MalformedError where there is none of 64 bits.
    """
    file.seek(at)
    number = 0
    for index, byte in enumerate(file.read(min(10, end - at))):
        number |= (byte & 127) << 7 * index
        if byte < 128 and number < 1 << 64:
            return number, at + index + 1
    raise MalformedError("it ends in the middle of a number, or is no message of protobuf")
