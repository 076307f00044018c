"""Where the peers are, without ever blocking the raft thread on a name server.

Literal addresses are parsed at once. Names are looked up by a thread of their own, again and again, since a container
that is replaced comes back under its old name with another address; until a name is known, its peer is not dialled.
"""

import logging
import socket
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from node.raft.types import RaftPeer

REFRESH_S = 30.0
RETRY_S = 1.0

logger = logging.getLogger(__name__)


class SocketAddress(NamedTuple):
    """What a socket needs: its family and the address in that family's form."""

    family: socket.AddressFamily
    address: tuple[Any, ...]


def resolve(host: str, port: int, *, is_literal: bool = False) -> SocketAddress:
    """Look up one address; blocks unless is_literal.

    Raises:
        OSError: the name does not resolve, or is_literal and it is not a literal address.
        UnicodeError: no name server can be asked for it.
    """
    flags = socket.AI_NUMERICHOST if is_literal else 0
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    return SocketAddress(family, address)


class AddressBook:
    """The last known address of each peer."""

    def __init__(self, peers: Sequence[RaftPeer]) -> None:
        self._addresses: dict[str, SocketAddress] = {}
        self._named: list[RaftPeer] = []
        self._is_closing = threading.Event()
        for peer in peers:
            try:
                self._addresses[peer.name] = resolve(peer.host, peer.port, is_literal=True)
            except (socket.gaierror, UnicodeError):
                self._named.append(peer)
        self._thread = threading.Thread(target=self._keep_resolving, name="raft-addresses", daemon=True)
        if self._named:
            self._thread.start()

    def address(self, name: str) -> SocketAddress | None:
        """Return the address of a peer, None while it is not known."""
        return self._addresses.get(name)

    def close(self) -> None:
        """End the thread; a look-up in progress is not waited for."""
        self._is_closing.set()

    def _keep_resolving(self) -> None:
        pause_s = 0.0
        while not self._is_closing.wait(pause_s):
            is_known = [self._resolve_one(peer) for peer in self._named]
            pause_s = REFRESH_S if all(is_known) else RETRY_S

    def _resolve_one(self, peer: RaftPeer) -> bool:
        try:
            self._addresses[peer.name] = resolve(peer.host, peer.port)
        except (OSError, UnicodeError) as error:
            logger.debug("cannot resolve a peer", extra={"peer": peer.name, "error": str(error)})
            return False
        return True
