"""Which form a file of weights is of, by what is in it: endings of names are not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from zipfile import ZipFile

from vggc.support.diagnostics import Diagnostic, UserError, first_line
from vggc.support.tensors import MAX_HEADER
from vggc.weight_files.diagnostics import (
    KerasReaderMissing,
    WeightsRunCode,
    WeightsUnreadable,
)
from vggc.weight_files.mistaken import is_text, mistaken, text_instead
from vggc.weight_files.safetensors_form import opened_safetensors
from vggc.weight_files.weight_file import KERAS_WEIGHTS, WeightFile
from vggc_runtime.files import open_file
from vggc_runtime.json_file import MalformedError

ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLE = b"\x80"
TAR, TAR_PLACE = b"ustar", 257
LONGEST_START = TAR_PLACE + len(TAR)


@contextmanager
def open_weights(path: Path) -> Iterator[WeightFile]:
    """A file of weights of any form, open as long as the context lasts.

    Raises: UserError where it cannot be read, is of no form that is known, or one would have to run
    code from it; h5py is needed for Keras's.
    """
    with ExitStack() as stack:
        try:
            yield _opened(path, stack)
        except OSError as error:
            raise UserError(WeightsUnreadable(str(path), error.strerror or str(error))) from None
        except MalformedError as fault:
            raise UserError(WeightsUnreadable(str(path), str(fault))) from None


def _opened(path: Path, stack: ExitStack) -> WeightFile:
    """Raises: UserError, MalformedError, OSError."""
    file = stack.enter_context(open_file(path))
    start = file.read(LONGEST_START)
    file.seek(0)
    other = mistaken(start)
    if other is None and is_text(start):
        other = text_instead(start, "file of weights")
    if other is not None:
        raise UserError(WeightsUnreadable(str(path), other.reason, other.hint))
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
        return stack.enter_context(opened_safetensors(file))
    if start.startswith(ZIP):
        return _in_archive(path, file, stack)
    if start.startswith(HDF5):
        _require_h5py(path)
        from vggc.weight_files.hdf5_form import opened_hdf5

        return stack.enter_context(opened_hdf5(file))
    if start.startswith(PICKLE):
        from vggc.weight_files.pytorch_form import LEGACY_START, opened_legacy, plain_pickle_line

        if start.startswith(LEGACY_START):
            return stack.enter_context(opened_legacy(path, file))
        reason = "it is a pickle that torch.save has not written"
        raise UserError(WeightsRunCode(str(path), reason, plain_pickle_line(path)))
    if start[TAR_PLACE:] == TAR:
        from vggc.weight_files.pytorch_form import whole_line

        reason = "it is of the form that PyTorch wrote before 0.1.10"
        raise UserError(WeightsRunCode(str(path), reason, whole_line(path)))
    return stack.enter_context(opened_safetensors(file))


def _in_archive(path: Path, file: BufferedReader, stack: ExitStack) -> WeightFile:
    try:
        archive = stack.enter_context(ZipFile(file))
    except Exception as fault:  # whatever a hostile archive makes of its reader
        raise MalformedError(f"it is a damaged archive: {first_line(fault)}") from None
    if KERAS_WEIGHTS in archive.namelist():
        _require_h5py(path)
        from vggc.weight_files.hdf5_form import opened_archive as opened_keras

        return stack.enter_context(opened_keras(file, archive))
    from vggc.weight_files.pytorch_form import opened_archive

    return stack.enter_context(opened_archive(path, file, archive))


def _require_h5py(path: Path) -> None:
    """Raises: UserError where h5py is not installed."""
    try:
        import vggc.weight_files.hdf5_form  # noqa: F401
    except ModuleNotFoundError as missing:
        if missing.name != "h5py":
            raise
        found: Diagnostic = KerasReaderMissing(str(path))
        raise UserError(found) from None
