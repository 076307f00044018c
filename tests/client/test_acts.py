"""Promises: what cannot be undone is recorded once and proven by a kept receipt; a moved owner keeps what is his."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from client.acts import Acts
from client.claiming import make_claim
from client.keystore import WatermarkKeyFile, create_signing_key, load_signing_key, save_watermark_key
from client.publishing import Owner
from client.suspects import suspect_of
from client.uploads import blob_of
from registry.envelope import seal
from registry.receipt import Receipt, verify_receipt
from registry.verdict import Outcome
from registry.watermark_key import bind

ORIGIN = "test.example/ledger"


@pytest.fixture
def do(wmreg, ledger, publish, claim, stolen):
    """What parties do; each returns the verb's answer."""

    def act(verb, party, *words):
        return wmreg(verb, *words, "--signing-key", party.key, "--policy", ledger.policy_path, "--json")

    return SimpleNamespace(
        act=act,
        publish=lambda party: publish(party, "--json"),
        claim=lambda party, *more: claim(party, stolen, "--no-wait", "--json", *more),
        status=lambda digest: wmreg("status", digest, "--policy", ledger.policy_path),
    )


@pytest.fixture
def moved(alice, tmp_path):
    """Alice with a new signing key."""
    create_signing_key(tmp_path / "new.pem")
    return replace(alice, key=tmp_path / "new.pem")


def code(answer):
    return answer.code, answer.document["error"]["code"]


def test_after_a_rotation_the_new_key_claims_and_the_old_one_cannot(ledger, alice, moved, do):
    do.publish(alice)
    assert code(do.claim(moved)) == (1, "not_the_publisher")
    assert do.act("rotate", alice, moved.key).code == 0
    size = len(ledger.raw)
    assert code(do.claim(alice)) == (1, "rotated_key")
    assert len(ledger.raw) == size
    assert do.claim(moved).code == 0
    assert len(ledger.replay.ledger.claims()) == 1


def test_after_a_rotation_the_new_key_has_a_receipt_made_anew_and_publishes_nothing_of_the_old_one(
    ledger, alice, bob, moved, do
):
    published = do.publish(alice)
    do.act("rotate", alice, moved.key)
    size = len(ledger.raw)
    alice.bundle.receipt.unlink()

    again = do.publish(moved)

    assert (again.code, again.document["duplicate"]) == (0, True)
    assert again.document["message_hash"] == published.document["message_hash"]
    assert alice.bundle.receipt.exists()
    assert code(do.publish(replace(bob, key=moved.key))) == (1, "key_not_bound")
    assert len(ledger.raw) == size


def test_a_claim_that_the_old_key_made_is_the_new_ones(ledger, alice, moved, do):
    do.publish(alice)
    first = do.claim(alice)
    do.act("rotate", alice, moved.key)
    again = do.claim(moved)
    assert again.document["claim"] == first.document["claim"]
    assert len(ledger.replay.ledger.claims()) == 1


def test_a_claim_that_the_old_key_signed_but_never_sent_is_signed_anew(ledger, alice, moved, do, stolen):
    do.publish(alice)
    owner = Owner(load_signing_key(alice.key))
    suspect, evidence = suspect_of(str(stolen), sha256=None), blob_of(alice.bundle.evidence)
    unsent = make_claim(alice.bundle, owner, suspect, evidence, origin=ledger.trust.origin)
    path = alice.bundle.claim(suspect.sha256, suspect.pointer)
    path.parent.mkdir()
    path.write_bytes(seal(unsent, origin=ledger.trust.origin, private_keys=[owner.private_key]))
    do.act("rotate", alice, moved.key)
    assert do.claim(moved).code == 0
    (claim,) = ledger.replay.ledger.claims()
    assert ledger.replay.ledger.find(claim).signed.signer != owner.public_key


def test_the_receipt_of_a_rotation_is_kept_and_verifies(ledger, alice, moved, do):
    do.publish(alice)
    receipt = Path(do.act("rotate", alice, moved.key).document["receipt"])
    assert verify_receipt(Receipt.parse(receipt.read_text()), ledger.trust).signed.message.KIND == "rotate"


def test_a_receipt_of_another_rotation_moves_nobody(alice, bob, moved, do, tmp_path):
    do.publish(alice), do.publish(bob)
    create_signing_key(tmp_path / "bobs.pem")
    of_bob = Path(do.act("rotate", bob, tmp_path / "bobs.pem").document["receipt"])
    mine = Path(do.act("rotate", alice, moved.key).document["receipt"])
    mine.write_bytes(of_bob.read_bytes())
    assert code(do.claim(moved)) == (1, "malformed")
    mine.write_text("nonsense")
    assert code(do.claim(moved)) == (1, "malformed")


def test_an_owner_may_move_more_than_once(ledger, alice, moved, do, tmp_path):
    do.publish(alice)
    create_signing_key(tmp_path / "third.pem")
    do.act("rotate", alice, moved.key), do.act("rotate", moved, tmp_path / "third.pem")
    third = replace(alice, key=tmp_path / "third.pem")
    assert do.claim(third).code == 0
    key = ledger.replay.ledger.find(ledger.replay.ledger.claims()[0]).signed.signer
    assert len(Acts.default(ORIGIN).earlier_keys(key, origin=ORIGIN)) == 2


