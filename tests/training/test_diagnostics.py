"""Every mistake around training has one exact message: `diagnostics/training/NAME.err`.

After a change of wording: `UPDATE_GOLDEN=1 pytest tests/training/test_diagnostics.py`, then
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
        diagnostics.NothingTrainable("vgg16"),
        diagnostics.ImagesWithoutBoxes("vgg16_loc_scr", "photos"),
        diagnostics.OneClassToTell("vgg16", "raccoon", "raccoon"),
        data_diagnostics.NoSuchFolder("photos"),
        data_diagnostics.UnreadableFolder("photos/cat", "Permission denied"),
        data_diagnostics.NoClassFolders("photos", ".jpg .png"),
        data_diagnostics.OnlyOneClass("photos", "cat"),
        data_diagnostics.NothingUsable("photos", 3, "cat/1.heic: HEIC is not read"),
        data_diagnostics.UnsortedParts("photos", "test/, train/", "test"),
        data_diagnostics.TwoForOne("photos", "held out", "val/, valid/"),
        data_diagnostics.NoTrainingPart("photos", "there is test/, val/"),
        data_diagnostics.UselessPart("photos", "valid", "holds no images"),
        data_diagnostics.PartOrClass("photos", "train", "boat/, plane/"),
        data_diagnostics.PartAmongClasses("photos", "validation", "cat, dog"),
        data_diagnostics.PartsInClasses("photos", "test, train", "cat"),
        data_diagnostics.NoPartToTest("photos", "train/ is there to train on", "photos/train"),
        data_diagnostics.ClassesDiffer("photos", "val/", "fox", "cat, dog"),
        data_diagnostics.HeldOutToo("photos"),
        data_diagnostics.WorkerEnded(
            "SIGKILL killed it", "the system does so when memory runs out"
        ),
        data_diagnostics.NoWorker("Resource temporarily unavailable"),
        data_diagnostics.NoReadableImages("cat", "train on", "there is none"),
        data_diagnostics.NothingHeldOut("photos"),
        diagnostics.ValWithoutData(),
        data_diagnostics.NotAFolder("photos.zip"),
        data_diagnostics.HeldOutTwice("photos", "train/, val/"),
        data_diagnostics.PickledCifar("cifar-10-batches-py", "cifar-10-binary.tar.gz"),
        data_diagnostics.BadCifar("cifar", "data_batch_3.bin is missing"),
        data_diagnostics.CannotOpen("s3://photos/0.tar", "there is no such file"),
        data_diagnostics.MissingProtocol("s3"),
        data_diagnostics.BadPattern("{9..0}.tar", "`{9..0}` is no range"),
        data_diagnostics.CompressedShard("train-0.tar.gz"),
        data_diagnostics.BrokenShard("train-0.tar", "it is cut off after 70,000 bytes"),
        data_diagnostics.NoSamples("shards"),
        data_diagnostics.IncompleteSamples(
            "shards", 70, 100, "train-0.tar/n01440764_10026", "it has no label"
        ),
        data_diagnostics.UnknownLabel("shards", "`10`, `11`", 10),
        data_diagnostics.BadClassList("shards/classes.txt", "line 7 is empty"),
        data_diagnostics.BadAnnotations("photos/_annotations.coco.json", "it is no JSON, line 3"),
        data_diagnostics.UnusableAnnotations(
            "photos", 700, 1000, "Annotations/7.xml", "its picture is not there"
        ),
        data_diagnostics.NoObjects("photos", "3 left out, such as 1.jpg: it has no annotation"),
        data_diagnostics.SeveralSets("VOCdevkit", "VOC2007, VOC2012", "VOC2007"),
        diagnostics.NoTrainedNet("vgg11", "runs"),
        diagnostics.RunOfAnotherNet("vgg11", "runs/vgg13-1", "vgg13"),
        diagnostics.InitFromInVain("runs/vgg11-1", "vgg13"),
        diagnostics.BatchTooLarge(256, 40, 8),
        diagnostics.BatchTooSmall(2, 4, 64),
        diagnostics.ImageLost(13, "cat/1.jpg: No such file or directory"),
        data_diagnostics.UnsupportedChannels(2, 224, 224),
        diagnostics.NoCuda("2.13.0"),
        diagnostics.NoTensorBoard(),
        diagnostics.UnsupportedPrecision("float16", "a CPU", "float16 needs `--device cuda`"),
        diagnostics.TooFewGpus(1, 4),
        diagnostics.NothingToShard(),
        diagnostics.BadWorld("RANK=7 WORLD_SIZE=4"),
        diagnostics.NoWorld(4, "connection refused"),
        diagnostics.WorldEnded("process 1: the disk is full"),
        diagnostics.OutOfMemory("cuda", 256, 128),
        diagnostics.LossNotFinite("training", float("nan"), 1, 7, 0.1, 0.01),
        diagnostics.Diverged("the weight `conv1_1.norm.running_var`", 1, 7, 0.1, 0.01),
        diagnostics.Contradiction("--epochs 2"),
        diagnostics.ImagesMoved("runs/a", "/photos"),
        diagnostics.ImagesDiffer(2, "1,000 and 100", "999 and 100"),
        diagnostics.LossFlat(3, 120, 2.3026, 10, 2.302585, 0.01),
        diagnostics.NotARun("photos", "run.json: No such file or directory"),
        diagnostics.NoRuns("runs"),
        diagnostics.NoWeights("runs/tiny-20260102-030405", "running", "go on with it"),
        diagnostics.NoBestWeights("runs/tiny-20260102-030405"),
        diagnostics.WeightsOfNoRun("best", "vgg16"),
        diagnostics.RunInUse(
            "runs/tiny-20260102-030405", "process 7 on host, since 2026-01-02 03:04:05"
        ),
        diagnostics.EndsSooner("runs/tiny-20260102-030405", 900, 1200),
        diagnostics.EndsWithinEpoch("runs/tiny-20260102-030405", 1250, 400),
        diagnostics.DropsInOtherUnits("runs/tiny-20260102-030405", "steps", "epochs"),
        diagnostics.NothingToGoOnFrom("runs/tiny-20260102-030405", "tiny"),
        diagnostics.FixedByRun("`--epochs`, `--lr`", "runs/tiny-20260102-030405"),
        diagnostics.NamedAsItsFile("net"),
        diagnostics.NothingToTrain(),
        diagnostics.DataChanged("photos", "the classes, or their order, are others"),
        diagnostics.OldRun("runs/tiny"),
        diagnostics.TaskChanged("runs/vgg19-20260102-030405"),
        diagnostics.BadCheckpoint("run/checkpoint/step-7", "tensors.safetensors is missing"),
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
