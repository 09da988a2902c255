"""Runs a bundle: `python run.py --out FOLDER`, on a machine with a card, torch and nothing else.

The parts of the run are done by a child process, in order, and each is written to
`FOLDER/journal.jsonl` before the next begins. A child that dies or hangs is replaced by another
one, which goes on behind the part that it died of; an algorithm that has ended two of them is tried
no more. When the time of a step is up, the next one begins. What was interrupted goes on when it
is begun again with the same folder; with `--minutes 0` it only writes its report.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from card.journal import NO_TIME, Entry, Journal, step_of
from card.parts import LIMIT, TOTAL, deadline, keys
from card.report import write_report
from card.tables import Bundle, Tables

if TYPE_CHECKING:
    from card.steps import Worker

JOURNAL = "journal.jsonl"
MINUTES = TOTAL / 60
"""The time of the whole run."""
STARTING = 120.0
"""The seconds that a child may take to begin: torch is some gigabytes on a cold disk."""
ENDING = 10.0
"""The seconds that a child may take to end when it is killed."""
POLL = 0.1
BROKEN = 3
"""The exit code of a child whose device does not answer any more."""
MOST_LOST = 2
"""So many processes an algorithm may end."""
LOST = ("the process ended", "it took too long")
"""What an error begins with that has cost a process."""


def main(bundle: Path, arguments: list[str] | None = None) -> None:
    """The command line of a bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="a folder for results")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole run")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    found = Bundle(bundle)
    journal = Journal(asked.out / JOURNAL)
    if asked.one:
        from card.steps import Worker

        Worker(found, asked.out, {}).one(asked.one)
    elif asked.began:
        sys.exit(work(found, asked.out, asked.began, 60 * asked.minutes))
    else:
        asked.out.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            supervise(found, asked.out, 60 * asked.minutes)
        finally:  # whatever has ended it, what was found is told
            print(write_report(found, journal, asked.out))


def supervise(bundle: Bundle, folder: Path, seconds: float) -> None:
    """Has children do all parts that are not done, one child after another, for so many seconds."""
    journal = Journal(folder / JOURNAL)
    began = time.time()
    until = began + seconds
    while time.time() < until and keys(bundle.tables) != _done(bundle, journal, began):
        command = [sys.executable, str(bundle.folder / "run.py"), "--out", str(folder)]
        command += ["--began", str(began), "--minutes", str(seconds / 60)]
        known = len(journal.entries())
        with open(folder / "log.txt", "a", encoding="utf-8") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                why = _watched(child, journal, until)
            finally:
                child.kill()
                with suppress(subprocess.TimeoutExpired):  # a driver may not let it go
                    child.wait(ENDING)
        for entry in journal.unfinished():
            journal.end(entry.key, error=why)
        entries = journal.entries()
        if len(entries) == known or not any(each.result for each in entries.values()):
            print(f"nothing runs here: see {folder / 'log.txt'}", file=sys.stderr)
            return


def _done(bundle: Bundle, journal: Journal, began: float) -> list[str]:
    """The parts that are done, in order. Those for which an earlier run had no time are not."""
    entries = journal.entries()
    late = {key for key, each in entries.items() if each.error == NO_TIME and each.began < began}
    return [key for key in keys(bundle.tables) if key in entries and key not in late]


def _watched(child: subprocess.Popen[bytes], journal: Journal, until: float) -> str:
    """Waits for a child, or ends it when it hangs; why it ended."""
    started = time.time()
    while child.poll() is None:
        time.sleep(POLL)
        running = journal.unfinished()
        if running:
            late = time.time() > running[0].began + LIMIT[running[0].step]
        else:
            last = max((each.ended or 0 for each in journal.entries().values()), default=0)
            late = time.time() > max(started, last) + STARTING
        if late or time.time() > until:
            return "it took too long"
    return f"the process ended with {child.returncode}"


def work(bundle: Bundle, folder: Path, began: float, seconds: float) -> int:
    """Does all parts that nobody has begun, while there is time."""
    from card.steps import Worker

    journal = Journal(folder / JOURNAL)
    entries = journal.entries()
    worker = Worker(
        bundle, folder, {key: each.result for key, each in entries.items() if each.result}
    )
    started: dict[str, float] = {}
    for entry in entries.values():
        if entry.began >= began:
            started.setdefault(entry.step, entry.began)
    lost = lost_algorithms(bundle.tables, entries)
    done = {*_done(bundle, journal, began)}
    for key in keys(bundle.tables):
        if key in done:
            continue
        journal.begin(key)
        first = started.setdefault(step_of(key), time.time())
        if time.time() > began + deadline(step_of(key), seconds, first - began):
            journal.end(key, error=NO_TIME)
            continue
        if (algorithm := algorithm_of(bundle.tables, key)) in lost:
            journal.end(key, error=f"{algorithm} has ended {MOST_LOST} processes before")
            continue
        try:
            journal.end(key, result=worker.run(key))
        except Exception as error:  # one part that fails must not stop the others
            traceback.print_exc()
            said = f"{type(error).__name__}: {error}"[:500]
            if not _answers(worker):
                journal.end(key, error=f"the process ended, as its device answers no more: {said}")
                return BROKEN
            journal.end(key, error=said)
    return 0


def lost_algorithms(tables: Tables, entries: Mapping[str, Entry]) -> set[str]:
    """The algorithms whose kernels have ended too many processes when they were checked."""
    fatal = (key for key, entry in entries.items() if (entry.error or "").startswith(LOST))
    counts = Counter(algorithm for key in fatal if (algorithm := algorithm_of(tables, key)))
    return {algorithm for algorithm, count in counts.items() if count >= MOST_LOST}


def algorithm_of(tables: Tables, key: str) -> str | None:
    """The algorithm, in its format, of the kernel that a part checks; None where it checks none."""
    step, _, kernel = key.removeprefix("others:").partition(":")
    if step != "check":
        return None
    row = tables.kernels[kernel]
    return f"{row.algorithm} on {row.arguments[0].dtype}"


def _answers(worker: Worker) -> bool:
    """Whether the device still works."""
    try:
        worker.device.release()
        worker.device.wait()
    except Exception:  # whatever it is, another process has to go on
        return False
    return True
