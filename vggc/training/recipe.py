"""How a net is trained: the `train { … }` block as data. Imports no torch.

A recipe can also be seen as a flat table, `{"batch": 256, "sgd.lr": 0.01, …}`. A block
and a `--set` both only say something about that table; `build` alone checks it and
turns it into a `Recipe`. A new setting is a field here, and a line in `SETTINGS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from vggc.diagnostics import Diagnostic, UserError, did_you_mean
from vggc.layers.elaborate import MAX_SIDE
from vggc.source import Source, Span
from vggc.syntax import ast
from vggc.syntax.parse import parse_block, parse_value
from vggc.training import mistakes

# Kinds of values


@dataclass(frozen=True)
class Whole:
    """A whole number, both bounds included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"a whole number from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Real:
    """A number, both bounds included unless `above` excludes the lower one."""

    low: float
    high: float
    above: bool = False

    def __str__(self) -> str:
        if self.above:
            return f"a number above {self.low:g}, at most {self.high:g}"
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(filter(None, [", ".join(self.words[:-1]), self.words[-1]]))


@dataclass(frozen=True)
class Flag:
    """`on` or `off`."""

    def __str__(self) -> str:
        return "on or off"


@dataclass(frozen=True)
class Pixels:
    """A size in pixels, a range of sizes, or `off`."""

    high: int

    def __str__(self) -> str:
        return f"pixels up to {self.high:,} (256), a range (256..512) or off"


Kind: TypeAlias = Whole | Real | Choice | Flag | Pixels


def limited(default: Any, kind: Kind) -> Any:
    """A dataclass field with its default and the values it takes."""
    return field(default=default, metadata={"kind": kind})


