"""Votes computed again: the very job that the nodes ran, on some claims drawn at random (DESIGN 8, --recompute).

A vote is a node's word for what it counted. Everybody who has the claim's files can count again: the claim says what
they hash to, the log says which controls were drawn, and the verification runs in the same sandbox as a node's. Which
claims are drawn follows from a seed and from nothing that a node could know, and the same seed draws them again.
"""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from client.audit.findings import Finding, Findings
from client.audit.mirror import Mirror
from client.audit.sampling import Sample
from node.blobs import BlobLimits, BlobStore
from node.cache import FileCache
from node.claim_files import fetch_files
from node.config import FetchSettings, VerifierSettings
from node.download import FetchError
from node.fetch import Fetcher
from node.jobs import job_of
from node.verifier.protocol import Answer
from node.verifier.supervisor import Verifier, VerifierTroubleError
from registry.audit import Replay
from registry.claims import ClaimState
from registry.endpoint import is_endpoint_pointer
from registry.messages import Vote
from registry.verdict import ControlKind, Measurement, Outcome, Statistic, judge

Show = Callable[[str], None]
APART_MAX = 3  # matched triggers by which two devices may honestly differ
_FETCH = FetchSettings(allow_private_addresses=False, file_directory="", timeout_s=3600, unreachable_retry_s=0)
_VERIFIER = VerifierSettings(
    device="auto", threads=1, timeout_s=3600, memory_bytes_max=8 * 2**30, controls_directory=""
)
# What a machine or a moment is to blame for, and not the claim's files.
_CIRCUMSTANCES = frozenset(
    {"unreachable", "base_unreachable", "unsupported_pointer", "timeout", "hash_mismatch", "too_large", "crashed"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputation:
    """How votes are computed again.

    Attributes:
        sample: which claims.
        directory: where fetched files go; it needs room for one claim's.
        urls: the nodes, which serve the files that were uploaded to them.
        tls: whom to believe that a node with an https URL is one; the system's authorities by default.
        fetch: limits on fetching.
        command: what verifies; a node's own verifier process by default.
    """

    sample: Sample
    directory: Path
    urls: Sequence[str]
    tls: ssl.SSLContext | None = None
    fetch: FetchSettings = _FETCH
    command: tuple[str, ...] | None = None

    async def run(self, state: Replay, mirror: Mirror, findings: Findings, remarks: list[str], show: Show) -> int:
        """Compare the votes on the drawn claims with what comes out here.

        Returns:
            How many claims were computed again.

        Raises:
            OSError: no room for the files.
        """
        voted = [claim for claim in map(state.ledger.claim_state, state.ledger.claims()) if claim and claim.votes]
        known = {claim.claim.signed.hash: claim for claim in voted}
        drawn = [known[digest] for digest in self.sample.draw(list(known))]
        count = 0
        async with AsyncExitStack() as stack:
            bench = self._open(stack, drawn)
            for number, claim in enumerate(drawn, start=1):
                show(f"computing claim {number} of {len(drawn)} again")
                if is_endpoint_pointer(claim.message.model_pointer):
                    remarks.append(f"{_name(claim)} is on an endpoint, which nobody can ask again as it was")
                    continue
                entry = mirror.entry(claim.claim.index, state.size)
                try:
                    answer = await bench.answer(claim, entry)
                except FetchError as error:
                    remarks.append(f"{_name(claim)} was not computed again, its files cannot be had: {error}")
                    continue
                except VerifierTroubleError as error:
                    remarks.append(f"{_name(claim)} and those drawn after it were not computed again: {error}")
                    break
                if answer.reason in _CIRCUMSTANCES:
                    why = f"{answer.reason}: {answer.detail}" if answer.detail else answer.reason
                    remarks.append(f"{_name(claim)} could not be computed again on this machine: {why}")
                    continue
                count += 1
                for finding in compare(claim, answer, remarks):
                    findings.add(finding)
        return count

    def _open(self, stack: AsyncExitStack, claims: Sequence[ClaimState]) -> "_Bench":
        largest = max((max(c.policy.model_bytes_max, c.policy.evidence_bytes_max) for c in claims), default=0)
        limits = BlobLimits(blob_bytes_max=largest, total_bytes_max=3 * largest)
        blobs, cache = BlobStore(self.directory / "blobs", limits), FileCache(self.directory / "fetched", limits)
        fetcher = Fetcher(blobs, cache, peer_urls=self.urls, settings=self.fetch, peer_tls=self.tls)
        stack.push_async_callback(fetcher.close)
        verifier = Verifier(_VERIFIER, readable=(cache.directory,), command=self.command)
        stack.push_async_callback(verifier.stop)
        return _Bench(fetcher, verifier)


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a claim is computed with."""

    fetcher: Fetcher
    verifier: Verifier

    async def answer(self, claim: ClaimState, entry: bytes) -> Answer:
        """Fetch a claim's files, verify them, and drop them.

        Raises:
            FetchError: they cannot be had.
            VerifierTroubleError: the verifier does not run here.
            OSError: no room for them.
        """
        with ExitStack() as held:
            files = await fetch_files(self.fetcher, claim, held)
            answer = await self.verifier.verify(job_of(claim, entry, files))
        for sha256 in files.hashes:
            self.fetcher.discard(sha256)
        return answer


def compare(claim: ClaimState, answer: Answer, remarks: list[str]) -> Iterator[Finding]:
    """Find the votes that say something else than the same files give here.

    Args:
        claim: with its votes.
        answer: what came out here.
        remarks: takes votes that say nothing of the files.
    """
    thresholds, outcome, reason = claim.policy.thresholds, answer.outcome, answer.reason
    if answer.measurement is not None:
        outcome, reason = judge(answer.measurement, thresholds)
    here = _said(outcome, reason, answer.measurement)
    for member, placed in claim.votes.items():
        vote = placed.signed.message
        if not isinstance(vote, Vote):
            raise TypeError("a claim's votes are votes")
        there, judged = _said(vote.outcome, vote.reason, vote.measurement), vote.outcome
        if vote.measurement is not None and (public := _public(vote.measurement)):
            remarks.append(
                f"entry {placed.index}: {member} has {public} public models, which cannot be counted again here"
            )
            judged, _ = judge(_without_public(vote.measurement, answer.measurement), thresholds)
        if vote.reason in _CIRCUMSTANCES:
            remarks.append(f"entry {placed.index}: {member} voted {there}; with the files of now it is {here}")
        elif judged is not outcome or _are_apart(vote.measurement, answer.measurement):
            what = f"{member} voted {there}; the same files give {here} on this machine"
            yield Finding(code="vote_differs", where=f"entry {placed.index}", what=what)


def _public(measurement: Measurement) -> int:
    return sum(control.kind is ControlKind.PUBLIC for control in measurement.controls)


def _without_public(measurement: Measurement, here: Measurement | None) -> Measurement:
    """The measurement as it is of a node without public models: which ones a node has is its operator's word.

    Where the chance is measured, they can only raise it; without them it is what came out here.
    """
    controls = tuple(control for control in measurement.controls if control.kind is not ControlKind.PUBLIC)
    chance_ppm = measurement.chance_ppm
    if here is not None and measurement.statistic is here.statistic is Statistic.CALIBRATED:
        chance_ppm = min(chance_ppm, here.chance_ppm)
    return replace(measurement, controls=controls, chance_ppm=chance_ppm)


def _are_apart(one: Measurement | None, other: Measurement | None) -> bool:
    if one is None or other is None:
        return (one is None) != (other is None)
    counts = [(m.matched, m.matched_unaligned if m.aligned else m.matched) for m in (one, other)]
    (matched, plain), (others_matched, others_plain) = counts
    # Near γ one device may align where another need not: then what both read unaligned is compared.
    if one.aligned is not other.aligned and plain is not None and others_plain is not None:
        matched, others_matched = plain, others_plain
    return one.total != other.total or abs(matched - others_matched) > APART_MAX


def _said(outcome: Outcome | None, reason: str, measurement: Measurement | None) -> str:
    counted = f", {measurement.matched} of {measurement.total} triggers" if measurement else ""
    return f"{outcome} ({reason}{counted})"


def _name(claim: ClaimState) -> str:
    return f"entry {claim.claim.index}: the claim {claim.claim.signed.hash.hex()}"
