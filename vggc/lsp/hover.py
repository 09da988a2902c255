"""What an editor shows of the word under the pointer."""

from __future__ import annotations

from vggc.analysis.report import Row
from vggc.ir.ops import describe
from vggc.layers.elaborate import kind_of
from vggc.layers.kinds import JoinKind
from vggc.lsp import reference
from vggc.lsp.document import BuiltNet, Document, LayerInfo
from vggc.lsp.words import Token, WordRole
from vggc.support.diagnostics import UserError


def hover(document: Document, offset: int) -> tuple[str, Token] | None:
    """Markdown about the word at an offset, and that word; None where there is nothing to say."""
    token = document.token_at(offset)
    if token is None:
        return None
    text = _text(document, token, offset)
    return (text, token) if text else None


def _text(document: Document, token: Token, offset: int) -> str:
    place = token.place
    match token.role:
        case WordRole.KEYWORD | WordRole.BLOCK:
            return reference.keyword(token.text)
        case WordRole.LAYER if named := _constant(document, _suffix(token, offset)):
            return named
        case WordRole.LAYER | WordRole.LABEL:
            return _layer(document, token)
        case WordRole.KIND:
            kind = kind_of(token.text)
            return reference.layer_kind(kind) if kind else ""
        case WordRole.SELECTOR:
            net = document.net_before(token.start)
            return _named(net, name_under(token, offset)[0])
        case WordRole.REFERENCE:
            return _named(document.net, token.text)
        case WordRole.OPTION if place.block:
            return reference.setting_option(place.block, place.setting, place.said, token.text)
        case WordRole.OPTION:
            return _option(document, token)
        case WordRole.VALUE if place.block:
            return _value_in_block(document, token, offset)
        case WordRole.VALUE:
            known = _constant(document, token.text) or _option(document, token)
            return known or reference.parameter(place.key)
        case WordRole.SETTING:
            return reference.setting(place.block, token.text)
        case WordRole.SUM | WordRole.CONSTANT:
            return _constant(document, token.text)
        case WordRole.PARAMETER:
            own = "" if place.derived else _constant(document, token.text)
            return own or reference.parameter(token.text)
        case WordRole.BASE:
            return net_summary(document.other(token.text))
        case WordRole.NET:
            return net_summary(document)
        case WordRole.HEAD:
            return _head(document.net, token.text)
        case _:
            return ""


def name_under(token: Token, offset: int) -> tuple[str, int, int]:
    """The name at an offset in a word, which may be a range of names, and its place."""
    first, dots, last = token.text.partition("..")
    middle = token.start + len(first)
    if dots and offset > middle:
        return last, middle + len(dots), token.end
    return first, token.start, middle


def _suffix(token: Token, offset: int) -> str:
    """The `wide` of `conv3-wide`, when the offset is in it."""
    stem, hyphen, name = token.text.rpartition("-")
    return name if hyphen and offset > token.start + len(stem) else ""


def _constant(document: Document, name: str) -> str:
    value = document.constants.get(name)
    if value is None:
        return ""
    return f"`{name}` = {value if isinstance(value, str) else format(value, ',.12g')}"


def _option(document: Document, token: Token) -> str:
    """What an option of a layer is, from the option or from its value."""
    kind = kind_of(token.place.owner)
    if kind is None and (net := document.net_before(token.start)):
        info = net.named(token.place.owner.partition("..")[0])
        kind = kind_of(info.layers[0].kind) if info else None
    key = token.place.key
    if kind is None or key not in kind.params():
        return ""
    return reference.layer_option(kind, key)


def _value_in_block(document: Document, token: Token, offset: int) -> str:
    place = token.place
    name = name_under(token, offset)[0]
    if document.net and (info := document.net.named(name)):
        return layer_info(info)
    if other := net_summary(document.other(token.text)):
        return other
    if place.key:
        return reference.setting_option(place.block, place.setting, place.said, place.key)
    return reference.setting(place.block, place.setting)


def _layer(document: Document, token: Token) -> str:
    kind = kind_of(token.text) if token.role is WordRole.LAYER else None
    info = document.net.at(document.source, token.place.anchor) if document.net else None
    if info is None:
        return reference.layer_kind(kind) if kind else ""
    return layer_info(info)


def _named(net: BuiltNet | None, name: str) -> str:
    info = net.named(name) if net else None
    return layer_info(info) if info else ""


def layer_info(info: LayerInfo) -> str:
    """What layers are called, what they give and what they cost, the first to the last."""
    first, last, times = info.rows[0], info.rows[-1], len(info.rows)
    title = f"**{first.name}** `{first.text}`"
    if times > 1:
        title = f"**{first.name}** … **{last.name}** `{first.text}`, {times} times"
    kind = kind_of(first.kind)
    inside = " with its paths" if kind and issubclass(kind, JoinKind) else ""
    lines = [
        f"- output {_both(describe(first.output_shape), describe(last.output_shape))}",
        f"- parameters {_sum(info.params)}{inside}",
        f"- MACs {_sum(info.macs)}{inside}, for one image",
        f"- receptive field {_both(_field(first), _field(last))}",
    ]
    return "\n\n".join([title, *([kind.doc] if kind else []), "\n".join(lines)])


def _both(first: str, last: str) -> str:
    return first if first == last else f"{first} … {last}"


def _sum(numbers: tuple[int, ...]) -> str:
    if len(numbers) == 1:
        return f"{numbers[0]:,}"
    return f"{_both(f'{numbers[0]:,}', f'{numbers[-1]:,}')}, together {sum(numbers):,}"


def _field(row: Row) -> str:
    return f"{describe(row.receptive_field)}, stride {describe(row.stride)}"


def _head(net: BuiltNet | None, name: str) -> str:
    heads = net.program.graph.heads if net else ()
    for head in heads:
        if net and head.name == name:
            shape = describe(net.program.graph.outputs[name])
            return f"**{name}**: {head.kind}, {shape}"
    return ""


def net_summary(document: Document | None) -> str:
    """A net in a few lines: what its file begins with, its size and cost."""
    if document is None or document.tree is None or document.net is None:
        return ""
    net, above = document.net.program, document.tree.trivia.above
    try:
        totals = net.report().totals
    except UserError:
        return ""
    graph = net.graph
    cost = f"{totals.params:,} parameters · {totals.macs:,} MACs"
    sizes = f"input {describe(graph.input)} · {len(document.net.names)} layers · {cost}"
    return "\n\n".join(filter(None, [f"**{graph.name}**", " ".join(above), sizes]))
