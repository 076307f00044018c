"""The ledger as the rest of the node sees it: submit a message, wait for sizes (DESIGN 3, last paragraph).

A submission is checked here, ordered (node.ordering), and done when this node has applied it. The raft thread hands
over what it applied and goes on; signing waits for an fsync of its own and happens in a third thread.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from node.errors import InconsistentStateError, UnavailableError
from node.logs import fields
from node.ordering import FAILURES, Failure, Ordering, Proposer
from node.rising import RisingCount
from node.signer import Signer
from node.space import is_disk_full
from node.store import Store
from registry.claims import Verdict
from registry.envelope import SignedMessage
from registry.errors import RefusedError
from registry.messages import PolicyChange
from registry.note import Note
from registry.rules import Applied, Duplicate, Refused
from registry.verdict import Outcome

ReadBarrier = Callable[[float], Awaitable[bool]]

SUBMISSIONS_MAX = 4096
TURN_MESSAGES = 16  # of a batch that are verified before others get their turn
BARRIER_TIMEOUT_S = 2.0
SIGN_RETRY_MIN_S, SIGN_RETRY_MAX_S = 1.0, 60.0
# What no entry that this node has not applied yet could cure. Other refusals are left to the order of Raft: a node that
# lags does not know the latest publications, claims and members.
FINAL_REFUSALS = frozenset(
    {
        *("time_skew", "deadline", "second_genesis", "key_commitment_used", "key_not_bound", "key_mismatch"),
        *("bad_opening", "withdrawn", "voted_before", "contradictory_vote", "own_claim", "challenged_before"),
        *("rotated_key", "key_in_use", "other_policy"),
    }
)

Admit: TypeAlias = Callable[[SignedMessage], None]

logger = logging.getLogger(__name__)


class Proof(Protocol):
    """That what this node stores is the ledger's history; it signs nothing before it is given.

    Attributes:
        waiting: what it waits for, in words.
    """

    waiting: str

    async def give(self) -> None:
        """Return once the history is proved; raises InconsistentStateError when it is another one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A message that is in the log; duplicate if it was there before this submission."""

    index: int
    message_hash: bytes
    recorded_s: int
    duplicate: bool


class LedgerService:
    """Ties the order of Raft, the store and the signer to one event loop.

    Attributes:
        applied: entries that are durable here.
        signed: entries up to which this node has signed checkpoints.
        signing_trouble: why signing fails for the moment; None while it does not.
        refused: entries that were ordered and that the rules then refused, by code, since the start.
    """

    def __init__(self, store: Store, signer: Signer, *, clock: Callable[[], float]) -> None:
        self.store, self.signer, self._clock = store, signer, clock
        self.applied, self.signed = RisingCount(store.size), RisingCount(signer.size)
        self._ordering = Ordering(store, self.now_s)
        self._read_barrier: ReadBarrier | None = None
        self._barrier_again_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signing: asyncio.Task[None] | None = None
        self._undecided: list[bytes] = []
        self._claims_seen, self._decided = 0, Counter[Outcome]()
        self._counted_as_of = (0, 0)  # size and time
        self.refused: Counter[str] = Counter()
        self._is_draining, self._under_way, self._idle = False, 0, asyncio.Event()
        self._idle.set()
        self.signing_trouble: str | None = None

    def start(self, proposer: Proposer, *, proof: Proof | None = None, read_barrier: ReadBarrier | None = None) -> None:
        """Begin to take submissions, and to sign; called in the event loop, before Raft applies anything.

        Args:
            proposer: orders what is submitted.
            proof: of the history that a node which joins was given, by its peers or by a backup.
            read_barrier: waits, for so many seconds at most, until what is stored here is not behind; whether it is.
        """
        self._loop, self._read_barrier = asyncio.get_running_loop(), read_barrier
        self._ordering.start(proposer)
        self._signing = self._loop.create_task(self._sign_all(proof))

    async def stop(self) -> None:
        """Stop signing; Raft is stopped before."""
        if self._signing is not None:
            self._signing.cancel()
            with suppress(asyncio.CancelledError):
                await self._signing

    def refuse_submissions(self) -> None:
        """Take no more: the node stops."""
        self._is_draining = True

    async def drain(self, timeout_s: float) -> None:
        """Wait for the submissions that are under way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

    def on_applied(self) -> None:
        """Take what Raft applied; called in the raft thread after each durable batch."""
        outcomes, size = self.store.take_outcomes(), self.store.size
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, outcomes, size)

    async def submit(self, envelope: bytes, *, timeout_s: float, admit: Admit | None = None) -> Submitted:
        """Get a message into the log; see `submit_all`.

        Raises:
            MalformedError, RefusedError: the bytes or the rules say no.
            UnavailableError: code no_leader, timeout or queue_full; the outcome may be unknown, and submitting the same
                bytes again is safe.
        """
        (outcome,) = await self.submit_all([envelope], timeout_s=timeout_s, admit=admit)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def submit_all(
        self, envelopes: Sequence[bytes], *, timeout_s: float, admit: Admit | None = None
    ) -> list[Submitted | Failure]:
        """Get messages into the log, each by itself.

        Args:
            envelopes: the messages.
            timeout_s: how long to wait for the order.
            admit: called with a message that is new and whose signatures hold; what it raises is its outcome.

        Returns:
            What became of each, in their order; a failure is what `submit` would have raised.
        """
        outcomes: list[Submitted | Failure | bytes] = []  # a hash stands for a message that is to be ordered
        fresh: dict[bytes, bytes] = {}
        try:
            for number, envelope in enumerate(envelopes, start=1):
                try:
                    outcomes.append(await self._take(envelope, admit, fresh))
                except FAILURES as error:
                    outcomes.append(error)
                if number % TURN_MESSAGES == 0:
                    await asyncio.sleep(0)
            ordered = await self._ordering.order(fresh, timeout_s) if fresh else {}
        finally:
            self._leave(len(fresh))
        return [self._outcome(one, ordered[one]) if isinstance(one, bytes) else one for one in outcomes]

    async def _take(self, envelope: bytes, admit: Admit | None, fresh: dict[bytes, bytes]) -> Submitted | bytes:
        """Check a message; one that is to be ordered is added to `fresh`, and its hash returned."""
        signed = self.store.messages.unseal(envelope, origin=self.store.origin)
        known = self._known(signed.hash, duplicate=True)
        if known is not None:
            return known
        if signed.hash in fresh:
            return signed.hash
        await self._check(signed)  # first, or somebody else's refused message, sent again and again, uses up his rate
        if admit is not None:
            admit(signed)
        if self._under_way >= SUBMISSIONS_MAX:
            raise UnavailableError(f"{SUBMISSIONS_MAX} submissions are waiting already", code="queue_full")
        if self._is_draining:
            raise UnavailableError("the node is stopping; submit it to another one", code="stopping")
        fresh[signed.hash] = envelope
        self._under_way += 1
        self._idle.clear()
        return signed.hash

    def _leave(self, count: int) -> None:
        """Messages that were taken are under way no more."""
        self._under_way -= count
        if not self._under_way:
            self._idle.set()

    def _outcome(self, digest: bytes, applied: Applied | Failure) -> Submitted | Failure:
        if isinstance(applied, Exception):
            return applied
        if isinstance(applied, Refused):
            return RefusedError(applied.detail, code=applied.code)
        submitted = self._known(digest, duplicate=isinstance(applied, Duplicate))
        return submitted or UnavailableError("the entry was applied but cannot be read", code="timeout")

    def own_note(self, size: int) -> Note | None:
        """This node's own signatures on the checkpoint of a size; None if it has not signed or not stored that much."""
        return self.signer.note(size, stored_size=self.store.size, read_node=self.store.read_node)

    def now_s(self) -> int:
        """The time by this node's clock, POSIX seconds."""
        return int(self._clock())

    def verdict(self, digest: bytes) -> Verdict:
        """What the votes on a claim add up to, with its deadline by this node's clock.

        Raises:
            ValueError: there is no such claim.
        """
        return self.store.verdict(digest, as_of_s=self.now_s())

    def claims_open(self) -> int:
        """Number of claims without a verdict; one that has a verdict is not looked at again."""
        self._count_verdicts()
        return len(self._undecided)

    def verdicts(self) -> dict[Outcome, int]:
        """Number of claims by the verdict that they had when it was first seen; 0 for an outcome that none has."""
        self._count_verdicts()
        return {outcome: self._decided[outcome] for outcome in Outcome}

    @property
    def submissions_waiting(self) -> int:
        """Messages that were proposed and whose outcome is not known yet."""
        return self._ordering.waiting

    def _count_verdicts(self) -> None:
        """Look at the undecided claims, unless nothing can have changed: anybody may ask, as often as he likes."""
        as_of = (self.store.size, self.now_s())
        if as_of == self._counted_as_of:
            return
        self._counted_as_of = as_of
        claims = self.store.claims()
        outcomes = {digest: self.verdict(digest).outcome for digest in self._undecided + claims[self._claims_seen :]}
        self._claims_seen = len(claims)
        self._undecided = [digest for digest, outcome in outcomes.items() if outcome is None]
        self._decided.update(outcome for outcome in outcomes.values() if outcome is not None)

    async def _check(self, signed: SignedMessage) -> None:
        """Refuse what the rules certainly would: in Raft's journal it would stay for ever all the same.

        Anybody can sign a change of the policy, the largest of messages, and consensus takes them one by one. So a
        node that would refuse one makes sure that it is not behind, and then says so by itself.
        """
        refused = self.store.check(signed, self.now_s())
        if refused is None:
            return
        is_final = refused.code in FINAL_REFUSALS
        if not is_final and isinstance(signed.message, PolicyChange) and await self._is_current():
            refused = None if self.store.find(signed.hash) else self.store.check(signed, self.now_s())
            is_final = True
        if refused is not None and is_final:
            raise RefusedError(refused.detail, code=refused.code)

    async def _is_current(self) -> bool:
        """Whether this node is not behind; one that could not find out does not try again at once."""
        now_s = asyncio.get_running_loop().time()
        if self._read_barrier is None or now_s < self._barrier_again_s:
            return False
        is_current = await self._read_barrier(BARRIER_TIMEOUT_S)
        if not is_current:
            self._barrier_again_s = asyncio.get_running_loop().time() + BARRIER_TIMEOUT_S
        return is_current

    def _known(self, digest: bytes, *, duplicate: bool) -> Submitted | None:
        placed = self.store.find(digest)
        if placed is None:
            return None
        return Submitted(index=placed.index, message_hash=digest, recorded_s=placed.recorded_s, duplicate=duplicate)

    def _deliver(self, outcomes: list[Applied], size: int) -> None:
        for applied in outcomes:
            if isinstance(applied, Refused):
                self.refused[applied.code] += 1
                digest = applied.message_hash.hex() if applied.message_hash else None
                logger.info("entry refused", extra=fields(code=applied.code, message_hash=digest))
            self._ordering.tell(applied)
        if size > self.applied.value:  # a line for each would cost as much as signing each
            logger.info("entries applied", extra=fields(first=self.applied.value, size=size))
        self.applied.raise_to(size)

    async def _sign_all(self, proof: Proof | None) -> None:
        """Sign what is applied; stop for good only when the tree itself is wrong."""
        pause_s = SIGN_RETRY_MIN_S
        while True:
            await self.applied.wait_for(self.signed.value + 1, timeout_s=3600)
            try:
                if proof is not None:
                    self.signing_trouble = proof.waiting
                    await proof.give()
                    proof = None
                await asyncio.to_thread(self.signer.sign_up_to, self.store.size, self.store.read_node)
            except InconsistentStateError as error:
                self.signer.alarm = self.signer.alarm or str(error)
                logger.exception("signing stopped until the next start", extra=fields(why=str(error)))
                return
            except Exception as error:
                # Whatever it is, a node that quietly signs no more would be taken for a healthy one.
                if is_disk_full(error):
                    pause_s = SIGN_RETRY_MIN_S
                if self.signing_trouble != repr(error):
                    logger.exception("signing failed, and is tried again", extra=fields(pause_s=pause_s))
                self.signing_trouble = repr(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, SIGN_RETRY_MAX_S)
            else:
                pause_s, self.signing_trouble = SIGN_RETRY_MIN_S, None
                self.signed.raise_to(self.signer.size)
