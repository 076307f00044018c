"""One connection to a peer: TCP connect, TLS handshake, then frames of four bytes of length and a body.

It lives on SyncObj's poller in the raft thread and never blocks. Whatever goes wrong closes it; the node that dials
tries again. Nothing is read from, and nothing is said to, a peer whose certificate has not been checked.
"""

import socket
import ssl
import struct
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from pysyncobj.poller import POLL_EVENT_TYPE

from node.raft.addresses import SocketAddress
from node.raft.compat import monotonic_s
from node.raft.wire import WireError

READ_BYTES = 256 * 1024  # more than a TLS record, so that nothing stays in OpenSSL's buffer unseen by the poller
READS_PER_EVENT_MAX = 64
WRITE_BYTES = 256 * 1024

_READ, _WRITE, _ERROR = POLL_EVENT_TYPE.READ, POLL_EVENT_TYPE.WRITE, POLL_EVENT_TYPE.ERROR
_LENGTH = struct.Struct(">I")


class Phase(Enum):
    """How far a connection is."""

    CONNECTING = "connecting"
    HANDSHAKE = "handshake"
    READY = "ready"
    CLOSED = "closed"


class Poller(Protocol):
    """SyncObj's poller."""

    def subscribe(self, descr: int, callback: Callable[[int, int], None], eventMask: int) -> None:  # noqa: N803
        """Call back on these events of a descriptor, instead of what was subscribed before."""
        ...

    def unsubscribe(self, descr: int) -> None:
        """Forget a descriptor."""
        ...


class ConnectionOwner(Protocol):
    """What a connection needs of the transport."""

    frame_bytes_max: int
    poller: Poller

    def wrap(self, raw: socket.socket, *, is_inbound: bool) -> ssl.SSLSocket:
        """Start TLS on a connected socket, without a handshake."""
        ...

    def on_handshake(self, connection: "Connection") -> None:
        """Identify the peer; close the connection if it is not one."""
        ...

    def on_frame(self, connection: "Connection", data: bytes) -> None:
        """Take one frame of an identified peer."""
        ...

    def on_closed(self, connection: "Connection", reason: str, *, is_rejected: bool) -> None:
        """Forget the connection; it is rejected if what the other side sent ended it."""
        ...


class Connection:
    """One socket and its two buffers.

    Attributes:
        peer: name of the other node: whom it was dialled for, or who the certificate says it is; None until then.
        is_inbound: the other side dialled.
        phase: how far it is.
        opened_s, received_s, sent_s: when it was opened, last heard and last used, on the clock of compat.py.
    """

    def __init__(self, owner: ConnectionOwner, raw: socket.socket, *, peer: str | None) -> None:
        """Take over a non-blocking socket: accepted, or about to be connected with dial()."""
        self.peer = peer
        self.is_inbound = peer is None
        self.phase = Phase.CONNECTING
        self.opened_s = self.received_s = self.sent_s = monotonic_s()
        self._owner = owner
        self._raw = raw
        self._tls: ssl.SSLSocket | None = None
        self._descriptor = raw.fileno()
        self._events = 0
        self._outgoing = bytearray()
        self._incoming = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._outgoing)

    @property
    def tls(self) -> ssl.SSLSocket:
        """The TLS side of the socket, from the handshake on."""
        if self._tls is None:
            raise WireError("the handshake has not begun")
        return self._tls

    def dial(self, address: SocketAddress) -> None:
        """Begin to connect."""
        try:
            self._raw.connect(address.address)
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(f"cannot connect: {error}")
            return
        self._watch(_READ | _WRITE)

    def accept(self) -> None:
        """Begin the handshake of a connection that the other side opened."""
        self._guard(self._start_tls)

    def send(self, body: bytes) -> None:
        """Queue one frame and write what the kernel takes."""
        self._outgoing += _LENGTH.pack(len(body))
        self._outgoing += body
        self.sent_s = monotonic_s()
        self._guard(self._flush)

    def close(self, reason: str, *, is_rejected: bool = False) -> None:
        """Close it and tell the owner; closing twice does nothing."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        if self._events:
            self._owner.poller.unsubscribe(self._descriptor)
        (self._tls or self._raw).close()
        # New ones: a failed write may still hold a view of the old one, which then cannot be resized.
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._owner.on_closed(self, reason, is_rejected=is_rejected)

    def _on_event(self, _descriptor: int, events: int) -> None:
        if self.phase is not Phase.CLOSED:  # the poller may still deliver an event of before the close
            self._guard(lambda: self._advance(events))

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (ssl.SSLError, WireError) as error:
            self.close(str(error) or type(error).__name__, is_rejected=True)
        except OSError as error:
            self.close(str(error))

    def _advance(self, events: int) -> None:
        if self.phase is Phase.CONNECTING:
            self._finish_connect()
        if self.phase is Phase.HANDSHAKE:
            self._handshake()
            return
        if events & _WRITE:
            self._flush()
        if events & (_READ | _ERROR):
            self._receive()

    def _finish_connect(self) -> None:
        error = self._raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "cannot connect")
        self._start_tls()

    def _start_tls(self) -> None:
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = self._owner.wrap(self._raw, is_inbound=self.is_inbound)
        self.phase = Phase.HANDSHAKE
        self._watch(_READ | _WRITE)

    def _handshake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(_READ)
            return
        except ssl.SSLWantWriteError:
            self._watch(_READ | _WRITE)
            return
        self.phase = Phase.READY
        self._watch(_READ)
        self._owner.on_handshake(self)
        if self.phase is Phase.READY:
            self._receive()  # the first frames may have come with the end of the handshake

    def _flush(self) -> None:
        while self._outgoing and self.phase is Phase.READY:
            try:
                with memoryview(self._outgoing) as view, view[:WRITE_BYTES] as first:
                    sent = self.tls.send(first)
            except ssl.SSLWantWriteError:
                self._watch(_READ | _WRITE)
                return
            except ssl.SSLWantReadError:
                return
            del self._outgoing[:sent]
        if self.phase is Phase.READY:
            self._watch(_READ)

    def _receive(self) -> None:
        for _ in range(READS_PER_EVENT_MAX):
            try:
                data = self.tls.recv(READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                self.close("closed by the peer")
                return
            self.received_s = monotonic_s()
            self._incoming += data
            self._take_frames()
            if self.phase is not Phase.READY:
                return

    def _take_frames(self) -> None:
        start = 0
        while len(self._incoming) - start >= _LENGTH.size and self.phase is Phase.READY:
            body_bytes = _LENGTH.unpack_from(self._incoming, start)[0]
            if body_bytes > self._owner.frame_bytes_max:
                raise WireError(f"frame of {body_bytes} bytes")
            end = start + _LENGTH.size + body_bytes
            if len(self._incoming) < end:
                break
            body = bytes(self._incoming[start + _LENGTH.size : end])
            start = end
            self._owner.on_frame(self, body)
        del self._incoming[:start]

    def _watch(self, events: int) -> None:
        events |= _ERROR
        if events != self._events:
            self._events = events
            self._owner.poller.subscribe(self._descriptor, self._on_event, events)
