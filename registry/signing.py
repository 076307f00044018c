"""Ed25519 signatures over domain-separated statements (DESIGN 4.1).

A signature covers a context string, the ledger's origin and the statement, so it means nothing in another ledger,
as another kind of message, or in another protocol.
"""

from functools import lru_cache
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry import schema
from registry.curve import is_for_everybody, is_public_key
from registry.encoding import Value, encode, encode_canonical
from registry.errors import MalformedError

PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 32, 64
_PUBLIC_KEY = schema.octets(PUBLIC_KEY_BYTES)


class IsSigned(Protocol):
    """What `is_signed` is; an auditor who verifies many signatures at once passes his own."""

    def __call__(self, signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        """Whether `signature` is `signer`'s over these bytes."""
        ...


def public_key(value: Value) -> bytes:
    """Check a field that is an Ed25519 public key; raises MalformedError, also for a key that anybody can sign for."""
    raw = _PUBLIC_KEY(value)
    if not is_public_key(raw):
        raise MalformedError("expected an Ed25519 public key: a point of full order in its one spelling")
    return raw


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
    """Whether `signature` is `signer`'s over these bytes; nothing unreadable is, nor what anybody could make."""
    if is_for_everybody(signer):
        return False
    try:
        _verifier(signer).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=4096)  # the same members and owners sign again and again
def _verifier(signer: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(signer)


def blob_upload(origin: str, sha256: bytes, bytes_total: int) -> bytes:
    """The statement that an owner signs to store a blob with the nodes of a ledger."""
    return statement("wmreg/v1/blob-upload", origin, [sha256, bytes_total])
