"""The parser's tables, worked out beforehand: `python -m vggc.syntax.tables` writes them.

To work them out from the grammar takes Lark some 60 ms, which every command would wait for;
to read them takes 10. They are plain data, and taken only for the very grammar and the very
Lark that they were made with; otherwise the grammar is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import lark
from lark import Lark, Token, Transformer
from lark.grammar import Rule
from lark.lark import PostLex
from lark.lexer import TerminalDef

from vggc.support.resources import resource

STARTS = ["start", "block", "value", "arguments"]
TABLES = "vgg.tables.json"


def parser(builder: Transformer[Token, Any], postlex: PostLex) -> Lark:
    """The parser of the grammar, which calls `builder` for each rule."""
    text = _grammar()
    try:
        stored = json.loads(
            resource("grammars", TABLES).read_text("utf-8"), object_pairs_hook=_ints
        )
    except (OSError, ValueError):
        stored = {}
    if (stored.get("lark"), stored.get("grammar")) != (lark.__version__, text):
        return _read(text, builder, postlex)
    load: Callable[..., Lark] = Lark._load_from_dict
    return load(stored["data"], stored["memo"], transformer=builder, postlex=postlex)


def tables() -> str:
    """The tables of the grammar, as the text of their file."""
    text = _grammar()
    data, memo = _read(text, None, None).memo_serialize([TerminalDef, Rule])
    stored = {"lark": lark.__version__, "grammar": text, "data": data, "memo": memo}
    return json.dumps(stored, default=sorted, separators=(",", ":")) + "\n"


def _grammar() -> str:
    return resource("grammars", "vgg.lark").read_text("utf-8")


def _read(text: str, builder: Transformer[Token, Any] | None, postlex: PostLex | None) -> Lark:
    return Lark(text, parser="lalr", start=STARTS, transformer=builder, postlex=postlex)


def _ints(pairs: list[tuple[str, Any]]) -> dict[str | int, Any]:
    """States and places in the memo are numbers, which keys of JSON cannot be."""
    return {int(key) if key.isdecimal() else key: value for key, value in pairs}


if __name__ == "__main__":
    resource("grammars", TABLES).write_text(tables(), "utf-8")
