"""No client, and no crowd of them, takes the node from the others: submissions, connections and bodies are limited."""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from fakes import private_key, public_key
from nodeset import ORIGIN, NodeParts, NodeSet, claim, publication

from node import bodies, main
from node.api.limits import BURST_S, Streams, TokenBuckets, WorkBudget, is_own, network_of
from node.errors import UnavailableError
from registry import signing

pytestmark = pytest.mark.long


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_an_address_gets_its_burst_and_then_its_rate():
    clock = Clock()
    buckets = TokenBuckets(2, clock=clock)
    assert [buckets.take("192.0.2.1") for _ in range(int(2 * BURST_S))] == [0] * 20
    assert buckets.take("192.0.2.1") == 1
    clock.now_s += 0.5
    assert [buckets.take("192.0.2.1") for _ in range(2)] == [0, 1]


def test_a_batch_is_taken_with_one_token_and_paid_off_before_the_next():
    clock = Clock()
    buckets = TokenBuckets(2, clock=clock)
    assert buckets.take("192.0.2.1", count=256) == 0
    assert buckets.take("192.0.2.1") == 119  # 256 tokens and one, at two a second, less the burst
    clock.now_s += 119
    assert [buckets.take("192.0.2.1") for _ in range(3)] == [0, 0, 1]


def test_one_address_does_not_use_up_the_tokens_of_another():
    buckets = TokenBuckets(1, clock=Clock())
    while not buckets.take("192.0.2.1"):
        pass
    assert buckets.take("192.0.2.2") == 0


def test_a_rate_of_nought_is_no_limit():
    buckets = TokenBuckets(0, clock=Clock())
    assert {buckets.take("192.0.2.1") for _ in range(1000)} == {0}


def test_a_crowd_of_addresses_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node.api.limits.CLIENTS_MAX", 10)
    buckets = TokenBuckets(1, clock=Clock())
    for number in range(100):
        buckets.take(f"192.0.2.{number}")
    assert len(buckets._full_at_s) == 10


def test_one_address_does_not_take_all_streams():
    streams = Streams(5, 2)
    with ExitStack() as opened:
        for remote in ("192.0.2.1", "192.0.2.1", "127.0.0.1", "127.0.0.1"):
            opened.enter_context(streams.one(remote))
        with pytest.raises(UnavailableError, match="by this address"):
            opened.enter_context(streams.one("192.0.2.1"))
        opened.enter_context(streams.one("127.0.0.1"))
        with pytest.raises(UnavailableError, match="in all"):
            opened.enter_context(streams.one("192.0.2.2"))
        assert streams.open == 5
    assert (streams.open, len(streams._open)) == (0, 0)


def test_the_addresses_of_one_ipv6_network_are_one_client():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert {is_own(network_of(own)) for own in ("::1", "127.0.0.1", "::ffff:127.0.0.1")} == {True}
    assert not is_own(network_of("::2"))
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


@asynccontextmanager
async def listening(
    nodes: NodeSet, *, connections_max: int = 100, rate_per_s: float = 0, key_rate_per_s: float = 0
) -> AsyncIterator[NodeParts]:
    """Let the first node listen as a real node does."""
    node = nodes.nodes[0]
    api = dataclasses.replace(node.config.api, connections_max=connections_max)
    limited = {
        "submissions": TokenBuckets(rate_per_s, clock=Clock()),
        "key_submissions": TokenBuckets(key_rate_per_s, clock=Clock()),
    }
    async with AsyncExitStack() as stack:
        config = dataclasses.replace(node.config, api=api)
        await main._listen(config, dataclasses.replace(node.services, **limited), stack)
        yield node


async def connect(node: NodeParts) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(node.config.api.host, node.config.api.port)


