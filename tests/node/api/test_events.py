"""A stream of events gives every entry once, in order, from where the reader was; nobody's stream holds up the node."""

import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from nodeset import NodeSet, publication

from node.api import events, make_app
from node.api.limits import Streams
from registry.entry import Entry


@asynccontextmanager
async def stream(
    nodes: NodeSet, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with nodes.session.get(f"{nodes.nodes[0].url}/v1/events{query}", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream"), await response.read()
        assert (await response.content.readuntil(b"\n\n")).startswith(b":")
        yield response


async def event(response: aiohttp.ClientResponse) -> tuple[int, int]:
    """The next event's id and the index that its entry states."""
    async with asyncio.timeout(30):
        name, kind, data = (await response.content.readuntil(b"\n\n")).decode().rstrip("\n").split("\n")
    assert kind == "event: entry"
    document = json.loads(data.removeprefix("data: "))
    assert set(document) == {"index", "message_hash", "kind", "recorded_s", "signers", "body"}
    return int(name.removeprefix("id: ")), document["index"]


async def submit(nodes: NodeSet, *numbers: int) -> None:
    for number in numbers:
        await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=5)


async def until(condition: Callable[[], object], *, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_stream_gives_what_there_is_and_then_what_comes(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        await submit(nodes, *range(20))
        async with stream(nodes, "?since=1") as response:
            assert [await event(response) for _ in range(20)] == [(index, index) for index in range(1, 21)]
            await submit(nodes, 20)
            assert await event(response) == (21, 21)


async def test_a_stream_without_a_beginning_gives_new_entries_only(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        await submit(nodes, 1)
        async with stream(nodes) as response:
            await submit(nodes, 2)
            assert await event(response) == (2, 2)


async def test_a_reader_that_was_cut_off_goes_on_behind_the_last_event_that_it_got(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        await submit(nodes, 1, 2)
        async with stream(nodes, "?since=0", {"Last-Event-ID": "1"}) as response:
            assert await event(response) == (2, 2)
        async with stream(nodes, "", {"Last-Event-ID": "2"}) as response:
            await submit(nodes, 3)
            assert await event(response) == (3, 3)


@pytest.mark.parametrize(("query", "headers"), [("?since=-1", {}), ("?since=x", {}), ("", {"Last-Event-ID": "x"})])
async def test_a_beginning_that_is_no_index_is_refused(tmp_path: Path, query: str, headers: dict[str, str]):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        async with nodes.session.get(f"{nodes.nodes[0].url}/v1/events{query}", headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "malformed")


async def test_a_stream_with_nothing_to_tell_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(events, "_TICK_S", 0.02)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        async with stream(nodes, f"?since={2**64 - 1}") as response, asyncio.timeout(30):
            for _ in range(3):
                assert await response.content.readuntil(b"\n\n") == b":\n\n"


async def test_there_is_a_limit_on_streams_and_room_again_when_a_reader_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "_TICK_S", 0.02)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        services = dataclasses.replace(nodes.nodes[0].services, streams=Streams(1))
        await nodes.serve_app(nodes.nodes[0], make_app(services))
        async with stream(nodes):
            async with nodes.session.get(f"{nodes.nodes[0].url}/v1/events") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "too_many_streams")
                assert answer.headers["Retry-After"] == "10"
            assert services.streams.open == 1
        await until(lambda: services.streams.open == 0)
        async with stream(nodes):
            pass


async def test_who_does_not_read_is_dropped_and_others_get_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "STALLED_S", 0.3)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        node, count = nodes.nodes[0], 300
        await serve_with_small_buffers(nodes)
        commands = [Entry(publication(number=number), int(time.time())).encode() for number in range(count)]
        nodes.order.order(*commands)
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(lazy, (node.config.api.host, node.config.api.port))
            await loop.sock_sendall(lazy, b"GET /v1/events?since=0 HTTP/1.1\r\nHost: node\r\n\r\n")
            await until(lambda: node.services.streams.open == 1)
            async with stream(nodes, "?since=0") as response:
                for index in range(count + 1):
                    assert await event(response) == (index, index)
                await until(lambda: node.services.streams.open == 1)


async def serve_with_small_buffers(nodes: NodeSet) -> None:
    """Serve the first node from a socket whose connections keep little of what is not read."""
    node = nodes.nodes[0]
    runner = web.AppRunner(make_app(node.services), shutdown_timeout=0.1)
    await runner.setup()
    nodes._stack.push_async_callback(runner.cleanup)
    listening = socket.create_server((node.config.api.host, node.config.api.port))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await web.SockSite(runner, listening).start()


async def test_a_node_that_stops_ends_its_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "_TICK_S", 0.02)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        async with stream(nodes) as response, asyncio.timeout(30):
            nodes.nodes[0].services.stopping.set()
            assert await response.content.read() == b""
