"""HTML from elements: every text in it is escaped, and what nobody can see shows as `�`.

The result is well-formed XML, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from vggc_runtime.text import printable

EMPTY = {"circle", "img", "line", "meta", "polyline", "rect"}
"""Elements that nothing stands in."""
ON_A_LINE = {
    *("body", "details", "div", "figure", "footer", "h1", "h2", "h3", "head", "header", "li"),
    *("link", "main", "meta", "nav", "p", "section", "style", "svg", "table", "tr", "ul"),
}
"""Elements that begin a line of the file."""


@dataclass(frozen=True)
class Element:
    """A tag with its attributes and what stands in it."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    inside: tuple[HtmlNode, ...]

    def __str__(self) -> str:
        named = "".join(f' {name}="{escape(printable(value))}"' for name, value in self.attributes)
        begin = "\n" * (self.tag in ON_A_LINE) + f"<{self.tag}{named}"
        if self.tag in EMPTY and not self.inside:
            return f"{begin}/>"
        # What stands in a style is no markup: nothing is escaped there.
        inside = "".join(map(str if self.tag == "style" else _node, self.inside))
        return f"{begin}>{inside}</{self.tag}>"


HtmlNode: TypeAlias = Element | str


def element(tag: str, *inside: HtmlNode | None, **attributes: str | float | None) -> Element:
    """An element. What is None is left out; `class_` is `class`, `font_size` is `font-size`."""
    named = (
        (name.rstrip("_").replace("_", "-"), value if isinstance(value, str) else f"{value:g}")
        for name, value in attributes.items()
        if value is not None
    )
    return Element(tag, tuple(named), tuple(node for node in inside if node is not None))


def document(head: Element, body: Element) -> str:
    """A whole page."""
    return f"<!doctype html>{element('html', head, body, lang='en')}\n"


def _node(node: HtmlNode) -> str:
    return escape(printable(node), quote=False) if isinstance(node, str) else str(node)
