"""A trained net on a device, open to be looked into."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggc.backends.torch import TorchNet, build
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.passes.dense import peak
from vggc.training.augment import Normaliser
from vggc.training.learner import in_channels_last
from vggc_runtime.preprocessing import Pixels, Preprocessing

OnLook: TypeAlias = Callable[[int, int], None]
"""Is told how much of how much has been looked at."""
MapValues: TypeAlias = npt.NDArray[np.float32]
"""Values of maps, rows and columns last."""

VALUES_AT_ONCE = 1 << 26
"""The most values that are in memory while several images are computed: 256 MiB in float32."""
MOST_AT_ONCE = 64
"""The most images that are computed together."""


@dataclass(frozen=True)
class InspectedNet:
    """A net whose one head gives the scores of classes. Its weights have no gradients."""

    graph: Graph
    module: TorchNet
    normalised: Normaliser
    device: torch.device

    @classmethod
    def of(
        cls, graph: Graph, weights: Weights, preprocessing: Preprocessing, device: torch.device
    ) -> InspectedNet:
        """The net of a graph that has one head, of the scores of classes; its weights take no
        memory of their own on a CPU, but for those of convolutions.
        """
        module = in_channels_last(build(graph, weights).to(device)).eval().requires_grad_(False)
        assert isinstance(module, TorchNet)
        return cls(graph, module, Normaliser.of(preprocessing, device), device)

    @property
    def head(self) -> int:
        """The node that gives the scores."""
        return self.graph.heads[0].node

    @property
    def at_once(self) -> int:
        """How many images are computed together."""
        return max(1, min(MOST_AT_ONCE, VALUES_AT_ONCE // peak(self.graph)))

    def inputs(self, pixels: Tensor) -> Tensor:
        """Pixels from 0 to 255, (N, C, H, W), as the net's input, float32."""
        images = self.normalised(pixels.to(self.device))
        return images.contiguous(memory_format=torch.channels_last)

    def outputs(self, images: Tensor, nodes: Collection[int]) -> dict[int, Tensor]:
        """What some nodes give of inputs (N, C, H, W); what comes behind the last of them is not
        computed.
        """
        last = max(nodes)
        found: dict[int, Tensor] = {}
        for index, value in enumerate(self.module.outputs(images)):
            if index in nodes:
                found[index] = value
            if index == last:
                break
            del value  # not kept while the next one is computed
        return found

    def scores(self, images: Tensor) -> Tensor:
        """The scores (N, classes) of inputs (N, C, H, W)."""
        return self.outputs(images, (self.head,))[self.head]

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probabilities (N, classes) of pixels (N, C, H, W) from 0 to 255, on the CPU; no more
        than `at_once` together.
        """
        count = -(-len(pixels) // self.at_once)
        parts = [self.scores(self.inputs(part)).softmax(1) for part in pixels.chunk(count)]
        return torch.cat(parts).cpu()

    def look(self, pixels: Pixels) -> tuple[MapValues, MapValues]:
        """The scores and the probabilities (classes,) of an image, uint8 (H, W, C)."""
        with torch.inference_mode():
            scores = self.scores(self.inputs(batch_of([pixels])))[0]
            return scores.cpu().numpy(), scores.softmax(0).cpu().numpy()

    def maps(self, pixels: Pixels, nodes: Collection[int]) -> dict[int, MapValues]:
        """The maps (K, h, w) that nodes give of an image, uint8 (H, W, C)."""
        if not nodes:
            return {}
        with torch.inference_mode():
            found = self.outputs(self.inputs(batch_of([pixels])), nodes)
            return {node: values[0].contiguous().cpu().numpy() for node, values in found.items()}


def batch_of(pixels: Sequence[Pixels]) -> Tensor:
    """Images, each uint8 (H, W, C), as one tensor (N, C, H, W)."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
