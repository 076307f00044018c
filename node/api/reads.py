"""A rate for reads: what each costs, and that an address which asks too much is told when to come back (RFC 6585).

A read is paid for in tokens, by what it costs the node: a tile is one look into the store, a certificate is put
together, signed upon by a quorum and verified before it leaves. What the other nodes ask for is free, so that no limit
and no neighbour of theirs behind the same address can stop the ledger; and so is what monitoring asks for. Clients of
this very machine pay nothing: behind a proxy on it are many, and the proxy limits them.
"""

from collections.abc import Callable

from aiohttp import web

from node.api.errors import Handler
from node.api.limits import TokenBuckets, is_own, network_of
from node.api.services import services
from node.errors import UnavailableError

READING = frozenset({"GET", "HEAD"})
USUAL = 1
COSTS = {
    "/health": 0,
    "/healthz": 0,
    "/metrics": 0,
    "/v1/checkpoints/{size}": 0,  # this and the next three are what peers ask for
    "/v1/policies": 0,
    "/v1/cosignatures/{name}": 0,
    "/v1/blobs/{hash}": 0,
    "/tile/entries/{path}": USUAL,
    "/tile/{level}/{path}": USUAL,
    "/checkpoint": USUAL,
    "/{origin}/checkpoint": USUAL,
    "/openapi.json": USUAL,
    "/v1/policy": USUAL,
    "/v1/node": USUAL,
    "/v1/entries/{hash}": USUAL,
    "/v1/claims/{hash}": USUAL,
    "/v1/receipts/{hash}": 2,
    "/v1/entries": 5,
    "/v1/search": 5,
    "/v1/events": 10,
    "/v1/certificates/{hash}": 20,
}
PAGE_COSTS = {
    "/": USUAL,
    "/explorer": USUAL,
    "/explorer/": 5,
    "/explorer/entries/{hash}": 10,  # with all that follows from it: a search and a page's worth of entries
    "/explorer/owners/{key}": 10,
    "/explorer/nodes": 5,
    "/explorer/search": 10,
    "/explorer/about": USUAL,
    "/explorer/check": USUAL,
    "/explorer/static/{name}": USUAL,
}
_PRICES = COSTS | PAGE_COSTS


class ReadRate:
    """What each address may read.

    Args:
        tokens_per_s: for each address; 0 sets no limit.
        clock: seconds that never go back.
        is_free: which clients, as `network_of` spells them, pay nothing.
    """

    def __init__(
        self, tokens_per_s: float, *, clock: Callable[[], float], is_free: Callable[[str], bool] = is_own
    ) -> None:
        self._buckets, self._is_free = TokenBuckets(tokens_per_s, clock=clock), is_free

    def charge(self, remote: str | None, *, cost: int) -> None:
        """Charge an address for a read.

        Args:
            remote: the client's address; None for one that is gone already.
            cost: tokens; whoever has one gets the whole read and owes the others.

        Raises:
            UnavailableError: code too_many_requests.
        """
        if not cost or remote is None or self._is_free(client := network_of(remote)):
            return
        wait_s = self._buckets.take(client, count=cost)
        if wait_s:
            why = "too many reads by this address; other nodes have the same ledger"
            raise UnavailableError(why, code="too_many_requests", retry_after_s=wait_s)


@web.middleware
async def charge_reads(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Charge for a read before anything is done for it; what there is not, costs as well."""
    if request.method in READING:
        resource = request.match_info.route.resource
        cost = USUAL if resource is None else _PRICES.get(resource.canonical, USUAL)
        services(request).reads.charge(request.remote, cost=cost)
    return await handler(request)
