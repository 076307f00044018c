"""Certificates: one file that proves a quorum's verdict offline (DESIGN 3).

A certificate is a small ledger cut out of the large one: the genesis, the changes of policy, the owner's publication,
his moves to other signing keys, his claim, the votes and the objections, each with its inclusion proof in one cosigned
checkpoint. Its verifier replays those entries through the same rulebook that the nodes apply, so a certificate cannot
say what the rules would not. Earlier cosigned checkpoints, each with a consistency proof to the last, bound the times
at which publication and claim were recorded.

The file is JSON in one spelling with a hash over itself; damage is told from distrust before anything else is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from registry import hashed_json, merkle
from registry.endpoint import endpoint_of
from registry.entry import Entry, Placed
from registry.envelope import SignedMessage, message_hash
from registry.errors import MalformedError, RefusedError, UntrustedError, shown
from registry.messages import Challenge, Publication, Vote
from registry.note import Note
from registry.rules import Accepted, Ledger
from registry.spelling import decode_base64, encode_base64
from registry.trust import TrustedCheckpoint, TrustPolicy
from registry.verdict import CERTIFIED, Outcome, Statistic

FORMAT = "wmreg-certificate/1"
CERTIFICATE_BYTES_MAX = 8 * 2**20
_DOMAIN = "wmreg/v1/certificate"
CHALLENGES_SHOWN_MAX = 32
ENTRIES_MAX = 1024
_ATTESTATIONS_MAX, _PROOF_HASHES_MAX = 16, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenEntry:
    """An entry of the log and its inclusion proof in the certificate's checkpoint."""

    index: int
    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """An earlier cosigned checkpoint and the consistency proof from it to the certificate's checkpoint."""

    checkpoint_note: str
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed certificate; nothing of it is verified."""

    origin: str
    checkpoint_note: str
    entries: tuple[ProvenEntry, ...]
    attestations: tuple[Attestation, ...]

    def encode(self) -> bytes:
        """The file's bytes."""
        return hashed_json.encode(_content(self), domain=_DOMAIN)

    @classmethod
    def decode(cls, raw: bytes) -> "Certificate":
        """Read a certificate's file.

        Raises:
            MalformedError: damaged (any changed byte), of another format, or too large.
        """
        return hashed_json.decode(
            raw, _from_content, Certificate.encode, what="certificate", bytes_max=CERTIFICATE_BYTES_MAX
        )


