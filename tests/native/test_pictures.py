"""What C makes of a picture is what Python makes of it, bit for bit."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT
from tests.support.aarch64 import COMPILER, MISSING, QEMU
from tests.support.c_programs import ADDRESSES, compiled, needs_cc
from vggc.compiler.preprocessing_table import preprocessing_initialiser
from vggc.preprocessing.presets import PRESETS, TORCHVISION
from vggc.program import from_zoo, zoo
from vggc_runtime.greys import Greys
from vggc_runtime.preprocessing import (
    LEAST_STD,
    MAX_ASPECT,
    MAX_PIXELS,
    MAX_SIDE,
    MOST,
    Pixels,
    Preprocessing,
    target_size,
)

pytestmark = needs_cc

DRIVER = Path(__file__).with_name("pictures_driver.c")
IMAGENET = TORCHVISION.at((3, 224, 224))
GREY = Preprocessing((28, 28), 32, (0.1307,), (0.3081,))
ODD = Preprocessing((37, 61), 64, (0.1, 0.7, 1 / 3), (0.123, 1e-7, 12345.678))
PLANS = (
    IMAGENET,
    replace(IMAGENET, scale=None),
    replace(IMAGENET, scale=384),
    GREY,
    replace(GREY, scale=None),
    ODD,
    replace(ODD, scale=None),
    replace(ODD, size=(1, 1), scale=1),
    replace(ODD, size=(97, 3), scale=None),
    replace(GREY, size=(5, 6), scale=600),
    replace(ODD, interpolation="bicubic", order="bgr"),
    replace(GREY, interpolation="bicubic"),
    replace(ODD, interpolation="box"),
    replace(ODD, interpolation="nearest"),
    replace(ODD, scale=None, fit="squash", interpolation="nearest", order="bgr"),
    replace(ODD, scale=None, fit="squash", interpolation="bicubic"),
    replace(ODD, scale=None, fit="pad", background=(1, 128, 250), order="bgr"),
    replace(GREY, scale=None, fit="pad", interpolation="box", background=(10, 200, 90)),
)
"""Crops of all of a picture's shorter side and of a small part of it, upright and lying, of one
pixel, in colour and in grey; squashed and padded ones; each filter that C has.
"""


class Picture(NamedTuple):
    """A picture (H, W, 3), for the plan of a number."""

    plan: int
    pixels: Pixels


Answer = bytes | str
"""The bytes of the values, or why there are none."""

Command = Path | Sequence[str | Path]
"""A driver, or what runs one."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver(tmp_path_factory.mktemp("pictures"), PLANS)


def driver(
    folder: Path, plans: Sequence[Preprocessing], *options: str, compiler: str = "cc"
) -> Path:
    each = ",\n".join(str(preprocessing_initialiser(plan)) for plan in plans)
    return driver_of(folder, each, *options, compiler=compiler)


def driver_of(folder: Path, each: str, *options: str, compiler: str = "cc") -> Path:
    (folder / "plans.c").write_text(f"static const plan_preprocessing plans[] = {{\n{each}\n}};\n")
    return compiled(DRIVER, folder, f"-I{folder}", *options, compiler=compiler)


def case(plan: int, width: int, height: int, row_bytes: int, rows: bytes = b"") -> bytes:
    return struct.pack("5q", plan, width, height, row_bytes, len(rows)) + rows


def case_of(picture: Picture, gap: int = 0) -> bytes:
    """The case of a picture, with a `gap` of some bytes between its rows."""
    height, width, _ = picture.pixels.shape
    rows = np.full((height, 3 * width + gap), 0xAA, np.uint8)
    rows[:, : 3 * width] = picture.pixels.reshape(height, 3 * width)
    whole = rows.tobytes()
    return case(picture.plan, width, height, 3 * width + gap, whole[: len(whole) - gap])


