"""Where in an image the score of a class comes from, by its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggc.inspection.layers import MapLayer
from vggc.inspection.net import InspectedNet, MapValues, OnLook, batch_of
from vggc_runtime.preprocessing import Pixels

NOISE = 0.15
"""The deviation of SmoothGrad's noise, as a share of the range of the image's values.
Source: Smilkov et al. (2017), figure 3, where 10 to 20 % look best."""


@dataclass(frozen=True)
class Evidence:
    """What an image says for a class.

    `gradient` (H, W) is how much the score changes for a grey level of each pixel; `smooth` (H, W)
    that of the mean over so many `copies` with noise; `cam` (h, w) is Grad-CAM at `layer`.
    """

    gradient: MapValues
    smooth: MapValues | None
    copies: int
    cam: MapValues | None
    layer: MapLayer | None


def evidence(
    net: InspectedNet,
    pixels: Pixels,
    number: int,
    layer: MapLayer | None,
    copies: int,
    seed: int,
    on_look: OnLook = lambda done, total: None,
) -> Evidence:
    """What an image, uint8 (H, W, C), says for the class `number`.

    Grad-CAM is taken at the layer, where there is one; SmoothGrad over so many copies, where it is
    asked for. `on_look` is told how many gradients of how many are done.
    """
    total = copies + 1
    image = batch_of([pixels])
    gradient, cam = of_one(net, image, number, layer)
    on_look(1, total)
    smooth, done = torch.zeros_like(gradient), 1
    for noisy in noisy_copies(image, copies, seed, net.at_once):
        smooth += gradients(net, noisy, number).sum(0) / copies
        on_look(done := done + len(noisy), total)
    return Evidence(
        gradient=greatest(gradient).numpy(),
        smooth=greatest(smooth).numpy() if copies else None,
        copies=copies,
        cam=None if cam is None else cam.numpy(),
        layer=layer,
    )


def of_one(
    net: InspectedNet, pixels: Tensor, number: int, layer: MapLayer | None
) -> tuple[Tensor, Tensor | None]:
    """The gradient (C, H, W) of a class's score by pixels (1, C, H, W) from 0 to 255, and, where
    there is a layer, Grad-CAM at it, (h, w).
    """
    images = net.inputs(pixels).requires_grad_(True)
    nodes = [net.head] if layer is None else [net.head, layer.node]
    found = net.outputs(images, nodes)
    score = found[net.head][0, number]
    by_pixel, *by_map = torch.autograd.grad(score, [images, *(found[node] for node in nodes[1:])])
    cam = grad_cam(found[nodes[1]][0].detach(), by_map[0][0]).cpu() if by_map else None
    return per_grey_level(net, by_pixel)[0], cam


def gradients(net: InspectedNet, pixels: Tensor, number: int) -> Tensor:
    """The gradient (N, C, H, W) of a class's score by each value of pixels from 0 to 255, on the
    CPU.
    """
    images = net.inputs(pixels).requires_grad_(True)
    # Each score depends on its own image alone, so the gradient of their sum is that of each.
    (found,) = torch.autograd.grad(net.scores(images)[:, number].sum(), images)
    return per_grey_level(net, found)


def per_grey_level(net: InspectedNet, gradient: Tensor) -> Tensor:
    """The gradient by the net's inputs, (N, C, H, W), as that by pixels from 0 to 255."""
    return net.normalised.reordered(gradient / net.normalised.std).cpu()


def greatest(gradient: Tensor) -> Tensor:
    """The saliency map (H, W) of a gradient (C, H, W): the greatest magnitude over the channels,
    M = max_c |∂S/∂I_c|.

    Source: Simonyan, Vedaldi & Zisserman (2014), section 3.1.
    """
    return gradient.abs().amax(0)


def grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (h, w) of the maps A (K, h, w) of a layer and the gradients of a class's score by
    them: ReLU(Σ_k α_k A_k), where α_k is the mean of ∂S/∂A_k over the places of the map.

    Source: Selvaraju et al. (2017), equations 1 and 2.
    """
    weights = gradients.mean((1, 2), keepdim=True)
    return (weights * maps).sum(0).relu()


def noisy_copies(pixels: Tensor, copies: int, seed: int, at_once: int) -> Iterator[Tensor]:
    """Copies (N, C, H, W) of pixels (1, C, H, W) with normal noise on each value, at most so many
    at once; the same for a seed however many are made at once.

    SmoothGrad is the mean of the gradients at such copies.
    Source: Smilkov et al. (2017), section 3.
    """
    values = pixels.to(torch.float32)
    deviation = NOISE * float(values.max() - values.min())
    draws = np.random.default_rng([seed, copies])
    for start in range(0, copies, at_once):
        count = min(at_once, copies - start)
        noise = draws.standard_normal((count, *values.shape[1:]), dtype=np.float32)
        yield values + deviation * torch.from_numpy(noise)
