"""Rows of the tables that a training of classes writes, told in the order of their columns."""

from __future__ import annotations

from vggc.training.progress import Epoch, StepRow


def epoch_row(
    epoch: int,
    step: int,
    lr: float,
    train_loss: float,
    train_top1: float,
    val_loss: float,
    val_top1: float,
    val_top5: float,
    images_per_second: float,
    seconds: float,
) -> Epoch:
    return Epoch(
        epoch=epoch,
        step=step,
        lr=lr,
        train_loss=train_loss,
        train_top1=train_top1,
        val_loss=val_loss,
        val_top1=val_top1,
        val_top5=val_top5,
        images_per_second=images_per_second,
        seconds=seconds,
    )


def step_row(
    step: int, epoch: int, lr: float, loss: float, top1: float, images_per_second: float
) -> StepRow:
    return StepRow(
        step=step, epoch=epoch, lr=lr, loss=loss, top1=top1, images_per_second=images_per_second
    )
