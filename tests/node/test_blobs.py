"""What has a name in the blob store is whole and genuine; everything else leaves nothing behind."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.blobs import BlobLimits, BlobStore
from node.space import is_disk_full
from registry.errors import MalformedError, RefusedError

CONTENT = b"weights" * 100
SHA256 = hashlib.sha256(CONTENT).digest()


def store(path: Path, *, blob: int = 10_000, total: int = 20_000) -> BlobStore:
    return BlobStore(path / "blobs", BlobLimits(blob_bytes_max=blob, total_bytes_max=total))


async def chunks(content: bytes, *, size: int = 64, breaks_at: int | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        if breaks_at is not None and start >= breaks_at:
            raise ConnectionResetError("gone")
        yield content[start : start + size]


def files(path: Path) -> list[Path]:
    return [found for found in path.rglob("*") if found.is_file()]


async def test_a_file_is_found_by_its_hash(tmp_path: Path):
    blobs = store(tmp_path)
    path = await blobs.add(SHA256, chunks(CONTENT), bytes_max=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert blobs.find(SHA256) == path
    assert blobs.bytes_total == len(CONTENT)
    assert store(tmp_path).bytes_total == len(CONTENT)


async def test_a_file_with_another_hash_leaves_nothing(tmp_path: Path):
    blobs = store(tmp_path)
    with pytest.raises(RefusedError) as refused:
        await blobs.add(SHA256, chunks(CONTENT[:-1] + b"!"), bytes_max=len(CONTENT))
    assert refused.value.code == "hash_mismatch"
    assert (files(tmp_path), blobs.bytes_total, blobs.find(SHA256)) == ([], 0, None)


@pytest.mark.parametrize(("blob", "asked"), [(100, 10_000), (10_000, 100)])
async def test_a_file_longer_than_either_limit_leaves_nothing(tmp_path: Path, blob: int, asked: int):
    blobs = store(tmp_path, blob=blob)
    with pytest.raises(MalformedError) as malformed:
        await blobs.add(SHA256, chunks(CONTENT), bytes_max=asked)
    assert malformed.value.code == "too_large"
    assert (files(tmp_path), blobs.bytes_total) == ([], 0)


async def test_a_transfer_that_breaks_leaves_nothing_and_can_be_repeated(tmp_path: Path):
    blobs = store(tmp_path)
    with pytest.raises(ConnectionResetError):
        await blobs.add(SHA256, chunks(CONTENT, breaks_at=300), bytes_max=len(CONTENT))
    assert (files(tmp_path), blobs.bytes_total) == ([], 0)
    assert await blobs.add(SHA256, chunks(CONTENT), bytes_max=len(CONTENT))


async def test_a_full_store_refuses_and_takes_files_again_after_a_removal(tmp_path: Path):
    blobs = store(tmp_path, total=1000)
    other = b"other" * 100
    await blobs.add(SHA256, chunks(CONTENT), bytes_max=1000)
    with pytest.raises(RefusedError) as refused:
        await blobs.add(hashlib.sha256(other).digest(), chunks(other), bytes_max=1000)
    assert refused.value.code == "quota"
    blobs.remove(SHA256)
    blobs.remove(SHA256)
    assert blobs.bytes_total == 0
    assert await blobs.add(hashlib.sha256(other).digest(), chunks(other), bytes_max=1000)


async def test_what_is_left_of_the_disk_for_the_ledger_is_not_written_to(tmp_path: Path):
    found = os.statvfs(tmp_path)
    free_bytes = found.f_bavail * found.f_frsize
    limits = BlobLimits(blob_bytes_max=10_000, total_bytes_max=20_000, reserve_bytes=free_bytes + 2**30)
    blobs = BlobStore(tmp_path / "blobs", limits)
    assert blobs.free_bytes < 0
    with pytest.raises(OSError, match="for the ledger") as refused:
        await blobs.add(SHA256, chunks(CONTENT), bytes_max=len(CONTENT))
    assert is_disk_full(refused.value)
    assert (files(tmp_path), blobs.bytes_total) == ([], 0)
    lenient = BlobStore(tmp_path / "blobs", replace(limits, reserve_bytes=free_bytes // 2))
    assert await lenient.add(SHA256, chunks(CONTENT), bytes_max=len(CONTENT))


async def test_the_same_file_uploaded_twice_at_once_is_counted_once(tmp_path: Path):
    blobs = store(tmp_path)
    await asyncio.gather(*(blobs.add(SHA256, chunks(CONTENT), bytes_max=1000) for _ in range(3)))
    assert blobs.bytes_total == len(CONTENT)
    assert len(files(tmp_path)) == 1


async def test_a_known_file_is_not_read_again(tmp_path: Path):
    blobs = store(tmp_path)
    await blobs.add(SHA256, chunks(CONTENT), bytes_max=1000)
    assert await blobs.add(SHA256, chunks(b"", breaks_at=0), bytes_max=1000)


async def test_what_a_killed_node_was_writing_is_removed_at_start(tmp_path: Path):
    store(tmp_path)
    (tmp_path / "blobs" / "incoming" / "tmpabc").write_bytes(b"half")
    assert store(tmp_path).bytes_total == 0
    assert files(tmp_path) == []
