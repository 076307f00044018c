"""Votes on every claim, once: which one comes next, what to say of it, and until when to try (DESIGN 3, 6.3).

Which claims are open is read from the ledger alone, so a node that was stopped in the middle begins the claim again
and no state of its own can be lost. A few claims are worked on at once, since most of the time goes into fetching, and
only some of them may be one owner's, or point at strangers' servers, which may be as slow as they like: who uploads his
files to the nodes does not wait for those. The verifier takes one at a time, of the owner who used it least. A claim
whose files cannot be had is put behind the others and tried again for a while before the vote says so.

Of a claim on an endpoint the verifier, which has no network, says what to ask, and counts what was answered; this
process asks.

A vote is for ever. What is wrong with this node (a full disk, a verifier that does not start) is no reason for one: the
claim waits, and the node says that it is unhealthy.
"""

import asyncio
import errno
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.download import FetchError
from node.errors import UnavailableError
from node.examining import Examiner, Means, Progress
from node.ledger import LedgerService
from node.logs import fields
from node.turns import Turns
from node.verifier.protocol import Answer, unmeasured
from node.verifier.supervisor import VerifierTroubleError
from node.version import VERSION
from registry.claims import ClaimState
from registry.envelope import seal
from registry.errors import RefusedError
from registry.messages import Vote
from registry.verdict import Outcome, judge

