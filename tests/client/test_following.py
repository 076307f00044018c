"""Promises: following the ledger gives every entry once and in order, whatever becomes of the node that is read."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web
from nodeset import NodeSet, publication

from client import following
from client.api import open_ledger
from client.transport import Timing
from registry.errors import QuorumError

pytestmark = pytest.mark.long


async def first(nodes: NodeSet, count: int, *, start: int = 0, patience_s: float = 30) -> list[int]:
    """Follow the ledger for so many entries; their indexes."""
    found: list[int] = []
    async with (
        open_ledger(nodes.trust, Timing(patience_s=patience_s)) as api,
        aclosing(following.follow(api, start)) as stream,
        asyncio.timeout(60),
    ):
        async for followed in stream:
            found.append(followed.line.index)
            if len(found) == count:
                break
    return found


def told(index: int) -> bytes:
    """An event as a node would send it."""
    document = {"index": index, "recorded_s": 1, "kind": "publish", "message_hash": "0" * 64}
    return b"id: %d\nevent: entry\ndata: %s\n\n" % (index, json.dumps(document).encode())


STREAMS = {
    "ends": told(0) + told(1),
    "leaves one out": told(0) + told(1) + told(3),
    "repeats one": told(0) + told(1) + told(1),
    "is nonsense": told(0) + told(1) + b"data: [1]\n\n",
    "has another type": told(0) + told(1) + b'data: {"index": "2"}\n\n',
    "has an endless line": told(0) + told(1) + b"data: " + b"x" * 600_000 + b"\n\n",
    "stops in the middle": told(0) + told(1) + told(2)[:20],
}


@pytest.mark.parametrize("what", STREAMS)
def test_a_stream_that_breaks_off_or_lies_is_gone_on_with_at_another_node(tmp_path: Path, what: str):
    async def bad(_request: web.Request) -> web.Response:
        return web.Response(body=STREAMS[what], content_type="text/event-stream")

    async def run() -> None:
        async with NodeSet(tmp_path / "ledger") as nodes:
            app = web.Application()
            app.add_routes([web.get("/v1/events", bad)])
            await nodes.serve_app(nodes.nodes[0], app)
            await nodes.serve(1)
            for number in range(4):
                await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=5)
            assert await first(nodes, 5) == [0, 1, 2, 3, 4]

    asyncio.run(run())


def test_new_entries_come_while_one_waits(tmp_path: Path):
    async def run() -> None:
        async with NodeSet(tmp_path / "ledger") as nodes:
            await nodes.serve()
            waiting = asyncio.create_task(first(nodes, 3, start=1))
            for number in range(3):
                await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=5)
            assert await waiting == [1, 2, 3]

    asyncio.run(run())


def test_a_ledger_that_cannot_be_read_is_given_up_after_the_patience(tmp_path: Path):
    async def run() -> None:
        async with NodeSet(tmp_path / "ledger") as nodes:
            with pytest.raises(QuorumError, match="cannot be followed"):
                await first(nodes, 1, patience_s=0.1)

    asyncio.run(run())


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let processes that are started hear SIGINT; a shell makes commands in its background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_each_entry_in_a_line_until_it_is_interrupted(ledger, tmp_path, as_json):
    ledger.grow(3)
    words = ["log", "--follow", "--limit", "2", "--policy", str(ledger.policy_path), *(["--json"] if as_json else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "client.command", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "WMREG_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            ledger.grow(1)
            lines.append(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
    indexes = [json.loads(line)["index"] if as_json else int(line.split()[0]) for line in lines]
    assert indexes == [2, 3, 4]
