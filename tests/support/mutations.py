"""Files of others' nets, weights and preprocessing as accidents and enemies leave them.

Each form has a sound sample, which is changed where its structure stands: lengths, counts, types,
offsets and names are others, parts are missing, doubled or in each other's place, and bytes are
flipped or cut off. What is read of it must be something, or a `UserError`; nothing else may be
raised, warned of or said to a terminal, within `SECONDS` of the processor's and `MOST_MEMORY`.

`python -m tests.support.mutations 10000` reads so many, of all forms in turn; `--seed` draws
others, `--form NAME` reads one form alone. `--form NAME --only NUMBER` reads one file again in this
process, leaves it in a folder and shows its traceback.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import pickletools
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from time import process_time
from typing import Any, TypeAlias

import numpy as np
import onnx

from tests.importing.nets import NetMaker
from tests.support.foreign_files import arrays_of, caffemodel, key, message, varint
from tests.support.foreign_nets import CAFFE_ARRAYS, SMALL_CAFFE, SMALL_DARKNET
from tests.support.nets import graph_of
from tests.support.weight_files import of_keras, write_keras, write_keras_h5, write_pytorch
from vggc.importing.net import import_foreign
from vggc.importing.readers import read_net
from vggc.ir.weights import save, seeded
from vggc.preprocessing.file import read_preprocessing
from vggc.support.diagnostics import UserError
from vggc.weight_files.load import load

SECONDS = 2.0
MOST_MEMORY = 256 << 20
"""Bytes that a file of some kilobytes may take besides what is there before."""
MOST_ADDRESSES = 16 << 30
"""Bytes of addresses of a process, so that no mistake takes the machine's memory."""
WAITED = 60.0
"""Seconds until a process that says nothing is taken to wait for something."""

NUMBERS = (0, 1, -1, 2, 7, 127, 255, 65535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 60, (1 << 64) - 1)
NAMES = (
    "", ".", "..", "/", "../../etc/passwd", "/etc/passwd", "a\0b", "\x1b[31mred\x1b]0;title\x07",
    "\u202egpj.exe", "\ud800", "x" * 5000, "{path}", "`", "\r\nerror:", "/dev/zero", "e\u0301" * 9,
)  # fmt: skip
WORDS_OF_TEXT = re.compile(r'"[^"\n]*"|[A-Za-z_]\w*|-?\d[\d.eE+-]*|\s+|.', re.DOTALL)
HDF5_PARTS = re.compile(rb"TREE|SNOD|HEAP|GCOL|OHDR|FRHP|\x89HDF|layer_names|weight_names")
CENTRAL = b"PK\x01\x02"
HOSTILE = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"(", b"R", b"c", b".", b"9" * 20)
WEIGHED = graph_of("conv3-4 | pool | conv3-5 norm=batch | pool | fc-6 | fc-3")
"""The net whose weights are read."""

Change: TypeAlias = "Callable[[random.Random, bytes], bytes]"


@dataclass(frozen=True)
class MutatedForm:
    """Sound files of a form by their names, how those that are changed are, and what reads them."""

    files: Mapping[str, bytes]
    changes: Mapping[str, Change]
    read: Callable[[Path], None]

    def write(self, folder: Path, draw: random.Random) -> None:
        """Files of which one or more are changed."""
        names = [*self.changes]
        chosen = set(draw.choices(names, k=draw.randint(1, len(names))))
        for name, content in self.files.items():
            if name in chosen:
                for _ in range(draw.choice((1, 1, 2, 4))):
                    change = self.changes[name] if draw.random() < 0.8 else damaged
                    content = change(draw, content)
            (folder / name).write_bytes(content)


@dataclass(frozen=True)
class MutationDefect:
    """What came of a file that is neither something read nor a diagnostic."""

    form: str
    number: int
    what: str


