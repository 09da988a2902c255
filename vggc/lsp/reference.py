"""What the words of the language mean, in Markdown, from the definitions that vggc runs on."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from inspect import cleandoc
from typing import Any

from vggc.layers.kinds import Kind
from vggc.layers.resolve import PARAMETERS
from vggc.recipe.blocks import Part, Plain, Schema, Switch, Variants, dashed
from vggc.recipe.blocks import options as options_of
from vggc.recipe.edit import SCHEMAS
from vggc.values import Choice, Flag, Maybe
from vggc.values import Kind as ValueKind
from vggc.values import written as written_as

KEYWORDS = {
    "net": ("A file holds one net. Its name, then what it takes.", "net vgg16"),
    "from": ("Build on another net: the file beside this one, or the zoo's.", "net a from vgg16"),
    "input": ("Channels, height and width of the images that the net reads.", "input 3x224x224"),
    "let": ("A constant: a number, or a sum of numbers and names.", "let wide = 64 * 2"),
    "round": ("The nearest whole number.", "let wide = round(64 / 3)"),
    "every": (
        "Options for all layers of a kind that do not say otherwise.",
        "every conv norm=batch",
    ),
    "set": ("Change options of layers of the base.", "set conv1_1 stride=2"),
    "after": ("Insert layers behind others of the base.", "after every conv insert dropout"),
    "before": ("Insert layers in front of others of the base.", "before fc6 insert gap"),
    "insert": ("The layers to insert.", "after every pool insert lrn"),
    "replace": ("Put layers in the place of others.", "replace fc6..fc8 with fc-512 | fc-10"),
    "with": ("The layers that come instead.", "replace fc8 with fc-10"),
    "remove": ("Leave out layers of the base.", "remove every dropout"),
    "head": ("A further output of the net.", "head aux: @pool4 | gap | fc-1000 | softmax"),
    "train": ("The recipe: how the net is trained.", "train { batch 256 }"),
    "test": ("The protocol: how the trained net is tested.", "test { scales 224,256,288 }"),
}


def keyword(word: str) -> str:
    if word not in KEYWORDS:
        return ""
    meaning, example = KEYWORDS[word]
    return f"{meaning}\n\n{code(example)}"


def code(text: str) -> str:
    return f"```vgg\n{text}\n```"


# Layers


def layer_kind(kind: type[Kind]) -> str:
    """What a kind of layer is, with an example and all options."""
    lines = [f"**{kind.name}**: {kind.doc}", code(kind.example)]
    if options := [f"- {layer_option(kind, key)}" for key in kind.params()]:
        lines.append("\n".join(options))
    return "\n\n".join(lines)


def layer_option(kind: type[Kind], key: str) -> str:
    """What one option of a kind is and takes, and its default."""
    param = kind.params()[key]
    default = kind.defaults().get(key, MISSING)
    if default is None:
        ending = f"; default: {param.default}" if param.default else ""
    else:
        ending = "" if default is MISSING else f"; default {written_as(param.kind, default)}"
    return f"`{key}`: {param.doc}; {param.kind}{ending}"


def values(kind: ValueKind) -> tuple[str, ...]:
    """The words that a value of a kind can be."""
    match kind:
        case Choice(words):
            return words
        case Flag():
            return ("on", "off")
        case Maybe():
            return ("off",)
        case _:
            return ()


def parameter(key: str) -> str:
    """What a parameter is that every net has."""
    meaning = {
        "classes": "the number of classes",
        "width": "a factor for the channels and features of all hidden layers",
    }
    return f"`{key}`: {meaning[key]}; {PARAMETERS[key]}" if key in meaning else ""


# Settings


def settings(block: str) -> tuple[str, ...]:
    """The words that a line of a block can begin with."""
    schema = SCHEMAS.get(block)
    return tuple(schema.settings) if schema else ()


def setting(block: str, word: str) -> str:
    """What a setting is and takes, its default and an example."""
    schema = SCHEMAS.get(block)
    if schema is None or word not in schema.settings:
        return ""
    key = schema.settings[word]
    form, default = schema.forms[key], schema.flatten(schema.type()).get(key)
    head = f"**{word}**: {schema.kinds[key]}{'' if default is None else f'; default {default}'}"
    match form:
        case Plain(_, example) | Switch(example):
            meaning = _meaning(schema, key)
        case Part(owner):
            meaning, example = _doc(owner), owner.example
        case Variants(types, bare=True):
            head = f"**{word}**{', the default' if word == default else ''}"
            meaning, example = _doc(types[word]), types[word].example
        case Variants(types):
            meaning = "\n".join(f"- `{name}`: {_doc(owner)}" for name, owner in types.items())
            example = types[str(default)].example
    options = [f"- {setting_option(block, word, '', key)}" for key in setting_options(block, word)]
    return "\n\n".join(filter(None, [head, meaning, code(example), "\n".join(options)]))


def _meaning(schema: Schema[Any], key: str) -> str:
    """What the description of a block says of one setting, without what is Python's."""
    text = " ".join(cleandoc(schema.type.__doc__ or "").split())
    name = f"`{key.replace('-', '_')}`"
    clauses = re.split(r"(?<=\.) |; ", text)
    said = [clause.rstrip(".") for clause in clauses if name in clause and "None" not in clause]
    return "; ".join(said).replace(name, f"`{key}`")


def _doc(owner: type) -> str:
    return " ".join(cleandoc(owner.__doc__ or "").split())


def _owner(block: str, word: str, said: str) -> tuple[type | None, str | None]:
    """The dataclass whose fields are the options of a setting, and its field that is none."""
    schema = SCHEMAS.get(block)
    key = schema.settings.get(word) if schema else None
    if schema is None or key is None:
        return None, None
    match schema.forms[key]:
        case Variants(types, bare):
            return types.get(word if bare else said), None
        case Part(owner, value):
            return owner, value
        case _:
            return None, None


def setting_options(block: str, word: str, said: str = "") -> dict[str, ValueKind]:
    """The options of a setting with the value `said`, and what they take."""
    owner, value = _owner(block, word, said)
    return options_of(owner, value) if owner else {}


def setting_option(block: str, word: str, said: str, key: str) -> str:
    """What one option of a setting takes, and its default."""
    owner, _ = _owner(block, word, said)
    kind = setting_options(block, word, said).get(key)
    if owner is None or kind is None:
        return ""
    (default,) = (f.default for f in fields(owner) if dashed(f.name) == key)
    ending = "" if default is MISSING else f"; default {written_as(kind, default)}"
    return f"`{key}`: {kind}{ending}"


def value_kind(block: str, word: str) -> ValueKind | None:
    """What the value of a setting is; None where it has none."""
    schema = SCHEMAS.get(block)
    key = schema.settings.get(word) if schema else None
    if schema is None or key is None:
        return None
    form = schema.forms[key]
    return None if isinstance(form, Variants) and form.bare else schema.kinds[key]
