"""PySyncObj's transport as mutual TLS between a fixed set of nodes.

Replaces a transport that unpickles what anyone sends. The rules:

* the node with the greater name dials; a certificate that is not pinned to the expected name ends the connection;
* only as many unauthenticated connections as the limit says, each for as long as the limit says; the oldest makes room
  for a new one, so that idle strangers cannot lock the peers out;
* a newer connection of a peer replaces the older one; a silent one is closed, and so that none is silent without
  reason, an idle one carries pings;
* what waits to be sent to a slow peer is limited; Raft sends again what was refused;
* without a free descriptor nothing is dialled or accepted until the next tick, and the node lives on.
"""

# mypy: allow-untyped-calls

import errno
import logging
import random
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pysyncobj.node import Node
from pysyncobj.poller import POLL_EVENT_TYPE
from pysyncobj.syncobj import SyncObj
from pysyncobj.transport import Transport

from node.raft.addresses import AddressBook, SocketAddress
from node.raft.compat import monotonic_s
from node.raft.connection import Connection, Phase, Poller
from node.raft.tls import TlsIdentity
from node.raft.types import RaftSettings
from node.raft.wire import Message, WireError, decode, encode

TICK_PERIOD_S = 0.1
ACCEPTS_PER_EVENT_MAX = 16
LISTEN_BACKLOG = 64
REJECTION_LINE_PERIOD_S = 1.0
PINGS_PER_TIMEOUT = 4
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ENTRIES_ROOM_DIVISOR = 4  # entries may fill a quarter of the send buffer; answers and votes find room in the rest

# (direction, peer, message) -> lost? The fault injection of the tests: "in" or "out".
DropRule = Callable[[str, str, Message], bool]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportPlan:
    """What a transport needs besides SyncObj: where to listen, where the peers are, who everyone is.

    Attributes:
        contacts: names of nodes to talk to beside SyncObj's own peers.
    """

    listen: SocketAddress
    contacts: tuple[str, ...]
    addresses: AddressBook
    identity: TlsIdentity
    settings: RaftSettings


def _drop_nothing(_direction: str, _peer: str, _message: Message) -> bool:
    return False


