"""Blocks changed: by a net that builds on another, by `--set`, or by filling in defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vggc.ir.graph import Graph
from vggc.recipe import diagnostics
from vggc.recipe.blocks import HEAD, PerHead, Schema, Variants, parted, report, word_of
from vggc.recipe.protocol import TEST, read_protocol
from vggc.recipe.train import TRAIN, FindGraph, Recipe, read_recipe
from vggc.support.diagnostics import Diagnostic, UserError, did_you_mean
from vggc.support.source import Source, Span
from vggc.syntax import ast
from vggc.syntax.parse import parse_value
from vggc.syntax.values import OneOf, convert, misfit

SCHEMAS: Mapping[str, Schema[Any]] = {"train": TRAIN, "test": TEST}

MANY = 2
"""The most whole keys that a suggestion lists."""


# A net that builds on another


def merge(base: ast.Block, over: ast.Block) -> ast.Block:
    """The block of a net that builds on one with the block `base`, and says `over` itself.

    A setting of `over` wins over the base's for the same thing, its options one by one; a
    rival (`constant` for `plateau`) takes its place. The base's order and comments are
    kept. What is wrong with either is still wrong with the result.
    """
    schema = SCHEMAS.get(base.key)
    if schema is None or base.key != over.key:
        return replace(over, settings=(*base.settings, *over.settings))
    return schema.merge(base, over)


# Changes from the command line


@dataclass(frozen=True)
class SettingChange:
    """One `key=value`: the block, the key in its table, and where each stands.

    `keys` holds several where more than one variant of a field has such an option: `warm-up`
    is that of the schedule that is chosen.
    """

    schema: Schema[Any]
    keys: tuple[str, ...]
    key_span: Span
    value: ast.Value

    @property
    def key(self) -> str:
        """The key as the user wrote it."""
        return self.keys[0]

    @property
    def owner(self) -> str:
        """What stands before the key's dot, if it has one."""
        return self.key.rpartition(".")[0]


def override_blocks(
    blocks: Sequence[ast.Block],
    changes: Iterable[str],
    name: str = "--set",
    prefer: str | None = None,
) -> tuple[ast.Block, ...]:
    """The blocks with `key=value` changes; a later one wins over an earlier one.

    A key is `train.` or `test.` and one of the block's table (`train.sgd.lr`), or a last
    part of that which only one key has (`train.lr`, `lr`); where keys of both blocks do,
    that of the block `prefer` is meant, if given. Values are checked when the blocks are
    read. `name` is what diagnostics call the text of a change.

    Raises:
        UserError: with every change that is malformed, unknown or without effect.
    """
    found: list[Diagnostic] = []
    parsed: list[SettingChange] = []
    for text in changes:
        try:
            parsed.append(parse_change(text, name, prefer))
        except UserError as error:
            found += error.diagnostics
    # What chooses a variant comes before its options, whatever the order they are given in.
    for change in sorted(parsed, key=lambda change: bool(change.owner)):
        block = next((b for b in blocks if b.key == change.schema.key), None)
        change = of_the_chosen(change, block)
        if problem := without_effect(change, block):
            found.append(problem)
            continue
        over = ast.Block(change.schema.key, (setting_of(change),), span=change.key_span)
        if block is None:
            blocks = (*blocks, over)
        else:
            merged = replace(merge(block, over), span=block.span)
            blocks = tuple(merged if b is block else b for b in blocks)
    report(found)
    return tuple(blocks)


