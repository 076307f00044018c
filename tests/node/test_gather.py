"""A quorum's word is collected from the peers, and no line is used that does not hold on this node's own tree."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from fakes import good_measurement, private_key
from nodeset import ORIGIN, NodeSet, claim, publication, sealed, vote_message

from node import gather as gather_module
from node.errors import SelfCheckError
from registry.certificate import verify_certificate
from registry.checkpoint import Checkpoint
from registry.entry import Entry
from registry.envelope import message_hash
from registry.errors import QuorumError, RefusedError
from registry.messages import PolicyChange
from registry.note import Note, cosign, sign
from registry.receipt import Receipt, verify_receipt, verify_under
from registry.trust import TrustedCheckpoint, TrustPolicy
from registry.verdict import Outcome

pytestmark = pytest.mark.long


def peer_app(answer: Callable[[int], web.Response]) -> web.Application:
    """A peer that answers a request for its checkpoint of a size as it likes."""

    async def own(request: web.Request) -> web.Response:
        return answer(int(request.match_info["size"]))

    app = web.Application()
    app.add_routes([web.get("/v1/checkpoints/{size}", own)])
    return app


async def submit(nodes: NodeSet, count: int = 1, *, first: int = 0) -> None:
    for number in range(first, first + count):
        await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=30)


async def test_a_receipt_verifies_offline(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        await submit(nodes, 3)
        receipt = await nodes.nodes[0].services.gatherer.receipt(2, timeout_s=30)
        verified = verify_receipt(Receipt.parse(receipt), nodes.trust)
        assert verified.index == 2
        assert verified.trusted.checkpoint.size in {3, 4}  # 3 where the machine was too slow for 4 to be of its time
        assert len(verified.trusted.times_s) >= 2


async def test_entries_that_come_together_share_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        ledger, gatherer = nodes.nodes[0].ledger, nodes.nodes[0].services.gatherer
        now_s = int(time.time())
        monkeypatch.setattr(ledger, "_clock", lambda: now_s)
        asked: list[int] = []
        gather = gatherer._gather

        async def counting(size: int) -> Note:
            asked.append(size)
            return await gather(size)

        monkeypatch.setattr(gatherer, "_gather", counting)
        await submit(nodes, 6)
        receipts = await asyncio.gather(*(gatherer.receipt(index, timeout_s=30) for index in range(1, 7)))
        assert asked == [7]
        for index, text in enumerate(receipts, start=1):
            verified = verify_receipt(Receipt.parse(text), nodes.trust)
            assert (verified.index, verified.trusted.checkpoint.size) == (index, 7)


async def test_an_old_entry_is_not_shown_on_a_checkpoint_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        await submit(nodes, 2)
        for node in nodes.nodes:
            assert await node.ledger.signed.wait_for(3, 30)
            for part in (node.ledger, node.ledger.signer):
                monkeypatch.setattr(part, "_clock", lambda: time.time() + 60)
        await submit(nodes, 1, first=2)
        gatherer = nodes.nodes[0].services.gatherer
        assert await gatherer.quorum_note(4, timeout_s=30)
        old, new = [Receipt.parse(await gatherer.receipt(index, timeout_s=30)) for index in (1, 3)]
        assert [verify_receipt(one, nodes.trust).trusted.checkpoint.size for one in (old, new)] == [2, 4]


async def test_one_peer_is_enough_for_a_quorum_of_two(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(2)
        await submit(nodes)
        note = await nodes.nodes[0].services.gatherer.quorum_note(2, timeout_s=30)
        assert set(nodes.trust.check(note).times_s) == {"node-1", "node-3"}


async def test_a_node_alone_in_its_ledger_is_its_own_quorum(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await submit(nodes)
        note = await nodes.nodes[0].services.gatherer.quorum_note(2, timeout_s=30)
        assert set(nodes.trust.check(note).times_s) == {"node-1"}


async def test_without_peers_there_is_no_quorum(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await submit(nodes)
        with pytest.raises(QuorumError):
            await nodes.nodes[0].services.gatherer.quorum_note(2, timeout_s=0.4)
        with pytest.raises(QuorumError):
            await nodes.nodes[0].services.gatherer.quorum_note(9, timeout_s=0.1)


async def test_a_gathered_note_outlives_the_peers(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        await submit(nodes)
        before = await nodes.nodes[0].services.gatherer.quorum_note(2, timeout_s=30)
    async with _again(nodes) as alone:
        after = await alone.nodes[0].services.gatherer.quorum_note(2, timeout_s=0.1)
        assert set(str(before).splitlines()) <= set(str(after).splitlines())


async def test_many_requests_for_one_size_are_one_collection(tmp_path: Path):
    asked = []

    async with NodeSet(tmp_path / "ledger") as nodes:

        def answer(size: int) -> web.Response:
            asked.append(size)
            return web.Response(text=str(nodes.nodes[1].ledger.own_note(size)))

        await nodes.serve_app(nodes.nodes[1], peer_app(answer))
        await submit(nodes)
        assert await nodes.nodes[1].ledger.signed.wait_for(2, 30)
        gatherer = nodes.nodes[0].services.gatherer
        notes = await asyncio.gather(*(gatherer.quorum_note(2, timeout_s=30) for _ in range(20)))
        assert len({str(note) for note in notes}) == 1
        assert asked == [2]


async def test_one_caller_who_gives_up_does_not_end_the_collection_for_the_others(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await submit(nodes)
        gatherer = nodes.nodes[0].services.gatherer
        patient = asyncio.create_task(gatherer.quorum_note(2, timeout_s=10))
        with pytest.raises(QuorumError):
            await gatherer.quorum_note(2, timeout_s=0.05)
        await nodes.serve(1)
        assert await patient


LIES = ["another tree", "another size", "bad cosignature", "no cosignature", "a stranger's", "not a note", "too long"]


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_peer_is_not_used_and_is_logged(tmp_path: Path, lie: str, caplog: pytest.LogCaptureFixture):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve_app(nodes.nodes[1], peer_app(lambda size: web.Response(body=_lie(nodes, lie, size))))
        await submit(nodes, 2)
        for node in nodes.nodes:
            assert await node.ledger.signed.wait_for(3, 30)
        gatherer = nodes.nodes[0].services.gatherer
        with pytest.raises(QuorumError):
            await gatherer.quorum_note(3, timeout_s=0.1)
        await until(lambda: any("was not used" in record.message for record in caplog.records))
        is_fork = lie in {"another tree", "another size"}
        assert any(record.message.startswith("fork") for record in caplog.records) == is_fork
        await nodes.serve(2)
        assert set(nodes.trust.check(await gatherer.quorum_note(3, timeout_s=30)).times_s) == {"node-1", "node-3"}


async def until(condition: Callable[[], object], *, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def _lie(nodes: NodeSet, lie: str, size: int) -> bytes:
    """What a dishonest node-2 answers; it has its own keys."""
    liar = nodes.nodes[1]
    honest, keys, origin = liar.ledger.own_note(size), liar.identity, nodes.trust.origin
    forged = str(Checkpoint(origin=origin, size=size, root=b"\x66" * 32))
    if lie == "another tree":
        log = sign(forged, name=origin, private_key=keys.note)
        own = cosign(forged, name=f"{origin}/node-2", private_key=keys.cosigner, timestamp_s=1)
        return str(Note(forged, (log, own))).encode()
    if lie == "another size":
        return str(liar.ledger.own_note(size - 1)).encode()
    if lie == "bad cosignature":
        own = cosign(forged, name=f"{origin}/node-2", private_key=keys.cosigner, timestamp_s=1)
        return str(Note(honest.text, (honest.signatures[0], own))).encode()
    if lie == "no cosignature":
        return str(Note(honest.text, honest.signatures[:1])).encode()
    if lie == "a stranger's":
        stranger = private_key("stranger")
        log = sign(honest.text, name=origin, private_key=stranger)
        own = cosign(honest.text, name=f"{origin}/node-2", private_key=stranger, timestamp_s=1)
        return str(Note(honest.text, (log, own))).encode()
    return b"\xff\xfe" if lie == "not a note" else b"x" * 200_000


async def test_the_latest_note_falls_back_to_the_last_one_that_was_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gather_module, "LATEST_TIMEOUT_S", 0.3)
    async with NodeSet(tmp_path / "ledger") as nodes:
        gatherer = nodes.nodes[0].services.gatherer
        with pytest.raises(QuorumError):
            await gatherer.latest_note()
        await nodes.serve_app(nodes.nodes[1], peer_app(lambda size: _only_up_to(nodes, size, 2)))
        await submit(nodes, 1)
        assert await nodes.nodes[1].ledger.signed.wait_for(2, 30)
        await gatherer.quorum_note(2, timeout_s=30)
        assert nodes.trust.check(await gatherer.latest_note()).checkpoint.size == 2
        await submit(nodes, 3, first=1)
        assert nodes.trust.check(await gatherer.latest_note()).checkpoint.size == 2


def _only_up_to(nodes: NodeSet, size: int, last: int) -> web.Response:
    note = nodes.nodes[1].ledger.own_note(size) if size <= last else None
    return web.Response(text=str(note)) if note else web.Response(status=404)


async def test_a_certificate_of_a_verified_claim_tells_the_whole_story(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        digest = await _claimed(nodes)
        gatherer = nodes.nodes[0].services.gatherer
        with pytest.raises(RefusedError) as still_open:
            await gatherer.certificate(digest, timeout_s=30)
        await _vote(nodes, digest, 1, 2)
        story = verify_certificate(await gatherer.certificate(digest, timeout_s=30), nodes.trust)
        assert still_open.value.code == "open"
        assert (story.claim_hash, story.publication_index, story.claim_index) == (digest, 1, 2)
        assert [vote.member for vote in story.votes] == ["node-1", "node-2"]
        await submit(nodes, 3, first=1)
        later = verify_certificate(await gatherer.certificate(digest, timeout_s=30), nodes.trust)
        assert later.claim_hash == digest
        assert later.published.not_after_s <= story.published.not_after_s  # more cosignatures may have come since


async def test_a_certificate_waits_until_the_deciding_vote_is_on_the_disk(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        digest = await _claimed(nodes)
        await _vote(nodes, digest, 1)
        ahead, gatherer = nodes.nodes[0].ledger, nodes.nodes[0].services.gatherer
        nodes.order.ledgers = [node.ledger for node in nodes.nodes[1:]]
        deciding = Entry(_sealed_vote(nodes, digest, 2), int(time.time())).encode()
        nodes.order.order(deciding)
        ahead.store.begin()
        ahead.store.apply(ahead.store.applied_index + 1, deciding)
        with pytest.raises(RefusedError) as still_open:
            await gatherer.certificate(digest, timeout_s=30)
        assert still_open.value.code == "open"
        ahead.store.commit()
        ahead.on_applied()
        story = verify_certificate(await gatherer.certificate(digest, timeout_s=30), nodes.trust)
        assert [vote.member for vote in story.votes] == ["node-1", "node-2"]


async def test_a_receipt_that_does_not_hold_stays_here_and_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await submit(nodes, 2)
        gatherer, store = nodes.nodes[0].services.gatherer, nodes.nodes[0].ledger.store
        good = await gatherer.receipt(1, timeout_s=30)
        right, store.entries_at = store.entries_at, lambda indexes: dict.fromkeys(indexes, store.entry(1))
        for failures in (1, 2):
            with pytest.raises(SelfCheckError):
                await gatherer.receipt(2, timeout_s=30)
            assert gatherer.self_check_failures == failures
        assert "would not accept" in caplog.text
        store.entries_at = right
        assert await gatherer.receipt(1, timeout_s=30) == good
        assert verify_receipt(Receipt.parse(await gatherer.receipt(2, timeout_s=30)), nodes.trust).index == 2
        assert gatherer.self_check_failures == 2


async def test_a_certificate_that_does_not_hold_stays_here_and_is_counted(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        digest = await _claimed(nodes)
        await _vote(nodes, digest, 1)
        gatherer, store = nodes.nodes[0].services.gatherer, nodes.nodes[0].ledger.store
        whole = store.certificate_entries
        store.certificate_entries = lambda claim: whole(claim)[:-1]
        with pytest.raises(SelfCheckError):
            await gatherer.certificate(digest, timeout_s=30)
        store.certificate_entries = whole
        assert verify_certificate(await gatherer.certificate(digest, timeout_s=30), nodes.trust).claim_hash == digest
        assert gatherer.self_check_failures == 1


async def test_receipts_of_entries_that_came_together_show_one_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gather_module, "RECEIPT_LATE_S_MAX", 3600)  # however slow the machine is
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        envelopes = [publication(number=number) for number in range(2 * gather_module.TURN_RECEIPTS)]
        done = await nodes.nodes[0].ledger.submit_all(envelopes, timeout_s=30)
        indexes = [one.index for one in done]
        gatherer = nodes.nodes[0].services.gatherer
        await gatherer.quorum_note(2, timeout_s=30)  # which has the first entry alone
        receipts = await gatherer.receipts([*indexes, indexes[0]], timeout_s=30)
        verified = {index: verify_receipt(Receipt.parse(text), nodes.trust) for index, text in receipts.items()}
        assert {index: one.signed.hash for index, one in verified.items()} == {
            one.index: message_hash(envelope) for one, envelope in zip(done, envelopes, strict=True)
        }
        assert {one.trusted.checkpoint.size for one in verified.values()} == {len(envelopes) + 1}
        assert receipts[1] == await gatherer.receipt(1, timeout_s=30)


async def test_receipts_of_old_and_new_entries_each_show_a_checkpoint_of_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock_s = [int(time.time())]
    monkeypatch.setattr(time, "time", lambda: float(clock_s[0]))
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        await submit(nodes, 2)
        gatherer = nodes.nodes[0].services.gatherer
        await gatherer.quorum_note(3, timeout_s=30)
        clock_s[0] += gather_module.RECEIPT_LATE_S_MAX + 1
        await submit(nodes, 2, first=2)
        receipts = await gatherer.receipts([1, 4, 2, 3], timeout_s=30)
        verified = {index: verify_receipt(Receipt.parse(text), nodes.trust) for index, text in receipts.items()}
        assert {i: one.trusted.checkpoint.size for i, one in verified.items()} == {1: 3, 2: 3, 3: 5, 4: 5}


async def test_a_receipt_that_does_not_hold_spoils_no_other(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await submit(nodes, 3)
        gatherer, store = nodes.nodes[0].services.gatherer, nodes.nodes[0].ledger.store
        right = store.entries_at
        store.entries_at = lambda indexes: {**right(indexes), 2: store.entry(1)}
        receipts = await gatherer.receipts([1, 2, 3], timeout_s=30)
        assert isinstance(receipts.pop(2), SelfCheckError)
        assert {index: verify_receipt(Receipt.parse(text), nodes.trust).index for index, text in receipts.items()} == {
            1: 1,
            3: 3,
        }


async def test_without_a_quorum_many_entries_wait_no_longer_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await submit(nodes, 5)
        gatherer, waited_s = nodes.nodes[0].services.gatherer, []
        behind = gatherer._note_behind

        async def counting(index: int, recorded_s: int, *, timeout_s: float) -> Note:
            waited_s.append(timeout_s)
            return await behind(index, recorded_s, timeout_s=timeout_s)

        monkeypatch.setattr(gatherer, "_note_behind", counting)
        receipts = await gatherer.receipts(range(1, 6), timeout_s=0.2)
        assert [type(receipt) for receipt in receipts.values()] == [QuorumError] * 5
        assert len(waited_s) == 5
        assert sum(waited_s) <= 0.2


async def test_a_receipt_is_checked_once_and_again_when_the_members_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checked = []

    def check(receipt: Receipt, trusted: TrustedCheckpoint, **how: object) -> object:
        checked.append(receipt.index)
        return verify_under(receipt, trusted, **how)

    monkeypatch.setattr(gather_module, "verify_under", check)
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        await submit(nodes, 2)
        gatherer, store = nodes.nodes[0].services.gatherer, nodes.nodes[0].ledger.store
        for index in (1, 1, 2, 1, 2):
            await gatherer.receipt(index, timeout_s=30)
        assert checked == [1, 2]
        remaining = dataclasses.replace(store.policy, members=store.policy.members[:2])
        genesis = message_hash(Entry.decode(store.entry(0)).envelope)
        change = PolicyChange(time_s=int(time.time()), previous=genesis, policy=remaining)
        envelope = sealed(change, *(node.identity.signing for node in nodes.nodes))
        await nodes.nodes[0].ledger.submit(envelope, timeout_s=30)
        receipt = await gatherer.receipt(1, timeout_s=30)
        assert checked == [1, 2, 1]
        assert verify_receipt(Receipt.parse(receipt), TrustPolicy.of(remaining, ORIGIN)).index == 1


async def test_the_latest_checkpoint_is_known_after_a_restart(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        assert nodes.nodes[0].services.gatherer.latest is None
        await submit(nodes, 2)
        await nodes.nodes[0].services.gatherer.quorum_note(3, timeout_s=30)
        await nodes.nodes[0].services.gatherer.quorum_note(2, timeout_s=30)
        assert nodes.nodes[0].services.gatherer.latest_size == 3
    async with _again(nodes) as alone:
        assert alone.nodes[0].services.gatherer.latest_size == 3


async def test_a_node_that_has_left_does_not_count_itself(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(1, 2)
        store = nodes.nodes[0].ledger.store
        remaining = dataclasses.replace(store.policy, members=store.policy.members[1:])
        genesis = message_hash(Entry.decode(store.entry(0)).envelope)
        change = PolicyChange(time_s=int(time.time()), previous=genesis, policy=remaining)
        envelope = sealed(change, *(node.identity.signing for node in nodes.nodes))
        await nodes.nodes[0].ledger.submit(envelope, timeout_s=30)
        note = await nodes.nodes[0].services.gatherer.quorum_note(2, timeout_s=30)
        assert set(TrustPolicy.of(remaining, ORIGIN).check(note).times_s) == {"node-2", "node-3"}


async def test_there_is_no_certificate_of_a_claim_that_is_unknown_refuted_or_superseded(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        owner = await _claimed(nodes)
        pirate = await _claimed(nodes, "pirate")
        failed = await _claimed(nodes, "carol", model_sha256=b"\x33" * 32, model_pointer="https://a/b")
        await _vote(nodes, pirate, 1, 2)
        await _vote(nodes, owner, 1, 2)
        await _vote(nodes, failed, 1, 2, outcome=Outcome.UNVERIFIABLE)
        codes = {}
        for name, digest in {"?": b"\0" * 32, "pirate": pirate, "failed": failed}.items():
            with pytest.raises(RefusedError) as refused:
                await nodes.nodes[0].services.gatherer.certificate(digest, timeout_s=30)
            codes[name] = refused.value.code
        assert codes == {"?": "not_found", "pirate": "superseded", "failed": "not_verified"}
        assert verify_certificate(await nodes.nodes[0].services.gatherer.certificate(owner, timeout_s=30), nodes.trust)


async def _claimed(nodes: NodeSet, owner: str = "alice", **fields: object) -> bytes:
    published = publication(owner)
    envelope = claim(published, owner, **fields)
    for message in (published, envelope):
        await nodes.nodes[0].ledger.submit(message, timeout_s=30)
    return message_hash(envelope)


async def _vote(nodes: NodeSet, digest: bytes, *numbers: int, outcome: Outcome = Outcome.VERIFIED) -> None:
    verified = outcome is Outcome.VERIFIED
    message = vote_message(
        nodes,
        digest,
        outcome=outcome,
        reason="matched" if verified else "unreachable",
        measurement=good_measurement() if verified else None,
    )
    for number in numbers:
        envelope = sealed(message, nodes.nodes[number - 1].identity.signing)
        await nodes.nodes[0].ledger.submit(envelope, timeout_s=30)


def _sealed_vote(nodes: NodeSet, digest: bytes, number: int) -> bytes:
    return sealed(vote_message(nodes, digest, measurement=good_measurement()), nodes.nodes[number - 1].identity.signing)


def _again(nodes: NodeSet) -> NodeSet:
    """The same directories, opened once more."""
    again = object.__new__(NodeSet)
    again.__dict__.update(nodes.__dict__)
    again.nodes = []
    return again
