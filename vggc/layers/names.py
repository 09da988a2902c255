"""How layers are called that bear no name: as in Caffe's VGG, conv1_1, pool1, fc6.

Inside a join, and in a head of its own, a name begins with the name of that: add1_conv1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vggc.layers.kinds import Kind
from vggc.syntax import ast


@dataclass
class _Scope:
    prefix: str = ""
    block: int = 1
    in_block: Counter[str] = field(default_factory=Counter)
    overall: Counter[str] = field(default_factory=Counter)


@dataclass
class LayerNames:
    """Gives each layer its name, in the order in which a net is built."""

    scopes: list[_Scope] = field(default_factory=lambda: [_Scope()])

    def take(self, layer: ast.Layer, kind: type[Kind]) -> str:
        """The name of the next layer."""
        scope, word = self.scopes[-1], kind.name
        scope.in_block[word] += 1
        scope.overall[word] += 1
        nth = scope.overall[word]
        if scope.prefix:
            name = f"{scope.prefix}_{word}{nth}"
        else:
            name = kind.scheme.format(
                kind=word, block=scope.block, nth=nth, nth_in_block=scope.in_block[word]
            )
        if kind.ends_block:
            scope.block += 1
            scope.in_block.clear()
        return layer.name or name

    @property
    def on_main_chain(self) -> bool:
        """Whether the next layer stands in no join and in no head."""
        return len(self.scopes) == 1

    @contextmanager
    def inside(self, prefix: str) -> Iterator[None]:
        """Within it, layers are named as in a join or a head called `prefix`."""
        self.scopes.append(_Scope(prefix))
        yield
        self.scopes.pop()
