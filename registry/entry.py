"""What the log holds: a message's envelope and the time at which a node recorded it."""

from dataclasses import dataclass
from typing import cast

from registry import schema
from registry.encoding import ENTRY_BYTES_MAX, decode, encode
from registry.envelope import SignedMessage

_ENTRY = schema.pair(schema.octets(1, ENTRY_BYTES_MAX), schema.uint())


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
        envelope, recorded_s = _ENTRY(decode(raw, bytes_max=ENTRY_BYTES_MAX))
        return cls(cast("bytes", envelope), cast("int", recorded_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An accepted message and its place in the log."""

    index: int
    recorded_s: int
    signed: SignedMessage
