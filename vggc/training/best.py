"""Which epoch was the best, and when to stop waiting for a better one. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from vggc.recipe.train import Measure, Recipe
from vggc.training.progress import Epoch


def is_better(row: Epoch, than: Epoch, measure: Measure, delta: float = 0.0) -> bool:
    """Whether an epoch is better than another by more than `delta`."""
    if measure == "loss":
        return row.val_loss < than.val_loss - delta
    return accuracy(row, measure) > accuracy(than, measure) + delta


def accuracy(row: Epoch, measure: Measure) -> float:
    """What of an epoch is the higher the better; 0 where the net gives nothing of the kind."""
    return (row.val_iou if measure == "iou" else row.val_top1) or 0.0


def best_epoch(epochs: Sequence[Epoch], measure: Measure) -> Epoch | None:
    """The best epoch; of several that are equally good the first."""
    best = None
    for row in epochs:
        if best is None or is_better(row, best, measure):
            best = row
    return best


def said(row: Epoch, measure: Measure) -> str:
    """What an epoch came to by the measure, in words."""
    if measure == "loss":
        return f"held-out loss {row.val_loss:.4g}"
    if measure == "iou":
        return f"held-out mean IoU {accuracy(row, measure):.3f}"
    return f"held-out top-1 {accuracy(row, measure):.2%}"


def stopped_early(recipe: Recipe, epochs: Sequence[Epoch]) -> str | None:
    """Why the recipe ends a training after these epochs, if it does."""
    if recipe.early_stop is None or not epochs:
        return None
    stop, best = recipe.early_stop, epochs[0]
    for row in epochs[1:]:
        if is_better(row, best, recipe.best_by, stop.min_delta):
            best = row
    waited = len(epochs) - max(best.epoch, stop.after)
    if waited < stop.patience:
        return None
    by = f" by more than {stop.min_delta:g}" if stop.min_delta else ""
    return (
        f"early stop: no epoch of the last {waited} was better{by} than epoch {best.epoch}, "
        f"{said(best, recipe.best_by)}"
    )
