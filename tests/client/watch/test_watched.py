"""Promises: what is learned follows from what is asked for now, is bounded, and keys are the last to be forgotten."""

import hashlib

import pytest
from fakes import LedgerMaker, public_key

from client.verbs.watch import KINDS
from client.watch.cursor import LEARNED_MAX, Learned
from client.watch.events import UNREADABLE
from client.watch.watched import EVENT_KINDS, Interests, Touch, Watched
from registry.envelope import SignedMessage
from registry.messages import Claim, Rotation

ALICE = public_key("alice")


def claimed(interests: Interests, model: bytes) -> None:
    maker = LedgerMaker()
    message = maker.claim_message("alice", bytes(32), model=model)
    signed = SignedMessage(hash=b"h" * 32, message=message, signers=(ALICE,))
    interests.learn(signed, [Touch("signer", ALICE, "alice")])


def test_what_follows_from_nothing_that_is_asked_for_is_forgotten():
    mine, others = Learned(b"1" * 32, ALICE, is_key=True), Learned(b"2" * 32, b"x" * 32, is_key=True)

    assert Interests(Watched(owners={ALICE: "alice"}), [mine, others]).learned == (mine,)


def test_what_is_learned_is_bounded_and_a_key_outlives_models():
    interests = Interests(Watched(owners={ALICE: "alice"}))
    rotation = Rotation(time_s=1, old_key=ALICE, new_key=public_key("later"))
    interests.learn(SignedMessage(hash=b"h" * 32, message=rotation, signers=(ALICE,)), [])

    for number in range(LEARNED_MAX + 10):
        claimed(interests, b"%d" % number)

    assert len(interests.learned) == LEARNED_MAX
    assert interests.learned[0] == Learned(public_key("later"), ALICE, is_key=True)
    assert interests.learned[-1].value == hashlib.sha256(b"%d" % (LEARNED_MAX + 9)).digest()


def test_a_strangers_claim_teaches_nothing():
    interests = Interests(Watched(hashes={hashlib.sha256(b"m").digest(): "mine"}))
    message = LedgerMaker().claim_message("mallory", bytes(32), model=b"m")
    touch = Touch("model_sha256", message.model_sha256, "mine")

    interests.learn(SignedMessage(hash=b"h" * 32, message=message, signers=(public_key("mallory"),)), [touch])

    assert isinstance(message, Claim)
    assert interests.learned == ()


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_offers_the_kinds_that_there_are(kind):
    assert set(KINDS) == {*EVENT_KINDS, UNREADABLE}
    assert Watched(kinds=frozenset({kind})).tells(kind)
