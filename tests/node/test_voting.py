"""Every claim gets this node's vote once, whatever fails on the way; the vote says what the numbers say."""

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes import LedgerMaker
from nodeset import FAKE_WORKER, NodeParts, NodeSet, claim, publication, sealed

from node import voting as voting_module
from node.fetch import Fetcher
from node.init import ClusterOptions
from node.voting import control_seed
from registry.envelope import message_hash
from registry.verdict import Outcome


async def until(condition: Callable[[], object], *, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def voting(nodes: NodeSet, *numbers: int) -> AsyncIterator[None]:
    """Let these nodes vote."""
    tasks = [asyncio.create_task(nodes.nodes[number].services.voter.run()) for number in numbers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def upload(node: NodeParts, content: bytes) -> bytes:
    async def whole() -> AsyncIterator[bytes]:
        yield content

    digest = hashlib.sha256(content).digest()
    await node.services.blobs.add(digest, whole(), bytes_max=10_000)
    return digest


async def claim_on(nodes: NodeSet, model: bytes, *, owner: str = "alice", at: tuple[int, ...] = (0,)) -> bytes:
    """Publish, upload the files to these nodes and claim; return the claim's hash."""
    for number in at:
        await upload(nodes.nodes[number], model)
        await upload(nodes.nodes[number], b"evidence")
    model_sha256, evidence_sha256 = hashlib.sha256(model).digest(), hashlib.sha256(b"evidence").digest()
    published = publication(owner)
    envelope = claim(
        published,
        owner,
        model_pointer=f"blob:sha256:{model_sha256.hex()}",
        model_sha256=model_sha256,
        evidence_pointer=f"blob:sha256:{evidence_sha256.hex()}",
        evidence_sha256=evidence_sha256,
    )
    for message in (published, envelope):
        await nodes.nodes[0].ledger.submit(message, timeout_s=5)
    return message_hash(envelope)


def votes(nodes: NodeSet, digest: bytes) -> dict[str, tuple[Outcome, str]]:
    state = nodes.nodes[0].ledger.store.claim_state(digest)
    return {name: (placed.signed.message.outcome, placed.signed.message.reason) for name, placed in state.votes.items()}


def make(tmp_path: Path, *, unreachable_retry_s: int = 0) -> NodeSet:
    options = ClusterOptions(unreachable_retry_s=unreachable_retry_s)
    return NodeSet(tmp_path / "ledger", options=options, command=FAKE_WORKER)


async def test_three_nodes_fetch_verify_and_vote_and_a_verdict_comes_of_it(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=10) as nodes:
        await nodes.serve()
        digest = await claim_on(nodes, b"590 right")
        async with voting(nodes, 0, 1, 2):
            await until(lambda: len(votes(nodes, digest)) == 3)
            store = nodes.nodes[2].ledger.store
            await until(lambda: store.verdict(digest).outcome is Outcome.VERIFIED)
            await until(lambda: nodes.nodes[1].services.voter.queue == 0)
        assert set(votes(nodes, digest).values()) == {(Outcome.VERIFIED, "matched")}
        vote = store.claim_state(digest).votes["node-1"].signed.message
        assert (vote.measurement.matched, vote.device, vote.software) == (590, "cpu", "fake 1")


async def test_a_fetched_file_is_dropped_after_the_vote_and_an_upload_is_kept(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=10) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, b"590 right")
        async with voting(nodes, 0, 1):
            await until(lambda: len(votes(nodes, digest)) == 2)
            cache = tmp_path / "ledger/node-2/state/cache"
            await until(lambda: not [path for path in cache.rglob("*") if path.is_file()])
        assert nodes.nodes[0].services.blobs.bytes_total == len(b"590 right") + len(b"evidence")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (b"420 of 600", (Outcome.VERIFIED, "matched")),
        (b"419 of 600", (Outcome.INCONCLUSIVE, "between_bounds")),
        (b"310 of 600", (Outcome.REFUTED, "below_threshold")),
        (b"crash", (Outcome.UNVERIFIABLE, "crashed")),
    ],
)
async def test_the_vote_says_what_the_numbers_say(tmp_path: Path, model: bytes, expected: tuple[Outcome, str]):
    async with make(tmp_path) as nodes:
        digest = await claim_on(nodes, model)
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": expected}