def parse_change(text: str, name: str, prefer: str | None) -> SettingChange:
    """Raises: UserError when it is not `key=value` with a key and a value that there are."""
    whole = Span(Source(name, text), 0, len(text))
    key, equals, value = text.partition("=")
    if not (key.strip() and equals and value):
        raise UserError(diagnostics.MalformedOverride(text, place=whole))
    key_span, value_span = whole.part(0, len(key)), whole.part(len(key) + 1, len(text))
    schema, keys = resolve(key, key_span, prefer)
    full = keys[0]
    try:
        read = at(value_span, parse_value(Source(name, value)))
    except UserError as error:
        raise UserError(
            *(
                diagnostics.MalformedValue(full, value, fault.fill(fault.title), place=value_span)
                for fault in error.diagnostics
            )
        ) from None
    kind = schema.kind_of(full)
    if isinstance(kind, OneOf) and convert(kind, read) is None:
        raise UserError(misfit(full, kind, read))
    return SettingChange(schema, keys, key_span, read)


def at(span: Span, value: ast.Value) -> ast.Value:
    """A value that was parsed by itself, as it stands at a place."""

    def moved(piece: Any) -> Any:
        place = Span(span.source, span.start + piece.span.start, span.start + piece.span.end)
        return replace(piece, span=place)

    match value:
        case ast.Many(parts):
            inner = tuple(at(span, part) for part in parts)
            return replace(moved(value), items=inner)  # type: ignore[no-any-return]
        case ast.Range(low, high):
            return replace(moved(value), low=moved(low), high=moved(high))  # type: ignore[no-any-return]
        case _:
            return moved(value)  # type: ignore[no-any-return]


def resolve(text: str, span: Span, prefer: str | None) -> tuple[Schema[Any], tuple[str, ...]]:
    """The block and the key that were meant; all keys where one variant or another has it.

    Raises:
        UserError: there is none, or more than one.
    """
    block, dot, rest = text.partition(".")
    schemas = [SCHEMAS[block]] if dot and block in SCHEMAS else list(SCHEMAS.values())
    wanted = rest if dot and block in SCHEMAS else text
    found = [
        (schema, key)
        for schema in schemas
        for key in ([wanted] if schema.kind_of(wanted) else ends_in(schema, wanted))
    ]
    preferred = [(schema, key) for schema, key in found if schema.key == prefer]
    if preferred:
        found = preferred
    if not found:
        raise UserError(diagnostics.UnknownOverride(text, meant(wanted, schemas), place=span))
    fields = {(schema.key, schema.field_of(key) if "." in key else None) for schema, key in found}
    if len(fields) > 1:
        shown = " or ".join(f"`{schema.key}.{key}`" for schema, key in found)
        raise UserError(diagnostics.AmbiguousOverride(text, shown, place=span))
    return found[0][0], tuple(key for _, key in found)


def meant(wanted: str, schemas: list[Schema[Any]]) -> str:
    """A suggestion for a key that there is not: options of that name, or names alike."""
    owner, _, option = wanted.rpartition(".")
    if owner and (keys := [key for schema in schemas for key in ends_in(schema, option)]):
        # Where many have it, the option alone is that of the one that is chosen.
        near = keys if len(keys) <= MANY else [option]
        return f"did you mean {' or '.join(f'`{key}`' for key in near)}?"
    if schema := SCHEMAS.get(wanted):
        return (
            f"`{wanted}` is a block, which is set key by key: `{wanted}.{next(iter(schema.kinds))}`"
        )
    known = [key for schema in schemas for key in schema.kinds]
    options = sorted({key.split(".")[-1] for key in known})
    return did_you_mean(wanted, list(dict.fromkeys([*known, *options])))


def ends_in(schema: Schema[Any], text: str) -> list[str]:
    """The keys of a block's table that are an option called `text`."""
    return [key for key in schema.kinds if key.endswith(f".{text}")]


def setting_of(change: SettingChange) -> ast.Setting:
    """The change as a line of its block."""
    schema, (key, head), span = change.schema, parted(change.key), change.key_span
    form = schema.forms[schema.field_of(change.key)]
    if isinstance(form, PerHead):
        return of_head_setting(change, key, head)
    if not change.owner:
        if isinstance(form, Variants) and form.bare:
            return ast.Setting(str(change.value), span=change.value.span)
        return ast.Setting(key, (change.value,), span=span)
    option = ast.Option(key.rpartition(".")[2], change.value, span=change.value.span)
    if isinstance(form, Variants) and not form.bare:
        word = ast.Word(change.owner, span=span)
        return ast.Setting(schema.owners[change.owner], (word,), (option,), span=span)
    return ast.Setting(change.owner, (), (option,), span=span)


