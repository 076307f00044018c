"""New entries as they come (server-sent events; WHATWG HTML, section 9.2).

Each event has its entry's index as its id, so a reader that was cut off goes on where it was: it sends the last id
again, to this node or to another, since all have the same log. A stream costs a connection, so there is a limit on
them, and who does not read is dropped.
"""

import asyncio
import json

from aiohttp import web

from node.api import render
from node.api.parameters import number
from node.api.services import Services, services
from registry.checkpoint import parse_decimal
from registry.merkle import SIZE_MAX

HEARTBEAT_S = 15.0
STALLED_S = 10.0
_TICK_S = 1.0  # how long a stream takes to notice that its reader is gone or that the node stops
_BATCH_ENTRIES = 16
_INDEX_MAX = SIZE_MAX >> 1  # what SQLite can hold


async def follow(request: web.Request) -> web.StreamResponse:
    """GET /v1/events: every entry from an index on, and then each new one when it is durable here."""
    node = services(request)
    start = _start(request, node.ledger.store.size)
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    with node.streams.one(request.remote):
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            await _stream(request, response, node, start)
        except (ConnectionError, TimeoutError):  # gone, or does not read
            if request.transport is not None:
                request.transport.abort()
    return response


def _start(request: web.Request, size: int) -> int:
    """The first index to send."""
    last = request.headers.get("Last-Event-ID")
    if last is not None:
        return min(parse_decimal(last) + 1, _INDEX_MAX)
    return number(request, "since", default=size, maximum=_INDEX_MAX)


async def _stream(request: web.Request, response: web.StreamResponse, node: Services, start: int) -> None:
    clock, index = asyncio.get_running_loop().time, start
    await _send(response, b": entries from %d on\n\n" % start)
    sent_s = clock()
    while not node.stopping.is_set() and request.transport is not None:
        entries = node.ledger.store.entries(index, index + _BATCH_ENTRIES)
        for entry in entries:
            document = render.entry(node.ledger.store.placed(entry))
            await _send(response, b"id: %d\nevent: entry\ndata: %s\n\n" % (index, json.dumps(document).encode()))
            index, sent_s = index + 1, clock()
        if not entries:
            await node.ledger.applied.wait_for(index + 1, _TICK_S)
            if clock() - sent_s >= HEARTBEAT_S:
                await _send(response, b":\n\n")
                sent_s = clock()


async def _send(response: web.StreamResponse, chunk: bytes) -> None:
    async with asyncio.timeout(STALLED_S):
        await response.write(chunk)
