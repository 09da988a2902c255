"""Blocks of settings as data: read, written, merged and changed by one mechanism.

A `Schema` is a dataclass whose fields say how they are written. Between the dataclass and
the block stands a flat table, `{"batch": 256, "sgd.lr": 0.01, …}`: a block and a `--set`
only say something about that table, and `Schema.read` alone checks it. A new setting is a
field of the dataclass; nothing here changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from vggc.recipe import diagnostics
from vggc.support.diagnostics import MAX_REPORTED, Diagnostic, UserError, did_you_mean
from vggc.support.source import Source, Span
from vggc.syntax import ast
from vggc.syntax.parse import parse_block
from vggc.syntax.values import (
    OFF,
    Flag,
    Maybe,
    NameList,
    NameValue,
    OneOf,
    Real,
    Several,
    ValueKind,
    WholeNumber,
    convert,
    misfit,
    written,
)

# How a field of a block is written


class Described(Protocol):
    """A dataclass of options, with an example of its setting and what it means in words."""

    example: ClassVar[str]
    doc: ClassVar[str]


@dataclass(frozen=True)
class Plain:
    """`batch 256`: one value."""

    kind: ValueKind
    example: str
    doc: str


@dataclass(frozen=True)
class Switch:
    """`flip`, `flip on` or `flip off`."""

    example: str
    doc: str


@dataclass(frozen=True)
class Variants:
    """One of several dataclasses, chosen by a word, its fields as options.

    The word is the setting itself where it is `bare` (`sgd lr=0.01`), and otherwise the
    setting's value (`init normal std=0.1`).
    """

    types: Mapping[str, type[Described]]
    bare: bool


@dataclass(frozen=True)
class OptionalPart:
    """A dataclass that may be there, its fields as options: `crops grid=5x5`, `crops off`.

    With `value` the field of that name is the value of the setting, not an option:
    `init-from vgg11 layers=conv1_1`. None is `off`.
    """

    type: type[Described]
    value: str | None = None


@dataclass(frozen=True)
class PerHead:
    """A dataclass for each head that lines are about: `loss euclidean head=boxes weight=0.5`.

    The field `value` is the value of the setting, and `head` says which head is meant: None is the
    main output, of which a line says nothing. In the table the setting of a head has its name in
    brackets: `loss`, `loss.weight`, `loss[boxes]`, `loss[boxes].weight`.
    """

    type: type[Described]
    value: str


Form: TypeAlias = Plain | Switch | Variants | OptionalPart | PerHead

HEAD = "head"
"""The option, and the field, that says which head is meant."""


def setting(form: Form, default: Any = None) -> Any:
    """A field of a block, with its default. A dataclass as default stands for its instance."""
    if isinstance(default, type):
        return field(default_factory=default, metadata={"form": form})
    return field(default=default, metadata={"form": form})


def option(doc: str, kind: ValueKind, default: Any = MISSING) -> Any:
    """A field of a variant or a part, with the values it takes; without default it is a must."""
    return field(default=default, metadata={"kind": kind, "doc": doc})


def dashed(name: str) -> str:
    """The name of a field as a setting is spelt."""
    return name.replace("_", "-")


def options(owner: type, value: str | None = None) -> dict[str, ValueKind]:
    """The options of a variant or a part, as written, but for the field that is its value."""
    found = fields(owner)
    return {
        dashed(f.name): f.metadata["kind"]
        for f in found
        if f.name != value and f.metadata.get("kind")
    }


def of_head(key: str, head: str | None) -> str:
    """The key of a setting for a head: `loss[boxes]`; for the main output it has no brackets."""
    return key if head is None else f"{key}[{head}]"


def parted(key: str) -> tuple[str, str | None]:
    """A key of the table without the name of a head, and that name: the inverse of `of_head`, also
    for the keys of options.
    """
    found = re.fullmatch(r"([^\[\].]+)\[([^\[\]]+)\](\.[^\[\]]+)?", key)
    return (found[1] + (found[3] or ""), found[2]) if found else (key, None)


# What a block can say

T = TypeVar("T")
SettingTable: TypeAlias = dict[str, ast.Value]
"""Each key with its value as written; what keeps its default is missing."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What a block says, where it says so, and what is wrong with it."""

    value: T
    table: SettingTable
    found: tuple[Diagnostic, ...]

    def span(self, key: str) -> Span | None:
        """Where the value of a key is written; None where it keeps its default."""
        return self.table[key].span if key in self.table else None


