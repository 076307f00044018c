"""The messages of the ledger and their signed envelope (DESIGN 4.1).

An envelope is the canonical map {version, kind, body, signatures}; signatures is an array of [signer, signature]
in the order of the signers. Each signature covers the context, the ledger's origin, the kind and the body. All
kinds have one signer but genesis, which every founding member signs. A message is named by the hash of its envelope.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import schema, signing
from registry.commitments import COMMITMENT_BYTES
from registry.encoding import ENTRY_BYTES_MAX, Value, canonical, decode, encode_canonical
from registry.errors import MalformedError, RefusedError
from registry.note import is_key_name
from registry.policy import MEMBERS_MAX, Policy
from registry.verdict import Measurement, Outcome
from registry.watermark_key import NONCE_BYTES, KeyBinding

VERSION = 1
ENVELOPE_BYTES_MAX = ENTRY_BYTES_MAX - 64
UNMEASURED_REFUTATIONS = frozenset({"head_mismatch", "info_mismatch"})
_CONTEXT = "wmreg/v1/message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis:
    """First message of a ledger: its name and its policy, signed by all founding members."""

    time_s: int
    origin: str
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """An owner's commitments, published before the model is released (Li et al. 2022: Publish)."""

    time_s: int
    scheme: str
    key_commitment: bytes
    head_commitment: bytes
    info_commitment: bytes
    model_commitment: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An owner's assertion that a model carries his watermark (Li et al. 2022: OV).

    Attributes:
        publication: hash of the publication's envelope.
        model_pointer, model_sha256: where the suspect's file is, and what it must hash to.
        evidence_pointer, evidence_sha256: likewise for the evidence file.
        binding: the revealed watermark key and its proof of binding.
    """

    time_s: int
    publication: bytes
    model_pointer: str
    model_sha256: bytes
    evidence_pointer: str
    evidence_sha256: bytes
    binding: KeyBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One node's signed opinion on a claim, with every number that led to it.

    Attributes:
        claim: hash of the claim's envelope.
        reason: stable word for why, such as matched, below_threshold, hash_mismatch.
        measurement: None where nothing could be measured.
        device: what computed it, such as "cpu".
        software: versions that computed it.
    """

    time_s: int
    claim: bytes
    outcome: Outcome
    reason: str
    measurement: Measurement | None
    device: str
    software: str


Message: TypeAlias = Genesis | Publication | Claim | Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A decoded envelope whose signatures hold.

    Attributes:
        hash: names the message, 32 bytes.
        signers: Ed25519 public keys in ascending order; one, except for genesis.
    """

    hash: bytes
    message: Message
    signers: tuple[bytes, ...]

    @property
    def signer(self) -> bytes:
        """The only signer of a message that has one, the first of a genesis."""
        return self.signers[0]


def seal(message: Message, *, origin: str, private_keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """Sign a message; return its envelope.

    Raises:
        ValueError: the envelope would be larger than an entry may be, or no key was given.
    """
    if not private_keys:
        raise ValueError("a message needs a signer")
    kind, body = _kind_of(message), canonical(_body_of(message))
    signed = signing.canonical_statement(_CONTEXT, origin, [kind, body])
    signatures = sorted([k.public_key().public_bytes_raw(), signing.sign(k, signed)] for k in private_keys)
    envelope = encode_canonical(
        {"body": body, "kind": kind, "signatures": cast("list[Value]", signatures), "version": VERSION}
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
        RefusedError: code bad_signature or foreign_genesis.
    """
    read = schema.fields(decode(envelope, bytes_max=ENVELOPE_BYTES_MAX), _ENVELOPE, what="envelope")
    kind, body = cast("str", read["kind"]), cast("dict[str, Value]", read["body"])
    if kind not in _READERS:
        raise MalformedError(f"unknown kind of message {kind!r}", code="unknown_kind")
    message = _READERS[kind](body)
    if origin is None:
        if not isinstance(message, Genesis):
            raise RefusedError("the first message of a ledger is its genesis", code="no_genesis")
        origin = message.origin
    signed = signing.canonical_statement(_CONTEXT, origin, [kind, body])
    signers = _verify_signatures(read["signatures"], signed, is_signed)
    if len(signers) != 1 and not isinstance(message, Genesis):
        raise MalformedError(f"a {kind} has one signer, not {len(signers)}")
    return SignedMessage(hash=message_hash(envelope), message=message, signers=signers)


def message_hash(envelope: bytes) -> bytes:
    """Name of a message: SHA-256 over a domain prefix and its envelope."""
    return hashlib.sha256(b"wmreg/v1/envelope\0" + envelope).digest()


def kind_of(message: Message) -> str:
    """The word that an envelope uses for this kind of message."""
    return _kind_of(message)