# The recipe


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: v ← momentum·v + g + weight_decay·w;  w ← w − lr·v."""

    lr: float = limited(0.01, Real(0, 1000, above=True))
    momentum: float = limited(0.9, Real(0, 1))
    weight_decay: float = limited(5e-4, Real(0, 1000))


@dataclass(frozen=True)
class Plateau:
    """Multiply the rate by `factor` after `patience` epochs without a better held-out top-1.

    Source: Simonyan & Zisserman (2015), section 3.1: factor 0.1, three drops. They leave
    the patience open.
    """

    factor: float = limited(0.1, Real(0, 1, above=True))
    drops: int = limited(3, Whole(0, 100))
    patience: int = limited(5, Whole(1, 10_000))


@dataclass(frozen=True)
class OneCycle:
    """Rise from `start`·lr to lr in the first `warm_up` of all steps, then fall to `end`·lr.

    Source: Smith & Topin (2018), "Super-convergence", with cosine ramps.
    """

    warm_up: float = limited(0.3, Real(0, 1))
    start: float = limited(0.04, Real(0, 1))
    end: float = limited(1e-4, Real(0, 1))


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""


@dataclass(frozen=True)
class Glorot:
    """Uniform in ±√(6 / (fan_in + fan_out)). Source: Glorot & Bengio (2010), formula 16."""


@dataclass(frozen=True)
class He:
    """Normal with variance 2 / fan_in. Source: He et al. (2015), formula 10."""


@dataclass(frozen=True)
class Normal:
    """Normal with one standard deviation. Source: Simonyan & Zisserman (2015), section 3.1."""

    std: float = limited(0.1, Real(0, 1000, above=True))


Optimiser: TypeAlias = Sgd
Schedule: TypeAlias = Plateau | OneCycle | Constant
Init: TypeAlias = Glorot | He | Normal

VARIANTS: Mapping[str, Mapping[str, type]] = {
    "optimiser": {"sgd": Sgd},
    "schedule": {"plateau": Plateau, "one-cycle": OneCycle, "constant": Constant},
    "init": {"glorot": Glorot, "he": He, "normal": Normal},
}


def words(name: str) -> dict[str, Kind]:
    """The metadata of a field that holds one of the variants of `name`."""
    return {"kind": Choice(tuple(VARIANTS[name]))}


@dataclass(frozen=True)
class Recipe:
    """Everything that training needs beyond the net, the images and a seed.

    `batch` and `epochs` are counts of images and of passes over them. `scale` holds the
    least and the greatest length in pixels to which an image's shorter side is brought
    before the random crop; None: the image is made to just cover the net's input.
    """

    batch: int = limited(256, Whole(1, 65_536))
    epochs: int = limited(74, Whole(1, 100_000))
    optimiser: Optimiser = field(default_factory=Sgd, metadata=words("optimiser"))
    schedule: Schedule = field(default_factory=Plateau, metadata=words("schedule"))
    init: Init = field(default_factory=Glorot, metadata=words("init"))
    scale: tuple[int, int] | None = limited(None, Pixels(MAX_SIDE))
    flip: bool = limited(False, Flag())


# How the settings of a block fill the table


@dataclass(frozen=True)
class Form:
    """A setting fills `field`: with its one value, or with the word it `says` by its name."""

    field: str
    example: str
    says: str | None = None


SETTINGS: Mapping[str, Form] = {
    "batch": Form("batch", "batch 256"),
    "epochs": Form("epochs", "epochs 74"),
    "sgd": Form("optimiser", "sgd lr=0.01 momentum=0.9", says="sgd"),
    "plateau": Form("schedule", "plateau factor=0.1 drops=3", says="plateau"),
    "one-cycle": Form("schedule", "one-cycle warm-up=0.3", says="one-cycle"),
    "constant": Form("schedule", "constant", says="constant"),
    "init": Form("init", "init glorot"),
    "scale": Form("scale", "scale 256"),
    "flip": Form("flip", "flip", says="on"),
}


def option_key(variant: str, name: str) -> str:
    return f"{variant}.{name.replace('_', '-')}"


def option_keys(variant: str, kind: type) -> dict[str, str]:
    """The table's key for each field of a variant's dataclass."""
    return {f.name: option_key(variant, f.name) for f in fields(kind)}


KINDS: Mapping[str, Kind] = {f.name: f.metadata["kind"] for f in fields(Recipe)} | {
    option_key(variant, f.name): f.metadata["kind"]
    for variants in VARIANTS.values()
    for variant, kind in variants.items()
    for f in fields(kind)
}

DEFAULTS: Mapping[str, Any] = {
    option_key(variant, f.name): f.default
    for variants in VARIANTS.values()
    for variant, kind in variants.items()
    for f in fields(kind)
}

Table: TypeAlias = Mapping[str, ast.Value]
"""Each key of the recipe with its value as written. Options of variants that are not
chosen may be missing; so may everything that keeps its default."""


def read_recipe(block: ast.Block | None) -> Recipe:
    """The recipe that a `train` block describes; what it leaves out keeps its default.

    Raises:
        UserError: with every mistake in the block.
    """
    table, found = entries(block.settings if block else ())
    recipe, more = build(table)
    report(sorted([*found, *more], key=place))
    return recipe


def place(mistake: Diagnostic) -> int:
    return mistake.span.start if mistake.span else 0


def entries(settings: Iterable[ast.Setting]) -> tuple[dict[str, ast.Value], list[Diagnostic]]:
    """What the settings of a block say about the table, and the mistakes in their form."""
    table: dict[str, ast.Value] = {}
    found: list[Diagnostic] = []
    setters: dict[str, ast.Setting] = {}
    for setting in settings:
        form = SETTINGS.get(setting.key)
        if form is None:
            suggestion = did_you_mean(setting.key, tuple(SETTINGS))
            found.append(mistakes.UnknownSetting(key_span(setting), setting.key, suggestion))
        elif form.field in setters:
            found.append(repeated(form.field, setters[form.field], setting))
        elif len(setting.values) != (form.says is None):
            setters[form.field] = setting
            found.append(wrong_number_of_values(setting, form))
        else:
            setters[form.field] = setting
            value = named(form, setting) if form.says else setting.values[0]
            options, more = option_entries(setting, str(value))
            table |= {form.field: value, **options}
            found += more
    return table, found


def option_entries(
    setting: ast.Setting, variant: str
) -> tuple[dict[str, ast.Value], list[Diagnostic]]:
    """The table's entries for the `key=value` options behind a setting."""
    variants = VARIANTS.get(SETTINGS[setting.key].field)
    if variants is not None and variant not in variants:
        return {}, []  # the word itself is the mistake
    owner = variant if variants else setting.key
    known = [key.removeprefix(f"{variant}.") for key in KINDS if key.startswith(f"{variant}.")]
    table: dict[str, ast.Value] = {}
    found: list[Diagnostic] = []
    for option in setting.options:
        key = f"{variant}.{option.key}"
        if option.key not in known:
            suggestion = did_you_mean(option.key, known) if known else "it takes none"
            key_place = option.span.part(0, len(option.key))
            found.append(mistakes.UnknownRecipeOption(key_place, owner, option.key, suggestion))
        elif key in table:
            found.append(mistakes.RepeatedRecipeOption(option.span, option.key))
        else:
            table[key] = option.value
    return table, found


def key_span(setting: ast.Setting) -> Span:
    return setting.span.part(0, len(setting.key))


def named(form: Form, setting: ast.Setting) -> ast.Word:
    return ast.Word(form.says or "", span=key_span(setting))


