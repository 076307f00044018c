"""The policies of the ledger in their order, and what this node has seen of a member's signatures."""

import re

from aiohttp import web

from node.api.services import services
from node.membership import PAGE
from registry.errors import MalformedError, RefusedError
from registry.spelling import encode_base64, is_key_name

_HASH = re.compile(r"[0-9a-f]{64}")


async def policies(request: web.Request) -> web.Response:
    """GET /v1/policies: the messages that set a policy, from the genesis or from the one after ?after= on."""
    store = services(request).ledger.store
    after = request.query.get("after")
    if after is not None and not _HASH.fullmatch(after):
        raise MalformedError("after: a hash is 64 lower-case hexadecimal digits")
    placed = [found for digest in store.policy_hashes if (found := store.find(digest)) is not None]
    if after is not None:
        places = [number for number, one in enumerate(placed, start=1) if one.signed.hash.hex() == after]
        if not places:
            raise RefusedError(f"no message {after} has set a policy here", code="not_found")
        placed = placed[places[0] :]
    shown = [
        {
            "index": one.index,
            "message_hash": one.signed.hash.hex(),
            "envelope": encode_base64(store.envelope(one.index)),
        }
        for one in placed[:PAGE]
    ]
    return web.json_response({"policies": shown})


async def cosignature(request: web.Request) -> web.Response:
    """GET /v1/cosignatures/{name}: the largest checkpoint that this node has seen signed by a member."""
    node, name = services(request), request.match_info["name"]
    if not is_key_name(name) or len(name) > 64:
        raise MalformedError("name: not a member's name")
    # Only those who are, or were, members can have signed anything, and anybody can ask for any name.
    note = node.gatherer.seen_signed_by(name) if node.ledger.store.keys_of(name) else None
    if note is None:
        raise RefusedError(f"this node has seen no checkpoint signed by {name}", code="not_found")
    return web.Response(text=str(note))
