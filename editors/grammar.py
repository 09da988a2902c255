"""Writes `vgg.tmLanguage.json`, whose words are those that vggc itself knows.

python editors/grammar.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vggc.layers.kinds import BY_WORD, KINDS
from vggc.recipe.blocks import HEAD, PerHead
from vggc.recipe.edit import SCHEMAS
from vggc.syntax.values import OneOf

FILE = Path(__file__).with_name("vgg.tmLanguage.json")

NAME = r"[^\W\d](?:[\w-]|\.(?!\.))*"
CONSTANT = r"[^\W\d]\w*"
END = r"(?![\w.-])"
PLAIN_SIZE = r"(?:\d+(?:x\d+)?)?"
SIZE = PLAIN_SIZE.replace("x", "[x×]")
"""Rows and columns in a word. Without a width behind it `×` is a repeat."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def words(known: Iterable[str]) -> str:
    """Any of some words, the longer before those that they begin with."""
    return "(" + "|".join(sorted(set(known), key=lambda word: (-len(word), word))) + ")"


def rule(pattern: str, *scopes: str) -> dict[str, Any]:
    """A match, with a scope for each of its groups."""
    return {"match": pattern, "captures": captures(*scopes)}


def captures(*scopes: str) -> dict[str, Any]:
    return {str(n): {"name": f"{scope}.vgg"} for n, scope in enumerate(scopes, 1) if scope}


def include(*names: str) -> list[dict[str, Any]]:
    return [{"include": f"#{name}"} for name in names]


def block(key: str) -> dict[str, Any]:
    """The `train` or the `test` block, with its own settings and options."""
    schema = SCHEMAS[key]
    owners = {name.rpartition(".")[2] for name in schema.kinds if "." in name}
    if any(isinstance(form, PerHead) for form in schema.forms.values()):
        owners.add(HEAD)
    choices = {w for kind in schema.kinds.values() if isinstance(kind, OneOf) for w in kind.words}
    return {
        "name": f"meta.block.{key}.vgg",
        "begin": rf"\b({key})\s*(\{{)",
        "end": r"(\})",
        "beginCaptures": captures("keyword.control", "punctuation.section.block.begin"),
        "endCaptures": captures("punctuation.section.block.end"),
        "patterns": [
            *include("comment"),
            # A setting begins its line, or stands behind `{` or `;`.
            rule(
                rf"(?:^|(?<=[{{;]))\s*{words(schema.settings)}{END}",
                "support.type.property-name",
            ),
            rule(rf"\b{words(owners)}(?=\s*=)", "variable.parameter"),
            rule(rf"(?<![\w.=,-]){words([*choices, 'on', 'off'])}{END}", "constant.language"),
            *include("number"),
            rule(r"(=)", "keyword.operator.assignment"),
            rule(r"(;)", "punctuation.terminator"),
            rule(r"(,)", "punctuation.separator"),
            rule(r"(\.\.)", "keyword.operator.range"),
            rule(rf"({NAME})", "variable.other"),
        ],
    }


