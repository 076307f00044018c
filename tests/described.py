"""Holds a node's answers against its own description (OpenAPI), wherever a test serves one."""

import functools
import json
from collections.abc import Callable
from typing import Any

import msgpack
from aiohttp import web
from jsonschema import Draft202012Validator

from node.api.negotiation import MSGPACK
from node.api.openapi import DOCUMENT

_READERS: dict[str, Callable[[Any], Any]] = {"application/json": json.loads, MSGPACK: msgpack.unpackb}
_ANYWHERE = {404, 405}  # for paths and methods that no route has


def watch(app: web.Application, problems: list[str]) -> None:
    """Note every answer of the application that its description does not foresee."""

    async def check(request: web.Request, response: web.StreamResponse) -> None:
        resource = request.match_info.route.resource
        is_page = resource is not None and (resource.canonical == "/" or resource.canonical.startswith("/explorer"))
        problem = None if is_page else mismatch(request, response)
        if problem:
            problems.append(f"{request.method} {request.path}: {problem}")

    app.on_response_prepare.append(check)


def mismatch(request: web.Request, response: web.StreamResponse) -> str | None:
    """What the description does not say of an answer; None if it fits."""
    resource = request.match_info.route.resource
    if resource is None:
        return _body_mismatch({"$ref": "#/components/schemas/Error"}, response) if response.status in _ANYWHERE else "?"
    method = "get" if request.method == "HEAD" else request.method.lower()
    answers = DOCUMENT["paths"][resource.canonical][method]["responses"]
    answer = answers.get(str(response.status))
    if answer is None:
        return f"status {response.status} is not described"
    if "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    missing = set(answer.get("headers", ())) - set(response.headers)
    if missing and not isinstance(response, web.FileResponse):
        return f"headers {missing} are described and not there"
    if "content" not in answer:
        return None if not getattr(response, "body", None) else "a body that is not described"
    if response.content_type not in answer["content"]:
        return f"{response.content_type} is not described"
    return _body_mismatch(answer["content"][response.content_type]["schema"], response)


def _body_mismatch(schema: dict[str, Any], response: web.StreamResponse) -> str | None:
    if response.content_type not in _READERS or not isinstance(response, web.Response):
        return None
    read = _READERS[response.content_type](response.body)
    error = next(_validator(json.dumps(schema)).iter_errors(read), None)
    return error and f"{error.json_path}: {error.message}"[:500]


@functools.cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": DOCUMENT["components"]})