@dataclass(frozen=True)
class Schema(Generic[T]):
    """The block `key` as instances of `type`, whose every field is a `setting`.

    Of the fields in one of `rivals` exactly one is given; the others are None.
    """

    key: str
    type: type[T]
    rivals: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def forms(self) -> dict[str, Form]:
        """How each field is written, by its key."""
        found = fields(self.type)  # type: ignore[arg-type]
        return {dashed(f.name): f.metadata["form"] for f in found}

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every word that begins a setting, and the key of the field that it fills."""
        return {
            word: key
            for key, form in self.forms.items()
            for word in (form.types if isinstance(form, Variants) and form.bare else (key,))
        }

    @cached_property
    def kinds(self) -> dict[str, ValueKind]:
        """Every key of the flat table and the values it takes."""
        table: dict[str, ValueKind] = {}
        for key, form in self.forms.items():
            match form:
                case Plain(kind):
                    table[key] = kind
                case Switch():
                    table[key] = Flag()
                case Variants(types):
                    table[key] = OneOf(tuple(types))
                    for word, owner in types.items():
                        table |= {f"{word}.{k}": kind for k, kind in options(owner).items()}
                case OptionalPart(owner, value):
                    table[key] = _value_kind(form)
                    table |= {f"{key}.{k}": kind for k, kind in options(owner, value).items()}
                case PerHead(owner, value):
                    table[key] = _field_kind(owner, value)
                    table |= {f"{key}.{k}": kind for k, kind in options(owner, value).items()}
        return table

    def kind_of(self, key: str) -> ValueKind | None:
        """The values that a key of the flat table takes; None where there is no such key."""
        plain, head = parted(key)
        if head is not None and not isinstance(self.forms.get(self.field_of(plain)), PerHead):
            return None
        return self.kinds.get(plain)

    def field_of(self, key: str) -> str:
        """The key of the field that a key of the flat table tells of; "" for none."""
        plain, _ = parted(key)
        owner = plain.rpartition(".")[0]
        return self.owners.get(owner, "") if owner else plain

    @cached_property
    def owners(self) -> dict[str, str]:
        """What stands before the dot in a key of the table, and the key of its field."""
        return {
            word: key
            for key, form in self.forms.items()
            for word in (form.types if isinstance(form, Variants) else (key,))
        }

    def rivals_of(self, key: str) -> tuple[str, ...]:
        """The keys of which a block gives at most one, this key among them."""
        return next((group for group in self.rivals if key in group), (key,))

    # ------------------------------------------------------------ reading

    def read(self, block: ast.Block | None, default: T | None = None) -> Reading[T]:
        """What the block says over the default; what does not fit keeps its default, so
        that one call finds all mistakes.
        """
        table, found = self.entries(block.settings if block else ())
        values: dict[str, Any] = {}
        for key, value in table.items():
            kind = self.kind_of(key)
            assert kind is not None
            plain = convert(kind, value)
            if plain is None:
                found.append(misfit(key, kind, value))
            else:
                values[key] = plain
        result = self.assemble(values, self.type() if default is None else default)
        return Reading(result, table, tuple(found))

    def entries(self, settings: Iterable[ast.Setting]) -> tuple[SettingTable, list[Diagnostic]]:
        """What the settings say about the table, and the mistakes in their form."""
        table: SettingTable = {}
        found: list[Diagnostic] = []
        setters: dict[tuple[str, ...], ast.Setting] = {}
        for line in settings:
            if len(found) >= MAX_REPORTED:
                break
            key = self.settings.get(line.key)
            group = self.filled_by(line)
            if key is None:
                hint = self.hint(line.key)
                found.append(
                    diagnostics.UnknownSetting(self.key, line.key, hint, place=key_span(line))
                )
            elif group in setters:
                found.append(self.repeated(key, setters[group], line))
            else:
                setters[group] = line
                said, more = self.line_entries(key, line)
                table |= said
                found += more
        return table, found

    def line_entries(self, key: str, line: ast.Setting) -> tuple[SettingTable, list[Diagnostic]]:
        """What one setting says about its field and the field's options."""
        form = self.forms[key]
        least, most = _number_of_values(form)
        if not least <= len(line.values) <= most:
            return {}, [wrong_number_of_values(line, form, least, most)]
        value = line.values[0] if line.values else ast.Word(_said(form, line), span=key_span(line))
        match form:
            case Variants(types) if str(value) not in types:
                return {key: value}, []  # the word itself is the mistake
            case Variants(types):
                owner, known = str(value), options(types[str(value)])
            case OptionalPart(part, inner):
                owner, known = key, options(part, inner)
            case PerHead(part, inner):
                return self.head_entries(key, line, value, options(part, inner))
            case _:
                owner, known = key, {}
        said, found = option_entries(line, owner, known)
        if isinstance(form, OptionalPart):
            if str(value) == "off":
                found += [_without_effect(o, line) for o in line.options if o.key in known]
                return {key: value}, found
            found += [
                diagnostics.MissingOption(line.key, name, form.type.example, place=line.span)
                for name in required(form)
                if f"{key}.{name}" not in said
            ]
        return {key: value, **said}, found

    def head_entries(
        self, key: str, line: ast.Setting, value: ast.Value, known: Mapping[str, ValueKind]
    ) -> tuple[SettingTable, list[Diagnostic]]:
        """What a line says of the setting of one head."""
        given = next((o for o in line.options if o.key == HEAD), None)
        if given and convert(NameValue(HEAD), given.value) is None:
            return {}, [misfit(f"{key}.{HEAD}", NameValue(HEAD), given.value)]
        owner = of_head(key, head_of(line))
        others = replace(line, options=tuple(o for o in line.options if o is not given))
        said, found = option_entries(others, owner, {HEAD: NameValue(HEAD), **known})
        if f"{owner}.{HEAD}" in said:  # a second one
            del said[f"{owner}.{HEAD}"]
            second = next(o for o in others.options if o.key == HEAD)
            assert given
            found.append(
                diagnostics.RepeatedRecipeOption(HEAD, place=second.span, second_place=given.span)
            )
        if line.values:  # without one it is as it is, and only its options are meant
            said = {owner: value, **said}
        return said, found

    def repeated(self, key: str, first: ast.Setting, second: ast.Setting) -> Diagnostic:
        """The mistake of a key that a block holds twice, or with one that excludes it."""
        places = {"place": key_span(second), "second_place": key_span(first)}
        if first.key == second.key:
            return diagnostics.RepeatedSetting(second.key, **places)
        what = "length" if len(self.rivals_of(key)) > 1 else key
        return diagnostics.RivalSettings(what, first.key, second.key, **places)

    def hint(self, word: str) -> str:
        """A suggestion for a word that begins no setting."""
        owners = [key.rpartition(".")[0] for key in self.kinds if key.endswith(f".{word}")]
        for owner in owners:
            key = self.owners[owner]
            form = self.forms[key]
            before = owner if key == owner or _is_bare(form) else f"{key} {owner}"
            return f"it is an option: `{before} {word}=…`"
        return did_you_mean(word, tuple(self.settings))

    def assemble(self, values: Mapping[str, Any], default: T) -> T:
        """An instance from plain values by the table's keys; what is missing keeps its default."""
        top: dict[str, Any] = {}
        for f in fields(self.type):  # type: ignore[arg-type]
            key, form = dashed(f.name), f.metadata["form"]
            given = values.get(key)
            match form:
                case Variants(types):
                    word = given or word_of(form, getattr(default, f.name))
                    top[f.name] = _instance(types[word], word, values)
                case OptionalPart() if given is not None:
                    is_off = given is False or given == OFF
                    top[f.name] = None if is_off else _part(form, key, given, values)
                case PerHead():
                    top[f.name] = _per_head(form, key, values, getattr(default, f.name))
                case _ if given is not None:
                    top[f.name] = None if given == OFF and given is not False else given
                case _:
                    top[f.name] = getattr(default, f.name)
        for group in self.rivals:
            if any(key in values for key in group):
                top |= {key: None for key in group if key not in values}
        return self.type(**top)

    # ------------------------------------------------------------ writing

    def flatten(self, value: T) -> dict[str, str | int | float]:
        """The instance as a flat table of plain values: `{"batch": 256, "sgd.lr": 0.01, …}`."""
        table: dict[str, str | int | float] = {}
        for key, form in self.forms.items():
            held = getattr(value, key.replace("-", "_"))
            match form:
                case Variants():
                    word = word_of(form, held)
                    table[key] = word
                    table |= _option_table(word, held, None)
                case OptionalPart(_, inner) if held is not None:
                    table[key] = "on" if inner is None else _plain(*_value_of(form, held))
                    table |= _option_table(key, held, inner)
                case PerHead(owner, inner):
                    for each in held:
                        mine = of_head(key, each.head)
                        table[mine] = _plain(_field_kind(owner, inner), getattr(each, inner))
                        told, usual = (
                            _option_table(mine, one, inner)
                            for one in (each, owner(getattr(each, inner)))  # type: ignore[call-arg]
                        )
                        table |= {k: v for k, v in told.items() if v != usual[k]}
                case _ if held is None and self.rivals_of(key) != (key,):
                    pass
                case _:
                    table[key] = _plain(self.kinds[key], held)
        return table

    def to_block(self, value: T) -> ast.Block:
        """The block that says all of an instance; `read` is the inverse."""
        table = self.flatten(value)
        settings: dict[str, list[str]] = {key: [] for key in self.forms}
        options: dict[str, list[str]] = {}
        for key in table:
            plain, _ = parted(key)
            if "." in plain:
                options.setdefault(key.rpartition(".")[0], []).append(key)
            else:
                settings[plain].append(key)
        lines = [
            " ".join(self.line(key, form, table, options))
            for field_key, form in self.forms.items()
            for key in settings[field_key]
        ]
        text = "\n".join([f"{self.key} {{", *lines, "}"])
        return parse_block(Source(f"<{self.key}>", text))

    def line(
        self,
        key: str,
        form: Form,
        table: Mapping[str, str | int | float],
        options: Mapping[str, Sequence[str]],
    ) -> list[str]:
        """The words of one setting; `options` are the keys of options by that of their owner."""
        said, (plain, head) = str(table[key]), parted(key)
        owner = said if isinstance(form, Variants) else key
        told = options.get(owner, ())
        pairs = [f"{option.removeprefix(f'{owner}.')}={table[option]}" for option in told]
        pairs = [*([] if head is None else [f"{HEAD}={head}"]), *pairs]
        bare = said if _is_bare(form) else plain
        implied = said == "on" or _is_bare(form)
        return [bare, *([] if implied else [said]), *pairs]

    def differences(self, before: T, after: T) -> list[tuple[str, str, str]]:
        """Each key of `after` whose value differs, with both values.

        The options of a variant that was not chosen before are held against their defaults.
        """
        defaults: dict[str, str | int | float] = {}
        for form in self.forms.values():
            if isinstance(form, Variants):
                for word, owner in form.types.items():
                    defaults |= _option_table(word, owner(), None)
        old, new = {**defaults, **self.flatten(before)}, self.flatten(after)
        changed = [
            (key, str(old.get(key, "off")), str(value))
            for key, value in new.items()
            if old.get(key, "off") != value
        ]
        usual = [
            (key, str(was), "the default")
            for key, was in old.items()
            if key not in new and isinstance(self.forms.get(self.field_of(key)), PerHead)
        ]
        return [*changed, *usual]

    # ------------------------------------------------------------ merging

    def merge(self, base: ast.Block, over: ast.Block) -> ast.Block:
        """The block of a net that builds on another: what `over` sets wins, field by field,
        and options one by one. The base's order and comments are kept.
        """
        settings = list(base.settings)
        places: dict[tuple[str, ...], int] = {}
        for index, line in enumerate(base.settings):
            places.setdefault(self.filled_by(line), index)
        for line in over.settings:
            group = self.filled_by(line)
            if group in places and line.key in self.settings:
                index = places.pop(group)
                settings[index] = self.merge_setting(settings[index], line)
            else:
                settings.append(line)
        trivia = base.trivia if over.trivia == ast.Trivia() else over.trivia
        below = (*base.below, *over.below)
        return replace(over, settings=tuple(settings), trivia=trivia, below=below)

    def filled_by(self, line: ast.Setting) -> tuple[str, ...]:
        """The keys of which a setting fills one; a word that begins none stands for itself."""
        key = self.settings.get(line.key, line.key)
        if isinstance(self.forms.get(key), PerHead):
            return (of_head(key, head_of(line)),)
        return self.rivals_of(key)

    def merge_setting(self, base: ast.Setting, over: ast.Setting) -> ast.Setting:
        """The setting `over` on top of the base's, whose options it keeps unless it names them."""
        if base.key != over.key:
            return over
        trivia = base.trivia if over.trivia == ast.Trivia() else over.trivia
        over = replace(over, trivia=trivia)
        form = self.forms[self.settings[over.key]]
        values = over.values
        match form:
            case Plain() | Switch():
                return over
            case Variants() if over.values and base.values and over.values != base.values:
                return over
            case Variants() | OptionalPart(value=str()) | PerHead():
                values = over.values or base.values
            case OptionalPart():
                pass
        if [str(value) for value in over.values] == ["off"]:
            return over
        given = {o.key: o for o in reversed(over.options)}
        kept = [given.get(o.key, o) for o in base.options]
        added = [o for o in over.options if not any(o is k for k in kept)]
        return replace(over, values=values, options=(*kept, *added))


