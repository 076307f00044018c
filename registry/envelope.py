"""How a message travels: its signed envelope (DESIGN 4.1).

An envelope is the canonical map {version, kind, body, signatures}; signatures is an array of [signer, signature]
in the order of the signers. Each signature covers the context, the ledger's origin, the kind and the body. All
kinds have one signer but three: all founding members sign a genesis, a quorum of the members a change of policy, and
the old and the new key a rotation. A message is named by the hash of its envelope.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import schema, signing
from registry.encoding import ENTRY_BYTES_MAX, Value, canonical, decode, encode_canonical
from registry.errors import MalformedError, RefusedError, shown
from registry.messages import KINDS, Genesis, Message, PolicyChange, Rotation
from registry.policy import MEMBERS_MAX

VERSION = 1
ENVELOPE_BYTES_MAX = ENTRY_BYTES_MAX - 64
_CONTEXT = "wmreg/v1/message"
_JOINTLY_SIGNED = (Genesis, PolicyChange, Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A decoded envelope whose signatures hold.

    Attributes:
        hash: names the message, 32 bytes.
        signers: Ed25519 public keys in ascending order; one for most kinds.
    """

    hash: bytes
    message: Message
    signers: tuple[bytes, ...]

    @property
    def signer(self) -> bytes:
        """The only signer of a message that has one, the first of the others."""
        return self.signers[0]


class Unseal(Protocol):
    """What `unseal` is; a node that reads one message at several stations of its way passes its own."""

    def __call__(self, envelope: bytes, *, origin: str | None) -> SignedMessage:
        """The message of an envelope whose signatures hold."""
        ...


def seal(message: Message, *, origin: str, private_keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """Sign a message; return its envelope.

    Raises:
        ValueError: the envelope would be larger than an entry may be, or no key was given.
    """
    if not private_keys:
        raise ValueError("a message needs a signer")
    signed = statement_of(message, origin=origin)
    return assemble(message, {k.public_key().public_bytes_raw(): signing.sign(k, signed) for k in private_keys})


def statement_of(message: Message, *, origin: str) -> bytes:
    """What the signers of a message sign."""
    return signing.canonical_statement(_CONTEXT, origin, [message.KIND, canonical(message.to_body())])


def assemble(message: Message, signatures: Mapping[bytes, bytes]) -> bytes:
    """The envelope of a message that was signed elsewhere.

    Args:
        message: what was signed.
        signatures: by signing key; not checked.

    Raises:
        ValueError: the envelope would be larger than an entry may be, or nobody has signed.
    """
    if not signatures:
        raise ValueError("a message needs a signer")
    pairs = cast("list[Value]", sorted([signer, signature] for signer, signature in signatures.items()))
    envelope = encode_canonical(
        {"body": canonical(message.to_body()), "kind": message.KIND, "signatures": pairs, "version": VERSION}
    )
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise ValueError(f"a message of {len(envelope)} bytes; at most {ENVELOPE_BYTES_MAX} are allowed")
    return envelope


def unseal(envelope: bytes, *, origin: str | None, is_signed: signing.IsSigned = signing.is_signed) -> SignedMessage:
    """Decode an envelope and verify its signatures.

    Args:
        envelope: the bytes as they were submitted.
        origin: the ledger they must be meant for; None reads a genesis, which names its own.
        is_signed: checks one signature.

    Raises:
        MalformedError: not an envelope of a known version and kind, or its body is not what the kind demands.
        RefusedError: code bad_signature or no_genesis.
    """
    read = schema.fields(decode(envelope, bytes_max=ENVELOPE_BYTES_MAX), _ENVELOPE, what="envelope")
    kind, body = cast("str", read["kind"]), cast("dict[str, Value]", read["body"])
    if kind not in KINDS:
        raise MalformedError(f"unknown kind of message {shown(kind)}", code="unknown_kind")
    message = KINDS[kind].from_body(body)
    if origin is None:
        if not isinstance(message, Genesis):
            raise RefusedError("the first message of a ledger is its genesis", code="no_genesis")
        origin = message.origin
    signed = signing.canonical_statement(_CONTEXT, origin, [kind, body])
    signers = _verify_signatures(read["signatures"], signed, is_signed)
    if len(signers) != 1 and not isinstance(message, _JOINTLY_SIGNED):
        raise MalformedError(f"a {kind} has one signer, not {len(signers)}")
    return SignedMessage(hash=message_hash(envelope), message=message, signers=signers)


def message_hash(envelope: bytes) -> bytes:
    """Name of a message: SHA-256 over a domain prefix and its envelope."""
    return hashlib.sha256(b"wmreg/v1/envelope\0" + envelope).digest()


def _verify_signatures(signatures: object, signed: bytes, is_signed: signing.IsSigned) -> tuple[bytes, ...]:
    pairs = cast("list[tuple[bytes, bytes]]", signatures)
    signers = tuple(signer for signer, _ in pairs)
    if len(signers) > 1 and list(signers) != sorted(set(signers)):
        raise MalformedError("signers are not in ascending order, or one signed twice")
    for signer, signature in pairs:
        if not is_signed(signed, signer=signer, signature=signature):
            raise RefusedError(f"the signature of {signer.hex()} does not hold", code="bad_signature")
    return signers


_ENVELOPE: dict[str, schema.Checker[object]] = {
    "version": schema.uint(VERSION, VERSION),
    "kind": schema.text(32),
    "body": schema.mapping,
    "signatures": schema.listed(
        schema.pair(schema.octets(signing.PUBLIC_KEY_BYTES), schema.octets(signing.SIGNATURE_BYTES)),
        MEMBERS_MAX + 1,
        1,
    ),
}
