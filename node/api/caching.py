"""Answers that others may keep: an entity tag, how long it is good for, and 304 for who has it (RFC 9110, 9111).

A tile that is full never changes. A partial one does not either, but is of no use once the log has grown; how far it
has, the checkpoint tells.
"""

import hashlib

from aiohttp import web

IMMUTABLE = "public, max-age=31536000, immutable"
PARTIAL = "public, max-age=60"
CHECKPOINT = "public, max-age=2"
REVALIDATE = "no-cache"
_TAG_DIGITS = 32


def cacheable(request: web.Request, body: bytes, *, content_type: str, control: str) -> web.Response:
    """The body, or 304 where the request names its tag.

    Args:
        request: its If-None-Match is looked at.
        body: what the tag is made of.
        content_type: of the body.
        control: for caches: one of the values above.
    """
    tag = hashlib.sha256(body).hexdigest()[:_TAG_DIGITS]
    headers = {"Cache-Control": control, "ETag": f'"{tag}"'}
    if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers | {"Content-Type": content_type})
