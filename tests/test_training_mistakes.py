"""Every mistake around training has one exact message: `diagnostics/training/NAME.err`.

After a change of wording: `UPDATE_GOLDEN=1 pytest tests/test_training_mistakes.py`, then
read the difference aloud.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vggc.data import mistakes as data_mistakes
from vggc.support.diagnostics import Diagnostic, render
from vggc.training import mistakes

FOLDER = Path(__file__).parent / "diagnostics" / "training"


def samples() -> list[Diagnostic]:
    """One of each."""
    return [
        mistakes.NotTrainedYet(None, "`loss euclidean`", "leave it out"),
        data_mistakes.NoSuchFolder(None, "photos"),
        data_mistakes.UnreadableFolder(None, "photos/cat", "Permission denied"),
        data_mistakes.NoClassFolders(None, "photos", ".jpg .png"),
        data_mistakes.OnlyOneClass(None, "photos", "cat"),
        data_mistakes.NothingUsable(None, "photos", 3, "cat/1.heic: HEIC is not read"),
        data_mistakes.UnsortedParts(None, "photos", "test/, train/", "test"),
        data_mistakes.TwoForOne(None, "photos", "held out", "val/, valid/"),
        data_mistakes.NoTrainingPart(None, "photos", "there is test/, val/"),
        data_mistakes.UselessPart(None, "photos", "valid", "holds no images"),
        data_mistakes.PartOrClass(None, "photos", "train", "boat/, plane/"),
        data_mistakes.PartAmongClasses(None, "photos", "validation", "cat, dog"),
        data_mistakes.PartsInClasses(None, "photos", "test, train", "cat"),
        data_mistakes.NoPartToTest(None, "photos", "train/ is there to train on", "photos/train"),
        data_mistakes.ClassesDiffer(None, "photos", "val/", "fox", "cat, dog"),
        data_mistakes.HeldOutToo(None, "photos"),
        data_mistakes.WorkerEnded(
            None, "SIGKILL killed it", "the system does so when memory runs out"
        ),
        data_mistakes.NoWorker(None, "Resource temporarily unavailable"),
        data_mistakes.NoReadableImages(None, "cat", "train on", "there is none"),
        data_mistakes.NothingHeldOut(None, "photos"),
        mistakes.ValWithoutData(None),
        data_mistakes.NotAFolder(None, "photos.zip"),
        data_mistakes.HeldOutTwice(None, "photos", "train/, val/"),
        data_mistakes.PickledCifar(None, "cifar-10-batches-py", "cifar-10-binary.tar.gz"),
        data_mistakes.BadCifar(None, "cifar", "data_batch_3.bin is missing"),
        data_mistakes.CannotOpen(None, "s3://photos/0.tar", "there is no such file"),
        data_mistakes.MissingProtocol(None, "s3"),
        data_mistakes.BadPattern(None, "{9..0}.tar", "`{9..0}` is no range"),
        data_mistakes.CompressedShard(None, "train-0.tar.gz"),
        data_mistakes.BrokenShard(None, "train-0.tar", "it is cut off after 70,000 bytes"),
        data_mistakes.NoSamples(None, "shards"),
        data_mistakes.IncompleteSamples(
            None, "shards", 70, 100, "train-0.tar/n01440764_10026", "it has no label"
        ),
        data_mistakes.UnknownLabel(None, "shards", "`10`, `11`", 10),
        data_mistakes.BadClassList(None, "shards/classes.txt", "line 7 is empty"),
        mistakes.NoTrainedNet(None, "vgg11", "runs"),
        mistakes.RunOfAnotherNet(None, "vgg11", "runs/vgg13-1", "vgg13"),
        mistakes.InitFromInVain(None, "runs/vgg11-1", "vgg13"),
        mistakes.BatchTooLarge(None, 256, 40, 8),
        mistakes.BatchTooSmall(None, 2, 4, 64),
        mistakes.ImageLost(None, 13, "cat/1.jpg: No such file or directory"),
        data_mistakes.UnsupportedChannels(None, 2, 224, 224),
        mistakes.NoCuda(None, "2.13.0"),
        mistakes.NoTensorBoard(None),
        mistakes.UnsupportedPrecision(None, "fp16", "a CPU", "fp16 needs `--device cuda`"),
        mistakes.TooFewGpus(None, 1, 4),
        mistakes.NothingToShard(None),
        mistakes.BadWorld(None, "RANK=7 WORLD_SIZE=4"),
        mistakes.NoWorld(None, 4, "connection refused"),
        mistakes.WorldEnded(None, "process 1: the disk is full"),
        mistakes.OutOfMemory(None, "cuda", 256, 128),
        mistakes.LossNotFinite(None, "training", float("nan"), 1, 7, 0.1, 0.01),
        mistakes.Diverged(None, "the weight `conv1_1.norm.running_var`", 1, 7, 0.1, 0.01),
        mistakes.Contradiction(None, "--epochs 2"),
        mistakes.ImagesMoved(None, "runs/a", "/photos"),
        mistakes.ImagesDiffer(None, 2, "1,000 and 100", "999 and 100"),
        mistakes.LossFlat(None, 3, 120, 2.3026, 10, 2.302585, 0.01),
        mistakes.NotARun(None, "photos", "run.json: No such file or directory"),
        mistakes.NoRuns(None, "runs"),
        mistakes.NoWeights(None, "runs/tiny-20260102-030405", "running", "go on with it"),
        mistakes.NoBestWeights(None, "runs/tiny-20260102-030405"),
        mistakes.WeightsOfNoRun(None, "best", "vgg16"),
        mistakes.RunInUse(
            None, "runs/tiny-20260102-030405", "process 7 on host, since 2026-01-02 03:04:05"
        ),
        mistakes.EndsSooner(None, "runs/tiny-20260102-030405", 900, 1200),
        mistakes.EndsWithinEpoch(None, "runs/tiny-20260102-030405", 1250, 400),
        mistakes.NothingToGoOnFrom(None, "runs/tiny-20260102-030405", "tiny"),
        mistakes.FixedByRun(None, "`--epochs`, `--lr`", "runs/tiny-20260102-030405"),
        mistakes.NamedAsItsFile(None, "net"),
        mistakes.NothingToTrain(None),
        mistakes.DataChanged(None, "photos", "the classes, or their order, are others"),
        mistakes.OldRun(None, "runs/tiny"),
        mistakes.TaskChanged(None, "runs/vgg19-20260102-030405"),
        mistakes.BadCheckpoint(None, "run/checkpoint/step-7", "tensors.safetensors is missing"),
    ]


@pytest.mark.parametrize("mistake", samples(), ids=lambda mistake: type(mistake).__name__)
def test_the_message_of_a_mistake_is_exactly_this(mistake: Diagnostic) -> None:
    text = render(mistake) + "\n"
    golden = FOLDER / f"{type(mistake).__name__}.err"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_mistake_is_without_a_golden() -> None:
    kinds = {
        kind
        for module in (mistakes, data_mistakes)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Diagnostic) and kind is not Diagnostic
    }
    assert kinds == {type(mistake) for mistake in samples()}
    assert {kind.__name__ for kind in kinds} == {path.stem for path in FOLDER.glob("*.err")}
