"""Where published weights are kept on this machine: fetched once, and known again afterwards."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from vggc.pretrained import diagnostics
from vggc.pretrained.fetch import OnBytes, address_of, fetch, why_other
from vggc.pretrained.table import MEBIBYTE, PUBLISHED, Published
from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, cache_folder, locked
from vggc.support.records import read_record, write_record
from vggc_runtime.json_file import MalformedError


@dataclass(frozen=True)
class Checked:
    """The sum that a file had when it was last checked, with what shows that it is still the same
    file: its size and when it was changed.
    """

    sha256: str
    bytes: int
    changed_ns: int


def place_of(published: Published) -> Path:
    """Where the file of published weights is kept, whether or not it is there.

    Raises: UserError where nobody is at home.
    """
    folder = cache_folder("weights")
    if folder is None:
        raise UserError(diagnostics.NoPlaceForWeights())
    return folder / published.file


def published_at(path: Path) -> Published | None:
    """Which published weights are kept at a path; None where it is the place of none."""
    folder = cache_folder("weights")
    if folder is None or path.parent != folder:
        return None
    return next((each for each in PUBLISHED.values() if each.file == path.name), None)


def file_of(published: Published) -> Path:
    """The file of published weights, fetched where it is not there yet. One that is there takes no
    network, and is added up once.

    Raises: UserError where it cannot be had, or is another file than the published one.
    """
    place = place_of(published)
    if not place.is_file():
        address_of(published)  # which may be none: nothing is made for it
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(CannotWrite(str(place.parent), reason)) from None
        with locked(place):
            if not place.is_file():
                sum_of_it = fetch(published, place, told(published))
                _note(place, sum_of_it)
    _check(published, place)
    return place


def _record_path(place: Path) -> Path:
    return place.with_suffix(".json")


def _note(place: Path, sha256: str) -> None:
    """Writes down what a file was checked to be; where nothing can be written, it is checked again
    the next time.
    """
    state = place.stat()
    with suppress(UserError, OSError):
        write_record(_record_path(place), Checked(sha256, state.st_size, state.st_mtime_ns))


def _check(published: Published, place: Path) -> None:
    """Raises: UserError unless a file is the published one, and the one that it was before."""
    before = None
    with suppress(MalformedError, OSError):
        before = read_record(_record_path(place), Checked)
    state = place.stat()
    found = before.sha256 if before else ""
    is_same = before and (before.bytes, before.changed_ns) == (state.st_size, state.st_mtime_ns)
    if not is_same:
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    reason = why_other(published, state.st_size, found)
    if reason is None and before and before.sha256 != found:
        reason = f"its SHA-256 is {found}, and was {before.sha256}"
    if reason:
        hint = "remove it: the next command fetches it anew"
        raise UserError(diagnostics.WeightsAltered(str(place), published.net, reason, hint))
    if not is_same:
        _note(place, found)


def told(published: Published) -> OnBytes:
    """Tells on stderr what is fetched, and in a terminal how much of it has come."""
    stream = sys.stderr
    url, size = address_of(published), f"{published.mebibytes:,.0f} MiB"
    print(f"Fetching {url} ({size}), which is kept.", file=stream, flush=True)
    last = 0.0

    def on_bytes(done: int, total: int | None) -> None:
        nonlocal last
        is_whole = done == total
        if not stream.isatty() or (monotonic() - last < 0.2 and not is_whole):
            return
        last = monotonic()
        end = "\n" if is_whole else ""
        print(f"\r  {done / MEBIBYTE:,.1f} of {size}", end=end, file=stream, flush=True)

    return on_bytes
