"""What a test came to, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from vggc.api.evaluate import EvalPlan, EvalResult, TestedNet
from vggc.evaluation.views import Views
from vggc.ir.ops import describe
from vggc.support.sheet import Sheet
from vggc_runtime.preprocessing import Fit, Preprocessing

if TYPE_CHECKING:
    from vggc.evaluation.images import Labelled

Each = TypeVar("Each")

TWO_WAYS = (
    "The centre crop is what training, `vggc predict` and compiled nets look at; the other line is "
    "by the net's `test` block."
)


def score_table(planned: EvalPlan, images: Labelled, result: EvalResult) -> Sheet:
    """What a test came to, as a table: a row for each run and one for all together, as the paper's
    tables 3 to 6 have them.
    """
    entries = [*in_turn(planned.centres, planned.entries)]
    errors = [*in_turn(result.centres, result.each)]
    rows = [(entry.named, entry.net_name, ways(entry.views), scales(entry)) for entry in entries]
    if result.fused:
        rows.append(("all together", "", "", ""))
        errors.append(result.fused)
    shown = [
        (*row, f"{100 * each.top1:.2f}", f"{100 * each.top5:.2f}")
        for row, each in zip(rows, errors, strict=True)
    ]
    speed = result.images / result.seconds
    why = (TWO_WAYS,) if result.centres else ()
    return Sheet(
        title=f"error on {result.images:,} image{'s' * (result.images != 1)} of {images.shown}",
        header=("run", "net", "protocol", "scales Q", "top-1 error, %", "top-5 error, %"),
        rows=tuple(shown),
        numbers=(False, False, False, False, True, True),
        notes=(*why, f"{result.seconds:,.1f} s, {speed:,.1f} images/s"),
        rules=(len(entries) - 1,) if result.fused else (),
        spare=("net",),
    )


def in_turn(centres: Sequence[Each], others: Sequence[Each]) -> Iterator[Each]:
    """What is of each run, in turn: by its centre crop, where that was looked at, then by its
    protocol.
    """
    if not centres:
        yield from others
    for centre, other in zip(centres, others, strict=False):
        yield centre
        yield other


def ways(views: Views) -> str:
    """How images are looked at, in words: `dense & 5×5 crops, flips`."""
    grids = dict.fromkeys(view.grid for view in views.views)
    names = {None: "dense", 1: "centre crop"}
    words = [names.get(grid, f"{grid}×{grid} crops") for grid in grids]
    return " & ".join(words) + (", flips" if views.flip else "")


def distinct_scales(views: Views) -> list[int | None]:
    """The scales of the views, each once, in order; None for images that just cover the input."""
    return list(dict.fromkeys(view.scale for view in views.views))


def scales(entry: TestedNet) -> str:
    """The scales of a tested run in words: lengths of the shorter side, or what images just cover:
    `256, 384`.
    """
    return scales_told(entry.subject.preprocessing, entry.views)


WHOLE: Mapping[Fit, str] = {"crop": "covering", "squash": "squashed to", "pad": "padded to"}
"""What is done to pictures that have no scale."""


def scales_told(how: Preprocessing, views: Views) -> str:
    """The scales of views in words, as `scales`."""
    whole = f"{WHOLE[how.fit]} {describe(how.size)}"
    return ", ".join(str(s) if s else whole for s in distinct_scales(views))
