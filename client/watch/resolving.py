"""What the messages say that an entry is about, by receipts that were checked; and what the votes on a claim add up to.

A vote names its claim by hash. The claim is fetched with its receipt, the policy that judges it likewise, and the votes
before it by a search of all nodes, once; from then on the votes that pass by are counted here. So a verdict is told by
a quorum of votes that are proven to be in the log. Votes of before the start that every node that answers leaves out
would be missed, and the verdict with them; none can be added.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from client.api import Api
from client.searching import Query, search
from registry.claims import ClaimState, Verdict, committed_by, count_votes
from registry.entry import Placed
from registry.errors import ConsistencyError, QuorumError, RegistryError
from registry.messages import Claim, Genesis, PolicyChange, Publication, Vote
from registry.policy import Policy
from registry.receipt import Receipt
from registry.terms import Term, terms_of

SUBJECTS_KEPT, TALLIES_KEPT, POLICIES_KEPT = 1024, 128, 16
_PAGE, _PAGES_MAX = 100, 50
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Kept(OrderedDict[Key, Value], Generic[Key, Value]):
    """The values that were used last, at most so many."""

    def __init__(self, count_max: int) -> None:
        super().__init__()
        self._count_max = count_max

    def find(self, key: Key) -> Value | None:
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value

    def keep(self, key: Key, value: Value) -> Value:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._count_max:
            self.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a message that others are about bears, and its kind."""

    kind: str
    terms: frozenset[Term]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A vote and what it changed.

    Attributes:
        member: the name of the node that voted; None for who is no member by the policy, whose vote counts for nothing.
        state: the claim with all votes up to this one.
        decided: the verdict, if there was none before this vote.
    """

    member: str | None
    state: ClaimState
    decided: Verdict | None


class Resolver:
    """Answers of one ledger, the last ones kept."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._subjects = _Kept[bytes, Subject](SUBJECTS_KEPT)
        self._tallies = _Kept[bytes, ClaimState](TALLIES_KEPT)
        self._policies = _Kept[bytes, Policy](POLICIES_KEPT)

    def note(self, digest: bytes, kind: str, terms: frozenset[Term]) -> None:
        """Remember a message that passed by, since others may be about it."""
        if kind in {Claim.KIND, Publication.KIND}:
            self._subjects.keep(digest, Subject(kind=kind, terms=terms))

    async def subject(self, digest: bytes) -> Subject:
        """The message with this hash; raises QuorumError, see `_fetch`."""
        if (known := self._subjects.find(digest)) is not None:
            return known
        placed, entry = await self._fetch(digest)
        subject = Subject(kind=placed.signed.message.KIND, terms=terms_of(entry, placed.signed))
        return self._subjects.keep(digest, subject)

    async def count(self, placed: Placed, vote: Vote) -> Counted:
        """Count a vote that passes by.

        Raises:
            QuorumError: the nodes that answer do not show the claim, its policy, or the votes before.
        """
        state = self._tallies.find(vote.claim)
        if state is None:
            state = await self._begin(vote, before=placed.index)
        member = state.policy.member_of(placed.signed.signer)
        if member is None:
            return Counted(member=None, state=state, decided=None)
        state.votes[member.name] = _slim(placed, vote)
        # By index, so that a vote that is read twice decides as it did the first time.
        before = count_votes(_until(state, placed.index - 1))
        until = _until(state, placed.index)
        after = count_votes(until)
        is_decided = before.outcome is None and after.outcome is not None
        return Counted(member=member.name, state=until, decided=after if is_decided else None)

    async def _begin(self, vote: Vote, *, before: int) -> ClaimState:
        """The claim that a vote is on, with the votes on it that are in the log before an index."""
        claim = await self._placed(vote.claim, Claim)
        message = claim.signed.message
        if not isinstance(message, Claim):
            raise TypeError("checked by _placed")
        publication = await self._placed(message.publication, Publication)
        state = ClaimState(
            claim=claim,
            publication=publication,
            policy=await self._policy(vote.policy),
            policy_hash=vote.policy,
            committed=committed_by(message, publication.signed),
        )
        for cast_before in await self._votes_on(vote.claim, before):
            member = state.policy.member_of(cast_before.signed.signer)
            if member is not None:
                state.votes[member.name] = cast_before
        return self._tallies.keep(vote.claim, state)

    async def _votes_on(self, claim: bytes, before: int) -> list[Placed]:
        votes: list[Placed] = []
        start: int | None = 0
        for _page in range(_PAGES_MAX):
            if start is None or start >= before:
                break
            found = await search(self._api, Query(value=claim, is_owner=False, start=start, limit=_PAGE))
            for hit in found.hits:
                vote = hit.verified.signed.message
                if isinstance(vote, Vote) and vote.claim == claim and hit.verified.index < before:
                    placed = Placed(
                        index=hit.verified.index, recorded_s=hit.verified.recorded_s, signed=hit.verified.signed
                    )
                    votes.append(_slim(placed, vote))
            start = found.following
        return votes

    async def _policy(self, digest: bytes) -> Policy:
        if (known := self._policies.find(digest)) is not None:
            return known
        placed, _entry = await self._fetch(digest)
        message = placed.signed.message
        if not isinstance(message, Genesis | PolicyChange):
            raise ConsistencyError(f"a vote is by the policy {digest.hex()}, which is a {message.KIND}", code="entries")
        return self._policies.keep(digest, message.policy)

    async def _placed(self, digest: bytes, kind: type[Claim | Publication]) -> Placed:
        placed, _entry = await self._fetch(digest)
        if not isinstance(placed.signed.message, kind):
            raise ConsistencyError(
                f"the log takes the message {digest.hex()} for a {kind.KIND}; it is a {placed.signed.message.KIND}",
                code="entries",
            )
        return placed

    async def _fetch(self, digest: bytes) -> tuple[Placed, bytes]:
        """A message that an entry in the log is about, and so is in the log; its entry's bytes as well.

        Raises:
            QuorumError: no node that answers shows it, whatever each says of it.
        """
        try:
            recorded = await self._api.receipt(digest)
        except (ConsistencyError, QuorumError):
            raise
        except RegistryError as error:
            message = f"no node shows the message {digest.hex()}, which an entry of the log is about: {error}"
            raise QuorumError(message, code="unavailable") from error
        verified = recorded.verified
        placed = Placed(index=verified.index, recorded_s=verified.recorded_s, signed=verified.signed)
        return placed, Receipt.parse(recorded.receipt).entry


def _slim(placed: Placed, vote: Vote) -> Placed:
    """The vote without its numbers, which do not count and are long."""
    return replace(placed, signed=replace(placed.signed, message=replace(vote, measurement=None)))


def _until(state: ClaimState, index: int) -> ClaimState:
    return replace(state, votes={name: placed for name, placed in state.votes.items() if placed.index <= index})
