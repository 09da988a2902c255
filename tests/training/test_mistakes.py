"""Every mistake around training has one exact message: `diagnostics/training/NAME.err`.

After a change of wording: `UPDATE_GOLDEN=1 pytest tests/training/test_mistakes.py`, then
read the difference aloud.
"""

from __future__ import annotations

import os

import pytest

from tests.support import GOLDENS
from vggc.data import diagnostics as data_diagnostics
from vggc.support.diagnostics import Diagnostic, render
from vggc.training import diagnostics

FOLDER = GOLDENS / "training"


def samples() -> list[Diagnostic]:
    """One of each."""
    return [
        diagnostics.NotTrainedYet(None, "`loss euclidean`", "leave it out"),
        data_diagnostics.NoSuchFolder(None, "photos"),
        data_diagnostics.UnreadableFolder(None, "photos/cat", "Permission denied"),
        data_diagnostics.NoClassFolders(None, "photos", ".jpg .png"),
        data_diagnostics.OnlyOneClass(None, "photos", "cat"),
        data_diagnostics.NothingUsable(None, "photos", 3, "cat/1.heic: HEIC is not read"),
        data_diagnostics.UnsortedParts(None, "photos", "test/, train/", "test"),
        data_diagnostics.TwoForOne(None, "photos", "held out", "val/, valid/"),
        data_diagnostics.NoTrainingPart(None, "photos", "there is test/, val/"),
        data_diagnostics.UselessPart(None, "photos", "valid", "holds no images"),
        data_diagnostics.PartOrClass(None, "photos", "train", "boat/, plane/"),
        data_diagnostics.PartAmongClasses(None, "photos", "validation", "cat, dog"),
        data_diagnostics.PartsInClasses(None, "photos", "test, train", "cat"),
        data_diagnostics.NoPartToTest(
            None, "photos", "train/ is there to train on", "photos/train"
        ),
        data_diagnostics.ClassesDiffer(None, "photos", "val/", "fox", "cat, dog"),
        data_diagnostics.HeldOutToo(None, "photos"),
        data_diagnostics.WorkerEnded(
            None, "SIGKILL killed it", "the system does so when memory runs out"
        ),
        data_diagnostics.NoWorker(None, "Resource temporarily unavailable"),
        data_diagnostics.NoReadableImages(None, "cat", "train on", "there is none"),
        data_diagnostics.NothingHeldOut(None, "photos"),
        diagnostics.ValWithoutData(None),
        data_diagnostics.NotAFolder(None, "photos.zip"),
        data_diagnostics.HeldOutTwice(None, "photos", "train/, val/"),
        data_diagnostics.PickledCifar(None, "cifar-10-batches-py", "cifar-10-binary.tar.gz"),
        data_diagnostics.BadCifar(None, "cifar", "data_batch_3.bin is missing"),
        data_diagnostics.CannotOpen(None, "s3://photos/0.tar", "there is no such file"),
        data_diagnostics.MissingProtocol(None, "s3"),
        data_diagnostics.BadPattern(None, "{9..0}.tar", "`{9..0}` is no range"),
        data_diagnostics.CompressedShard(None, "train-0.tar.gz"),
        data_diagnostics.BrokenShard(None, "train-0.tar", "it is cut off after 70,000 bytes"),
        data_diagnostics.NoSamples(None, "shards"),
        data_diagnostics.IncompleteSamples(
            None, "shards", 70, 100, "train-0.tar/n01440764_10026", "it has no label"
        ),
        data_diagnostics.UnknownLabel(None, "shards", "`10`, `11`", 10),
        data_diagnostics.BadClassList(None, "shards/classes.txt", "line 7 is empty"),
        diagnostics.NoTrainedNet(None, "vgg11", "runs"),
        diagnostics.RunOfAnotherNet(None, "vgg11", "runs/vgg13-1", "vgg13"),
        diagnostics.InitFromInVain(None, "runs/vgg11-1", "vgg13"),
        diagnostics.BatchTooLarge(None, 256, 40, 8),
        diagnostics.BatchTooSmall(None, 2, 4, 64),
        diagnostics.ImageLost(None, 13, "cat/1.jpg: No such file or directory"),
        data_diagnostics.UnsupportedChannels(None, 2, 224, 224),
        diagnostics.NoCuda(None, "2.13.0"),
        diagnostics.NoTensorBoard(None),
        diagnostics.UnsupportedPrecision(None, "fp16", "a CPU", "fp16 needs `--device cuda`"),
        diagnostics.TooFewGpus(None, 1, 4),
        diagnostics.NothingToShard(None),
        diagnostics.BadWorld(None, "RANK=7 WORLD_SIZE=4"),
        diagnostics.NoWorld(None, 4, "connection refused"),
        diagnostics.WorldEnded(None, "process 1: the disk is full"),
        diagnostics.OutOfMemory(None, "cuda", 256, 128),
        diagnostics.LossNotFinite(None, "training", float("nan"), 1, 7, 0.1, 0.01),
        diagnostics.Diverged(None, "the weight `conv1_1.norm.running_var`", 1, 7, 0.1, 0.01),
        diagnostics.Contradiction(None, "--epochs 2"),
        diagnostics.ImagesMoved(None, "runs/a", "/photos"),
        diagnostics.ImagesDiffer(None, 2, "1,000 and 100", "999 and 100"),
        diagnostics.LossFlat(None, 3, 120, 2.3026, 10, 2.302585, 0.01),
        diagnostics.NotARun(None, "photos", "run.json: No such file or directory"),
        diagnostics.NoRuns(None, "runs"),
        diagnostics.NoWeights(None, "runs/tiny-20260102-030405", "running", "go on with it"),
        diagnostics.NoBestWeights(None, "runs/tiny-20260102-030405"),
        diagnostics.WeightsOfNoRun(None, "best", "vgg16"),
        diagnostics.RunInUse(
            None, "runs/tiny-20260102-030405", "process 7 on host, since 2026-01-02 03:04:05"
        ),
        diagnostics.EndsSooner(None, "runs/tiny-20260102-030405", 900, 1200),
        diagnostics.EndsWithinEpoch(None, "runs/tiny-20260102-030405", 1250, 400),
        diagnostics.NothingToGoOnFrom(None, "runs/tiny-20260102-030405", "tiny"),
        diagnostics.FixedByRun(None, "`--epochs`, `--lr`", "runs/tiny-20260102-030405"),
        diagnostics.NamedAsItsFile(None, "net"),
        diagnostics.NothingToTrain(None),
        diagnostics.DataChanged(None, "photos", "the classes, or their order, are others"),
        diagnostics.OldRun(None, "runs/tiny"),
        diagnostics.TaskChanged(None, "runs/vgg19-20260102-030405"),
        diagnostics.BadCheckpoint(None, "run/checkpoint/step-7", "tensors.safetensors is missing"),
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
        for module in (diagnostics, data_diagnostics)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Diagnostic) and kind is not Diagnostic
    }
    assert kinds == {type(mistake) for mistake in samples()}
    assert {kind.__name__ for kind in kinds} == {path.stem for path in FOLDER.glob("*.err")}