def answers(
    program: Command, cases: Sequence[bytes], plans: Sequence[Preprocessing] = PLANS
) -> Iterator[Answer]:
    command = [program] if isinstance(program, Path) else program
    done = subprocess.run(command, input=b"".join(cases), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    at = 0
    for each in cases:
        failed, at = done.stdout[at], at + 1
        plan = plans[struct.unpack_from("q", each)[0]]
        size = 128 if failed else 4 * len(plan.mean) * plan.size[0] * plan.size[1]
        given, at = done.stdout[at : at + size], at + size
        yield given.rstrip(b"\0").decode() if failed else given
    assert at == len(done.stdout)


def in_python(plan: Preprocessing, pixels: Pixels) -> bytes:
    return plan.of_picture(Image.fromarray(pixels)).tobytes()


def differing(
    program: Command, pictures: Sequence[Picture], plans: Sequence[Preprocessing] = PLANS
) -> list[tuple[object, ...]]:
    """The pictures of which C makes something else than Python."""
    given = answers(program, [case_of(each, gap=i % 4) for i, each in enumerate(pictures)], plans)
    return [
        (plans[picture.plan], picture.pixels.shape)
        for picture, answer in zip(pictures, given, strict=True)
        if answer != in_python(plans[picture.plan], picture.pixels)
    ]


def drawn(count: int, longest: int = 700, plans: Sequence[Preprocessing] = PLANS) -> list[Picture]:
    """Pictures for each plan: of one pixel, the very size that they are resized to, twenty times
    as large, of sizes whose sixth is a half, and of any sizes; some of black and white alone.
    """
    rng = np.random.default_rng(17)
    pictures = []
    for number, plan in enumerate(plans):
        width, height = target_size((16, 9), plan.scale, plan.size, plan.fit)
        sizes = [(1, 1), (width, height), (width + 1, height), (width, max(1, height - 1))]
        sizes += [(393, 384), (384, 399)]
        sizes += [(w, h) for w, h in ((width * 20, height * 20),) if w * h <= longest * longest]
        while len(sizes) < count:
            longer, aspect = rng.integers(1, longest), 2 ** rng.uniform(0, 5)
            pair = (int(longer), max(1, int(np.ceil(longer / aspect))))
            sizes.append(pair if rng.random() < 0.5 else pair[::-1])
        for i, (width, height) in enumerate(sizes):
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            if i % 5 == 4:
                pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
            pictures.append(Picture(number, pixels))
    return pictures


def test_the_values_are_those_of_python(program: Path) -> None:
    assert differing(program, drawn(30)) == []


@pytest.mark.slow
def test_nothing_beyond_a_picture_is_touched(tmp_path: Path) -> None:
    assert differing(driver(tmp_path, PLANS, *ADDRESSES), drawn(30)) == []


def test_memory_that_ends_is_told_and_given_back(tmp_path: Path) -> None:
    program = driver(tmp_path, [GREY], *ADDRESSES)
    of_40_by_60 = case_of(Picture(0, np.zeros((60, 40, 3), np.uint8)))
    done = subprocess.run([program, "starve"], input=of_40_by_60, capture_output=True)
    told = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(told) > 5
    assert set(told) == {"a picture of 40x60: out of memory"}


CONTRACTED = ("-O3", "-ffp-contract=fast")
"""Products may be joined with sums, and so rounded once instead of twice."""


@pytest.mark.slow
@pytest.mark.parametrize("options", [(*CONTRACTED, "-march=native"), ("-O0",)])
def test_no_compiler_changes_the_values(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert differing(driver(tmp_path, PLANS, *options), drawn(20)) == []


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_other_processors_give_the_same_values(tmp_path: Path) -> None:
    """aarch64 has joined products and sums in all its versions."""
    assert COMPILER is not None
    assert QEMU is not None
    compiler = COMPILER.replace("g++", "gcc")
    program = driver(tmp_path, PLANS, *CONTRACTED, "-static", compiler=compiler)
    assert differing([QEMU, program], drawn(7, 300)) == []


def test_the_zoo_is_prepared_for(tmp_path: Path) -> None:
    inputs = {from_zoo(name).graph.input for name in zoo()}
    plans = [TORCHVISION.at(each) for each in sorted(inputs)]
    plans += [replace(plan, scale=None) for plan in plans]
    plans += [preset.at((3, 224, 224)) for preset in PRESETS.values()]
    assert differing(driver(tmp_path, plans), drawn(7, 500, plans), plans) == []


def test_all_values_of_white_and_black_are_within_range(program: Path) -> None:
    """Many small shares are rounded to a little more than a whole in all."""
    white = [
        Picture(number, np.full((height, width, 3), value, np.uint8))
        for number in (5, 7)
        for value in (0, 255)
        for width, height in ((3001, 300), (300, 3001), (2000, 2000))
    ]
    assert differing(program, white) == []


@pytest.mark.parametrize(
    ("width", "height", "row_bytes", "reason"),
    [
        (0, 5, 0, "there are no pixels"),
        (5, 0, 15, "there are no pixels"),
        (-5, -5, 15, "there are no pixels"),
        (9460, 9459, 9460 * 3, "they are more than 89,478,485 pixels"),
        (1 << 62, 1 << 62, 0, "they are more than 89,478,485 pixels"),
        ((1 << 63) - 1, 1, (1 << 63) - 1, "they are more than 89,478,485 pixels"),
        (33, 1, 99, "too long and narrow"),
        (2, 65, 6, "too long and narrow"),
        (5, 5, 14, "rows begin less apart than they are long"),
        (5, 5, -15, "rows begin less apart than they are long"),
        (5, 5, (1 << 63) - 1, "rows begin too far apart"),
    ],
)
def test_what_is_no_picture_is_refused(
    program: Path, width: int, height: int, row_bytes: int, reason: str
) -> None:
    [answer] = answers(program, [case(0, width, height, row_bytes)])
    assert answer == f"a picture of {width}x{height}: {reason}"


def test_python_refuses_the_same_sizes() -> None:
    source = (ROOT / "vggc/native/pictures.c").read_text()
    limits = dict(re.findall(r"#define (MOST_\w+) (\d+)", source))
    assert limits == {"MOST_PIXELS": str(MAX_PIXELS), "MOST_ASPECT": str(MAX_ASPECT)}
    assert f"{MAX_PIXELS:,}" in source


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing((8, 8), 10, (0.5,) * 2, (0.5,) * 2),
        Preprocessing((8, 8), 10, (), ()),
        replace(GREY, std=(0.0,)),
        replace(GREY, mean=(float("nan"),)),
        replace(GREY, std=(0.5, 0.5)),
        replace(GREY, scale=27),
        replace(GREY, size=(0, 28)),
        replace(GREY, scale=MAX_SIDE + 1),
        replace(GREY, interpolation="lanczos"),
    ],
)
def test_what_c_does_not_know_has_no_table(how: Preprocessing) -> None:
    assert preprocessing_initialiser(how) is None


