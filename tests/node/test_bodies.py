"""A body comes at a pace, at every moment of it, or it is given up; the time that it takes us is not its sender's."""

import asyncio

import pytest

from node import bodies
from node.bodies import TooSlowError, read_limited, steady_chunks
from registry.errors import MalformedError


def stream(content: bytes, *, is_whole: bool) -> asyncio.StreamReader:
    """What a sender has sent of a body."""
    reader = asyncio.StreamReader()
    reader.feed_data(content)
    if is_whole:
        reader.feed_eof()
    return reader


async def taken(reader: asyncio.StreamReader, *, pause_s: float = 0.0) -> int:
    count = 0
    async for chunk in steady_chunks(reader):
        count += len(chunk)
        await asyncio.sleep(pause_s)
    return count


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "GRACE_S", 0.2)
    monkeypatch.setattr(bodies, "CREDIT_S_MAX", 0.2)


async def test_a_body_that_comes_is_passed_on():
    content = bytes(2 * 2**20)
    assert await taken(stream(content, is_whole=True)) == len(content)
    assert await read_limited(stream(b"x" * 100, is_whole=True), 100) == b"x" * 100


async def test_a_body_that_is_too_long_is_refused():
    with pytest.raises(MalformedError) as refused:
        await read_limited(stream(b"x" * 101, is_whole=True), 100)
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("sent_bytes", [0, 64 * 2**20])
async def test_a_body_that_stops_is_given_up_however_fast_it_came_before(sent_bytes: int):
    async with asyncio.timeout(30):
        with pytest.raises(TooSlowError):
            await taken(stream(bytes(sent_bytes), is_whole=False))


@pytest.mark.long
async def test_what_we_take_to_write_it_down_is_not_the_senders_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "GRACE_S", 1.0)
    monkeypatch.setattr(bodies, "CREDIT_S_MAX", 1.0)
    reader = stream(bytes(bodies.CHUNK_BYTES), is_whole=False)
    asyncio.get_running_loop().call_later(1.5, reader.feed_eof)
    assert await taken(reader, pause_s=1.2) == bodies.CHUNK_BYTES
