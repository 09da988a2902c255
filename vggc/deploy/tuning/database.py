"""The tuning database: MetaSchedule's JSON files in a folder, checked before TVM reads them.

`database_workload.json` has a line a task: its hash and its placeholder. In
`database_tuning_record.json` a line is a measurement: the number of the task, the trace that
says the choice, the seconds, the target. A choice that failed has 1e10 seconds, as everywhere
in MetaSchedule. The last word on a choice is the one that counts.
"""

from __future__ import annotations

import base64
import fcntl
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord, Workload

from vggc.deploy.targets import tvm_target
from vggc.deploy.tuning import mistakes
from vggc.deploy.tuning.space import (
    ALGORITHM,
    ATTRIBUTE,
    BLOCK,
    KNOB,
    Space,
    Task,
    choice_in,
    placeholder,
)
from vggc.diagnostics import UserError
from vggc.files import CannotWrite, replacing
from vggc.kernels.workloads import Choice

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
LOCK = "lock"
FAILED = 1e10
"""The seconds of a choice that could not be built or run, or computes something else."""
MAX_BYTES = 64 * 2**20
"""The largest file that is read; a thorough run over VGG-16 writes about 5 MiB."""
MAX_TEXT = 4096
"""The longest text of a task."""
TARGET_KEYS = {"kind", "tag", "keys", "mtriple", "mcpu", "mattr", "num-cores", "host", "device"}


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/vggc/tuning`, by default `~/.cache/vggc/tuning`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    # Where nobody is at home the name stays as it is, and there is nothing there.
    home = Path(os.path.expanduser("~"))
    return (Path(cache) if cache else home / ".cache") / "vggc" / "tuning"


@dataclass(frozen=True)
class Measured:
    """What is known of one task: seconds by choice, `FAILED` for those that do not work."""

    seconds: Mapping[Choice, float] = field(default_factory=dict)

    def best(self, among: tuple[Choice, ...]) -> Choice | None:
        """The fastest of the choices that there are; None where none was measured."""
        valid = [choice for choice in among if self.seconds.get(choice, FAILED) < FAILED]
        return min(valid, key=self.seconds.__getitem__, default=None)

    def stale(self, among: tuple[Choice, ...]) -> int:
        """How many of its choices are none any more."""
        return len(self.seconds.keys() - set(among))


def read(folder: Path) -> dict[str, Measured]:
    """What a database knows, by the text of the task; nothing where there is none yet.

    A last line without its end is one that is being written, or was when its writer died:
    it is left out.

    Raises: UserError naming the line that is no record.
    """
    # A workload is written before its records, so it is read after them.
    records = list(_lines(folder / RECORDS))
    texts = [_task(folder, number, line) for number, line in _lines(folder / WORKLOADS)]
    found: dict[str, dict[Choice, float]] = {text: {} for text in texts}
    for number, line in records:
        try:
            index, choice, seconds = _record(json.loads(line))
            text = texts[index]
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise _damage(folder / RECORDS, number, _reason(error)) from None
        found[text][choice] = seconds
    return {text: Measured(seconds) for text, seconds in found.items()}


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _Not) else "no tuning record"


def _damage(path: Path, number: int, reason: str) -> UserError:
    hint = f"remove line {number}, or the folder, or give another one with --db"
    return UserError(mistakes.BadDatabase(None, str(path), f"line {number} is {reason}", hint))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The whole lines of a file, from 1."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        reason, hint = f"it cannot be read: {error.strerror}", "give another folder with --db"
        raise UserError(mistakes.BadDatabase(None, str(path), reason, hint)) from None
    if len(content) > MAX_BYTES:
        reason = f"it is larger than {MAX_BYTES >> 20} MiB"
        hint = "remove it, or give another folder with --db"
        raise UserError(mistakes.BadDatabase(None, str(path), reason, hint))
    *whole, _cut = content.split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError:
            raise _damage(path, number, "not UTF-8 text") from None


class _Not(ValueError):
    """A line that is JSON, but not what vggc writes."""


def _task(folder: Path, number: int, line: str) -> str:
    """The text of the task in a line: the line is the very one that TVM writes for it."""
    path = folder / WORKLOADS
    try:
        _, module = json.loads(line)
        graph = base64.b64decode(module, validate=True)[8:]
        nodes = json.loads(graph)["nodes"]
        texts = [node.get("data") for node in nodes if node["type"] == "ffi.String"]
        text = texts[texts.index(ATTRIBUTE) + 1]
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise _Not("a task with a text that is too long")
        if json.loads(line) != json.loads(_line(text)):
            raise _Not("no task that this vggc writes")
    except _Not as error:
        raise _damage(path, number, str(error)) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _damage(path, number, "no task") from None
    return text


def _line(text: str) -> str:
    """The line that TVM writes for a task."""
    return json.dumps([str(part) for part in Workload(placeholder(text)).as_json()])


def _record(value: Any) -> tuple[int, Choice, float]:
    """The number of the task, the choice and the seconds of a measurement.

    Raises: ValueError and others for anything that `Database.add` does not write.
    """
    index, (trace, seconds, target, arguments) = value
    (second,) = seconds
    if type(index) is not int or index < 0:
        raise _Not("of a task with no number")
    if type(second) not in (int, float) or not 0 < second <= FAILED or math.isnan(second):
        raise _Not("a measurement without a time")
    if arguments is not None or not _is_target(target):
        raise _Not("a measurement for no CPU")
    return index, _choice(*trace), float(second)


def _is_target(value: Any) -> bool:
    """Whether TVM may read `value` as a target: words and numbers under names that we write."""

    def plain(item: Any) -> bool:
        if isinstance(item, str):
            return re.fullmatch(r"[\w.+,-]{0,64}", item) is not None
        return type(item) is int and 0 <= item < 2**20

    return (
        isinstance(value, dict)
        and value.keys() <= TARGET_KEYS
        and value.get("kind") == "llvm"
        and all(
            all(map(plain, item)) if isinstance(item, list) else plain(item)
            for item in value.values()
        )
    )


def _choice(instructions: Any, decisions: Any) -> Choice:
    """The choice that a trace says, which must be as `Space` makes it."""
    decided = dict(decisions)
    (kind, inputs, attributes, outputs), *rest = instructions
    if (kind, inputs, attributes, outputs) != ("GetSBlock", [], [BLOCK, "main"], ["b0"]):
        raise _Not("a trace of something else")
    values: dict[str, int] = {}
    said: dict[str, str | int] = {}
    for number, (kind, inputs, attributes, outputs) in enumerate(rest, 1):
        match kind, inputs, attributes, outputs:
            case "SampleCategorical", [], [[*candidates], [*chances]], [str(name)]:
                decision = decided.pop(number)
                numbers = all(type(item) is int for item in (decision, *candidates))
                shares = all(type(chance) in (int, float) for chance in chances)
                if not numbers or not shares or decision < 0 or len(candidates) != len(chances):
                    raise _Not("a trace of something else")
                values[name] = candidates[decision]
            case "Annotate", ["b0", str(quoted)], [str(key)], [] if key == ALGORITHM:
                said[key] = str(json.loads(quoted))
            case "Annotate", ["b0", str(name)], [str(key)], [] if key.startswith(KNOB):
                said[key] = values[name]
            case _:
                raise _Not("a trace of something else")
    if decided:
        raise _Not("a trace of something else")
    return choice_in(said)


class Database:
    """A database that this process alone adds to."""

    def __init__(self, folder: Path) -> None:
        """Made by `opened`: the files are known to be sound."""
        self.known = read(folder)
        self.store = JSONDatabase(work_dir=str(folder))

    def measured(self, task: Task) -> Measured:
        return self.known.get(task.text, Measured())

    def add(self, task: Task, choice: Choice, seconds: float) -> None:
        """Keeps a measurement, on disk at once."""
        workload = self.store.commit_workload(placeholder(task.text))
        trace = Space(task).schedule(choice).trace
        target = tvm_target(task.target)
        self.store.commit_tuning_record(TuningRecord(trace, workload, [seconds], target, None))
        self.known[task.text] = Measured({**self.measured(task).seconds, choice: seconds})


@contextmanager
def opened(folder: Path) -> Iterator[Database]:
    """The database in a folder, made where there is none, closed to other writers.

    Raises: UserError where it is damaged, in use, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise UserError(CannotWrite(None, str(folder), error.strerror or str(error))) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(mistakes.DatabaseInUse(None, str(folder))) from None
        for name in (WORKLOADS, RECORDS):
            _drop_cut_line(folder / name)
        yield Database(folder)


def _drop_cut_line(path: Path) -> None:
    """Removes what a writer that died left of its last line: TVM would add to it."""
    if not path.exists():
        return
    list(_lines(path))
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with replacing(path) as part:
            part.write_bytes(content[:end])
