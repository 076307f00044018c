"""The rulebook: what the ledger accepts, and what follows from what it accepted (DESIGN 3, 4).

`Ledger.apply` is total and deterministic: any bytes lead to Accepted, Duplicate or Refused, never to an exception,
and it reads no clock. All nodes apply the same commands in the same order and so hold the same state; an auditor
replays the entries and must arrive there too.

* A message is accepted once; the same message again names its first index.
* The author's time must be within the policy's skew of the time at which a node recorded it. A change of the policy
  may be recorded later, since its signatures take time to collect.
* A publication's key commitment is new for its owner. It is not reserved against others: a copied commitment
  is worthless, since the key behind it is bound to its maker, and reserving would let a front-runner block him.
* A claim names an older publication by the same owner, and reveals the bound key that was committed to.
* A member votes once on a claim, before its deadline, and only what his own numbers say. He must be a member by the
  policy that judges the claim and by the one in force.
* An owner may move to another signing key, and withdraw what he published or claimed; nothing is ever erased.
* Members change the policy by a quorum, one member joining or leaving at a time, so that any majority of the members
  before shares a node with any majority of those after. It is in force from its entry on. Names are never given anew.
* Of verified claims on one model by several owners, the one with the older publication prevails, by the order of the
  log and never by clocks.
"""

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeAlias, cast

from registry import envelope, signing
from registry.claims import (
    RIVALS_SHOWN_MAX,
    ClaimState,
    Verdict,
    check_revealed_key,
    check_vote_numbers,
    committed_by,
    count_votes,
)
from registry.entry import Entry, Placed
from registry.envelope import SignedMessage, Unseal, message_hash
from registry.errors import RefusedError, RegistryError
from registry.messages import (
    Challenge,
    Claim,
    Genesis,
    Message,
    PolicyChange,
    Publication,
    Rotation,
    Vote,
    Withdrawal,
)
from registry.owners import Owners
from registry.policy import Member, Policy
from registry.policy_change import SIGNING_S_MAX, Names, SetPolicy, check_change, check_genesis
from registry.verdict import Outcome


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


