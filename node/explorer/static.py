"""Style sheets, scripts and the icon, read once and served from memory.

A browser keeps them and asks by their tag whether they have changed: they change together, with the node's program, and
half of an old script with half of a new one must not meet.
"""

from collections.abc import Mapping
from importlib import resources

from aiohttp import web

from node.api.caching import REVALIDATE, cacheable
from registry.errors import RefusedError

FILES = web.AppKey("explorer_files", Mapping[str, bytes])
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def read_files() -> Mapping[str, bytes]:
    """Every file, by its name."""
    folder = resources.files("node.explorer") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if _suffix(file.name) in _TYPES}


async def file(request: web.Request) -> web.Response:
    """GET /explorer/static/{name}: one of them."""
    name = request.match_info["name"]
    body = request.app[FILES].get(name)
    if body is None:
        raise RefusedError("there is no such file", code="not_found")
    return cacheable(request, body, content_type=_TYPES[_suffix(name)], control=REVALIDATE)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
