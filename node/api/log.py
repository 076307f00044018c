"""The log for auditors: checkpoints and tiles (C2SP tlog-checkpoint, tlog-tiles)."""

from aiohttp import web

from node.api import caching
from node.api.parameters import number
from node.api.services import WAIT_S_MAX, services
from node.store import Store
from registry.checkpoint import parse_decimal
from registry.errors import RefusedError
from registry.merkle import SIZE_MAX
from registry.tiles import LEVEL_MAX, TILE_WIDTH, entry_bundle, parse_tile_path

TEXT = "text/plain; charset=utf-8"
_TILE_BITS = 8


async def latest(request: web.Request) -> web.Response:
    """GET /checkpoint: the latest one that a quorum cosigned."""
    note = await services(request).gatherer.latest_note()
    return caching.cacheable(request, str(note).encode(), content_type=TEXT, control=caching.CHECKPOINT)


async def own(request: web.Request) -> web.Response:
    """GET /v1/checkpoints/{size}: this node's own signatures on the checkpoint of a size; waits for wait_s."""
    ledger = services(request).ledger
    size = parse_decimal(request.match_info["size"])
    await ledger.signed.wait_for(size, number(request, "wait_s", default=0, maximum=WAIT_S_MAX))
    note = ledger.own_note(size) if size <= ledger.signed.value else None
    if note is None:
        raise RefusedError(f"this node has signed up to size {ledger.signed.value}", code="not_yet")
    return web.Response(text=str(note))


async def entry_tile(request: web.Request) -> web.Response:
    """GET /tile/entries/{path}: up to 256 entries."""
    index, width = parse_tile_path(request.match_info["path"])
    start = _bounded(index) * TILE_WIDTH
    entries = services(request).ledger.store.entries(start, start + width)
    if len(entries) < width:
        raise RefusedError("the log is not that long yet", code="not_found")
    return _tile(request, entry_bundle(entries), width)


async def hash_tile(request: web.Request) -> web.Response:
    """GET /tile/{level}/{path}: up to 256 hashes of complete subtrees of 256^level entries."""
    level = parse_decimal(request.match_info["level"])
    index, width = parse_tile_path(request.match_info["path"])
    store = services(request).ledger.store
    if level > LEVEL_MAX or (_bounded(index) * TILE_WIDTH + width) << (_TILE_BITS * level) > store.size:
        raise RefusedError("the log is not that long yet", code="not_found")
    return _tile(request, _hashes(store, level, index, width), width)


def _hashes(store: Store, level: int, index: int, width: int) -> bytes:
    start = index * TILE_WIDTH
    return b"".join(store.read_node(_TILE_BITS * level, position) for position in range(start, start + width))


def _bounded(index: int) -> int:
    return min(index, SIZE_MAX // TILE_WIDTH >> 8)  # beyond what SQLite can hold, so never found


def _tile(request: web.Request, body: bytes, width: int) -> web.Response:
    control = caching.IMMUTABLE if width == TILE_WIDTH else caching.PARTIAL
    return caching.cacheable(request, body, content_type="application/octet-stream", control=control)
