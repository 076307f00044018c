"""Claiming: the owner reveals his key and asks all nodes whether a model carries his mark (DESIGN 3).

A claim cannot be taken back and reveals the watermark key, so everything that the nodes will check of the owner's files
is checked here first. The exact message is saved before it is sent (client.outbox).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.api import Api, Recorded
from client.bundle import Bundle
from client.claim_state import ClaimState
from client.errors import InputError, InvalidError
from client.files import read_limited, write_atomic
from client.memory import Memory
from client.outbox import submit_saved
from client.publishing import Owner, keep_seen
from client.uploads import Blob, blob_of, upload
from registry.certificate import Story, verify_certificate
from registry.claims import check_revealed_key
from registry.envelope import ENVELOPE_BYTES_MAX, SignedMessage, seal, unseal
from registry.errors import MalformedError, RefusedError, RegistryError
from registry.messages import Claim, Publication
from registry.trust import TrustPolicy

CERTIFICATE_PATIENCE_S = 30.0
_POLL_S_MAX = 30
_BLOB_PREFIX = "blob:sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """The model that is claimed: where the nodes fetch it, and what it must hash to.

    Attributes:
        blob: the file to upload, None when it is somewhere already.
    """

    pointer: str
    sha256: bytes
    blob: Blob | None = None


def suspect_of(model: str, *, sha256: str | None) -> Suspect:
    """Read the command's word for a model: a file, an https URL or a blob.

    Raises:
        InputError: a URL without a hash, a hash that is none, another kind of URL.
        OSError: the file cannot be read.
    """
    if model.startswith(_BLOB_PREFIX):
        return Suspect(pointer=model, sha256=_hash_of(model.removeprefix(_BLOB_PREFIX), model))
    if "://" in model:
        if not model.startswith("https://"):
            raise InputError(f"{model}: nodes fetch from https:// only; or give a file, which is uploaded")
        if sha256 is None:
            raise InputError(f"{model}: a URL needs --sha256, the hash of the file that you mean")
        return Suspect(pointer=model, sha256=_hash_of(sha256, "--sha256"))
    blob = blob_of(Path(model))
    if sha256 is not None and blob.sha256 != _hash_of(sha256, "--sha256"):
        raise InvalidError(f"{model}: its SHA-256 is {blob.sha256.hex()}, not {sha256}", code="hash_mismatch")
    return Suspect(pointer=blob.pointer, sha256=blob.sha256, blob=blob)


def make_claim(bundle: Bundle, owner: Owner, suspect: Suspect, evidence: Blob, *, origin: str) -> Claim:
    """Make a claim after checking that the bundle's files fit the publication and the owner.

    Raises:
        InvalidError: another owner's publication, or evidence that was not committed to.
        RefusedError: code key_not_bound or key_mismatch.
        InputError, OSError: a file is missing.
    """
    publication = bundle.load_publication(origin=origin)
    if publication.signer != owner.public_key:
        raise InvalidError(f"{bundle.publication}: published with another signing key", code="not_the_publisher")
    _check_evidence(bundle, publication)
    claim = Claim(
        time_s=int(time.time()),
        publication=publication.hash,
        model_pointer=suspect.pointer,
        model_sha256=suspect.sha256,
        evidence_pointer=evidence.pointer,
        evidence_sha256=evidence.sha256,
        binding=bundle.load_watermark_key().binding,
    )
    check_revealed_key(claim, publication, origin=origin)
    return claim


async def submit_claim(
    api: Api, memory: Memory, bundle: Bundle, owner: Owner, suspect: Suspect, *, again: bool = False
) -> Recorded:
    """Upload what the nodes need and submit the claim.

    Args:
        api: the ledger.
        memory: what was seen of it before.
        bundle: the owner's directory; the claim's message is kept there.
        owner: who claims.
        suspect: the model.
        again: make a new claim although one on this model was sent from this bundle before.

    Raises:
        InvalidError, RefusedError: a file or the ledger says no.
        QuorumError: the outcome is unknown; claiming again is safe.
        ConsistencyError: the ledger does not continue what was seen of it before.
    """
    origin, evidence = api.trust.origin, blob_of(bundle.evidence)
    claim = make_claim(bundle, owner, suspect, evidence, origin=origin)
    path = bundle.claim(suspect.sha256)
    path.parent.mkdir(exist_ok=True)
    saved = None if again else _saved(path, claim, origin=origin)
    for blob in filter(None, (evidence, suspect.blob)):
        await upload(api, blob, owner.private_key)
    make = partial(seal, claim, origin=origin, private_keys=[owner.private_key])
    recorded = await submit_saved(api, path, saved=saved, make=make)
    await keep_seen(api, memory, recorded)
    return recorded


async def await_verdict(
    api: Api, digest: bytes, *, timeout_s: float, on_change: Callable[[ClaimState], None]
) -> ClaimState:
    """Follow a claim until there is a verdict or the time is over.

    Args:
        api: the ledger.
        digest: names the claim.
        timeout_s: how long to wait; 0 asks once.
        on_change: called with each new state.

    Raises:
        QuorumError: the nodes stopped answering.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        wait_s = max(0, min(_POLL_S_MAX, int(deadline_s - time.monotonic())))
        state = ClaimState.read(await api.claim(digest, wait_s=wait_s))
        on_change(state)
        if state.outcome is not None or time.monotonic() >= deadline_s:
            return state
        await asyncio.sleep(0.2)  # a node that does not hold the line must not be asked in a tight loop


