"""A peer's answer is taken as it came, and leaves nothing behind for the next."""

import gzip
import socket
import ssl

from aiohttp import web

from node.bodies import read_limited
from node.sessions import peer_session

PACKED = gzip.compress(bytes(10**6))


async def test_nothing_is_unpacked_and_no_cookie_is_kept():
    seen = []

    async def lie(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Cookie"), request.headers["Accept-Encoding"]))
        return web.Response(body=PACKED, headers={"Content-Encoding": "gzip", "Set-Cookie": "a=b"})

    app = web.Application()
    app.router.add_get("/", lie)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await web.SockSite(runner, listening).start()
        async with peer_session(ssl.create_default_context()) as session:
            for _ in range(2):
                async with session.get(f"http://localhost:{listening.getsockname()[1]}/") as answer:
                    assert await read_limited(answer.content, len(PACKED)) == PACKED
        await runner.cleanup()
    assert seen == [(None, "identity")] * 2
