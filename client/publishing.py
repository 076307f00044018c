"""Publishing: the owner's commitments go to the ledger before the model goes to anybody (DESIGN 3).

Whatever happens on the way, a crash, a lost answer, a cluster without a quorum: publishing a bundle again is the same
publication and not a second one (client.outbox).
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.api import Api, Recorded, SeenCheckpoint
from client.bundle import Bundle, stated_model_sha256
from client.continuity import check_continuity, check_latest
from client.errors import InvalidError, UnfinishedError, describe
from client.files import check_writable, read_limited, sha256_file, write_atomic
from client.memory import Memory
from client.outbox import submit_saved
from registry import commitments
from registry.certificate import Certificate
from registry.commitments import Committed, Further
from registry.envelope import ENVELOPE_BYTES_MAX, SignedMessage, seal
from registry.errors import QuorumError, RefusedError, RegistryError
from registry.evidence import EvidenceFile
from registry.messages import Publication
from registry.note import Note
from registry.receipt import Receipt
from registry.watermark_key import verify_binding


@dataclass(frozen=True, slots=True)
class Owner:
    """Who publishes and claims.

    Attributes:
        earlier_keys: signing keys from which he moved to this one, as the ledger has recorded.
    """

    private_key: Ed25519PrivateKey
    earlier_keys: tuple[bytes, ...] = ()

    @property
    def public_key(self) -> bytes:
        """The owner's name in the ledger, 32 bytes."""
        return self.private_key.public_key().public_bytes_raw()

    def speaks_for(self, key: bytes) -> bool:
        """Whether what this key has signed is this owner's."""
        return key in (self.public_key, *self.earlier_keys)


async def publish(api: Api, memory: Memory, bundle: Bundle, owner: Owner) -> Recorded:
    """Publish a bundle, check and keep the receipt.

    Returns:
        The receipt that was written, verified against the reader's trust policy.

    Raises:
        InvalidError, RefusedError: the bundle's files do not fit each other, the owner or the ledger.
        QuorumError: the outcome is unknown; publishing the bundle again is safe.
        ConsistencyError: the ledger does not continue what was seen of it before.
        UnfinishedError: it is published, but a file could not be written.
    """
    origin = api.trust.origin
    publication = await asyncio.to_thread(make_publication, bundle, owner, origin=origin)  # it hashes the model
    await check_ready(api, memory, bundle)
    recorded = await submit_saved(
        api,
        bundle.publication,
        saved=_saved(bundle, owner, publication, origin=origin),
        make=lambda: seal(publication, origin=origin, private_keys=[owner.private_key]),
    )
    with finishing(recorded):
        write_atomic(bundle.receipt, recorded.receipt.encode())
        await keep_seen(api, memory, recorded)
    return replace(recorded, receipt_path=bundle.receipt)


async def check_ready(api: Api, memory: Memory, bundle: Bundle) -> None:
    """Find out before anything is sent whether its receipt could be kept, and whether this is the ledger seen before.

    Raises:
        ConsistencyError: the ledger does not continue what was seen of it before.
        OSError: the bundle or the memory cannot be written.
    """
    check_writable(bundle.directory)
    check_writable(memory.directory)
    with suppress(QuorumError):  # whether enough nodes answer is for the submission to find out; it saves the message
        await check_latest(api, memory)


@contextmanager
def finishing(recorded: Recorded) -> Iterator[None]:
    """Name what the ledger has recorded in every error that comes after it.

    Raises:
        UnfinishedError: for an OSError, which is no fault of the command line any more.
    """
    verified = recorded.verified
    fact = f"the message {verified.signed.hash.hex()} is recorded as entry {verified.index}"
    try:
        yield
    except OSError as error:
        _, what = describe(error)
        raise UnfinishedError(f"{what}; but {fact}: mend this and run it again") from error
    except RegistryError as error:
        error.add_note(fact)
        raise


