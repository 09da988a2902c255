"""What people have in the place of a file of weights or of a net, told by how it begins."""

from __future__ import annotations

from dataclasses import dataclass

MOST_SHOWN = 40
"""Characters of a text that are shown."""
FETCH_AGAIN = "fetch the file itself: what a page links to as raw, resolve or download"


@dataclass(frozen=True)
class Mistaken:
    """What a file is instead, as the end of "it is"; and what can be done."""

    what: str
    hint: str

    @property
    def reason(self) -> str:
        """The whole sentence."""
        return f"it is {self.what}"


UNPACK = "unpack it, and give what is in it"
STARTS: tuple[tuple[int, bytes, Mistaken], ...] = (
    (
        0,
        b"version https://git-lfs",
        Mistaken("a pointer of Git LFS, which stands for the file", "fetch the file: git lfs pull"),
    ),
    (0, b"<!doctype", Mistaken("a web page", FETCH_AGAIN)),
    (0, b"<html", Mistaken("a web page", FETCH_AGAIN)),
    (
        0,
        b"<?xml",
        Mistaken("XML, as OpenVINO writes it", "give the net that it was made of, such as an ONNX"),
    ),
    (0, b"\x1f\x8b", Mistaken("compressed by gzip", UNPACK)),
    (0, b"BZh", Mistaken("compressed by bzip2", UNPACK)),
    (0, b"\xfd7zXZ\0", Mistaken("compressed by xz", UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Mistaken("compressed by zstd", UNPACK)),
    (0, b"7z\xbc\xaf", Mistaken("an archive of 7-Zip", UNPACK)),
    (0, b"Rar!", Mistaken("an archive of RAR", UNPACK)),
    (
        4,
        b"TFL3",
        Mistaken(
            "a net of TensorFlow Lite",
            "make it ONNX: python -m tf2onnx.convert --tflite NET.tflite --output NET.onnx",
        ),
    ),
    (
        0,
        b"GGUF",
        Mistaken("of GGUF, the form of llama.cpp", "give its PyTorch file"),
    ),
)
"""Where in a file something begins that tells what it is, in small letters where it is a text."""


def mistaken(start: bytes) -> Mistaken | None:
    """What a file is that begins so, if it is known to be neither weights nor a net."""
    if not start:
        return Mistaken("empty", "was it fetched to its end? fetch it again")
    text = start.lstrip().removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for place, sign, found in STARTS:
        if start[place:].startswith(sign) or (place == 0 and text.startswith(sign)):
            return found
    return None


def is_text(start: bytes) -> bool:
    """Whether a file that begins like this is a text, and so no file of numbers."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as fault:
        if fault.start < len(start) - 3:
            return False
        text = start[: fault.start].decode("utf-8")
    return all(char.isprintable() or char.isspace() for char in text)


def text_instead(start: bytes, wanted: str) -> Mistaken:
    """A text in the place of a file of numbers."""
    line = (start.decode("utf-8", "replace").strip().splitlines() or [""])[0].replace("`", "'")
    shown = line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]}…"
    hint = "is it what a server said instead of the file? fetch it again"
    return Mistaken(f"a text, and no {wanted}: `{shown}`", hint)