async def answer_to(node: NodeParts, request: bytes) -> bytes:
    """Send these bytes, and read until the node closes the connection."""
    reader, writer = await connect(node)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def test_too_many_submissions_are_429_with_a_time_to_come_back_and_reading_goes_on(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, listening(nodes, rate_per_s=0.2) as node:
        statuses = []
        for number in range(3):
            async with nodes.session.post(f"{node.url}/v1/entries", data=publication(number=number)) as answer:
                statuses.append(answer.status)
        assert statuses == [200, 200, 429]
        assert answer.headers["Retry-After"] == "5"
        assert len(nodes.order.proposed) == 2
        async with nodes.session.get(f"{node.url}/healthz") as health:
            assert health.status == 200


async def test_a_key_has_a_rate_of_its_own_that_a_strangers_forgeries_do_not_use_up(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, listening(nodes, key_rate_per_s=0.2) as node:

        async def submit(envelope: bytes) -> tuple[int, str | None]:
            async with nodes.session.post(f"{node.url}/v1/entries", data=envelope) as answer:
                return answer.status, answer.headers.get("Retry-After")

        forged = bytearray(publication())
        forged[forged.index(b"mtlsign")] ^= 1
        assert [(await submit(bytes(forged)))[0] for _ in range(5)] == [422] * 5
        first = publication()
        assert [(await submit(envelope))[0] for envelope in (first, publication(number=1))] == [200, 200]
        assert await submit(publication(number=2)) == (429, "5")
        assert await submit(first) == (200, None)
        assert (await submit(publication("bob")))[0] == 200
        assert len(nodes.order.proposed) == 3


async def test_verification_work_is_limited_by_key_and_by_address_and_no_accepted_claim_is_forgotten(tmp_path: Path):
    clock = Clock()
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        node = nodes.nodes[0]
        work = WorkBudget.per_hour(address=3, key=2, clock=clock)
        async with AsyncExitStack() as stack:
            await main._listen(node.config, dataclasses.replace(node.services, work=work), stack)

            async def submit(envelope: bytes) -> tuple[int, str, str | None]:
                async with nodes.session.post(f"{node.url}/v1/entries", data=envelope) as answer:
                    told = await answer.json()
                    return answer.status, told.get("error", {}).get("code", ""), answer.headers.get("Retry-After")

            published = {owner: publication(owner) for owner in ("alice", "bob")}
            for envelope in published.values():
                assert (await submit(envelope))[0] == 200

            def claimed(owner: str, number: int) -> bytes:
                return claim(published[owner], owner, model_sha256=bytes([number]) * 32)

            first = claimed("alice", 1)
            assert [(await submit(envelope))[0] for envelope in (first, claimed("alice", 2))] == [200, 200]
            assert await submit(claimed("alice", 3)) == (429, "too_many_claims", "1800")
            assert await submit(first) == (200, "", None), "what is recorded costs nothing"
            assert (await submit(claimed("bob", 4)))[0] == 200
            assert await submit(claimed("bob", 5)) == (429, "too_many_claims", "1200")
            assert (await submit(publication("carol")))[0] == 200
            clock.now_s += 1800
            assert (await submit(claimed("alice", 3)))[0] == 200
        assert node.services.voter.queue == node.ledger.claims_open() == 4


async def test_a_connection_too_many_is_told_so_and_there_is_room_again_when_one_ends(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, listening(nodes, connections_max=2) as node:
        open_ones = [await connect(node) for _ in range(2)]
        turned_away = await answer_to(node, b"")
        assert turned_away.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in turned_away
        open_ones[0][1].close()
        await open_ones[0][1].wait_closed()
        request = b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
        async with asyncio.timeout(20):
            while not (await answer_to(node, request)).startswith(b"HTTP/1.1 200 "):
                pass
        open_ones[1][1].close()


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nHost: "])
async def test_a_connection_that_asks_for_nothing_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
):
    monkeypatch.setattr(main, "IDLE_TIMEOUT_S", 0.2)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, listening(nodes) as node:
        assert await answer_to(node, head) == b""


@pytest.mark.parametrize("what", ["entry", "upload", "upload of a known blob"])
async def test_a_body_that_does_not_come_is_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    monkeypatch.setattr(bodies, "GRACE_S", 0.2)
    monkeypatch.setattr(main, "LINGER_S", 0.1)
    content = b"known blob"
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, listening(nodes) as node:
        lines = ["POST /v1/entries HTTP/1.1"]
        if what != "entry":
            digest = hashlib.sha256(content).digest()
            if what == "upload of a known blob":
                await node.services.blobs.add(digest, _whole(content), bytes_max=100)
            lines = [f"PUT /v1/blobs/{digest.hex()} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in signed_upload(content).items()]
        lines += ["Host: node", "Connection: close", f"Content-Length: {len(content)}", "", "k"]
        answer = await answer_to(node, "\r\n".join(lines).encode())
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"too_slow" in answer


def signed_upload(content: bytes) -> dict[str, str]:
    message = signing.blob_upload(ORIGIN, hashlib.sha256(content).digest(), len(content))
    signature = signing.sign(private_key("alice"), message)
    return {"Wmreg-Signer": public_key("alice").hex(), "Wmreg-Signature": signature.hex()}


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
