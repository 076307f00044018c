"""The pages of the explorer, one handler each."""

import re
from itertools import groupby
from typing import cast

from aiohttp import web

from node.api.entries import find_entry
from node.api.health import problems, tolerates
from node.api.parameters import hash_of, number
from node.api.search import INDEX_MAX, reach_all
from node.api.services import services
from node.explorer import membership, window
from node.explorer.following import Mentions, bounds_of_vote, mentions_of, names_of, show_claim
from node.explorer.rendering import page, root_of
from registry.endpoint import POINTER_PREFIX, endpoint_sha256, is_endpoint_url
from registry.entry import Placed
from registry.errors import MalformedError
from registry.messages import KINDS, Claim, Genesis, PolicyChange, Publication, Vote

QUERY_CHARACTERS_MAX = 256
_HASH = re.compile(r"[0-9a-f]{64}")
_INDEX = re.compile(r"[0-9]{1,18}")
_PREFIXES = ("blob:sha256:", "sha256:", "0x", "#")
_DAY_S = 86400


async def front(request: web.Request) -> web.Response:
    """GET / and /explorer: the way to the first page."""
    raise web.HTTPFound(root_of(request.path))


async def timeline(request: web.Request) -> web.Response:
    """GET /explorer/: the ledger, the newest entries first."""
    node = services(request)
    store, kind = node.ledger.store, request.query.get("kind") or None
    if kind is not None and kind not in KINDS:
        raise MalformedError(f"kind: expected one of {', '.join(KINDS)}")
    size = store.size
    if "from" in request.query:
        shown = window.since(store, number(request, "from", default=0, maximum=size), kind)
    else:
        shown = window.before(store, number(request, "before", default=size, maximum=size), kind)
    days = [list(entries) for _, entries in groupby(shown.entries, key=lambda placed: placed.recorded_s // _DAY_S)]
    return page(
        request,
        "timeline.html",
        days=days,
        shown=shown,
        kind=kind,
        kinds=list(KINDS),
        latest=node.gatherer.latest,
        **_telling(request),
    )


async def entry(request: web.Request) -> web.Response:
    """GET /explorer/entries/{hash}: one entry, what it is about and what follows from it."""
    node = services(request)
    placed = await find_entry(request, hash_of(request))
    message, store = placed.signed.message, node.ledger.store
    is_claim = isinstance(message, Claim)
    is_named = isinstance(message, Publication)
    return page(
        request,
        "entry.html",
        placed=placed,
        message=message,
        entry_bytes=len(store.entry(placed.index)),
        shown=show_claim(node, placed.signed.hash) if is_claim else None,
        progress=str(node.voter.progress(placed.signed.hash)) if is_claim else None,
        mentions=await mentions_of(node, placed) if is_named else Mentions(),
        bounds=bounds_of_vote(node, message) if isinstance(message, Vote) else (),
        policy=message.policy if isinstance(message, Genesis | PolicyChange) else None,
        **_telling(request),
    )


async def owner(request: web.Request) -> web.Response:
    """GET /explorer/owners/{key}: what a signing key has signed."""
    key = request.match_info["key"]
    if not _HASH.fullmatch(key):
        raise MalformedError("a signing key is 64 lower-case hexadecimal digits")
    entries, following = await _find(request, bytes.fromhex(key), is_signer=True)
    return page(
        request,
        "owner.html",
        key=bytes.fromhex(key),
        entries=[placed for placed, _ in entries],
        start=_start(request),
        following=following,
        **_telling(request),
    )


async def nodes(request: web.Request) -> web.Response:
    """GET /explorer/nodes: the members, how far each has signed, and how this node is."""
    node = services(request)
    store, raft = node.ledger.store, node.raft_status()
    return page(
        request,
        "nodes.html",
        members=membership.members(node),
        policies=[cast("Placed", store.find(digest)) for digest in reversed(store.policy_hashes)],
        policy=store.policy,
        size=store.size,
        raft=raft,
        latest=node.gatherer.latest,
        lags_s=node.watch.lags_s(),
        tolerates=tolerates(node),
        problems=problems(node),
        verifier=node.verifier.state,
        claims_open=node.ledger.claims_open(),
    )


async def search(request: web.Request) -> web.Response:
    """GET /explorer/search: whatever bears a hash or was signed by a key, or is on an endpoint; a number leads on."""
    query = request.query.get("q", "")[: QUERY_CHARACTERS_MAX + 1]
    if len(query) > QUERY_CHARACTERS_MAX:
        raise MalformedError(f"q: at most {QUERY_CHARACTERS_MAX} characters")
    node, value = services(request), _plain(query)
    store = node.ledger.store
    if _INDEX.fullmatch(value) and int(value) < store.size:
        (placed,) = store.placed_between(int(value), int(value) + 1)
        raise web.HTTPFound(f"entries/{placed.signed.hash.hex()}")
    is_hash = _HASH.fullmatch(value) is not None
    found, following = await _find(request, bytes.fromhex(value), is_signer=False) if is_hash else ([], None)
    return page(
        request,
        "search.html",
        query=query,
        value=value if is_hash else "",
        found=found,
        is_signer=is_hash and bool(node.index.find(bytes.fromhex(value), is_signer=True, start=0, limit=1)),
        start=_start(request),
        following=following,
        **_telling(request),
    )


async def about(request: web.Request) -> web.Response:
    """GET /explorer/about: what the ledger promises and what not, and the keys to compare elsewhere."""
    node = services(request)
    store = node.ledger.store
    return page(
        request,
        "about.html",
        trust=str(node.gatherer.trust),
        policy=store.policy,
        policy_hash=store.policy_hashes[-1],
        genesis_hash=store.policy_hashes[0],
    )


async def check(request: web.Request) -> web.Response:
    """GET /explorer/check: the two zones into which files are dropped."""
    return page(request, "check.html", trust=str(services(request).gatherer.trust))


def _telling(request: web.Request) -> dict[str, object]:
    """What the templates need to tell an entry in a line."""
    ledger = services(request).ledger
    return {"names": names_of(ledger.store), "verdict_of": ledger.verdict}


async def _find(
    request: web.Request, value: bytes, *, is_signer: bool
) -> tuple[list[tuple[Placed, list[str]]], int | None]:
    """A page of the entries that bear a value, with the roles in which they do, and where the next page begins."""
    node = services(request)
    store = node.ledger.store
    await reach_all(node)
    found = node.index.find(value, is_signer=is_signer, start=_start(request), limit=window.PAGE_ENTRIES + 1)
    shown = [(store.placed(store.entry(index)), roles) for index, roles in found[: window.PAGE_ENTRIES]]
    return shown, found[window.PAGE_ENTRIES][0] if len(found) > window.PAGE_ENTRIES else None


def _start(request: web.Request) -> int:
    return number(request, "start", default=0, maximum=INDEX_MAX)


def _plain(query: str) -> str:
    """What somebody typed or pasted, as a hash is spelled; an endpoint's URL is found by its hash."""
    url = query.strip().removeprefix(POINTER_PREFIX)
    if is_endpoint_url(url):
        return endpoint_sha256(url).hex()
    value = "".join(query.split()).lower()
    for prefix in _PREFIXES:
        value = value.removeprefix(prefix)
    return value
