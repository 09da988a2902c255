"""An image that a net holds for the very type of a class, found by climbing its score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vggc.inspection.net import InspectedNet, OnLook
from vggc_runtime.preprocessing import Pixels

SCALES = (4, 2, 1)
"""An image begins at a fourth of the resolution, so that large shapes come before small ones."""
LEAST_SIDE = 8
"""Pixels along the shorter side of the smallest image that is climbed with."""
STEPS = 20
"""Steps at each resolution."""
STEP = 0.1
"""How far the first step at a resolution goes, in deviations of the training images' pixels; the
others are shorter, the last a twentieth as long."""
PENALTY = 0.5
"""The gradient of λ‖I‖², over I and over the length of the score's gradient at each step."""
JITTER = 16
"""Before a step an image is moved by at most a sixteenth of its sides."""


@dataclass(frozen=True)
class ClassImage:
    """The image of a class: uint8 (H, W, C), and the class's score at the mean image, from which
    it was climbed to, and at the image itself, with its probability there.
    """

    pixels: Pixels
    score_before: float
    score: float
    probability: float
    steps: int


def class_image(
    net: InspectedNet, number: int, seed: int, on_look: OnLook = lambda done, total: None
) -> ClassImage:
    """An image whose score of the class `number` is high, the same for a seed.

    It climbs S(I) − λ‖I‖², I being the image less the training images' mean over their deviation,
    so that it begins at the mean image, 0. Each step goes along ĝ − PENALTY·I, ĝ being the gradient
    of S brought to a mean square of 1: λ follows the gradient's length, so that the steps are alike
    for nets of large and of small scores. Before a step the image is moved by a few pixels at
    random, across the border to the other side, and after it what no pixel can show is cut off. It
    is climbed with at a fourth of the resolution, at half of it and at all of it, enlarged by
    linear interpolation; of all images on the way the one with the greatest score is taken.
    `on_look` is told how many steps of how many are done.

    Source: Simonyan, Vedaldi & Zisserman (2014), section 2, for the objective and the start;
    Mordvintsev, Olah & Tyka (2015) for jitter, steps of equal length and growing resolution.
    """
    size = net.graph.input[1:]
    low, high = net.inputs(torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, *net.graph.input))
    scales = [scale for scale in SCALES if scale == 1 or min(size) >= scale * LEAST_SIDE]
    total = len(scales) * STEPS
    draws = np.random.default_rng([seed, number])
    image = torch.zeros(1, *net.graph.input, device=net.device)
    before = greatest = score_of(net, image, number)
    best, done = image, 0
    for scale in scales:
        side = (-(-size[0] // scale), -(-size[1] // scale))
        image = enlarged(image, side)
        least, most = (bound[None, :, : side[0], : side[1]] for bound in (low, high))
        for step in range(STEPS):
            score, way = slope(net, image, number, drawn_shift(draws, size))
            if score > greatest:
                greatest, best = score, image
            image = (image + STEP * (1 - step / STEPS) * way).maximum(least).minimum(most)
            on_look(done := done + 1, total)
    if score_of(net, image, number) > greatest:
        best = image
    pixels = as_pixels(net, enlarged(best, size))
    shown = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    score = score_of(net, net.inputs(shown), number)
    sure = float(net.probabilities(shown)[0, number])
    return ClassImage(
        pixels=pixels, score_before=before, score=score, probability=sure, steps=total
    )


def slope(
    net: InspectedNet, image: Tensor, number: int, moved_by: tuple[int, int]
) -> tuple[float, Tensor]:
    """The score of a small image (1, C, h, w), which is enlarged to I and moved, and where a step
    goes from it: along the score's gradient, brought to a mean square of 1, less the penalty.
    There is none where the gradient is 0.
    """
    small = image.detach().requires_grad_(True)
    whole = enlarged(small, net.graph.input[1:])
    score = net.scores(whole.roll(moved_by, (2, 3)))[0, number]
    (gradient,) = torch.autograd.grad(score, small)
    length = gradient.square().mean().sqrt()
    way = gradient / length - PENALTY * image if length > 0 else gradient
    return float(score.detach()), way


def drawn_shift(draws: np.random.Generator, size: tuple[int, ...]) -> tuple[int, int]:
    """How far an image of a size (H, W) is moved down and to the right before a step."""
    down, right = (int(draws.integers(-most, most + 1)) for most in (s // JITTER for s in size))
    return down, right


def enlarged(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Images (1, C, h, w) at another size (H, W), by linear interpolation."""
    if image.shape[2:] == size:
        return image
    return interpolate(image, size, mode="bilinear", align_corners=False)


def score_of(net: InspectedNet, image: Tensor, number: int) -> float:
    """The score of a class for an input (1, C, H, W)."""
    with torch.inference_mode():
        return float(net.scores(image)[0, number])


def as_pixels(net: InspectedNet, image: Tensor) -> Pixels:
    """An input (1, C, H, W) as the pixels that it stands for, uint8 (H, W, C)."""
    levels = image.detach() * net.normalised.std + net.normalised.mean
    values = net.normalised.reordered(levels)
    pixels: Pixels = values[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(pixels)
