"""What the log holds: a message's envelope and the time at which a node recorded it."""

from dataclasses import dataclass

from registry import schema
from registry.encoding import ENTRY_BYTES_MAX, decode, encode
from registry.envelope import SignedMessage


@dataclass(frozen=True, slots=True)
class Entry:
    """The bytes that the log holds: a message's envelope and when a node recorded it (POSIX seconds)."""

    envelope: bytes
    recorded_s: int

    def encode(self) -> bytes:
        """The entry's bytes."""
        return encode([self.envelope, self.recorded_s])

    @classmethod
    def decode(cls, raw: bytes) -> "Entry":
        """Read an entry; raises MalformedError."""
        items = schema.listed(lambda item: item, 2, 2)(decode(raw, bytes_max=ENTRY_BYTES_MAX))
        return cls(schema.octets(1, ENTRY_BYTES_MAX)(items[0]), schema.uint()(items[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An accepted message and its place in the log."""

    index: int
    recorded_s: int
    signed: SignedMessage