class Ledger:
    """State of one ledger, built by applying its entries in order.

    Args:
        is_signed: checks one signature; an auditor may pass one that answers from many checked at once.
        unseal: reads one envelope; a node may pass one that remembers. By default all is read anew, with `is_signed`.
    """

    def __init__(self, is_signed: signing.IsSigned = signing.is_signed, *, unseal: Unseal | None = None) -> None:
        self._is_signed, self._unseal = is_signed, unseal or partial(envelope.unseal, is_signed=is_signed)
        self.size = 0
        self.origin = ""
        self._policy: Policy | None = None
        self._policy_hashes: list[bytes] = []
        self._owners, self._names = Owners(), Names()
        self._placed: dict[bytes, Placed] = {}
        self._log: list[Placed] = []  # the same, by index
        self._key_commitments: set[tuple[bytes, bytes]] = set()
        self._withdrawals: dict[bytes, Placed] = {}
        self._claims: dict[bytes, ClaimState] = {}
        self._verified_on: dict[bytes, list[ClaimState]] = {}
        self._verified_by: Counter[tuple[bytes, bytes]] = Counter()
        self._claims_by: dict[bytes, list[bytes]] = {}

    @property
    def policy(self) -> Policy:
        """The policy in force.

        Raises:
            ValueError: the ledger has no genesis yet.
        """
        if self._policy is None:
            raise ValueError("the ledger is empty: it has no policy yet")
        return self._policy

    @property
    def policy_hashes(self) -> list[bytes]:
        """Hashes of the messages that set a policy, from the genesis to the one in force."""
        return list(self._policy_hashes)

    def apply(self, raw: bytes) -> Applied:
        """Apply one command, the bytes of an entry. Never raises."""
        digest = None
        try:
            entry = Entry.decode(raw)
            digest = message_hash(entry.envelope)
            if digest in self._placed:
                return Duplicate(self._placed[digest].index, digest)
            signed = self._unseal(entry.envelope, origin=self.origin if self.size else None)
            self._check(signed, entry.recorded_s)
        except RegistryError as error:
            return Refused(error.code, str(error), digest)
        placed = Placed(index=self.size, recorded_s=entry.recorded_s, signed=signed)
        self._admit(placed)
        self.size += 1
        return Accepted(placed.index, signed.hash)

    def check(self, signed: SignedMessage, recorded_s: int) -> Refused | None:
        """Why `apply` would refuse a message if it came now, recorded at this time; None if it would not.

        Args:
            signed: unsealed for this ledger's origin.
            recorded_s: POSIX seconds.
        """
        try:
            if signed.hash not in self._placed:
                self._check(signed, recorded_s)
        except RegistryError as error:
            return Refused(error.code, str(error), signed.hash)
        return None

    def find(self, digest: bytes) -> Placed | None:
        """The accepted message with this hash, or None."""
        return self._placed.get(digest)

    def placed(self, start: int, stop: int) -> list[Placed]:
        """The accepted messages of [start, stop) that exist, in the order of the log."""
        return self._log[start:stop]

    def claim_state(self, digest: bytes) -> ClaimState | None:
        """The claim with this hash and its votes, or None."""
        return self._claims.get(digest)

    def claims(self) -> list[bytes]:
        """Hashes of all claims, oldest first."""
        return list(self._claims)

    def moves_to(self, key: bytes) -> list[Placed]:
        """The rotations by which an owner came to this signing key, the last first."""
        return self._owners.moves_to(key)

    def verdict(self, digest: bytes, *, as_of_s: int | None = None) -> Verdict:
        """What the votes on a claim add up to so far, beside the other claims on its model.

        Args:
            digest: names the claim.
            as_of_s: a time that the reader trusts; without one no claim is past its deadline.

        Raises:
            ValueError: there is no such claim.
        """
        state = self._claims.get(digest)
        if state is None:
            raise ValueError(f"there is no claim {digest.hex()}")
        counted = count_votes(state, as_of_s=as_of_s)
        challenges = tuple(challenge.signed.hash for challenge in state.challenges.values())
        if counted.outcome is not Outcome.VERIFIED:
            return replace(counted, challenges=challenges) if challenges else counted
        rivals = self._rivals(state)
        older = [rival.claim.signed.hash for rival in rivals if rival.order < state.order]
        model, owner = state.message.model_sha256, self._owner_of(state.claim)
        return replace(
            counted,
            superseded_by=older[0] if older else None,
            rivals=tuple(rival.claim.signed.hash for rival in rivals),
            rivals_total=len(self._verified_on[model]) - self._verified_by[model, owner],
            challenges=challenges,
        )

    def _rivals(self, state: ClaimState) -> list[ClaimState]:
        """The first verified claims of other owners on the same model, the one that goes before all others first."""
        owner, verified = self._owner_of(state.claim), self._verified_on.get(state.message.model_sha256, ())
        others = (other for other in verified if self._owner_of(other.claim) != owner)
        return list(islice(others, RIVALS_SHOWN_MAX))

    def _owner_of(self, placed: Placed) -> bytes:
        """Identity of a message's signer, the same for all keys that he has moved to."""
        return self._owners.first_key(placed.signed.signer)

    # What may enter

    def _check(self, signed: SignedMessage, recorded_s: int) -> None:
        if isinstance(signed.message, Genesis):
            self._check_genesis(signed.message, signed.signers)
            return
        self._check_time(signed.message, recorded_s)
        match signed.message:
            case PolicyChange() as change:
                self._check_policy_change(change, signed.signers)
            case Vote() as vote:
                self._check_vote(vote, signed.signer, recorded_s)
            case Rotation() as rotation:
                if self.policy.member_of(rotation.old_key):
                    raise RefusedError("a member's key is changed by a policy", code="key_in_use")
                self._owners.check_rotation(rotation, signed.signers)
            case _:
                self._owners.check_speaks(signed.signer)
                self._check_owners_message(signed)

    def _check_time(self, message: Message, recorded_s: int) -> None:
        skew_s = self.policy.time_skew_s
        late_s_max = SIGNING_S_MAX if isinstance(message, PolicyChange) else skew_s
        if not -skew_s <= recorded_s - message.time_s <= late_s_max:
            raise RefusedError(
                f"signed at {message.time_s} but recorded at {recorded_s}: more than {skew_s} s too early or "
                f"{late_s_max} s too late",
                code="time_skew",
            )

    def _check_owners_message(self, signed: SignedMessage) -> None:
        match signed.message:
            case Publication(key_commitment=commitment):
                if (self._owners.first_key(signed.signer), commitment) in self._key_commitments:
                    raise RefusedError("this owner published this key commitment before", code="key_commitment_used")
            case Claim() as claim:
                self._check_claim(claim, signed.signer)
            case Withdrawal() as withdrawal:
                self._check_withdrawal(withdrawal, signed.signer)
            case Challenge() as challenge:
                self._check_challenge(challenge, signed.signer)

    def _check_genesis(self, genesis: Genesis, signers: tuple[bytes, ...]) -> None:
        if self.size:
            raise RefusedError("a ledger has one genesis", code="second_genesis")
        check_genesis(genesis, signers)

    def _check_policy_change(self, change: PolicyChange, signers: tuple[bytes, ...]) -> None:
        in_force = SetPolicy(origin=self.origin, policy=self.policy, hash=self._policy_hashes[-1])
        check_change(change, signers, in_force=in_force)
        self._names.check(change.policy.members)
        for member in change.policy.members:
            if self.policy.member_of(member.signing_key) is None:
                self._owners.check_speaks(member.signing_key)

    def _check_claim(self, claim: Claim, signer: bytes) -> None:
        publication = self._publication_of(claim.publication, signer)
        if claim.publication in self._withdrawals:
            raise RefusedError("the publication was withdrawn", code="withdrawn")
        check_revealed_key(claim, publication.signed, origin=self.origin, is_signed=self._is_signed)

    def _check_withdrawal(self, withdrawal: Withdrawal, signer: bytes) -> None:
        target = self._placed.get(withdrawal.target)
        if target is None or not isinstance(target.signed.message, Publication | Claim):
            raise RefusedError(f"no publication and no claim {withdrawal.target.hex()}", code="unknown_target")
        if self._owner_of(target) != self._owners.first_key(signer):
            raise RefusedError("only its author withdraws a message", code="not_the_publisher")
        if withdrawal.target in self._withdrawals:
            raise RefusedError("the message was withdrawn before", code="withdrawn")

    def _check_challenge(self, challenge: Challenge, signer: bytes) -> None:
        state = self._claims.get(challenge.claim)
        if state is None:
            raise RefusedError(f"no claim {challenge.claim.hex()}", code="unknown_claim")
        self._publication_of(challenge.publication, signer)
        if challenge.publication in self._withdrawals:
            raise RefusedError("the publication was withdrawn", code="withdrawn")
        if self._owner_of(state.claim) == self._owners.first_key(signer):
            raise RefusedError("nobody challenges his own claim; it can be withdrawn", code="own_claim")
        if self._owners.first_key(signer) in state.challenges:
            raise RefusedError("this owner has challenged the claim already", code="challenged_before")

    def _publication_of(self, digest: bytes, signer: bytes) -> Placed:
        """The publication with this hash, which must be the signer's."""
        placed = self._placed.get(digest)
        if placed is None or not isinstance(placed.signed.message, Publication):
            raise RefusedError(f"no publication {digest.hex()}", code="unknown_publication")
        if self._owner_of(placed) != self._owners.first_key(signer):
            raise RefusedError("the publication is somebody else's", code="not_the_publisher")
        return placed

    def _check_vote(self, vote: Vote, signer: bytes, recorded_s: int) -> None:
        state = self._claims.get(vote.claim)
        if self.policy.member_of(signer) is None:
            raise RefusedError("only members vote", code="not_a_member")
        if state is None:
            raise RefusedError(f"no claim {vote.claim.hex()}", code="unknown_claim")
        member = state.policy.member_of(signer)
        if member is None:
            raise RefusedError("only who was a member when the claim was made votes on it", code="not_a_member")
        if member.name in state.votes:
            raise RefusedError("this member has voted on this claim", code="voted_before")
        if vote.policy != state.policy_hash:
            raise RefusedError("the vote is by another policy than the claim's", code="other_policy")
        if state.withdrawal is not None:
            raise RefusedError("the claim was withdrawn", code="withdrawn")
        if recorded_s > state.deadline_s:
            raise RefusedError("the claim is past its deadline", code="deadline")
        check_vote_numbers(vote, state.policy)

    # What becomes of it

    def _admit(self, placed: Placed) -> None:
        """Record an accepted message; nothing here can fail."""
        signed = placed.signed
        self._placed[signed.hash] = placed
        self._log.append(placed)
        for signer in signed.signers:
            self._owners.note(signer)
        match signed.message:
            case Genesis(origin=origin, policy=policy):
                self.origin = origin
                self._set_policy(policy, signed.hash)
            case PolicyChange(policy=policy):
                self._set_policy(policy, signed.hash)
            case Publication(key_commitment=commitment):
                self._key_commitments.add((self._owners.first_key(signed.signer), commitment))
            case Claim() as claim:
                self._admit_claim(claim, placed)
            case Vote() as vote:
                self._admit_vote(vote, placed)
            case Rotation() as rotation:
                self._owners.rotate(rotation, placed)
            case Withdrawal(target=target):
                self._withdraw(target, placed)
            case Challenge(claim=digest):
                self._claims[digest].challenges[self._owner_of(placed)] = placed

    def _set_policy(self, policy: Policy, digest: bytes) -> None:
        self._policy = policy
        self._policy_hashes.append(digest)
        self._names.note(policy.members)
        for member in policy.members:
            self._owners.note(member.signing_key)

    def _admit_claim(self, claim: Claim, placed: Placed) -> None:
        publication = self._placed[claim.publication]
        committed = committed_by(claim, publication.signed)
        digest = placed.signed.hash
        self._claims[digest] = ClaimState(
            claim=placed,
            publication=publication,
            policy=self.policy,
            policy_hash=self._policy_hashes[-1],
            committed=committed,
        )
        self._claims_by.setdefault(claim.publication, []).append(digest)

    def _admit_vote(self, vote: Vote, placed: Placed) -> None:
        state = self._claims[vote.claim]
        state.votes[cast("Member", state.policy.member_of(placed.signed.signer)).name] = placed
        if vote.outcome is Outcome.VERIFIED and len(state.votes_for(Outcome.VERIFIED)) == state.policy.quorum:
            model = state.message.model_sha256
            insort(self._verified_on.setdefault(model, []), state, key=lambda one: one.order)
            self._verified_by[model, self._owner_of(state.claim)] += 1

    def _withdraw(self, target: bytes, placed: Placed) -> None:
        self._withdrawals[target] = placed
        for digest in (target, *self._claims_by.get(target, ())):
            state = self._claims.get(digest)
            if state is not None and state.withdrawal is None:
                state.withdrawal = placed
                self._forget_verified(state)

    def _forget_verified(self, state: ClaimState) -> None:
        """A claim that was taken back is nobody's rival."""
        model = state.message.model_sha256
        verified = self._verified_on.get(model, [])
        place = bisect_left(verified, state.order, key=lambda one: one.order)
        if place < len(verified) and verified[place] is state:
            del verified[place]
            self._verified_by[model, self._owner_of(state.claim)] -= 1
