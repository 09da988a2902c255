"""Items as the text of a net, as a person would have written it: repeats, defaults, rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vggc.importing.items import ForeignItem, ForeignItems, OptionValue
from vggc.importing.outline import Chain, Leaf, Mention, NetOutline
from vggc.layers.elaborate import layers_of
from vggc.layers.kinds import ACTS, BY_WORD, SLOPES
from vggc.layers.names import LayerNames
from vggc.support.source import Source, Span
from vggc.syntax import ast
from vggc.syntax.format import format_net

Options = dict[str, str]

SHARED = ("norm", "eps", "bias", "act", "slope", "p", "alpha", "beta", "k")
"""The options that `every` may say of all layers of a kind."""
SHARED_BY_POOLS = ("size", "stride", "padding", "round")
"""The options that `every` may say of pools besides."""
LEAST_SHARED = 3
"""Layers for which it is worth a line."""
LONGEST_ROW = 88
"""Characters of a row of layers."""
LONGEST_LINE = 98
"""Characters of a join or a group on one line."""
LONGEST_PERIOD = 40
"""Layers of the longest group that is looked for as a repeat."""
SHORT = 40
"""Characters of a join or a group that may stand beside others in a row."""
MANY_ROWS = 3
"""Equal rows that end in a pool and become a group."""
POOLS = ("pool", "avgpool", "stochasticpool")
BEGINNERS = ("conv", "deconv", "fc", "add", "concat", "mul", "batchnorm", "layernorm", "groupnorm")
"""What a group that is repeated may begin with."""
NOWHERE = Span(Source("", ""), 0, 0)


@dataclass(frozen=True)
class NetText:
    """The text of a net, and its items in the order in which their layers stand in it. `heads` are
    the names of its heads by the places of the original's outputs.
    """

    text: str
    order: tuple[int, ...]
    heads: dict[int, str]


def net_text(net: ForeignItems, plan: NetOutline, name: str, comments: Sequence[str]) -> NetText:
    """The text of a net that is called `name`, these lines of comment above it."""
    heads = _head_names(net, plan)
    order = [index for chain in (plan.main, *(c for _, c in plan.heads)) for index in _order(chain)]
    names = {0: "input"} | _layer_names(net, plan, heads)
    writer = _TreeMaker(net, names)
    bare = writer.tree(plan, heads, name)
    linear = {id(layer) for layer, is_linear in layers_of(bare) if is_linear}
    outputs = {writer.items[each] for each in linear if each in writer.items}
    said = {index: _said(net.items[index], index in outputs) for index in order}
    shared = _shared(net, said, outputs)
    left = {index: _left(net, said, shared, outputs, index) for index in said}
    writer = _TreeMaker(net, names, left)
    tree = writer.tree(plan, heads, name)
    trivia = ast.Trivia(above=tuple(comments))
    statements = tuple(
        ast.Every(kind=kind, options=_options(options), span=NOWHERE)
        for kind, options in shared.items()
    )
    whole = replace(
        tree,
        statements=statements,
        trivia=trivia,
        body=_laid_out(_repeated(tree.body)),
        heads=tuple(replace(head, body=_repeated(head.body)) for head in tree.heads),
    )
    return NetText(format_net(whole), tuple(order), heads)


def _order(chain: Chain) -> Iterator[int]:
    """The items of a chain as their layers are counted: a join behind its paths."""
    for piece in chain:
        if isinstance(piece, Leaf):
            for path in piece.paths:
                yield from _order(path)
            yield piece.item


# ---------------------------------------------------------------- names


def identifier(text: str, most: int) -> str:
    """A foreign name as one of ours: letters, digits and `_`, a letter first."""
    found = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:most].strip("_")
    return found if re.match(r"[A-Za-z]", found) else f"n{found}"


def _head_names(net: ForeignItems, plan: NetOutline) -> dict[int, str]:
    found: dict[int, str] = {}
    for place, _ in plan.heads:
        name = identifier(net.outputs[place].name, 40)
        while name in found.values() or name in ("input", "output", "on", "off", "every"):
            name = f"{name}_{place}"
        found[place] = name
    return found


def _layer_names(net: ForeignItems, plan: NetOutline, heads: dict[int, str]) -> dict[int, str]:
    """For each item that is mentioned elsewhere the name that it would have by counting."""
    counted: dict[int, str] = {}
    names = LayerNames()

    def walk(chain: Chain) -> None:
        for piece in chain:
            if isinstance(piece, Leaf):
                word = net.items[piece.item].word
                kind = BY_WORD.get(word)
                bare = ast.Layer(word=word, span=NOWHERE)
                own = names.take(bare, kind) if kind else f"layer{piece.item}"
                counted[piece.item] = own
                with names.inside(own):
                    for path in piece.paths:
                        walk(path)

    walk(plan.main)
    for place, chain in plan.heads:
        with names.inside(heads[place]):
            walk(chain)
    return {item: name for item, name in counted.items() if item in plan.mentioned}


# ---------------------------------------------------------------- options


def number_text(value: float) -> str:
    """A number as the language's own formatter writes it, as short as float32 allows."""
    short = float(str(np.float32(value))) if abs(value) < 1e30 else value
    whole = int(short) if short.is_integer() and abs(short) < 1e15 else short
    return str(ast.Number(whole, span=NOWHERE))


