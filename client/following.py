"""The ledger's entries as they come, from whichever node gives them (server-sent events).

A stream that ends, stalls or leaves an entry out is gone on with at the next node, from the entry that is missing. What
comes is one node's word, as a page of the log is.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp
from aiohttp.http import HttpProcessingError

from client.api import Api
from client.log_page import LogLine, read_line
from client.transport import CONNECTION_ERRORS, UnreachableError, describe_failure, read_json, read_response
from registry.errors import QuorumError, RegistryError

SILENT_S = 45.0  # three heartbeats
LINE_BYTES_MAX = 512 * 1024
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One entry: the line that stands for it in the log, and all that the node said of it."""

    line: LogLine
    document: dict[str, object]


async def follow(api: Api, start: int) -> AsyncGenerator[Followed]:
    """Yield every entry from an index on, in the order of the log, until cancelled.

    Raises:
        QuorumError: code unavailable, no node has let its stream be read for as long as the patience.
    """
    following, reached_s = start, time.monotonic()
    while True:
        problems: dict[str, RegistryError] = {}
        for url in api.transport.urls:
            try:
                async with aclosing(_stream(api, url, following)) as stream:  # who goes away leaves no stream open
                    async for followed in stream:
                        reached_s = time.monotonic()
                        if followed is not None:
                            following += 1
                            yield followed
            except RegistryError as error:
                problems[url] = error
        if time.monotonic() - reached_s > api.transport.timing.patience_s:
            details = "; ".join(f"{url}: {' '.join(str(error).split())}" for url, error in problems.items())
            raise QuorumError(f"the ledger cannot be followed: {details}", code="unavailable")
        await asyncio.sleep(_PAUSE_S)


async def _stream(api: Api, url: str, start: int) -> AsyncGenerator[Followed | None]:
    """One node's stream: its entries, and None for every other sign of life."""
    timing = api.transport.timing
    timeout = aiohttp.ClientTimeout(total=None, connect=timing.connect_timeout_s, sock_read=SILENT_S)
    try:
        async with api.transport.session.get(
            f"{url}/v1/events?since={start}", timeout=timeout, allow_redirects=False, read_bufsize=LINE_BYTES_MAX // 2
        ) as response:
            if response.status != 200:
                await read_response(response)
            async for fields in _events(response):
                followed = _read(fields, start) if fields else None
                start += followed is not None
                yield followed
    except CONNECTION_ERRORS as error:
        raise UnreachableError(describe_failure(error)) from error
    except (ValueError, HttpProcessingError) as error:  # which of them depends on aiohttp's version
        raise UnreachableError(f"a line of more than {LINE_BYTES_MAX} bytes") from error
    raise UnreachableError("the stream ended")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[bytes, bytes]]:
    """The fields of each event; none for a comment."""
    fields: dict[bytes, bytes] = {}
    while line := await response.content.readline():
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        if name:
            fields[name] = value.removeprefix(b" ")
        elif value or line.startswith(b":"):
            yield {}
        else:
            yield fields
            fields = {}


def _read(fields: dict[bytes, bytes], expected: int) -> Followed:
    document = read_json(fields.get(b"data", b""))
    try:
        line = read_line(document)
    except (KeyError, TypeError) as error:
        raise UnreachableError(f"the event is no entry of the ledger: {error!r}", code="malformed") from error
    if line.index != expected:
        raise UnreachableError(f"the stream gave entry {line.index} instead of {expected}", code="malformed")
    return Followed(line=line, document=document)