def test_a_table_says_all_of_a_preprocessing() -> None:
    text = preprocessing_initialiser(replace(GREY, scale=None, size=(28, 30)))
    assert text is not None
    assert ".channels = 1,\n  .fit = FIT_CROP, .interpolation = BY_BILINEAR,\n" in text
    assert ".height = 28, .width = 30,\n  .scale = 0,\n" in text
    values = [float.fromhex(word) for word in re.findall(r"(-?0x[\da-f.]+p[+-]\d+)f", text)]
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(values, GREY.normalise(every).ravel())


def test_deep_greys_are_the_decoders_matter() -> None:
    assert preprocessing_initialiser(replace(GREY, white=Greys(4095, 1.0))) == (
        preprocessing_initialiser(GREY)
    )


def test_the_largest_and_the_least_of_values_are_told_exactly(tmp_path: Path) -> None:
    plans = [
        Preprocessing((1, 1), 1, (mean,) * 3, (std,) * 3)
        for mean in (0.0, -0.0, MOST, -MOST, LEAST_STD, 1.0)
        for std in (LEAST_STD, MOST)
    ]
    pictures = [
        Picture(number, np.array([[values]], np.uint8))
        for number in range(len(plans))
        for values in ((0, 1, 255), (254, 128, 77))
    ]
    assert differing(driver(tmp_path, plans), pictures, plans) == []
