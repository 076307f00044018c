"""One connection to the API, as aiohttp serves it, with every error in the node's own shape.

What never becomes a request (no HTTP, or too long a line) gets no handler and so no middleware: aiohttp answers it by
itself, in plain text, and so it does an unknown Expect header. Here both get the JSON of every other error.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from node.api.errors import error_body

_MESSAGE_CHARACTERS_MAX = 200
_CODES = {400: "malformed", 417: "expectation_failed"}

Counted = Callable[[str], None]


class ApiConnection(web.RequestHandler):
    """Serves the requests of one connection.

    Args:
        server: whose connection it is.
        on_refused: called with the code of every error that is answered here.
        on_lost: called when the connection has ended.
        options: aiohttp's own.
    """

    def __init__(self, server: web.Server, *, on_refused: Counted, on_lost: Callable[[], None], **options: Any) -> None:  # noqa: ANN401 -- as aiohttp takes them
        # A body is taken as it was sent: an unpacked one may be a thousand times longer.
        super().__init__(server, loop=asyncio.get_running_loop(), auto_decompress=False, **options)
        self._on_refused, self._on_lost = on_refused, on_lost

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._on_lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read, or what went wrong outside every handler, and close the connection."""
        super().handle_error(request, status, exc, message)  # logs it; raises if an answer was begun already
        answer = self._refusal(status, message or "")
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; an error that aiohttp raised outside the middleware gets the shape of the others."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = self._refusal(resp.status, resp.text or resp.reason)
            resp.force_close()  # its body was not looked at
        return await super().finish_response(request, resp, start_time)

    def _refusal(self, status: int, message: str) -> web.Response:
        first_line = message.strip().partition("\n")[0][:_MESSAGE_CHARACTERS_MAX]
        code = _CODES.get(status, "internal")
        self._on_refused(code)
        return web.json_response(
            error_body(code, "the node has a fault; see its log" if status == 500 else first_line), status=status
        )
