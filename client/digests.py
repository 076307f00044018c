"""Hashes and public keys as people type them: 64 hexadecimal digits in lower case, one spelling for one value."""

from client.errors import InputError

HASH, PUBLIC_KEY = "a SHA-256 hash", "a public key"


def hash_of(digits: str, *, what: str, kind: str = HASH) -> bytes:
    """Read a SHA-256 hash, or a public key.

    Args:
        digits: as they were typed.
        what: names the option or argument in the error.
        kind: says there which of the two it should be.

    Raises:
        InputError: not 64 lower-case hexadecimal digits.
    """
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != digits:
        raise InputError(f"{what}: expected {kind}, 64 hexadecimal digits in lower case")
    return digest
