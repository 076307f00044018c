"""Votes on every claim, once: fetch, verify, judge, sign, submit (DESIGN 3, 6.3).

Which claims are open is read from the ledger alone, so a node that was stopped in the middle begins the claim again
and no state of its own can be lost. One claim is worked on at a time; one whose files cannot be reached is put
behind the others and tried again for a while before the vote says so.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.errors import UnavailableError
from node.fetch import Fetcher, FetchError
from node.ledger import LedgerService
from node.logs import fields
from node.verifier.protocol import Answer, Job, unmeasured
from node.verifier.supervisor import Verifier
from node.version import VERSION
from registry import merkle
from registry.claims import ClaimState
from registry.envelope import seal
from registry.errors import RefusedError
from registry.messages import Publication, Vote
from registry.verdict import Outcome, judge

SUBMIT_TIMEOUT_S = 30.0
RETRY_S = 1.0
IDLE_S = 60.0
FAILED_AGAIN_S = 60.0
TOO_LATE = frozenset({"voted_before", "withdrawn", "deadline", "not_a_member"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Who votes: the member's name and its signing key."""

    name: str
    signing: Ed25519PrivateKey


@dataclass(slots=True)
class _Delay:
    """A claim that could not be settled: since when, and not before when it is tried again (monotonic seconds)."""

    since_s: float
    again_s: float


