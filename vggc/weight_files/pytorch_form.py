"""Weights in files of PyTorch: the zip archives of today, and what was written before 1.6.

Both hold a pickle, a program that builds objects. It is looked at before it is run, and then run by
PyTorch's loader of weights alone. Only what makes tensors is let through; a few classes that
checkpoints often hold beside them are replaced by one that keeps nothing. Nothing else is built.

Source: https://pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import ctypes
import json
import mmap
import pickletools
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from numpy.typing import NDArray

from vggc.support.diagnostics import UserError, first_line
from vggc.weight_files.diagnostics import WeightsRunCode
from vggc.weight_files.weight_file import MOST_TENSORS, FileTensor, WeightFile, unwrapped
from vggc_runtime.json_file import MalformedError

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickle of the number that files began with before PyTorch 1.6."""
LEGACY_PICKLES = 5
"""The pickles of such a file: that number, the version, sizes of types, the objects, the names of
their storages."""

MOST_PICKLE = 16 << 20
"""Bytes of the longest pickle that is run; that of a net of a thousand layers has a hundredth."""

MOST_NESTED = 1000
"""Tuples that one tuple of a pickle holds; those that tensors are made of hold three."""

TENSOR_MAKERS = re.compile(
    r"torch\.((cuda|storage)\.)?\w*Storage|torch\.(bool|uint\d+|int\d+|float\d+|bfloat16)"
    r"|torch\.(Size|device|nn\.parameter\.Parameter|serialization\._get_layout)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|(__builtin__|builtins)\.set"
)
"""What a pickle may name: tensors are made of it, and the tables that hold them."""

DROPPED = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)
"""What checkpoints often name beside tensors: options of a command, and numbers of NumPy."""

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
"""Where checkpoints hold averages of weights over the steps of a training, by which nets are
judged that have them."""
PLACES = (*AVERAGES, "state_dict", "model_state_dict", "model", "module", "net", "params")
"""Where checkpoints hold the weights of their net, best first."""
COPIED_AT_ONCE = 1 << 22
"""Values that are copied from a mapped file before its pages are given up."""

DEEPEST = 4
"""How many tables within one another are looked into."""

FLOAT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class _Dropped:
    """The place of an object that nobody needs."""

    def __new__(cls, *values: object) -> _Dropped:
        return super().__new__(cls)

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@contextmanager
def opened_archive(path: Path, file: BufferedReader, archive: ZipFile) -> Iterator[WeightFile]:
    """The weights in a zip archive of PyTorch, which is mapped into memory and read from there.

    Raises:
        UserError: to read it, one would have to run code from it.
        MalformedError: it is damaged, or holds no weights.
    """
    infos = archive.infolist()
    records = [info for info in infos if info.filename.rpartition("/")[2] == "data.pkl"]
    if any(info.filename.rpartition("/")[2] == "constants.pkl" for info in infos):
        raise UserError(WeightsRunCode(str(path), "it is a program of TorchScript", _script(path)))
    if len(records) != 1 or len(infos) > 2 * MOST_TENSORS:
        raise MalformedError("it is not an archive that torch.save has written")
    if any(info.compress_type != ZIP_STORED for info in infos):
        raise MalformedError("parts of it are compressed, which torch.save does not do")
    if records[0].file_size > MOST_PICKLE:
        raise MalformedError("its table of tensors is too long")
    refuse_code(path, BytesIO(_record(archive, records[0])), pickles=1)
    loaded = _loaded(f"/proc/self/fd/{file.fileno()}", mapped=True)
    yield _weights_in(loaded, mapped=True)


