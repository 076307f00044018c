"""What became of a claim: the nodes' words, what they are worth, and the certificate.

A verdict VERIFIED, INTACT or TAMPERED is proven by its certificate. There is none of any other, so that is a word, and
counts when a quorum of nodes says the same.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from client.api import Api, Recorded, is_quorum
from client.bundle import Bundle
from client.claim_state import ClaimState
from client.errors import InputError
from client.files import read_limited, write_atomic
from client.memory import Memory
from client.publishing import keep_seen, keep_seen_certificate
from registry.certificate import CERTIFICATE_BYTES_MAX, Story, verify_certificate
from registry.errors import RefusedError, RegistryError, UntrustedError
from registry.messages import Claim
from registry.trust import TrustPolicy

CERTIFICATE_PATIENCE_S = 30.0
_POLL_S_MAX = 30
_PAUSE_S = 0.5


async def ask_state(api: Api, digest: bytes, *, wait_s: int = 0) -> ClaimState:
    """How a claim stands: by a node's word that its certificate must prove, or by a quorum's that there is none of.

    Args:
        api: the ledger.
        digest: names the claim.
        wait_s: how long the node that is asked first may wait for a verdict.

    Returns:
        A state with a verdict that a quorum tells alike; else one that a certificate proves; else an open or an
        unconfirmed one.

    Raises:
        RefusedError: code not_found.
        QuorumError: no node answers.
    """
    first = await api.claim(digest, wait_s=wait_s)
    told = {url: s for url, s in (await api.claim_by_all(digest)).items() if isinstance(s, ClaimState)}
    states = [first, *told.values()]
    agreed = [state for state in states if _is_told_by_quorum(api, state, told)]
    decided = [state for state in agreed if state.outcome is not None]
    if decided:
        return max(decided, key=lambda state: len(state.votes))
    won = [state for state in states if state.is_certified]
    if won and await _has_certificate(api, digest):
        return won[0]
    return agreed[0] if agreed else replace(first, confirmed=first.outcome is None)


def _is_told_by_quorum(api: Api, state: ClaimState, told: Mapping[str, ClaimState]) -> bool:
    return is_quorum(api.trust, [url for url, other in told.items() if other.verdict == state.verdict])


async def _has_certificate(api: Api, digest: bytes) -> bool:
    try:
        await api.certificate(digest)
    except RegistryError:
        return False
    return True


async def await_verdict(
    api: Api, digest: bytes, *, timeout_s: float, on_change: Callable[[ClaimState], None]
) -> ClaimState:
    """Follow a claim until there is a verdict or the time is over.

    Args:
        api: the ledger.
        digest: names the claim.
        timeout_s: how long to wait; 0 asks once.
        on_change: called with each new state.

    Returns:
        The claim's state; without a verdict, or with an unconfirmed one, when the time is over.

    Raises:
        QuorumError: the nodes stopped answering.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        wait_s = max(0, min(_POLL_S_MAX, int(deadline_s - time.monotonic())))
        state = await ask_state(api, digest, wait_s=wait_s)
        on_change(state)
        if (state.outcome is not None and state.confirmed) or time.monotonic() >= deadline_s:
            return state
        await asyncio.sleep(_PAUSE_S)  # a node that does not hold the line must not be asked in a tight loop


async def await_stragglers(
    api: Api, state: ClaimState, *, timeout_s: float, on_change: Callable[[ClaimState], None]
) -> ClaimState:
    """After a verdict, give the other nodes time to vote as well, so that the certificate shows every vote.

    Args:
        api: the ledger.
        state: of a claim that has a verdict.
        timeout_s: how long to wait at most; a node that is down does not come.
        on_change: called with each new state.

    Returns:
        The state with the most votes; a node that is behind does not undo a verdict.
    """
    deadline_s = time.monotonic() + timeout_s
    while len(state.votes) < len(api.trust.witnesses) and time.monotonic() < deadline_s:
        await asyncio.sleep(_PAUSE_S)
        later = await ask_state(api, bytes.fromhex(state.claim))
        if later.outcome is not None and later.confirmed and len(later.votes) >= len(state.votes):
            state = later
            on_change(state)
    return state


async def older_publication(api: Api, memory: Memory, state: ClaimState) -> Recorded | None:
    """The receipt of the publication that supersedes a claim, checked against the policy; None if none does.

    The prevailing claim must be on the same model and by that publication, and that publication in front of ours.

    Raises:
        UntrustedError: code not_superseding, the receipts do not show that, whatever the nodes said.
        RegistryError: there is no such entry in the log.
    """
    if state.superseding is None:
        return None
    claim = await _claim_of(api, bytes.fromhex(state.claim))
    rival = await _claim_of(api, bytes.fromhex(state.superseding.claim))
    own, older = await api.receipt(claim.publication), await api.receipt(rival.publication)
    for recorded in (own, older):
        await keep_seen(api, memory, recorded)
    told = (state.superseding.publication, state.superseding.publication_index)
    shown = (rival.publication.hex(), older.verified.index)
    if told != shown or rival.model_sha256 != claim.model_sha256 or older.verified.index >= own.verified.index:
        message = f"the claim {state.claim} is said to be superseded, but the log does not show an older publication"
        raise UntrustedError(message, code="not_superseding")
    return older


async def _claim_of(api: Api, digest: bytes) -> Claim:
    message = (await api.receipt(digest)).verified.signed.message
    if not isinstance(message, Claim):
        raise UntrustedError(f"{digest.hex()} is said to be a claim, and is none", code="not_superseding")
    return message


async def fetch_certificate(api: Api, memory: Memory, digest: bytes) -> tuple[bytes, Story]:
    """Fetch a claim's certificate, check it offline, and that it continues what was seen of the ledger.

    Raises:
        RefusedError: code superseded, or whatever the nodes object.
        QuorumError: no node can make it now.
        ConsistencyError: the ledger does not continue what was seen of it before.
    """
    content, story = await api.certificate(digest)
    await keep_seen_certificate(api, memory, content)
    return content, story


async def await_certificate(api: Api, memory: Memory, digest: bytes) -> tuple[bytes, Story]:
    """The same for a claim that has just got its verdict, of which a node may not have heard yet."""
    deadline_s = time.monotonic() + CERTIFICATE_PATIENCE_S
    while True:
        try:
            return await fetch_certificate(api, memory, digest)
        except RefusedError as error:  # the node that is asked may be some votes behind the one that told the verdict
            if error.code not in {"open", "not_found"} or time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(_PAUSE_S)


def keep_certificate(bundle: Bundle, content: bytes, digest: bytes, trust: TrustPolicy) -> Path:
    """Write the certificate of a claim into a bundle; that of another claim is never written over.

    Raises:
        OSError: it cannot be written.
    """
    path = bundle.certificate
    try:
        write_atomic(path, content, replace=False)
    except FileExistsError:
        if not _is_certificate_of(path, digest, trust):
            path = path.with_name(f"certificate-{digest.hex()[:16]}.json")
        write_atomic(path, content)
    return path


def _is_certificate_of(path: Path, digest: bytes, trust: TrustPolicy) -> bool:
    try:
        return verify_certificate(read_limited(path, CERTIFICATE_BYTES_MAX), trust).claim_hash == digest
    except (RegistryError, InputError):
        return False