def test_a_withdrawn_publication_cannot_be_claimed_and_withdrawing_again_is_the_same(ledger, alice, do):
    published = do.publish(alice).document["message_hash"]
    first, again = (do.act("withdraw", alice, published, "--reason", "the wrong head") for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    assert again.document["duplicate"] is True
    assert code(do.claim(alice)) == (1, "withdrawn")
    assert len(ledger.raw) == 3


def test_withdrawing_again_says_that_it_was_before_and_that_a_new_reason_is_not_recorded(wmreg, ledger, alice, do):
    published = do.publish(alice).document["message_hash"]
    words = ("withdraw", published, "--signing-key", alice.key, "--policy", ledger.policy_path, "--reason")

    first, again, other = (wmreg(*words, reason) for reason in ("the wrong head", "the wrong head", "another"))

    assert first.out.startswith("RECORDED: the withdrawal of")
    assert again.out.startswith("was withdrawn before as entry 2\n\nRECORDED: ")
    assert other.out.startswith(
        "was withdrawn before as entry 2\nthe new reason is not recorded; the ledger has 'the wr"
    )
    assert (first.code, again.code, other.code) == (0, 0, 0)
    assert len(ledger.raw) == 3


def test_nobody_withdraws_what_is_not_his(alice, bob, do):
    published = do.publish(alice).document["message_hash"]
    assert code(do.act("withdraw", bob, published, "--reason", "because")) == (1, "not_the_publisher")


@pytest.mark.parametrize("reason", ["", "x" * 1001, "two\nlines"])
def test_a_reason_that_the_ledger_would_not_take_is_a_usage_error(ledger, alice, do, reason):
    published = do.publish(alice).document["message_hash"]
    refused = do.act("withdraw", alice, published, "--reason", reason)
    assert refused.code == 2
    assert "reason" in refused.document["error"]["message"]
    assert len(ledger.raw) == 2


def test_an_objection_and_a_rival_are_shown_with_the_verdict(ledger, alice, bob, do, good):
    do.publish(alice), do.publish(bob)
    for party in (alice, bob):
        ledger.vote(bytes.fromhex(do.claim(party).document["claim"]), good)
    hers, his = (digest.hex() for digest in ledger.replay.ledger.claims())
    objected = do.act("challenge", bob, hers, "--evidence", bob.directory, "--reason", "I trained it")
    won, lost = do.status(hers), do.status(his)
    assert objected.code == 0
    assert ledger.replay.ledger.verdict(bytes.fromhex(hers)).outcome is Outcome.VERIFIED
    assert "I trained it" in won.out
    assert "Conflict" in won.out
    assert "superseded" in lost.out
    assert "Conflict" not in lost.out


def test_nobody_challenges_his_own_claim(alice, do):
    do.publish(alice)
    claimed = do.claim(alice).document["claim"]
    refused = do.act("challenge", alice, claimed, "--evidence", alice.directory, "--reason", "why not")
    assert code(refused) == (1, "own_claim")


def with_reserve(party, watermarks):
    """Give a party's bundle further watermarks, each with its own key and head."""
    private_key = load_signing_key(party.key)
    for number in range(1, watermarks):
        part = party.bundle.part(number)
        part.directory.mkdir(parents=True)
        binding = bind(private_key, origin=ORIGIN, nonce=number.to_bytes(16, "big"))
        save_watermark_key(part.watermark_key, WatermarkKeyFile(origin=ORIGIN, binding=binding))
        raw = party.bundle.evidence.read_bytes()
        head = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3) + number}
        part.evidence.write_bytes(safetensors.numpy.save(head, metadata=safe_metadata(raw)))


def safe_metadata(raw):
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length])["__metadata__"]


def test_each_watermark_of_a_publication_is_claimed_by_itself(ledger, alice, do, good):
    with_reserve(alice, 3)
    ledger.voting = (good, 3)
    assert do.publish(alice).code == 0
    claims = [do.claim(alice, "--watermark", number, "--again") for number in (0, 1, 2)]
    assert [claimed.code for claimed in claims] == [0, 0, 0]
    states = [ledger.replay.ledger.claim_state(digest) for digest in ledger.replay.ledger.claims()]
    assert [state.message.opening and state.message.opening.index for state in states] == [None, 0, 1]
    assert len({state.committed.head for state in states}) == 3


def test_a_watermark_that_is_not_there_or_was_not_published_reveals_nothing(ledger, alice, do):
    do.publish(alice)
    assert do.claim(alice, "--watermark", 1).code == 2
    with_reserve(alice, 2)
    size = len(ledger.raw)
    assert code(do.claim(alice, "--watermark", 1)) == (1, "bad_opening")
    assert len(ledger.raw) == size


def test_a_rotation_in_one_ledger_says_nothing_in_another(alice, moved, do):
    do.publish(alice)
    do.act("rotate", alice, moved.key)
    old = load_signing_key(alice.key).public_key().public_bytes_raw()
    assert Acts.default(ORIGIN).later_key(old, origin=ORIGIN) is not None
    assert Acts.default("other.example/ledger").later_key(old, origin="other.example/ledger") is None
