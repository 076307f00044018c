"""From an error to an HTTP answer: one table, one middleware, one JSON shape (STYLE: errors).

``{"error": {"code": "...", "message": "..."}}``; the code is the error's own and stable. What is not in the table is
a bug of the node: 500, nothing said outside, a traceback in its own log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from node.api.limits import HEAD_BYTES_MAX, HEADERS_LIMIT
from node.api.services import services
from node.bodies import TooSlowError
from node.errors import SelfCheckError, UnavailableError
from node.logs import fields
from node.space import full_error, is_disk_full
from registry.errors import MalformedError, ProofError, QuorumError, RefusedError, RegistryError, UntrustedError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BY_CODE = {
    "not_found": HTTPStatus.NOT_FOUND,
    "not_yet": HTTPStatus.NOT_FOUND,
    "unknown_origin": HTTPStatus.NOT_FOUND,
    "untrusted_checkpoint": HTTPStatus.FORBIDDEN,
    "open": HTTPStatus.CONFLICT,
    "not_verified": HTTPStatus.CONFLICT,
    "superseded": HTTPStatus.CONFLICT,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "headers_too_large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "quota": HTTPStatus.INSUFFICIENT_STORAGE,
    "too_many_requests": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_claims": HTTPStatus.TOO_MANY_REQUESTS,
}
_BY_CLASS: dict[type[Exception], HTTPStatus] = {
    MalformedError: HTTPStatus.BAD_REQUEST,
    RefusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    QuorumError: HTTPStatus.SERVICE_UNAVAILABLE,
    UntrustedError: HTTPStatus.SERVICE_UNAVAILABLE,  # those who signed have left: the present members will sign again
    ProofError: HTTPStatus.INTERNAL_SERVER_ERROR,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    SelfCheckError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_TOLD = ("Allow", "Content-Range")  # headers that belong to an error
MAY_BE_BEHIND = {"Wmreg-May-Be-Behind": "1"}
_EXPECTED = tuple(_BY_CLASS)
_WITH_CODE = (RegistryError, UnavailableError, SelfCheckError)
_COME_BACK = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})

logger = logging.getLogger(__name__)


class MayBeBehindError(RefusedError):
    """Not here, says a node that could not find out whether it has all that is recorded."""


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer, and count it."""
    try:
        _check_head(request)
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        code = "not_found" if error.status == HTTPStatus.NOT_FOUND else error.reason.lower().replace(" ", "_")
        answer = error_response(request, HTTPStatus(error.status), code, error.reason)
        answer.headers.update({name: error.headers[name] for name in _TOLD if name in error.headers})
        return answer
    except (HttpProcessingError, TooSlowError) as error:
        return _body_refused(request, error)
    except _EXPECTED as error:
        return _respond(request, error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:
        if is_disk_full(error):
            return _respond(request, full_error())
        logger.exception("a request failed", extra=fields(method=request.method, path=request.path[:200]))
        return error_response(
            request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the node has a fault; see its log"
        )


def error_body(code: str, message: str) -> dict[str, object]:
    """What every error's JSON says."""
    return {"error": {"code": code, "message": message}}


def status_of(error: Exception) -> HTTPStatus:
    """The table, looked up: by the error's code, else by its class."""
    code = error.code if isinstance(error, _WITH_CODE) else ""
    by_class = next((status for kind, status in _BY_CLASS.items() if isinstance(error, kind)), None)
    return _BY_CODE.get(code) or by_class or HTTPStatus.INTERNAL_SERVER_ERROR


def error_response(
    request: web.Request, status: HTTPStatus, code: str, message: str, *, retry_after_s: int = 1
) -> web.Response:
    """The JSON shape of every error; counts it."""
    answer = web.json_response(_counted(request, code, message), status=status)
    if status in _COME_BACK:
        answer.headers["Retry-After"] = str(retry_after_s)
    return answer


def refusal(request: web.Request, error: Exception) -> dict[str, object]:
    """The same shape for one of several things that were asked at once; counts it."""
    return _counted(request, _code_of(error), str(error))


def _check_head(request: web.Request) -> None:
    """Refuse what a head says or is; one that comes whole was not measured while it came."""
    if sum(len(name) + len(value) for name, value in request.raw_headers) > HEAD_BYTES_MAX:
        raise MalformedError(HEADERS_LIMIT, code="headers_too_large")
    if request.body_exists and request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MalformedError("a body is sent as it is, without a Content-Encoding")


def _body_refused(request: web.Request, error: HttpProcessingError | TooSlowError) -> web.Response:
    """Answer a request whose head was in order and whose body does not come as it should."""
    if isinstance(error, TooSlowError):
        return error_response(request, HTTPStatus.REQUEST_TIMEOUT, "too_slow", f"the body comes too slowly: {error}")
    return error_response(request, HTTPStatus.BAD_REQUEST, "malformed", error.message)


def _counted(request: web.Request, code: str, message: str) -> dict[str, object]:
    services(request).refused[code] += 1
    return error_body(code, message)


def _respond(request: web.Request, error: Exception) -> web.Response:
    retry_after_s = error.retry_after_s if isinstance(error, UnavailableError) else 1
    answer = error_response(request, status_of(error), _code_of(error), str(error), retry_after_s=retry_after_s)
    if isinstance(error, MayBeBehindError):
        answer.headers.update(MAY_BE_BEHIND)
    return answer


def _code_of(error: Exception) -> str:
    if isinstance(error, ProofError):
        logger.error("this node's log does not prove what it says", extra=fields(why=str(error)))
    return error.code if isinstance(error, _WITH_CODE) else "internal"
