"""Which uploads go, and when: whoever uploads files must not fill the store for good, and shut it to all others.

Owners upload first and claim then, so a file that no claim names is left for a while; an upload of the same file begins
that time anew. The files of a claim stay, for peers that vote late and for auditors who compute again.

A full store makes room for what comes: first of what nobody claimed, then of the claims that have their verdict, the
oldest first. The files of a claim that is still open never go, and how many of those one owner or address may make, the
budget for verification work says.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

from node.blobs import BlobLimits, BlobStore
from node.claim_files import NeededUploads
from node.logs import fields
from node.store import Store
from registry.messages import Claim

SWEEP_PERIOD_S = 600.0

logger = logging.getLogger(__name__)


class Uploads(BlobStore):
    """The uploads of a node.

    Args:
        directory, limits: as of any BlobStore.
        store: knows the claims.
        clock: POSIX seconds.
    """

    def __init__(self, directory: Path, limits: BlobLimits, *, store: Store, clock: Callable[[], float]) -> None:
        super().__init__(directory, limits)
        self._store, self._clock = store, clock
        self._needed = NeededUploads(self)

    def make_room(self, wanted_bytes: int) -> None:
        """Remove what is wanted least until so many bytes are free, or nothing more may go."""
        if self.free_bytes >= wanted_bytes:
            return
        for sha256 in self._expendable():
            self.remove(sha256)
            logger.info("an upload made room for another", extra=fields(sha256=sha256.hex()))
            if self.free_bytes >= wanted_bytes:
                return

    def _expendable(self) -> list[bytes]:
        """What may go, the first to go first."""
        is_open: dict[bytes, bool] = {}  # by the hash of a file that some claim names
        for digest in self._store.claims():
            state = self._store.claim_state(digest)
            if state is not None:
                verdict = self._store.verdict(digest, as_of_s=int(self._clock()))
                for sha256 in self._needed.by(state.message):
                    is_open[sha256] = is_open.get(sha256, False) or verdict.outcome is None
        kept = [sha256 for sha256, _, _ in self.by_age() if not is_open.get(sha256, False)]
        return sorted(kept, key=lambda sha256: sha256 in is_open)


class Sweeper:
    """Looks through the uploads now and then.

    Args:
        blobs: the uploads.
        store: knows the claims.
        age_max_s: how long an upload waits for a claim.
        clock: POSIX seconds, as the file system's.
    """

    def __init__(self, blobs: BlobStore, store: Store, *, age_max_s: float, clock: Callable[[], float]) -> None:
        self._blobs, self._store, self._age_max_s, self._clock = blobs, store, age_max_s, clock
        self._claimed: set[bytes] = set()
        self._needed = NeededUploads(blobs)
        self._claims_seen = 0

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self.sweep()
            await asyncio.sleep(SWEEP_PERIOD_S)

    def sweep(self) -> None:
        """Remove what is too old and claimed by nobody."""
        claims = self._store.claims()
        for digest in claims[self._claims_seen :]:
            placed = self._store.find(digest)
            if placed is not None:
                self._claimed |= self._needed.by(cast("Claim", placed.signed.message))
        self._claims_seen = len(claims)
        for sha256 in self._blobs.unused_since(self._clock() - self._age_max_s):
            if sha256 not in self._claimed:
                self._blobs.remove(sha256)
                logger.info("an upload that nobody claimed was removed", extra=fields(sha256=sha256.hex()))
