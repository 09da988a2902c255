"""Items that read one another as chains, joins and paths, as a text has them.

A join stands where paths meet that part at the last item which all of them pass: its immediate
dominator. What is between the two is its paths.
Source: Cooper, Harvey & Kennedy (2001), "A simple, fast dominance algorithm".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from vggc.importing.items import ForeignItems

LONG = 16
"""A path of more layers than this stands on the main chain, and the join behind it says where the
others begin."""
SKIP_LAST = {"add": True, "mul": False}
"""Whether the path without layers stands last in a join whose paths may change places."""
MAX_DEPTH = 40
"""Joins in one another, of the fifty that the language takes."""
MAX_STEPS = 20_000_000
"""Steps from item to item; nets of a thousand layers take some ten thousand."""


class TangledError(Exception):
    """Paths that no text can follow."""


@dataclass(frozen=True)
class Leaf:
    """A layer, and the chains of its paths if it is a join."""

    item: int
    paths: tuple[Chain, ...] = ()


@dataclass(frozen=True)
class Mention:
    """What an item gives that stands elsewhere."""

    item: int


Chain: TypeAlias = "tuple[Leaf | Mention, ...]"


@dataclass(frozen=True)
class NetOutline:
    """The main chain, and the chains of heads by the outputs' places in the net's list; `mentioned`
    are the items that need names.
    """

    main: Chain
    heads: tuple[tuple[int, Chain], ...]
    mentioned: frozenset[int]


@dataclass
class _Outliner:
    net: ForeignItems
    above: list[int] = field(default_factory=list)
    """The immediate dominator of each item."""
    depth: list[int] = field(default_factory=list)
    done: set[int] = field(default_factory=lambda: {0})
    mentioned: set[int] = field(default_factory=set)
    steps: int = 0

    def __post_init__(self) -> None:
        for index, item in enumerate(self.net.items):
            if not index:
                self.above.append(0)
                self.depth.append(0)
                continue
            found = item.reads[0]
            for read in item.reads[1:]:
                found = self.meeting(found, read)
            self.above.append(found)
            self.depth.append(self.depth[found] + 1)

    def meeting(self, left: int, right: int) -> int:
        """The last item that all ways to both pass."""
        while left != right:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise TangledError
            if self.depth[left] >= self.depth[right]:
                left = self.above[left]
            else:
                right = self.above[right]
        return left

    def mention(self, item: int) -> Mention:
        self.mentioned.add(item)
        return Mention(item)

    def chain(self, end: int, stop: int, level: int = 0) -> Chain:
        """What stands between `stop` and `end`, the latter included."""
        if level > MAX_DEPTH:
            raise TangledError
        back: list[tuple[int, int]] = []
        """Items from the end on, each with the read that the chain comes from, or -1 for all."""
        at = end
        found: list[Leaf | Mention] = []
        while at != stop:
            if at in self.done:
                found.append(self.mention(at))
                break
            long = self.long_path(at)
            back.append((at, long))
            at = self.above[at] if long < 0 else long
        for item, long in reversed(back):
            found.append(self.leaf(item, long, level))
            self.done.add(item)
        return tuple(found)

    def leaf(self, item: int, long: int, level: int) -> Leaf:
        """An item with its paths, one of which may be the chain before it."""
        reads = self.net.items[item].reads
        if len(reads) == 1:
            return Leaf(item)
        begin = self.above[item]
        paths: list[Chain] = []
        for read in reads:
            if read == long:
                paths.append(())
            elif long >= 0:
                before = self.mention(begin)
                path = self.chain(read, begin, level + 1)
                is_elsewhere = bool(path) and isinstance(path[0], Mention)
                paths.append(path if is_elsewhere else (before, *path))
            else:
                paths.append(self.chain(read, begin, level + 1))
        word = self.net.items[item].word
        if len(paths) == 2 and word in SKIP_LAST:
            # Whichever comes first, the sum is the same; people write the short way last.
            paths.sort(key=lambda path: (not path) == SKIP_LAST[word])
        return Leaf(item, tuple(paths))

    def long_path(self, item: int) -> int:
        """The read of a join whose path is too long to stand in parentheses; -1 for none."""
        reads, begin = self.net.items[item].reads, self.above[item]
        if len(reads) < 2:
            return -1
        lengths = {read: self.depth[read] - self.depth[begin] for read in reads}
        longest = max(lengths, key=lambda read: lengths[read])
        others = [length for read, length in lengths.items() if read != longest]
        return longest if lengths[longest] > LONG and max(others, default=0) <= LONG else -1


def outline(net: ForeignItems) -> NetOutline:
    """A net as chains. Raises: TangledError where no text can follow its paths."""
    work = _Outliner(net=net)
    ends = [output.item for output in net.outputs]
    main = _main_end(work)
    trunk = work.chain(main, 0)
    if main in ends:
        # What goes on behind an output says so, as otherwise that would be no output.
        others = [place for place in range(len(ends)) if place != ends.index(main)]
        heads = tuple((place, work.chain(ends[place], -1)) for place in others)
    else:
        heads = tuple((place, work.chain(end, main)) for place, end in enumerate(ends))
    return NetOutline(trunk, heads, frozenset(work.mentioned))


def _main_end(work: _Outliner) -> int:
    """Where the main chain ends: at the sole output; at that called `output`; where all part, if
    that is no more than a few layers before each of them; or at the longest one.
    """
    outputs = work.net.outputs
    ends = [output.item for output in outputs]
    if len(ends) == 1:
        return ends[0]
    for output in outputs:
        if output.name == "output":
            return output.item
    parting = ends[0]
    for end in ends[1:]:
        parting = work.meeting(parting, end)
    lengths = [work.depth[end] - work.depth[parting] for end in ends]
    if parting and min(lengths) > 0 and max(lengths) <= LONG:
        return parting
    return max(ends, key=lambda end: work.depth[end])
