"""Bytes damaged in one place: whatever stands there changes, where a byte that is overwritten may be that already."""


def with_flipped_bit(raw: bytes, at: int = -1) -> bytes:
    """Return the same bytes, of which the last or the given one has another lowest bit."""
    damaged = bytearray(raw)
    damaged[at] ^= 1
    return bytes(damaged)
