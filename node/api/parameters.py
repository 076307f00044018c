"""Reading paths and queries: one spelling, bounded, or MalformedError."""

import re

from aiohttp import web

from registry.checkpoint import parse_decimal
from registry.errors import MalformedError

_HASH = re.compile(r"[0-9a-f]{64}")


def hash_of(request: web.Request) -> bytes:
    """The hash in the path, 32 bytes."""
    digits = request.match_info["hash"]
    if not _HASH.fullmatch(digits):
        raise MalformedError("a hash is 64 lower-case hexadecimal digits")
    return bytes.fromhex(digits)


def number(request: web.Request, name: str, *, default: int, maximum: int, minimum: int = 0) -> int:
    """A number in the query; larger ones than the maximum are taken for it, smaller ones than the minimum refused."""
    digits = request.query.get(name)
    if digits is None:
        return default
    value = parse_decimal(digits)
    if value < minimum:
        raise MalformedError(f"{name}: at least {minimum}")
    return min(value, maximum)


def octets_header(request: web.Request, name: str, length: int) -> bytes:
    """A header of so many bytes in lower-case hexadecimal."""
    digits = request.headers.get(name, "")
    if not re.fullmatch(rf"[0-9a-f]{{{2 * length}}}", digits):
        raise MalformedError(f"the header {name} is not {length} bytes in lower-case hexadecimal")
    return bytes.fromhex(digits)
