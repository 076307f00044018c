"""HTTP sessions to the other nodes, who may lie: nothing of one answer is kept for the next, nothing is unpacked."""

import ssl

import aiohttp


def peer_session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """A session for small answers; whoever asks sets the time-out and limits what is read.

    Args:
        tls: whose certificates are believed.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls),
        headers={"Accept-Encoding": "identity"},  # a packed answer may be a thousand times as long
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