def option_text(value: OptionValue) -> str:
    """The value of an option as it is written: of four sides and of two axes only what differs."""
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return number_text(value)
        case (top, left, bottom, right) if (top, left) == (bottom, right):
            return option_text((top, left))
        case (rows, columns) if rows == columns:
            return str(rows)
        case tuple():
            return "x".join(map(str, value))
        case _:
            return str(value)


def word_text(item: ForeignItem, said: Options | None = None) -> str:
    """The word of a layer with its numbers: `conv3-64`, `pool3x2`. Of what it says, the size of a
    pool stands there, too.
    """
    size = ""
    if item.word in POOLS and said is not None:
        size = said.get("size", "")
    elif item.size is not None:
        size = option_text(item.size)
    return f"{item.word}{size}" + (f"-{item.width}" if item.width is not None else "")


def default_text(item: ForeignItem, key: str) -> str | None:
    """What an option is where a layer does not say it; None where it must."""
    rows, columns = item.size or (1, 1)
    match item.word, key:
        case (("pool" | "avgpool" | "stochasticpool"), "stride"):
            return option_text((rows, columns))
        case "conv", "padding":
            dilation = item.options["dilation"]
            assert isinstance(dilation, tuple)
            whole = [d * (k - 1) for d, k in zip(dilation, (rows, columns), strict=True)]
            before = [n // 2 for n in whole]
            after = [n - n // 2 for n in whole]
            return option_text((before[0], before[1], after[0], after[1]))
        case "deconv", "padding":
            stride = item.options["stride"]
            assert isinstance(stride, tuple)
            whole = [k - s for k, s in zip((rows, columns), stride, strict=True)]
            before = [-(-n // 2) for n in whole]
            after = [n - -(-n // 2) for n in whole]
            return option_text((before[0], before[1], after[0], after[1]))
        case _, "slope":
            act = str(item.options.get("act", item.word))
            return number_text(SLOPES[act].default)
        case _, "eps":
            is_layer = "layer" in (item.options.get("norm"), item.word.removesuffix("norm"))
            return "1e-6" if is_layer else "1e-5"
        case _:
            return DEFAULTS.get((item.word, key), DEFAULTS.get(("", key)))


DEFAULTS = {
    ("", "stride"): "1",
    ("", "padding"): "0",
    ("", "dilation"): "1",
    ("", "groups"): "1",
    ("", "bias"): "on",
    ("", "norm"): "none",
    ("", "round"): "down",
    ("", "border"): "zeros",
    ("", "p"): "0.5",
    ("", "mode"): "nearest",
    ("avgpool", "border"): "ignore",
    ("groupnorm", "groups"): "32",
    ("lrn", "size"): "5",
    ("lrn", "alpha"): "1e-4",
    ("lrn", "beta"): "0.75",
    ("lrn", "k"): "2",
    ("shuffle", "groups"): "",
}
"""What an option is where a layer does not say it, by its word and key; by the key alone where it
is the same for all words."""


def _said(item: ForeignItem, is_output: bool) -> Options:
    """What a layer must say: options that are no defaults, in the order of the kind's."""
    found: Options = {}
    if item.word in POOLS and item.size != (2, 2):
        assert item.size is not None
        found["size"] = option_text(item.size)
    for key, value in item.options.items():
        text = option_text(value)
        if key == "act":
            if text != ("none" if is_output else "relu"):
                found[key] = text
        elif text != default_text(item, key):
            found[key] = text
    return _in_order(item, found)


def _in_order(item: ForeignItem, options: Options) -> Options:
    """Options in the order of the kind's."""
    kind = BY_WORD.get(item.word)
    known = [*kind.params()] if kind else []
    ranks = {key: known.index(key) if key in known else len(known) for key in options}
    return {key: options[key] for key in sorted(options, key=lambda key: ranks[key])}


def _means_nothing(item: ForeignItem, key: str) -> bool:
    """Whether an option says nothing of this layer, whose other options leave no room for it."""
    if item.word in POOLS and key == "size":
        return False
    return key not in item.options


def _shared(net: ForeignItems, said: dict[int, Options], outputs: set[int]) -> dict[str, Options]:
    """What `every` says of each kind: what most of its layers say, and few say otherwise."""
    shared: dict[str, Options] = {}
    for word in dict.fromkeys(net.items[index].word for index in said):
        layers = [index for index in said if net.items[index].word == word]
        # An eps of all is a mistake where some have no normalisation.
        all_normed = all(net.items[i].options.get("norm") != "none" for i in layers)
        more = SHARED_BY_POOLS if word in POOLS else ("size",) if word == "lrn" else ()
        for key in (*SHARED, *more):
            free = [
                index
                for index in layers
                if not _means_nothing(net.items[index], key)
                and not (index in outputs and key in ("act", "norm"))
            ]
            if key == "eps" and not (all_normed or "norm" in shared.get(word, {})):
                continue
            counts = Counter(said[index].get(key, "") for index in free)
            plain = counts.pop("", 0)
            if not counts:
                continue
            value, count = counts.most_common(1)[0]
            if count >= LEAST_SHARED and count > plain + 1:
                shared.setdefault(word, {})[key] = value
    return shared


def _left(
    net: ForeignItems,
    said: dict[int, Options],
    shared: dict[str, Options],
    outputs: set[int],
    index: int,
) -> Options:
    """What a layer says beside `every`."""
    item, own = net.items[index], dict(said[index])
    for key, value in shared.get(item.word, {}).items():
        bare = index in outputs and key in ("act", "norm")
        if bare or _means_nothing(item, key):
            continue
        if own.get(key) == value:
            del own[key]
        elif key not in own:
            own[key] = option_text(item.options.get(key, item.size or (2, 2)))
    return _in_order(item, own)


def _options(options: Options) -> tuple[ast.Option, ...]:
    return tuple(
        ast.Option(key, ast.Word(text, span=NOWHERE), span=NOWHERE) for key, text in options.items()
    )


# ---------------------------------------------------------------- the tree


@dataclass
class _TreeMaker:
    """Makes the tree of a net; `items` tells of each of its layers the item that it is of."""

    net: ForeignItems
    names: dict[int, str]
    said: dict[int, Options] | None = None

    def __post_init__(self) -> None:
        self.items: dict[int, int] = {}
        self.kept: list[ast.Layer] = []

    def tree(self, plan: NetOutline, heads: dict[int, str], name: str) -> ast.Net:
        """The whole net, every layer by itself."""
        shape = ast.Dims(self.net.items[0].shape, span=NOWHERE)
        return ast.Net(
            name=name,
            input=ast.Setting("input", (shape,), span=NOWHERE),
            body=self.body(plan.main),
            heads=tuple(
                ast.Head(heads[place], self.body(chain), span=NOWHERE)
                for place, chain in plan.heads
            ),
            span=NOWHERE,
        )

    def body(self, chain: Chain) -> ast.Body:
        """A chain; one of no layers is `skip`."""
        if not chain:
            return (ast.Layer(word="skip", span=NOWHERE),)
        return tuple(map(self.piece, chain))

    def piece(self, piece: Leaf | Mention) -> ast.Layer | ast.Reference:
        if isinstance(piece, Mention):
            return ast.Reference(self.names[piece.item], span=NOWHERE)
        item = self.net.items[piece.item]
        said = dict(self.said[piece.item]) if self.said else {}
        word = word_text(item, said)
        if item.word in POOLS:
            said.pop("size", None)
        layer = ast.Layer(
            word=word,
            options=_options(said),
            name=self.names.get(piece.item),
            paths=tuple(map(self.body, piece.paths)),
            span=NOWHERE,
        )
        self.items[id(layer)] = piece.item
        self.kept.append(layer)
        return layer


# ---------------------------------------------------------------- repeats


def _repeated(body: ast.Body) -> ast.Body:
    """A chain with layers and groups that stand several times in a row written once."""
    items = [_inner(item) for item in body]
    counts = _periods(items)
    found: list[ast.Item] = []
    at = 0
    while at < len(items):
        period, count = _period(items, at, counts)
        if count == 1:
            found.append(items[at])
            at += 1
            continue
        group = _repeated(tuple(items[at : at + period]))
        alone = len(group) == 1 and isinstance(group[0], ast.Layer | ast.Group)
        inner = group[0] if alone else ast.Group(group, span=NOWHERE)
        assert isinstance(inner, ast.Layer | ast.Group)
        found.append(ast.Repeat(inner, count, span=NOWHERE))
        at += period * count
    return tuple(found)


def _inner(item: ast.Item) -> ast.Item:
    if isinstance(item, ast.Layer) and item.paths:
        return replace(item, paths=tuple(map(_repeated, item.paths)))
    return item


def _periods(items: Sequence[ast.Item]) -> list[NDArray[np.int64]]:
    """For each length of a group, the shortest first, how often each place's group of so many items
    stands in a row from there on.
    """
    numbers: dict[ast.Item, int] = {}
    same = np.array([numbers.setdefault(item, len(numbers)) for item in items])
    found = []
    for period in range(1, min(LONGEST_PERIOD, len(items) // 2) + 1):
        places = np.arange(len(items))
        other = np.ones(len(items), bool)
        other[:-period] = same[:-period] != same[period:]
        ends = np.where(other, places, len(items))
        row = np.minimum.accumulate(ends[::-1])[::-1] - places
        found.append(1 + row // period)
    return found


def _period(
    items: Sequence[ast.Item], at: int, counts: Sequence[NDArray[np.int64]]
) -> tuple[int, int]:
    """The group that begins here and is repeated most: its length, and how often it stands here.

    The shortest one of those that cover the most layers. What ends a row begins no group, and
    rows of the paper's table are only put together where they are many.
    """
    best = (1, 1)
    pools = False
    for period in range(1, min(LONGEST_PERIOD, (len(items) - at) // 2) + 1):
        last = items[at + period - 1]
        if _is_named(last):
            break
        pools = pools or _last_word(last) in POOLS
        count = int(counts[period - 1][at])
        if period > 1 and (
            _first_word(items[at]) not in BEGINNERS or (pools and count < MANY_ROWS)
        ):
            continue
        if count > 1 and period * count > best[0] * best[1]:
            best = (period, count)
    return best


def _is_named(item: ast.Item) -> bool:
    """Whether a name stands in an item, of which there is one only."""
    match item:
        case ast.Layer(name=name, paths=paths):
            return name is not None or any(_is_named(each) for path in paths for each in path)
        case ast.Reference():
            return True
        case ast.Group(body=body):
            return any(map(_is_named, body))
        case ast.Repeat(item=inner):
            return _is_named(inner)


# ---------------------------------------------------------------- rows


def _laid_out(body: ast.Body) -> ast.Body:
    """The main chain in rows, as the paper's table has them: a row ends behind a pool, a join and
    what activates it, or before a layer that it has no room for.
    """
    rows: list[list[ast.Item]] = [[]]
    length = 0
    for item in map(_spread, body):
        row, text = rows[-1], _length(item)
        is_full = length + text > LONGEST_ROW and _first_word(item) not in ACTS
        if row and (is_full or _ends_row(row, item)):
            rows.append([])
            length = 0
        rows[-1].append(item)
        length += text
    return tuple(item for row in rows if row for item in (_on_row(row[0]), *row[1:]))


def _spread(item: ast.Item) -> ast.Item:
    """A join or group that is too long for a line, with each path on lines of its own."""
    if len(_shown(item)) <= LONGEST_LINE:
        return item
    match item:
        case ast.Repeat(item=inner):
            spread = _spread(inner)
            assert isinstance(spread, ast.Layer | ast.Group)
            return replace(item, item=spread)
        case ast.Group(body=body):
            return replace(item, body=_laid_out(body))
        case ast.Layer(paths=paths) if paths:
            return replace(item, paths=tuple(map(_laid_out, paths)))
        case _:
            return item


def _length(item: ast.Item) -> int:
    """The characters that an item takes of its row."""
    text = _shown(item)
    return len(text) + 3 if len(text) <= LONGEST_LINE else 3


def _shown(item: ast.Item) -> str:
    match item:
        case ast.Repeat(item=inner, count=count):
            return f"{_shown(inner)} ×{count}"
        case ast.Group(body=body):
            return f"({' | '.join(map(_shown, body))})"
        case ast.Reference(name=name):
            return f"@{name}"
        case ast.Layer(paths=paths):
            name = f"{item.name}: " if item.name else ""
            beside = ", ".join(" | ".join(map(_shown, path)) for path in paths)
            said = " ".join([item.word, *map(str, item.options)])
            return f"{name}{said}({beside})" if paths else name + said


def _ends_row(row: Sequence[ast.Item], following: ast.Item) -> bool:
    """Whether a row is full before what follows."""
    last, begins = _last_word(row[-1]), _first_word(following)
    if last in POOLS:
        return begins not in ("dropout", "lrn", "batchnorm")
    if begins == "fc" or (_is_wide(following) and not _is_short(following)):
        after_gap = any(_last_word(item) == "gap" for item in row)
        return not (after_gap and begins == "fc" and all(_last_word(i) != "fc" for i in row))
    if begins == "gap":
        plain = (*ACTS, "batchnorm", "dropout")
        return any(_last_word(item) not in plain or _is_wide(item) for item in row)
    if any(_is_wide(item) and not _is_short(item) for item in row):
        return begins not in (*ACTS, *POOLS, "batchnorm", "dropout", "softmax")
    return False


def _is_short(item: ast.Item) -> bool:
    return len(_shown(item)) < SHORT


def _is_wide(item: ast.Item) -> bool:
    """Whether an item is a group or a join, which stands on a row of its own."""
    inner = item.item if isinstance(item, ast.Repeat) else item
    return isinstance(inner, ast.Group) or (isinstance(inner, ast.Layer) and bool(inner.paths))


def _first_word(item: ast.Item) -> str:
    """The word of the first layer of an item, without its numbers."""
    match item:
        case ast.Repeat(item=inner):
            return _first_word(inner)
        case ast.Group(body=body):
            return _first_word(body[0])
        case ast.Reference():
            return "@"
        case ast.Layer(word=word):
            return _stem(word)


def _last_word(item: ast.Item) -> str:
    """The word of the last layer of an item, without its numbers."""
    match item:
        case ast.Repeat(item=inner):
            return _last_word(inner)
        case ast.Group(body=body):
            return _last_word(body[-1])
        case _:
            return _first_word(item)


def _stem(word: str) -> str:
    stem = word.partition("-")[0]
    return stem if stem in BY_WORD else re.sub(r"[0-9x]+$", "", stem)


def _on_row(item: ast.Item) -> ast.Item:
    match item:
        case ast.Repeat(item=inner):
            begun = _on_row(inner)
            assert isinstance(begun, ast.Layer | ast.Group)
            return replace(item, item=begun)
        case _:
            return replace(item, trivia=ast.Trivia(row=True))
