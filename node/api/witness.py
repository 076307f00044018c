"""This node as a witness of its own ledger, for clients that speak C2SP tlog-witness.

A witness of that protocol takes the word of a proof. This node signs the sizes that it stored, as they follow each
other, and nothing else: what it is asked to cosign has to be the tree that it has, or comes to have in a moment. A
member's signature on another tree is evidence of a fork, and is logged whole.

Source: https://c2sp.org/tlog-witness.
"""

import hashlib
import logging

from aiohttp import web

from node.api.log import TEXT
from node.api.services import Services, services
from node.bodies import read_limited
from node.errors import UnavailableError
from node.logs import fields
from registry import merkle
from registry.checkpoint import Checkpoint, parse_decimal
from registry.errors import ConsistencyError, MalformedError, RefusedError
from registry.note import NOTE_BYTES_MAX, Note, verify_signatures
from registry.spelling import decode_base64

PROOF_HASHES_MAX = 63
BODY_BYTES_MAX = NOTE_BYTES_MAX + 64 * PROOF_HASHES_MAX
WAIT_S = 5.0
SIZE_TYPE = "text/x.tlog.size"
_OLD = "old "

logger = logging.getLogger(__name__)


async def add_checkpoint(request: web.Request) -> web.Response:
    """POST /add-checkpoint: this node's cosignature on a checkpoint that continues the last one that it signed."""
    node = services(request)
    old_size, proof, note = _parse(await read_limited(request.content, BODY_BYTES_MAX))
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != node.ledger.store.origin:
        raise RefusedError(f"this node is a witness of {node.ledger.store.origin}", code="unknown_origin")
    _check_signed(node, note)
    if not 0 < checkpoint.size >= old_size:
        raise MalformedError(f"old is {old_size}, larger than the checkpoint's size or with an empty one")
    signed_size = node.ledger.signed.value
    if old_size != signed_size:
        return web.Response(status=409, body=b"%d\n" % signed_size, headers={"Content-Type": SIZE_TYPE})
    _check_continues(node, old_size, checkpoint, proof)
    if not await node.ledger.signed.wait_for(checkpoint.size, WAIT_S):
        raise UnavailableError("this node signs what it has stored, and has not stored that much yet", code="behind")
    return web.Response(body=_cosignature(node, checkpoint, note), headers={"Content-Type": TEXT})


async def latest(request: web.Request) -> web.Response:
    """GET /{origin}/checkpoint: the largest checkpoint that this node has signed; origin is the hash of the log's."""
    node = services(request)
    own = node.ledger.own_note(node.ledger.signed.value)
    if own is None or request.match_info["origin"] != hashlib.sha256(node.ledger.store.origin.encode()).hexdigest():
        raise RefusedError("this node has cosigned no checkpoint of that log", code="not_found")
    return web.Response(body=str(own).encode(), headers={"Content-Type": TEXT})


def _parse(raw: bytes) -> tuple[int, list[bytes], Note]:
    """Read a request: the old size, a consistency proof, and a checkpoint."""
    try:
        head, gap, note = raw.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise MalformedError("the request is not text") from error
    first, *lines = head.split("\n")
    if not gap or not first.startswith(_OLD) or len(lines) > PROOF_HASHES_MAX:
        raise MalformedError("a request is `old SIZE`, up to 63 hashes, an empty line and a signed checkpoint")
    return parse_decimal(first.removeprefix(_OLD)), [decode_base64(line) for line in lines], Note.parse(note)


def _check_signed(node: Services, note: Note) -> None:
    store = node.ledger.store
    try:
        is_signed = bool(verify_signatures(note, [member.log_key(store.origin) for member in store.policy.members]))
    except RefusedError as error:
        raise RefusedError(str(error), code="untrusted_checkpoint") from error
    if not is_signed:
        raise RefusedError("no member has signed this checkpoint under the log's name", code="untrusted_checkpoint")


def _check_continues(node: Services, old_size: int, checkpoint: Checkpoint, proof: list[bytes]) -> None:
    if not old_size:
        if proof:
            raise RefusedError("nothing comes before the first checkpoint, and nothing proves it", code="inconsistent")
        return
    try:
        merkle.verify_consistency(
            old_size=old_size,
            old_root=node.ledger.store.root(old_size),
            new_size=checkpoint.size,
            new_root=checkpoint.root,
            proof=proof,
        )
    except ConsistencyError as error:
        raise RefusedError(str(error), code="inconsistent") from error


def _cosignature(node: Services, checkpoint: Checkpoint, note: Note) -> bytes:
    """This node's cosignature line; refused for another tree than the one that is stored here."""
    own = node.ledger.own_note(checkpoint.size)
    if own is None or own.text != note.text:
        logger.critical("a member signed another tree", extra=fields(own=str(own), other=str(note)))
        raise RefusedError(f"this node has another tree of size {checkpoint.size}", code="inconsistent")
    return f"{own.signatures[-1]}\n".encode()