class TlsTransport(Transport):
    """All connections of one node."""

    def __init__(self, syncobj: SyncObj, self_node: Node, other_nodes: Iterable[Node], *, plan: TransportPlan) -> None:
        super().__init__(syncobj, self_node, other_nodes)
        self.poller: Poller = syncobj._poller  # noqa: SLF001 -- the only way onto the raft thread's poller
        self.frame_bytes_max = plan.settings.frame_bytes_max
        self.drop_rule: DropRule = _drop_nothing
        self.rejected_connections = 0
        self.last_rejection = ""
        self._plan = plan
        self._name: str = self_node.id
        self._peers: dict[str, Node] = {node.id: node for node in [*other_nodes, *map(Node, plan.contacts)]}
        self._ready: dict[str, Connection] = {}
        self._dialling: dict[str, Connection] = {}
        self._strangers: list[Connection] = []  # oldest first
        self._next_dial_s: dict[str, float] = {}
        self._next_tick_s = self._next_rejection_line_s = 0.0
        self._listener: socket.socket | None = None
        self._is_accepting = False
        syncobj.addOnTickCallback(self._on_tick)

    @property
    def connected(self) -> tuple[str, ...]:
        """Names of the peers with an authenticated connection, sorted; any thread."""
        return tuple(sorted(self._ready))

    @property
    def ready(self) -> bool:
        """Whether the node listens."""
        return self._listener is not None

    def tryGetReady(self) -> None:  # noqa: N802 -- PySyncObj's name
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        listen = self._plan.listen
        listener = socket.socket(listen.family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.settimeout(0)
            listener.bind(listen.address)
            listener.listen(LISTEN_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._set_accepting(is_accepting=True)

    def send(self, node: Node, message: Message) -> bool:
        """Queue a message.

        Returns:
            False if it was not queued: no connection, or too much waits for this peer already.
        """
        connection = self._ready.get(node.id)
        if connection is None:
            return False
        room_bytes = self._plan.settings.send_buffer_bytes_max
        if message["type"] == "append_entries":
            room_bytes //= ENTRIES_ROOM_DIVISOR
        if connection.waiting_bytes > room_bytes:
            return False
        if not self.drop_rule("out", node.id, message):
            connection.send(encode(message))
        return connection.phase is Phase.READY

    def destroy(self) -> None:
        """Close everything."""
        for connection in [*self._ready.values(), *self._dialling.values(), *self._strangers]:
            connection.close("this node stops")
        if self._listener is not None:
            self._set_accepting(is_accepting=False)
            self._listener.close()
        self._plan.addresses.close()

    def wrap(self, raw: socket.socket, *, is_inbound: bool) -> ssl.SSLSocket:
        """Start TLS on a connected socket."""
        identity = self._plan.identity
        context = identity.server if is_inbound else identity.client
        return context.wrap_socket(raw, server_side=is_inbound, do_handshake_on_connect=False)

    def on_handshake(self, connection: Connection) -> None:
        """Find out who it is; the certificate must be pinned to the name that was dialled, or that may dial."""
        name = self._plan.identity.peer_name(connection.tls)
        expected = name in self._peers and (
            name > self._name if connection.is_inbound and name is not None else name == connection.peer
        )
        if name is None or not expected:
            raise WireError(f"unexpected peer {name}")
        connection.peer = name
        self._forget_unready(connection)
        self._install(connection, name)

    def on_frame(self, connection: Connection, data: bytes) -> None:
        """Check one frame and hand it to SyncObj."""
        message = decode(data, command_bytes_max=self._plan.settings.command_bytes_max)
        name = str(connection.peer)
        if message["type"] != "ping" and not self.drop_rule("in", name, message):
            self._onMessageReceived(self._peers[name], message)

    def on_closed(self, connection: Connection, reason: str, *, is_rejected: bool) -> None:
        """Forget a connection, and tell SyncObj if it was the peer's current one."""
        self._forget_unready(connection)
        name = connection.peer
        if name is not None and self._ready.get(name) is connection:
            del self._ready[name]
            logger.info("peer disconnected", extra={"peer": name, "reason": reason})
            self._onNodeDisconnected(self._peers[name])
        if is_rejected:
            self.rejected_connections += 1
            self.last_rejection = reason
            self._log_rejection(name, reason)

    def _log_rejection(self, name: str | None, reason: str) -> None:
        """Log one a second at the most: strangers can come by the thousand, and must not fill the disk with it."""
        now_s = monotonic_s()
        if now_s >= self._next_rejection_line_s:
            self._next_rejection_line_s = now_s + REJECTION_LINE_PERIOD_S
            extra = {"peer": name, "reason": reason, "rejected": self.rejected_connections}
            logger.info("connection rejected", extra=extra)

    def _install(self, connection: Connection, name: str) -> None:
        old = self._ready.pop(name, None)
        if old is not None:
            old.close("replaced by a newer connection")
            self._onNodeDisconnected(self._peers[name])  # what was asked over it will not be answered
        self._ready[name] = connection
        logger.info("peer connected", extra={"peer": name})
        self._onNodeConnected(self._peers[name])

    def _forget_unready(self, connection: Connection) -> None:
        if connection in self._strangers:
            self._strangers.remove(connection)
        if connection.peer is not None and self._dialling.get(connection.peer) is connection:
            del self._dialling[connection.peer]

    def _accept(self, _descriptor: int, _events: int) -> None:
        for _ in range(ACCEPTS_PER_EVENT_MAX):
            if self._listener is None:
                return
            try:
                raw, _ = self._listener.accept()
            except OSError as error:  # nobody left, or the stranger has gone
                if error.errno in _NO_DESCRIPTOR:  # the poller would report the listener again and again
                    logger.warning("cannot accept", extra={"error": str(error)})
                    self._set_accepting(is_accepting=False)
                return
            if len(self._strangers) >= self._plan.settings.unauthenticated_connections_max:
                self._strangers[0].close("too many unauthenticated connections", is_rejected=True)
            raw.settimeout(0)
            connection = Connection(self, raw, peer=None)
            self._strangers.append(connection)
            connection.accept()

    def _set_accepting(self, *, is_accepting: bool) -> None:
        if self._listener is None or self._is_accepting == is_accepting:
            return
        self._is_accepting = is_accepting
        if is_accepting:
            events = POLL_EVENT_TYPE.READ | POLL_EVENT_TYPE.ERROR
            self.poller.subscribe(self._listener.fileno(), self._accept, events)
        else:
            self.poller.unsubscribe(self._listener.fileno())

    def _on_tick(self) -> None:
        now_s = monotonic_s()
        if now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + TICK_PERIOD_S
        self._set_accepting(is_accepting=True)
        self._close_late(now_s)
        self._ping_idle(now_s)
        for name in self._peers:
            if name < self._name and name not in self._ready and name not in self._dialling:
                self._dial(name, now_s)

    def _close_late(self, now_s: float) -> None:
        settings = self._plan.settings
        for connection in [*self._strangers, *self._dialling.values()]:
            if now_s - connection.opened_s > settings.handshake_timeout_s:
                connection.close("handshake timeout", is_rejected=connection.is_inbound)
        for connection in list(self._ready.values()):
            if now_s - connection.received_s > settings.connection_timeout_s:
                connection.close("silent")

    def _ping_idle(self, now_s: float) -> None:
        idle_s = self._plan.settings.connection_timeout_s / PINGS_PER_TIMEOUT
        for name, connection in list(self._ready.items()):
            if now_s - connection.sent_s > idle_s:
                self.send(self._peers[name], {"type": "ping"})

    def _dial(self, name: str, now_s: float) -> None:
        address = self._plan.addresses.address(name)
        if address is None or now_s < self._next_dial_s.get(name, 0.0):
            return
        jitter = 0.5 + random.random()  # noqa: S311 -- spreads the attempts, keeps nothing secret
        self._next_dial_s[name] = now_s + self._plan.settings.connection_retry_s * jitter
        try:
            raw = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:
            logger.warning("cannot dial", extra={"peer": name, "error": str(error)})
            return
        raw.settimeout(0)
        connection = Connection(self, raw, peer=name)
        self._dialling[name] = connection
        connection.dial(address)
