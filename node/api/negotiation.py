"""JSON, or the same in msgpack for whoever prefers it by Accept (RFC 9110, section 12.5.1).

What is a file has the bytes that its hash is over, so a certificate is JSON whatever is asked for, and so is the
description of the API.
"""

import json
from collections.abc import Awaitable, Callable

import msgpack
from aiohttp import web

JSON, MSGPACK = "application/json", "application/vnd.msgpack"
_ALIASES = frozenset({MSGPACK, "application/msgpack", "application/x-msgpack"})
_FILES = frozenset({"/v1/certificates/{hash}", "/openapi.json"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answer_as_accepted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer in msgpack instead of JSON where that is preferred; errors as well."""
    answer = await handler(request)
    if not isinstance(answer, web.Response) or answer.content_type != JSON or not isinstance(answer.body, bytes):
        return answer
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in _FILES and answer.status < 400:
        return answer
    answer.headers["Vary"] = "Accept"
    wanted = preferred(request.headers.get("Accept", ""))
    if wanted != JSON:
        packed: bytes = msgpack.packb(json.loads(answer.body))
        answer.body = packed
        answer.headers["Content-Type"] = wanted
    return answer


def preferred(accept: str) -> str:
    """The media type to answer in: JSON, or msgpack under the name that is asked for and not after JSON."""
    found: list[tuple[float, str]] = []
    for part in accept.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        if name == JSON or name in _ALIASES:
            found.append((_weight(parameters), name))
    weight, name = max(found, key=lambda one: one[0], default=(0.0, JSON))  # the first of several that weigh the same
    return name if weight > 0 else JSON


def _weight(parameters: list[str]) -> float:
    """The q of a media type, in [0, 1]; 0 for one that makes no sense."""
    spelled = next((word.removeprefix("q=") for word in parameters if word.startswith("q=")), "1")
    try:
        weight = float(spelled)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
