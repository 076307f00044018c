"""Promises: a publication is recorded once whatever happens on the way; success is said only of a checked receipt."""

import asyncio
import json
from pathlib import Path

import pytest

from client.api import open_ledger
from client.errors import InputError
from client.outbox import submit_saved
from registry.envelope import message_hash, unseal
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
    assert str(bob.bundle.watermark_key) in failed.document["error"]["message"]
    assert "claimant" not in failed.document["error"]["message"]


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


@pytest.mark.parametrize(
    "answer", [b'{"receipt": "\\ud800"}', b'{"receipt": 5}', b'{"receipt": null}', b"{}", b'{"receipt": ["c2sp.org"]}']
)
def test_an_answer_without_a_receipt_is_passed_over(ledger, alice, publish, answer):
    ledger.nodes[0].answers["/v1/entries"] = answer

    assert publish(alice).code == 0


def test_a_recorded_message_that_one_nodes_clock_refuses_is_found_and_not_replaced(ledger, alice, publish):
    for node in ledger.nodes:
        node.lose_answer = 9  # recorded, but nobody says so
    assert publish(alice).code == 4
    saved = alice.bundle.publication.read_bytes()
    for node in ledger.nodes:
        node.lose_answer = 0
        node.refusals["POST"] = (422, "time_skew")

    published = publish(alice, "--json")

    assert (published.code, published.document["index"]) == (0, 1)
    assert alice.bundle.publication.read_bytes() == saved
    assert len(ledger.raw) == 2


def test_a_message_is_not_replaced_while_too_few_nodes_say_that_they_lack_it(ledger, alice, publish):
    for node in ledger.nodes:
        node.lose_answer = 9
    publish(alice)
    saved = alice.bundle.publication.read_bytes()
    ledger.nodes[0].lose_answer, ledger.nodes[0].behind = 0, 1
    ledger.nodes[0].refusals["POST"] = (422, "time_skew")
    ledger.nodes[1].down = ledger.nodes[2].down = True

    failed = publish(alice)

    assert failed.code == 4
    assert alice.bundle.publication.read_bytes() == saved
    assert [path.name for path in alice.directory.glob("publication*")] == ["publication.bin"]


def test_a_message_that_is_replaced_is_kept(ledger, alice, publish, monkeypatch):
    for node in ledger.nodes:
        node.down = True
    with monkeypatch.context() as patch:
        patch.setattr("client.publishing.time.time", lambda: 1_600_000_000)
        publish(alice)
    saved = alice.bundle.publication.read_bytes()
    for node in ledger.nodes:
        node.down = False

    assert publish(alice).code == 0
    kept = alice.directory / f"publication-{message_hash(saved).hex()[:16]}.bin"
    assert kept.read_bytes() == saved
    assert alice.bundle.publication.read_bytes() != saved


def test_of_two_that_publish_at_once_one_saves_the_message(ledger, alice, monkeypatch):
    look = Path.exists

    def look_and_lose(path):
        found = look(path)
        if path == alice.bundle.publication:
            path.write_bytes(b"what the other process signed")
        return found

    async def submit():
        async with open_ledger(ledger.trust) as api:
            await submit_saved(api, alice.bundle.publication, saved=None, make=lambda: b"what this one signed")

    monkeypatch.setattr(Path, "exists", look_and_lose)
    with pytest.raises(InputError, match="another wmreg"):
        asyncio.run(submit())
    assert alice.bundle.publication.read_bytes() == b"what the other process signed"
    assert not any("POST" in request for request in ledger.nodes[0].requests)


def test_an_unknown_outcome_names_the_message(ledger, alice, publish):
    for node in ledger.nodes:
        node.lose_answer = 9

    failed = publish(alice)

    assert failed.code == 4
    assert message_hash(alice.bundle.publication.read_bytes()).hex() in failed.err


@pytest.mark.parametrize("place", ["home/ledgers", "home"])
def test_a_memory_that_cannot_be_written_is_found_before_anything_is_sent(ledger, alice, publish, tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("no directory")
    for node in ledger.nodes:
        node.refusals["GET /checkpoint"] = (503, "busy")

    failed = publish(alice)

    assert failed.code == 2
    assert place in failed.err
    assert len(ledger.raw) == 1


def test_a_receipt_that_cannot_be_written_names_what_is_recorded(ledger, alice, publish):
    alice.bundle.receipt.mkdir()

    failed = publish(alice, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (70, "unfinished")
    assert message_hash(alice.bundle.publication.read_bytes()).hex() in failed.document["error"]["message"]
    assert "entry 1" in failed.document["error"]["message"]


def test_nothing_is_published_into_a_ledger_with_another_past(ledger, alice, bob, publish):
    publish(alice)
    ledger.rewrite(1)

    assert publish(bob).code == 5
    assert len(ledger.raw) == 2


def test_a_publication_without_the_model_says_so(ledger, alice, bob, publish):
    alice.model.unlink()

    without, with_model = publish(alice), publish(bob)

    assert (without.code, with_model.code) == (0, 0)
    assert "not committed to" in without.out
    assert "not committed to" not in with_model.out
    assert publish(alice, "--json").document["model_committed"] is False
    assert publish(bob, "--json").document["model_committed"] is True
