"""A picture of how a training went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vggc.files import replacing
from vggc.training.progress import Epoch

TRAIN, VAL, VAL5, RATE, INK, FAINT = (
    "#3b6fb6",
    "#d1495b",
    "#e8a87c",
    "#5b8c5a",
    "#2b2d33",
    "#d9dbe1",
)


def draw_curves(path: Path, title: str, epochs: Sequence[Epoch]) -> None:
    """Writes loss, accuracy and learning rate over the epochs as a PNG.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

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
        "Learning rate": [("learning rate at the epoch's end", RATE, [row.lr for row in epochs])],
    }
    figure = Figure(figsize=(12, 4.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    panels = figure.subplots(1, 3, width_ratios=[3, 3, 2])
    for panel, (name, curves) in zip(panels, lines.items(), strict=True):
        for label, colour, values in curves:
            marker = "o" if len(epochs) <= 30 else ""
            panel.plot(numbers, values, color=colour, lw=2, marker=marker, ms=4, label=label)
        panel.set_title(name, loc="left", fontsize=11, color=INK)
        panel.set_xlabel("epoch", color=INK)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        panel.grid(axis="y", color=FAINT, lw=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(FAINT)
        panel.tick_params(colors=INK, length=0, labelsize=9)
    losses, accuracies, rates = panels
    losses.set_ylim(bottom=0)
    losses.legend(frameon=False, labelcolor=INK, fontsize=9)
    accuracies.set_ylim(0, 1.02)
    accuracies.yaxis.set_major_formatter(PercentFormatter(1))
    accuracies.legend(frameon=False, labelcolor=INK, fontsize=9, loc="lower right")
    if min(row.lr for row in epochs) > 0:
        rates.set_yscale("log")
    else:
        rates.set_ylim(bottom=0)
    with replacing(path) as part:
        figure.savefig(part, format="png")
