"""What can be wrong with a tuning database, or with what is asked of `vggc tune`."""

from __future__ import annotations

from vggc.support.diagnostics import Diagnostic


class BadDatabase(Diagnostic):
    title = "{path} is damaged, or no file of a tuning database"
    label = "{reason}"
    help = "{hint}"
    path: str
    reason: str
    hint: str


class NoDatabase(Diagnostic):
    title = "there is no tuning database in {path}"
    label = "nothing was ever measured into it"
    help = "`vggc tune SPEC --db {path}` makes one"
    path: str


class DatabaseFull(Diagnostic):
    title = "{path} has no room for another measurement"
    label = "what is larger than {limit} MiB is not read"
    help = "what was measured is kept; tune into another folder with --db, or remove this one"
    path: str
    limit: int


class NoHome(Diagnostic):
    title = "there is no folder for the tuning database"
    label = "it belongs into the home folder, and nobody is at home"
    help = "give one with --db DIR, or set HOME or XDG_CACHE_HOME"


class DatabaseInUse(Diagnostic):
    title = "another `vggc tune` is at work on the database {path}"
    label = "two would overwrite each other's records"
    help = "wait for it, or give this one a folder of its own with --db"
    path: str


class NoCard(Diagnostic):
    title = "{where} has no NVIDIA GPU to measure on"
    label = "{reason}"
    help = "{hint}"
    where: str
    reason: str
    hint: str


class OtherCard(Diagnostic):
    title = "the servers have different cards: {found}, and {wanted}"
    label = "a record is of one card"
    help = "servers with different cards need keys of their own"
    found: str
    wanted: str


class CardNotMeant(Diagnostic):
    title = "the card to measure on is {found}, and `{target}` means {archs}"
    label = "kernels are compiled for the architecture of the card, and its records count for it"
    help = "`--target cuda` is whatever card is there; --rpc measures on another one"
    found: str
    target: str
    archs: str


class CannotMeasureHere(Diagnostic):
    title = "code for `{target}` cannot be measured on this machine"
    label = "{reason}"
    help = "--rpc HOST:PORT --key KEY measures on machines that register with a tracker of TVM's"
    target: str
    reason: str


class BadAddress(Diagnostic):
    title = "`{address}` is no address of a tracker"
    label = "{reason}"
    help = "{hint}"
    address: str
    reason: str
    hint: str


class NoTracker(Diagnostic):
    title = "no tracker answers at {address}"
    label = "{reason}"
    help = "`python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190` starts one there"
    address: str
    reason: str


class NoServer(Diagnostic):
    title = "the tracker {address} has no server with the key `{key}`"
    label = "{reason}"
    help = (
        "`python -m tvm.exec.rpc_server --tracker={address} --key={key}`, on the machine that is"
        " to be measured, starts one"
    )
    address: str
    key: str
    reason: str


class OtherCpu(Diagnostic):
    title = "a server is a {found}, and what is measured counts for a {wanted}"
    label = "a record is of one CPU"
    help = (
        "with --target cpu, --mcpu NAME says what CPU it counts for; servers of different CPUs"
        " need keys of their own"
    )
    found: str
    wanted: str


class TooManyThreads(Diagnostic):
    title = "this machine runs no kernel on {wanted} threads"
    label = "it has {found} processors, and TVM starts no more threads than that"
    help = "give --threads {found} or fewer, or measure on a larger machine with --rpc"
    found: int
    wanted: int


class OtherThreads(Diagnostic):
    title = "a server runs kernels on {found} threads, and {wanted} are asked for"
    label = "a record is of one number of threads"
    help = "start it with TVM_NUM_THREADS={wanted}, or give --threads {found}"
    found: int
    wanted: int


class OnlyOneOf(Diagnostic):
    title = "`{one}` and `{other}` go together"
    label = "only one of them was given"
    help = "give both, or none"
    one: str
    other: str
