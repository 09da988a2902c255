"""Many short texts in little memory: a million file names are no million objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

CODEC, ERRORS = "utf-8", "surrogateescape"


@dataclass(frozen=True)
class Strings(Sequence[str]):
    """Texts one behind the other; the one with number i ends before byte `ends[i]`."""

    text: bytes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """Some texts in one row. File names that are no UTF-8 come back as they were."""
        parts = [text.encode(CODEC, ERRORS) for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(b"".join(parts), ends)

    @classmethod
    def joined(cls, parts: Iterable[Strings]) -> Strings:
        """The texts of all of these, in one row."""
        kept = [*parts]
        before = np.cumsum([0, *(len(part.text) for part in kept)])
        ends = [part.ends + start for part, start in zip(kept, before, strict=False)]
        text = b"".join(part.text for part in kept)
        return cls(text, np.concatenate([np.empty(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Strings: ...

    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            return Strings.of(self[i] for i in range(len(self))[index])
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].decode(CODEC, ERRORS)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
