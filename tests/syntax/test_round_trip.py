"""What a net is written as reads back as the same net, whatever it was built from.

Run folders, artifacts and `vggc check --resolved` hold the text of a plain net, and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from vggc.program import Program
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.ast import Net
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse, parse_arguments


def assert_same_again(program: Program) -> None:
    """The texts of a sound net, plain and with everything filled in, describe the same net."""
    assert_same(program, program.net)
    assert_same(program, program.resolved)


def assert_same(program: Program, net: Net) -> None:
    text = format_net(net)
    again = Program(parse(Source("again.vgg", text)), find=program.find)
    try:
        again.check()
    except UserError as error:
        raise AssertionError(f"{error}\nin\n{text}") from None
    assert described(again) == described(program), text
    crop = program.graph.input[1:]
    assert replace(again.recipe, crop=crop) == replace(program.recipe, crop=crop), text
    assert again.protocol == program.protocol, text
    assert format_net(again.written) == text


def described(program: Program) -> object:
    graph = program.graph
    nodes = [
        (n.name, n.op, n.inputs, n.shape, n.layer.name, n.layer.kind, n.layer.text, n.layer.path)
        for n in graph.nodes
    ]
    return graph.name, nodes, graph.heads


def built(texts: Sequence[str], arguments: str = "") -> Program:
    """The last of these nets, `n0`, `n1` and so on, each built on those before it."""
    sources = {f"n{i}": Source(f"n{i}.vgg", text) for i, text in enumerate(texts)}
    last = parse(sources[f"n{len(texts) - 1}"])
    given = parse_arguments(Source("arguments", arguments)) if arguments else ()
    return Program(last, given, find=lambda name, _: sources.get(name))


# ---------------------------------------------------------------- drawn nets

NAMES = ("a", "b", "x2", "offs", "outputs", "let", "head", "every-one", "conv1_9", "relu")
VALUES = {
    "conv": {
        "act": ("relu", "leaky", "prelu", "mish", "none", "kind"),
        "slope": ("0.3", "share"),
        "norm": ("batch", "layer", "none"),
        "eps": ("1e-3",),
        "bias": ("on", "off", "0.1"),
        "init": ("he", "normal"),
        "std": ("0.05",),
        "lr": ("2", "deep"),
        "stride": ("1", "2", "2x1"),
        "padding": ("0", "1", "0x1", "1x0x0x2"),
        "dilation": ("2", "1x2"),
        "border": ("zeros", "edge"),
        "groups": ("1", "2"),
        "width": ("4", "6", "wide"),
        "size": ("1", "3", "2x3"),
    },
    "fc": {
        "act": ("tanh", "leaky", "none"),
        "slope": ("0.5",),
        "norm": ("batch", "none"),
        "bias": ("off",),
        "width": ("6", "wide"),
    },
    "pool": {
        "stride": ("1", "2"),
        "padding": ("1", "0x1"),
        "round": ("up", "down"),
        "size": ("2", "3", "3x2"),
    },
    "deconv": {
        "act": ("hardswish", "none"),
        "norm": ("layer", "none"),
        "stride": ("2", "1x2"),
        "padding": ("0", "1x0x0x1"),
        "groups": ("2",),
        "width": ("4", "wide"),
        "lr": ("0.5", "share"),
    },
    "avgpool": {"stride": ("1",), "padding": ("1", "0x0x1x1"), "border": ("zeros", "ignore")},
    "stochasticpool": {"stride": ("1", "2x1"), "padding": ("1",), "round": ("up",)},
    "pad": {"padding": ("1", "0x1x2x0"), "border": ("edge", "wrap", "reflect")},
    "upsample": {"mode": ("bilinear", "nearest"), "size": ("2", "1x2")},
    "shuffle": {"groups": ("2", "deep")},
    "take": {"part": ("1", "deep"), "of": ("2",), "channels": ("0..1", "1")},
    "groupnorm": {"groups": ("1", "2"), "eps": ("0.01",)},
    "layernorm": {"eps": ("0.01", "share"), "lr": ("3",)},
    "scale": {"start": ("1e-6", "share", "-2"), "bias": ("off", "0.5")},
    "clip": {"min": ("-1", "share"), "max": ("6", "wide")},
    "dropout": {"p": ("10%", "0.25", "share")},
    "lrn": {"size": ("3",), "alpha": ("0.01", "1e-5"), "k": ("1",)},
    "batchnorm": {"eps": ("0.001",)},
    "leaky": {"slope": ("0.2", "share")},
}
WORDS = {
    "conv": ("conv3-4", "conv1-4", "conv-4", "conv3", "conv3-6", "conv", "conv3-wide", "conv1×3-4"),
    "fc": ("fc-6", "fc-wide", "fc"),
    "pool": ("pool", "pool3", "maxpool2", "pool3x2"),
    "deconv": ("deconv4-4 stride=2", "deconv3-4", "deconv2×3-6 stride=2"),
    "avgpool": ("avgpool3", "avgpool1x2 border=zeros"),
    "stochasticpool": ("stochasticpool", "stochasticpool3x2 stride=2"),
    "pad": ("pad padding=1", "pad padding=0x1"),
    "upsample": ("upsample", "upsample2x1"),
    "shuffle": ("shuffle", "shuffle groups=2"),
    "take": ("take part=1", "take part=2 of=2", "take channels=0..1", "take channels=0"),
    "groupnorm": ("groupnorm groups=2", "groupnorm groups=1"),
    "layernorm": ("layernorm",),
    "scale": ("scale", "scale start=0.1 bias=off"),
    "clip": ("clip min=0 max=6", "clip max=wide"),
    "dropout": ("dropout",),
    "lrn": ("lrn", "lrn3"),
    "batchnorm": ("bn", "batchnorm"),
    "leaky": ("leaky", "lrelu"),
}
WHERE = {**{kind: kind for kind in WORDS}, "pool": "maxpool"}
SELECTORS = (
    *("conv", "conv3", "conv3-4", "conv-wide", "conv1x3", "pool", "pool2x2", "fc", "bn"),
    *("deconv", "deconv2×3", "upsample2x1", "shuffle", "stochasticpool3x2"),
)
BLOCKS = (
    "train {\n  batch 8  # small\n  sgd lr=0.1 momentum=0.8\n}",
    "train { plateau factor=10%; freeze {name} }",
    "train { cosine warm-up=share; scale 20..24; init he }",
    "train { epochs deep; init normal }",
    "test { crops grid=3x3; scales 20,24 }",
    "test { dense; flip off }",
)
CONSTANTS = {"wide": "let wide = 2 * 2", "deep": "let deep = 2", "share": "let share = 1 / 5"}


@dataclass
class Drawer:
    """Draws nets built on one another, statement by statement: what is sound is kept."""

    draw: random.Random
    done: list[str] = field(default_factory=list)

    def tower(self, levels: int) -> Program:
        """A net with `levels` bases below it."""
        for level in range(levels + 1):
            if level == 0:
                first = self.sound("net n0\ninput 3x16x16", [], [self.chain(2) for _ in range(99)])
                self.grow("net n0\ninput 3x16x16", self.every, f"{first}\n")
            else:
                given = self.draw.choice(["", "", "(width=0.5)", "(width=1.6)", "(classes=7)"])
                head = f"net n{level} from n{level - 1}{given}"
                if not self.is_sound(self.text(head, [], "")):
                    head = f"net n{level} from n{level - 1}"
                self.grow(head, self.statement, "")
        return built(self.done)

    def sound(self, head: str, statements: list[str], bodies: list[str]) -> str:
        return next(body for body in bodies if self.is_sound(self.text(head, statements, body)))

    def grow(self, head: str, statement: object, body: str) -> None:
        """Adds a net with as many statements, heads and blocks as go with it."""
        before: list[str] = []
        after: list[str] = []
        for _ in range(self.draw.randint(0, 6)):
            new = statement()  # type: ignore[operator]
            if self.is_sound(self.text(head, [*before, new], body)):
                before.append(new)
        for new in (self.head(), self.draw.choice(BLOCKS), self.draw.choice(BLOCKS)):
            if self.draw.random() < 0.5:
                new = new.replace("{name}", self.name(self.text(head, before, body)))
                if self.is_sound(self.text(head, before, "\n".join([body, *after, new]))):
                    after.append(new)
        self.done.append(self.text(head, before, "\n".join([body, *after])))

    def text(self, head: str, statements: list[str], body: str) -> str:
        rest = "\n".join([*statements, body])
        lets = [let for name, let in CONSTANTS.items() if name in rest]
        return "\n".join(["# why", head, *lets, rest, ""])

    def is_sound(self, text: str) -> bool:
        try:
            built([*self.done, text]).check()
        except UserError:
            return False
        return True

    def name(self, text: str) -> str:
        """The name of a layer of a net; of the one before, where the text is of no sound net."""
        layers = [node.layer.name for node in built([*self.done, text]).graph.nodes[1:]]
        return self.draw.choice(layers)

    def options(self, kind: str, least: int = 0, said: str = "") -> str:
        known = [key for key in VALUES[kind] if f"{key}=" not in said]
        keys = self.draw.sample(known, k=min(len(known), least or 1))
        keys = keys if least or self.draw.random() < 0.4 else []
        return "".join(f" {key}={self.draw.choice(VALUES[kind][key])}" for key in keys)

    def layer(self, kinds: Sequence[str] = (*WORDS,)) -> str:
        kind = self.draw.choice(kinds)
        name = f"{self.draw.choice(NAMES)}: " if self.draw.random() < 0.15 else ""
        comment = "  # so\n" if self.draw.random() < 0.1 else ""
        word = self.draw.choice(WORDS[kind])
        return f"{name}{word}{self.options(kind, said=word)}{comment}"

    def path(self, depth: int) -> str:
        """Layers that keep maps maps."""
        kinds = tuple(kind for kind in WORDS if kind != "fc")
        match self.draw.randrange(10) if depth else 0:
            case 1 | 2 | 3:
                return f"{self.path(depth - 1)} | {self.path(depth - 1)}"
            case 4:
                times = self.draw.choice(["×2", "x3", "×deep", "×1"])
                return f"({self.path(depth - 1)}) {times}"
            case 5:
                return f"concat({self.path(depth - 1)}, {self.draw.choice(['skip', '@input'])})"
            case 6:
                return f"add({self.path(depth - 1)} | conv1-4, conv1-4 act=none)"
            case 7:
                return f"mul(skip, {self.path(depth - 1)} | conv1-4 | gap, conv1-4)"
            case 8 | 9:
                return f"{self.layer(('conv',))} x2"
            case _:
                return self.layer(kinds)

    def chain(self, depth: int) -> str:
        ends = (f"gap | {self.layer(('fc',))}", "gap | fc-6 ×2 | fc-10 | softmax")
        ends = (*ends, f"gap | fc-8 | {self.layer(('fc',))} | softmax", "conv1-9 | gap | softmax")
        return f"{self.path(depth)} | {self.path(depth)} | {self.draw.choice(ends)}"

    def head(self) -> str:
        start = self.draw.choice(["@input | gap", "@{name} | gap", "@{name}", "gap"])
        end = self.draw.choice(["fc-3 | softmax", "fc-4 | fc-3", "boxes", self.layer(("fc",))])
        return f"head {self.draw.choice(('h', 'x2', 'outputs'))}: {start} | {end}"

    def every(self) -> str:
        kind = self.draw.choice([*VALUES])
        return f"every {WHERE[kind]}{self.options(kind, self.draw.randint(1, 3))}"

    def statement(self) -> str:
        if self.draw.random() < 0.35:
            return self.every()
        name = self.name(f"net n{len(self.done)} from n{len(self.done) - 1}")
        which = self.draw.choice([name, name, f"every {self.draw.choice(SELECTORS)}"])
        kind = self.draw.choice([*VALUES])
        edits = (
            f"set {which}{self.options(kind, self.draw.randint(1, 2))}",
            f"set {which}{self.options('conv', self.draw.randint(1, 2))}",
            f"after {which} insert {self.path(1)}",
            f"before {which} insert {self.path(1)}",
            f"replace {which} with {self.path(1)}",
            f"replace {which} with {self.layer(('fc',))}",
            f"remove {which}",
        )
        return self.draw.choice(edits)


def assert_drawn(seed: int) -> None:
    drawer = Drawer(random.Random(seed))
    try:
        assert_same_again(drawer.tower(levels=seed % 4))
    except AssertionError as error:
        error.add_note("\n\n".join(drawer.done))
        raise


def test_nets_built_on_one_another_read_back_as_the_same() -> None:
    for seed in range(12):
        assert_drawn(seed)


@pytest.mark.slow
def test_a_hundred_and_fifty_of_them_do() -> None:
    for seed in range(12, 150):
        assert_drawn(seed)


def test_joins_in_one_another_are_written_in_no_time() -> None:
    text = "conv3-4"
    for _ in range(40):
        text = f"add(\n{text},\nskip\n)"
    whole = format_net(parse(Source("deep.vgg", f"net deep input 4x8x8\n{text}\n")))
    assert format_net(parse(Source("deep.vgg", whole))) == whole