@dataclass(frozen=True, slots=True)
class Attested:
    """When an entry was recorded, by the witnesses' clocks: after not_before_s, if known, and by not_after_s."""

    not_before_s: int | None
    not_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteStory:
    """One node's vote, for people; what the numbers mean says `registry.verdict.Measurement`.

    Attributes:
        matched, total: 0 where nothing was measured.
        p_value: None there, and where chance says nothing.
    """

    member: str
    outcome: Outcome
    reason: str
    matched: int
    total: int
    p_value: str | None
    device: str
    aligned: bool
    matched_unaligned: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeStory:
    """An objection to the claim by the owner of another publication. It decides nothing."""

    challenger: bytes
    publication: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a certificate proves: who, what, when, by whose word and with which numbers.

    Attributes:
        outcome: VERIFIED; of a mark of integrity INTACT or TAMPERED.
        owner: the signing key that claimed.
        published_by: the signing key that published; another one if the owner moved to a new key since.
        model_sha256: of the model's file; of a claim on an endpoint, of its URL.
        endpoint: URL of the endpoint that was asked; None for a model's file.
        statistics: what the votes counted that agree with the verdict; one thing, if they are honest.
        policy_index: place of the entry that set the policy by which the claim is judged; 0 for the genesis.
        challenges: objections by others, at most CHALLENGES_SHOWN_MAX.
    """

    outcome: Outcome
    origin: str
    owner: bytes
    published_by: bytes
    scheme: str
    publication_hash: bytes
    publication_index: int
    published: Attested
    claim_hash: bytes
    claim_index: int
    claimed: Attested
    model_sha256: bytes
    endpoint: str | None
    statistics: tuple[Statistic, ...]
    policy_index: int
    quorum: int
    members: int
    votes: tuple[VoteStory, ...]
    challenges: tuple[ChallengeStory, ...]
    checkpoint_size: int
    witnesses: tuple[str, ...]


def entries_of(ledger: Ledger, claim: bytes) -> list[int]:
    """Places of the entries that the certificate of a claim is made of, in order.

    Raises:
        ValueError: there is no such claim.
    """
    state = ledger.claim_state(claim)
    if state is None:
        raise ValueError(f"there is no claim {claim.hex()}")
    needed = [state.publication, state.claim, *state.votes.values(), *ledger.moves_to(state.claim.signed.signer)]
    for challenge in list(state.challenges.values())[:CHALLENGES_SHOWN_MAX]:
        message = cast("Challenge", challenge.signed.message)
        more = [challenge, _find(ledger, message.publication), *ledger.moves_to(challenge.signed.signer)]
        if len(_with_policies(ledger, [*needed, *more])) <= ENTRIES_MAX:  # an objection must not cost the proof
            needed += more
    return sorted(_with_policies(ledger, needed))


def _with_policies(ledger: Ledger, needed: Sequence[Placed]) -> set[int]:
    """With every policy that came before one of them: members and limits of the day decide what may enter."""
    indexes = {placed.index for placed in needed}
    policies = {_find(ledger, digest).index for digest in ledger.policy_hashes}
    return indexes | {index for index in policies if index < max(indexes)}


def _find(ledger: Ledger, digest: bytes) -> Placed:
    return cast("Placed", ledger.find(digest))


def verify_certificate(raw: bytes, trust: TrustPolicy) -> Story:
    """Check a certificate offline against the reader's trust policy.

    Raises:
        MalformedError: the file is damaged or not a certificate.
        UntrustedError: the policy does not vouch for the checkpoints.
        InclusionError, ConsistencyError: an entry or an earlier checkpoint is not part of the log.
        RefusedError: the entries do not add up to such a verdict under the ledger's rules.
    """
    certificate = Certificate.decode(raw)
    final = trust.check(Note.parse(certificate.checkpoint_note))
    if certificate.origin != trust.origin:
        raise UntrustedError(f"a certificate of {shown(certificate.origin)}; the policy trusts {trust.origin}")
    _verify_entries(certificate.entries, final)
    attested = [_verify_attestation(attestation, final, trust) for attestation in certificate.attestations]
    ledger = _replay(certificate.entries)
    if ledger.origin != trust.origin:
        raise UntrustedError(f"the genesis is of the ledger {shown(ledger.origin)}; the policy trusts {trust.origin}")
    return _tell(certificate, ledger, final, [*attested, final])


def _verify_entries(entries: Sequence[ProvenEntry], final: TrustedCheckpoint) -> None:
    if [proven.index for proven in entries] != sorted({proven.index for proven in entries}):
        raise MalformedError("the entries of a certificate are not in the log's order")
    for proven in entries:
        merkle.verify_inclusion(
            merkle.leaf_hash(proven.entry),
            index=proven.index,
            size=final.checkpoint.size,
            proof=proven.proof,
            root=final.checkpoint.root,
        )


def _verify_attestation(attestation: Attestation, final: TrustedCheckpoint, trust: TrustPolicy) -> TrustedCheckpoint:
    earlier = trust.check(Note.parse(attestation.checkpoint_note))
    merkle.verify_consistency(
        old_size=earlier.checkpoint.size,
        old_root=earlier.checkpoint.root,
        new_size=final.checkpoint.size,
        new_root=final.checkpoint.root,
        proof=attestation.proof,
    )
    return earlier


def _replay(entries: Sequence[ProvenEntry]) -> Ledger:
    """Apply the entries in order; the first must be the log's genesis."""
    if not entries or entries[0].index != 0:
        raise MalformedError("a certificate begins with the genesis, entry 0 of the log")
    ledger = Ledger()
    for proven in entries:
        applied = ledger.apply(proven.entry)
        if not isinstance(applied, Accepted):
            raise RefusedError(f"entry {proven.index} breaks the ledger's rules: {applied}", code="rules")
    return ledger