async def test_a_pointer_that_nobody_can_follow_is_voted_on_after_the_wait(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=1) as nodes:
        digest = await claim_on(nodes, b"590", at=())
        started_s = time.monotonic()
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.UNVERIFIABLE, "unreachable")}
        assert time.monotonic() - started_s >= 1


async def test_a_file_that_turns_up_in_time_is_verified_and_other_claims_do_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(voting_module, "RETRY_S", 0.1)
    async with make(tmp_path, unreachable_retry_s=30) as nodes:
        late = await claim_on(nodes, b"590 late", at=())
        prompt = await claim_on(nodes, b"580 prompt", owner="bob")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, prompt))
            assert votes(nodes, late) == {}
            await upload(nodes.nodes[0], b"590 late")
            await until(lambda: votes(nodes, late))
        assert votes(nodes, late) == {"node-1": (Outcome.VERIFIED, "matched")}


async def test_a_claim_that_was_open_when_the_node_stopped_is_found_again_and_nothing_is_voted_twice(tmp_path: Path):
    async with make(tmp_path) as nodes:
        digest = await claim_on(nodes, b"590")
        voter = nodes.nodes[0].services.voter
        assert voter.queue == 1
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        size = nodes.nodes[0].ledger.store.size
        async with voting(nodes, 0):
            await asyncio.sleep(0.05)
        assert (voter.queue, nodes.nodes[0].ledger.store.size) == (0, size)


async def test_a_vote_is_submitted_until_the_ledger_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(voting_module, "SUBMIT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(voting_module, "RETRY_S", 0.05)
    async with make(tmp_path) as nodes:
        digest = await claim_on(nodes, b"590")
        nodes.order.failures = ["queue_full"] * 3
        nodes.order.failures_after = ["leader_changed"]
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert nodes.nodes[0].ledger.store.size == 4


async def test_a_vote_that_is_there_already_ends_the_matter(tmp_path: Path):
    async with make(tmp_path) as nodes:
        digest = await claim_on(nodes, b"590")
        message = LedgerMaker().vote_message(digest, outcome=Outcome.UNVERIFIABLE, reason="timeout")
        earlier = sealed(dataclasses.replace(message, time_s=int(time.time())), nodes.nodes[0].identity.signing)
        voter = nodes.nodes[0].services.voter
        state = nodes.nodes[0].ledger.store.claim_state(digest)
        await nodes.nodes[0].ledger.submit(earlier, timeout_s=5)
        await voter._submit(voter._vote(state, await voter._examine(state)))
        assert votes(nodes, digest) == {"node-1": (Outcome.UNVERIFIABLE, "timeout")}


async def test_one_claim_that_fails_unexpectedly_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    real = Fetcher.fetch

    async def fetch(self: Fetcher, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        if sha256 == hashlib.sha256(b"1 poison").digest():
            raise OSError("disk full")
        return await real(self, pointer, sha256, bytes_max=bytes_max)

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    async with make(tmp_path) as nodes:
        poison = await claim_on(nodes, b"1 poison")
        good = await claim_on(nodes, b"590", owner="bob")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, good))
        assert votes(nodes, poison) == {}
        assert nodes.nodes[0].services.voter.queue == 1
        assert any(record.levelname == "ERROR" for record in caplog.records)


def test_the_controls_of_a_claim_depend_on_its_entry_and_on_itself():
    seeds = {control_seed(entry, digest) for entry in (b"entry", b"other") for digest in (b"a" * 32, b"b" * 32)}
    assert len(seeds) == 4
    assert all(len(seed) == 32 for seed in seeds)
