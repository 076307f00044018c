"""A claim in the ledger: what was committed to, the votes on it, and what they add up to (DESIGN 6.3).

A claim is judged by the policy that was in force when it was made, whatever the members agree on later: its members,
its quorum, its thresholds, its deadline.
"""

from dataclasses import dataclass, field
from typing import cast

from registry import commitments, signing
from registry.commitments import Committed, verify_opening
from registry.entry import Placed
from registry.envelope import SignedMessage
from registry.errors import RefusedError
from registry.messages import Claim, Publication, Vote
from registry.policy import Policy
from registry.verdict import Outcome, judge
from registry.watermark_key import verify_binding

RIVALS_SHOWN_MAX = 32


@dataclass(slots=True, kw_only=True)
class ClaimState:
    """A claim and all that the ledger says about it.

    Attributes:
        policy: the one that was in force when the claim was made.
        policy_hash: of the message that set it.
        committed: the commitments to the watermark that it reveals.
        votes: by member name.
        challenges: one of each owner, by the key under which he first appeared.
        withdrawal: of the claim or of its publication, whichever came first.
    """

    claim: Placed
    publication: Placed
    policy: Policy
    policy_hash: bytes
    committed: Committed
    votes: dict[str, Placed] = field(default_factory=dict)
    challenges: dict[bytes, Placed] = field(default_factory=dict)
    withdrawal: Placed | None = None

    @property
    def message(self) -> Claim:
        """The claim itself."""
        return cast("Claim", self.claim.signed.message)

    @property
    def deadline_s(self) -> int:
        """Until when votes on it are recorded, POSIX seconds."""
        return self.claim.recorded_s + self.policy.claim_deadline_s

    @property
    def order(self) -> tuple[int, int]:
        """What decides between competing claims: the place of the publication in the log, then the claim's."""
        return self.publication.index, self.claim.index

    def votes_for(self, outcome: Outcome) -> dict[str, Vote]:
        """The votes that say this, by member name."""
        votes = ((name, cast("Vote", placed.signed.message)) for name, placed in self.votes.items())
        return {name: vote for name, vote in votes if vote.outcome is outcome}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the votes on a claim add up to, and what else there is to know.

    Attributes:
        outcome: None while the claim is open.
        reason: the reason that most of the agreeing votes give; or no_quorum when all voted without agreeing, deadline,
            withdrawn.
        members: names of the nodes that agree.
        superseded_by: hash of another owner's verified claim on the same model, whose publication is older.
        rivals: hashes of verified claims of other owners on the same model, at most RIVALS_SHOWN_MAX, the one that goes
            before all others first: the marks of several owners are in it. The ledger knows who published first. Who
            trained the model, it does not know.
        rivals_total: how many such claims there are, with those that are not named.
        challenges: hashes of the objections to the claim.
    """

    outcome: Outcome | None
    reason: str
    members: tuple[str, ...]
    superseded_by: bytes | None = None
    rivals: tuple[bytes, ...] = ()
    rivals_total: int = 0
    challenges: tuple[bytes, ...] = ()


def committed_by(claim: Claim, publication: SignedMessage) -> Committed:
    """The commitments to the watermark that a claim reveals; `check_revealed_key` says whether it may."""
    if claim.opening is not None:
        return claim.opening.committed
    return cast("Publication", publication.message).committed


def check_revealed_key(
    claim: Claim, publication: SignedMessage, *, origin: str, is_signed: signing.IsSigned = signing.is_signed
) -> None:
    """Check that a claim's key is bound to the publication's signer and is the one that was committed to.

    Raises:
        RefusedError: code key_not_bound, key_mismatch or bad_opening.
    """
    verify_binding(claim.binding, origin=origin, owner=publication.signer, is_signed=is_signed)
    if claim.opening is not None:
        verify_opening(claim.opening, cast("Publication", publication.message).further)
    if commitments.key_commitment(claim.binding.watermark_key) != committed_by(claim, publication).key:
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


def count_votes(state: ClaimState, *, as_of_s: int | None = None) -> Verdict:
    """Add up the votes on a claim; other claims on its model are not looked at.

    Args:
        state: the claim.
        as_of_s: a time that the reader trusts, POSIX seconds; without one no claim is past its deadline.
    """
    if state.withdrawal is not None:
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason="withdrawn", members=())
    for outcome in Outcome:
        agreeing = state.votes_for(outcome)
        if len(agreeing) >= state.policy.quorum:
            reasons = sorted(vote.reason for vote in agreeing.values())
            return Verdict(outcome=outcome, reason=max(reasons, key=reasons.count), members=tuple(sorted(agreeing)))
    if len(state.votes) == len(state.policy.members):
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason="no_quorum", members=())
    if as_of_s is not None and as_of_s > state.deadline_s:
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason="deadline", members=())
    return Verdict(outcome=None, reason="open", members=tuple(sorted(state.votes)))
