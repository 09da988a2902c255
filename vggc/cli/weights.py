"""`vggc weights`."""

from __future__ import annotations

import json
from typing import Any

import click

from vggc.cli import console
from vggc.pretrained.diagnostics import NoPublishedWeights
from vggc.pretrained.fetch import address_of
from vggc.pretrained.store import file_of, place_of
from vggc.pretrained.table import CLASSES, LICENCE, PUBLISHED, VERSION, Published
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.sheet import Sheet


@click.command("weights")
@click.argument("net", required=False)
@click.option("--fetch", is_flag=True, help="Fetch those of NET, for a time without network.")
@click.option("--json", "as_json", is_flag=True, help="Print an object, or a list of objects.")
def command(net: str | None, fetch: bool, as_json: bool) -> None:
    """List the nets of the zoo that have published weights; with NET what is known of its weights:
    accuracy, preprocessing, size, licence, place.

    `--weights imagenet` takes them, `vggc train NET --init-from imagenet` begins with them. They
    are fetched when they are first taken.
    """
    if net is None:
        if fetch:
            raise click.UsageError("--fetch needs a NET")
        if as_json:
            console.out(json.dumps([*map(_object, PUBLISHED.values())], indent=2))
        else:
            console.sheet(_sheet())
        return
    if net not in PUBLISHED:
        reason = did_you_mean(net, [*PUBLISHED])
        raise UserError(NoPublishedWeights(net, reason, ", ".join(PUBLISHED)))
    found = PUBLISHED[net]
    if fetch:
        file_of(found)
    if as_json:
        console.out(json.dumps(_object(found), indent=2))
        return
    for what, value in _told(found).items():
        console.out(f"{what:<14} {value}")


def _sheet() -> Sheet:
    rows = tuple(
        (
            each.net,
            f"{each.mebibytes:,.1f}",
            f"{each.top1:.2f}",
            f"{each.top5:.2f}",
            f"{each.resize} → {each.crop}",
            "yes" if place_of(each).is_file() else "",
        )
        for each in PUBLISHED.values()
    )
    return Sheet(
        title="published weights",
        header=("net", "MiB", "top-1, %", "top-5, %", "pictures", "fetched"),
        rows=rows,
        numbers=(False, True, True, True, False, False),
        notes=(
            f"torchvision's {VERSION}, of ImageNet's {CLASSES:,} classes; accuracies by the centre"
            " crop, as torchvision publishes them; `vggc weights NET` tells more",
        ),
    )


def _told(published: Published) -> dict[str, str]:
    """What is known of weights, in words."""
    whole = "" if published.is_known_whole else "… (the rest is noted when they are first fetched)"
    place = place_of(published)
    return {
        "weights": published.title,
        "accuracy": f"top-1 {published.top1:.2f} %, top-5 {published.top5:.2f} %, as published",
        "pictures": published.seen,
        "classes": f"ImageNet's {CLASSES:,}",
        "size": f"{published.mebibytes:,.1f} MiB",
        "SHA-256": published.sha256 + whole,
        "licence": LICENCE,
        "address": address_of(published),
        "place": f"{place}{'' if place.is_file() else ' (not fetched yet)'}",
    }


def _object(published: Published) -> dict[str, Any]:
    place = place_of(published)
    return {
        "net": published.net,
        "weights": VERSION,
        "top1": published.top1,
        "top5": published.top5,
        "resize": published.resize,
        "crop": published.crop,
        "mean": published.mean,
        "std": published.std,
        "classes": CLASSES,
        "mebibytes": published.mebibytes,
        "sha256": published.sha256,
        "licence": LICENCE,
        "address": address_of(published),
        "place": str(place),
        "fetched": place.is_file(),
    }
