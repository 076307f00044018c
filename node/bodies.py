"""Reading HTTP bodies with a limit on bytes and on time, on either side of a connection.

A sender that drips a byte now and then is never silent, so a limit on silence does not end it: a body has to keep a
least pace. What came fast pays for a minute of silence and no more, or a large body, nearly all of it sent, could be
held in the store for hours.
"""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from registry.errors import MalformedError

CHUNK_BYTES = 256 * 1024
GRACE_S = 30.0
CREDIT_S_MAX = 60.0
PACE_BYTES_S = 64 * 1024


class TooSlowError(TimeoutError):
    """A body comes at less than PACE_BYTES_S, GRACE_S and a credit aside."""


async def steady_chunks(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Pass a body on as it comes.

    Raises:
        TooSlowError: it does not come steadily.
    """
    clock = asyncio.get_running_loop().time
    begun_s, read = clock(), 0
    until_s = begun_s + GRACE_S
    while True:
        try:
            async with asyncio.timeout_at(until_s):
                chunk = await content.read(CHUNK_BYTES)
        except TimeoutError as error:
            raise TooSlowError(f"{read} bytes came in {clock() - begun_s:.0f} s") from error
        if not chunk:
            return
        read += len(chunk)
        came_s = clock()
        yield chunk
        # The time that the chunk took here is not the sender's.
        until_s = min(until_s + len(chunk) / PACE_BYTES_S, came_s + CREDIT_S_MAX) + clock() - came_s


async def read_limited(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """Read a body to its end.

    Raises:
        MalformedError: code too_large.
        TooSlowError: it does not come steadily.
    """
    body = bytearray()
    async for chunk in steady_chunks(content):
        body += chunk
        if len(body) > bytes_max:
            raise MalformedError(f"a body of more than {bytes_max} bytes", code="too_large")
    return bytes(body)
