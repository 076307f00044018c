"""What every answer of the explorer carries, and errors as pages for who reads them in a browser.

The policy lets a page run its own scripts, use its own styles and ask its own node for a page, and nothing else. It may
not even fetch: a file that is dropped into a page cannot be sent anywhere by it.

Source: https://www.w3.org/TR/CSP3/.
"""

import json
from http import HTTPStatus

from aiohttp import web

from node.api.errors import MAY_BE_BEHIND, Handler
from node.api.negotiation import JSON
from node.explorer.rendering import HTML, render

POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_API = ("/v1/", "/tile/", "/metrics", "/health", "/checkpoint", "/add-checkpoint", "/openapi.json")
_TOLD = ("Retry-After", "Allow", *MAY_BE_BEHIND)  # headers that belong to an error
_HTML = "text/html"


@web.middleware
async def answer_as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Set the headers of the explorer's answers, and turn errors into pages where a page was asked for."""
    if request.path.startswith(_API):
        return await handler(request)
    try:
        answer = await handler(request)
    except web.HTTPRedirection as moved:
        moved.headers.update(HEADERS)
        raise
    if isinstance(answer, web.Response) and answer.status >= HTTPStatus.BAD_REQUEST and _wants_page(request):
        answer = _error_page(request, answer)
    if not answer.prepared:
        answer.headers.update(HEADERS)
    return answer


def _wants_page(request: web.Request) -> bool:
    """Whether an error is read by a person: browsers name HTML in what they accept, programs do not."""
    return _HTML in request.headers.get("Accept", "").lower()


def _error_page(request: web.Request, answer: web.Response) -> web.Response:
    if answer.content_type != JSON or not isinstance(answer.body, bytes):
        return answer
    error = json.loads(answer.body)["error"]
    status = HTTPStatus(answer.status)
    context = {"status": status, **error, "behind": not MAY_BE_BEHIND.keys().isdisjoint(answer.headers)}
    body = render(request, "error.html", context)
    told = {name: answer.headers[name] for name in _TOLD if name in answer.headers}
    headers = {"Content-Type": HTML, "Cache-Control": "no-store", "Vary": "Accept", **told}
    return web.Response(body=body, status=status, headers=headers)
