"""Reads a page as browsers do (HTML5) and fails for what no page of ours may have."""

from collections import Counter
from typing import Any
from xml.etree.ElementTree import Element

import html5lib

_HTML = "{http://www.w3.org/1999/xhtml}"
_SCRIPT_SOURCES = {"static/check.js"}


def read(body: bytes) -> Element:
    """The page as a tree; fails for markup that is not valid, and for anything that could run or be styled inline."""
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("etree"), strict=True)
    document = parser.parse(body.decode())
    for element in document.iter():
        if isinstance(element.tag, str):
            _check(element)
    ids = Counter(element.get("id") for element in document.iter() if element.get("id"))
    assert not [name for name, count in ids.items() if count > 1]
    assert document.get("lang") == "en"
    assert len(list(document.iter(f"{_HTML}h1"))) == 1
    return document


def text(element: Element) -> str:
    """All words under an element, with single spaces."""
    return " ".join("".join(element.itertext()).split())


def links(document: Element) -> list[str]:
    """Where the page leads and what it loads."""
    named = [element.get(name) for element in document.iter() for name in ("href", "src", "action")]
    return [link for link in named if link is not None]


def find(document: Element, tag: str, **attributes: str) -> list[Element]:
    """The elements of a name with these attributes; `class_` is one of the classes."""
    wanted = attributes.pop("class_", None)
    return [
        element
        for element in document.iter(f"{_HTML}{tag}")
        if all(element.get(name) == value for name, value in attributes.items())
        and (wanted is None or wanted in (element.get("class") or "").split())
    ]


def _check(element: Element) -> None:
    attributes: dict[Any, str] = dict(element.attrib)
    assert element.tag != f"{_HTML}style", "styles are files"
    assert not [name for name in attributes if str(name).startswith("on") or name == "style"], attributes
    if element.tag == f"{_HTML}script":
        assert attributes["src"].lstrip("./") in _SCRIPT_SOURCES
        assert not element.text
    for name in ("href", "src", "action"):
        assert attributes.get(name, "").split(":")[0] in {attributes.get(name, ""), "http", "https"}
    if element.tag == f"{_HTML}img":
        assert "alt" in attributes
