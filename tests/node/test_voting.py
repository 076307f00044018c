"""Every claim gets this node's vote once, whatever fails on the way; the vote says what the numbers say."""

import asyncio
import errno
import hashlib
import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import safetensors
from ballots import until, upload, votes, voting
from fakes import binding, private_key
from nodeset import FAKE_WORKER, ORIGIN, NodeSet, claim, publication, sealed, vote_message

from node import claim_files as claim_files_module
from node import voting as voting_module
from node.examining import Progress
from node.fetch import Fetcher, FetchError
from node.init import ClusterOptions
from node.jobs import control_seed
from node.verifier.protocol import Answer, Job, unmeasured
from node.voting import Voter
from registry.claims import ClaimState
from registry.entry import Entry
from registry.envelope import message_hash, unseal
from registry.evidence import FORMAT
from registry.messages import Vote, Withdrawal
from registry.verdict import ControlKind, Outcome

pytestmark = pytest.mark.long


async def claim_on(
    nodes: NodeSet,
    model: bytes,
    *,
    owner: str = "alice",
    number: int = 0,
    at: tuple[int, ...] = (0,),
    published: bytes | None = None,
    evidence: bytes = b"evidence",
) -> bytes:
    """Publish, if it was not done before, upload the files to these nodes and claim; return the claim's hash."""
    for node in at:
        await upload(nodes.nodes[node], model)
        await upload(nodes.nodes[node], evidence)
    model_sha256, evidence_sha256 = hashlib.sha256(model).digest(), hashlib.sha256(evidence).digest()
    published = published or publication(owner, number=number)
    envelope = claim(
        published,
        owner,
        number=number,
        model_pointer=f"blob:sha256:{model_sha256.hex()}",
        model_sha256=model_sha256,
        evidence_pointer=f"blob:sha256:{evidence_sha256.hex()}",
        evidence_sha256=evidence_sha256,
    )
    for message in (published, envelope):
        await nodes.nodes[0].ledger.submit(message, timeout_s=5)
    return message_hash(envelope)


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


async def test_a_fetched_file_is_held_while_its_claim_is_in_work_and_may_go_afterwards(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=10) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, b"590 right")
        voter = nodes.nodes[1].services.voter
        cache, files_bytes, free_bytes = voter.means.fetcher._cache, len(b"590 right") + len(b"evidence"), []
        voter.means.verifier.verify = spied(voter.means.verifier.verify, lambda: free_bytes.append(cache.free_bytes))
        async with voting(nodes, 0, 1):
            await until(lambda: len(votes(nodes, digest)) == 2 and not voter._working)
        assert (free_bytes, cache.free_bytes) == ([2_000_000 - files_bytes], 2_000_000)
        assert (cache.bytes_total, nodes.nodes[0].services.blobs.bytes_total) == (files_bytes, files_bytes)


def spied(real: Callable[..., object], spy: Callable[[], None]) -> Callable[..., object]:
    """Look at something each time that an asynchronous function is called."""

    async def call(*arguments: object, **options: object) -> object:
        spy()
        return await real(*arguments, **options)

    return call


async def test_each_step_of_a_claim_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(voting_module, "RETRY_S", 0.05)
    async with make(tmp_path, unreachable_retry_s=60) as nodes:
        services = nodes.nodes[0].services
        voter, seen = services.voter, []
        real = Voter._show
        digest = await claim_on(nodes, b"590", at=())
        assert voter.progress(digest) is Progress.QUEUED

        def show(self: Voter, digest: bytes, progress: Progress) -> None:
            seen.append(self.progress(digest))
            real(self, digest, progress)
            seen.append(self.progress(digest))

        monkeypatch.setattr(Voter, "_show", show)
        async with voting(nodes, 0):
            await until(lambda: voter.progress(digest) is Progress.WAITING)
            await upload(nodes.nodes[0], b"590")
            await upload(nodes.nodes[0], b"evidence")
            await until(lambda: votes(nodes, digest) and not voter._working)
        assert seen == [Progress.FETCHING, Progress.FETCHED, Progress.FETCHED, Progress.VERIFYING]
        assert voter.progress(digest) is Progress.VOTED
        withdrawn = await claim_on(nodes, b"580", owner="bob", at=())
        withdrawal = Withdrawal(time_s=int(time.time()), target=withdrawn, reason="mistake")
        await nodes.nodes[0].ledger.submit(sealed(withdrawal, private_key("bob")), timeout_s=5)
        assert voter.progress(withdrawn) is Progress.CLOSED