@dataclass
class MutationCounts:
    """What came of files, by their forms, and the processor's seconds that it took."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    defects: list[MutationDefect] = field(default_factory=list)


# ---------------------------------------------------------------- changes


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Bytes with up to four places changed, more often near its ends, where tables stand."""
    found = bytearray(content or b"x")
    for _ in range(draw.randint(1, 4)):
        near = min(len(found), draw.choice((64, 1024, 1 << 30)))
        place = draw.randrange(near) if near else 0
        place = len(found) - 1 - place if draw.random() < 0.4 else place
        match draw.randrange(5):
            case 0:
                found[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                some = draw.choice(HOSTILE)
                found[place : place + len(some)] = some
            case 2:
                del found[place : place + draw.choice((1, 8, 512))]
            case 3:
                other = draw.randrange(max(1, len(found)))
                found[place : place + 16] = found[other : other + 16]
            case _:
                found = found[: max(1, place)] if draw.random() < 0.2 else found
    return bytes(found)


def message_changed(draw: random.Random, data: bytes, depth: int = 0) -> bytes:
    """A message of protobuf with one field changed, of it or of a message in it."""
    fields = _fields(data)
    if not fields:
        return _name(draw) if draw.random() < 0.5 else damaged(draw, data)
    at = draw.randrange(len(fields))
    number, wire, value, whole = fields[at]
    if wire == 2 and value and depth < 8 and draw.random() < 0.75:
        parts = [message(number, message_changed(draw, value, depth + 1))]
    else:
        match draw.randrange(7):
            case 0:
                parts = []
            case 1:
                parts = [whole] * draw.choice((2, 2, 50))
            case 2:
                parts = [draw.choice(fields)[3]]
            case 3:
                parts = [key(draw.choice((number + 1, 1, 3, 100, 1 << 28)), wire), whole[1:]]
            case 4:
                parts = [key(number, 2), varint(draw.choice(NUMBERS) % (1 << 64)), value]
            case 5:
                parts = [key(number, 0), varint(draw.choice(NUMBERS) % (1 << 64))]
            case _:
                parts = [message(number, _name(draw))]
    wholes = [each[3] for each in fields]
    return b"".join((*wholes[:at], *parts, *wholes[at + 1 :]))


def _fields(data: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """The fields of a message: number, wire type, value and all; none where it is no message."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
            if byte < 128:
                return value

    try:
        while at < len(data):
            begin = at
            tag = number()
            start = at
            match tag & 7:
                case 0:
                    number()
                case 1:
                    at += 8
                case 2:
                    size = number()
                    start, at = at, at + size
                case 5:
                    at += 4
                case _:
                    return []
            if at > len(data) or not tag >> 3:
                return []
            found.append((tag >> 3, tag & 7, data[start:at], data[begin:at]))
    except IndexError:
        return []
    return found


def text_changed(draw: random.Random, data: bytes) -> bytes:
    """A text with some words, numbers or lines changed."""
    text = data.decode("utf-8", "surrogateescape")
    words = WORDS_OF_TEXT.findall(text) or [" "]
    at = draw.randrange(len(words))
    match draw.randrange(6):
        case 0:
            numbers = [i for i, word in enumerate(words) if word[0].isdigit()] or [at]
            words[draw.choice(numbers)] = str(draw.choice((*NUMBERS, 0.5, 10**30, "1e999", "nan")))
        case 1:
            words[at] = draw.choice(words)
        case 2:
            strings = [i for i, word in enumerate(words) if word[0] == '"'] or [at]
            words[draw.choice(strings)] = json.dumps(draw.choice(NAMES), ensure_ascii=False)
        case 3:
            words[at : at + draw.choice((1, 5, 40))] = []
        case 4:
            words[at:at] = words[at : at + draw.choice((5, 40))] * draw.choice((1, 1, 60))
        case _:
            words.insert(
                at, draw.choice(("{", "}", "[", "]", "=", '"', "#", "{" * 3000, "[" * 3000))
            )
    return "".join(words).encode("utf-8", "surrogatepass")


def json_changed(draw: random.Random, data: bytes) -> bytes:
    """A text of JSON with one value changed."""
    try:
        value = json.loads(data)
    except ValueError:
        return text_changed(draw, data)
    return json.dumps(_value_changed(draw, value)).encode()


def _value_changed(draw: random.Random, value: Any) -> Any:
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        keys = [*value] if isinstance(value, dict) else [*range(len(value))]
        key = draw.choice(keys)
        match draw.randrange(6):
            case 0:
                del value[key]
            case 1 if isinstance(value, dict):
                value[_text(draw)] = value.pop(key)
            case 2:
                value[key] = value[draw.choice(keys)]
            case _:
                value[key] = _value_changed(draw, value[key])
        return value
    strange = (None, True, [], {}, [[[]]], 1e300, -1.5, [0] * 40, [1 << 31] * 2, {"a": {"b": 1}})
    return draw.choice((*strange, draw.choice(NUMBERS), _text(draw)))


def safetensors_changed(draw: random.Random, data: bytes) -> bytes:
    """A file of safetensors whose header says something else."""
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    header = (json_changed if draw.random() < 0.8 else text_changed)(draw, header)
    told = len(header) if draw.random() < 0.8 else draw.choice(NUMBERS) % (1 << 64)
    return told.to_bytes(8, "little") + header + rest


def pickle_changed(draw: random.Random, data: bytes) -> bytes:
    """Pickles behind one another of which one has steps missing, doubled, moved or of other
    values.
    """
    if draw.random() < 0.7 and (end := _pickle_end(data)) < len(data) - 512:
        return data[:end] + pickle_changed(draw, data[end:])
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:
        return damaged(draw, data)
    ends = [*places[1:], places[-1] + 1]
    steps = [data[start:end] for start, end in zip(places, ends, strict=True)]
    at = draw.randrange(len(steps))
    match draw.randrange(6):
        case 0:
            del steps[at]
        case 1:
            steps[at:at] = [steps[at]] * draw.choice((1, 1, 1000))
        case 2:
            steps[at] = draw.choice(steps)
        case 3:
            numbers = [i for i, step in enumerate(steps) if step[:1] in b"KMJ"] or [at]
            steps[draw.choice(numbers)] = b"I%d\n" % draw.choice(NUMBERS)
        case 4:
            texts = [i for i, step in enumerate(steps) if step[:1] == b"X"] or [at]
            name = _name(draw)
            steps[draw.choice(texts)] = b"X" + struct.pack("<I", len(name)) + name
        case _:
            bomb = b"(22222l" * draw.choice((1, 40)) + b"0"
            steps.insert(at, draw.choice((b"0", b"2", b"(", b"t", b"R", b"]", b"}", b"u", bomb)))
    return b"".join(steps) + data[ends[-1] :]


def _pickle_end(data: bytes) -> int:
    """Where the first pickle ends."""
    stream = io.BytesIO(data)
    try:
        for _ in pickletools.genops(stream):
            pass
    except Exception:
        return len(data)
    return stream.tell()


def archive_changed(change: Mapping[str, Change]) -> Change:
    """Changes an archive: a file in it by its ending, its files, or the directory at its end."""

    def changed(draw: random.Random, data: bytes) -> bytes:
        if draw.random() < 0.25:
            return _directory_changed(draw, data)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                files = [(info.filename, archive.read(info)) for info in archive.infolist()]
        except Exception:
            files = []
        if not files:
            return damaged(draw, data)
        at = draw.randrange(len(files))
        known = [i for i, (name, _) in enumerate(files) if name.endswith(tuple(change))]
        match draw.randrange(8):
            case 0:
                del files[at]
            case 1:
                files.append((files[at][0], draw.choice(files)[1]))
            case 2:
                files[at] = (_text(draw).replace("\0", "") or "x", files[at][1])
            case 3:
                files[at] = (files[at][0], files[at][1][: draw.randrange(len(files[at][1]) + 1)])
            case _ if known:
                at = draw.choice(known)
                name, content = files[at]
                rule = next(rule for ending, rule in change.items() if name.endswith(ending))
                files[at] = (name, rule(draw, content))
        room = io.BytesIO()
        kind = zipfile.ZIP_DEFLATED if draw.random() < 0.05 else zipfile.ZIP_STORED
        with warnings.catch_warnings(), zipfile.ZipFile(room, "w", kind) as archive:
            warnings.simplefilter("ignore")
            for name, content in files:
                archive.writestr(name.encode("utf-8", "replace").decode(), content)
        return room.getvalue()

    return changed


def _directory_changed(draw: random.Random, data: bytes) -> bytes:
    entries = [found.start() for found in re.finditer(CENTRAL, data)]
    if not entries:
        return damaged(draw, data)
    found = bytearray(data)
    place = draw.choice((*(entry + draw.randrange(4, 46, 2) for entry in entries), len(data) - 10))
    struct.pack_into("<I", found, min(place, len(found) - 4), draw.choice(NUMBERS) % (1 << 32))
    return bytes(found)


def hdf5_changed(draw: random.Random, data: bytes) -> bytes:
    """A file of HDF5 with numbers and addresses changed near where its structures begin."""
    if len(data) < 64:
        return damaged(draw, data)
    found = bytearray(data)
    starts = [place.start() for place in HDF5_PARTS.finditer(data)] or [0]
    width = draw.choice((1, 2, 4, 8))
    place = draw.choice(starts) + draw.randrange(-64, 200)
    place = max(0, min(place - place % width, len(found) - 8))
    match draw.randrange(3):
        case 0:
            struct.pack_into("<Q", found, place, draw.choice(NUMBERS) % (1 << 64))
            found[place + width : place + 8] = data[place + width : place + 8]
        case 1:
            other = draw.randrange(len(found) // 8) * 8
            found[place : place + 8] = (found[other : other + 8] + bytes(8))[:8]
        case _:
            struct.pack_into("<Q", found, place, draw.choice(starts))
    return bytes(found)


def _text(draw: random.Random) -> str:
    return draw.choice(NAMES)


def _name(draw: random.Random) -> bytes:
    return _text(draw).encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- forms


def _net(*names: str) -> Callable[[Path], None]:
    """Reads files as a net with its weights."""

    def read(folder: Path) -> None:
        foreign = read_net([str(folder / name) for name in names], None)
        net = import_foreign(foreign)
        if foreign.has_weights:
            net.weights()

    return read


def _weights(folder: Path) -> None:
    load(folder / "weights", WEIGHED)


def _preprocessing(name: str) -> Callable[[Path], None]:
    return lambda folder: _used(read_preprocessing(folder / name, (3, 64, 64)))


def _used(_: object) -> None:
    pass


def _onnx() -> onnx.ModelProto:
    """A net with weights in initialisers and in a large node, and shapes that are computed."""
    net = NetMaker(1, 3, 16, 16)
    x = net.op("Conv", "x", net.random(8, 3, 3, 3), net.random(8), pads=[1, 1, 1, 1])
    norm = [net.random(8, low=0.5) for _ in range(4)]
    x = y = net.op("Relu", net.op("BatchNormalization", x, *norm, epsilon=1e-4))
    y = net.op("Conv", y, net.random(8, 4, 3, 3), group=2, pads=[1, 1, 1, 1])
    x = net.op("Concat", net.op("Add", x, y), x, axis=1)
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    sizes = net.op("Shape", x)
    first = net.op("Slice", sizes, np.array([0]), np.array([1]), np.array([0]))
    shape = net.op("Concat", first, np.array([-1]), axis=0)
    x = net.op("Reshape", x, shape)
    x = net.op("Gemm", x, net.random(5, 16 * 64), net.random(5), transB=1)
    return net.model(net.op("Softmax", x, axis=1))


def weight_samples(folder: Path) -> Iterator[Path]:
    """A sound file of each form of weights."""
    weights = seeded(WEIGHED, 0)
    save(folder / "safetensors", weights)
    yield folder / "safetensors"
    for legacy in (False, True):
        wrapped = {"state_dict": weights, "epoch": 3}
        yield write_pytorch(folder / f"pytorch-{legacy}", wrapped, legacy)
    try:
        import h5py  # noqa: F401
    except ModuleNotFoundError:
        return
    keras = {name: of_keras(name, each) for name, each in weights.items()}
    yield write_keras_h5(folder / "h5", keras)
    yield write_keras(folder / "keras", keras)


def forms() -> dict[str, MutatedForm]:
    """All forms that this machine can read: those of Keras need h5py."""
    model = _onnx()
    found = {
        "onnx": MutatedForm(
            {"net.onnx": model.SerializeToString()}, {"net.onnx": message_changed}, _net("net.onnx")
        )
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(
            model,
            folder / "net.onnx",
            save_as_external_data=True,
            location="data",
            size_threshold=64,
        )
        files = {each.name: each.read_bytes() for each in folder.iterdir()}
        changes: dict[str, Change] = {"net.onnx": message_changed, "data": damaged}
        found["onnx-external"] = MutatedForm(files, changes, _net("net.onnx"))
        for sample in weight_samples(folder):
            changes = {"weights": WEIGHT_CHANGES[sample.name]}
            found[sample.name] = MutatedForm({"weights": sample.read_bytes()}, changes, _weights)
    text = SMALL_CAFFE.definition.encode()
    for v1 in (False, True):
        files = {"n.prototxt": text, "n.caffemodel": caffemodel(arrays_of(CAFFE_ARRAYS), v1=v1)}
        changes = {"n.caffemodel": message_changed}
        found[f"caffemodel-v{2 - v1}"] = MutatedForm(files, changes, _net(*files))
    found["prototxt"] = MutatedForm(files, {"n.prototxt": text_changed}, _net(*files))
    files = {"n.cfg": SMALL_DARKNET.definition.encode(), "n.weights": SMALL_DARKNET.weights}
    found["cfg"] = MutatedForm(files, {"n.cfg": text_changed}, _net(*files))
    found["darknet"] = MutatedForm(files, {"n.weights": damaged}, _net(*files))
    for name, (content, change) in PREPROCESSING.items():
        found[name.replace(".", "-")] = MutatedForm(
            {name: content.encode()}, {name: change}, _preprocessing(name)
        )
    return found


WEIGHT_CHANGES: Mapping[str, Change] = {
    "safetensors": safetensors_changed,
    "pytorch-False": archive_changed({"data.pkl": pickle_changed}),
    "pytorch-True": pickle_changed,
    "h5": hdf5_changed,
    "keras": archive_changed({".h5": hdf5_changed, ".json": json_changed}),
}
_OWN = """
preset = "torchvision"
range = 255
order = "bgr"
mean = [104.0, 117.0, 123.0]
std = [1, 1, 1]
fit = "pad"
size = [64, 64]
interpolation = "bicubic"
background = [1, 2, 3]
"""
_OWN_JSON = (
    '{"preset": "caffe", "range": 1, "mean": [0.5, 0.5, 0.5], "size": [64, 32], "scale": 70}'
)
_HUGGING_FACE = json.dumps(
    {
        "crop_size": {"height": 64, "width": 64}, "do_center_crop": True, "do_normalize": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ConvNextImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "resample": 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": 72}, "crop_pct": 0.875,
    }
)  # fmt: skip
_TIMM = json.dumps(
    {
        "architecture": "vgg16", "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, 64, 64], "crop_pct": 0.875, "crop_mode": "center",
            "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.2, 0.2, 0.2],
        },
    }
)  # fmt: skip
PREPROCESSING: Mapping[str, tuple[str, Change]] = {
    "own.toml": (_OWN, text_changed),
    "own.json": (_OWN_JSON, json_changed),
    "hugging-face.json": (_HUGGING_FACE, json_changed),
    "timm.json": (_TIMM, json_changed),
}


# ---------------------------------------------------------------- a run


def read_one(form: MutatedForm, folder: Path, draw: random.Random) -> str:
    """What came of one file: `read`, `refused`, or what is wrong with that."""
    form.write(folder, draw)
    before = _peak()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            form.read(folder)
            found = "read"
        except UserError as error:
            found, told = "refused", str(error)
            if not told.startswith("error: "):
                return f"a refusal without a title: {told[:200]!r}"
            if not told.replace("\n", "").isprintable():
                return f"a refusal that a terminal would obey: {told[:200]!r}"
    if warned:
        return f"a warning: {warned[0].message}"
    if _peak() - before > MOST_MEMORY:
        return f"{(_peak() - before) >> 20} MiB of memory"
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def draw(seed: int, name: str, number: int) -> random.Random:
    return random.Random(f"{seed} {name} {number}")


def _work(
    known: Mapping[str, MutatedForm],
    seed: int,
    cases: Sequence[tuple[str, int]],
    tell: Connection,
) -> None:
    """Reads files one by one and tells what came of each, until the process is stopped."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends it
    with tempfile.TemporaryDirectory() as folder:
        for name, number in cases:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            start = process_time()
            try:
                found = read_one(known[name], Path(folder), draw(seed, name, number))
            except BaseException as fault:
                found = f"{type(fault).__name__}: {str(fault)[:300]}"
            signal.setitimer(signal.ITIMER_PROF, 0)
            tell.send((found, process_time() - start))
    tell.close()


def run(
    count: int,
    seed: int = 0,
    only: str | None = None,
    known: Mapping[str, MutatedForm] | None = None,
) -> MutationCounts:
    """Reads so many files, of all forms in turn, or of one, in processes beside this one."""
    known = known or forms()
    names = [only] if only else [*known]
    cases = [(names[i % len(names)], i // len(names)) for i in range(count)]
    found = MutationCounts()
    context = multiprocessing.get_context("fork")
    while cases:
        done = 0
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(known, seed, cases, there))
        worker.start()
        there.close()
        for what, seconds in _told(here):
            name, number = cases[done]
            done += 1
            found.seconds[name] += seconds  # type: ignore[assignment]
            found.slowest[name] = max(found.slowest.get(name, 0.0), seconds)
            match what:
                case "read":
                    found.read[name] += 1
                case "refused":
                    found.refused[name] += 1
                case _:
                    found.defects.append(MutationDefect(name, number, what))
        if done < len(cases):
            worker.kill() if worker.is_alive() and not here.closed else None
        worker.join()
        if done < len(cases):
            name, number = cases[done]
            what = "it waits" if worker.exitcode == -signal.SIGKILL else _end(worker.exitcode)
            found.defects.append(MutationDefect(name, number, what))
            done += 1
        cases = cases[done:]
    return found


def _told(here: Connection) -> Iterator[tuple[str, float]]:
    while here.poll(WAITED):
        try:
            yield here.recv()
        except EOFError:
            return


def _end(code: int | None) -> str:
    if code == -signal.SIGPROF:
        return f"more than {SECONDS} seconds of the processor's"
    return f"its process ended with {code}"


def main() -> int:
    """Reads as many as the arguments say, and tells what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--form", choices=[*forms()])
    parser.add_argument("--only", type=int, metavar="NUMBER")
    asked = parser.parse_args()
    if asked.only is not None:
        folder = Path(tempfile.mkdtemp())
        print(folder)
        print(read_one(forms()[asked.form], folder, draw(asked.seed, asked.form, asked.only)))
        return 0
    found = run(asked.count, asked.seed, asked.form)
    for name in sorted(found.seconds):
        print(
            f"{name:20} {found.read[name]:6,} read {found.refused[name]:6,} refused "
            f"{found.seconds[name]:7.1f} s, the slowest {found.slowest[name]:.2f} s"
        )
    for each in found.defects:
        repeat = f"--seed {asked.seed} --form {each.form} --only {each.number}"
        print(f"DEFECT {repeat}: {each.what}")
    return 1 if found.defects else 0


if __name__ == "__main__":
    sys.exit(main())