# The small print of forms


def _is_bare(form: Form) -> bool:
    return isinstance(form, Variants) and form.bare


def _is_list(form: Form) -> bool:
    kind = form.kind if isinstance(form, Plain) else None
    return isinstance(kind.kind if isinstance(kind, Maybe) else kind, Several | NameList)


def head_of(line: ast.Setting) -> str | None:
    """The head that a setting is about, by its `head=`; None where it says none."""
    return next((str(o.value) for o in line.options if o.key == HEAD), None)


def _per_head(
    form: PerHead, key: str, values: Mapping[str, Any], default: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The default's heads, and those that values tell of in their place or behind them."""
    found = {each.head: each for each in default}
    told = dict.fromkeys(
        head for each in values for plain, head in [parted(each)] if plain.split(".")[0] == key
    )
    for head in told:
        mine = of_head(key, head)
        given = values.get(mine, getattr(found.get(head), form.value, None))
        if given is not None:
            found[head] = _instance(form.type, mine, values, head=head, **{form.value: given})
    return tuple(found.values())


def _number_of_values(form: Form) -> tuple[int, int]:
    """How many values a setting has at least and at most."""
    match form:
        case Variants(bare=True):
            return 0, 0
        case Switch() | OptionalPart(value=None) | PerHead():
            return 0, 1
        case _:
            return 1, 1


def _said(form: Form, line: ast.Setting) -> str:
    """The value of a setting that stands without one."""
    return line.key if isinstance(form, Variants) else "on"


def _value_kind(form: OptionalPart) -> ValueKind:
    if form.value is None:
        return Flag()
    (kind,) = (f.metadata["kind"] for f in fields(form.type) if f.name == form.value)  # type: ignore[arg-type]
    assert isinstance(kind, NameValue | Real)
    return Maybe(kind)


def _field_kind(owner: type, name: str) -> ValueKind:
    """The kind of value of a field."""
    (kind,) = (f.metadata["kind"] for f in fields(owner) if f.name == name)
    result: ValueKind = kind
    return result


def _value_of(form: OptionalPart, held: object) -> tuple[ValueKind, Any]:
    """What the value of a part's setting is, and which one a part has."""
    assert form.value is not None
    return _value_kind(form), getattr(held, form.value)


def required(form: OptionalPart) -> list[str]:
    """The options that have no default."""
    found = fields(form.type)  # type: ignore[arg-type]
    return [dashed(f.name) for f in found if f.default is MISSING and f.name != form.value]


def word_of(form: Variants, value: object) -> str:
    """The word for the variant that a value is of."""
    return next(word for word, owner in form.types.items() if type(value) is owner)


def _instance(owner: type, prefix: str, values: Mapping[str, Any], **more: Any) -> Any:
    keys = {f.name: f"{prefix}.{dashed(f.name)}" for f in fields(owner) if f.name not in more}
    return owner(**more, **{name: values[key] for name, key in keys.items() if key in values})


def _part(form: OptionalPart, key: str, given: Any, values: Mapping[str, Any]) -> Any:
    """The part as given; None where a required option is missing, which is a mistake."""
    if any(f"{key}.{name}" not in values for name in required(form)):
        return None
    more = {} if form.value is None else {form.value: given}
    return _instance(form.type, key, values, **more)


def _option_table(prefix: str, value: object, inner: str | None) -> dict[str, str | int | float]:
    return {
        f"{prefix}.{key}": _plain(kind, getattr(value, key.replace("-", "_")))
        for key, kind in options(type(value), inner).items()
    }


def _plain(kind: ValueKind, value: Any) -> str | int | float:
    """A value for the flat table: a number where it is one, the text that says it otherwise."""
    if isinstance(value, int | float) and isinstance(kind, WholeNumber | Real | Maybe):
        return value
    text = written(kind, value)
    return int(text) if text.isdecimal() else text


def option_entries(
    line: ast.Setting, owner: str, known: Mapping[str, ValueKind]
) -> tuple[SettingTable, list[Diagnostic]]:
    """The table's entries for the `key=value` options behind a setting."""
    table: SettingTable = {}
    found: list[Diagnostic] = []
    for given in line.options:
        key = f"{owner}.{given.key}"
        if given.key not in known:
            suggestion = did_you_mean(given.key, tuple(known)) if known else "it takes none"
            found.append(
                diagnostics.UnknownRecipeOption(owner, given.key, suggestion, place=given.key_span)
            )
        elif key in table:
            first = next(option for option in line.options if option.key == given.key)
            found.append(
                diagnostics.RepeatedRecipeOption(
                    given.key, place=given.span, second_place=first.span
                )
            )
        else:
            table[key] = given.value
    return table, found


def _without_effect(given: ast.Option, line: ast.Setting) -> Diagnostic:
    return diagnostics.OptionOfNothing(given.key, line.key, place=given.span)


def key_span(line: ast.Setting) -> Span:
    """The word that a setting begins with; all of it where a `--set` says so otherwise."""
    length = len(line.key)
    return line.span.part(0, length) if line.span.text[:length] == line.key else line.span


def wrong_number_of_values(line: ast.Setting, form: Form, least: int, most: int) -> Diagnostic:
    """The mistake of a setting that has not from `least` to `most` values."""
    expected = {(0, 0): "no value", (0, 1): "`on`, `off` or no value"}.get(
        (least, most), "a list with commas" if _is_list(form) else "one value"
    )
    count = len(line.values)
    given = {0: "no value", 1: "one value"}.get(count, f"{count} values")
    match form:
        case Plain(_, example) | Switch(example):
            pass
        case Variants(types):
            example = types[line.key if form.bare else next(iter(types))].example
        case OptionalPart(owner) | PerHead(owner):
            example = owner.example
    return diagnostics.WrongNumberOfValues(line.key, expected, given, example, place=line.span)


def report(found: Iterable[Diagnostic]) -> None:
    """Raises: UserError with all mistakes, by place, if there are any."""
    if ordered := sorted(found, key=place):
        raise UserError(*ordered)


def place(mistake: Diagnostic) -> tuple[str, int]:
    """Where a mistake is, to sort by."""
    return (mistake.place.source.name, mistake.place.start) if mistake.place else ("", 0)