async def test_a_file_that_was_damaged_on_this_nodes_disk_is_fetched_again_and_no_vote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(voting_module, "TROUBLE_AGAIN_S", 0.05)
    async with make(tmp_path, unreachable_retry_s=60) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, b"590 right")
        voter, damaged = nodes.nodes[1].services.voter, []
        real = voter.means.verifier.verify

        async def verify(job: Job, **options: object) -> Answer:
            if not damaged:
                damaged.append(Path(job.model_path))
                return unmeasured(Outcome.UNVERIFIABLE, "hash_mismatch", "flipped bit")
            return await real(job, **options)

        voter.means.verifier.verify = verify
        async with voting(nodes, 1):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-2": (Outcome.VERIFIED, "matched")}


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
        first = await claim_on(nodes, b"590")
        voter = nodes.nodes[0].services.voter
        assert voter.queue == 1
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, first))
        second = await claim_on(nodes, b"580", owner="bob")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, second))
        proposed = [unseal(Entry.decode(raw).envelope, origin=ORIGIN).message for raw in nodes.order.proposed]
        assert [message.claim for message in proposed if isinstance(message, Vote)] == [first, second]
        assert voter.queue == 0


async def test_a_claim_that_comes_while_the_node_looks_for_claims_does_not_wait_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(voting_module, "IDLE_S", 60.0)
    monkeypatch.setattr(voting_module, "LANES", 1)
    published = publication()
    digest = hashlib.sha256(b"590").digest()
    commands = [
        Entry(envelope, int(time.time())).encode()
        for envelope in (published, claim(published, model_sha256=digest, model_pointer=f"blob:sha256:{digest.hex()}"))
    ]
    real = Voter._next

    def next_and_then_a_claim(self: Voter) -> ClaimState | None:
        found = real(self)
        if commands:
            nodes.order.order(*commands)
            commands.clear()
        return found

    monkeypatch.setattr(Voter, "_next", next_and_then_a_claim)
    async with make(tmp_path) as nodes, voting(nodes, 0):
        store = nodes.nodes[0].ledger.store
        await until(lambda: store.claims() and votes(nodes, store.claims()[0]))
        assert votes(nodes, store.claims()[0]) == {"node-1": (Outcome.UNVERIFIABLE, "unreachable")}


async def test_a_delayed_claim_that_is_withdrawn_leaves_nothing_to_wait_for(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=60) as nodes:
        digest = await claim_on(nodes, b"590", at=())
        voter = nodes.nodes[0].services.voter
        async with voting(nodes, 0):
            await until(lambda: voter._delays)
            withdrawal = Withdrawal(time_s=int(time.time()), target=digest, reason="mistake")
            await nodes.nodes[0].ledger.submit(sealed(withdrawal, private_key("alice")), timeout_s=5)
            await until(lambda: not voter._delays)
        assert (voter._pause_s(), voter.queue, votes(nodes, digest)) == (voting_module.IDLE_S, 0, {})


@pytest.mark.parametrize("reason", ["timeout", "hash_mismatch", "unreachable"])
async def test_what_may_pass_is_tried_again_before_it_becomes_a_vote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
):
    monkeypatch.setattr(voting_module, "RETRY_S", 0.01)
    faults = [FetchError(reason, "for the moment", may_pass=True)] * 3
    fail_first(monkeypatch, faults)
    async with make(tmp_path, unreachable_retry_s=30) as nodes:
        digest = await claim_on(nodes, b"590")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.VERIFIED, "matched")}