def make_publication(bundle: Bundle, owner: Owner, *, origin: str) -> Publication:
    """Make the commitments of a bundle, after checking that its files belong together.

    Raises:
        InvalidError: a watermark key is for another ledger, or the model is not the one that was marked.
        RefusedError: code key_not_bound, a watermark key is not bound to this owner.
        OSError: a file cannot be read.
    """
    evidence = [part.load_evidence() for part in bundle.parts()]
    publisher = _publisher(bundle, owner, origin=origin)
    for part in bundle.parts():
        _check_key(part, publisher, origin=origin)
    first, *further = committed_parts(bundle)
    return Publication(
        time_s=int(time.time()),
        scheme=evidence[0].scheme,
        key_commitment=first.key,
        head_commitment=first.head,
        info_commitment=first.info,
        model_commitment=_model_commitment(bundle, evidence),
        further=commitments.commit_further(further) if further else None,
    )


def committed_parts(bundle: Bundle) -> list[Committed]:
    """The commitments to each watermark of a bundle, the first one first.

    Raises:
        InvalidError, OSError: a file is damaged or missing.
    """
    return [_committed(part) for part in bundle.parts()]


def _publisher(bundle: Bundle, owner: Owner, *, origin: str) -> bytes:
    """Which key of the owner the watermarks are bound to: the one that published them before he moved to another."""
    if not bundle.publication.exists():
        return owner.public_key
    signer = bundle.load_publication(origin=origin).signer
    return signer if owner.speaks_for(signer) else owner.public_key


def _check_key(bundle: Bundle, publisher: bytes, *, origin: str) -> None:
    """Check that a watermark's key is its publisher's for this ledger."""
    binding = bundle.load_watermark_key()
    if binding.origin != origin:
        raise InvalidError(
            f"{bundle.watermark_key}: made for the ledger {binding.origin}, not {origin}", code="other_ledger"
        )
    try:
        verify_binding(binding.binding, origin=origin, owner=publisher)
    except RefusedError as error:
        message = f"{bundle.watermark_key}: bound to another signing key than {publisher.hex()}; see --signing-key"
        raise RefusedError(message, code=error.code) from error


def _committed(bundle: Bundle) -> Committed:
    evidence = bundle.load_evidence()
    watermark_key = bundle.load_watermark_key().binding.watermark_key
    key_commitment = commitments.key_commitment(watermark_key)
    return Committed(key_commitment, evidence.head_commitment, evidence.info_commitment)


async def keep_seen(api: Api, memory: Memory, recorded: Recorded) -> None:
    """Check that a receipt's checkpoint continues what was seen of the ledger, and remember it."""
    note = Receipt.parse(recorded.receipt).checkpoint_note
    await check_continuity(api, memory, SeenCheckpoint(note=note, trusted=recorded.verified.trusted))


async def keep_seen_certificate(api: Api, memory: Memory, certificate: bytes) -> None:
    """The same for the checkpoint of a certificate that was verified."""
    note = Certificate.decode(certificate).checkpoint_note
    await check_continuity(api, memory, SeenCheckpoint(note=note, trusted=api.trust.check(Note.parse(note))))


def same_commitments(signed: SignedMessage, publication: Publication) -> bool:
    """Whether a signed publication commits to the same things, at whatever time."""
    saved = signed.message
    return isinstance(saved, Publication) and _commitments(saved) == _commitments(publication)


def _saved(bundle: Bundle, owner: Owner, publication: Publication, *, origin: str) -> bytes | None:
    """The envelope of an earlier try, which must have published the same."""
    if not bundle.publication.exists():
        return None
    saved = bundle.load_publication(origin=origin)
    if not owner.speaks_for(saved.signer) or not same_commitments(saved, publication):
        message = f"{bundle.publication}: publishes other files or another owner; use a fresh directory"
        raise InvalidError(message, code="other_publication")
    return read_limited(bundle.publication, ENVELOPE_BYTES_MAX)


def _model_commitment(bundle: Bundle, evidence: Sequence[EvidenceFile]) -> bytes | None:
    """Salted H(M), if the marked model is still there; it must be the one that every info states."""
    if not bundle.model.exists():
        return None
    sha256, _ = sha256_file(bundle.model)
    if not {stated_model_sha256(its) for its in evidence} <= {None, sha256}:
        message = f"{bundle.model}: not the model that was marked (its SHA-256 is not the one in the evidence)"
        raise InvalidError(message, code="model_mismatch")
    return commitments.model_commitment(evidence[0].salt, sha256)


def _commitments(publication: Publication) -> tuple[str, Committed, Further | None]:
    # Without the model's: the file may have been moved away since.
    return publication.scheme, publication.committed, publication.further
