"""Removes uploads that no claim names: whoever uploads a file and never claims must not fill the store for good.

Owners upload first and claim then, so a file is left for a while; an upload of the same file begins that time anew. The
files of a claim stay, for peers that vote late and for auditors who compute again.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from node.blobs import BlobStore
from node.logs import fields
from node.store import Store
from registry.messages import Claim

SWEEP_PERIOD_S = 600.0

logger = logging.getLogger(__name__)


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
                message = cast("Claim", placed.signed.message)
                self._claimed |= {message.model_sha256, message.evidence_sha256}
        self._claims_seen = len(claims)
        for sha256 in self._blobs.unused_since(self._clock() - self._age_max_s):
            if sha256 not in self._claimed:
                self._blobs.remove(sha256)
                logger.info("an upload that nobody claimed was removed", extra=fields(sha256=sha256.hex()))
