"""What a net's heads are trained by: a loss for each, and what of an object's box is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from vggc.ir.graph import Graph
from vggc.layers.elaborate import MAIN
from vggc.recipe.blocks import option
from vggc.syntax.values import OneOf, Real
from vggc_runtime.outputs import HeadKind

LossName: TypeAlias = Literal["cross-entropy", "euclidean", "smooth-l1", "giou", "off"]
LOSSES: tuple[LossName, ...] = ("cross-entropy", "euclidean", "smooth-l1", "giou", "off")
FITTING: dict[HeadKind, tuple[LossName, ...]] = {
    "classes": ("cross-entropy",),
    "boxes": ("euclidean", "smooth-l1", "giou"),
    "features": (),
}
"""The losses that heads of a kind can have, the usual one first."""

ObjectChoice: TypeAlias = Literal["largest", "each", "only"]
OBJECT_CHOICES: tuple[ObjectChoice, ...] = ("largest", "each", "only")
CutBox: TypeAlias = Literal["whole", "clip"]
CUT_BOXES: tuple[CutBox, ...] = ("whole", "clip")


@dataclass(frozen=True)
class HeadLoss:
    """What is made small at one head, and how much that counts.

    Of a box p that a net gives for the box t, (centre x, centre y, width, height) in shares of the
    crop: `euclidean` is ½·Σ(pᵢ − tᵢ)²; `smooth-l1` is Σ s(pᵢ − tᵢ), s(d) being d²/(2·beta) for
    |d| < beta and |d| − beta/2 beyond; `giou` is 1 − GIoU(p, t). All are averaged over the images
    of a step. `head` is None for the net's main output.

    Sources: Caffe's `EuclideanLoss`; Girshick (2015), "Fast R-CNN", formula 3, with `beta` in the
    place of 1, as `torch.nn.SmoothL1Loss` has it; Rezatofighi et al. (2019), "Generalized
    Intersection over Union", algorithm 1.
    """

    example: ClassVar[str] = "loss cross-entropy weight=0.5"
    doc: ClassVar[str] = (
        "what is made small at a head: of the classes' soft-max, or of a box's distance from the "
        "object's; a line for each head, and heads without a line have the first that suits them; "
        "off: the head is not trained"
    )

    loss: LossName = option("the loss", OneOf(LOSSES))
    head: str | None = None
    weight: float = option("how much it counts in the whole", Real(0, 1e6, above=True), 1.0)
    beta: float = option(
        "of `smooth-l1`: where squares pass into lines, as a share of the crop",
        Real(0, 1000, above=True),
        0.1,
    )


@dataclass(frozen=True)
class BoxTargets:
    """What of a picture's objects a head of boxes learns.

    A picture of several objects is learned by its `largest`, once by `each`, or not at all where
    `only` pictures of one object are taken. Of an object that a crop cuts, the `whole` box is
    learned, beyond the crop's edge, or with `clip` what of it lies within. An object of which the
    crop shows less than `least_shown`, by area, is not learned from that crop.
    Source: Sermanet et al. (2014), "OverFeat", section 4.2, for whole boxes and for one half.
    """

    example: ClassVar[str] = "boxes objects=largest cut=whole least-shown=50%"
    doc: ClassVar[str] = "what of the objects in a picture a head of boxes learns"

    objects: ObjectChoice = option(
        "of pictures with several objects: the largest, each by itself, or only pictures of one",
        OneOf(OBJECT_CHOICES),
        "largest",
    )
    cut: CutBox = option(
        "of objects that a crop cuts: the whole box, or what lies within the crop",
        OneOf(CUT_BOXES),
        "whole",
    )
    least_shown: float = option(
        "the share of an object that a crop must show, for its box to be learned from it",
        Real(0, 1, unit="%"),
        0.5,
    )


def usual_losses(graph: Graph) -> tuple[HeadLoss, ...]:
    """The loss that each head of classes or boxes has where nothing is said."""
    return tuple(
        HeadLoss(FITTING[head.kind][0], named(head.name))
        for head in graph.heads
        if FITTING[head.kind]
    )


def named(head: str) -> str | None:
    """A head's name as `head=` says it: None for the main output, which has no name of its own."""
    return None if head == MAIN else head


def trained_heads(losses: tuple[HeadLoss, ...], graph: Graph) -> dict[str, HeadLoss]:
    """The loss of each head that is trained, by the head's name, in the graph's order."""
    said = {each.head: each for each in (*usual_losses(graph), *losses)}
    found = {head.name: said.get(named(head.name)) for head in graph.heads}
    return {name: each for name, each in found.items() if each and each.loss != "off"}


def trained_kinds(losses: tuple[HeadLoss, ...], graph: Graph) -> set[HeadKind]:
    """What the heads that are trained give."""
    trained = trained_heads(losses, graph)
    return {head.kind for head in graph.heads if head.name in trained}
