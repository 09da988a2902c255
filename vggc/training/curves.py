"""A picture of how a training went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vggc.support.files import replacing
from vggc.training.progress import Epoch, StepRow

TRAIN, VAL, VAL5, RATE, INK, FAINT = (
    "#3b6fb6",
    "#d1495b",
    "#e8a87c",
    "#5b8c5a",
    "#2b2d33",
    "#d9dbe1",
)

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
    lines = {
        "Loss (nats)": [
            ("training", TRAIN, [row.train_loss for row in epochs]),
            ("held-out", VAL, [row.val_loss for row in epochs]),
        ],
        "Accuracy": [
            ("training, top-1", TRAIN, [row.train_top1 for row in epochs]),
            ("held-out, top-5", VAL5, [row.val_top5 for row in epochs]),
            ("held-out, top-1", VAL, [row.val_top1 for row in epochs]),
        ],
        "Learning rate": [("at the epoch's end", RATE, [row.lr for row in epochs])],
    }
    shown = steps if len(epochs) <= FEW else ()
    places = [row.step / epochs[0].step for row in shown]
    by_step: dict[str, list[tuple[Callable[[StepRow], float], str]]] = {
        "Loss (nats)": [(lambda row: row.loss, TRAIN)],
        "Accuracy": [(lambda row: row.top1, TRAIN)],
        "Learning rate": [(lambda row: row.lr, RATE)],
    }
    figure = Figure(figsize=(12, 4.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    panels = figure.subplots(1, 3, width_ratios=[3, 3, 2])
    for panel, (name, curves) in zip(panels, lines.items(), strict=True):
        for label, colour, values in curves:
            marker = "o" if len(epochs) <= 30 else ""
            panel.plot(numbers, values, color=colour, lw=2, marker=marker, ms=4, label=label)
        for value_of, colour in by_step.get(name, ()):
            values = [value_of(row) for row in shown]
            panel.plot(places, values, color=colour, lw=1, alpha=0.6, zorder=1)
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
    losses, accuracies, rates = panels
    losses.set_ylim(bottom=0)
    accuracies.set_ylim(0, 1.02)
    accuracies.yaxis.set_major_formatter(PercentFormatter(1))
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


def in_decimals(value: float) -> str:
    """A number as most people write it: 0.00001, neither 1e-05 nor 10⁻⁵."""
    digits = f"{value:.12f}".rstrip("0").rstrip(".")
    return digits if digits != "0" or value == 0 else f"{value:g}"
