"""Examines one claim: fetch its files, have them verified, and what cannot be verified from files, ask.

Of a claim on an endpoint the verifier, which has no network, says what to ask, and counts what was answered; this
process asks.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypeVar

from node.claim_files import ClaimFiles, fetch_files
from node.download import FetchError
from node.endpoint.asking import EndpointClient
from node.fetch import Fetcher
from node.jobs import job_of
from node.ledger import LedgerService
from node.turns import Turns
from node.verifier.protocol import Answer, Job, unmeasured
from node.verifier.supervisor import Verifier
from registry.claims import ClaimState
from registry.verdict import Outcome

ANSWERS_MAX = 256  # claims whose answers are kept; in trouble all at once, more are asked again

Reply_co = TypeVar("Reply_co", covariant=True)


class Run(Protocol[Reply_co]):
    """A way to run the verifier."""

    async def __call__(self, job: Job, *, on_begun: Callable[[], None]) -> Reply_co:
        """Run a job; `on_begun` is called when it is its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What claims are examined with.

    Attributes:
        fetcher: gets the files.
        endpoints: asks the endpoints that claims are on.
        verifier: runs the watermark library.
    """

    fetcher: Fetcher
    endpoints: EndpointClient
    verifier: Verifier


class Progress(StrEnum):
    """How far this node is with a claim.

    Members:
        QUEUED: other claims come first.
        FETCHING: its files are on their way.
        FETCHED: its files are here, and the verifier is busy with another claim.
        VERIFYING: the verifier works on it.
        ASKING: the endpoint that it is on is asked.
        WAITING: it is tried again soon: its files cannot be had yet, or this node has a trouble of its own.
        VOTED: this node's vote is recorded.
        CLOSED: no vote of this node is wanted, or none any more.
    """

    QUEUED = "queued"
    FETCHING = "fetching"
    FETCHED = "fetched"
    VERIFYING = "verifying"
    ASKING = "asking"
    WAITING = "waiting"
    VOTED = "voted"
    CLOSED = "closed"


Show = Callable[[Progress], None]


class Examiner:
    """Finds out about claims.

    Args:
        ledger: where the claims are recorded.
        means: what they are examined with.
        turns: charges each owner for the time that his claims take.
    """

    def __init__(self, ledger: LedgerService, means: Means, turns: Turns) -> None:
        self._ledger, self._means, self._turns = ledger, means, turns
        self._answers: dict[bytes, tuple[int, ...]] = {}  # of endpoints, by claim; until they are counted

    async def examine(self, state: ClaimState, show: Show) -> Answer:
        """Fetch what a claim is verified with, and verify it.

        Args:
            state: the claim.
            show: is told how far it is.

        Raises:
            FetchError: a file cannot be had, or the endpoint; perhaps later it can.
            OSError: a trouble of this node's.
            VerifierTroubleError: likewise.
        """
        with ExitStack() as held:
            with self._turns.charged(state.claim.signed.signer):
                files = await fetch_files(self._means.fetcher, state, held)
            job = job_of(state, self._ledger.store.entry(state.claim.index), files)
            if files.endpoint:
                return await self._interview(state, job, files, files.endpoint, show)
            return await self._measure(state, job, files, self._means.verifier.verify, show)

    async def _interview(self, state: ClaimState, job: Job, files: ClaimFiles, url: str, show: Show) -> Answer:
        """Verify a claim on an endpoint: which pictures, what it answers to them, and what that counts.

        It is asked once and no more: who is asked again learns what both times have in common. So answers that cannot
        be counted now are kept for later.
        """
        digest = state.claim.signed.hash
        answers = self._answers.get(digest)
        if answers is None:
            found = await self._asked(state, job, files, url, show)
            if isinstance(found, Answer):
                return found
            self._answers[digest] = answers = found
            if len(self._answers) > ANSWERS_MAX:
                del self._answers[next(iter(self._answers))]
        counted = await self._measure(state, replace(job, answers=answers), files, self._means.verifier.verify, show)
        self._answers.pop(digest, None)
        return counted

    async def _asked(
        self, state: ClaimState, job: Job, files: ClaimFiles, url: str, show: Show
    ) -> tuple[int, ...] | Answer:
        """What an endpoint answered, or why that counts for nothing."""
        with self._turns.charged(state.claim.signed.signer):
            metadata = await self._means.endpoints.look(url)
        found = await self._measure(state, job, files, self._means.verifier.questions, show)
        if isinstance(found, Answer):
            return found
        ask, pictures = self._means.endpoints.ask, found.pictures
        try:
            with self._charging(state, Progress.ASKING, show) as begin:
                classes = await ask(
                    url, metadata, pictures, common=job.control_seed, has_margin=found.has_margin, on_begun=begin
                )
        except FetchError as error:
            return unmeasured(Outcome.UNVERIFIABLE, error.reason, str(error))
        return classes.asked

    async def _measure(
        self, state: ClaimState, job: Job, files: ClaimFiles, run: Run[Reply_co], show: Show
    ) -> Reply_co:
        """Run the verifier on the claim's files when it is its turn, and charge its owner for it.

        Raises:
            OSError: EIO, a file has changed on this node's disk since it was fetched; it is dropped.
        """
        show(Progress.FETCHED)
        with self._charging(state, Progress.VERIFYING, show) as begin:
            answer = await run(job, on_begun=begin)
        if isinstance(answer, Answer) and answer.reason == "hash_mismatch":
            for sha256 in files.hashes:  # the fetcher keeps nothing that does not have the hash
                self._means.fetcher.discard(sha256)
            raise OSError(errno.EIO, "a fetched file was damaged on this node's disk")
        return answer

    @contextmanager
    def _charging(self, state: ClaimState, progress: Progress, show: Show) -> Iterator[Callable[[], None]]:
        """Charge a claim's owner from the call of what is yielded until the block ends: not while others are served."""
        with ExitStack() as turn:

            def begin() -> None:
                turn.enter_context(self._turns.charged(state.claim.signed.signer))
                show(progress)

            yield begin
