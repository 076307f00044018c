"""What a node opens and checks on its disk before anything listens."""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from node.admission import check_standing
from node.blobs import BlobLimits, BlobStore
from node.cache import FileCache
from node.claim_files import DECLARED_MODELS_MAX
from node.config import Config
from node.errors import ConfigError, InconsistentStateError
from node.identity import Identity, check_identity, load_identity
from node.init import BLOBS_DIRECTORY, NOTES_FILE, SIGNER_FILE, STORE_FILE
from node.membership import Membership
from node.notes import NoteCache
from node.returning import Returning
from node.signer import Signer, SignerName
from node.space import RESERVE_BYTES
from node.store import Store
from node.sweeper import Uploads
from node.upkeep.startup import check_state
from registry.entry import Entry
from registry.known_answers import wrong_answers
from registry.policy import Member
from registry.signing import is_signed

CACHE_DIRECTORY = "cache"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was opened and checked before anything listens."""

    identity: Identity
    membership: Membership
    returning: Returning
    store: Store
    signer: Signer
    notes: NoteCache


def open_state(config: Config) -> State:
    """Open the identity and the databases, and check that they belong together; the caller closes them.

    Raises:
        ConfigError: a setting, key or library is wrong.
        InconsistentStateError: what is stored is damaged, missing, or another ledger's.
        LeftError, UnavailableError: this node is no member.
    """
    _check_library()
    identity = load_identity(config.keys)
    with ExitStack() as opened:
        store = Store(config.state_directory / STORE_FILE)
        opened.callback(store.close)
        _check_genesis(config.genesis, store)
        membership = Membership(config.name, store)
        check_standing(membership, config, store.origin)
        member = cast("Member", membership.member)
        check_identity(identity, member)
        signer = Signer(
            config.state_directory / SIGNER_FILE,
            name=SignerName(origin=store.origin, member=config.name),
            identity=identity,
            clock=time.time,
        )
        opened.callback(signer.close)
        check_state(config, store, signer)
        notes = NoteCache(config.state_directory / NOTES_FILE)
        returning = Returning(member=member, origin=store.origin, signed_size=lambda: signer.size)
        opened.pop_all()
    return State(identity=identity, membership=membership, returning=returning, store=store, signer=signer, notes=notes)


def open_blobs(config: Config, store: Store) -> tuple[BlobStore, FileCache]:
    """Open the store of uploads and the cache of what is fetched for claims."""
    limits, policy = config.blobs, store.policy
    models_max = 1 + DECLARED_MODELS_MAX
    if models_max * policy.model_bytes_max + policy.evidence_bytes_max > limits.cache_bytes_max:
        room = "[blobs] cache_bytes_max has no room for %d of the policy's largest models and for evidence"
        logger.warning(room, models_max)
    uploads = BlobLimits(
        blob_bytes_max=limits.blob_bytes_max, total_bytes_max=limits.total_bytes_max, reserve_bytes=RESERVE_BYTES
    )
    fetched = replace(uploads, blob_bytes_max=limits.cache_bytes_max, total_bytes_max=limits.cache_bytes_max)
    cache = FileCache(config.state_directory / CACHE_DIRECTORY, fetched)
    return Uploads(config.state_directory / BLOBS_DIRECTORY, uploads, store=store, clock=time.time), cache


def _check_library() -> None:
    """Refuse a library for signatures that would accept another ledger than the other nodes do."""
    wrong = wrong_answers(is_signed)
    if wrong:
        raise ConfigError(
            f"the installed PyNaCl or cryptography answers wrongly about these signatures: {', '.join(wrong)}; this "
            "node would record what the others refuse, or the other way round; install the versions of constraints.txt"
        )


def _check_genesis(path: Path, store: Store) -> None:
    try:
        genesis = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"genesis: {path}: {error.strerror}") from error
    if Entry.decode(store.entry(0)).envelope != genesis:
        raise InconsistentStateError(f"{path} is not the genesis of the ledger that this node stores")
