"""The tuning database: MetaSchedule's JSON files in a folder, which TVM itself never reads here.

`database_workload.json` has a line a task: its hash and its placeholder. In
`database_tuning_record.json` a line is a measurement: the number of the task, the trace that
says the choice and names the task, the seconds, the target. The number is that of a line, so a
record whose task has another name belongs to a line that was moved or removed. A choice that
failed has 1e10 seconds, as everywhere in MetaSchedule. The last word on a choice is the one that
counts.

A task of other code, or of another TVM, is another task: what is known of it stays in the files
and decides nothing.
"""

from __future__ import annotations

import base64
import fcntl
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tvm.s_tir.meta_schedule.database import TuningRecord, Workload

from vggc.kernels.workloads import Choice
from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, cache_folder, open_lock, replacing
from vggc.support.tvm_alone import tvm
from vggc.tuning import diagnostics
from vggc.tuning.space import (
    ALGORITHM,
    ATTRIBUTE,
    BLOCK,
    KNOB,
    Space,
    Task,
    choice_in,
    digest,
    is_of_this_tvm,
    kind_of,
    placeholder,
    without_code,
)
from vggc_runtime.files import open_file

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
LOCK = "lock"
FAILED = 1e10
"""The seconds of a choice that could not be built or run, or computes something else."""
MAX_BYTES = 64 * 2**20
"""The largest file that is read or written; a thorough run over VGG-16 writes about 5 MiB."""
COMPACT_BYTES = MAX_BYTES // 2
"""A larger file loses what counts no more before a run."""
MAX_TEXT = 4096
"""The longest text of a task."""
TARGET_KEYS: dict[str, set[str]] = {
    "llvm": {"kind", "tag", "keys", "mtriple", "mcpu", "mattr", "num-cores", "host", "device"},
    "cuda": {"kind", "tag", "keys", "arch", "max_num_threads", "thread_warp_size"},
}
"""What a record may say of its target, by TVM's kinds of targets."""
KINDS: dict[str, Literal["cpu", "cuda"]] = {"llvm": "cpu", "cuda": "cuda"}


def default_folder() -> Path | None:
    """The default place of the database: `vggc/tuning/tvm-VERSION` in `$XDG_CACHE_HOME`, by default
    in `~/.cache`.

    None where nobody is at home. Another TVM might write what this one cannot read.
    """
    return cache_folder("tuning", f"tvm-{tvm.__version__}")


def unreadable(folder: Path) -> str | None:
    """Why a database cannot be read, if the system forbids it."""
    try:
        open_file(folder / RECORDS).close()
    except FileNotFoundError:
        pass
    except OSError as error:
        return error.strerror or str(error)
    return None


@dataclass(frozen=True)
class KnownTimes:
    """What is known of one task: seconds by choice, `FAILED` for choices that do not work."""

    seconds: Mapping[Choice, float] = field(default_factory=dict)

    def best(self, among: tuple[Choice, ...]) -> Choice | None:
        """The fastest of the choices `among`; None where none of them was measured."""
        times = self.times(among)
        best = min(times, key=times.__getitem__, default=None)
        return None if best is None or times[best] == math.inf else best

    def times(self, among: Iterable[Choice]) -> dict[Choice, float]:
        """The seconds of the choices `among` that were measured, in their order; infinite for those
        that do not work.
        """
        found = {choice: self.seconds[choice] for choice in among if choice in self.seconds}
        return {
            choice: seconds if seconds < FAILED else math.inf for choice, seconds in found.items()
        }

    @property
    def failed(self) -> set[Choice]:
        """The choices that do not work."""
        return {choice for choice, seconds in self.seconds.items() if seconds >= FAILED}


def outdated(known: Mapping[str, KnownTimes], tasks: Iterable[Task]) -> int:
    """How many measurements there are of these tasks in other code or with another TVM."""
    wanted = {without_code(task.text): task.text for task in tasks}
    return sum(
        len(measured.seconds)
        for text, measured in known.items()
        if text != wanted.get(without_code(text), text)
    )


def other_threads(known: Mapping[str, KnownTimes], tasks: Iterable[Task]) -> tuple[int, ...]:
    """The numbers of threads with which these tasks of a CPU were measured, where with their own
    number none was.
    """
    wanted = {(_threads(task.text), _without_threads(task.text)) for task in tasks}
    texts = {text for _, text in wanted}
    measured = [(_threads(text), _without_threads(text)) for text in known if known[text].seconds]
    if wanted & set(measured):
        return ()
    return tuple(sorted({threads for threads, text in measured if text in texts}))