def of_head_setting(change: SettingChange, key: str, head: str | None) -> ast.Setting:
    """The change of what one head has, as a line of its block."""
    span, (owner, dot, name) = change.key_span, key.partition(".")
    option = ast.Option(HEAD, ast.Word(head or "", span=span), span=span)
    which = () if head is None else (option,)
    if not dot:
        return ast.Setting(owner, (change.value,), which, span=span)
    changed = ast.Option(name, change.value, span=change.value.span)
    return ast.Setting(owner, (), (*which, changed), span=span)


def without_effect(change: SettingChange, block: ast.Block | None) -> Diagnostic | None:
    """The mistake in an option of a variant that the block does not choose."""
    schema = change.schema
    field = schema.owners.get(change.owner, "")
    chosen = chosen_variant(schema, field, block)
    if chosen in (None, change.owner):
        return None
    return diagnostics.UnusedOption(change.key, field, change.owner, chosen, place=change.key_span)


def of_the_chosen(change: SettingChange, block: ast.Block | None) -> SettingChange:
    """The change of the variant that the block chooses, if that is among those meant."""
    field = change.schema.owners.get(change.owner, "")
    chosen = chosen_variant(change.schema, field, block)
    meant = tuple(key for key in change.keys if key.rpartition(".")[0] == chosen)
    return replace(change, keys=meant or change.keys)


def chosen_variant(schema: Schema[Any], field: str, block: ast.Block | None) -> str | None:
    """The word of the variant that a field has, by the block or by default; None if it has none."""
    form = schema.forms.get(field)
    if not isinstance(form, Variants):
        return None
    chosen = word_of(form, getattr(schema.type(), field.replace("-", "_")))
    for line in block.settings if block else ():
        if schema.settings.get(line.key) == field:
            chosen = line.key if form.bare else " ".join(map(str, line.values))
    return chosen


def alone(blocks: Sequence[ast.Block]) -> tuple[ast.Block, ...]:
    """The blocks without what names other nets, for a file that lies by itself."""

    def names_a_net(block: ast.Block, line: ast.Setting) -> bool:
        return (block.key, line.key) in (("train", "init-from"), ("test", "fuse"))

    return tuple(
        replace(block, settings=tuple(s for s in block.settings if not names_a_net(block, s)))
        for block in blocks
    )


# Defaults filled in


def resolved_blocks(
    blocks: Sequence[ast.Block],
    graph: Graph,
    find: FindGraph | None = None,
    nets: Sequence[str] = (),
) -> tuple[ast.Block, ...]:
    """A `train` and a `test` block that say everything, defaults included.

    Order and comments of the blocks are kept.

    Raises:
        UserError: with every mistake in a block.
    """
    written_blocks = {block.key: block for block in blocks}
    recipe = read_recipe(written_blocks.get("train"), graph, find, nets)
    protocol = read_protocol(written_blocks.get("test"), recipe, graph, find, nets)
    _, height, width = graph.input
    recipe = replace(recipe, crop=(height, width))
    full = {"train": TRAIN.to_block(recipe), "test": TEST.to_block(protocol)}
    merged = [merge(block, full.pop(block.key)) if block.key in full else block for block in blocks]
    return (*merged, *full.values())


# In `run.json`


def unflatten(table: Mapping[str, str | int | float], name: str) -> Recipe:
    """The recipe of a table that `TRAIN.flatten` made, as read from the file `name`.

    Raises:
        UserError: a key is unknown, or a value does not fit.
    """
    changes = [f"train.{key}={value}" for key, value in table.items()]
    blocks = override_blocks((), changes, name)
    return read_recipe(blocks[0] if blocks else None)