class Voter:
    """Works through the claims that this node has not voted on.

    Args:
        voice: in whose name.
        ledger: where claims come from and votes go.
        fetcher: gets the files.
        verifier: runs the watermark library.
        unreachable_retry_s: how long an unreachable pointer is tried again.
        clock: POSIX seconds.
    """

    def __init__(
        self,
        voice: Voice,
        ledger: LedgerService,
        *,
        fetcher: Fetcher,
        verifier: Verifier,
        unreachable_retry_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._voice, self._ledger, self._fetcher, self._verifier = voice, ledger, fetcher, verifier
        self._unreachable_retry_s, self._clock = unreachable_retry_s, clock
        self._settled = 0
        self._delays: dict[bytes, _Delay] = {}

    @property
    def queue(self) -> int:
        """Claims that wait for this node's vote."""
        return len(self._open())

    async def run(self) -> None:
        """Vote until cancelled."""
        while True:
            size = self._ledger.store.size
            for claim in self._due():
                await self._settle(claim)
            if not self._due():
                await self._ledger.applied.wait_for(max(size, self._ledger.store.size) + 1, self._pause_s())

    def _open(self) -> list[bytes]:
        """Claims that this node has still to vote on, oldest first."""
        claims = self._ledger.store.claims()
        while self._settled < len(claims) and not self._has_to_vote(claims[self._settled]):
            self._settled += 1
        return [digest for digest in claims[self._settled :] if self._has_to_vote(digest)]

    def _has_to_vote(self, digest: bytes) -> bool:
        """Whether the rules would still take a vote of this node on a claim."""
        state = self._ledger.store.claim_state(digest)
        if state is None or state.withdrawal is not None or self._clock() > state.deadline_s:
            return False
        signing_key = self._voice.signing.public_key().public_bytes_raw()
        member = state.policy.member_of(signing_key)
        is_member = member is not None and self._ledger.store.policy.member_of(signing_key) is not None
        return is_member and self._voice.name not in state.votes

    def _due(self) -> list[bytes]:
        now_s = time.monotonic()
        return [
            digest for digest in self._open() if digest not in self._delays or self._delays[digest].again_s <= now_s
        ]

    def _pause_s(self) -> float:
        """Until the next delayed claim is due."""
        now_s = time.monotonic()
        return min([max(delay.again_s - now_s, 0.01) for delay in self._delays.values()], default=IDLE_S)

    async def _settle(self, digest: bytes) -> None:
        """Vote on one claim, or put it off."""
        state = self._ledger.store.claim_state(digest)
        if state is None:
            return
        try:
            answer = await self._examine(state)
            if answer is None:
                return
            await self._submit(self._vote(state, answer))
        except Exception:
            # A stranger's claim must not keep the node from the other claims, whatever it triggers.
            logger.exception("a claim could not be voted on", extra=fields(claim=digest.hex()))
            self._delay(digest, FAILED_AGAIN_S)
            return
        self._delays.pop(digest, None)
        claim = state.message
        self._fetcher.release(claim.model_sha256)
        self._fetcher.release(claim.evidence_sha256)

    def _delay(self, digest: bytes, pause_s: float) -> float:
        """Put a claim off; return for how many seconds it has been."""
        now_s = time.monotonic()
        delay = self._delays.setdefault(digest, _Delay(now_s, now_s))
        delay.again_s = now_s + pause_s
        return now_s - delay.since_s

    async def _examine(self, state: ClaimState) -> Answer | None:
        """What this node finds; None when the files may still turn up."""
        claim, policy = state.message, state.policy
        try:
            evidence = await self._fetcher.fetch(
                claim.evidence_pointer, claim.evidence_sha256, bytes_max=policy.evidence_bytes_max
            )
            model = await self._fetcher.fetch(claim.model_pointer, claim.model_sha256, bytes_max=policy.model_bytes_max)
        except FetchError as error:
            if error.reason == "unreachable" and self._may_wait(state.claim.signed.hash, error):
                return None
            return unmeasured(Outcome.UNVERIFIABLE, error.reason, str(error))
        answer = await self._verifier.verify(self._job(state, model=model, evidence=evidence))
        logger.info(
            "claim examined",
            extra=fields(claim=state.claim.signed.hash.hex(), reason=answer.reason or "measured", detail=answer.detail),
        )
        return answer

    def _may_wait(self, digest: bytes, error: FetchError) -> bool:
        if digest not in self._delays:
            logger.info("a claim waits for its files", extra=fields(claim=digest.hex(), why=str(error)))
        return self._delay(digest, RETRY_S) < self._unreachable_retry_s

    def _job(self, state: ClaimState, *, model: Path, evidence: Path) -> Job:
        claim = state.message
        publication = cast("Publication", state.publication.signed.message)
        policy = state.policy
        return Job(
            model_path=str(model.absolute()),
            model_sha256=claim.model_sha256,
            model_bytes_max=policy.model_bytes_max,
            evidence_path=str(evidence.absolute()),
            evidence_sha256=claim.evidence_sha256,
            evidence_bytes_max=policy.evidence_bytes_max,
            scheme=publication.scheme,
            head_commitment=state.committed.head,
            info_commitment=state.committed.info,
            watermark_key=claim.binding.watermark_key,
            control_seed=control_seed(self._ledger.store.entry(state.claim.index), state.claim.signed.hash),
            permutations=policy.thresholds.permutations_min,
            controls=policy.thresholds.controls_min,
            gamma_permille=policy.thresholds.gamma_permille,
        )

    def _vote(self, state: ClaimState, answer: Answer) -> Vote:
        outcome, reason = answer.outcome, answer.reason
        if answer.measurement is not None:
            outcome, reason = judge(answer.measurement, state.policy.thresholds)
        if outcome is None:
            raise ValueError("an answer without a measurement has an outcome")
        return Vote(
            time_s=int(self._clock()),
            claim=state.claim.signed.hash,
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


def control_seed(entry: bytes, claim: bytes) -> bytes:
    """Where the controls of a claim come from: the claim's entry, with the time at which a node recorded it.

    All nodes use the same controls, and an auditor can draw them again; the owner could not know them when he
    published.

    Source: SCHEMES 4.5, "seeds = H(log entry hash ‖ OV hash ‖ j)"; the scheme adds j.
    """
    return hashlib.sha256(b"wmreg/v1/control-seed\0" + merkle.leaf_hash(entry) + claim).digest()