async def await_stragglers(
    api: Api, state: ClaimState, *, timeout_s: float, on_change: Callable[[ClaimState], None]
) -> ClaimState:
    """After a verdict, give the other nodes time to vote as well, so that the certificate shows every vote.

    Args:
        api: the ledger.
        state: of a claim that has a verdict.
        timeout_s: how long to wait at most; a node that is down does not come.
        on_change: called with each new state.
    """
    deadline_s = time.monotonic() + timeout_s
    while len(state.votes) < len(api.trust.witnesses) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.5)
        state = ClaimState.read(await api.claim(_hash_of(state.claim, "the claim"), wait_s=0))
        on_change(state)
    return state


async def older_publication(api: Api, state: ClaimState) -> Recorded | None:
    """The receipt of the publication that supersedes a claim, checked against the policy; None if none does.

    Raises:
        RegistryError: there is no such publication in the log, whatever the node said.
    """
    if state.superseding is None:
        return None
    recorded = await api.receipt(_hash_of(str(state.superseding.get("publication")), "the superseding publication"))
    if not isinstance(recorded.verified.signed.message, Publication):
        raise InvalidError("the claim is said to be superseded by what is no publication", code="malformed")
    return recorded


async def keep_certificate(api: Api, bundle: Bundle, digest: bytes) -> tuple[Path, Story]:
    """Fetch a verified claim's certificate, check it offline and write it into the bundle.

    A certificate of another claim is never written over.

    Raises:
        RefusedError: code superseded, or whatever the nodes object.
        QuorumError: no node can make it now.
    """
    deadline_s = time.monotonic() + CERTIFICATE_PATIENCE_S
    while True:
        try:
            content, story = await api.certificate(digest)
        except RefusedError as error:  # the node that is asked may be some votes behind the one that told the verdict
            if error.code not in {"open", "not_found"} or time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.5)
        else:
            path = _certificate_path(bundle, digest, api.trust)
            write_atomic(path, content)
            return path, story


def _certificate_path(bundle: Bundle, digest: bytes, trust: TrustPolicy) -> Path:
    path = bundle.certificate
    if not path.exists():
        return path
    try:
        of_this_claim = verify_certificate(path.read_bytes(), trust).claim_hash == digest
    except RegistryError:
        of_this_claim = False
    return path if of_this_claim else path.with_name(f"certificate-{digest.hex()[:16]}.json")


def _check_evidence(bundle: Bundle, publication: SignedMessage) -> None:
    evidence, message = bundle.load_evidence(), publication.message
    if not isinstance(message, Publication):
        raise InvalidError(f"{bundle.publication}: not a publication", code="malformed")
    for what, found, committed in (
        ("head", evidence.head_commitment, message.head_commitment),
        ("info", evidence.info_commitment, message.info_commitment),
    ):
        if found != committed:
            raise InvalidError(
                f"{bundle.evidence}: its {what} is not the one that was published", code=f"{what}_mismatch"
            )


def _saved(path: Path, claim: Claim, *, origin: str) -> bytes | None:
    """The envelope of an earlier try, if it claims the same."""
    if not path.exists():
        return None
    envelope = read_limited(path, ENVELOPE_BYTES_MAX)
    try:
        saved = unseal(envelope, origin=origin).message
    except (MalformedError, RefusedError) as error:
        raise InvalidError(f"{path}: damaged ({error}); remove it to claim anew", code=error.code) from error
    return envelope if isinstance(saved, Claim) and _terms(saved) == _terms(claim) else None


def _terms(claim: Claim) -> tuple[bytes, str, bytes, str, bytes]:
    c = claim
    return c.publication, c.model_pointer, c.model_sha256, c.evidence_pointer, c.evidence_sha256


def _hash_of(digits: str, what: str) -> bytes:
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != digits:
        raise InputError(f"{what}: expected a SHA-256 hash, 64 lower-case hexadecimal digits")
    return digest