def _tell(
    certificate: Certificate, ledger: Ledger, final: TrustedCheckpoint, checkpoints: Sequence[TrustedCheckpoint]
) -> Story:
    claims = ledger.claims()
    if len(claims) != 1:
        raise RefusedError(f"a certificate is about one claim, not {len(claims)}", code="rules")
    verdict, state = ledger.verdict(claims[0]), ledger.claim_state(claims[0])
    if verdict.outcome not in CERTIFIED or state is None:
        raise RefusedError(
            f"the votes add up to {verdict.outcome or 'no verdict'} ({verdict.reason}), which no certificate proves",
            code="not_verified",
        )
    indexes = {message_hash(Entry.decode(p.entry).envelope): p.index for p in certificate.entries}
    published, claimed = indexes[state.message.publication], indexes[claims[0]]
    return Story(
        outcome=verdict.outcome,
        origin=ledger.origin,
        owner=state.claim.signed.signer,
        published_by=state.publication.signed.signer,
        scheme=cast("Publication", state.publication.signed.message).scheme,
        publication_hash=state.message.publication,
        publication_index=published,
        published=_attested(published, checkpoints),
        claim_hash=claims[0],
        claim_index=claimed,
        claimed=_attested(claimed, checkpoints),
        model_sha256=state.message.model_sha256,
        endpoint=endpoint_of(state.message.model_pointer, state.message.model_sha256),
        statistics=_statistics(state.votes_for(verdict.outcome).values()),
        policy_index=max(indexes[digest] for digest in ledger.policy_hashes if indexes[digest] < claimed),
        quorum=state.policy.quorum,
        members=len(state.policy.members),
        votes=tuple(_vote(name, cast("Vote", placed.signed.message)) for name, placed in sorted(state.votes.items())),
        challenges=tuple(_challenge(placed.signed) for placed in state.challenges.values()),
        checkpoint_size=final.checkpoint.size,
        witnesses=tuple(sorted(final.times_s)),
    )


def _challenge(signed: SignedMessage) -> ChallengeStory:
    message = cast("Challenge", signed.message)
    return ChallengeStory(challenger=signed.signer, publication=message.publication, reason=message.reason)


def _statistics(votes: Iterable[Vote]) -> tuple[Statistic, ...]:
    return tuple(sorted({vote.measurement.statistic for vote in votes if vote.measurement}))


def _vote(member: str, vote: Vote) -> VoteStory:
    measured = vote.measurement
    matched, total = (measured.matched, measured.total) if measured else (0, 0)
    return VoteStory(
        member=member,
        outcome=vote.outcome,
        reason=vote.reason,
        matched=matched,
        total=total,
        p_value=measured.p_value if measured else None,
        device=vote.device,
        aligned=measured.aligned if measured else False,
        matched_unaligned=measured.matched_unaligned if measured else None,
    )


def _attested(index: int, checkpoints: Sequence[TrustedCheckpoint]) -> Attested:
    """The interval between the last checkpoint that lacks the entry and the first that has it (DESIGN 2.1).

    A beginning behind the end is none, and is left out. It is the bound that honest nodes get wrong: one that catches
    up signs old sizes late, and where the reader's quorum is one node, a single one is enough. An end that is too early
    takes a quorum of clocks that are wrong.
    """
    lacking = [c.not_before_s for c in checkpoints if c.checkpoint.size <= index and c.not_before_s is not None]
    having = [c.not_after_s for c in checkpoints if c.checkpoint.size > index and c.not_after_s is not None]
    if not having:
        raise UntrustedError("no witness attests a time; the policy's quorum asks for none")
    not_after_s = min(having)
    return Attested(max((time_s for time_s in lacking if time_s <= not_after_s), default=None), not_after_s)


def _content(certificate: Certificate) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "origin": certificate.origin,
        "checkpoint": certificate.checkpoint_note,
        "entries": [
            {"index": p.index, "entry": encode_base64(p.entry), "proof": [encode_base64(h) for h in p.proof]}
            for p in certificate.entries
        ],
        "attestations": [
            {"checkpoint": a.checkpoint_note, "proof": [encode_base64(h) for h in a.proof]}
            for a in certificate.attestations
        ],
    }


def _from_content(content: dict[str, Any]) -> Certificate:
    if content["format"] != FORMAT:
        raise ValueError(f"format {shown(content['format'])} is not {FORMAT}")
    if len(content["entries"]) > ENTRIES_MAX or len(content["attestations"]) > _ATTESTATIONS_MAX:
        raise ValueError("too many entries or attestations")
    entries = tuple(
        ProvenEntry(index=_index(e["index"]), entry=decode_base64(e["entry"]), proof=_hashes(e["proof"]))
        for e in content["entries"]
    )
    attestations = tuple(
        Attestation(checkpoint_note=_text(a["checkpoint"]), proof=_hashes(a["proof"])) for a in content["attestations"]
    )
    return Certificate(
        origin=_text(content["origin"]),
        checkpoint_note=_text(content["checkpoint"]),
        entries=entries,
        attestations=attestations,
    )


def _index(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("an index is not an integer")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is not a string")
    return value


def _hashes(values: list[str]) -> tuple[bytes, ...]:
    if len(values) > _PROOF_HASHES_MAX:
        raise ValueError("a proof is too long")
    return tuple(decode_base64(value) for value in values)
