"""The rulebook: what the ledger accepts, and what follows from what it accepted (DESIGN 3, 4).

`Ledger.apply` is total and deterministic: any bytes lead to Accepted, Duplicate or Refused, never to an exception,
and it reads no clock. All nodes apply the same commands in the same order and so hold the same state; an auditor
replays the entries and must arrive there too.

* A message is accepted once; the same message again names its first index.
* The author's time must be within the policy's skew of the time at which a node recorded it.
* A publication's key commitment is new for its owner. It is not reserved against others: a copied commitment
  is worthless, since the key behind it is bound to its maker, and reserving would let a front-runner block him.
* A claim names an older publication by the same signer, and reveals the bound key that was committed to.
* A member votes once on a claim, and only what his own numbers say.
"""

from dataclasses import dataclass, field
from typing import TypeAlias, cast

from registry import commitments, schema, signing
from registry.encoding import ENTRY_BYTES_MAX, decode, encode
from registry.errors import RefusedError, RegistryError
from registry.messages import Claim, Genesis, Publication, SignedMessage, Vote, message_hash, unseal
from registry.policy import Member, Policy
from registry.verdict import Outcome, judge
from registry.watermark_key import verify_binding


@dataclass(frozen=True, slots=True)
class Accepted:
    """The entry is the index-th of the log."""

    index: int
    message_hash: bytes


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The message is in the log already, at index."""

    index: int
    message_hash: bytes

    def __str__(self) -> str:
        return f"the message is in the log already, as entry {self.index}"


@dataclass(frozen=True, slots=True)
class Refused:
    """The entry is not in the log. code is stable, detail is for people."""

    code: str
    detail: str
    message_hash: bytes | None

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"


Applied: TypeAlias = Accepted | Duplicate | Refused
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


@dataclass(slots=True)
class ClaimState:
    """A claim, its publication and the votes on it, by member name."""

    claim: Placed
    publication: Placed
    votes: dict[str, Placed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the votes on a claim add up to.

    Attributes:
        outcome: None while the claim is open.
        reason: the reason that most of the agreeing votes give; no_quorum when all voted without agreeing.
        members: names of the nodes that agree.
        superseded_by: hash of the claim on the same model that prevails, by an earlier publication.
    """

    outcome: Outcome | None
    reason: str
    members: tuple[str, ...]
    superseded_by: bytes | None = None


