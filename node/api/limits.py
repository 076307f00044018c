"""What one client, or many, may ask of the API at once: submissions by address, streams and connections in all."""

import asyncio
import ipaddress
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from node.errors import UnavailableError

ADDRESSES_MAX = 10_000
BURST_S = 10.0
STREAMS_MAX = 64
_IPV6_NETWORK_BITS = 64  # what one client has to himself
_FULL_BODY = json.dumps({"error": {"code": "too_many_connections", "message": "the node is busy; come back"}}).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


class TokenBuckets:
    """A rate for each address, with a burst of BURST_S seconds' worth.

    Args:
        rate_per_s: how often an address may ask; 0 sets no limit.
        clock: seconds that never go back.
    """

    def __init__(self, rate_per_s: float, *, clock: Callable[[], float]) -> None:
        self._rate_per_s, self._clock = rate_per_s, clock
        self._full_at_s: OrderedDict[str, float] = OrderedDict()  # least recently seen first

    def take(self, address: str | None) -> int:
        """Take a token; return 0, or after how many seconds there will be one.

        Args:
            address: of the client; None when the connection is gone, which costs nothing.
        """
        if self._rate_per_s == 0 or address is None:
            return 0
        now_s, key = self._clock(), network_of(address)
        full_at_s = max(self._full_at_s.get(key, now_s), now_s) + 1 / self._rate_per_s
        wait_s = full_at_s - now_s - BURST_S
        if wait_s > 0:
            return math.ceil(wait_s)
        self._full_at_s[key] = full_at_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > ADDRESSES_MAX:
            self._full_at_s.popitem(last=False)
        return 0


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the network of an IPv6 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed), _IPV6_NETWORK_BITS), strict=False))
    return str(parsed)


class Streams:
    """The streams that are open.

    Args:
        streams_max: at the same time.
    """

    def __init__(self, streams_max: int = STREAMS_MAX) -> None:
        self._streams_max = streams_max
        self.open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one more while it lasts; raises UnavailableError when there are too many."""
        if self.open >= self._streams_max:
            raise UnavailableError(
                f"{self._streams_max} streams are open already", code="too_many_streams", retry_after_s=10
            )
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class LimitedConnections:
    """Makes the protocol of each new connection: the server's own, or one that says that there are too many.

    Args:
        server: the application's.
        connections_max: served at the same time.
    """

    def __init__(self, server: web.Server, connections_max: int) -> None:
        self._server, self._connections_max = server, connections_max

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one connection."""
        return _TurnAway() if len(self._server.connections) >= self._connections_max else self._server()


class _TurnAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(_FULL)
        transport.close()
