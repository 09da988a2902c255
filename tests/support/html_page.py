"""A page as a browser reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

VOID = {"meta", "img", "br"}


@dataclass
class Page(HTMLParser):
    """Every element with its attributes, the texts, and what is not well formed."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def sections(self) -> list[str]:
        return [attributes["id"] for tag, attributes in self.elements if tag == "section"]

    def with_class(self, name: str) -> list[dict[str, str]]:
        return [a for _, a in self.elements if name in a.get("class", "").split()]


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    page.close()
    assert page.open == []
    return page


def assert_stands_alone(path: Path) -> Page:
    """A page that is well formed, has no program in it, and takes nothing from elsewhere."""
    page, text = read(path), path.read_text("utf-8")
    ElementTree.fromstring(text.removeprefix("<!doctype html>"))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [a["href"] for _, a in page.elements if "href" in a]
    assert links == [f"#{section}" for section in page.sections]
    assert {link.removeprefix("#") for link in links} <= ids
    sources = [a["src"] for _, a in page.elements if "src" in a]
    assert sources
    assert all(re.fullmatch(r"data:image/(png|jpeg);base64,[\w+/=]+", s) for s in sources)
    assert all(a["alt"] for tag, a in page.elements if tag == "img")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    return page
