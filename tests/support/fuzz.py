"""Specs that nobody would write: mutated, spliced, random; and those meant to blow up.

Run as a program it checks them all in one process and prints what happened as JSON:
`python -m tests.support.fuzz 10000 --hostile`. Anything but a net or a diagnostic ends it with a
traceback, and so does a mutation that takes a second, or a hostile file that takes five:
those are half as large as files may be, and need about one on a machine that is idle. Times are
of the processor, so that other programs hardly count.
"""

from __future__ import annotations

import json
import random
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from time import process_time
from types import FrameType

from vggc.program import Program
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import MAX_FILE_BYTES, parse

ROOT = Path(__file__).parents[2]
SEEDS = [
    path.read_text("utf-8")
    for folder in ("zoo", "tests/diagnostics")
    for path in sorted((ROOT / folder).glob("*.vgg"))
    if path.stat().st_size < 5000
]
TOKENS = """
net input from let every set after before insert replace with remove head train test round
conv3-64 conv pool avgpool3 gap fc-10 fc softmax relu dropout lrn concat add skip boxes bn
conv1x7-8 deconv4-8 stochasticpool3x2 pad upsample2x1 shuffle groupnorm layernorm softmax2d scale
mul clip mish padding=0x1x1x0 dilation=2x1 border=wrap groups=2 init=normal std=0.1 bias=0.1 lr=2
vgg16 resnet18 googlenet a x: @x @conv1_1 conv1_1 conv1_1..fc6 ( ) | , { } = : ; @ × ×2 x2 *3 ×n
×99999999 + - * / 1 0 -1 0.5 1e9 1e999 5% 7px 3x8x8 0x0x0 1..2 2..1 stride=2 act=none width=0.5
classes=10 (classes=7) (width=99) norm=batch batch=5 sgd lr=0.1 lr= scale 256..512 flip
# é \U0001f600
""".split()  # noqa: SIM905
WORDS = [word for seed in SEEDS for word in seed.split()]


def mutated(draw: random.Random) -> str:
    """One of the seeds with a few accidents, or no more than tokens."""
    if draw.random() < 0.1:
        return " ".join(draw.choices([*TOKENS, "\n"], k=draw.randint(1, 60)))
    text = draw.choice(SEEDS)
    for _ in range(draw.randint(1, 3)):
        at, end = sorted(draw.choices(range(len(text) + 1), k=2))
        end = min(end, at + draw.randint(0, 40))
        word = draw.choice(draw.choice([TOKENS, WORDS]))
        match draw.randrange(10):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = f"{text[:at]} {word} {text[at:]}"
            case 2:
                text = text[:end] + text[at:]
            case 3:
                other = draw.choice(SEEDS)
                start = draw.randrange(len(other) + 1)
                text = text[:at] + other[start : start + draw.randint(1, 80)] + text[end:]
            case 4:
                lines = text.split("\n")
                draw.shuffle(lines)
                text = "\n".join(lines)
            case 5:
                text = text[:at] + chr(draw.choice([0, 9, 32, 0x85, 0x663, 0x2028])) + text[end:]
            case 6:
                text = re.sub(r"[0-9]+", str(draw.choice([0, 1, 2, 7, 100, 10**9])), text, count=3)
            case _:
                words = [*re.finditer(r"[^\s|(){},]+", text)] or [re.compile("").match("")]
                old = draw.choice(words)
                assert old is not None
                text = text[: old.start()] + word + text[old.end() :]
    return text