def repeated(name: str, first: ast.Setting, second: ast.Setting) -> Diagnostic:
    if first.key == second.key:
        before = first.span.text.strip()
        return mistakes.RepeatedSetting(key_span(second), second.key, before)
    return mistakes.RivalSettings(key_span(second), name, first.key, second.key)


def wrong_number_of_values(setting: ast.Setting, form: Form) -> Diagnostic:
    expected = "no value" if form.says else "one value"
    count = len(setting.values)
    given = {0: "no value", 1: "one value"}.get(count, f"{count} values")
    return mistakes.WrongNumberOfValues(setting.span, setting.key, expected, given, form.example)


def build(table: Table) -> tuple[Recipe, list[Diagnostic]]:
    """The recipe of a table over the defaults, and every value that does not fit.

    Values that do not fit keep their default, so that one call finds all of them.
    """
    values: dict[str, Any] = {}
    found: list[Diagnostic] = []
    for key, written in table.items():
        value = convert(KINDS[key], written)
        if value is None:
            found.append(misfit(key, KINDS[key], written))
        else:
            values[key] = value
    return assemble(values), found


def assemble(values: Mapping[str, Any]) -> Recipe:
    """A recipe from values that fit; what is missing keeps its default."""
    top = {f.name: values[f.name] for f in fields(Recipe) if f.name in values}
    chosen = words_of(Recipe()) | {k: v for k, v in top.items() if k in VARIANTS}
    for name, variant in chosen.items():
        kind = VARIANTS[name][variant]
        keys = option_keys(variant, kind)
        top[name] = kind(**{f: values[key] for f, key in keys.items() if key in values})
    if top.get("scale") == ():
        top["scale"] = None
    return Recipe(**top)


def convert(kind: Kind, value: ast.Value) -> Any:
    """The plain value that was written, or None if it is not of this kind.

    `off` for a size is `()`, to tell it from None.
    """
    match kind, value:
        case Whole(low, high), ast.Number(value=int(number)) if low <= number <= high:
            return number
        case Real(low, high, above), ast.Number(value=number) if low <= number <= high:
            return None if above and number == low else float(number)
        case Choice(words), ast.Word(text) if text in words:
            return text
        case Flag(), ast.Word("on" | "off" as text):
            return text == "on"
        case Pixels(), ast.Word("off"):
            return ()
        case Pixels(high), ast.Number(value=int(size)) if 1 <= size <= high:
            return size, size
        case Pixels(high), ast.Range(ast.Number(value=int(least)), ast.Number(value=int(most))) if (
            1 <= least <= most <= high
        ):
            return least, most
        case _:
            return None


def misfit(key: str, kind: Kind, value: ast.Value) -> Diagnostic:
    suggestion = ""
    if isinstance(kind, Choice) and isinstance(value, ast.Word):
        suggestion = did_you_mean(value.text, kind.words)
    return mistakes.WrongValue(value.span, key, str(kind), str(value), suggestion)


def report(found: Sequence[Diagnostic]) -> None:
    if found:
        raise UserError(*found)


# From a recipe back to text


def words_of(recipe: Recipe) -> dict[str, str]:
    """The word for each variant that the recipe chose."""
    return {
        name: word
        for name, variants in VARIANTS.items()
        for word, kind in variants.items()
        if type(getattr(recipe, name)) is kind
    }


def flatten(recipe: Recipe) -> dict[str, str | int | float]:
    """The recipe as a flat table of plain values: `{"batch": 256, "sgd.lr": 0.01, …}`."""
    chosen = words_of(recipe)
    table: dict[str, str | int | float] = {}
    for f in fields(Recipe):
        value = getattr(recipe, f.name)
        match f.metadata["kind"]:
            case Choice():
                table[f.name] = chosen[f.name]
                keys = option_keys(chosen[f.name], type(value))
                table |= {key: getattr(value, name) for name, key in keys.items()}
            case Flag():
                table[f.name] = "on" if value else "off"
            case Pixels():
                table[f.name] = written_scale(value)
            case _:
                table[f.name] = value
    return table


def written_scale(scale: tuple[int, int] | None) -> str | int:
    match scale:
        case None:
            return "off"
        case (low, high) if low == high:
            return low
        case (low, high):
            return f"{low}..{high}"


def unflatten(table: Mapping[str, str | int | float], name: str) -> Recipe:
    """The inverse of `flatten`, for a table that was read from the file `name`.

    Raises:
        UserError: a key is unknown, or a value does not fit.
    """
    return override(Recipe(), [f"{key}={value}" for key, value in table.items()], name)