async def test_what_cannot_pass_is_voted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fail_first(monkeypatch, [FetchError("unsupported_pointer", "ftp")])
    async with make(tmp_path, unreachable_retry_s=3600) as nodes:
        digest = await claim_on(nodes, b"590")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.UNVERIFIABLE, "unsupported_pointer")}


def fail_first(monkeypatch: pytest.MonkeyPatch, faults: list[Exception]) -> None:
    """Let the first fetches fail."""
    real = Fetcher.fetch

    async def fetch(self: Fetcher, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        if faults:
            raise faults.pop()
        return await real(self, pointer, sha256, bytes_max=bytes_max)

    monkeypatch.setattr(Fetcher, "fetch", fetch)


async def test_a_full_disk_is_an_alarm_and_no_vote_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(voting_module, "TROUBLE_AGAIN_S", 0.1)
    disk = [OSError(errno.ENOSPC, "no space left")] * 3
    fail_first(monkeypatch, disk)
    async with make(tmp_path) as nodes:
        digest = await claim_on(nodes, b"590")
        voter = nodes.nodes[0].services.voter
        async with voting(nodes, 0):
            await until(lambda: voter.alarm)
            assert "no space left" in voter.alarm
            await until(lambda: votes(nodes, digest))
            await until(lambda: voter.alarm is None)
        assert votes(nodes, digest) == {"node-1": (Outcome.VERIFIED, "matched")}


async def test_a_verifier_that_does_not_start_is_an_alarm_and_no_vote(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", command=("false",)) as nodes:
        digest = await claim_on(nodes, b"590")
        services = nodes.nodes[0].services
        async with voting(nodes, 0):
            await until(lambda: services.voter.alarm)
        assert "did not start" in services.verifier.alarm
        assert (votes(nodes, digest), services.voter.queue) == ({}, 1)


async def test_the_time_of_this_nodes_own_trouble_does_not_count_against_the_claims_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with make(tmp_path, unreachable_retry_s=60) as nodes:
        digest = await claim_on(nodes, b"590")
        voter, now_s = nodes.nodes[0].services.voter, time.monotonic()
        gone = FetchError("unreachable", "gone", may_pass=True)
        voter._put_off(digest, 1)
        monkeypatch.setattr(voting_module.time, "monotonic", lambda: now_s + 1000)
        assert voter._may_wait(digest, gone)
        monkeypatch.setattr(voting_module.time, "monotonic", lambda: now_s + 1061)
        assert not voter._may_wait(digest, gone)


async def test_a_clock_that_runs_ahead_for_a_while_loses_no_claim(tmp_path: Path):
    async with make(tmp_path) as nodes:
        await claim_on(nodes, b"590")
        voter = nodes.nodes[0].services.voter
        voter._clock = lambda: time.time() + 10**9
        assert voter.queue == 0
        voter._clock = time.time
        assert voter.queue == 1


async def test_one_owners_slow_files_do_not_hold_up_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, never, slow = Fetcher.fetch, asyncio.Event(), set()

    async def fetch(self: Fetcher, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        if sha256 in slow:
            await never.wait()
        return await real(self, pointer, sha256, bytes_max=bytes_max)

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    async with make(tmp_path) as nodes:
        models = [b"590 slow %d" % number for number in range(5)]
        slow |= {hashlib.sha256(model).digest() for model in models}
        for number, model in enumerate(models):
            await claim_on(nodes, model, number=number)
        voter = nodes.nodes[0].services.voter
        async with voting(nodes, 0):
            await until(lambda: len(voter._working) >= voting_module.OWNER_LANES_MAX)
            prompt = await claim_on(nodes, b"580 prompt", owner="bob")
            await until(lambda: votes(nodes, prompt), timeout_s=20)
            await until(lambda: len(voter._working) == voting_module.OWNER_LANES_MAX)  # the lane hears of it later
            assert voter.queue == 5


async def test_slow_servers_of_a_crowd_do_not_hold_up_who_has_uploaded_his_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, never = Fetcher.fetch, asyncio.Event()

    async def fetch(self: Fetcher, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        if pointer.startswith("https:"):
            await never.wait()
        return await real(self, pointer, sha256, bytes_max=bytes_max)

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    async with make(tmp_path) as nodes:
        node = nodes.nodes[0]
        for number in range(2 * voting_module.LANES):
            owner = f"sybil-{number}"
            published = publication(owner)
            for message in (published, claim(published, owner, evidence_pointer="https://slow.example/e")):
                await node.ledger.submit(message, timeout_s=5)
        async with voting(nodes, 0):
            await until(lambda: len(node.services.voter._working) == voting_module.OUTSIDE_LANES_MAX)
            prompt = await claim_on(nodes, b"580 prompt", owner="bob")
            await until(lambda: votes(nodes, prompt), timeout_s=20)
            assert len(node.services.voter._working) >= voting_module.OUTSIDE_LANES_MAX


def noted_order(voter: Voter) -> list[bytes]:
    """Have a voter's verifications only noted, by their watermark keys as they begin."""
    order: list[bytes] = []

    async def verify(job: Job, *, on_begun: Callable[[], None]) -> Answer:
        on_begun()
        order.append(job.watermark_key)
        return unmeasured(Outcome.UNVERIFIABLE, "timeout")

    voter.means.verifier.verify = verify
    return order


async def test_a_hundred_claims_of_one_owner_do_not_starve_the_one_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with make(tmp_path) as nodes:
        order = noted_order(nodes.nodes[0].services.voter)
        owners = {name: binding(name, origin=ORIGIN, number=0).watermark_key for name in "abcdef"}
        for owner in "abcde":  # more owners than lanes, each with more claims than all lanes
            for number in range(20 if owner == "a" else 5):
                await claim_on(nodes, b"590", owner=owner, number=number)
        last = await claim_on(nodes, b"590", owner="f")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, last))
        assert order.index(owners["f"]) <= 2 * len(owners), "each owner had a turn or two before the newcomer's"


async def test_a_crowd_of_new_keys_does_not_come_before_who_published_earlier(tmp_path: Path):
    async with make(tmp_path) as nodes:
        order = noted_order(nodes.nodes[0].services.voter)
        early = publication("early")
        await nodes.nodes[0].ledger.submit(early, timeout_s=5)
        for number in range(12):
            await claim_on(nodes, b"590", owner=f"sybil-{number}")
        last = await claim_on(nodes, b"590", owner="early", published=early)
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, last))
        assert order.index(binding("early", origin=ORIGIN, number=0).watermark_key) < voting_module.LANES


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
        message = vote_message(nodes, digest, outcome=Outcome.UNVERIFIABLE, reason="timeout")
        earlier = sealed(message, nodes.nodes[0].identity.signing)
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
            raise ZeroDivisionError("a bug")
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


