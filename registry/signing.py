"""Ed25519 signatures over domain-separated statements (DESIGN 4.1).

A signature covers a context string, the ledger's origin and the statement, so it means nothing in another ledger,
as another kind of message, or in another protocol.

Whether one holds must be the same on every node for ever, and libraries differ where no honest signer goes. The rule
here is the strict one. Of the public key A, R and S in a signature:

* A and R are no points of small order, and are in their one spelling; S is below the order of the group (RFC 8032,
  section 5.1.7, step 1);
* S·B - H(R, A, M)·A is R, byte for byte: the equation without the cofactor. A key or an R with a part of small order
  passes only where the equation holds all the same.

libsodium, which verifies in half the time of OpenSSL, refuses the same; the tests ask both about all of it, and the
version is pinned, since another one may multiply by the cofactor, and a node asks it some questions before it starts
(`registry.known_answers`). What a look at the bytes can tell is refused here, whatever the library does.

Source: RFC 8032; Chalkias, Garillot and Nikolaenko 2020, "Taming the many EdDSAs".
"""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from registry import schema
from registry.curve import is_for_everybody, is_public_key
from registry.encoding import Value, encode, encode_canonical
from registry.errors import MalformedError

PUBLIC_KEY_BYTES, SIGNATURE_BYTES = 32, 64
_POINT_BYTES = 32  # of R, the first half of a signature
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
    if len(signer) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:  # libsodium reads so many in any case
        return False
    if is_for_everybody(signer) or is_for_everybody(signature[:_POINT_BYTES]):
        return False
    try:
        crypto_sign_open(signature + signed, signer)
    except BadSignatureError:
        return False
    return True


def blob_upload(origin: str, sha256: bytes, bytes_total: int) -> bytes:
    """The statement that an owner signs to store a blob with the nodes of a ledger."""
    return statement("wmreg/v1/blob-upload", origin, [sha256, bytes_total])
