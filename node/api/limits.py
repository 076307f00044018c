"""What a client, or many, may ask: the size of a head, submissions and claims, connections and streams by address."""

import asyncio
import ipaddress
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from node.errors import UnavailableError
from registry.envelope import SignedMessage
from registry.messages import Claim

URL_BYTES_MAX = 4096
FIELD_BYTES_MAX = 8192  # of a header's name, and of its value; another number than the URL's, which tells them apart
HEADERS_MAX = 64
HEAD_BYTES_MAX = 32 * 1024
HEADERS_LIMIT = (
    f"a request has at most {HEADERS_MAX} headers, of at most {FIELD_BYTES_MAX} bytes each and {HEAD_BYTES_MAX} in all"
)
CLIENTS_MAX = 10_000
BURST_S = 10.0
HOUR_S = 3600.0
STREAMS_MAX, ADDRESS_STREAMS_MAX = 64, 16
_IPV6_NETWORK_BITS = 64  # what one client has to himself


def raw_refusal(status: HTTPStatus, code: str, message: str, *, retry_after_s: int | None = None) -> bytes:
    """An error's answer for a connection that no request was read from; the connection ends with it."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    lines = [
        f"HTTP/1.1 {status} {status.phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *([] if retry_after_s is None else [f"Retry-After: {retry_after_s}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


_FULL = raw_refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "the node is busy; come back", retry_after_s=1
)


class TokenBuckets:
    """A rate for each client, with a burst.

    Args:
        rate_per_s: how often a client may ask; 0 sets no limit.
        clock: seconds that never go back.
        burst_s: how many seconds' worth a client may ask for at once.
    """

    def __init__(self, rate_per_s: float, *, clock: Callable[[], float], burst_s: float = BURST_S) -> None:
        self._rate_per_s, self._clock, self._burst_s = rate_per_s, clock, burst_s
        self._full_at_s: OrderedDict[str, float] = OrderedDict()  # least recently seen first

    def take(self, client: str, *, count: int = 1) -> int:
        """Take tokens; return 0, or after how many seconds there will be one.

        Args:
            client: what tells one from another: `network_of` an address, or a signing key.
            count: how many. Whoever has one gets them all and owes the others, so that no batch is too large for ever.
        """
        if self._rate_per_s == 0:
            return 0
        now_s = self._clock()
        full_at_s = max(self._full_at_s.get(client, now_s), now_s)
        wait_s = full_at_s + 1 / self._rate_per_s - now_s - self._burst_s
        if wait_s > 0:
            return math.ceil(wait_s)
        self._full_at_s[client] = full_at_s + count / self._rate_per_s
        self._full_at_s.move_to_end(client)
        if len(self._full_at_s) > CLIENTS_MAX:
            self._full_at_s.popitem(last=False)
        return 0


@dataclass(frozen=True, slots=True)
class WorkBudget:
    """How much verification work this node lets into the ledger.

    A claim costs its owner nothing and every node minutes. What is in the ledger already is verified in any case.

    Args:
        of_address: for each address, whatever keys it uses.
        of_key: for each signing key, from wherever it comes.
    """

    of_address: TokenBuckets
    of_key: TokenBuckets

    @classmethod
    def per_hour(cls, *, address: int, key: int, clock: Callable[[], float]) -> "WorkBudget":
        """So many claims in an hour, or all of them at once; 0 sets no limit."""
        of_address, of_key = (TokenBuckets(many / HOUR_S, clock=clock, burst_s=HOUR_S) for many in (address, key))
        return cls(of_address, of_key)

    def take(self, signed: SignedMessage, address: str | None) -> None:
        """Charge a message, if it is a claim, to its signer and to the address that it comes from.

        Raises:
            UnavailableError: code too_many_claims.
        """
        if not isinstance(signed.message, Claim):
            return
        charged = [(self.of_key, signer.hex(), "signing key") for signer in signed.signers]
        charged += [(self.of_address, network_of(address), "address")] if address else []
        for buckets, client, what in charged:
            wait_s = buckets.take(client)
            if wait_s:
                why = f"too many claims by this {what} within the hour; this one was not recorded"
                raise UnavailableError(why, code="too_many_claims", retry_after_s=wait_s)


@lru_cache(maxsize=CLIENTS_MAX)
def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the network of an IPv6 one; this machine is itself in both."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None and not parsed.is_loopback:
            return str(ipaddress.ip_network((int(parsed), _IPV6_NETWORK_BITS), strict=False))
        parsed = parsed.ipv4_mapped or parsed
    return str(parsed)


class Streams:
    """The streams that are open.

    Args:
        streams_max: at the same time.
        address_streams_max: of one address; clients of this very machine have no limit of their own.
    """

    def __init__(self, streams_max: int = STREAMS_MAX, address_streams_max: int = ADDRESS_STREAMS_MAX) -> None:
        self._streams_max, self._address_streams_max = streams_max, address_streams_max
        self._open: Counter[str] = Counter()  # by address

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open.total()

    @contextmanager
    def one(self, remote: str | None) -> Iterator[None]:
        """Count one more while it lasts; raises UnavailableError when there are too many, of this address or in all."""
        address = network_of(remote) if remote else ""
        if self.open >= self._streams_max:
            raise _too_many_streams(self._streams_max, "in all")
        if self._open[address] >= self._address_streams_max and not is_own(address):
            raise _too_many_streams(self._address_streams_max, "by this address")
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            self._open = +self._open


def _too_many_streams(streams_max: int, whose: str) -> UnavailableError:
    return UnavailableError(
        f"{streams_max} streams are open already {whose}", code="too_many_streams", retry_after_s=10
    )


class LimitedConnections:
    """Makes the protocol of each new connection: the server's own, or one that says that there are too many.

    Those whose TLS handshake is not done are counted apart, for they are not the server's yet. Connections from this
    very machine have no limit of their own: a proxy's are many clients'.

    Args:
        serve: makes the protocol that serves a connection; what it is given is to be called when that has ended.
        connections_max: served at the same time, and again in their handshakes.
        address_connections_max: of one address, served at the same time; 0 sets no limit.
        handshake_timeout_s: after which a handshake is over, whichever way.
        on_refused: called for each that is turned away.
    """

    def __init__(
        self,
        serve: Callable[[Callable[[], None]], asyncio.Protocol],
        *,
        connections_max: int,
        address_connections_max: int,
        handshake_timeout_s: float,
        on_refused: Callable[[], None],
    ) -> None:
        self._serve, self._on_refused = serve, on_refused
        self._connections_max, self._address_connections_max = connections_max, address_connections_max
        self._handshake_timeout_s = handshake_timeout_s
        self._arriving: set[_Arriving] = set()
        self._served: Counter[str] = Counter()  # by address

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one connection."""
        if max(self._served.total(), len(self._arriving)) >= self._connections_max:
            self._on_refused()
            return _TurnAway()
        arriving = _Arriving(self._hand_over)
        self._arriving.add(arriving)
        # A handshake that fails is told to nobody.
        asyncio.get_running_loop().call_later(self._handshake_timeout_s, self._arriving.discard, arriving)
        return arriving

    def _hand_over(self, arrived: "_Arriving", transport: asyncio.BaseTransport) -> None:
        """Give a connection that can be served its protocol."""
        self._arriving.discard(arrived)
        address = _client_of(transport)
        protocol: asyncio.Protocol
        if 0 < self._address_connections_max <= self._served[address] and not is_own(address):
            self._on_refused()
            protocol = _TurnAway()
        else:
            self._served[address] += 1
            protocol = self._serve(lambda: self._ended(address))
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _ended(self, address: str) -> None:
        self._served[address] -= 1
        if not self._served[address]:
            del self._served[address]


class _Arriving(asyncio.Protocol):
    """Stands for a connection until it can be served."""

    def __init__(self, hand_over: "Callable[[_Arriving, asyncio.BaseTransport], None]") -> None:
        self._hand_over = hand_over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection over."""
        self._hand_over(self, transport)


class _TurnAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(_FULL)
        transport.close()


def _client_of(transport: asyncio.BaseTransport) -> str:
    """The client at the other end; empty for one that is gone already."""
    peer = transport.get_extra_info("peername")
    return network_of(peer[0]) if peer else ""


@lru_cache(maxsize=CLIENTS_MAX)
def is_own(address: str) -> bool:
    """Whether a client, as `network_of` spells it, is this very machine."""
    return bool(address) and ipaddress.ip_network(address).is_loopback