def declaring(base: bytes, *nulls: bytes) -> bytes:
    """Evidence that declares a base and null models; of evidence a node itself reads no more."""
    hashes = sorted(hashlib.sha256(null).hexdigest() for null in nulls)
    declared = {"base_sha256": hashlib.sha256(base).hexdigest()} | ({"nulls_sha256": hashes} if nulls else {})
    info = json.dumps(declared, separators=(",", ":"))
    metadata = {"format": FORMAT, "salt": "00" * 32, "info": info}
    return safetensors.serialize({}, metadata)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (b"300 as chance has it", (Outcome.VERIFIED, "matched")),
        (b"580 of its own", (Outcome.REFUTED, "shared_ancestor")),
    ],
)
async def test_the_base_that_the_evidence_declares_is_fetched_by_every_node_and_counted(
    tmp_path: Path, base: bytes, expected: tuple[Outcome, str]
):
    async with make(tmp_path, unreachable_retry_s=10) as nodes:
        await nodes.serve()
        await upload(nodes.nodes[0], base)
        digest = await claim_on(nodes, b"590 right", evidence=declaring(base))
        async with voting(nodes, 0, 1, 2):
            await until(lambda: len(votes(nodes, digest)) == 3)
        assert set(votes(nodes, digest).values()) == {expected}
        vote = nodes.nodes[0].ledger.store.claim_state(digest).votes["node-3"].signed.message
        counted = [control.matched for control in vote.measurement.controls if control.kind is ControlKind.BASE]
        assert counted == [int(base.split()[0])]


