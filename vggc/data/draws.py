"""All randomness of a training, as functions of its seed: the same in every process."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What randomness is for: each use has its own stream, so that none disturbs another."""

    ORDER = 0
    AUGMENTATION = 1
    STEP = 2
    INITIALISATION = 3
    COLOUR = 4
    MIXTURE = 5
    WINDOW = 6
    ROTATION = 7
    JITTER = 8
    RANDAUGMENT = 9
    ERASING = 10
    BALANCE = 11


def generator(seed: int, stream: Stream, *index: int) -> np.random.Generator:
    """The random numbers of a seed for one purpose, `stream`, at one place, `index`."""
    return np.random.default_rng([seed, stream, *index])


def torch_seed(seed: int, stream: Stream, *index: int) -> int:
    """A seed for torch's own generators, mixed from all numbers given."""
    mixed = np.random.SeedSequence([seed, stream, *index]).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))
