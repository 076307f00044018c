"""Ed25519 signatures over domain-separated statements (DESIGN 4.1).

A signature covers a context string, the ledger's origin and the statement, so it means nothing in another ledger,
as another kind of message, or in another protocol.
"""

from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.encoding import Value, encode, encode_canonical

PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 32, 64


class IsSigned(Protocol):
    """What `is_signed` is; an auditor who verifies many signatures at once passes his own."""

    def __call__(self, signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        """Whether `signature` is `signer`'s over these bytes."""
        ...


def statement(context: str, origin: str, content: Value) -> bytes:
    """The bytes that are signed: the canonical array of context, origin and content."""
    return encode([context, origin, content])


def canonical_statement(context: str, origin: str, content: Value) -> bytes:
    """The same for content that is known to be canonical, as what was decoded is."""
    return encode_canonical([context, origin, content])


def sign(private_key: Ed25519PrivateKey, signed: bytes) -> bytes:
    """Sign a statement; 64 bytes, the same each time."""
    return private_key.sign(signed)


def is_signed(signed: bytes, *, signer: bytes, signature: bytes) -> bool:
    """Whether `signature` is `signer`'s over these bytes; anything unreadable is not."""
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def blob_upload(origin: str, sha256: bytes, bytes_total: int) -> bytes:
    """The statement that an owner signs to store a blob with the nodes of a ledger."""
    return statement("wmreg/v1/blob-upload", origin, [sha256, bytes_total])
