"""The messages of the ledger, one class for each kind (DESIGN 4.1), and the reading of their bodies.

What signs them and how they travel is registry.envelope's business; what the ledger makes of them, registry.rules'.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias, cast

from registry import schema
from registry.commitments import COMMITMENT_BYTES, Committed, Further, Opening
from registry.encoding import Value
from registry.errors import MalformedError, shown
from registry.policy import Policy
from registry.signing import SIGNATURE_BYTES, public_key
from registry.spelling import is_key_name
from registry.verdict import Measurement, Outcome
from registry.watermark_key import NONCE_BYTES, KeyBinding

UNMEASURED_REFUTATIONS = frozenset({"head_mismatch", "info_mismatch"})
REASON_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis:
    """First message of a ledger: its name and its policy, signed by all founding members."""

    KIND: ClassVar = "genesis"
    time_s: int
    origin: str
    policy: Policy

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        return {"time_s": self.time_s, "origin": self.origin, "policy": self.policy.to_value()}

    @classmethod
    def from_body(cls, body: Value) -> "Genesis":
        """Read a body; raises MalformedError."""
        return cls(**schema.fields(body, _GENESIS, what=cls.KIND))  # type: ignore[arg-type]  # checked


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """The members' agreement on a new policy, in force from this entry on.

    Signed by a quorum of the members so far, and by a member that joins.

    Attributes:
        previous: hash of the message that set the policy that this one replaces.
    """

    KIND: ClassVar = "policy"
    time_s: int
    previous: bytes
    policy: Policy

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        return {"time_s": self.time_s, "previous": self.previous, "policy": self.policy.to_value()}

    @classmethod
    def from_body(cls, body: Value) -> "PolicyChange":
        """Read a body; raises MalformedError."""
        return cls(**schema.fields(body, _POLICY_CHANGE, what=cls.KIND))  # type: ignore[arg-type]  # checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """An owner's commitments, published before the model is released (Li et al. 2022: Publish).

    Attributes:
        model_commitment: optional, to the file that was published.
        further: optional, to further watermarks of the same model. A claim reveals its watermark key, so an owner
            who expects several infringements has several.
    """

    KIND: ClassVar = "publish"
    time_s: int
    scheme: str
    key_commitment: bytes
    head_commitment: bytes
    info_commitment: bytes
    model_commitment: bytes | None = None
    further: Further | None = None

    @property
    def committed(self) -> Committed:
        """The commitments to the first watermark."""
        return Committed(self.key_commitment, self.head_commitment, self.info_commitment)

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        body: dict[str, Value] = {field.name: getattr(self, field.name) for field in fields(self)}
        body["further"] = self.further.to_value() if self.further else None
        return body

    @classmethod
    def from_body(cls, body: Value) -> "Publication":
        """Read a body; raises MalformedError."""
        return cls(**schema.fields(body, _PUBLICATION, what=cls.KIND))  # type: ignore[arg-type]  # checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An owner's assertion that a model carries his watermark (Li et al. 2022: OV).

    Attributes:
        publication: hash of the publication's envelope.
        model_pointer, model_sha256: where the suspect's file is, and what it must hash to.
        evidence_pointer, evidence_sha256: likewise for the evidence file.
        binding: the revealed watermark key and its proof of binding.
        opening: None for the publication's first watermark; which of the further ones, otherwise.
    """

    KIND: ClassVar = "claim"
    time_s: int
    publication: bytes
    model_pointer: str
    model_sha256: bytes
    evidence_pointer: str
    evidence_sha256: bytes
    binding: KeyBinding
    opening: Opening | None = None

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        body: dict[str, Value] = {field.name: getattr(self, field.name) for field in fields(self)}
        del body["binding"]
        body |= {"nonce": self.binding.nonce, "key_signature": self.binding.signature}
        body["opening"] = self.opening.to_value() if self.opening else None
        return body

    @classmethod
    def from_body(cls, body: Value) -> "Claim":
        """Read a body; raises MalformedError."""
        read = schema.fields(body, _CLAIM, what=cls.KIND)
        nonce, signature = cast("bytes", read.pop("nonce")), cast("bytes", read.pop("key_signature"))
        return cls(binding=KeyBinding(nonce=nonce, signature=signature), **read)  # type: ignore[arg-type]  # checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One node's signed opinion on a claim, with every number that led to it.

    Attributes:
        claim: hash of the claim's envelope.
        policy: hash of the message that set the policy by which the claim is judged. A certificate shows a few entries
            of the log; by this they cannot be read under another policy.
        reason: stable word for why, such as matched, below_threshold, hash_mismatch.
        measurement: None where nothing could be measured.
        device: what computed it, such as "cpu".
        software: versions that computed it.
    """

    KIND: ClassVar = "vote"
    time_s: int
    claim: bytes
    policy: bytes
    outcome: Outcome
    reason: str
    measurement: Measurement | None
    device: str
    software: str

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        return {
            "time_s": self.time_s,
            "claim": self.claim,
            "policy": self.policy,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "measurement": self.measurement.to_value() if self.measurement else None,
            "device": self.device,
            "software": self.software,
        }

    @classmethod
    def from_body(cls, body: Value) -> "Vote":
        """Read a body; raises MalformedError, also where numbers are missing or should not be there."""
        vote = cls(**schema.fields(body, _VOTE, what=cls.KIND))  # type: ignore[arg-type]  # checked
        unmeasured = vote.outcome is Outcome.UNVERIFIABLE or (
            vote.outcome is Outcome.REFUTED and vote.reason in UNMEASURED_REFUTATIONS
        )
        if (vote.measurement is None) != unmeasured:
            raise MalformedError(f"vote: {vote.outcome} ({vote.reason}) has numbers missing or too many")
        return vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """An owner takes back a publication or a claim of his.

    Attributes:
        target: hash of the message that no longer stands.
        reason: for people.
    """

    KIND: ClassVar = "withdraw"
    time_s: int
    target: bytes
    reason: str

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_body(cls, body: Value) -> "Withdrawal":
        """Read a body; raises MalformedError."""
        return cls(**schema.fields(body, _WITHDRAWAL, what=cls.KIND))  # type: ignore[arg-type]  # checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """An owner moves to a new signing key, which from now on speaks for all that the old one published.

    Signed by both keys: nobody hands his past to a stranger, and nobody takes over a stranger's.
    """

    KIND: ClassVar = "rotate"
    time_s: int
    old_key: bytes
    new_key: bytes

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_body(cls, body: Value) -> "Rotation":
        """Read a body; raises MalformedError."""
        return cls(**schema.fields(body, _ROTATION, what=cls.KIND))  # type: ignore[arg-type]  # checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The owner of another publication objects to a claim. It decides nothing; it is shown with the verdict.

    Attributes:
        claim: hash of the claim.
        publication: hash of the challenger's own publication.
        reason: for people.
    """

    KIND: ClassVar = "challenge"
    time_s: int
    claim: bytes
    publication: bytes
    reason: str

    def to_body(self) -> dict[str, Value]:
        """The message as an envelope carries it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_body(cls, body: Value) -> "Challenge":
        """Read a body; raises MalformedError."""
        return cls(**schema.fields(body, _CHALLENGE, what=cls.KIND))  # type: ignore[arg-type]  # checked


Message: TypeAlias = Genesis | PolicyChange | Publication | Claim | Vote | Withdrawal | Rotation | Challenge
KINDS: Mapping[str, type[Message]] = {
    message.KIND: message
    for message in (Genesis, PolicyChange, Publication, Claim, Vote, Withdrawal, Rotation, Challenge)
}


def _outcome(value: Value) -> Outcome:
    outcome = _OUTCOMES.get(_WORD(value))
    if outcome is None:
        raise MalformedError(f"unknown outcome {shown(value)}")
    return outcome


def _origin(value: Value) -> str:
    name = schema.text(255)(value)
    if not is_key_name(name):
        raise MalformedError("expected a name without spaces and pluses")
    return name


_HASH = schema.octets(COMMITMENT_BYTES)
_TIME = schema.uint()
_REASON = schema.text(REASON_CHARACTERS_MAX)
_WORD = schema.text(16)
_OUTCOMES = {str(outcome): outcome for outcome in Outcome}
_Fields: TypeAlias = dict[str, schema.Checker[object]]
_GENESIS: _Fields = {"time_s": _TIME, "origin": _origin, "policy": Policy.from_value}
_POLICY_CHANGE: _Fields = {"time_s": _TIME, "previous": _HASH, "policy": Policy.from_value}
_PUBLICATION: _Fields = {
    "time_s": _TIME,
    "scheme": schema.text(64),
    "key_commitment": _HASH,
    "head_commitment": _HASH,
    "info_commitment": _HASH,
    "model_commitment": schema.optional(_HASH),
    "further": schema.optional(Further.from_value),
}
_CLAIM: _Fields = {
    "time_s": _TIME,
    "publication": _HASH,
    "model_pointer": schema.text(2048),
    "model_sha256": _HASH,
    "evidence_pointer": schema.text(2048),
    "evidence_sha256": _HASH,
    "nonce": schema.octets(NONCE_BYTES),
    "key_signature": schema.octets(SIGNATURE_BYTES),
    "opening": schema.optional(Opening.from_value),
}
_VOTE: _Fields = {
    "time_s": _TIME,
    "claim": _HASH,
    "policy": _HASH,
    "outcome": _outcome,
    "reason": schema.text(64),
    "measurement": schema.optional(Measurement.from_value),
    "device": schema.text(128),
    "software": schema.text(512),
}
_WITHDRAWAL: _Fields = {"time_s": _TIME, "target": _HASH, "reason": _REASON}
_ROTATION: _Fields = {"time_s": _TIME, "old_key": public_key, "new_key": public_key}
_CHALLENGE: _Fields = {"time_s": _TIME, "claim": _HASH, "publication": _HASH, "reason": _REASON}