SUBMIT_TIMEOUT_S = 30.0
RETRY_S = 1.0
IDLE_S = 5.0
FAILED_AGAIN_S = 60.0
TROUBLE_AGAIN_S = 10.0
LANES = 4
OWNER_LANES_MAX = 2
OUTSIDE_LANES_MAX = LANES - 1
TOO_LATE = frozenset({"voted_before", "withdrawn", "deadline", "not_a_member"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Who votes: the member's name and its signing key."""

    name: str
    signing: Ed25519PrivateKey


@dataclass(slots=True)
class _Delay:
    """A claim that could not be settled, in monotonic seconds.

    Attributes:
        again_s: not before then is it tried again.
        unreachable_since_s: since when its files cannot be had; None when something else was the matter.
        trouble: what is wrong with this node; None when the matter is the claim's.
    """

    again_s: float = 0.0
    unreachable_since_s: float | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A claim that may yet need a vote.

    Attributes:
        deadline_s: until when.
        owner: whose it is.
        publication_index: how old its publication is.
        is_outside: whether a file of it is on a server that is no node's.
    """

    deadline_s: int
    owner: bytes
    publication_index: int
    is_outside: bool


@dataclass(slots=True)
class _Work:
    """A claim that a lane works on."""

    state: ClaimState
    progress: Progress = Progress.FETCHING


class Voter:
    """Works through the claims that this node has not voted on.

    Args:
        voice: in whose name.
        ledger: where claims come from and votes go.
        means: what claims are examined with.
        unreachable_retry_s: how long an unreachable pointer is tried again.
        clock: POSIX seconds.

    Attributes:
        means: as given.
    """

    def __init__(
        self,
        voice: Voice,
        ledger: LedgerService,
        means: Means,
        *,
        unreachable_retry_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._voice, self._ledger, self.means = voice, ledger, means
        self._unreachable_retry_s, self._clock = unreachable_retry_s, clock
        self._seen = 0
        self._unsettled: dict[bytes, _Waiting] = {}  # oldest claim first
        self._delays: dict[bytes, _Delay] = {}
        self._working: dict[bytes, _Work] = {}
        self._turns = Turns(time.monotonic)
        self._examiner = Examiner(ledger, means, self._turns)

    @property
    def queue(self) -> int:
        """Claims that wait for this node's vote."""
        return len(self._open())

    def progress(self, digest: bytes) -> Progress:
        """How far this node is with a claim of the ledger."""
        if (work := self._working.get(digest)) is not None:
            return work.progress
        state = self._ledger.store.claim_state(digest)
        if state is not None and self._voice.name in state.votes:
            return Progress.VOTED
        self._notice_claims()
        if digest not in self._unsettled or not self._is_open(digest):
            return Progress.CLOSED
        return Progress.WAITING if digest in self._delays else Progress.QUEUED

    @property
    def alarm(self) -> str | None:
        """What is wrong with this node that keeps it from a claim; None when nothing is."""
        return next((delay.trouble for delay in self._delays.values() if delay.trouble), None)

    async def run(self) -> None:
        """Vote until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(self._work())

    async def _work(self) -> None:
        """Settle one claim after another."""
        while True:
            size = self._ledger.store.size  # before the look: what is applied after it ends the wait at once
            state = self._next()
            if state is None:
                await self._ledger.applied.wait_for(size + 1, self._pause_s())
                continue
            digest = state.claim.signed.hash
            self._working[digest] = _Work(state)
            try:
                await self._settle(state)
            finally:
                del self._working[digest]

    def _next(self) -> ClaimState | None:
        """The claim to work on next: of the owner who keeps the fewest lanes busy and used the least.

        Of two owners who used nothing, he comes first whose publication is older: keys cost nothing, so a crowd of new
        ones must not get before those who published before it came.
        """
        self._notice_claims()
        busy = Counter(work.state.claim.signed.signer for work in self._working.values())
        used_s = {waiting.owner: self._turns.used_s(waiting.owner) for waiting in self._unsettled.values()}
        due = self._due(busy)

        def turn(digest: bytes) -> tuple[int, float, int]:
            waiting = due[digest]
            return busy[waiting.owner], used_s[waiting.owner], waiting.publication_index

        first = next((digest for digest in sorted(due, key=turn) if self._is_open(digest)), None)
        return None if first is None else self._ledger.store.claim_state(first)

    def _open(self) -> list[bytes]:
        """Claims that this node has to vote on now, oldest first."""
        self._notice_claims()
        return [digest for digest in list(self._unsettled) if self._is_open(digest)]

    def _notice_claims(self) -> None:
        """Take note of what was claimed since the last look."""
        claims = self._ledger.store.claims()
        for digest in claims[self._seen :]:
            state = self._ledger.store.claim_state(digest)
            if state is not None:
                self._unsettled[digest] = _Waiting(
                    deadline_s=state.deadline_s,
                    owner=state.claim.signed.signer,
                    publication_index=state.publication.index,
                    is_outside=_is_outside(state),
                )
        self._seen = len(claims)

    def _is_open(self, digest: bytes) -> bool:
        """Whether the rules would take a vote of this node now; forgets a claim on which they never will again."""
        if self._clock() > self._unsettled[digest].deadline_s:
            return False  # it is looked at again: the clock may be set back
        state = self._ledger.store.claim_state(digest)
        signing_key = self._voice.signing.public_key().public_bytes_raw()
        member = state.policy.member_of(signing_key) if state else None
        if state is None or member is None or state.withdrawal is not None or member.name in state.votes:
            del self._unsettled[digest]
            return False
        return self._ledger.store.policy.member_of(signing_key) is not None

    def _due(self, busy: Counter[bytes]) -> dict[bytes, _Waiting]:
        """Claims that may be begun; what is known of others is forgotten."""
        now_s, clock_s = time.monotonic(), self._clock()
        takes_outside = sum(_is_outside(work.state) for work in self._working.values()) < OUTSIDE_LANES_MAX
        in_time = {digest: one for digest, one in self._unsettled.items() if clock_s <= one.deadline_s}
        for digest in self._delays.keys() - in_time.keys() - self._working.keys():
            del self._delays[digest]
        return {
            digest: one
            for digest, one in in_time.items()
            if digest not in self._working
            and busy[one.owner] < OWNER_LANES_MAX
            and (takes_outside or not one.is_outside)
            and (digest not in self._delays or self._delays[digest].again_s <= now_s)
        }

    def _pause_s(self) -> float:
        """Until the next delayed claim is due, or a look is due anyway; a lane that gets free looks by itself."""
        now_s = time.monotonic()
        return min([IDLE_S, *(delay.again_s - now_s for delay in self._delays.values() if delay.again_s > now_s)])

    async def _settle(self, state: ClaimState) -> None:
        """Vote on one claim, or put it off."""
        digest = state.claim.signed.hash
        try:
            answer = await self._examine(state)
            if answer is None:
                return
            await self._submit(self._vote(state, answer))
        except (OSError, VerifierTroubleError) as error:
            # The cache is full of the other claims' files: no trouble, they will be gone.
            is_room = isinstance(error, OSError) and error.errno == errno.EDQUOT and len(self._working) > 1
            logger.warning("a claim waits for this node", extra=fields(claim=digest.hex(), why=repr(error)))
            self._put_off(digest, TROUBLE_AGAIN_S, trouble=None if is_room else repr(error))
            return
        except Exception:
            # A stranger's claim must not keep the node from the other claims, whatever it triggers.
            logger.exception("a claim could not be voted on", extra=fields(claim=digest.hex()))
            self._put_off(digest, FAILED_AGAIN_S)
            return
        self._put_off(digest, RETRY_S)  # until the vote is seen here

    def _put_off(self, digest: bytes, pause_s: float, *, trouble: str | None = None) -> None:
        """Try a claim again later, for another reason than its files."""
        self._delays[digest] = _Delay(again_s=time.monotonic() + pause_s, trouble=trouble)

    async def _examine(self, state: ClaimState) -> Answer | None:
        """What this node finds; None when the files may still turn up, or the endpoint."""
        digest = state.claim.signed.hash
        try:
            answer = await self._examiner.examine(state, lambda progress: self._show(digest, progress))
        except FetchError as error:
            if error.may_pass and self._may_wait(digest, error):
                return None
            return unmeasured(Outcome.UNVERIFIABLE, error.reason, str(error))
        logger.info(
            "claim examined",
            extra=fields(claim=digest.hex(), reason=answer.reason or "measured", detail=answer.detail),
        )
        return answer

    def _show(self, digest: bytes, progress: Progress) -> None:
        if digest in self._working:
            self._working[digest].progress = progress

    def _may_wait(self, digest: bytes, error: FetchError) -> bool:
        """Put a claim off whose files cannot be had; False when that has gone on for long enough."""
        now_s, delay = time.monotonic(), self._delays.setdefault(digest, _Delay())
        if delay.unreachable_since_s is None:
            delay.unreachable_since_s = now_s
            logger.info("a claim waits for its files", extra=fields(claim=digest.hex(), why=str(error)))
        delay.again_s = now_s + RETRY_S
        return now_s - delay.unreachable_since_s < self._unreachable_retry_s

    def _vote(self, state: ClaimState, answer: Answer) -> Vote:
        outcome, reason = answer.outcome, answer.reason
        if answer.measurement is not None:
            outcome, reason = judge(answer.measurement, state.policy.thresholds)
        if outcome is None:
            raise ValueError("an answer without a measurement has an outcome")
        return Vote(
            time_s=int(self._clock()),
            claim=state.claim.signed.hash,
            policy=state.policy_hash,
            outcome=outcome,
            reason=reason,
            measurement=answer.measurement,
            device=answer.device,
            software=answer.software or f"wmreg {VERSION}",
        )

    async def _submit(self, vote: Vote) -> None:
        """Submit until the vote is in the log; the same bytes, so that no second vote can come of it."""
        envelope = seal(vote, origin=self._ledger.store.origin, private_keys=[self._voice.signing])
        while True:
            try:
                await self._ledger.submit(envelope, timeout_s=SUBMIT_TIMEOUT_S)
            except UnavailableError as error:
                logger.warning("a vote waits for the ledger", extra=fields(claim=vote.claim.hex(), why=error.code))
                await asyncio.sleep(RETRY_S)
            except RefusedError as error:
                if error.code not in TOO_LATE:
                    raise  # time_skew among them: the claim is examined again, and the vote gets a new time
                return
            else:
                logger.info(
                    "voted", extra=fields(claim=vote.claim.hex(), outcome=str(vote.outcome), reason=vote.reason)
                )
                return


def _is_outside(state: ClaimState) -> bool:
    return not (state.message.model_pointer.startswith("blob:") and state.message.evidence_pointer.startswith("blob:"))
