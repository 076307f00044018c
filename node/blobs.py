"""Files by the SHA-256 of their content, on disk (DESIGN 5: pointers and blobs).

A file is hashed while it is written under a temporary name and gets its own name only if the hash is the expected one,
so whatever has a name is whole and genuine. One quota covers all files, those that are being written included.
"""

import asyncio
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from node.durable import sync_directory
from registry.errors import MalformedError, RefusedError

_NAME = re.compile(r"[0-9a-f]{64}")
_INCOMING = "incoming"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobLimits:
    """Bytes: of one file, of all files together, and of what stays free on their disk for the ledger."""

    blob_bytes_max: int
    total_bytes_max: int
    reserve_bytes: int = 0


class BlobStore:
    """A directory of files named by their hash.

    Args:
        directory: made if missing; what an interrupted write left behind is removed.
    """

    def __init__(self, directory: Path, limits: BlobLimits) -> None:
        self._directory, self._limits = directory, limits
        self._incoming = directory / _INCOMING
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self._bytes_total = sum(path.stat().st_size for path in self._files())

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    @property
    def bytes_total(self) -> int:
        """Bytes of all files, kept and being written."""
        return self._bytes_total

    @property
    def free_bytes(self) -> int:
        """Bytes that the store still takes."""
        return min(self._limits.total_bytes_max - self._bytes_total, self._disk_bytes)

    def find(self, sha256: bytes) -> Path | None:
        """The file with this hash, or None."""
        path = self._directory / sha256.hex()
        return path if path.exists() else None

    def touch(self, sha256: bytes) -> None:
        """Note that a file is wanted still."""
        path = self.find(sha256)
        if path is not None:
            os.utime(path)

    def unused_since(self, time_s: float) -> list[bytes]:
        """Files that were written, and last touched, before a time."""
        return [sha256 for sha256, _, used_s in self.by_age() if used_s < time_s]

    def by_age(self) -> list[tuple[bytes, int, float]]:
        """Hash, bytes and POSIX time of the last touch of every file, the oldest first."""
        found = [(bytes.fromhex(path.name), path.stat()) for path in self._files()]
        return [(sha256, stat.st_size, stat.st_mtime) for sha256, stat in sorted(found, key=lambda f: f[1].st_mtime_ns)]

    def make_room(self, wanted_bytes: int) -> None:
        """Remove what may go until so many bytes are free: nothing here, where a file stays until it is removed."""

    def remove(self, sha256: bytes) -> None:
        """Remove a file, if it is there."""
        path = self.find(sha256)
        if path is not None:
            self._bytes_total -= path.stat().st_size
            path.unlink()

    async def add(self, sha256: bytes, chunks: AsyncIterator[bytes], *, bytes_max: int) -> Path:
        """Write a file as it streams in.

        Args:
            sha256: what its content must hash to.
            chunks: the content.
            bytes_max: of this file; the store's own limits hold as well.

        Raises:
            MalformedError: code too_large: longer than bytes_max or than a file may be.
            RefusedError: code hash_mismatch, or quota when the store is full.
            OSError: it cannot be written. Nothing is kept, whichever it is.
        """
        known = self.find(sha256)
        if known is not None:
            return known
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        written = 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = hashlib.sha256()
                async for chunk in chunks:
                    self._reserve(written + len(chunk), len(chunk), bytes_max)
                    written += len(chunk)
                    await asyncio.to_thread(_write, file, digest, chunk)
                _check_hash(digest.digest(), sha256)
                await asyncio.to_thread(_flush, file)
            path = self._keep(Path(name), sha256)
        except BaseException:
            self._bytes_total -= written
            os.unlink(name)  # noqa: PTH108 -- ruff takes pathlib's for I/O that blocks longer than this one
            raise
        await asyncio.to_thread(sync_directory, self._directory)
        return path

    @property
    def _disk_bytes(self) -> int:
        """What may still be written to the disk; negative once the reserve is touched."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize - self._limits.reserve_bytes

    def _files(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]

    def _reserve(self, written: int, chunk_bytes: int, bytes_max: int) -> None:
        if written > bytes_max:
            raise MalformedError(f"more than {bytes_max} bytes", code="too_large")
        self.make_room(chunk_bytes)
        # Before the limit of one file: what a cache has no room for is this node's trouble and not the file's.
        if self._bytes_total + chunk_bytes > self._limits.total_bytes_max:
            raise RefusedError("the node's store for files is full", code="quota")
        if chunk_bytes > self._disk_bytes:
            raise OSError(errno.ENOSPC, "what is left on the disk is for the ledger")
        if written > self._limits.blob_bytes_max:
            raise MalformedError(f"more than {self._limits.blob_bytes_max} bytes", code="too_large")
        self._bytes_total += chunk_bytes

    def _keep(self, temporary: Path, sha256: bytes) -> Path:
        path = self._directory / sha256.hex()
        if path.exists():  # somebody else finished the same file meanwhile
            self._bytes_total -= path.stat().st_size
        temporary.replace(path)
        return path


def _check_hash(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise RefusedError(f"the content hashes to {found.hex()}, not {expected.hex()}", code="hash_mismatch")


def _write(file: BinaryIO, digest: "hashlib._Hash", chunk: bytes) -> None:
    digest.update(chunk)
    file.write(chunk)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