class Ledger:
    """State of one ledger, built by applying its entries in order.

    Args:
        is_signed: checks one signature; an auditor may pass one that answers from many checked at once.
    """

    def __init__(self, is_signed: signing.IsSigned = signing.is_signed) -> None:
        self._is_signed = is_signed
        self.size = 0
        self.origin = ""
        self._policy: Policy | None = None
        self._placed: dict[bytes, Placed] = {}
        self._key_commitments: set[tuple[bytes, bytes]] = set()
        self._claims: dict[bytes, ClaimState] = {}
        self._claims_on: dict[bytes, list[bytes]] = {}

    @property
    def policy(self) -> Policy:
        """The policy in force.

        Raises:
            ValueError: the ledger has no genesis yet.
        """
        if self._policy is None:
            raise ValueError("the ledger is empty: it has no policy yet")
        return self._policy

    def apply(self, raw: bytes) -> Applied:
        """Apply one command, the bytes of an entry. Never raises."""
        digest = None
        try:
            entry = Entry.decode(raw)
            digest = message_hash(entry.envelope)
            if digest in self._placed:
                return Duplicate(self._placed[digest].index, digest)
            signed = unseal(entry.envelope, origin=self.origin if self.size else None, is_signed=self._is_signed)
            self._check(signed, entry.recorded_s)
        except RegistryError as error:
            return Refused(error.code, str(error), digest)
        placed = Placed(index=self.size, recorded_s=entry.recorded_s, signed=signed)
        self._admit(placed)
        self.size += 1
        return Accepted(placed.index, signed.hash)

    def find(self, digest: bytes) -> Placed | None:
        """The accepted message with this hash, or None."""
        return self._placed.get(digest)

    def claim_state(self, digest: bytes) -> ClaimState | None:
        """The claim with this hash and its votes, or None."""
        return self._claims.get(digest)

    def claims(self) -> list[bytes]:
        """Hashes of all claims, oldest first."""
        return list(self._claims)

    def verdict(self, digest: bytes) -> Verdict:
        """What the votes on a claim add up to so far.

        Raises:
            ValueError: there is no such claim.
        """
        state = self._claims.get(digest)
        if state is None:
            raise ValueError(f"there is no claim {digest.hex()}")
        verdict = count_votes(state, self.policy)
        if verdict.outcome is not Outcome.VERIFIED:
            return verdict
        first = self._prevailing(state)
        if first.claim.signed.hash == digest:
            return verdict
        return Verdict(verdict.outcome, verdict.reason, verdict.members, first.claim.signed.hash)

    def _prevailing(self, state: ClaimState) -> ClaimState:
        """Of the verified claims on the same model, the one with the earliest publication, then the earliest claim."""
        model = cast("Claim", state.claim.signed.message).model_sha256
        rivals = [self._claims[digest] for digest in self._claims_on[model]]
        verified = [r for r in rivals if count_votes(r, self.policy).outcome is Outcome.VERIFIED]
        return min(verified, key=lambda rival: (rival.publication.index, rival.claim.index))

    def _check(self, signed: SignedMessage, recorded_s: int) -> None:
        message = signed.message
        if isinstance(message, Genesis):
            self._check_genesis(message, signed.signers)
            return
        if abs(message.time_s - recorded_s) > self.policy.time_skew_s:
            skew_s = self.policy.time_skew_s
            raise RefusedError(
                f"signed at {message.time_s} but recorded at {recorded_s}: more than {skew_s} s apart",
                code="time_skew",
            )
        if isinstance(message, Publication):
            if (signed.signer, message.key_commitment) in self._key_commitments:
                raise RefusedError("this owner published this key commitment before", code="key_commitment_used")
        elif isinstance(message, Claim):
            self._check_claim(message, signed.signer)
        else:
            self._check_vote(message, signed.signer)

    def _check_genesis(self, genesis: Genesis, signers: tuple[bytes, ...]) -> None:
        if self.size:
            raise RefusedError("a ledger has one genesis", code="second_genesis")
        if signers != tuple(sorted(member.signing_key for member in genesis.policy.members)):
            raise RefusedError("a genesis is signed by all founding members and nobody else", code="not_a_member")

    def _check_claim(self, claim: Claim, signer: bytes) -> None:
        placed = self._placed.get(claim.publication)
        if placed is None or not isinstance(placed.signed.message, Publication):
            raise RefusedError(f"no publication {claim.publication.hex()}", code="unknown_publication")
        if placed.signed.signer != signer:
            raise RefusedError("the publication is somebody else's", code="not_the_publisher")
        check_revealed_key(claim, placed.signed, origin=self.origin, is_signed=self._is_signed)

    def _check_vote(self, vote: Vote, signer: bytes) -> None:
        member = self.policy.member_of(signer)
        if member is None:
            raise RefusedError("only members vote", code="not_a_member")
        state = self._claims.get(vote.claim)
        if state is None:
            raise RefusedError(f"no claim {vote.claim.hex()}", code="unknown_claim")
        if member.name in state.votes:
            raise RefusedError(f"{member.name} has voted on this claim", code="voted_before")
        check_vote_numbers(vote, self.policy)

    def _admit(self, placed: Placed) -> None:
        """Record an accepted message; nothing here can fail."""
        signed, message = placed.signed, placed.signed.message
        self._placed[signed.hash] = placed
        if isinstance(message, Genesis):
            self.origin, self._policy = message.origin, message.policy
        elif isinstance(message, Publication):
            self._key_commitments.add((signed.signer, message.key_commitment))
        elif isinstance(message, Claim):
            self._claims[signed.hash] = ClaimState(placed, self._placed[message.publication])
            self._claims_on.setdefault(message.model_sha256, []).append(signed.hash)
        else:
            member = cast("Member", self.policy.member_of(signed.signer))
            self._claims[message.claim].votes[member.name] = placed


def check_revealed_key(
    claim: Claim, publication: SignedMessage, *, origin: str, is_signed: signing.IsSigned = signing.is_signed
) -> None:
    """Check that a claim's key is bound to the publication's signer and is the one that was committed to.

    Raises:
        RefusedError: code key_not_bound or key_mismatch.
    """
    verify_binding(claim.binding, origin=origin, owner=publication.signer, is_signed=is_signed)
    committed = cast("Publication", publication.message).key_commitment
    if commitments.key_commitment(claim.binding.watermark_key) != committed:
        raise RefusedError("the revealed key is not the one that was committed to", code="key_mismatch")


def check_vote_numbers(vote: Vote, policy: Policy) -> None:
    """Check that a vote says what its own numbers say.

    Raises:
        RefusedError: code contradictory_vote.
    """
    if vote.measurement is None:
        return
    outcome, reason = judge(vote.measurement, policy.thresholds)
    if (vote.outcome, vote.reason) != (outcome, reason):
        raise RefusedError(
            f"the vote says {vote.outcome} ({vote.reason}); its numbers say {outcome} ({reason})",
            code="contradictory_vote",
        )


def count_votes(state: ClaimState, policy: Policy) -> Verdict:
    """Add up the votes on a claim; priority between claims is not looked at."""
    for outcome in Outcome:
        agreeing = {n: v for n, p in state.votes.items() if (v := cast("Vote", p.signed.message)).outcome is outcome}
        if len(agreeing) >= policy.quorum:
            reasons = sorted(vote.reason for vote in agreeing.values())
            return Verdict(outcome, max(reasons, key=reasons.count), tuple(sorted(agreeing)))
    if len(state.votes) == len(policy.members):
        return Verdict(Outcome.INCONCLUSIVE, "no_quorum", ())
    return Verdict(None, "open", tuple(sorted(state.votes)))
