"""What C programmers get beside the library of a compiled net: a static one, the header, what build
systems read, and an example.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from shutil import copyfile
from textwrap import wrap

from vggc.compiler import diagnostics
from vggc.compiler.cpu_library import NATIVE, CpuLibrary, cpu_of
from vggc.compiler.link import LinkError, call, tool, workspace
from vggc.ir.ops import describe
from vggc.runtime.artifact import Manifest
from vggc.support.diagnostics import UserError
from vggc.support.templates import filled
from vggc_runtime.outputs import Output
from vggc_runtime.version import __version__


def write_standalone(
    library: CpuLibrary, manifest: Manifest, shared: Path, compiler: str, folder: Path
) -> None:
    """Writes to a new folder what C programmers want of a library, whose file `shared` is there.

    Raises:
        UserError: a tool beside the compiler fails.
        OSError: files cannot be written.
    """
    folder.mkdir()
    prefix = library.prefix
    for name, text in texts(manifest, prefix).items():
        (folder / name).write_text(text, "utf-8")
    copyfile(shared, folder / f"lib{prefix}.so")
    try:
        with workspace(folder) as (inside, _):
            whole = inside / f"{prefix}.o"
            whole.write_bytes(library.object)
            archive = str(folder / f"lib{prefix}.a")
            call([tool(compiler, "ar", inside), "rcsD", archive, str(whole)], inside)
    except LinkError as error:
        raise UserError(diagnostics.NotLinked(compiler, str(error))) from None


def texts(manifest: Manifest, prefix: str) -> dict[str, str]:
    """What a user of the library reads, by the names of files."""
    words = {
        "NET": prefix,
        "NAME": _comment(manifest.net),
        "VERSION": __version__,
        "COUNT": str(prod(manifest.input)),
        "HEADS": str(len(manifest.outputs)),
        "SIZES": str(len(manifest.sizes)),
    }
    names = {
        "net.h.in": f"{prefix}.h",
        "main.c.in": "main.c",
        "ppm.h": "read-ppm.h",  # as no net's header is called
        "net.pc.in": f"{prefix}.pc",
        "NETConfig.cmake.in": f"{prefix}Config.cmake",
        "README.in": "README",
    }
    about = _about(manifest)
    return {
        name: filled(
            (NATIVE / template).read_text("utf-8"),
            words | {"ABOUT": ("\n * " if name.endswith(".h") else "\n").join(about)},
        )
        for template, name in names.items()
    }


def _about(manifest: Manifest) -> list[str]:
    """What a net is, in lines."""
    several = "images at a time" if manifest.batches != (1,) else "image at a time"
    batches = " or ".join(map(str, manifest.batches))
    heads = [f"  {n}: {_output(each)}" for n, each in enumerate(manifest.outputs)]
    name, cpu = _comment(manifest.net), cpu_of(manifest.target)
    text = (
        f"The net {name}, compiled by vggc {__version__} for {cpu} in {manifest.precision}. "
        f"It computes {batches} {several}; a run takes any number."
    )
    sizes = wrap(_sizes(manifest), 96) if len(manifest.sizes) > 1 else []
    return [*wrap(text, 96), *wrap(_pixels(manifest), 96), *sizes, "Its outputs:", *heads]


def _sizes(manifest: Manifest) -> str:
    """Which sizes of images it takes besides the main one."""
    each = (
        f"{number}: {describe(size.size)}" + (" (the net applied densely)" if size.dense else "")
        for number, size in enumerate(manifest.sizes)
    )
    sizes = ", ".join(each)
    return f"It takes images of several sizes, height by width, of which 0 is usual: {sizes}."


def _pixels(manifest: Manifest) -> str:
    """What an image is, for those who make its floats."""
    how = manifest.preprocessing
    mean, std = (", ".join(f"{value:g}" for value in each) for each in (how.mean, how.std))
    order = how.order.upper() if manifest.input[0] == len("RGB") else "greys"
    return (
        f"An image is {describe(manifest.input)} floats, channels ({order}), height and width: "
        f"(v / 255 - mean) / std of its pixels v from 0 to 255, with mean {mean} and std {std}."
    )


def _output(output: Output) -> str:
    return f"{_comment(output.name)}, {output.kind}, {describe(output.shape)}"


def _comment(text: str) -> str:
    """A text that may stand in a comment of C."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("*/", "* /")
