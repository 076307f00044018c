"""Submitting entries and reading them; receipts, claims and certificates."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from node.api import render
from node.api.errors import MAY_BE_BEHIND, MayBeBehindError, refusal, status_of
from node.api.limits import TokenBuckets, network_of
from node.api.parameters import hash_of, number
from node.api.services import WAIT_S_MAX, Services, services
from node.bodies import read_limited
from node.errors import UnavailableError
from node.ledger import Submitted
from registry.claims import ClaimState
from registry.entry import Placed
from registry.envelope import ENVELOPE_BYTES_MAX, SignedMessage
from registry.errors import MalformedError, RefusedError
from registry.spelling import encode_base64
from registry.tiles import parse_entry_bundle

PAGE_MAX = 100
BATCH_BYTES_MAX = 1024 * 1024
BARRIER_TIMEOUT_S = 2.0


async def submit(request: web.Request) -> web.Response:
    """POST /v1/entries: into the log, and out with a receipt."""
    node = services(request)
    if request.remote is not None:  # otherwise the connection is gone already
        _take(node.submissions, network_of(request.remote), "address")
    node.space.check()
    (result,) = await _record(node, [await read_limited(request.content, ENVELOPE_BYTES_MAX)], request.remote)
    if isinstance(result, Exception):
        raise result
    return web.json_response(result)


async def submit_batch(request: web.Request) -> web.Response:
    """POST /v1/batches: each message into the log and out with a receipt, or refused by itself."""
    node = services(request)
    node.space.check()
    envelopes = parse_entry_bundle(await read_limited(request.content, BATCH_BYTES_MAX))
    if not envelopes:
        raise MalformedError("a batch without a message")
    if request.remote is not None:
        _take(node.submissions, network_of(request.remote), "address", count=len(envelopes))
    results = await _record(node, envelopes, request.remote)
    return web.json_response({"results": [_shown(request, result) for result in results]})


async def show(request: web.Request) -> web.Response:
    """GET /v1/entries/{hash}: one entry, its bytes included."""
    node = services(request)
    placed = await find_entry(request, hash_of(request))
    raw = node.ledger.store.entry(placed.index)
    return web.json_response({**render.entry(placed), "entry": encode_base64(raw)})


async def page(request: web.Request) -> web.Response:
    """GET /v1/entries: a page of the log."""
    store = services(request).ledger.store
    size = store.size
    start = number(request, "start", default=0, maximum=size)
    limit = number(request, "limit", default=PAGE_MAX, minimum=1, maximum=PAGE_MAX)
    entries = store.entries(start, min(start + limit, size))
    stop = start + len(entries)
    listed = [render.entry(store.placed(raw)) for raw in entries]
    return web.json_response({"entries": listed, "size": size, "next": stop if stop < size else None})


async def receipt(request: web.Request) -> web.Response:
    """GET /v1/receipts/{hash}: the receipt of an entry."""
    node = services(request)
    placed = await find_entry(request, hash_of(request))
    return web.Response(text=await node.gatherer.receipt(placed.index, timeout_s=node.submit_timeout_s))


async def claim(request: web.Request) -> web.Response:
    """GET /v1/claims/{hash}: a claim and its votes; with wait_s when there is a verdict or the time is over."""
    node = services(request)
    digest, wait_s = hash_of(request), number(request, "wait_s", default=0, maximum=WAIT_S_MAX)
    await find_claim(request, digest)
    await _wait_for_verdict(node, digest, wait_s)
    is_current = node.ledger.verdict(digest).outcome is not None or await _catch_up(request)
    shown = render.claim(node.ledger, digest, await find_claim(request, digest))
    shown = {**shown, "progress": str(node.voter.progress(digest))}
    return web.json_response(shown, headers=None if is_current else MAY_BE_BEHIND)


async def certificate(request: web.Request) -> web.Response:
    """GET /v1/certificates/{hash}: the certificate of a verified claim, byte for byte the file."""
    node = services(request)
    body = await node.gatherer.certificate(hash_of(request), timeout_s=node.submit_timeout_s)
    return web.Response(body=body, content_type="application/json")


async def _record(
    node: Services, envelopes: Sequence[bytes], address: str | None
) -> list[dict[str, object] | Exception]:
    """Messages into the log; what each would get by itself, or why it gets nothing."""
    outcomes = await node.ledger.submit_all(
        envelopes, timeout_s=node.submit_timeout_s, admit=lambda signed: _admit(node, signed, address)
    )
    recorded = [outcome.index for outcome in outcomes if isinstance(outcome, Submitted)]
    receipts = await node.gatherer.receipts(recorded, timeout_s=node.submit_timeout_s)
    return [
        _recorded(outcome, receipts[outcome.index]) if isinstance(outcome, Submitted) else outcome
        for outcome in outcomes
    ]


def _recorded(done: Submitted, receipt: str | Exception) -> dict[str, object] | Exception:
    if isinstance(receipt, Exception):
        return receipt
    return {
        "index": done.index,
        "message_hash": done.message_hash.hex(),
        "recorded_s": done.recorded_s,
        "duplicate": done.duplicate,
        "receipt": receipt,
    }


def _shown(request: web.Request, result: dict[str, object] | Exception) -> dict[str, object]:
    """One result of a batch: an error has the shape that it would have by itself, and its status."""
    if isinstance(result, Exception):
        return {"status": int(status_of(result)), **refusal(request, result)}
    return result


def _admit(node: Services, signed: SignedMessage, address: str | None) -> None:
    """Charge those who signed a new message; forgeries are refused before, so nobody uses up another's rate."""
    for signer in signed.signers:
        _take(node.key_submissions, signer.hex(), "signing key")
    node.work.take(signed, address)


def _take(buckets: TokenBuckets, client: str, what: str, *, count: int = 1) -> None:
    wait_s = buckets.take(client, count=count)
    if wait_s:
        raise UnavailableError(f"too many entries from this {what}", code="too_many_requests", retry_after_s=wait_s)


async def _wait_for_verdict(node: Services, digest: bytes, wait_s: int) -> None:
    store, clock = node.ledger.store, asyncio.get_running_loop().time
    deadline_s = clock() + wait_s
    size = store.size
    while node.ledger.verdict(digest).outcome is None and clock() < deadline_s and not node.stopping.is_set():
        await node.ledger.applied.wait_for(size + 1, min(deadline_s - clock(), 1.0))
        size = store.size


async def find_entry(request: web.Request, digest: bytes) -> Placed:
    """The message with this hash; RefusedError, code not_found, when it is not here and this node is not behind."""
    store = services(request).ledger.store
    placed = store.find(digest)
    if placed is None:
        is_current = await _catch_up(request)
        placed = store.find(digest)
        if placed is None:
            raise _not_found(f"no entry {digest.hex()}", is_current=is_current)
    return placed


async def find_claim(request: web.Request, digest: bytes) -> ClaimState:
    """The claim with this hash; RefusedError as from `find_entry`."""
    store = services(request).ledger.store
    state = store.claim_state(digest)
    if state is None:
        is_current = await _catch_up(request)
        state = store.claim_state(digest)
        if state is None:
            raise _not_found(f"no claim {digest.hex()}", is_current=is_current)
    return state


def _not_found(message: str, *, is_current: bool) -> RefusedError:
    return (RefusedError if is_current else MayBeBehindError)(message, code="not_found")


async def _catch_up(request: web.Request) -> bool:
    """Before denying something: whether everything is here that was recorded when the question came."""
    barrier = services(request).read_barrier
    return barrier is None or await barrier(BARRIER_TIMEOUT_S)
