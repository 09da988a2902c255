"""What lies below a folder: for every command the same rule of which files are images, by their
names, and which are passed over.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from vggc.data.parts import Skipped
from vggc_runtime.preprocessing import FORMATS

KNOWN_AS = {
    "AVIF": ".avif .avifs",
    "BPG": ".bpg",
    "camera raw": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf "
    ".pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f",
    "DDS": ".dds",
    "DICOM": ".dcm .dicom",
    "EPS": ".eps .ps",
    "FITS": ".fit .fits",
    "HEIC": ".heic .heics .heif .heifs .hif",
    "icon": ".cur .icns .ico",
    "JPEG 2000": ".j2c .j2k .jp2 .jpc .jpf .jpm .jpx",
    "JPEG XL": ".jxl",
    "JPEG XR": ".hdp .jxr .wdp",
    "OpenEXR": ".exr",
    "PCX": ".pcx",
    "PFM": ".pfm",
    "Photoshop": ".psb .psd",
    "QOI": ".qoi",
    "Radiance": ".hdr",
    "SGI": ".rgb .rgba .sgi",
    "SVG": ".svg .svgz",
    "TGA": ".tga",
    "Windows metafile": ".emf .wmf",
    "XBM": ".xbm",
    "XCF": ".xcf",
    "XPM": ".xpm",
}
UNREAD = {
    ending: kind
    for kind, endings in KNOWN_AS.items()
    for ending in endings.split()
    if ending not in FORMATS
}
"""The endings of file names that are images, too, in formats that are not read."""

PASSED_OVER = {
    "#recycle",
    "$recycle.bin",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
"""What systems leave in folders under names that do not begin with a dot, in small letters."""

NO_FILE = "not a file, or a link to none"
LOST_LINK = "a link that leads nowhere"
LINKED_FOLDER = "a link to a folder, which is not followed"

Holds: TypeAlias = Literal["nothing", "images", "folders", "both"]
"""Whether images lie right in a folder, in folders in it, or both."""


@dataclass(frozen=True)
class Listing:
    """What lies below a folder, by sorted paths from there: `files` that are images by their names;
    what was `skipped`, and why; how many `others` there are, by the endings of their names.
    """

    files: list[str]
    skipped: list[Skipped]
    others: Counter[str]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over without a word: hidden ones, thumbnails,
    what was thrown away, and what systems keep for themselves.
    """
    return name.startswith(".") or name.lower() in PASSED_OVER


def ending_of(name: str) -> str:
    """How a file's name ends, in small letters: `.jpg`, or nothing."""
    return os.path.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    """Whether a file of this name is an image, of a format that is read or of another."""
    ending = ending_of(name)
    return ending in FORMATS or ending in UNREAD


def why_unread(kind: str) -> str:
    """Why an image of such a format is not used, and the way out."""
    return f"{kind} is not read: save it as JPEG, PNG or WebP"


def images_below(folder: Path) -> Listing:
    """The images anywhere below a folder. Links to files are followed, those to folders are not.

    Raises:
        OSError: a folder cannot be read.
    """
    found = Listing([], [], Counter())
    for entry, path in walk(folder):
        take(found, entry, path)
    found.files.sort()
    found.skipped.sort(key=lambda each: each.name)
    return found


def images_in(folder: Path) -> Listing:
    """The images right in a folder, as in `images_below`.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Listing([], [], Counter())
    for entry in visible(folder):
        if not os.path.isdir(entry.path):
            take(found, entry, entry.name)
    found.files.sort()
    found.skipped.sort(key=lambda each: each.name)
    return found


def take(found: Listing, entry: os.DirEntry[str], path: str) -> None:
    """Adds what an entry, which is no folder, turns out to be."""
    ending = ending_of(entry.name)
    if entry.is_symlink() and os.path.isdir(entry.path):
        found.skipped.append(Skipped(f"{path}/", LINKED_FOLDER))
    elif entry.is_symlink() and not ending and not os.path.exists(entry.path):
        found.skipped.append(Skipped(path, LOST_LINK))
    elif ending in UNREAD:
        found.skipped.append(Skipped(path, why_unread(UNREAD[ending])))
    elif ending not in FORMATS:
        found.others[ending] += 1
    # A link may lead to where nobody may look, which `DirEntry` would raise.
    elif entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
        found.files.append(path)
    else:
        found.skipped.append(Skipped(path, NO_FILE))


def walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """All entries below a folder that are neither folders nor hidden, and their paths from there.

    Raises:
        OSError: a folder cannot be read.
    """
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        for entry in visible(folder / inner):
            path = os.path.join(inner, entry.name)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield entry, path


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not is_hidden(entry.name)]


def folders_in(folder: Path) -> list[Path]:
    """The folders right in a folder, sorted by name, links to folders among them; no hidden ones.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(each for each in folder.iterdir() if not is_hidden(each.name) and each.is_dir())


def holds(folder: Path) -> Holds:
    """Where images lie in a folder; looks no further than it must.

    Raises:
        OSError: a folder cannot be read.
    """
    entries = visible(folder)
    folders = [entry for entry in entries if os.path.isdir(entry.path)]
    inside = any(has_images(folder / entry.name) for entry in folders)
    directly = any(is_image(entry.name) and not os.path.isdir(entry.path) for entry in entries)
    if directly:
        return "both" if inside else "images"
    return "folders" if inside else "nothing"


def has_images(folder: Path) -> bool:
    """Whether an image lies anywhere below a folder, by the names of files.

    Raises:
        OSError: a folder cannot be read.
    """
    return any(is_image(entry.name) for entry, _ in walk(folder))