async def test_evidence_without_a_base_needs_none(tmp_path: Path):
    async with make(tmp_path) as nodes:
        digest = await claim_on(nodes, b"590 right")
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        vote = nodes.nodes[0].ledger.store.claim_state(digest).votes["node-1"].signed.message
        assert {control.kind for control in vote.measurement.controls} == {ControlKind.FRESH}


async def test_who_declares_a_base_and_keeps_it_to_himself_gets_no_verdict_for_it(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=1) as nodes:
        digest = await claim_on(nodes, b"590 right", evidence=declaring(b"300 withheld"))
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.UNVERIFIABLE, "base_unreachable")}


async def test_a_base_that_turns_up_in_time_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(voting_module, "RETRY_S", 0.1)
    async with make(tmp_path, unreachable_retry_s=60) as nodes:
        voter, base = nodes.nodes[0].services.voter, b"300 late"
        digest = await claim_on(nodes, b"590 right", evidence=declaring(base))
        async with voting(nodes, 0):
            await until(lambda: voter.progress(digest) is Progress.WAITING)
            await upload(nodes.nodes[0], base)
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.VERIFIED, "matched")}


async def test_a_base_larger_than_a_model_may_be_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base, real = b"300 " + bytes(1000), Fetcher.fetch

    async def fetch(self: Fetcher, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        return await real(self, pointer, sha256, bytes_max=min(bytes_max, 1000))

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    async with make(tmp_path) as nodes:
        await upload(nodes.nodes[0], base)
        digest = await claim_on(nodes, b"590 right", evidence=declaring(base))
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.UNVERIFIABLE, "base_unusable")}


async def test_declared_models_have_a_size_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limits, real = [], Fetcher.fetch

    async def fetch(self: Fetcher, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        limits.append(bytes_max)
        return await real(self, pointer, sha256, bytes_max=bytes_max)

    base, null = b"300 ", b"5 null"
    monkeypatch.setattr(Fetcher, "fetch", fetch)
    async with make(tmp_path) as nodes:
        room = Fraction(len(base) + len(null) - 1, nodes.nodes[0].ledger.store.policy.model_bytes_max)
        monkeypatch.setattr(claim_files_module, "DECLARED_MODELS_MAX", room)
        for file in (base, null):
            await upload(nodes.nodes[0], file)
        digest = await claim_on(nodes, b"590 right", evidence=declaring(base, null))
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest) == {"node-1": (Outcome.UNVERIFIABLE, "base_unusable")}
    assert limits[-2:] == [len(base) + len(null) - 1, len(null) - 1]


async def test_a_fetched_base_is_held_while_its_claim_is_in_work(tmp_path: Path):
    async with make(tmp_path, unreachable_retry_s=10) as nodes:
        await nodes.serve(0)
        base = b"300 held"
        evidence = declaring(base)
        await upload(nodes.nodes[0], base)
        digest = await claim_on(nodes, b"590 right", evidence=evidence)
        voter, free_bytes = nodes.nodes[1].services.voter, []
        cache = voter.means.fetcher._cache
        voter.means.verifier.verify = spied(voter.means.verifier.verify, lambda: free_bytes.append(cache.free_bytes))
        async with voting(nodes, 0, 1):
            await until(lambda: len(votes(nodes, digest)) == 2 and not voter._working)
        held_bytes = len(b"590 right") + len(evidence) + len(base)
        assert (free_bytes, cache.free_bytes) == ([2_000_000 - held_bytes], 2_000_000)
