"""The cache of fetched files: a blob store that makes room by itself.

What was used least recently goes first. A file that is held, because a verification reads it, never goes; what is held
and what is being written is all that the bound can be full of.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.blobs import BlobLimits, BlobStore


class FileCache(BlobStore):
    """A directory of files named by their hash, kept while there is room."""

    def __init__(self, directory: Path, limits: BlobLimits) -> None:
        super().__init__(directory, limits)
        self._held: Counter[bytes] = Counter()

    @property
    def free_bytes(self) -> int:
        """Bytes that the cache takes, once it has made room."""
        return super().free_bytes + sum(size for _, size in self._evictable())

    @contextmanager
    def held(self, hashes: Sequence[bytes]) -> Iterator[None]:
        """Keep these files, there already or fetched meanwhile, as long as the block runs."""
        self._held.update(hashes)
        try:
            yield
        finally:
            self._held.subtract(hashes)
            self._held = +self._held

    def make_room(self, wanted_bytes: int) -> None:
        """Remove files, the least recently used first, until so much is free or nothing more may go."""
        if super().free_bytes >= wanted_bytes:
            return
        for sha256, _ in self._evictable():
            self.remove(sha256)
            if super().free_bytes >= wanted_bytes:
                return

    def _evictable(self) -> list[tuple[bytes, int]]:
        """Files that nobody holds, with their bytes, the least recently used first."""
        return [(sha256, size) for sha256, size, _ in self.by_age() if sha256 not in self._held]
