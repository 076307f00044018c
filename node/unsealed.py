"""Messages that this node has read and found signed: each is once, and not at every station of its way.

A submission is unsealed before it is proposed, again when it is applied, and again in its receipt. What is remembered
is the whole envelope and the ledger that it was read for, so any other byte is read and verified anew.
"""

import threading

from registry.envelope import SignedMessage, unseal

MESSAGES_MAX, BYTES_MAX = 4096, 16 * 2**20  # of envelopes; the messages of those that were applied are the rulebook's


class UnsealedMessages:
    """Remembers the latest messages whose signatures held; may be asked from any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, bytes], SignedMessage] = {}  # oldest first
        self._bytes = 0
        self._lock = threading.Lock()

    def unseal(self, envelope: bytes, *, origin: str | None) -> SignedMessage:
        """Decode an envelope and verify its signatures; see `registry.envelope.unseal`."""
        known = self._known.get((origin, envelope))
        if known is not None:
            return known
        signed = unseal(envelope, origin=origin)
        with self._lock:
            if (origin, envelope) not in self._known:
                self._known[origin, envelope] = signed
                self._bytes += len(envelope)
            while len(self._known) > MESSAGES_MAX or self._bytes > BYTES_MAX:
                oldest = next(iter(self._known))
                del self._known[oldest]
                self._bytes -= len(oldest[1])
        return signed
