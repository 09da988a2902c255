"""Runs a bundle: `python run.py --out FOLDER`, on a machine with a card, torch and nothing else.

The parts of the run are done by a child process, in order, and each is written to
`FOLDER/journal.jsonl` before the next begins. A child that dies or hangs is replaced by another
one, which goes on behind the part that it died of. A step that has used up its time is left.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from card.journal import NO_TIME, Journal, step_of
from card.parts import BUDGET, LIMIT, keys
from card.report import write_report
from card.tables import Bundle

if TYPE_CHECKING:
    from card.steps import Worker

JOURNAL = "journal.jsonl"
SECONDS = 580.0
"""The time of the whole run."""
STARTING = 120.0
"""The seconds that a child may take to begin: torch is some gigabytes on a cold disk."""
POLL = 0.1
BROKEN = 3
"""The exit code of a child whose device does not answer any more."""


def main(bundle: Path, arguments: list[str] | None = None) -> None:
    """The command line of a bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="a folder for results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole run")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    found = Bundle(bundle)
    journal = Journal(asked.out / JOURNAL)
    if asked.one:
        from card.steps import Worker

        Worker(found, asked.out, {}).one(asked.one)
    elif asked.until:
        sys.exit(work(found, asked.out, asked.until))
    else:
        asked.out.mkdir(parents=True, exist_ok=True)
        supervise(found, asked.out, time.time() + asked.seconds)
        print(write_report(found, journal, asked.out))


def supervise(bundle: Bundle, folder: Path, until: float) -> None:
    """Has children do all parts that are not done, one child after another."""
    journal = Journal(folder / JOURNAL)
    while time.time() < until and _waiting(bundle, journal):
        command = [sys.executable, str(bundle.folder / "run.py"), "--out", str(folder)]
        known = len(journal.entries())
        with open(folder / "log.txt", "a", encoding="utf-8") as log:
            child = subprocess.Popen([*command, "--until", str(until)], stdout=log, stderr=log)
            why = _watched(child, journal, until)
        for entry in journal.unfinished():
            journal.end(entry.key, error=why)
        entries = journal.entries()
        if len(entries) == known or entries["machine"].result is None:
            print(f"nothing runs here: see {folder / 'log.txt'}", file=sys.stderr)
            return


def _waiting(bundle: Bundle, journal: Journal) -> bool:
    done = journal.entries()
    return any(key not in done for key in keys(bundle.tables))


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
            child.kill()
            child.wait()
            return "it took too long"
    return f"the process ended with {child.returncode}"


def work(bundle: Bundle, folder: Path, until: float) -> int:
    """Does all parts that nobody has begun, while there is time."""
    from card.steps import Worker

    journal = Journal(folder / JOURNAL)
    entries = journal.entries()
    worker = Worker(
        bundle, folder, {key: each.result for key, each in entries.items() if each.result}
    )
    used = dict.fromkeys(BUDGET, 0.0)
    for entry in entries.values():
        used[entry.step] += entry.seconds
    for key in keys(bundle.tables):
        step = step_of(key)
        if key in entries:
            continue
        journal.begin(key)
        if used[step] > BUDGET[step] or time.time() > until:
            journal.end(key, error=NO_TIME)
            continue
        started = time.time()
        try:
            journal.end(key, result=worker.run(key))
        except Exception as error:  # one part that fails must not stop the others
            traceback.print_exc()
            journal.end(key, error=f"{type(error).__name__}: {error}"[:500])
            if not _answers(worker):
                return BROKEN
        used[step] += time.time() - started
    return 0


def _answers(worker: Worker) -> bool:
    """Whether the device still works."""
    try:
        worker.device.release()
        worker.device.wait()
    except Exception:  # whatever it is, another process has to go on
        return False
    return True
