"""What the words of the language mean, in Markdown, from the definitions that vggc runs on."""

from __future__ import annotations

from vggc.layers import reference as layers_reference
from vggc.layers.kinds import Kind
from vggc.layers.resolve import PARAMETERS
from vggc.recipe import reference as recipe_reference
from vggc.recipe.blocks import HEAD, OptionalPart, PerHead, Variants
from vggc.recipe.blocks import options as options_of
from vggc.recipe.edit import SCHEMAS
from vggc.syntax.values import Flag, FlagOr, Maybe, NameValue, OneOf, OptionEntry
from vggc.syntax.values import ValueKind as ValueKind

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
    """What a keyword means, with an example, as Markdown; empty for another word."""
    if word not in KEYWORDS:
        return ""
    meaning, example = KEYWORDS[word]
    return f"{meaning}\n\n{code(example)}"


def code(text: str) -> str:
    """A text in vggc's language as a block of Markdown."""
    return f"```vgg\n{text}\n```"


# Layers


def layer_kind(kind: type[Kind]) -> str:
    """What a kind of layer is, with an example and all options."""
    found = layers_reference.entry(kind)
    options = "\n".join(f"- {_option(option)}" for option in found.options)
    head = f"**{found.name}**: {found.doc}"
    return "\n\n".join(filter(None, [head, code(found.example), options]))


def layer_option(kind: type[Kind], key: str) -> str:
    """What one option of a kind is and takes, and its default."""
    return next(
        _option(option) for option in layers_reference.entry(kind).options if option.key == key
    )


def _option(option: OptionEntry) -> str:
    return f"`{option.key}`: {option.doc}; {option.takes}{_default(option.default)}"


def _default(text: str) -> str:
    return f"; default: {text}" if text else ""


def values(kind: ValueKind) -> tuple[str, ...]:
    """The words that a value of a kind can be."""
    match kind:
        case OneOf(words):
            return words
        case Flag() | FlagOr():
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
    found = _entries(block, word)
    if not found:
        return ""
    if len(found) > 1:  # `init`, by what it says
        lines = [f"- `{entry.word.removeprefix(f'{word} ')}`: {entry.doc}" for entry in found]
        example = next(entry for entry in found if entry.default).example
        return "\n\n".join([f"**{word}**", "\n".join(lines), code(example)])
    (entry,) = found
    takes = f"; {entry.takes}{_default(entry.default)}" if entry.takes else _said(entry)
    options = "\n".join(f"- {_option(option)}" for option in entry.options)
    head = f"**{word}**: {entry.doc}{takes}"
    return "\n\n".join(filter(None, [head, code(entry.example), options]))


def _said(entry: recipe_reference.SettingEntry) -> str:
    return f"; {entry.default}" if entry.default else ""


def _entries(block: str, word: str, said: str = "") -> list[recipe_reference.SettingEntry]:
    """A setting as the reference has it; several where the word alone says too little."""
    if block not in SCHEMAS:
        return []
    exact = [e for e in recipe_reference.entries(block) if e.word in (word, f"{word} {said}")]
    return exact or [e for e in recipe_reference.entries(block) if e.word.startswith(f"{word} ")]


def _owner(block: str, word: str, said: str) -> tuple[type | None, str | None]:
    """The dataclass whose fields are the options of a setting, and its field that is none."""
    schema = SCHEMAS.get(block)
    key = schema.settings.get(word) if schema else None
    if schema is None or key is None:
        return None, None
    match schema.forms[key]:
        case Variants(types, bare):
            return types.get(word if bare else said), None
        case OptionalPart(owner, value) | PerHead(owner, value):
            return owner, value
        case _:
            return None, None


def setting_options(block: str, word: str, said: str = "") -> dict[str, ValueKind]:
    """The options of a setting with the value `said`, and what they take."""
    owner, value = _owner(block, word, said)
    found = options_of(owner, value) if owner else {}
    return {HEAD: NameValue(HEAD), **found} if _has_heads(block, word) else found


def _has_heads(block: str, word: str) -> bool:
    """Whether each head has a setting of its own by this word."""
    schema = SCHEMAS.get(block)
    return schema is not None and isinstance(schema.forms.get(word), PerHead)


def setting_option(block: str, word: str, said: str, key: str) -> str:
    """What one option of a setting takes, and its default."""
    options = [option for entry in _entries(block, word, said) for option in entry.options]
    return next((_option(option) for option in options if option.key == key), "")


def value_kind(block: str, word: str) -> ValueKind | None:
    """What the value of a setting is; None where it has none."""
    schema = SCHEMAS.get(block)
    key = schema.settings.get(word) if schema else None
    if schema is None or key is None:
        return None
    form = schema.forms[key]
    return None if isinstance(form, Variants) and form.bare else schema.kinds[key]