def hostile() -> Iterator[tuple[str, str]]:
    """Specs that are made to take time or memory, each half as large as a file may be or of as many
    layers as a net may have.
    """
    full = MAX_FILE_BYTES // 2
    head = "net a\ninput 3x8x8\n"

    def repeated(piece: str) -> str:
        return piece * (full // len(piece.encode()))

    yield "repeat", f"{head}conv3-8 ×1000000"
    yield "most layers", f"{head}conv3-8 ×49999"
    yield "nested repeats", f"{head}{'(' * 49}conv3-8{') ×9' * 49}"
    yield "nested joins", f"{head}{'add(skip, ' * 49}conv3-3{')' * 49}"
    yield "repeated joins", f"{head}({'add(skip, ' * 20}conv3-3{')' * 20}) ×3000"
    yield "wide join", f"{head}add({repeated('skip, ')}skip)"
    yield "wide misfit", f"{head}concat({'pool, ' * 40000}skip)"
    yield "brackets", head + repeated("(")
    yield "bars", head + repeated("|")
    yield "one word", head + repeated("a")
    yield "a word and more", head + repeated("a") + "!"
    yield "digits", f"{head}conv{repeated('1')}-8"
    yield "fraction", f"{head}lrn alpha=0.{repeated('1')}"
    yield "dots", f"{head}lrn alpha={repeated('1.')}"
    yield "spaces", f"{head}a{repeated(' ')}b"
    yield "comments", f"{head}conv3-8\n{repeated(chr(35) + chr(10))}"
    yield "blocks and comments", f"{head}conv3-8\n" + "a{}\n" * 50000 + "#\n" * 300000
    yield "blocks", f"{head}conv3-8\n{repeated('a{} ')}"
    yield "settings", f"{head}conv3-8\ntrain {{ {repeated('btch 3;')} }}"
    yield "options", f"{head}conv3-8 {repeated('a=1 ')}"
    yield "unknown layers", f"{head}conv3-8 {repeated('| cnv3-8 ')}"
    yield "unknown names", f"{head}conv3-8 {repeated('| @abc ')}"
    yield "names", head + " | ".join(f"n{i}: relu" for i in range(45000))
    yield (
        "names not known",
        head + " | ".join(f"n{i}: relu" for i in range(45000)) + (" | add(@x, skip)"),
    )
    yield "same name", head + repeated("a: relu | ") + "relu"
    yield "long name", f"{head}{'a' * (full // 2)}: add(conv1-3 ×40000, skip)"
    yield "references", head + "a: relu | " + " | ".join(["add(@a, skip)"] * 16000)
    yield "heads", f"{head}relu\n" + "\n".join(f"head h{i}: fc-2" for i in range(20000))
    yield "terms", f"{head}let n = {repeated('1+')}1\nconv3-n"
    yield "rounds", f"{head}let n = {'round(' * 40}1{')' * 40}\nconv3-n"
    yield (
        "squares",
        head
        + "let a0 = 10\n"
        + "".join(f"let a{i} = a{i - 1} * a{i - 1}\n" for i in range(1, 2000))
        + "conv3-a1999",
    )
    yield "constants", head + "".join(f"let a{i} = {i}\n" for i in range(40000)) + "conv3-a7"
    yield "parameters", f"net a({', '.join(f'a{i}={i}' for i in range(40000))})\ninput 3x8x8\nrelu"
    yield "arguments", f"net a from vgg16({', '.join(f'a{i}={i}' for i in range(40000))})"
    yield "edits", "net a from vgg16\n" + repeated("remove every dropout\n")
    yield "many edits", "net a from vgg16\n" + "after conv1_1 insert lrn\n" * 3000
    yield "growing edits", "net a from vgg16\n" + "replace every relu with relu | relu\n" * 40
    yield (
        "edits of many",
        ("net a from vgg16\nreplace conv1_1 with conv3-8 ×45000\n" + "set conv1_1 act=none\n" * 9),
    )
    yield "doubling", "net a from vgg16\n" + "replace every conv with conv3-8 | conv3-8\n" * 40
    yield "every", head + repeated("every conv act=none ") + "conv3-8"
    yield "list of sizes", f"{head}conv3-8\ntest {{ scales {repeated('8,')}8 }}"
    yield (
        "list of layers",
        (f"{head}conv3-8 ×40000\ntrain {{ freeze {'conv1_1..conv1_39999,' * 900}conv1_1 }}"),
    )
    yield "doubling channels", f"{head}concat(skip, skip) ×15000 | gap"
    yield "strides", f"{head}conv31-1 padding=0 | pool | conv1-1 stride=1024 ×1500 | fc-10"
    yield (
        "deepening edits",
        ("net a from tiny_vgg\n" + f"replace every conv with {'(' * 40}conv3-8{')' * 40}\n" * 8),
    )
    yield (
        "deepening joins",
        "net a from tiny_vgg\n" + ("replace every conv with add(conv3-3, skip)\n" * 60),
    )
    yield (
        "many heads",
        f"{head}{'relu | ' * 8000}relu\n" + "".join(f"head h{i}: @relu8000\n" for i in range(2000)),
    )
    yield "large net", "net a\ninput 3x16384x16384\nconv1023-1048576 ×100 | fc-1048576"


MUTATION, HOSTILE = 5, 30
"""Seconds of a processor after which a spec hangs; they take at most 1 and 7 on a slow one."""


class Hangs(Exception):
    """A spec took too long."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Hangs


def outcome(text: str, limit: float, *, again: bool) -> str:
    """`net`, or the kind of the first mistake. What a net is written as reads back as that net,
    where it is read `again`.

    Raises: Hangs.
    """
    try:
        program = within(limit, text)
    except UserError as error:
        _ = str(error)
        return type(error.diagnostics[0]).__name__
    for plain in (program.net, program.resolved) if again else ():
        same = Program(parse(Source("fuzz.vgg", format_net(plain))))
        same.check()
        assert same.report().rows == program.report().rows
    return "net"


def within(limit: float, text: str) -> Program:
    """The program of a text, its cost and all its ways of being written, in so many seconds.

    Raises: Hangs, or UserError.
    """
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        net = parse(Source("fuzz.vgg", text))
        format_net(net)
        program = Program(net)
        program.check()
        program.report()
        parse(Source("resolved", format_net(program.resolved)))
        return program
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def main(count: int, specs: Iterable[tuple[str, str]]) -> None:
    signal.signal(signal.SIGVTALRM, _stop)
    draw = random.Random(0)
    outcome(SEEDS[0], limit=60, again=True)  # the grammar and the modules are read once
    seen: dict[str, int] = {}
    slowest = ("", 0.0)
    mutations = ((f"mutation {n}", mutated(draw)) for n in range(count))
    for name, text in chain(specs, mutations):
        start = process_time()
        try:
            small = name.startswith("mutation")
            kind = outcome(text, limit=MUTATION if small else HOSTILE, again=small)
        except Exception as error:
            print(f"{name}: {type(error).__name__} on\n{text[:2000]}", file=sys.stderr)
            raise
        seen[kind] = seen.get(kind, 0) + 1
        slowest = max(slowest, (name, process_time() - start), key=lambda found: found[1])
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1e3
    print(json.dumps({"slowest": slowest, "peak_mb": peak, "outcomes": seen}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]), hostile() if "--hostile" in sys.argv else ())
