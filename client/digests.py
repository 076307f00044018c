"""Hashes and public keys as people type them: 64 hexadecimal digits in lower case, one spelling for one value."""

from client.errors import InputError


def hash_of(digits: str, *, what: str) -> bytes:
    """Read a SHA-256 hash.

    Args:
        digits: as they were typed.
        what: names the option or argument in the error.

    Raises:
        InputError: not 64 lower-case hexadecimal digits.
    """
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != digits:
        raise InputError(f"{what}: expected a SHA-256 hash, 64 hexadecimal digits in lower case")
    return digest
