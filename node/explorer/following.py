"""What follows from an entry: of a publication its claims and whatever was said of it, of a claim its votes.

Strangers can make any number of objections and rivals, and each list shows a limited number of them and says how many
there are, or leads to the search.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import cast

from node.api.render import SHOWN_MAX
from node.api.search import reach_all
from node.api.services import Services
from node.explorer.bounds import Bounds, bounds_of
from node.explorer.plot import Plot, plot_of
from node.store import Store
from registry.claims import ClaimState, Verdict
from registry.endpoint import endpoint_of
from registry.entry import Placed
from registry.errors import MalformedError
from registry.messages import Challenge, Claim, Genesis, PolicyChange, Publication, Vote, Withdrawal
from registry.schemes import statistic_of
from registry.verdict import CERTIFIED, Measurement, Statistic

FOLLOWING_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownVote:
    """A node's vote, and the entry in which it stands."""

    member: str
    placed: Placed
    vote: Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClaim:
    """A claim, what its votes add up to, and who else claims.

    Attributes:
        silent: members who have not voted.
        rivals: other owners' verified claims on the same model, at most SHOWN_MAX.
        challenges: objections, at most SHOWN_MAX.
        statistic: what is counted of the mark; None where neither its scheme nor the votes tell.
        bounds: by which the votes' numbers are judged.
        plot: None while no vote has numbers.
    """

    state: ClaimState
    verdict: Verdict
    votes: tuple[ShownVote, ...]
    silent: tuple[str, ...]
    rivals: tuple[ClaimState, ...]
    challenges: tuple[Placed, ...]
    challenges_total: int
    statistic: Statistic | None
    bounds: tuple[Bounds, ...]
    plot: Plot | None

    @property
    def measured(self) -> tuple[Measurement, ...]:
        """The numbers of those votes that have any."""
        return tuple(shown.vote.measurement for shown in self.votes if shown.vote.measurement)

    @property
    def is_integrity(self) -> bool:
        """Whether the claim asks for a change of the model, and not whose it is."""
        return self.statistic is Statistic.INTEGRITY

    @property
    def mistake(self) -> str | None:
        """Why no node asks the endpoint that the claim names: spelling, or hash_mismatch; None for any other claim."""
        try:
            endpoint_of(self.state.message.model_pointer, self.state.message.model_sha256)
        except MalformedError as error:
            return "hash_mismatch" if error.code == "hash_mismatch" else "spelling"
        return None

    @property
    def is_certified(self) -> bool:
        """Whether nodes make a certificate of it."""
        return self.verdict.outcome in CERTIFIED and self.verdict.superseded_by is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """Later entries that name a message.

    Attributes:
        claims: on a publication.
        challenges: in the name of a publication, against others' claims.
        withdrawals: of it.
        has_more: whether there are more than are shown.
    """

    claims: tuple[ShownClaim, ...] = ()
    challenges: tuple[Placed, ...] = ()
    withdrawals: tuple[Placed, ...] = ()
    has_more: bool = False


def show_claim(node: Services, digest: bytes) -> ShownClaim:
    """A claim that is in the ledger, with its votes.

    Raises:
        ValueError: there is no such claim.
    """
    verdict, state = node.ledger.verdict(digest), node.ledger.store.claim_state(digest)
    if state is None:
        raise ValueError(f"no claim {digest.hex()}")
    votes = tuple(_show_vote(member, placed) for member, placed in sorted(state.votes.items()))
    measured = [shown.vote.measurement for shown in votes if shown.vote.measurement]
    published = cast("Publication", state.publication.signed.message)
    rivals = (node.ledger.store.claim_state(rival) for rival in verdict.rivals[:SHOWN_MAX])
    return ShownClaim(
        state=state,
        verdict=verdict,
        votes=votes,
        silent=tuple(member.name for member in state.policy.members if member.name not in state.votes),
        rivals=tuple(rival for rival in rivals if rival is not None),
        challenges=tuple(islice(state.challenges.values(), SHOWN_MAX)),
        challenges_total=len(state.challenges),
        statistic=statistic_of(published.scheme, [one.statistic for one in measured]),
        bounds=bounds_of(measured, state.policy.thresholds),
        plot=plot_of({shown.member: shown.vote for shown in votes}, state.policy.thresholds),
    )


async def mentions_of(node: Services, placed: Placed) -> Mentions:
    """What later entries say of a message.

    Raises:
        UnavailableError: code indexing, the log cannot be searched yet.
    """
    await reach_all(node)
    store = node.ledger.store
    found = node.index.find(placed.signed.hash, is_signer=False, start=placed.index + 1, limit=FOLLOWING_MAX + 1)
    entries = [store.placed(store.entry(index)) for index, _ in found[:FOLLOWING_MAX]]
    return Mentions(
        claims=tuple(show_claim(node, one.signed.hash) for one in entries if isinstance(one.signed.message, Claim)),
        challenges=tuple(one for one in entries if isinstance(one.signed.message, Challenge)),
        withdrawals=tuple(one for one in entries if isinstance(one.signed.message, Withdrawal)),
        has_more=len(found) > FOLLOWING_MAX,
    )


def bounds_of_vote(node: Services, vote: Vote) -> tuple[Bounds, ...]:
    """By which a vote's numbers are judged; none where it has none, or they are of integrity."""
    state = node.ledger.store.claim_state(vote.claim)
    if state is None or vote.measurement is None:
        return ()
    return bounds_of([vote.measurement], state.policy.thresholds)


def names_of(store: Store) -> Mapping[bytes, str]:
    """The names of all members, present and past, by their signing keys."""
    placed = [store.find(digest) for digest in store.policy_hashes]
    messages = [one.signed.message for one in placed if one is not None]
    policies = [message.policy for message in messages if isinstance(message, Genesis | PolicyChange)]
    return {member.signing_key: member.name for policy in policies for member in policy.members}


def _show_vote(member: str, placed: Placed) -> ShownVote:
    vote = cast("Vote", placed.signed.message)
    return ShownVote(member=member, placed=placed, vote=vote)