def to_block(recipe: Recipe) -> ast.Block:
    """The block that describes the recipe in full; `read_recipe` is the inverse."""
    lines = [line for key, form in SETTINGS.items() for line in setting_line(recipe, key, form)]
    return parse_block(Source("<recipe>", "\n".join(["train {", *lines, "}"])))


def setting_line(recipe: Recipe, key: str, form: Form) -> list[str]:
    """The line that a setting takes in the block: one, or none where it is not used."""
    table = flatten(recipe)
    word = table[form.field]
    if word == "off" or (form.says and word != form.says):
        return []
    prefix = f"{word}."
    options = [f"{k.removeprefix(prefix)}={v}" for k, v in table.items() if k.startswith(prefix)]
    return [" ".join([key, *([] if form.says else [str(word)]), *options])]


# Changes from the command line


def override(recipe: Recipe, changes: Iterable[str], name: str = "--set") -> Recipe:
    """The recipe with `key=value` changes; a later one wins over an earlier one.

    A key is one of the flat table's, with or without `train.` before it (`train.sgd.lr`),
    or its last part where only one key ends so (`lr`).

    Raises:
        UserError: with every change that is malformed, unknown, unfit or without effect.
    """
    table: dict[str, ast.Value] = {}
    places: dict[str, Span] = {}
    found: list[Diagnostic] = []
    for text in changes:
        whole = Span(Source(name, text), 0, len(text))
        written, equals, value = text.partition("=")
        key = resolve(written) if equals and value else None
        match key:
            case str():
                places[key] = whole.part(0, len(written))
                try:
                    table[key] = value_at(whole.part(len(written) + 1, len(text)))
                except UserError as error:
                    found += [malformed(key, whole, fault) for fault in error.diagnostics]
            case None:
                found.append(mistakes.MalformedOverride(whole, text))
            case candidates:
                found.append(unresolved(whole.part(0, len(written)), candidates))
    before = {k: parse_value(Source("<recipe>", str(v))) for k, v in flatten(recipe).items()}
    changed, misfits = build(before | table)
    unused = [unused_option(places[key], key, changed) for key in table if not has(changed, key)]
    report([*found, *misfits, *unused])
    return changed


def value_at(span: Span) -> ast.Value:
    """The value that is written at a place.

    Raises:
        UserError: it is none; places in it count from the start of the value.
    """
    return replace(parse_value(Source(span.source.name, span.text)), span=span)


def malformed(key: str, whole: Span, fault: Diagnostic) -> Diagnostic:
    _, _, value = whole.text.partition("=")
    place = whole.part(len(whole.text) - len(value), len(whole.text))
    return mistakes.MalformedValue(place, key, value, fault.fill(fault.title))


def resolve(written: str) -> str | tuple[str, ...]:
    """The table's key that was meant, or the several that it could be (possibly none)."""
    written = written.removeprefix("train.")
    if written in KINDS:
        return written
    ends = tuple(key for key in KINDS if key.endswith(f".{written}"))
    return ends[0] if len(ends) == 1 else ends


def unresolved(span: Span, candidates: tuple[str, ...]) -> Diagnostic:
    if candidates:
        shown = " or ".join(f"`{key}`" for key in candidates)
        return mistakes.AmbiguousOverride(span, span.text, shown)
    suggestion = did_you_mean(span.text, [*KINDS, *{key.split(".")[-1] for key in KINDS}])
    return mistakes.UnknownOverride(span, span.text, suggestion)


def has(recipe: Recipe, key: str) -> bool:
    return key in flatten(recipe)


def unused_option(span: Span, key: str, recipe: Recipe) -> Diagnostic:
    owner = key.split(".")[0]
    name = next(name for name, variants in VARIANTS.items() if owner in variants)
    return mistakes.UnusedOption(span, key, name, owner, words_of(recipe)[name])


def differences(before: Recipe, after: Recipe) -> list[tuple[str, str, str]]:
    """Each key of `after` whose value differs, with both values.

    The options of a variant that was not chosen before are held against their defaults.
    """
    old = {**DEFAULTS, **flatten(before)}
    return [
        (key, str(old[key]), str(new)) for key, new in flatten(after).items() if old[key] != new
    ]


def check_scale(recipe: Recipe, size: tuple[int, int], span: Span | None = None) -> None:
    """Refuses a scale into whose images a crop of `size` (H, W) does not fit.

    Raises:
        UserError: the shorter side can be less than the crop's longer side.
    """
    if recipe.scale and recipe.scale[0] < max(size):
        scale = str(written_scale(recipe.scale))
        shown = "x".join(map(str, size))
        raise UserError(mistakes.ScaleTooSmall(span, scale, shown, max(size)))
