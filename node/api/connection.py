"""One connection to the API, as aiohttp serves it, with every error in the node's own shape.

What never becomes a request (no HTTP, or too long a line) gets no handler and so no middleware: aiohttp answers it by
itself, in plain text, and so it does an unknown Expect header. Here both get the JSON of every other error.

A request's head is limited as a whole as well: aiohttp limits each line of it and their number, which together make a
megabyte that a client may send and never finish.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong, TransferEncodingError

from node.api.errors import error_body
from node.api.limits import FIELD_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_LIMIT, HEADERS_MAX, URL_BYTES_MAX, raw_refusal

_MESSAGE_CHARACTERS_MAX = 200
_CODES = {400: "malformed", 417: "expectation_failed"}
_TOO_MANY_HEADERS = "Too many headers received"  # aiohttp's words for it
_URI_TOO_LONG = HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", f"a URL has at most {URL_BYTES_MAX} bytes"
_HEADERS_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", HEADERS_LIMIT

_Refusal = tuple[HTTPStatus, str, str]  # status, code and message

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
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            max_line_size=URL_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=HEADERS_MAX,
            **options,
        )
        self._on_refused, self._on_lost = on_refused, on_lost
        self._head_bytes = 0  # of a head that is not finished

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that gets too large is refused without waiting for its end."""
        head = self._waiter  # for the next request, and so for its head; None while one is handled
        super().data_received(data)
        self._end_broken_body()
        is_head = head is not None and not head.done()
        self._head_bytes = self._head_bytes + len(data) if is_head else 0
        if self._head_bytes > HEAD_BYTES_MAX and self.transport is not None:
            _, code, _ = _HEADERS_TOO_LARGE
            self._on_refused(code)
            self.transport.write(raw_refusal(*_HEADERS_TOO_LARGE))
            self.force_close()

    def _end_broken_body(self) -> None:
        """Tell the request that is read that its body is broken, or it would wait for the rest until its time is over.

        Nothing else can be there to be handled next while a body has not ended.
        """
        request = self._current_request
        if request is not None and self._messages and not request.content.is_eof():
            request.content.set_exception(TransferEncodingError("the body is not what its head says"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read, or what went wrong outside every handler, and close the connection."""
        super().handle_error(request, status, exc, message)  # logs it; raises if an answer was begun already
        answer = self._refusal(*(_oversized(exc) or _refusal(status, message or "")))
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; an error that aiohttp raised outside the middleware gets the shape of the others."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = self._refusal(*_refusal(resp.status, resp.text or resp.reason))
            resp.force_close()  # its body was not looked at
        return await super().finish_response(request, resp, start_time)

    def _refusal(self, status: HTTPStatus, code: str, message: str) -> web.Response:
        self._on_refused(code)
        return web.json_response(error_body(code, message), status=status)


def _refusal(status: int, message: str) -> _Refusal:
    """How an error reads that aiohttp found."""
    first_line = message.strip().partition("\n")[0][:_MESSAGE_CHARACTERS_MAX]
    said = "the node has a fault; see its log" if status == 500 else first_line
    return HTTPStatus(status), _CODES.get(status, "internal"), said


def _oversized(error: BaseException | None) -> _Refusal | None:
    """What is too large about a head that could not be read; None if it is something else."""
    if isinstance(error, LineTooLong):
        return _URI_TOO_LONG if error.args[1] == URL_BYTES_MAX else _HEADERS_TOO_LARGE
    if isinstance(error, BadHttpMessage) and error.message == _TOO_MANY_HEADERS:
        return _HEADERS_TOO_LARGE
    return None
