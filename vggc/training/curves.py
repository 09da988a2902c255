"""A picture of how a training went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vggc.support.files import replacing
from vggc.training.measures import PANELS, course
from vggc.training.progress import Epoch, StepRow

TRAIN, VAL, VAL5, RATE, INK, FAINT = (
    "#3b6fb6",
    "#d1495b",
    "#e8a87c",
    "#5b8c5a",
    "#2b2d33",
    "#d9dbe1",
)

COLOURS = {
    "train_top1": TRAIN,
    "val_top1": VAL,
    "val_top5": VAL5,
    "train_iou": TRAIN,
    "val_iou": VAL,
    "val_iou50": VAL5,
}
"""The colour of each accuracy's curve, by its field."""

NAME = "curves.png"

FEW, POINTS = 5, 300
"""A course of no more epochs shows its steps, too, by so many points."""


def draw_curves(
    path: Path, title: str, epochs: Sequence[Epoch], steps: Sequence[StepRow] = ()
) -> None:
    """Writes loss, accuracy and learning rate over the epochs as a PNG.

    A course of few epochs is drawn by its `steps`, too, which say more than a few dots.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

    numbers = [row.epoch for row in epochs]
    rising = {name: course(epochs, kind) for kind, name in PANELS.items()}
    rising = {name: curves for name, curves in rising.items() if curves}
    loss = loss_title(epochs)
    lines: dict[str, list[tuple[str, str, Sequence[float]]]] = {
        loss: [
            ("training", TRAIN, [row.train_loss for row in epochs]),
            ("held-out", VAL, [row.val_loss for row in epochs]),
        ],
        **{
            name: [(f"{each.part}, {each.name}", COLOURS[each.field], v) for each, v in curves]
            for name, curves in rising.items()
        },
        "Learning rate": [("at the epoch's end", RATE, [row.lr for row in epochs])],
    }
    shown = steps if len(epochs) <= FEW else ()
    places = [row.step / epochs[0].step for row in shown]
    by_step: dict[str, tuple[Callable[[StepRow], float | None], str]] = {
        loss: (lambda row: row.loss, TRAIN),
        PANELS["classes"]: (lambda row: row.top1, TRAIN),
        PANELS["boxes"]: (lambda row: row.iou, TRAIN),
        "Learning rate": (lambda row: row.lr, RATE),
    }
    width = 12 if len(lines) == 3 else 18
    figure = Figure(figsize=(width, 4.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    panels = figure.subplots(1, len(lines), width_ratios=[*[3] * (len(lines) - 1), 2])
    for panel, (name, curves) in zip(panels, lines.items(), strict=True):
        for label, colour, values in curves:
            marker = "o" if len(epochs) <= 30 else ""
            panel.plot(numbers, values, color=colour, lw=2, marker=marker, ms=4, label=label)
        value_of, colour = by_step[name]
        by_steps = [value_of(row) for row in shown]
        panel.plot(places, by_steps, color=colour, lw=1, alpha=0.6, zorder=1)
        panel.set_title(name, loc="left", fontsize=11, color=INK, pad=24)
        # Above the panel, where no curve runs.
        panel.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=3,
            frameon=False,
            labelcolor=INK,
            fontsize=9,
            borderpad=0,
            borderaxespad=0.4,
            columnspacing=1.2,
            handlelength=1.4,
        )
        panel.set_xlabel("epoch", color=INK)
        panel.set_xlim(0, numbers[-1] + 0.02 * max(numbers[-1], 5))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        panel.grid(axis="y", color=FAINT, lw=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(FAINT)
        panel.tick_params(which="both", colors=INK, length=0, labelsize=9)
    losses, *shares, rates = panels
    losses.set_ylim(bottom=0)
    for panel in shares:
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    drawn = [*(row.lr for row in epochs), *(row.lr for row in shown)]
    least, most = min(drawn), max(drawn)
    if least > 0 and most >= 10 * least:
        rates.set_yscale("log")
        rates.yaxis.set_minor_formatter(NullFormatter())
    else:
        rates.set_ylim(0, 1.1 * most or 1)
    rates.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_decimals(value)))
    with replacing(path) as part:
        figure.savefig(part, format="png")


def loss_title(epochs: Sequence[Epoch]) -> str:
    """What the panel of the loss is called: in nats where it is of classes alone."""
    return "Loss" if course(epochs, "boxes") else "Loss (nats)"


def in_decimals(value: float) -> str:
    """A number as most people write it: 0.00001, neither 1e-05 nor 10⁻⁵."""
    digits = f"{value:.12f}".rstrip("0").rstrip(".")
    return digits if digits != "0" or value == 0 else f"{value:g}"
