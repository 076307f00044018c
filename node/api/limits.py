"""What one client, or many, may ask at once: submissions by address and key, streams and connections in all."""

import asyncio
import ipaddress
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from node.errors import UnavailableError

CLIENTS_MAX = 10_000
BURST_S = 10.0
STREAMS_MAX = 64
_IPV6_NETWORK_BITS = 64  # what one client has to himself
_FULL_BODY = json.dumps({"error": {"code": "too_many_connections", "message": "the node is busy; come back"}}).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


class TokenBuckets:
    """A rate for each client, with a burst of BURST_S seconds' worth.

    Args:
        rate_per_s: how often a client may ask; 0 sets no limit.
        clock: seconds that never go back.
    """

    def __init__(self, rate_per_s: float, *, clock: Callable[[], float]) -> None:
        self._rate_per_s, self._clock = rate_per_s, clock
        self._full_at_s: OrderedDict[str, float] = OrderedDict()  # least recently seen first

    def take(self, client: str) -> int:
        """Take a token; return 0, or after how many seconds there will be one.

        Args:
            client: what tells one from another: `network_of` an address, or a signing key.
        """
        if self._rate_per_s == 0:
            return 0
        now_s = self._clock()
        full_at_s = max(self._full_at_s.get(client, now_s), now_s) + 1 / self._rate_per_s
        wait_s = full_at_s - now_s - BURST_S
        if wait_s > 0:
            return math.ceil(wait_s)
        self._full_at_s[client] = full_at_s
        self._full_at_s.move_to_end(client)
        if len(self._full_at_s) > CLIENTS_MAX:
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

    Those whose TLS handshake is not done are counted apart, for they are not the server's yet.

    Args:
        server: the application's.
        connections_max: served at the same time, and again in their handshakes.
        handshake_timeout_s: after which a handshake is over, whichever way.
        on_refused: called for each that is turned away.
    """

    def __init__(
        self,
        server: web.Server,
        connections_max: int,
        *,
        handshake_timeout_s: float,
        on_refused: Callable[[], None],
    ) -> None:
        self._server, self._connections_max, self._on_refused = server, connections_max, on_refused
        self._handshake_timeout_s = handshake_timeout_s
        self._arriving: set[_Arriving] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one connection."""
        if max(len(self._server.connections), len(self._arriving)) >= self._connections_max:
            self._on_refused()
            return _TurnAway()
        arriving = _Arriving(self._server, self._arriving)
        self._arriving.add(arriving)
        # A handshake that fails is told to nobody.
        asyncio.get_running_loop().call_later(self._handshake_timeout_s, self._arriving.discard, arriving)
        return arriving


class _Arriving(asyncio.Protocol):
    """Stands for a connection until it can be served."""

    def __init__(self, server: web.Server, arriving: "set[_Arriving]") -> None:
        self._server, self._all = server, arriving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection over."""
        self._all.discard(self)
        protocol = self._server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _TurnAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(_FULL)
        transport.close()
