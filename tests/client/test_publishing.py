"""Promises: a publication is recorded once whatever happens on the way; success is said only of a checked receipt."""

import json

import pytest

from registry.envelope import unseal
from registry.receipt import Receipt, verify_receipt

ORIGIN = "test.example/ledger"


def test_a_published_bundle_has_a_receipt_that_verifies_offline(wmreg, ledger, alice, publish):
    published = publish(alice, "--json")

    assert published.code == 0
    assert published.document["index"] == 1
    assert published.document["cosigned_by"] == ["node-1", "node-2", "node-3"]
    verified = verify_receipt(Receipt.parse(alice.bundle.receipt.read_text()), ledger.trust)
    assert verified.signed.hash.hex() == published.document["message_hash"]


def test_success_says_in_words_that_the_model_may_be_released(alice, publish):
    assert "The model may now be released" in publish(alice).out


def test_publishing_again_is_the_same_publication(ledger, alice, publish):
    first = publish(alice, "--json")
    second = publish(alice, "--json")

    assert second.code == 0
    assert second.document["duplicate"] is True
    assert second.document["message_hash"] == first.document["message_hash"]
    assert len(ledger.raw) == 2


def test_an_answer_lost_after_the_write_makes_no_second_publication(ledger, alice, publish):
    ledger.nodes[0].lose_answer = 1

    published = publish(alice, "--json")

    assert published.code == 0
    assert len(ledger.raw) == 2


def test_a_request_lost_before_the_write_reaches_the_next_node(ledger, alice, publish):
    ledger.nodes[0].down = True

    assert publish(alice).code == 0


def test_the_message_is_saved_before_it_is_sent(ledger, alice, publish):
    for node in ledger.nodes:
        node.down = True

    failed = publish(alice, "--json")

    assert failed.code == 4
    assert failed.document["error"]["code"] == "unavailable"
    assert not alice.bundle.receipt.exists()
    saved = alice.bundle.publication.read_bytes()
    for node in ledger.nodes:
        node.down = False
    assert publish(alice).code == 0
    assert alice.bundle.publication.read_bytes() == saved


def test_a_saved_message_that_grew_too_old_is_signed_anew(ledger, alice, publish, monkeypatch):
    for node in ledger.nodes:
        node.down = True
    monkeypatch.setattr("client.publishing.time.time", lambda: 1_600_000_000)
    publish(alice)
    monkeypatch.undo()
    monkeypatch.setenv("WMREG_HOME", str(alice.directory.parent / "home"))
    for node in ledger.nodes:
        node.down = False

    assert publish(alice).code == 0
    assert unseal(alice.bundle.publication.read_bytes(), origin=ORIGIN).message.time_s > 1_600_000_000


def test_a_receipt_that_a_lying_node_invents_is_passed_over(ledger, alice, bob, publish):
    publish(bob)
    foreign = ledger.receipt(1)
    ledger.nodes[0].answers["/v1/entries"] = json.dumps({"index": 1, "receipt": foreign}).encode()

    published = publish(alice, "--json")

    assert published.code == 0
    assert published.document["index"] == 2


def test_nothing_is_written_when_every_receipt_is_of_another_message(ledger, alice, bob, publish):
    publish(bob)
    foreign = ledger.receipt(1)
    for node in ledger.nodes:
        node.answers["/v1/entries"] = json.dumps({"index": 1, "receipt": foreign}).encode()

    failed = publish(alice)

    assert failed.code == 3
    assert failed.out == ""
    assert not alice.bundle.receipt.exists()


def test_a_model_that_is_not_the_marked_one_is_not_published(ledger, alice, publish):
    alice.model.write_bytes(b"another model")

    failed = publish(alice, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "model_mismatch")
    assert len(ledger.raw) == 1


def test_a_thief_cannot_publish_with_a_watermark_key_that_is_bound_to_another(ledger, alice, bob, publish):
    alice.bundle.watermark_key.chmod(0o600)
    bob.bundle.watermark_key.write_bytes(alice.bundle.watermark_key.read_bytes())

    failed = publish(bob, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "key_not_bound")


def test_a_directory_that_published_something_else_is_refused(ledger, alice, bob, publish):
    publish(alice)
    bob.bundle.publication.write_bytes(alice.bundle.publication.read_bytes())

    failed = publish(bob, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "other_publication")


def test_the_rules_refusal_of_a_second_publication_names_its_code(ledger, alice, publish):
    publish(alice)
    later_s = unseal(alice.bundle.publication.read_bytes(), origin=ORIGIN).message.time_s + 5
    alice.bundle.publication.unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.publishing.time.time", lambda: later_s)
        failed = publish(alice, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "key_commitment_used")
