"""Uploading and serving files by their hash."""

from aiohttp import web

from node.api.caching import IMMUTABLE
from node.api.parameters import hash_of, octets_header
from node.api.services import services
from node.bodies import steady_chunks
from registry import signing
from registry.errors import MalformedError, RefusedError


async def upload(request: web.Request) -> web.Response:
    """PUT /v1/blobs/{hash}: store a file that somebody signed for; nothing is kept if the hash is another."""
    node = services(request)
    sha256 = hash_of(request)
    bytes_total = _check_upload(request, sha256, node.ledger.store.origin, node.blob_bytes_max)
    if node.blobs.find(sha256) is not None:
        node.blobs.touch(sha256)
        async for _ in steady_chunks(request.content):
            pass  # the body is on its way; a client that is cut off could not read the answer
        return web.json_response({"sha256": sha256.hex(), "stored": False})
    node.space.check(bytes_total)
    node.blobs.make_room(bytes_total)
    await node.blobs.add(sha256, steady_chunks(request.content), bytes_max=bytes_total)
    return web.json_response({"sha256": sha256.hex(), "stored": True}, status=201)


async def download(request: web.Request) -> web.StreamResponse:
    """GET or HEAD /v1/blobs/{hash}: the file."""
    path = services(request).blobs.find(hash_of(request))
    if path is None:
        raise RefusedError("this node does not have that blob", code="not_found")
    headers = {
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": IMMUTABLE,
    }
    _check_range(request, path.stat().st_size)
    return web.FileResponse(path, headers=headers)


def _check_range(request: web.Request, bytes_total: int) -> None:
    """Refuse a range that the file has not, in the shape of every error; aiohttp would with nothing to read."""
    try:
        start = request.http_range.start or 0
    except ValueError:
        start = bytes_total
    if start >= bytes_total > 0 and "If-Range" not in request.headers:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{bytes_total}"})


def _check_upload(request: web.Request, sha256: bytes, origin: str, bytes_max: int) -> int:
    """Check who signed for the upload; return the bytes that were announced."""
    signer = octets_header(request, "Wmreg-Signer", signing.PUBLIC_KEY_BYTES)
    signature = octets_header(request, "Wmreg-Signature", signing.SIGNATURE_BYTES)
    bytes_total = request.content_length
    if bytes_total is None:
        raise MalformedError("an upload states its Content-Length", code="length_required")
    if bytes_total > bytes_max:
        raise MalformedError(f"a blob has at most {bytes_max} bytes", code="too_large")
    if not signing.is_signed(signing.blob_upload(origin, sha256, bytes_total), signer=signer, signature=signature):
        raise RefusedError("the upload's signature does not hold", code="bad_signature")
    return bytes_total
