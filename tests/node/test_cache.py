"""The cache makes room by what was used least recently, and never takes a file from under a verification."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.blobs import BlobLimits
from node.cache import FileCache
from registry.errors import RefusedError


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 100):
        yield content[start : start + 100]


def cache_of(path: Path) -> FileCache:
    return FileCache(path, BlobLimits(blob_bytes_max=1000, total_bytes_max=1000))


async def add(cache: FileCache, word: bytes, size: int = 400, *, used_s: float) -> bytes:
    """Add a file that was used at a time."""
    content = word * (size // len(word))
    sha256 = hashlib.sha256(content).digest()
    path = await cache.add(sha256, chunks(content), bytes_max=1000)
    os.utime(path, (used_s, used_s))
    return sha256


async def test_the_least_recently_used_file_makes_room(tmp_path: Path):
    cache = cache_of(tmp_path)
    old, newer = await add(cache, b"a", used_s=100), await add(cache, b"b", used_s=200)
    assert cache.free_bytes == 1000
    cache.touch(old)
    third = await add(cache, b"c", used_s=300)
    assert [cache.find(sha256) is not None for sha256 in (old, newer, third)] == [True, False, True]
    assert cache.bytes_total == 800


async def test_no_more_is_removed_than_must_be(tmp_path: Path):
    cache = cache_of(tmp_path)
    files = [await add(cache, word, 300, used_s=at) for at, word in enumerate((b"a", b"b", b"c"))]
    await add(cache, b"d", 400, used_s=9)
    assert [cache.find(sha256) is not None for sha256 in files] == [False, True, True]


async def test_a_file_that_is_held_stays_and_what_has_no_room_beside_it_is_refused(tmp_path: Path):
    cache = cache_of(tmp_path)
    held = await add(cache, b"a", 700, used_s=1)
    with cache.held([held]), cache.held([held]):
        assert cache.free_bytes == 300
        with pytest.raises(RefusedError) as refused:
            await add(cache, b"b", used_s=2)
        assert refused.value.code == "quota"
    assert cache.find(held)
    assert await add(cache, b"b", used_s=2)
    assert not cache.find(held)


async def test_a_file_that_two_hold_stays_until_both_let_go(tmp_path: Path):
    cache = cache_of(tmp_path)
    held = await add(cache, b"a", 700, used_s=1)
    with cache.held([held]):
        with cache.held([held]):
            pass
        assert cache.free_bytes == 300
    assert cache.free_bytes == 1000


async def test_a_file_is_held_before_it_is_there(tmp_path: Path):
    cache = cache_of(tmp_path)
    coming = hashlib.sha256(b"a" * 700).digest()
    with cache.held([coming]):
        assert await add(cache, b"a", 700, used_s=1) == coming
        with pytest.raises(RefusedError):
            await add(cache, b"b", used_s=2)


async def test_what_a_stopped_node_had_fetched_is_found_again_and_bounded(tmp_path: Path):
    old, newer = await add(cache_of(tmp_path), b"a", used_s=1), await add(cache_of(tmp_path), b"b", used_s=2)
    again = cache_of(tmp_path)
    assert again.bytes_total == 800
    await add(again, b"c", used_s=3)
    assert (again.find(old), again.find(newer) is not None) == (None, True)
