"""What the parts of a set of images are usually called: one table for folders and for shards."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, TypeAlias

PartRole: TypeAlias = Literal["train", "val", "test"]
"""What a part is for: training, being held out of it, testing when all is done."""

CALLED: dict[str, tuple[PartRole, ...]] = {
    "train training trn": ("train",),
    "val valid validate validation dev devel development eval evaluation heldout holdout": ("val",),
    "test testing tests tst": ("test",),
    "trainval trainvalid trainvalidation": ("train", "val"),
}
USUAL = {name: frozenset(roles) for names, roles in CALLED.items() for name in names.split()}
"""What parts are usually called, and what for."""

BESIDE = [
    *("set", "sets", "data", "split", "part"),
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
]
"""Words that may stand beside such a name: `train_images`, `ValSet`."""

NAME = re.compile("(?:{0})*({1})(?:{0})*".format("|".join(BESIDE), "|".join(USUAL)))


def usual_name(name: str) -> str | None:
    """The name in `USUAL` that this one is a form of: in any case, with numbers, dashes and the
    words that may stand beside it. `Val2017` is `val`.
    """
    match = NAME.fullmatch(re.sub(r"[\W\d_]+", "", name).lower())
    return match and match[1]


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters: `segTrain_01` has `seg` and `train`."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def roles_of(names: Iterable[str]) -> dict[str, frozenset[PartRole]]:
    """What those of some folders beside one another are for that are called as parts are.

    Another word in a name counts where a second folder has it, too, and is for something else:
    `seg_train` and `seg_test` are parts, a `bullet_train` is a train.
    """
    found: dict[str, frozenset[PartRole]] = {}
    alike: dict[tuple[str, ...], dict[str, frozenset[PartRole]]] = defaultdict(dict)
    for name in names:
        if usual := usual_name(name):
            found[name] = USUAL[usual]
            continue
        words = words_of(name)
        known = [word for word in map(usual_name, words) if word]
        if len(known) == 1:
            rest = tuple(w for w in words if usual_name(w) is None and w not in BESIDE)
            alike[rest][name] = USUAL[known[0]]
    for group in alike.values():
        if len({*group.values()}) > 1:
            found |= group
    return found