def grammar() -> dict[str, Any]:
    options = {key for kind in KINDS for key in kind.params()}
    values = {
        word
        for kind in KINDS
        for param in kind.params().values()
        if isinstance(param.kind, OneOf)
        for word in param.kind.words
    }
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "vgg",
        "scopeName": "source.vgg",
        "fileTypes": ["vgg"],
        "patterns": include(
            "comment", "header", "train", "test", "let", "statement", "head", "label", "reference"
        )
        + include("option", "layer", "repeat", "number", "sign"),
        "repository": {
            "comment": {
                "name": "comment.line.number-sign.vgg",
                "match": r"(#).*$",
                "captures": captures("punctuation.definition.comment"),
            },
            "header": {
                "patterns": [
                    arguments(rf"\b(net)\s+({NAME})\s*(\()", "keyword.control", "entity.name.type"),
                    rule(rf"\b(net)\s+({NAME})", "keyword.control", "entity.name.type"),
                    arguments(
                        rf"\b(from)\s+({NAME})\s*(\()",
                        "keyword.control",
                        "entity.other.inherited-class",
                    ),
                    rule(
                        rf"\b(from)\s+({NAME})", "keyword.control", "entity.other.inherited-class"
                    ),
                    rule(rf"\b(input){END}", "keyword.control"),
                ]
            },
            "train": block("train"),
            "test": block("test"),
            "let": {
                "begin": rf"\b(let)\s+({CONSTANT})\s*(=)",
                "end": "$",
                "beginCaptures": captures(
                    "keyword.control", "variable.other.constant", "keyword.operator.assignment"
                ),
                "patterns": [
                    *include("comment"),
                    rule(r"\b(round)(?=\s*\()", "support.function"),
                    rule(rf"({CONSTANT})", "variable.other.constant"),
                    *include("plain-number"),
                    rule(r"([-+*/])", "keyword.operator.arithmetic"),
                    *include("bracket"),
                ],
            },
            "statement": {
                "patterns": [
                    rule(
                        rf"\b(?:(set|after|before|replace|remove)\s+)?(every)\s+"
                        rf"{words(BY_WORD)}({SIZE})(?:(-)(\d+))?{END}",
                        "keyword.control",
                        "keyword.control",
                        "entity.name.function",
                        "constant.numeric",
                        "punctuation.separator.width",
                        "constant.numeric",
                    ),
                    rule(
                        rf"\b(set|after|before|replace|remove)\s+({NAME})"
                        rf"(?:(\.\.)({NAME}))?",
                        "keyword.control",
                        "variable.other",
                        "keyword.operator.range",
                        "variable.other",
                    ),
                    rule(
                        rf"\b(every|set|after|before|replace|remove|insert|with){END}",
                        "keyword.control",
                    ),
                ]
            },
            "head": rule(
                rf"\b(head)\s+({NAME})\s*(:)",
                "keyword.control",
                "entity.name.label",
                "punctuation.separator.label",
            ),
            "label": rule(rf"({NAME})\s*(:)", "entity.name.label", "punctuation.separator.label"),
            "reference": rule(rf"(@)\s*({NAME})", "keyword.operator.reference", "variable.other"),
            "option": {
                "patterns": [
                    rule(
                        rf"\b{words(options)}\s*(=)\s*{words([*values, 'on', 'off'])}{END}",
                        "variable.parameter",
                        "keyword.operator.assignment",
                        "constant.language",
                    ),
                    rule(
                        rf"\b{words(options)}\s*(=)\s*({CONSTANT}){END}",
                        "variable.parameter",
                        "keyword.operator.assignment",
                        "variable.other.constant",
                    ),
                    rule(
                        rf"\b{words(options)}\s*(=)",
                        "variable.parameter",
                        "keyword.operator.assignment",
                    ),
                ]
            },
            "layer": {
                "patterns": [
                    rule(
                        rf"(?<![\w.-]){words(BY_WORD)}({SIZE})(-)(\d+){END}",
                        "entity.name.function",
                        "constant.numeric",
                        "punctuation.separator.width",
                        "constant.numeric",
                    ),
                    rule(
                        rf"(?<![\w.-]){words(BY_WORD)}({SIZE})(-)({CONSTANT}){END}",
                        "entity.name.function",
                        "constant.numeric",
                        "punctuation.separator.width",
                        "variable.other.constant",
                    ),
                    rule(
                        rf"(?<![\w.-]){words(BY_WORD)}({PLAIN_SIZE}){END}",
                        "entity.name.function",
                        "constant.numeric",
                    ),
                ]
            },
            "repeat": {
                "patterns": [
                    rule(
                        rf"([×*]|(?<=[\s)])x)[ \t]*(\d+){END}",
                        "keyword.operator.repeat",
                        "constant.numeric",
                    ),
                    rule(
                        rf"([×*])[ \t]*({CONSTANT})",
                        "keyword.operator.repeat",
                        "variable.other.constant",
                    ),
                ]
            },
            "number": {
                "patterns": [
                    rule(rf"(?<![\w.])(\d+(?:[x×]\d+)+){END}", "constant.numeric"),
                    rule(
                        rf"(?<![\w.])({NUMBER})(px|%)?(\.\.)({NUMBER})(px|%)?",
                        "constant.numeric",
                        "keyword.other.unit",
                        "keyword.operator.range",
                        "constant.numeric",
                        "keyword.other.unit",
                    ),
                    rule(
                        rf"(?<![\w.])({NUMBER})(px|%)?(?![\w.%])",
                        "constant.numeric",
                        "keyword.other.unit",
                    ),
                ]
            },
            "plain-number": rule(
                r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(%)?",
                "constant.numeric",
                "keyword.other.unit",
            ),
            "bracket": {
                "patterns": [
                    rule(r"(\()", "punctuation.section.group.begin"),
                    rule(r"(\))", "punctuation.section.group.end"),
                ]
            },
            "sign": {
                "patterns": [
                    *include("bracket"),
                    rule(r"(\|)", "keyword.operator.pipe"),
                    rule(r"(,)", "punctuation.separator"),
                ]
            },
        },
    }


def arguments(begin: str, *scopes: str) -> dict[str, Any]:
    """A net's name with its parameters, or a base's with values for them."""
    return {
        "begin": begin,
        "end": r"(\))",
        "beginCaptures": captures(*scopes, "punctuation.section.group.begin"),
        "endCaptures": captures("punctuation.section.group.end"),
        "patterns": [
            *include("comment"),
            rule(rf"({CONSTANT})\s*(=)", "variable.parameter", "keyword.operator.assignment"),
            *include("number"),
            rule(rf"({NAME})", "variable.other.constant"),
            rule(r"(,)", "punctuation.separator"),
        ],
    }


def text() -> str:
    """The grammar's file."""
    return json.dumps(grammar(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
