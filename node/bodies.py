"""Reading HTTP bodies with a limit, on either side of a connection."""

import aiohttp

from registry.errors import MalformedError

CHUNK_BYTES = 256 * 1024


async def read_limited(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """Read a body to its end.

    Raises:
        MalformedError: code too_large.
    """
    body = bytearray()
    async for chunk in content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > bytes_max:
            raise MalformedError(f"a body of more than {bytes_max} bytes", code="too_large")
    return bytes(body)
