"""Weights in files of safetensors, which is also the form that vggc writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

import numpy as np
from numpy.typing import NDArray

from vggc.support.tensors import FLOATS, TensorFile, read_header
from vggc.weight_files.facts import facts_in
from vggc.weight_files.weight_file import FileTensor, WeightFile, unwrapped


@contextmanager
def opened_safetensors(file: BufferedReader) -> Iterator[WeightFile]:
    """The weights in an open file. Files of this form are sorted by names, so their order says
    nothing of a net's.

    Raises: MalformedError where it is no such file, or its facts are wrong.
    """
    found = TensorFile(file, *read_header(file))
    short = unwrapped(found.tensors)

    def reader(name: str) -> NDArray[np.float32]:
        return found.floats(tensors[name].name)

    tensors = {
        short[name]: FileTensor(name, stored.shape, stored.kind, stored.kind in FLOATS)
        for name, stored in found.tensors.items()
    }
    facts = facts_in(found.metadata)
    yield WeightFile(form="safetensors", tensors=tensors, reader=reader, facts=facts)