def other_batches(
    known: Mapping[str, KnownTimes], tasks: Iterable[Task]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The batches for which these tasks were measured though they were not asked for, and those
    that were asked for and of which nothing was measured.
    """
    wanted = [(_batch(task.text), _without_batch(task.text)) for task in tasks]
    texts = {text for _, text in wanted}
    told = [(_batch(text), _without_batch(text)) for text in known if known[text].seconds]
    asked, measured = (
        {batch for batch, _ in wanted},
        {batch for batch, text in told if text in texts},
    )
    return tuple(sorted(measured - asked)), tuple(sorted(asked - measured))


def _batch(text: str) -> int:
    """The images that a task computes at once."""
    (workload,) = json.loads(text)["workload"].values()
    number = workload.get("batch") or workload.get("output", {}).get("batch")
    return number if isinstance(number, int) else 0


def _without_batch(text: str) -> str:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key != "batch"}
        return value

    return json.dumps(without(json.loads(without_code(text))))


def _threads(text: str) -> int:
    number = json.loads(text).get("threads")
    return number if isinstance(number, int) else 0


def _without_threads(text: str) -> str:
    said = json.loads(without_code(text))
    return json.dumps({key: value for key, value in said.items() if key != "threads"})


def read(folder: Path) -> dict[str, KnownTimes]:
    """What a database knows, by the text of the task; nothing where there is no database yet.

    A last line without its end is one that is being written, or was when its writer died:
    it is left out.

    Raises: UserError naming the line that is no record.
    """
    texts, records = _tables(folder)
    return _known(texts, records)


@dataclass(frozen=True)
class _Line:
    """A measurement as it stands in its file."""

    line: str
    text: str
    choice: Choice
    seconds: float


def _tables(folder: Path) -> tuple[list[str], list[_Line]]:
    """The texts of the tasks by their numbers, and the measurements in order."""
    # A workload is written before its records, so it is read after them.
    lines = list(_lines(folder / RECORDS))
    texts = [_task(folder, number, line) for number, line in _lines(folder / WORKLOADS)]
    records = []
    for number, line in lines:
        try:
            index, choice, seconds, kind, name = _record(json.loads(line))
            if not 0 <= index < len(texts):
                raise _Not(f"of the task {index}, and {WORKLOADS} has {len(texts)}")
            if kind != kind_of(texts[index]):
                raise _Not("a measurement on another kind of machine than its task's")
            if name not in (None, digest(texts[index])):
                raise _Not(f"of another task than line {index + 1} of {WORKLOADS}")
            records.append(_Line(line, texts[index], choice, seconds))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise _damage(folder / RECORDS, number, _reason(error)) from None
    return texts, records


def _known(texts: Iterable[str], records: Iterable[_Line]) -> dict[str, KnownTimes]:
    found: dict[str, dict[Choice, float]] = {text: {} for text in texts}
    for record in records:
        found[record.text][record.choice] = record.seconds
    return {text: KnownTimes(seconds) for text, seconds in found.items()}


def _compact(records: list[_Line]) -> list[_Line]:
    """The last word on each choice, in the code that the task was last measured in."""
    code = {without_code(record.text): record.text for record in records}
    last = {(record.text, record.choice): record for record in records}
    return [record for record in last.values() if code[without_code(record.text)] == record.text]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _Not) else "no tuning record"


def _damage(path: Path, number: int, reason: str) -> UserError:
    hint = f"remove line {number}, or the folder, or give another one with --db"
    return UserError(diagnostics.BadDatabase(str(path), f"line {number} is {reason}", hint))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The whole lines of a file, with their numbers from 1."""
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        reason, hint = f"it cannot be read: {error.strerror}", "give another one with --db"
        raise UserError(diagnostics.BadDatabase(str(path), reason, hint)) from None
    if len(content) > MAX_BYTES:
        reason = f"it is larger than {MAX_BYTES >> 20} MiB"
        hint = "remove it, or give another folder with --db"
        raise UserError(diagnostics.BadDatabase(str(path), reason, hint))
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
        without_code(text)
        if is_of_this_tvm(text) and json.loads(line) != json.loads(_line(text)):
            raise _Not("no task that this vggc writes")
    except _Not as error:
        raise _damage(path, number, str(error)) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _damage(path, number, "no task") from None
    return text


def _line(text: str) -> str:
    """The line that TVM writes for a task."""
    return _dumped([str(part) for part in Workload(placeholder(text)).as_json()])


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _record(value: Any) -> tuple[int, Choice, float, str, str | None]:
    """The number of the task, the choice, the seconds of a measurement, the kind of machine, and
    the name of the task; None in a record from before they had it, which is taken at its word.

    Raises: ValueError and others for anything that `Database.add` does not write.
    """
    index, (trace, seconds, target, arguments) = value
    (second,) = seconds
    if type(index) is not int or index < 0:
        raise _Not("of a task with no number")
    if type(second) not in (int, float) or not 0 < second <= FAILED or math.isnan(second):
        raise _Not("a measurement without a time")
    if arguments is not None or not _is_target(target):
        raise _Not("a measurement for neither a CPU nor a GPU")
    said = _annotations(*trace)
    name = said.get(ATTRIBUTE)
    kind = KINDS[target["kind"]]
    return index, choice_in(said), float(second), kind, None if name is None else str(name)


def _is_target(value: Any) -> bool:
    """Whether TVM may read `value` as a target: words and numbers under names that vggc writes."""

    def plain(item: Any) -> bool:
        if isinstance(item, str):
            return re.fullmatch(r"[\w.+,-]{0,64}", item) is not None
        return type(item) is int and 0 <= item < 2**20

    return (
        isinstance(value, dict)
        and value.get("kind") in KINDS
        and value.keys() <= TARGET_KEYS[value["kind"]]
        and all(
            all(map(plain, item)) if isinstance(item, list) else plain(item)
            for item in value.values()
        )
    )


def _annotations(instructions: Any, decisions: Any) -> dict[str, str | int]:
    """What a trace, which must be as `Space` makes it, says of the choice and the task."""
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
            case "Annotate", ["b0", str(quoted)], [str(key)], [] if key in (ALGORITHM, ATTRIBUTE):
                said[key] = str(json.loads(quoted))
            case "Annotate", ["b0", str(name)], [str(key)], [] if key.startswith(KNOB):
                said[key] = values[name]
            case _:
                raise _Not("a trace of something else")
    if decided:
        raise _Not("a trace of something else")
    return said


class Database:
    """A tuning database that this process alone adds to."""

    def __init__(self, folder: Path, texts: list[str], records: list[_Line]) -> None:
        """Is called by `opened` with what the files hold."""
        self.folder, self.texts = folder, texts
        self.known = _known(texts, records)

    def measured(self, task: Task) -> KnownTimes:
        """What is known of a task."""
        return self.known.get(task.text, KnownTimes())

    def add(self, task: Task, choice: Choice, seconds: float) -> None:
        """Keeps a measurement, in seconds, on disk at once.

        Raises: UserError where it cannot be written, or the file is full.
        """
        assert 0 < seconds <= FAILED
        if task.text not in self.texts:
            self._append(WORKLOADS, _line(task.text))
            self.texts.append(task.text)
        workload, target = Workload(placeholder(task.text)), task.machine.description
        trace = Space(task).schedule(choice).trace
        record = TuningRecord(trace, workload, [seconds], target, None).as_json()
        self._append(RECORDS, _dumped([self.texts.index(task.text), record]))
        self.known[task.text] = KnownTimes({**self.measured(task).seconds, choice: seconds})

    def _append(self, name: str, line: str) -> None:
        path, end = self.folder / name, f"{line}\n".encode()
        try:
            if path.exists() and path.stat().st_size + len(end) > MAX_BYTES:
                raise UserError(diagnostics.DatabaseFull(str(path), MAX_BYTES >> 20))
            with path.open("ab") as file:
                file.write(end)
        except OSError as error:
            raise UserError(CannotWrite(str(path), error.strerror or str(error))) from None


@contextmanager
def opened(folder: Path) -> Iterator[Database]:
    """Within it, the database in a folder, made where there is none, is open and closed to other
    writers.

    Raises: UserError where it is damaged, in use, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_lock(folder / LOCK)
    except OSError as error:
        raise UserError(CannotWrite(str(folder), error.strerror or str(error))) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(diagnostics.DatabaseInUse(str(folder))) from None
        for name in (WORKLOADS, RECORDS):
            _drop_cut_line(folder / name)
        texts, records = _tables(folder)
        path = folder / RECORDS
        if path.exists() and path.stat().st_size > COMPACT_BYTES:
            records = _compact(records)
            with replacing(path) as part:
                part.write_text("".join(f"{record.line}\n" for record in records), "utf-8")
        yield Database(folder, texts, records)


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
