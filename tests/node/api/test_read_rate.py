"""Who reads too much is told when to come back; peers, monitoring and others at the node never are because of him."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nodeset import NodeParts, NodeSet, publication

from node.api import make_app
from node.api.limits import BURST_S
from node.api.openapi import DOCUMENT
from node.api.reads import COSTS, READING, ReadRate
from node.errors import UnavailableError

PEERS_ASK = ("/v1/checkpoints/{size}", "/v1/policies", "/v1/cosignatures/{name}", "/v1/blobs/{hash}")
MONITORING_ASKS = ("/health", "/healthz", "/metrics")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def reads_until_refused(reads: ReadRate, remote: str, *, cost: int = 1) -> tuple[int, int]:
    """How many reads an address gets at once, and after how many seconds the next one."""
    for number in range(10_000):
        try:
            reads.charge(remote, cost=cost)
        except UnavailableError as error:
            return number, error.retry_after_s
    raise AssertionError("never refused")


def test_an_address_gets_its_burst_and_then_its_rate_and_others_theirs():
    clock = Clock()
    reads = ReadRate(4, clock=clock)
    assert reads_until_refused(reads, "192.0.2.1") == (4 * BURST_S, 1)
    assert reads_until_refused(reads, "192.0.2.2") == (4 * BURST_S, 1)
    clock.now_s += 2
    assert reads_until_refused(reads, "192.0.2.1") == (8, 1)


def test_a_certificate_costs_as_many_tokens_as_twenty_tiles():
    reads = ReadRate(8, clock=Clock())
    tiles, _ = reads_until_refused(reads, "192.0.2.1", cost=COSTS["/tile/{level}/{path}"])
    certificates, again_s = reads_until_refused(reads, "192.0.2.2", cost=COSTS["/v1/certificates/{hash}"])
    assert (tiles, certificates) == (80, 4)
    assert again_s == 1
    assert COSTS["/tile/entries/{path}"] < COSTS["/v1/search"] < COSTS["/v1/certificates/{hash}"]


@pytest.mark.parametrize(
    ("remote", "cost", "rate_per_s"),
    [("192.0.2.1", 0, 1), ("127.0.0.1", 20, 1), ("::1", 20, 1), ("192.0.2.1", 20, 0), (None, 20, 1)],
)
def test_what_is_free_is_never_refused(remote: str | None, cost: int, rate_per_s: int):
    reads = ReadRate(rate_per_s, clock=Clock())
    refused = 0
    for _ in range(1000):
        try:
            reads.charge(remote, cost=cost)
        except UnavailableError:
            refused += 1
    assert refused == 0


async def test_every_read_has_a_price_and_what_peers_and_monitoring_ask_for_is_free(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        app = make_app(nodes.nodes[0].services)
        routes = {route.resource.canonical for route in app.router.routes() if route.method in READING}
    assert routes == COSTS.keys()
    assert {path for path, cost in COSTS.items() if cost == 0} == {*PEERS_ASK, *MONITORING_ASKS}


def test_the_description_says_what_a_read_costs_and_that_it_may_be_refused():
    for path, cost in COSTS.items():
        described = DOCUMENT["paths"][path]["get"]
        assert described.get("x-read-cost", 0) == cost
        assert ("429" in described["responses"]) == (cost > 0), path


@asynccontextmanager
async def read_by_a_stranger(nodes: NodeSet, *, tokens_per_s: float) -> AsyncIterator[NodeParts]:
    """Serve the first node to clients whose address is not taken for the machine's own."""
    node = nodes.nodes[0]
    reads = ReadRate(tokens_per_s, clock=Clock(), is_free=lambda _: False)
    await nodes.serve_app(node, make_app(dataclasses.replace(node.services, reads=reads)))
    yield node


async def test_too_many_reads_are_429_with_a_time_to_come_back_and_the_rest_goes_on(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, read_by_a_stranger(nodes, tokens_per_s=0.2) as node:

        async def status_of(path: str) -> int:
            async with nodes.session.get(node.url + path) as answer:
                return answer.status

        assert [await status_of(path) for path in ("/v1/node", "/nothing", "/v1/node")] == [200, 404, 429]
        async with nodes.session.get(f"{node.url}/tile/0/000.p/1") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
            assert (await refused.json())["error"]["code"] == "too_many_requests"
        async with nodes.session.head(f"{node.url}/v1/node") as headed:
            assert headed.status == 429
        assert node.services.refused["too_many_requests"] == 3
        free = ["/health", "/healthz", "/metrics", "/v1/checkpoints/1?wait_s=5", "/v1/policies"]
        assert [await status_of(path) for path in free * 5] == [200] * 25
        async with nodes.session.post(f"{node.url}/v1/entries", data=publication()) as submitted:
            assert submitted.status == 200


async def test_who_can_pay_reads_on(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, read_by_a_stranger(nodes, tokens_per_s=100) as node:
        for _ in range(50):
            async with nodes.session.get(f"{node.url}/v1/node") as answer:
                assert answer.status == 200
