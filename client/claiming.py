"""Claiming: the owner reveals his key and asks all nodes whether a model carries his mark (DESIGN 3).

A claim cannot be taken back and reveals the watermark key, so everything that the nodes will check of the owner's files
is checked here first, and the publication must be proven to be recorded: who reveals a key that nobody knows to be his
gives it away. The exact message is saved before it is sent (client.outbox).
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from client.api import Api, Recorded
from client.bundle import Bundle, declared_models
from client.errors import InvalidError
from client.extras import is_installed, require
from client.files import read_limited
from client.likeness import check_like_marked
from client.memory import Memory
from client.outbox import submit_saved
from client.publishing import Owner, check_ready, committed_parts, finishing, keep_seen
from client.suspects import Suspect
from client.uploads import Blob, blob_of, upload
from registry.claims import check_revealed_key, committed_by
from registry.commitments import open_further
from registry.envelope import ENVELOPE_BYTES_MAX, SignedMessage, seal, unseal
from registry.errors import MalformedError, RefusedError
from registry.messages import Claim


def make_claim(
    bundle: Bundle, owner: Owner, suspect: Suspect, evidence: Blob, *, origin: str, watermark: int = 0
) -> Claim:
    """Make a claim after checking that the bundle's files fit the publication and the owner.

    Args:
        bundle: the owner's directory.
        owner: who claims.
        suspect: the model.
        evidence: of the watermark that is claimed.
        origin: the ledger's.
        watermark: which of the bundle's watermarks; its key is revealed.

    Raises:
        InvalidError: another owner's publication, or evidence that was not committed to.
        RefusedError: code key_not_bound or key_mismatch.
        InputError, OSError: a file is missing.
    """
    publication = bundle.load_publication(origin=origin)
    if not owner.speaks_for(publication.signer):
        raise InvalidError(f"{bundle.publication}: published with another signing key", code="not_the_publisher")
    part = bundle.part(watermark)
    claim = Claim(
        time_s=int(time.time()),
        publication=publication.hash,
        model_pointer=suspect.pointer,
        model_sha256=suspect.sha256,
        evidence_pointer=evidence.pointer,
        evidence_sha256=evidence.sha256,
        binding=part.load_watermark_key().binding,
        opening=open_further(committed_parts(bundle)[1:], watermark - 1) if watermark else None,
    )
    _check_evidence(part, claim, publication)
    check_revealed_key(claim, publication, origin=origin)
    return claim


async def submit_claim(  # noqa: PLR0913 (what a claim is made of, and two options by name)
    api: Api, memory: Memory, bundle: Bundle, owner: Owner, suspect: Suspect, *, watermark: int = 0, again: bool = False
) -> Recorded:
    """Upload what the nodes need, the declared models too, and submit the claim.

    Args:
        api: the ledger.
        memory: what was seen of it before.
        bundle: the owner's directory; the claim's message is kept there.
        owner: who claims.
        suspect: the model.
        watermark: which of the bundle's watermarks is claimed.
        again: make a new claim although one on this model was sent from this bundle before.

    Raises:
        InvalidError, RefusedError: a file or the ledger says no.
        QuorumError: the outcome is unknown; claiming again is safe.
        ConsistencyError: the ledger does not continue what was seen of it before.
        UnfinishedError: it is recorded, but a file could not be written.
    """
    origin, part = api.trust.origin, bundle.part(watermark)
    evidence, *declared = await asyncio.to_thread(_blobs, part)
    claim = await asyncio.to_thread(make_claim, bundle, owner, suspect, evidence, origin=origin, watermark=watermark)
    path = part.claim(suspect.sha256, suspect.pointer)
    path.parent.mkdir(exist_ok=True)
    saved = None if again else _saved(path, claim, owner, origin=origin)
    if saved is None:
        await asyncio.to_thread(_check_fits, suspect, declared, part, bundle)
    if suspect.endpoint is not None and saved is None:
        await _check_endpoint(suspect.endpoint, part)
    await check_ready(api, memory, bundle)
    await check_published(api, memory, bundle)
    for blob in filter(None, (evidence, suspect.blob, *declared)):
        await upload(api, blob, owner.private_key)
    make = partial(seal, claim, origin=origin, private_keys=[owner.private_key])
    recorded = await submit_saved(api, path, saved=saved, make=make)
    with finishing(recorded):
        await keep_seen(api, memory, recorded)
    return recorded


async def check_published(api: Api, memory: Memory, bundle: Bundle) -> None:
    """Check that the bundle's publication is in the log, by a receipt that continues what was seen of it.

    Raises:
        InvalidError: code not_published, a quorum of nodes does not have it.
        UntrustedError, ConsistencyError: the receipt does not hold.
        QuorumError: too few nodes answer to tell.
    """
    publication = bundle.load_publication(origin=api.trust.origin)
    recorded = await api.find(publication.hash)
    if recorded is None:
        message = f"{bundle.publication}: not recorded in the ledger; run first: wmreg publish {bundle.directory}"
        raise InvalidError(message, code="not_published")
    await keep_seen(api, memory, recorded)


def _blobs(part: Bundle) -> list[Blob]:
    """The evidence, and the models that it declares."""
    base_path, null_paths = declared_models(part, part.load_evidence())
    return [blob_of(path) for path in filter(None, (part.evidence, base_path, *null_paths))]


def _check_fits(suspect: Suspect, declared: Sequence[Blob], part: Bundle, whole: Bundle) -> None:
    """Check the files that nodes would read; raises InvalidError, NotInstalledError.

    Without torch the suspect is compared with the marked model. The declared models are the very files that the
    embedding has read: their hashes are in the evidence.
    """
    if not is_installed("wm"):
        if suspect.blob is not None:
            check_like_marked(suspect.blob.path, suspect.sha256, part.load_evidence(), whole)
        return
    from client.marking.fitting import check_fits  # with torch

    for blob in filter(None, (suspect.blob, *declared)):
        check_fits(blob.path, part)


async def _check_endpoint(url: str, part: Bundle) -> None:
    require("node")  # asked by a node's own code
    from client.marking.fitting import check_endpoint  # with torch

    await check_endpoint(url, part)


def _check_evidence(part: Bundle, claim: Claim, publication: SignedMessage) -> None:
    evidence, published = part.load_evidence(), committed_by(claim, publication)
    for what, found, committed in (
        ("head", evidence.head_commitment, published.head),
        ("info", evidence.info_commitment, published.info),
    ):
        if found != committed:
            raise InvalidError(
                f"{part.evidence}: its {what} is not the one that was published", code=f"{what}_mismatch"
            )


def _saved(path: Path, claim: Claim, owner: Owner, *, origin: str) -> bytes | None:
    """The envelope of an earlier try, if it claims the same, by whichever key of the owner."""
    if not path.exists():
        return None
    envelope = read_limited(path, ENVELOPE_BYTES_MAX)
    try:
        saved = unseal(envelope, origin=origin)
    except (MalformedError, RefusedError) as error:
        raise InvalidError(f"{path}: damaged ({error}); remove it to claim anew", code=error.code) from error
    message = saved.message
    is_same = isinstance(message, Claim) and _terms(message) == _terms(claim) and owner.speaks_for(saved.signer)
    return envelope if is_same else None


def _terms(claim: Claim) -> tuple[bytes, str, bytes, str, bytes]:
    c = claim
    return c.publication, c.model_pointer, c.model_sha256, c.evidence_pointer, c.evidence_sha256
