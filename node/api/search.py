"""Finding entries by what they bear (DESIGN 5: search by any hash or owner)."""

import re

from aiohttp import web

from node.api import render
from node.api.entries import PAGE_MAX
from node.api.parameters import number
from node.api.services import Services, services
from node.errors import UnavailableError
from registry.errors import MalformedError
from registry.merkle import SIZE_MAX

INDEX_WAIT_S = 5.0
_VALUE = re.compile(r"[0-9a-f]{64}")
INDEX_MAX = SIZE_MAX >> 1  # what SQLite can hold


async def search(request: web.Request) -> web.Response:
    """GET /v1/search: the entries that bear a hash, or that an owner's key signed; a page of them."""
    node = services(request)
    value, is_signer = _wanted(request)
    start = number(request, "start", default=0, maximum=INDEX_MAX)
    limit = number(request, "limit", default=PAGE_MAX, minimum=1, maximum=PAGE_MAX)
    size = await reach_all(node)
    found = node.index.find(value, is_signer=is_signer, start=start, limit=limit + 1)
    listed = [
        {**render.entry(node.ledger.store.placed(node.ledger.store.entry(index))), "bears": roles}
        for index, roles in found[:limit]
    ]
    following = found[limit][0] if len(found) > limit else None
    return web.json_response({"entries": listed, "size": size, "next": following})


async def reach_all(node: Services) -> int:
    """Have every entry indexed that is durable now; return how many those are.

    Raises:
        UnavailableError: code indexing, it is not done in time.
    """
    size = node.ledger.store.size
    if not await node.index.reach(size, INDEX_WAIT_S):
        done = f"{node.index.indexed.value} of {size} entries can be searched yet"
        raise UnavailableError(done, code="indexing", retry_after_s=5)
    return size


def _wanted(request: web.Request) -> tuple[bytes, bool]:
    """The value to search for, and whether it is a signer's key."""
    given = [name for name in ("hash", "owner") if name in request.query]
    if len(given) != 1:
        raise MalformedError("search by hash or by owner, one of them")
    digits = request.query[given[0]]
    if not _VALUE.fullmatch(digits):
        raise MalformedError(f"{given[0]}: expected 64 lower-case hexadecimal digits")
    return bytes.fromhex(digits), given == ["owner"]
