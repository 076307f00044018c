"""Templates into pages, and how values of the ledger are spelled for people.

Whatever an entry says was written by a stranger. Templates escape it (autoescape, for every template), and `visible`
spells out the characters that no reader sees: those that turn the direction of writing could make a page say what it
does not.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2
from aiohttp import web
from markupsafe import Markup

from node.api.caching import REVALIDATE, cacheable
from node.api.services import services
from node.version import VERSION
from registry.endpoint import endpoint_named
from registry.schemes import statistic_of

HTML = "text/html; charset=utf-8"
SHOWN_DIGITS = 8  # of a hash, at each end
_JOINERS = frozenset("\u200c\u200d")  # parts of words and of pictures in several scripts
_LAST_S = 253402300799  # the end of the year 9999
_EXPLORER = "/explorer/"


class Pages:
    """The templates, compiled once: none may cost a request its time."""

    def __init__(self) -> None:
        folder = resources.files("node.explorer") / "templates"
        sources = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
        self._environment = jinja2.Environment(
            loader=jinja2.DictLoader(sources),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= _FILTERS
        for name in sources:
            self._environment.get_template(name)

    def render(self, name: str, context: dict[str, Any]) -> bytes:
        """One page.

        Args:
            name: of the template.
            context: what the template asks for; a name that is missing is an error.
        """
        return self._environment.get_template(name).render(context).encode()


PAGES = web.AppKey("explorer_pages", Pages)


def page(request: web.Request, template: str, **context: object) -> web.Response:
    """A page for this request, which caches keep and ask about again."""
    return cacheable(request, render(request, template, context), content_type=HTML, control=REVALIDATE)


def render(request: web.Request, template: str, context: dict[str, Any]) -> bytes:
    """A page's bytes, with what every page shows."""
    node = services(request)
    common = {
        "root": root_of(request.path),
        "node_name": node.name,
        "origin": node.ledger.store.origin,
        "version": VERSION,
        "here": template.removesuffix(".html"),
    }
    return request.app[PAGES].render(template, common | context)


def root_of(path: str) -> str:
    """The way from a path to the explorer's first page, as a relative reference."""
    inside = path.removeprefix(_EXPLORER)
    if inside == path:
        return "../" * (path.count("/") - 1) + _EXPLORER.removeprefix("/")
    return "../" * inside.count("/") or "./"


def visible(text: object) -> str:
    """A stranger's words with every character that cannot be seen spelled out."""
    return "".join(c if c.isprintable() or c in _JOINERS else f"\\u{{{ord(c):x}}}" for c in str(text))


def lines(text: str) -> str:
    """A text of several lines, each as `visible` has it."""
    return "\n".join(visible(line) for line in text.split("\n"))


def utc(time_s: int) -> Markup:
    """A time for people and for programs; seconds where no calendar has it."""
    if not 0 <= time_s <= _LAST_S:
        return Markup("{} s after 1970").format(time_s)  # nosec: format escapes
    at = datetime.fromtimestamp(time_s, UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M:%S}")


def day(time_s: int) -> Markup:
    """The day of a time."""
    if not 0 <= time_s <= _LAST_S:
        return utc(time_s)
    at = datetime.fromtimestamp(time_s, UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%d}", f"{at.day} {at:%B %Y}")


def short(digest: bytes | str) -> Markup:
    """A hash with its middle out of sight; who selects and copies it gets the whole."""
    digits = digest.hex() if isinstance(digest, bytes) else digest
    head, middle, tail = digits[:SHOWN_DIGITS], digits[SHOWN_DIGITS:-SHOWN_DIGITS], digits[-SHOWN_DIGITS:]
    return Markup('<code class="hash" title="{}">{}<span>{}</span>{}</code>').format(digits, head, middle, tail)


def long(digest: bytes | str) -> Markup:
    """A whole hash."""
    digits = digest.hex() if isinstance(digest, bytes) else digest
    return Markup('<code class="digits">{}</code>').format(digits)


def said(text: object) -> Markup:
    """A stranger's words, kept apart from ours."""
    return Markup('<bdi class="said">{}</bdi>').format(visible(text))


def number(value: int) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def lasting(time_s: float) -> str:
    """A length of time, to the two largest units."""
    seconds, parts = int(time_s), []
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        many, seconds = divmod(seconds, length_s)
        if many:
            parts.append(f"{many} {unit}")
    return " ".join(parts[:2]) or "0 s"


def binary(count: int) -> str:
    """Bytes in the largest unit of two to the ten that they fill."""
    for unit, length in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= length:
            return f"{count / length:.4g} {unit}"
    return f"{count} bytes"


_FILTERS: dict[str, Callable[..., Any]] = {
    "utc": utc,
    "day": day,
    "short": short,
    "long": long,
    "said": said,
    "visible": visible,
    "lines": lines,
    "number": number,
    "lasting": lasting,
    "binary": binary,
    "endpoint": endpoint_named,
    "statistic": statistic_of,
}
