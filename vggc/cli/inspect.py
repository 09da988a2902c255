"""`vggc inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vggc.cli import console
from vggc.cli.options import preprocessing_option, weights_option

if TYPE_CHECKING:
    from vggc.api.inspect import InspectPlan, WrittenInspection
    from vggc.report.inspection import InspectOptions, InspectSection

DOING = {
    "image": "looking at the image",
    "activations": "activations",
    "filters": "looking for patches",
    "saliency": "gradients",
    "occlusion": "covering parts",
    "class-image": "climbing",
}


@click.command("inspect")
@click.argument("net", metavar="RUN|SPEC", type=click.Path(path_type=Path))
@click.argument("image", metavar="IMAGE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The page, a new file or an older page on this image."
    "  [default: RUN/inspect-IMAGE.html; of a SPEC inspect-NET-IMAGE.html]",
)
@click.option(
    "--class", "class_name", metavar="NAME", help="The class to explain.  [default: the best one]"
)
@click.option(
    "--sections",
    metavar="NAMES",
    help="What to show: activations,filters,saliency,occlusion,class-image.  [default: all]",
)
@click.option(
    "--layer",
    "layers",
    metavar="NAMES",
    help="Layers, and filters of them, to look at: conv3_2,conv4_1:17."
    "  [default: the last convolution of each block]",
)
@click.option(
    "--filters",
    type=click.IntRange(1, 64),
    help="Filters of each layer, those that the image excites most.  [default: 4]",
)
@click.option(
    "--patches",
    type=click.IntRange(1, 64),
    help="Patches of each filter.  [default: 6]",
)
@click.option(
    "--data",
    metavar="PLACE",
    help="Where to look for patches: folders of images, shards, CIFAR."
    "  [default: what the run held out; of a SPEC none]",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    metavar="N",
    help="How many images to look for patches in, evenly spread."
    "  [default: up to 1,000, of a large net 50 at least]",
)
@click.option(
    "--smooth",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Noisy copies of the image whose gradients are averaged (SmoothGrad).  [default: 0]",
)
@click.option(
    "--window",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Side of the square that covers parts.  [default: a seventh of the input's]",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="How far it is moved.  [default: a tenth of its way]",
)
@weights_option
@preprocessing_option
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of the noise, and of the class image.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "auto"]),
    default="auto",
    help="What computes.  [default: auto, CUDA if present]",
)
@click.option("--json", "as_json", is_flag=True, help="Tell in one line of JSON what was found.")
def command(
    net: Path,
    image: Path,
    out: Path | None,
    class_name: str | None,
    sections: str | None,
    layers: str | None,
    filters: int | None,
    patches: int | None,
    data: str | None,
    images: int | None,
    smooth: int | None,
    window: int | None,
    stride: int | None,
    weights: Path | None,
    preprocessing: str | None,
    seed: int,
    device: Literal["cpu", "cuda", "auto"],
    as_json: bool,
) -> None:
    """Show how a net looks at an image: one HTML file that needs no network.

    It holds what layers give of the image, what of other images excites the same filters most and
    where it lies, where the score of a class comes from by its gradient and by Grad-CAM, what
    becomes of its probability where parts are covered, and an image that the net holds for the very
    type of the class.

    RUN is a folder that `vggc train` made. A SPEC is a net with weights from elsewhere:
    `vggc inspect vgg16 cat.jpg --weights imagenet`. The costliest sections are filters (a pass of
    the net for each image that is looked at), occlusion (some 100 passes) and class-image (60
    gradients).
    """
    from vggc.api.inspect import plan, with_sections
    from vggc.report.inspection import InspectOptions

    usual = InspectOptions()
    options = with_sections(
        InspectOptions(
            class_name=class_name,
            layers=layers,
            filters=filters or usual.filters,
            patches=patches or usual.patches,
            images=images,
            data=data,
            copies=smooth or 0,
            window=window,
            stride=stride,
            seed=seed,
            weights=weights,
            preprocessing=preprocessing,
            device=device,
        ),
        sections,
    )
    refuse_idle(
        options,
        {
            "--layer": (layers, ("activations", "filters", "saliency")),
            "--filters": (filters, ("filters",)),
            "--patches": (patches, ("filters",)),
            "--data": (data, ("filters",)),
            "--images": (images, ("filters",)),
            "--smooth": (smooth, ("saliency",)),
            "--window": (window, ("occlusion",)),
            "--stride": (stride, ("occlusion",)),
        },
    )
    planned = plan(net, image, out, options)
    for remark in planned.remarks:
        console.status(remark)
    written = write(planned)
    if written.matched:
        console.status(written.matched)
    told = written.found.filters
    if told and told.why_none:
        console.status(f"No patches are shown. {told.why_none}")
    if as_json:
        console.out(json.dumps(as_record(planned, written)))
        return
    explained = written.found.explained
    console.out(
        f"{written.path}: {planned.page.net} gives {explained.name} "
        f"{explained.probability:.1%}, {written.bytes / 1e6:.2f} MB"
    )


def refuse_idle(
    options: InspectOptions, given: dict[str, tuple[object, tuple[InspectSection, ...]]]
) -> None:
    """Raises: UsageError where an option is about sections that the page leaves out."""
    for flag, (value, sections) in given.items():
        if value is not None and not {*sections} & {*options.sections}:
            about = " and ".join(sections)
            raise click.UsageError(f"{flag} is about {about}, which --sections leaves out")


def write(planned: InspectPlan) -> WrittenInspection:
    """Writes the page, with a bar for each section."""
    from vggc.cli.train import bar

    with bar(shown=True) as drawn:
        rows = {
            section: drawn.add_task(DOING[section], total=None, detail="", visible=False)
            for section in planned.options.sections
        }

        def show(section: InspectSection, done: int, total: int) -> None:
            if section in rows:
                detail = f"{done:,} of {total:,}"
                drawn.update(
                    rows[section], completed=done, total=total, detail=detail, visible=True
                )

        return planned.write(show)


def as_record(planned: InspectPlan, written: WrittenInspection) -> dict[str, object]:
    """What was found, as JSON; of sections that were not asked for there is null."""
    found = written.found
    filters, occlusion, climbed = found.filters, found.occlusion, found.class_image
    return {
        "page": str(written.path),
        "bytes": written.bytes,
        "run": planned.net.named,
        "net": planned.page.net,
        "image": str(planned.image),
        "sections": list(planned.options.sections),
        "class": found.explained.name,
        "score": found.explained.score,
        "probability": found.explained.probability,
        "best": [
            {"class": each.name, "score": each.score, "probability": each.probability}
            for each in found.best
        ],
        "filters": filters
        and {
            "images": filters.images,
            "of": filters.total,
            "unread": filters.unread,
            "why_none": filters.why_none,
            "patches": [
                {
                    "layer": each.layer.name,
                    "filter": each.number,
                    "here": each.here.value,
                    "best": [{"image": p.name, "value": p.value} for p in each.patches],
                }
                for each in filters.filters
            ],
        },
        "occlusion": occlusion
        and {
            "window": occlusion.square.window,
            "stride": occlusion.square.stride,
            "least_probability": float(occlusion.covered.min()),
        },
        "class_image": climbed
        and {
            "steps": climbed.steps,
            "score_before": climbed.score_before,
            "score": climbed.score,
            "probability": climbed.probability,
        },
    }