def _verify_signatures(signatures: object, signed: bytes, is_signed: signing.IsSigned) -> tuple[bytes, ...]:
    pairs = cast("list[tuple[bytes, bytes]]", signatures)
    signers = tuple(signer for signer, _ in pairs)
    if list(signers) != sorted(set(signers)):
        raise MalformedError("signers are not in ascending order, or one signed twice")
    for signer, signature in pairs:
        if not is_signed(signed, signer=signer, signature=signature):
            raise RefusedError(f"the signature of {signer.hex()} does not hold", code="bad_signature")
    return signers


def _kind_of(message: Message) -> str:
    return {Genesis: "genesis", Publication: "publish", Claim: "claim", Vote: "vote"}[type(message)]


def _body_of(message: Message) -> dict[str, Value]:
    if isinstance(message, Genesis):
        return {"time_s": message.time_s, "origin": message.origin, "policy": message.policy.to_value()}
    body: dict[str, Value] = {field.name: getattr(message, field.name) for field in fields(message)}
    if isinstance(message, Claim):
        del body["binding"]
        body |= {"nonce": message.binding.nonce, "key_signature": message.binding.signature}
    if isinstance(message, Vote):
        body["outcome"] = str(message.outcome)
        body["measurement"] = message.measurement.to_value() if message.measurement else None
    return body


def _read_genesis(body: Value) -> Genesis:
    return Genesis(**schema.fields(body, _GENESIS, what="genesis"))  # type: ignore[arg-type]  # checked


def _read_publication(body: Value) -> Publication:
    return Publication(**schema.fields(body, _PUBLICATION, what="publish"))  # type: ignore[arg-type]  # checked


def _read_claim(body: Value) -> Claim:
    read = schema.fields(body, _CLAIM, what="claim")
    nonce, signature = cast("bytes", read.pop("nonce")), cast("bytes", read.pop("key_signature"))
    return Claim(binding=KeyBinding(nonce=nonce, signature=signature), **read)  # type: ignore[arg-type]  # checked


def _read_vote(body: Value) -> Vote:
    vote = Vote(**schema.fields(body, _VOTE, what="vote"))  # type: ignore[arg-type]  # checked
    unmeasured = vote.outcome is Outcome.UNVERIFIABLE or (
        vote.outcome is Outcome.REFUTED and vote.reason in UNMEASURED_REFUTATIONS
    )
    if (vote.measurement is None) != unmeasured:
        raise MalformedError(f"vote: {vote.outcome} ({vote.reason}) has numbers missing or too many")
    return vote


def _outcome(value: Value) -> Outcome:
    word = schema.text(16)(value)
    if word not in set(Outcome):
        raise MalformedError(f"unknown outcome {word!r}")
    return Outcome(word)


def _origin(value: Value) -> str:
    name = schema.text(255)(value)
    if not is_key_name(name):
        raise MalformedError("expected a name without spaces and pluses")
    return name


_HASH = schema.octets(COMMITMENT_BYTES)
_TIME = schema.uint()
_READERS: dict[str, Callable[[Value], Message]] = {
    "genesis": _read_genesis,
    "publish": _read_publication,
    "claim": _read_claim,
    "vote": _read_vote,
}
_ENVELOPE: dict[str, schema.Checker[object]] = {
    "version": schema.uint(VERSION, VERSION),
    "kind": schema.text(32),
    "body": schema.mapping,
    "signatures": schema.listed(
        schema.pair(schema.octets(signing.PUBLIC_KEY_BYTES), schema.octets(signing.SIGNATURE_BYTES)),
        MEMBERS_MAX,
        1,
    ),
}
_GENESIS: dict[str, schema.Checker[object]] = {
    "time_s": _TIME,
    "origin": _origin,
    "policy": Policy.from_value,
}
_PUBLICATION: dict[str, schema.Checker[object]] = {
    "time_s": _TIME,
    "scheme": schema.text(64),
    "key_commitment": _HASH,
    "head_commitment": _HASH,
    "info_commitment": _HASH,
    "model_commitment": schema.optional(_HASH),
}
_CLAIM: dict[str, schema.Checker[object]] = {
    "time_s": _TIME,
    "publication": _HASH,
    "model_pointer": schema.text(2048),
    "model_sha256": _HASH,
    "evidence_pointer": schema.text(2048),
    "evidence_sha256": _HASH,
    "nonce": schema.octets(NONCE_BYTES),
    "key_signature": schema.octets(signing.SIGNATURE_BYTES),
}
_VOTE: dict[str, schema.Checker[object]] = {
    "time_s": _TIME,
    "claim": _HASH,
    "outcome": _outcome,
    "reason": schema.text(64),
    "measurement": schema.optional(Measurement.from_value),
    "device": schema.text(128),
    "software": schema.text(512),
}
