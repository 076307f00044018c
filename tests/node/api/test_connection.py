"""What never reaches a handler is answered in the node's own shape too, and a body is taken as it was sent."""

import asyncio
import dataclasses
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nodeset import NodeParts, NodeSet, publication

from node import logs, main
from node.api.limits import LimitedConnections

pytestmark = pytest.mark.long


@asynccontextmanager
async def listening(tmp_path: Path, **settings: int) -> AsyncIterator[NodeParts]:
    """A node that listens as a real one does."""
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, AsyncExitStack() as stack:
        node = nodes.nodes[0]
        config = dataclasses.replace(node.config, api=dataclasses.replace(node.config.api, **settings))
        await main._listen(config, node.services, stack)
        yield node


async def answer_to(node: NodeParts, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send a request and read until the node closes the connection; return the status and the JSON."""
    reader, writer = await asyncio.open_connection(node.config.api.host, node.config.api.port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower(), answer
    return int(head.split()[1]), json.loads(body)


HOST = b"Host: n\r\n"
CLOSING = HOST + b"Connection: close\r\n"
UNREADABLE = {
    "no HTTP": b"\x16\x03\x01\x02\x00 hello\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a length that is no number": b"POST /v1/entries HTTP/1.1\r\n" + HOST + b"Content-Length: abc\r\n\r\n",
    "two lengths": b"POST /v1/entries HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_is_no_request_is_refused_in_the_shape_of_every_error_and_counted(tmp_path: Path, what: str):
    async with listening(tmp_path) as node:
        status, answer = await answer_to(node, UNREADABLE[what])
        assert (status, answer["error"]["code"]) == (400, "malformed")
        assert 0 < len(answer["error"]["message"]) <= 200
        assert node.services.refused["malformed"] == 1


CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
BROKEN = {
    "a length that is no number": b"zz\r\n",
    "an endless length": b"f" * 70_000,
    "a chunk without an end": b"1\r\nabc",
    "many trailers": b"0\r\n" + b"X: a\r\n" * 2000 + b"\r\n",
    "a long trailer": b"0\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("path", ["entries", "batches"])
@pytest.mark.parametrize("what", BROKEN)
async def test_a_body_that_breaks_off_its_rules_is_refused_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, path: str
):
    async with listening(tmp_path) as node:
        reader, writer = await asyncio.open_connection(node.config.api.host, node.config.api.port)
        writer.write(b"POST /v1/%s HTTP/1.1\r\n" % path.encode() + CHUNKED)
        await asyncio.sleep(0.05)  # the head and the first chunk are read
        writer.write(BROKEN[what])
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert b'"code": "malformed"' in answer
        writer.close()
    assert [record for record in caplog.records if record.exc_info and logs._is_ours(record)] == []


async def test_an_expectation_that_the_node_does_not_know_is_refused_in_that_shape(tmp_path: Path):
    request = b"POST /v1/entries HTTP/1.1\r\n" + HOST + b"Expect: miracles\r\nContent-Length: 1\r\n\r\nx"
    async with listening(tmp_path) as node:
        status, answer = await answer_to(node, request)
        assert (status, answer["error"]["code"]) == (417, "expectation_failed")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_compressed_body_is_refused_and_not_unpacked(tmp_path: Path, encoding: str):
    body = zlib.compress(bytes(2**20))
    head = b"POST /v1/entries HTTP/1.1\r\n" + CLOSING
    head += b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding.encode(), len(body))
    async with listening(tmp_path) as node:
        status, answer = await answer_to(node, head + body)
        assert (status, answer["error"]["code"]) == (400, "malformed")
        assert "Content-Encoding" in answer["error"]["message"]


async def test_a_body_that_says_that_it_is_as_it_is_is_taken(tmp_path: Path):
    body = publication()
    head = b"POST /v1/entries HTTP/1.1\r\n" + CLOSING
    head += b"Content-Encoding: identity\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with listening(tmp_path) as node:
        status, answer = await answer_to(node, head + body)
        assert (status, answer["index"]) == (200, 1)


class Transport(asyncio.Transport):
    """A connection from an address."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 40000)})
        self.protocol: asyncio.BaseProtocol | None = None
        self.written = b""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        pass


class Served(asyncio.Protocol):
    """What serves a connection."""


def arrive(connections: LimitedConnections, address: str) -> Transport:
    transport = Transport(address)
    connections().connection_made(transport)
    return transport


async def test_one_address_has_only_its_share_of_the_connections_and_gets_it_again():
    ended, refused = [], []

    def serve(on_lost: Any) -> asyncio.Protocol:
        ended.append(on_lost)
        return Served()

    connections = LimitedConnections(
        serve,
        connections_max=100,
        address_connections_max=2,
        handshake_timeout_s=5,
        on_refused=lambda: refused.append(1),
    )
    taken = [arrive(connections, "203.0.113.5") for _ in range(3)]
    assert [isinstance(one.protocol, Served) for one in taken] == [True, True, False]
    assert taken[2].written.startswith(b"HTTP/1.1 503 ")
    assert isinstance(arrive(connections, "203.0.113.6").protocol, Served)
    assert [isinstance(arrive(connections, "127.0.0.1").protocol, Served) for _ in range(4)] == [True] * 4
    assert [isinstance(arrive(connections, f"2001:db8::{n}").protocol, Served) for n in range(3)] == [True, True, False]
    ended[0]()
    assert isinstance(arrive(connections, "203.0.113.5").protocol, Served)
    assert isinstance(arrive(connections, "203.0.113.5").protocol, Served) is False
    assert len(refused) == 3


async def test_an_address_may_have_all_where_nothing_else_is_set():
    connections = LimitedConnections(
        lambda _: Served(),
        connections_max=100,
        address_connections_max=0,
        handshake_timeout_s=5,
        on_refused=lambda: None,
    )
    taken = [arrive(connections, "203.0.113.5") for _ in range(101)]
    assert [isinstance(one.protocol, Served) for one in taken] == [True] * 100 + [False]
