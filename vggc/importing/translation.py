"""A foreign net while it is read operator by operator: the items so far, and what each of its names
stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, NoReturn, TypeAlias

import onnx
from numpy.typing import NDArray

from vggc.importing.constants import (
    CannotFoldError,
    fold,
)
from vggc.importing.diagnostics import ForeignUnreadable, NoWordFor, OpenInputSize
from vggc.importing.foreign import ForeignTensor
from vggc.importing.items import ForeignItem, ForeignOutput
from vggc.importing.operators import Operator, short
from vggc.importing.views import AxisPart, TensorView, view_of
from vggc.ir.ops import Pair, Shape
from vggc.support.diagnostics import UserError

MAX_NODES = 50_000
MAX_OUTPUTS = 100
MAX_VALUES = 1 << 40
"""Values of one tensor for one image, as in the language."""
MAX_AXES = 64
"""Axes of one tensor, as in NumPy."""
MOST_COMPUTED = 1 << 24
"""Values of all constants together that are computed at once."""
COLOURS = (1, 3, 4)
"""Channels of an image: where the last axis has so many, and the second has not, they lie there."""
ORDERS = ("nchw", "nhwc")
OPTIMISED = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
"""Domains of operators that ONNX Runtime makes of others."""

Rule: TypeAlias = "Callable[[Translation, Operator], None]"
MISFITS = (TypeError, ValueError, IndexError, KeyError, OverflowError, ArithmeticError)
"""What comes of attributes and shapes that fit no operator."""


@dataclass(frozen=True)
class Live:
    """What depends on the image: the value of an item, as it lies in the foreign tensor. `after` is
    what the original computes of it besides, and nothing but an output may read.
    """

    item: int
    view: TensorView
    after: str = ""


@dataclass
class Translation:
    """The items so far, and what each name of the foreign net stands for."""

    path: str
    opset: int
    places: dict[str, Live | ForeignTensor]
    rules: Mapping[str, Rule]
    """What each kind of operator means that reads what depends on the image."""
    hints: Mapping[str, str]
    """What can be done where there is no word for an operator."""
    items: list[ForeignItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch: int = 1
    has_whole_input: bool = False
    """Whether the numbers that the net is given are whole."""
    computed: int = 0

    # ------------------------------------------------------------ the beginning

    def begin(
        self, given: onnx.ValueInfoProto, size: Pair | None, is_map: bool, channels: int
    ) -> None:
        """Takes the input as the first item. Its channels may lie last unless it `is_map` of
        those operators that read maps. It has so many `channels` where the file leaves that open.
        """
        told = given.type.tensor_type
        dims = [dim.dim_value for dim in told.shape.dim]
        if is_map and not told.HasField("shape"):
            dims = [0, 0, 0, 0]
        if len(dims) != 4:
            reason = f"its input `{short(given.name)}` has {len(dims)} dimensions"
            hint = "pictures have four: batch, channels, height and width"
            raise UserError(ForeignUnreadable(self.path, reason, hint))
        last = dims[3] in COLOURS and dims[1] not in COLOURS
        order = "nhwc" if last and not is_map else "nchw"
        sizes = dict(zip(order, dims, strict=True))
        self.batch = sizes["n"] if sizes["n"] > 0 else 1
        for axis, asked in zip("hw", size or (0, 0), strict=True):
            if sizes[axis] <= 0:
                sizes[axis] = asked
            elif asked and asked != sizes[axis]:
                which = {"h": "height", "w": "width"}[axis]
                reason = f"the {which} of its input is {sizes[axis]}, and no other"
                raise UserError(ForeignUnreadable(self.path, reason, "give that to `--input`"))
        if sizes["h"] <= 0 or sizes["w"] <= 0:
            raise UserError(OpenInputSize(self.path))
        shape = (sizes["c"] if sizes["c"] > 0 else channels, sizes["h"], sizes["w"])
        node = Operator(
            kind="Input", name=given.name, reads=(), gives=(given.name,), attributes={},
            number=0, total=0,
        )  # fmt: skip
        self.items.append(ForeignItem(word="input", reads=(), shape=shape, node=node))
        self.places[given.name] = Live(0, view_of(shape, self.batch, order))

    def output(self, name: str) -> ForeignOutput:
        """An output of the net."""
        match self.places.get(name):
            case Live() as found:
                live = self.written_out(found)
                return ForeignOutput(name, live.item, live.view, live.after)
            case ForeignTensor():
                reason = f"its output `{short(name)}` depends on no image"
            case None:
                reason = f"no node gives its output `{short(name)}`"
        raise UserError(ForeignUnreadable(self.path, reason))

    def written_out(self, live: Live) -> Live:
        """What an output gives, its map flattened by an item where the original flattens it."""
        shape, node = self.shape(live), self.items[live.item].node
        flat = view_of((prod(shape),), self.batch)
        if len(shape) != 3 or flattened(live.view, shape) != flat:
            return live
        return replace(self.emit(node, "flatten", [live], (prod(shape),)), after=live.after)

    # ------------------------------------------------------------ a node

    def step(self, node: Operator) -> None:
        """Takes in an operator. Raises: UserError where that cannot be."""
        for name in filter(None, node.reads):
            if name not in self.places:
                reason = f"{node.place} reads `{short(name)}`, which nothing before it gives"
                raise UserError(ForeignUnreadable(self.path, reason))
        for name in filter(None, node.gives):
            if name in self.places:
                reason = f"{node.place} gives `{short(name)}`, which there is already"
                raise UserError(ForeignUnreadable(self.path, reason))
        try:
            if any(isinstance(self.places.get(name), Live) for name in node.reads):
                self.compute(node)
            else:
                self.fold(node)
        except MISFITS as fault:
            self.refuse(node, f"this `{short(node.kind)}`", f"it does not fit: {_line(fault)}")

    def fold(self, node: Operator) -> None:
        """Takes in an operator that reads constants alone."""
        reads = [self.places.get(name) for name in node.reads]
        try:
            found = fold(node, [each for each in reads if not isinstance(each, Live)])
        except CannotFoldError as fault:
            self.refuse(node, f"this `{short(node.kind)}` of constants", str(fault))
        if found is None and (node.kind in self.hints or "." in node.kind):
            self.refuse_kind(node)
        if found is None:
            hint = "constants of the size of weights are computed by few operators"
            self.refuse(node, f"a `{short(node.kind)}` of constants", hint)
        for name, tensor in zip(node.gives, found, strict=False):
            if tensor.steps == 1:
                self.computed += tensor.size
            if name:
                self.places[name] = tensor
        if self.computed > MOST_COMPUTED:
            reason = f"its constants come to more than {MOST_COMPUTED:,} values"
            raise UserError(ForeignUnreadable(self.path, reason))

    def compute(self, node: Operator) -> None:
        """Takes in an operator that reads what depends on the image."""
        rule = self.rules.get(node.kind)
        if rule is None:
            self.refuse_kind(node)
        for name in node.reads:
            place = self.places.get(name)
            if isinstance(place, Live) and place.after and node.kind not in ("Identity", "Cast"):
                self.refuse(node, f"`{short(node.kind)}` of what only an output may be", "")
        rule(self, node)

    # ------------------------------------------------------------ what rules ask

    def refuse(self, node: Operator, what: str, hint: str) -> NoReturn:
        """Raises: UserError: there is no word for an operator."""
        hint = hint or "cut the net off before it: docs/importing.md says how"
        raise UserError(NoWordFor(self.path, what, node.place, node.inputs, hint))

    def refuse_kind(self, node: Operator) -> NoReturn:
        """Raises: UserError: there is no word for an operator of this kind at all."""
        hint = self.hints.get(node.kind, "")
        domain, sign, _ = node.kind.rpartition(".")
        if domain in OPTIMISED:
            hint = "an engine has made it of others: give the net before it was optimised"
        elif sign:
            hint = "where it is a function within the file: onnx.inliner.inline_local_functions"
        self.refuse(node, f"`{short(node.kind)}`", hint)

    def live(self, node: Operator, position: int = 0) -> Live:
        """What an operator reads that depends on the image."""
        found = self.places.get(node.reads[position]) if position < len(node.reads) else None
        if not isinstance(found, Live):
            self.refuse(node, f"a `{node.kind}` of constants beside the image", "")
        return found

    def lives(self, node: Operator) -> list[Live]:
        """All that an operator reads, which all depends on the image."""
        return [self.live(node, position) for position in range(len(node.reads))]

    def constant(self, node: Operator, position: int) -> ForeignTensor | None:
        """A constant that an operator reads; None where it reads none at this position."""
        name = node.reads[position] if position < len(node.reads) else ""
        if not name:
            return None
        found = self.places[name]
        if isinstance(found, Live):
            self.refuse(node, f"a `{node.kind}` whose input {position + 1} the image decides", "")
        return found

    def weight(self, node: Operator, position: int) -> ForeignTensor:
        """A constant that an operator cannot do without."""
        found = self.constant(node, position)
        if found is None:
            raise ValueError(f"it has no input {position + 1}")
        return found

    def numbers(self, node: Operator, position: int) -> NDArray[Any] | None:
        """A constant of few numbers that an operator reads, all in a row."""
        found = self.constant(node, position)
        if found is None:
            return None
        if found.size > 1 << 16:
            raise ValueError(f"its input {position + 1} is of {found.size:,} numbers")
        return found.read().reshape(-1)

    def shape(self, live: Live) -> Shape:
        """The shape of the item that a value is of."""
        return self.items[live.item].shape

    def is_map(self, live: Live) -> bool:
        """Whether a value is of a map."""
        return len(self.shape(live)) == 3

    def order(self, live: Live) -> str:
        """How the axes of a value lie: `nchw`, `nhwc`, a vector's `nc` or, as in front of it a map
        was pooled, `nc11` or `n11c`; nothing where they lie otherwise.
        """
        shape, view = self.shape(live), live.view
        if len(shape) == 3:
            return next((o for o in ORDERS if view == view_of(shape, self.batch, o)), "")
        vector = view_of(shape, self.batch).dims
        known = {"nc": vector, "nc11": (*vector, (), ()), "n11c": (vector[0], (), (), vector[1])}
        return next((name for name, dims in known.items() if view.dims == dims), "")

    def emit(
        self,
        node: Operator,
        word: str,
        reads: Sequence[Live],
        shape: Shape,
        view: TensorView | None = None,
        **more: Any,
    ) -> Live:
        """Adds an item; what it gives, lying as `view` says or in the usual order."""
        if prod(shape) > MAX_VALUES or min(shape) < 1:
            raise ValueError(f"it would give {'×'.join(map(str, shape))} values")
        indices = tuple(each.item for each in reads)
        self.items.append(ForeignItem(word=word, reads=indices, shape=shape, node=node, **more))
        return Live(len(self.items) - 1, view or view_of(shape, self.batch))

    def give(self, node: Operator, live: Live | ForeignTensor, position: int = 0) -> None:
        """Takes something as what an operator gives. Others than the first go unread."""
        if isinstance(live, Live) and len(live.view.dims) > MAX_AXES:
            raise ValueError(f"it would give more than {MAX_AXES} axes")
        self.places[node.gives[position]] = live

    def spatial(self, node: Operator, position: int = 0) -> Live:
        """A map that an operator reads, lying N, C, H, W."""
        return self.as_map(node, self.live(node, position))

    def as_map(self, node: Operator, live: Live) -> Live:
        """A map as one that lies N, C, H, W; a channel shuffle becomes an item."""
        if self.order(live) in ("nchw", "nc11"):
            return live
        groups = self.shuffled(live)
        if not groups:
            found = "×".join(map(str, live.view.shape))
            hint = "its input is turned or reshaped in a way that is not followed"
            self.refuse(node, f"a `{node.kind}` of {found} that are no map", hint)
        return self.emit(node, "shuffle", [live], self.shape(live), options={"groups": groups})

    def shuffled(self, live: Live) -> int:
        """The groups of the channel shuffle that a map has gone through; 0 where it is none."""
        shape = self.shape(live)
        if len(shape) != 3 or len(live.view.dims) != 4 or len(live.view.dims[1]) != 2:
            return 0
        inner, outer = live.view.dims[1]
        plain = view_of(shape, self.batch).dims
        whole = (AxisPart("c", inner.size, 1), AxisPart("c", outer.size, inner.size))
        rest = (live.view.dims[0], *live.view.dims[2:])
        is_one = (inner, outer) == whole and rest == (plain[0], *plain[2:])
        return outer.size if is_one and inner.size * outer.size == shape[0] else 0

    def vector(self, node: Operator, live: Live) -> Live:
        """A value as a vector's: a map is flattened by an item, in our order."""
        shape = self.shape(live)
        if len(shape) == 1:
            return live
        flat = self.emit(node, "flatten", [live], (prod(shape),))
        return replace(flat, view=flattened(live.view, shape))


def flattened(view: TensorView, shape: Shape) -> TensorView:
    """How a map's numbers lie, as parts of the vector that it is flattened to, C, H, W."""
    _, height, width = shape
    steps = {"c": height * width, "h": width, "w": 1}
    return TensorView.of_parts(
        (
            AxisPart("c", part.size, part.step * steps[part.axis]) if part.axis != "n" else part
            for part in dim
        )
        for dim in view.dims
    )


def _line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
