"""A submission ends with the entry in this node's log, a refusal, or an honest "not known"; never with two entries."""

import asyncio
import gc
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes import private_key
from nodeset import NodeSet, claim, publication, sealed, vote_message

from node import database
from node import ledger as ledger_module
from node.errors import UnavailableError
from node.ledger import LedgerService, Submitted
from registry.entry import Entry
from registry.envelope import SignedMessage, message_hash
from registry.errors import MalformedError, RefusedError
from registry.messages import PolicyChange, Vote
from registry.verdict import Outcome

pytestmark = pytest.mark.long


def first(nodes: NodeSet) -> LedgerService:
    return nodes.nodes[0].ledger


async def test_a_message_gets_its_index_and_time_on_every_node(tmp_path: Path):
    envelope = publication()
    async with NodeSet(tmp_path / "ledger") as nodes:
        submitted = await first(nodes).submit(envelope, timeout_s=30)
        assert (submitted.index, submitted.message_hash, submitted.duplicate) == (1, message_hash(envelope), False)
        entries = {node.ledger.store.entry(1) for node in nodes.nodes}
        assert len(entries) == 1
        assert Entry.decode(entries.pop()) == Entry(envelope, submitted.recorded_s)


async def test_the_same_message_again_is_answered_at_once_with_its_first_index(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        before = await first(nodes).submit(publication(time_s=None), timeout_s=30)
        envelope = nodes.nodes[0].ledger.store.entry(1)
        again = await nodes.nodes[2].ledger.submit(Entry.decode(envelope).envelope, timeout_s=30)
        assert again == Submitted(
            index=1, message_hash=before.message_hash, recorded_s=before.recorded_s, duplicate=True
        )
        assert len(nodes.order.proposed) == 1


async def test_a_message_submitted_twice_at_once_is_one_entry(tmp_path: Path):
    envelope = publication()
    async with NodeSet(tmp_path / "ledger") as nodes:
        both = await asyncio.gather(*(node.ledger.submit(envelope, timeout_s=30) for node in nodes.nodes))
        assert {submitted.index for submitted in both} == {1}
        assert first(nodes).store.size == 2


@pytest.mark.parametrize("damage", ["truncated", "trailing", "empty", "too long", "text"])
async def test_malformed_bytes_never_reach_raft(tmp_path: Path, damage: str):
    good = publication()
    bad = {"truncated": good[:-1], "trailing": good + b"\0", "empty": b"", "too long": bytes(70_000), "text": b"hello"}
    async with NodeSet(tmp_path / "ledger") as nodes:
        with pytest.raises(MalformedError):
            await first(nodes).submit(bad[damage], timeout_s=30)
        assert nodes.order.proposed == []


async def test_a_bad_signature_never_reaches_raft(tmp_path: Path):
    envelope = publication(head=b"h" * 32).replace(b"h" * 32, b"g" * 32)
    async with NodeSet(tmp_path / "ledger") as nodes:
        with pytest.raises(RefusedError) as refused:
            await first(nodes).submit(envelope, timeout_s=30)
        assert refused.value.code == "bad_signature"
        assert nodes.order.proposed == []


async def test_what_the_rules_refuse_is_refused_with_their_code(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        for envelope, code in [
            (publication(time_s=1_000), "time_skew"),
            (sealed(vote(nodes, b"\0" * 32), private_key("pirate")), "not_a_member"),
            (sealed(vote(nodes, b"\0" * 32), nodes.nodes[0].identity.signing), "unknown_claim"),
        ]:
            with pytest.raises(RefusedError) as refused:
                await first(nodes).submit(envelope, timeout_s=30)
            assert refused.value.code == code
        assert first(nodes).store.size == 1


async def test_what_the_rules_certainly_refuse_never_reaches_raft(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        known = publication()
        await first(nodes).submit(known, timeout_s=30)
        before = len(nodes.order.proposed)
        for envelope, code in [
            (publication(number=1, time_s=1_000), "time_skew"),
            (publication(head=b"g" * 32), "key_commitment_used"),
            (claim(known, number=1), "key_mismatch"),
        ]:
            with pytest.raises(RefusedError) as refused:
                await first(nodes).submit(envelope, timeout_s=30)
            assert refused.value.code == code
        assert len(nodes.order.proposed) == before


async def test_what_an_entry_that_is_on_its_way_could_cure_is_left_to_raft(tmp_path: Path):
    published = publication()
    envelope = claim(published)
    async with NodeSet(tmp_path / "ledger") as nodes:
        lagging, ahead = nodes.nodes[0].ledger, [node.ledger for node in nodes.nodes[1:]]
        nodes.order.ledgers = ahead
        await ahead[0].submit(published, timeout_s=30)
        missed = nodes.order.proposed[:]
        nodes.order.ledgers = [lagging, *ahead]
        real = nodes.order.order

        def catch_up_first(*commands: bytes | None) -> None:
            lagging.store.begin()
            lagging.store.apply(1, missed[0])
            lagging.store.commit()
            real(*commands)

        nodes.order.order = catch_up_first
        assert (await lagging.submit(envelope, timeout_s=30)).index == 2


async def test_a_cluster_without_a_leader_is_asked_again_until_it_has_one(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.failures = ["no_leader", "leader_changed"]
        submitted = await first(nodes).submit(publication(), timeout_s=30)
        assert (submitted.index, len(nodes.order.proposed)) == (1, 3)


async def test_a_leader_lost_after_the_write_makes_no_second_entry(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.failures_after = ["leader_changed"]
        submitted = await first(nodes).submit(publication(), timeout_s=30)
        assert (submitted.index, first(nodes).store.size) == (1, 2)


async def test_a_proposal_that_is_never_answered_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node.ordering.PROPOSE_AGAIN_S", 0.05)
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.silent = True
        submission = asyncio.create_task(first(nodes).submit(publication(), timeout_s=10))
        while not nodes.order.proposed:
            await asyncio.sleep(0.01)
        nodes.order.silent = False
        assert (await submission).index == 1


@pytest.mark.parametrize(
    ("reason", "code"), [("no_leader", "no_leader"), ("queue_full", "queue_full"), ("leader_changed", "timeout")]
)
async def test_what_cannot_be_ordered_in_time_is_unavailable_and_says_why(tmp_path: Path, reason: str, code: str):
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.failures = [reason] * 1000
        with pytest.raises(UnavailableError) as unavailable:
            await first(nodes).submit(publication(), timeout_s=0.3)
        assert unavailable.value.code == code
        assert len(nodes.order.proposed) == (1 if reason == "queue_full" else len(nodes.order.proposed))


async def test_an_unknown_outcome_is_a_timeout_and_a_later_submission_finds_the_entry(tmp_path: Path):
    envelope = publication()
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.silent = True
        with pytest.raises(UnavailableError) as unavailable:
            await first(nodes).submit(envelope, timeout_s=0.1)
        assert unavailable.value.code == "timeout"
        nodes.order.order(nodes.order.proposed[0])
        again = await first(nodes).submit(envelope, timeout_s=30)
        assert (again.index, again.duplicate) == (1, True)


@pytest.mark.parametrize("how", ["its time is over", "whoever asked has gone"])
async def test_a_failure_that_nobody_waits_for_is_no_error(tmp_path: Path, how: str):
    unseen: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
    async with NodeSet(tmp_path / "ledger") as nodes:
        told: list[Callable[[str], None]] = []
        nodes.order.propose = lambda _command, on_failed: told.append(on_failed)
        submission = asyncio.create_task(first(nodes).submit_all([publication(), publication(number=1)], timeout_s=0.2))
        while len(told) < 2:
            await asyncio.sleep(0)
        told[0]("leader_changed")
        await asyncio.sleep(0)
        if how == "whoever asked has gone":
            submission.cancel()
        await asyncio.gather(submission, return_exceptions=True)
        told[1]("leader_changed")
        await asyncio.sleep(0)
        assert first(nodes).submissions_waiting == 0
    told.clear()
    del submission
    gc.collect()  # a future tells when it goes
    assert unseen == []


async def test_a_command_that_is_too_large_for_raft_is_malformed(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.failures = ["too_large"]
        with pytest.raises(MalformedError) as malformed:
            await first(nodes).submit(publication(), timeout_s=30)
        assert malformed.value.code == "too_large"


async def test_too_many_submissions_at_once_are_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledger_module, "SUBMISSIONS_MAX", 1)
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.silent = True
        waiting = asyncio.create_task(first(nodes).submit(publication(), timeout_s=30))
        while not nodes.order.proposed:
            await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as unavailable:
            await first(nodes).submit(publication(number=1), timeout_s=30)
        assert unavailable.value.code == "queue_full"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_each_message_of_a_batch_gets_what_it_would_get_by_itself(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        known, fresh = publication(number=0), publication(number=1)
        await first(nodes).submit(known, timeout_s=30)
        batch = [publication(number=2, time_s=1_000), known, fresh, b"hello", publication(number=3), fresh]
        early, again, new, malformed, last, twice = await first(nodes).submit_all(batch, timeout_s=30)
        assert (type(early), early.code) == (RefusedError, "time_skew")
        assert (again.index, again.duplicate) == (1, True)
        assert (new.index, new.message_hash, new.duplicate) == (2, message_hash(fresh), False)
        assert type(malformed) is MalformedError
        assert (last.index, twice) == (3, new)
        assert len(nodes.order.proposed) == 3


async def test_what_is_known_of_a_batch_is_told_though_the_rest_is_not(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        envelopes = [publication(number=number) for number in range(4)]
        nodes.order.failures = ["queue_full", "no_leader", "too_large"]
        full, late, large, last = await first(nodes).submit_all(envelopes, timeout_s=30)
        assert (full.code, type(large)) == ("queue_full", MalformedError)
        assert (last.index, late.index) == (1, 2)  # the second one was proposed again
        nodes.order.silent = True
        (unheard,) = await first(nodes).submit_all([publication(number=5)], timeout_s=0.05)
        assert (type(unheard), unheard.code) == (UnavailableError, "timeout")


async def test_one_message_that_is_not_admitted_keeps_no_other_from_the_log(tmp_path: Path):
    envelopes = [publication(number=number) for number in range(3)]
    asked = []

    def admit(signed: SignedMessage) -> None:
        asked.append(signed.hash)
        if signed.hash == message_hash(envelopes[1]):
            raise UnavailableError("too many", code="too_many_requests")

    async with NodeSet(tmp_path / "ledger") as nodes:
        one, two, three, again = await first(nodes).submit_all([*envelopes, envelopes[0]], timeout_s=30, admit=admit)
        assert (one.index, two.code, three.index, again) == (1, "too_many_requests", 2, one)
        assert asked == [message_hash(envelope) for envelope in envelopes]


async def test_a_batch_that_is_being_read_is_waited_for_before_a_stop(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        nodes.order.silent = True
        batch = [publication(number=number) for number in range(2 * ledger_module.TURN_MESSAGES)]
        submission = asyncio.create_task(first(nodes).submit_all(batch, timeout_s=30))
        await asyncio.sleep(0)  # the batch is in the middle
        assert not nodes.order.proposed
        first(nodes).refuse_submissions()
        nodes.order.silent = False
        await first(nodes).drain(30)
        assert submission.done()
        outcomes = await submission
        taken = [outcome for outcome in outcomes if isinstance(outcome, Submitted)]
        refused = {outcome.code for outcome in outcomes if not isinstance(outcome, Submitted)}
        assert (len(taken), refused) == (ledger_module.TURN_MESSAGES, {"stopping"})


async def test_nothing_waits_any_more_after_any_of_this(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await first(nodes).submit(publication(), timeout_s=30)
        nodes.order.failures = ["queue_full"]
        with pytest.raises(UnavailableError):
            await first(nodes).submit(publication(number=1), timeout_s=30)
        nodes.order.silent = True
        with pytest.raises(UnavailableError):
            await first(nodes).submit(publication(number=2), timeout_s=0.05)
        await first(nodes).submit_all([publication(number=3)] * 2, timeout_s=0.05)
        assert first(nodes).submissions_waiting == 0
        assert first(nodes)._idle.is_set()


async def test_every_applied_size_is_signed_soon(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        for number in range(5):
            await first(nodes).submit(publication(number=number), timeout_s=30)
        for node in nodes.nodes:
            assert await node.ledger.signed.wait_for(6, 30)
            texts = {node.ledger.own_note(size).text for size in range(1, 7)}
            assert len(texts) == 6


async def test_a_tree_that_contradicts_what_was_signed_stops_signing_but_not_the_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await first(nodes).submit(publication(), timeout_s=30)
        assert await first(nodes).signed.wait_for(2, 30)
        first(nodes).store.read_node = lambda _level, _position: b"\0" * 32
        submitted = await first(nodes).submit(publication(number=1), timeout_s=30)
        assert submitted.index == 2
        assert not await first(nodes).signed.wait_for(3, 0.2)
        assert "refusing to sign size 3" in first(nodes).signer.alarm
        assert [r.levelname for r in caplog.records if "signing stopped" in r.message] == ["ERROR"]


async def test_a_signers_file_that_cannot_be_used_is_an_alarm(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        assert await first(nodes).signed.wait_for(1, 30)
        first(nodes).signer.close()
        await first(nodes).submit(publication(), timeout_s=30)
        await until(lambda: first(nodes).signing_trouble)
        assert "closed" in first(nodes).signing_trouble


async def test_a_signers_file_that_is_busy_for_a_while_is_signed_into_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(ledger_module, "SIGN_RETRY_MIN_S", 0.05)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        assert await first(nodes).signed.wait_for(1, 30)
        somebody = sqlite3.connect(tmp_path / "ledger/node-1/state/signer.db", isolation_level=None)
        somebody.execute("BEGIN IMMEDIATE")
        await first(nodes).submit(publication(), timeout_s=30)
        await until(lambda: first(nodes).signing_trouble)
        somebody.execute("ROLLBACK")
        somebody.close()
        assert await first(nodes).signed.wait_for(2, 20)
        await until(lambda: first(nodes).signing_trouble is None)
        assert first(nodes).signer.alarm is None


async def test_open_claims_are_counted_without_looking_at_the_decided_ones_again(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        digests = []
        for owner in ("alice", "bob"):
            published = publication(owner)
            await first(nodes).submit(published, timeout_s=30)
            digests.append((await first(nodes).submit(claim(published, owner), timeout_s=30)).message_hash)
        assert first(nodes).claims_open() == 2
        for node in nodes.nodes[:2]:
            await first(nodes).submit(sealed(vote(nodes, digests[0]), node.identity.signing), timeout_s=30)
        assert first(nodes).claims_open() == 1
        assert first(nodes)._undecided == [digests[1]]


async def until(condition: Callable[[], object], *, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def vote(nodes: NodeSet, digest: bytes) -> Vote:
    return vote_message(nodes, digest, outcome=Outcome.UNVERIFIABLE, reason="unreachable")


def change_by(nodes: NodeSet, *signers: Ed25519PrivateKey) -> bytes:
    """A change of the policy's limits, signed by these."""
    known = first(nodes).store.set_policy
    policy = replace(known.policy, model_bytes_max=known.policy.model_bytes_max + 1)
    return sealed(PolicyChange(time_s=int(time.time()), previous=known.hash, policy=policy), *signers)


@pytest.mark.parametrize("is_current", [True, False])
async def test_a_strangers_change_of_the_policy_gets_into_no_journal_where_the_node_is_not_behind(
    tmp_path: Path, is_current: bool
):
    async def barrier(_timeout_s: float) -> bool:
        return is_current

    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await first(nodes).stop()
        first(nodes).start(nodes.order, read_barrier=barrier)
        with pytest.raises(RefusedError) as refused:
            await first(nodes).submit(change_by(nodes, private_key("mallory")), timeout_s=30)
        assert refused.value.code == "not_a_member"
        assert len(nodes.order.proposed) == (0 if is_current else 1)
        change = change_by(nodes, nodes.nodes[0].identity.signing)
        assert (await first(nodes).submit(change, timeout_s=30)).index == 1


async def test_a_change_that_was_recorded_while_the_node_caught_up_is_told_as_recorded(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        one = change_by(nodes, nodes.nodes[0].identity.signing)
        follower = PolicyChange(time_s=int(time.time()), previous=message_hash(one), policy=first(nodes).store.policy)
        later = sealed(follower, nodes.nodes[0].identity.signing)

        async def catch_up(_timeout_s: float) -> bool:
            nodes.order.order(*(Entry(envelope, int(time.time())).encode() for envelope in (one, later)))
            return True

        await first(nodes).stop()
        first(nodes).start(nodes.order, read_barrier=catch_up)
        assert (await first(nodes).submit(later, timeout_s=30)).index == 2
        assert nodes.order.proposed == []


async def test_what_the_rules_refuse_for_good_uses_up_nobodys_rate(tmp_path: Path):
    charged = []
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        for time_s, is_charged in ((int(time.time()) - 10_000, False), (None, True)):
            with suppress(RefusedError):
                await first(nodes).submit(publication(time_s=time_s), timeout_s=30, admit=charged.append)
            assert bool(charged) is is_charged
