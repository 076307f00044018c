"""A node's first and its later steps among the members, beside its other work.

A node that joins replays the whole ledger, entry by entry, through the rules, like every other one. Before it signs its
first checkpoint it also compares its tree with what a quorum of the others has signed: whoever fed it the entries could
have fed it another history, and its own signature would be the first one on it.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from node.gather import Gatherer
from node.ledger import LedgerService
from node.logs import fields
from node.membership import Membership, Standing
from node.store import Store
from registry.errors import QuorumError
from registry.policy import Policy

WATCH_PERIOD_S = 30.0
ALONE_S = 3.0  # without a leader for so long, a node asks whether the others have changed the policy
POLL_S = 0.5
KEEP_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


class JoinProof:
    """That a quorum of the others has signed the tree in which this node is a member.

    Args:
        name: this node's.
        ledger: what it has replayed.
        gatherer: asks the others; set before the proof is asked for.
    """

    waiting = "joins the ledger: signs when a quorum of the others has confirmed its history"

    def __init__(self, name: str, ledger: LedgerService, gatherer: Gatherer) -> None:
        self._name, self._ledger, self._gatherer = name, ledger, gatherer

    async def give(self) -> None:
        """Return once it is confirmed; a quorum that has signed another tree confirms nothing, and is logged."""
        store = self._ledger.store
        while True:
            joined = joined_at(self._name, store)
            if joined is not None:
                size, before = joined
                with suppress(QuorumError):
                    await self._gatherer.confirm(size, [before, store.policy])
                    break
            await self._ledger.applied.wait_for(store.size + 1, timeout_s=POLL_S)
        logger.info("history confirmed", extra=fields(size=size))


def joined_at(name: str, store: Store) -> tuple[int, Policy] | None:
    """The size at which a node became a member, and the policy before; None for a founding member or none at all."""
    hashes = store.policy_hashes
    for before, after in itertools.pairwise(hashes):
        old, placed = store.policy_set_by(before), store.find(after)
        if placed is not None and _names(store.policy_set_by(after), name) and not _names(old, name):
            return placed.index + 1, old
    return None


async def notice_changes(
    membership: Membership, session: aiohttp.ClientSession, has_leader: Callable[[], bool], stop: asyncio.Event
) -> None:
    """Ask the others when nothing is heard of a leader, and stop the node once it is no member any more."""
    alone_s = 0.0
    while membership.standing is not Standing.LEFT:
        await asyncio.sleep(POLL_S)
        alone_s = 0.0 if has_leader() else alone_s + POLL_S
        if alone_s >= ALONE_S:
            await membership.ask(session)
            alone_s = 0.0
        membership.caught_up()
    stop.set()


async def keep_notes(ledger: LedgerService, gatherer: Gatherer) -> None:
    """Keep the checkpoints at changes of the policy whole, with the signatures of those who leave later.

    By them a reader with an older policy file gets to the next one.
    """
    kept: set[bytes] = set()
    while True:
        store = ledger.store
        for digest in store.policy_hashes:
            placed = store.find(digest)
            if digest not in kept and placed is not None and await _gather(gatherer, placed.index + 1):
                kept.add(digest)
        await ledger.applied.wait_for(store.size + 1, timeout_s=WATCH_PERIOD_S)
        await asyncio.sleep(POLL_S)


async def _gather(gatherer: Gatherer, size: int) -> bool:
    try:
        await gatherer.quorum_note(size, timeout_s=KEEP_TIMEOUT_S)
    except QuorumError:
        return False
    return True


def _names(policy: Policy, name: str) -> bool:
    return any(member.name == name for member in policy.members)