def _record(archive: ZipFile, info: ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except Exception as fault:  # whatever a hostile archive makes of its reader
        raise MalformedError(f"it is a damaged archive: {first_line(fault)}") from None


@contextmanager
def opened_legacy(path: Path, file: BufferedReader) -> Iterator[WeightFile]:
    """The weights in a file of PyTorch before 1.6, all of them in memory.

    Raises: as `opened_archive`.
    """
    file.seek(0)
    refuse_code(path, BytesIO(file.read(MOST_PICKLE)), LEGACY_PICKLES)
    file.seek(0)
    yield _weights_in(_loaded(file, mapped=False), mapped=False)


def refuse_code(path: Path, stream: IO[bytes], pickles: int) -> None:
    """Looks at pickles that follow one another, without running them.

    Raises:
        UserError: one names something that is more than a tensor.
        MalformedError: they are no pickles.
    """
    try:
        named = [name for _ in range(pickles) for name in _named_in(stream)]
    except MalformedError:
        raise
    except Exception as fault:  # whatever a hostile pickle makes of its reader
        raise MalformedError(f"its table of tensors is damaged: {first_line(fault)}") from None
    for name in named:
        if not TENSOR_MAKERS.fullmatch(name) and name not in DROPPED:
            reason = f"it holds more than tensors: `{name}`"
            raise UserError(WeightsRunCode(str(path), reason, whole_line(path)))


def _named_in(stream: IO[bytes]) -> Iterator[str]:
    """What a pickle names.

    Raises: MalformedError where its tuples hold one another so often that to hash one, as the key
    of a table, would never end.
    """
    stack: list[int] = []
    """How many tuples each thing on the pickle's stack holds, itself included; -1 is a mark."""
    kept: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield opcode.name
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            kept[len(kept) if argument is None else argument] = stack[-1]
            continue
        taken = _taken(stack, opcode)
        if opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(kept[argument or 0])
        elif opcode.name == "DUP":
            stack += 2 * taken
        elif opcode.name == "MARK":
            stack.append(-1)
        else:
            stack += [sum(taken) + 1 if "TUPLE" in opcode.name else 0] * len(opcode.stack_after)
        if stack and stack[-1] > MOST_NESTED:
            raise MalformedError("its table of tensors holds tuples in one another without end")


def _taken(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """What a step of a pickle takes from its stack."""
    found: list[int] = []
    wanted = opcode.stack_before
    if pickletools.markobject in wanted:
        while (top := stack.pop()) >= 0:
            found.append(top)
        wanted = wanted[: wanted.index(pickletools.markobject)]
    return found + [stack.pop() for _ in wanted]


def whole_line(path: Path) -> str:
    """The command that makes a file of weights alone of a pickled module or checkpoint."""
    return _command(
        path,
        'm = torch.load({}, "cpu", weights_only=False)',
        'm = m.get("state_dict", m.get("model", m)) if isinstance(m, dict) else m',
        'torch.save(m.state_dict() if hasattr(m, "state_dict") else m, {})',
    )


def _script(path: Path) -> str:
    return _command(path, 'torch.save(torch.jit.load({}, "cpu").state_dict(), {})')


def plain_pickle_line(path: Path) -> str:
    """The command that makes a file of weights of a pickled table of arrays."""
    return _command(
        path,
        "import pathlib, pickle",
        'm = pickle.loads(pathlib.Path({}).read_bytes(), encoding="latin1")',
        "torch.save({{k: torch.as_tensor(v) for k, v in m.items()}}, {})",
    )


def _command(path: Path, *statements: str) -> str:
    """A command of Python in which the first `{}` stands for the file, the last for the new one."""
    names = [json.dumps(str(path)), json.dumps(str(path.with_name(f"{path.stem}-weights.pth")))]
    code = "; ".join(("import torch", *statements)).format(*names)
    return f"python -c {shlex.quote(code)}"


def _loaded(source: str | BufferedReader, mapped: bool) -> Any:
    """What PyTorch makes of a file whose pickle has been looked at."""
    allowed: list[Any] = [(_Dropped, name) for name in DROPPED]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.simplefilter("ignore")
        try:
            return torch.load(source, "cpu", weights_only=True, mmap=mapped)
        except Exception as fault:  # whatever a hostile file makes of PyTorch's reader
            raise MalformedError(f"PyTorch cannot read it: {first_line(fault)[:200]}") from None


def _weights_in(loaded: Any, mapped: bool) -> WeightFile:
    table, left_out = state_in(loaded)
    found = {name: each.detach() for name, each in table.items() if isinstance(each, torch.Tensor)}
    if len(found) > MOST_TENSORS:
        raise MalformedError("it holds too many tensors")
    short = unwrapped(found)

    def reader(name: str) -> NDArray[np.float32]:
        return _copied(tensors[name]) if mapped else _shared(tensors[name])

    tensors = {short[name]: tensor for name, tensor in found.items()}
    told = {short[name]: _file_tensor(name, tensor) for name, tensor in found.items()}
    return WeightFile(form="PyTorch", tensors=told, reader=reader, in_order=True, left_out=left_out)


def _file_tensor(name: str, tensor: torch.Tensor) -> FileTensor:
    kind = str(tensor.dtype).removeprefix("torch.")
    is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    is_float = is_plain and tensor.dtype in FLOAT_TYPES
    return FileTensor(name, tuple(tensor.shape), kind if is_plain else "no plain tensor", is_float)


def state_in(loaded: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The table of tensors by name in what a checkpoint holds, and what else holds some.

    Raises: MalformedError where there is none.
    """
    table, left_out = loaded, list[str]()
    for _ in range(DEEPEST):
        if not isinstance(table, dict):
            break
        known: dict[int, bool] = {}
        below = [k for k, v in table.items() if isinstance(k, str) and _holds_tensors(v, known)]
        place = next((key for key in PLACES if key in below), None)
        has_tensors = any(isinstance(value, torch.Tensor) for value in table.values())
        if place is None and has_tensors:
            return {k: v for k, v in table.items() if isinstance(k, str)}, tuple(left_out)
        if place is None and len(below) == 1:
            (place,) = below
        if place is None:
            break
        left_out += [key for key in below if key != place]
        table = table[place]
    raise MalformedError("it holds no table of tensors by their names")


def _holds_tensors(value: Any, known: dict[int, bool], depth: int = DEEPEST) -> bool:
    """Whether a value is a table with tensors, or with such tables; `known` are those looked at by
    their identity: a table may stand in a file once and be meant a million times.
    """
    if not isinstance(value, dict) or not depth:
        return False
    if id(value) not in known:
        known[id(value)] = False
        known[id(value)] = any(
            isinstance(each, torch.Tensor) or _holds_tensors(each, known, depth - 1)
            for each in value.values()
        )
    return known[id(value)]


def _shared(tensor: torch.Tensor) -> NDArray[np.float32]:
    """The values of a tensor in memory, where they lie if they are as they are wanted."""
    found: NDArray[np.float32] = tensor.to(torch.float32).contiguous().numpy()
    return found


def _copied(tensor: torch.Tensor) -> NDArray[np.float32]:
    """The values of a tensor in a mapped file, of which no more than a piece is in memory twice."""
    values = np.empty(tuple(tensor.shape), np.float32)
    here, there = torch.from_numpy(values).view(-1), tensor.reshape(-1)
    for start in range(0, len(there), COPIED_AT_ONCE):
        piece = there[start : start + COPIED_AT_ONCE]
        here[start : start + COPIED_AT_ONCE].copy_(piece)
        if tensor.is_contiguous():
            _forget(piece.data_ptr(), piece.nbytes)
    return values


def _forget(address: int, size: int) -> None:
    """Tells the system that pages of a mapped file are not needed in memory any more.

    They were only read, and are read from the file again by whoever needs them.
    """
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if whole > 0:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(whole), ctypes.c_int(mmap.MADV_DONTNEED)
        )
