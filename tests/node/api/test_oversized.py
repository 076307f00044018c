"""Whatever is too large is refused with its own status and code, in the shape of every error; a little less is not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from nodeset import NodeParts, NodeSet, publication
from oversized import OVERSIZED

from node import main
from node.api.limits import FIELD_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX
from node.api.openapi import DOCUMENT
from registry.tiles import entry_bundle

HEAD = b"GET /healthz HTTP/1.1\r\nHost: n\r\n"


@asynccontextmanager
async def listening(tmp_path: Path) -> AsyncIterator[NodeParts]:
    """A node that listens as a real one does."""
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, AsyncExitStack() as stack:
        await main._listen(nodes.nodes[0].config, nodes.nodes[0].services, stack)
        yield nodes.nodes[0]


async def answer_to(node: NodeParts, request: bytes) -> tuple[int, bytes]:
    """Send a request and read the answer; its status and body."""
    reader, writer = await asyncio.open_connection(node.config.api.host, node.config.api.port)
    writer.write(request)
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.split(b":")[1]))
    writer.transport.abort()
    return int(head.split()[1]), body


async def test_what_is_too_large_is_refused_with_its_own_status_and_code_and_counted(tmp_path: Path):
    async with listening(tmp_path) as node:
        answers = {}
        for what, (request, (_, code)) in OVERSIZED.items():
            before = node.services.refused[code]
            status, body = await answer_to(node, request)
            document = json.loads(body)
            assert list(document) == ["error"], what
            assert list(document["error"]) == ["code", "message"], what
            assert 0 < len(document["error"]["message"]) <= 200, what
            assert node.services.refused[code] == before + 1, what
            answers[what] = (status, document["error"]["code"])
    assert answers == {what: expected for what, (_, expected) in OVERSIZED.items()}


def test_every_such_status_is_in_the_description_with_its_code():
    described = DOCUMENT["components"]["responses"]
    for what, (_, (status, code)) in OVERSIZED.items():
        assert code in described[str(status)]["description"], what


async def test_what_is_just_small_enough_is_taken(tmp_path: Path):
    url = f"/v1/entries?limit=1&x={'a' * (URL_BYTES_MAX - len('/v1/entries?limit=1&x='))}"
    batch = entry_bundle([publication(number=number) for number in range(255)] + [b"abc"])
    taken = {
        "a URL": f"GET {url} HTTP/1.1\r\nHost: n\r\n\r\n".encode(),
        "a header": HEAD + b"X: " + b"a" * FIELD_BYTES_MAX + b"\r\n\r\n",
        "headers": HEAD + b"X: a\r\n" * (HEADERS_MAX - 2) + b"\r\n",
        "a head": HEAD + b"".join(b"X: %s\r\n" % (b"a" * 8000) for _ in range(HEAD_BYTES_MAX // 8010)) + b"\r\n",
        "a batch": b"POST /v1/batches HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n" % len(batch) + batch,
        "a number": b"GET /v1/entries?limit=%d HTTP/1.1\r\nHost: n\r\n\r\n" % (2**64 - 1),
    }
    async with listening(tmp_path) as node:
        statuses = {what: (await answer_to(node, request))[0] for what, request in taken.items()}
    assert statuses == dict.fromkeys(taken, 200)


async def test_a_head_that_never_ends_takes_no_memory_however_slowly_it_comes(tmp_path: Path):
    line = b"X: " + b"a" * 4000 + b"\r\n"
    async with listening(tmp_path) as node:
        reader, writer = await asyncio.open_connection(node.config.api.host, node.config.api.port)
        writer.write(HEAD)
        sent = 0
        while not reader.at_eof() and sent < 20 and not reader._buffer:
            writer.write(line)
            sent += 1
            await asyncio.sleep(0.01)
        assert HEAD_BYTES_MAX // len(line) <= sent < 20
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.transport.abort()
        assert node.services.refused["headers_too_large"] == 1


async def test_a_body_is_no_head_and_neither_are_several_requests_one(tmp_path: Path):
    async with listening(tmp_path) as node:
        reader, writer = await asyncio.open_connection(node.config.api.host, node.config.api.port)
        for _ in range(3):
            body = b"a" * (HEAD_BYTES_MAX + 5000)
            writer.write(b"POST /v1/entries HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body[:20_000])
            await asyncio.sleep(0.05)
            writer.write(body[20_000:])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 "), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            assert b'"malformed"' in await reader.readexactly(int(length.split(b":")[1]))
        writer.transport.abort()
