"""Promises: what touches a watched thing is told, with what it leads to, and no more; a verdict by proven votes."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from fakes import private_key, public_key

from client.api import open_ledger
from client.bundle import Bundle
from client.keystore import load_signing_key
from client.memory import Memory
from client.transport import Timing
from client.watch.asking import read_watched
from client.watch.cursor import Cursor
from client.watch.events import DOCUMENT_BYTES_MAX, Event
from client.watch.watched import Watched
from client.watch.watching import Pace, watch
from registry.envelope import seal
from registry.errors import QuorumError
from registry.messages import Challenge, Rotation, Withdrawal


@pytest.fixture
def tell(ledger, tmp_path: Path) -> Callable[..., list[Event]]:
    """The events for what is watched, from an index on."""

    def look(
        *what: object,
        owners: tuple[str, ...] = (),
        kinds: tuple[str, ...] = (),
        with_policy: bool = False,
        start: int = 0,
        cursors: list[Cursor] | None = None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> list[Event]:
        whats = [str(one) for one in what]
        keys = [bytes.fromhex(owner) for owner in owners]
        watched = read_watched(whats, keys, kinds=kinds, with_policy=with_policy, origin=ledger.trust.origin)

        async def run() -> list[Event]:
            async with open_ledger(ledger.trust, Timing(patience_s=0.2)) as api:
                cursor = cursors[-1] if cursors else None
                steps = watch(
                    api, Memory(tmp_path / "m"), watched, cursor, start=start, pace=Pace(once=True), warn=warn
                )
                found = []
                async with aclosing(steps):
                    async for step in steps:
                        found += step.events
                        if cursors is not None:
                            cursors.append(step.cursor)
                return found

        return asyncio.run(run())

    return look


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def key_of(party) -> str:
    return load_signing_key(party.key).public_key().public_bytes_raw().hex()


def send(ledger, message, *parties) -> int:
    keys = [load_signing_key(party.key) for party in parties]
    return ledger.apply(seal(message, origin=ledger.trust.origin, private_keys=keys))


@pytest.fixture
def disputed(ledger, alice, bob, publish, claim, stolen, good) -> str:  # noqa: PLR0917
    """Alice and bob have published; alice claims a stolen model, bob objects, all nodes verify."""
    ledger.grow(2)
    publish(alice)
    published = publish(bob, "--json").document["message_hash"]
    digest = claim(alice, stolen, "--no-wait", "--json").document["claim"]
    challenge = Challenge(
        time_s=ledger.now_s(),
        claim=bytes.fromhex(digest),
        publication=bytes.fromhex(published),
        reason="mine \u202e[2J",
    )
    send(ledger, challenge, bob)
    ledger.vote(bytes.fromhex(digest), good)
    ledger.grow(1)
    return digest


WHOLE = ["publish", "claim", "challenge", "vote", "vote", "verdict", "vote"]


def test_a_bundle_is_followed_from_its_publication_to_the_verdict(tell, alice, disputed):
    found = tell(alice.directory)

    assert kinds(found) == ["publish", *WHOLE]  # bob's publication commits to the same head, as the fixtures have it
    assert [touch["as"] for touch in found[1].document()["touches"]] == ["head_commitment"]


def test_an_owner_is_followed_likewise(tell, alice, disputed):
    assert kinds(tell(owners=(key_of(alice),))) == WHOLE


def test_a_model_is_followed_from_the_claim_on_it(tell, stolen, disputed):
    assert kinds(tell(stolen)) == WHOLE[1:]
    assert kinds(tell(hashlib.sha256(stolen.read_bytes()).hexdigest())) == WHOLE[1:]


def test_a_claim_is_followed_by_its_hash(tell, disputed):
    assert kinds(tell(disputed)) == WHOLE[1:]


def test_what_is_not_touched_is_not_told(tell, disputed):
    assert tell("00" * 32) == []
    assert tell(owners=(public_key("nobody").hex(),)) == []


def test_an_objection_touches_who_objects_as_well(tell, bob, disputed):
    assert kinds(tell(owners=(key_of(bob),))) == ["publish", "challenge"]


def test_without_anything_in_particular_everything_is_told(tell, ledger, disputed):
    found = tell()

    assert [event.index for event in found if event.kind != "verdict"] == list(range(ledger.size))
    assert kinds(found)[0] == "genesis"
    assert kinds(found).count("verdict") == 1


def test_only_the_kinds_that_were_asked_for_are_told(tell, alice, disputed):
    assert kinds(tell(alice.directory, kinds=("verdict", "challenge"))) == ["challenge", "verdict"]
    assert kinds(tell(kinds=("verdict",))) == ["verdict"]


def test_a_verdict_names_the_votes_that_decide_it(tell, ledger, alice, disputed):
    (verdict,) = tell(alice.directory, kinds=("verdict",))
    document = verdict.document()

    assert (document["outcome"], document["reason"]) == ("VERIFIED", "matched")
    assert document["members"] == ["node-1", "node-2"]
    assert document["votes"] == [ledger.size - 4, ledger.size - 3]
    assert document["claim"] == disputed
    assert f"wmreg status {disputed}" in document["text"]


@pytest.mark.parametrize("votes_before", [0, 1, 2])
def test_votes_of_before_the_start_count(  # noqa: PLR0917
    tell, ledger, alice, publish, claim, stolen, poor, votes_before
):
    publish(alice)
    digest = bytes.fromhex(claim(alice, stolen, "--no-wait", "--json").document["claim"])
    for node in ledger.nodes:
        ledger.vote_of(node, digest, poor)

    found = tell(alice.directory, start=3 + votes_before)

    assert kinds(found) == [["vote", "vote", "verdict", "vote"], ["vote", "verdict", "vote"], ["vote"]][votes_before]
    if votes_before < 2:
        assert next(event for event in found if event.kind == "verdict").document()["outcome"] == "REFUTED"


def test_nodes_that_do_not_agree_decide_that_there_is_no_verdict(tell, ledger, alice, publish, claim, stolen):
    publish(alice)
    digest = bytes.fromhex(claim(alice, stolen, "--no-wait", "--json").document["claim"])
    from fakes import good_measurement

    for node, matched in zip(ledger.nodes, (600, 300, 400), strict=True):
        ledger.vote_of(node, digest, good_measurement(matched))

    (verdict,) = tell(alice.directory, kinds=("verdict",))

    assert verdict.document()["reason"] == "no_quorum"


def test_what_a_vote_is_about_cannot_be_hidden(tell, ledger, alice, disputed):
    for node in ledger.nodes:
        node.refusals[f"GET /v1/receipts/{disputed}"] = (404, "not_found")

    with pytest.raises(QuorumError, match=f"no node shows the message {disputed}"):
        tell(alice.directory, start=6)


def test_another_owners_claim_on_the_model_that_one_claims_touches(  # noqa: PLR0917
    tell, ledger, alice, bob, publish, claim, stolen, disputed
):
    cursors: list[Cursor] = []
    tell(owners=(key_of(alice),), cursors=cursors)
    claim(bob, stolen, "--no-wait")

    (rival,) = tell(owners=(key_of(alice),), cursors=cursors)
    bundles = tell(alice.directory, start=ledger.size - 1)
    others = tell(owners=(public_key("nobody").hex(),), cursors=[cursors[0], cursors[-2]])

    assert (rival.kind, rival.document()["signers"]) == ("claim", [key_of(bob)])
    assert "claimed by owner" in rival.text
    assert kinds(bundles) == ["claim"]
    assert others == []


def test_a_key_that_a_watched_owner_moves_to_is_watched_too_also_after_a_restart(
    tell, ledger, alice, publish, make_party
):
    publish(alice)
    carol, cursors = make_party("carol"), list[Cursor]()
    old, new = (load_signing_key(party.key).public_key().public_bytes_raw() for party in (alice, carol))
    send(ledger, Rotation(time_s=ledger.now_s(), old_key=old, new_key=new), alice, carol)
    first = tell(owners=(old.hex(),), cursors=cursors)
    publish(carol)

    assert kinds(first) == ["publish", "rotate"]
    assert kinds(tell(owners=(old.hex(),), cursors=cursors[:])) == ["publish"]
    (copied,) = tell(alice.directory, start=3)  # the fixtures' heads are alike; her new key alone touches no bundle
    assert [touch["as"] for touch in copied.document()["touches"]] == ["head_commitment"]
    assert kinds(tell(alice.directory)) == ["publish", "rotate", "publish"]


def test_a_withdrawal_touches_what_its_target_touches(tell, ledger, alice, stolen, disputed):
    withdrawal = Withdrawal(time_s=ledger.now_s(), target=bytes.fromhex(disputed), reason="a mistake")
    send(ledger, withdrawal, alice)

    (told,) = tell(stolen, start=ledger.size - 1)

    assert told.kind == "withdraw"
    assert [touch["as"] for touch in told.document()["touches"]] == ["target.model_sha256"]


@pytest.fixture
def changed(ledger):
    """The members have changed the policy."""
    from dataclasses import replace

    from registry.messages import PolicyChange

    rules = ledger.replay.ledger
    new = replace(rules.policy, time_skew_s=301)
    change = PolicyChange(time_s=ledger.now_s(), previous=rules.policy_hashes[-1], policy=new)
    keys = [node.signing_key for node in ledger.nodes[:2]]
    return ledger.apply(seal(change, origin=ledger.trust.origin, private_keys=keys))


def test_a_change_of_policy_is_told_to_who_asks_and_mentioned_to_all_others(tell, alice, publish, changed):
    publish(alice)
    warnings: list[str] = []

    assert kinds(tell(alice.directory, warn=warnings.append)) == ["publish"]
    assert ["wmreg policy update" in warning for warning in warnings] == [True]
    assert kinds(tell(alice.directory, with_policy=True)) == ["genesis", "policy", "publish"]
    assert kinds(tell(alice.directory, kinds=("policy",))) == ["policy"]
    assert kinds(tell(alice.directory, with_policy=True, kinds=("publish",))) == ["publish"]


def test_what_strangers_write_commands_no_terminal_and_begins_no_line(tell, alice, disputed):
    (challenge,) = tell(alice.directory, kinds=("challenge",))

    assert "mine ?[2J" in challenge.line()
    assert challenge.line().isprintable()
    assert challenge.document()["body"]["reason"] == "mine \u202e[2J"


def test_a_document_is_bounded(tell, alice, publish, monkeypatch):
    publish(alice)
    (event,) = tell(alice.directory)
    assert b'"body":{' in event.encode()
    monkeypatch.setattr("client.watch.events.DOCUMENT_BYTES_MAX", 400)

    assert b'"body":null' in event.encode()
    assert DOCUMENT_BYTES_MAX == 256 * 1024


def test_an_entry_of_a_later_releases_kind_is_told_as_what_it_is(tell, ledger, alice, publish, monkeypatch):
    publish(alice)
    from registry import messages

    monkeypatch.delitem(messages.KINDS, "publish")
    found, warnings = tell(), list[str]()

    assert kinds(found) == ["genesis", "unreadable"]
    assert kinds(tell("00" * 32, kinds=("claim",), warn=warnings.append)) == []
    assert "does not know" in warnings[0]


def test_an_unpublished_bundle_says_what_to_do(alice, ledger):
    from client.errors import InputError

    assert Bundle(alice.directory).model.exists()
    with pytest.raises(InputError, match="wmreg publish"):
        read_watched([str(alice.directory)], (), kinds=(), with_policy=False, origin=ledger.trust.origin)


def test_nothing_watched_is_everything():
    assert Watched().is_everything
    assert not Watched(owners={private_key("alice").public_key().public_bytes_raw(): "alice"}).is_everything
