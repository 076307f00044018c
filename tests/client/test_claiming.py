"""Promises: the key is revealed only after every check; a verdict is explained; a win leaves a checked certificate."""
# ruff: noqa: PLR0917 -- pytest's fixtures are positional parameters

import json

import pytest

from registry.certificate import verify_certificate
from registry.envelope import message_hash, unseal

ORIGIN = "test.example/ledger"


@pytest.fixture
def stolen(tmp_path):
    """A file that somebody found."""
    path = tmp_path / "stolen.safetensors"
    path.write_bytes(b"a stolen model")
    return path


def test_a_verified_claim_leaves_a_certificate_that_verifies_offline(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 3)

    won = claim(alice, stolen, "--json")

    assert won.code == 0
    story = verify_certificate(alice.bundle.certificate.read_bytes(), ledger.trust)
    assert story.claim_hash.hex() == won.document["claim"]
    assert [vote.matched for vote in story.votes] == [590, 590, 590]


def test_every_nodes_numbers_are_shown(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 3)

    shown = claim(alice, stolen).out

    assert shown.count("590/600") == 6  # in the table of votes, and in the certificate's story
    assert "node-3" in shown


def test_the_model_and_the_evidence_are_uploaded_to_every_node(ledger, alice, publish, claim, stolen):
    publish(alice)

    claim(alice, stolen, "--no-wait")

    for node in ledger.nodes:
        assert sorted(node.blobs.values()) == sorted([stolen.read_bytes(), alice.bundle.evidence.read_bytes()])


def test_a_refuted_claim_says_why_and_ends_with_1(ledger, alice, publish, claim, stolen, poor):
    publish(alice)
    ledger.voting = (poor, 3)

    lost = claim(alice, stolen)

    assert lost.code == 1
    assert "does not carry this mark" in lost.out
    assert not alice.bundle.certificate.exists()


def test_a_pirate_learns_whose_publication_is_older(ledger, alice, bob, publish, claim, stolen, good):
    publish(alice)
    publish(bob)
    ledger.voting = (good, 3)
    claim(alice, stolen)

    lost = claim(bob, stolen)

    assert lost.code == 1
    owner = unseal(alice.bundle.publication.read_bytes(), origin=ORIGIN).signer.hex()
    assert f"{owner} published entry 1" in lost.out
    assert "The older publication's receipt was checked: entry 1" in lost.out
    assert not bob.bundle.certificate.exists()


def test_the_rightful_owner_wins_although_the_pirate_claimed_first(
    ledger, alice, bob, publish, claim, stolen, good, wmreg
):
    publish(alice)
    publish(bob)
    ledger.voting = (good, 3)
    first = claim(bob, stolen, "--json")

    assert claim(alice, stolen).code == 0

    status = wmreg("status", first.document["claim"], "--policy", ledger.policy_path)
    assert "superseded" in status.out


def test_without_waiting_the_claim_can_be_followed_later(ledger, alice, publish, claim, stolen, good, wmreg):
    publish(alice)
    claimed = claim(alice, stolen, "--no-wait", "--json")
    before = wmreg("status", claimed.document["claim"], "--policy", ledger.policy_path)
    ledger.vote(bytes.fromhex(claimed.document["claim"]), good)

    after = wmreg("status", claimed.document["claim"], "--policy", ledger.policy_path)

    assert "open" in before.out
    assert "VERIFIED" in after.out


def test_a_claim_without_a_verdict_in_time_ends_with_4(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 1)

    waiting = claim(alice, stolen, "--timeout-s", 0)

    assert waiting.code == 4
    assert "wmreg status" in waiting.out


def test_claiming_again_is_the_same_claim(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 3)
    first = claim(alice, stolen, "--json")

    second = claim(alice, stolen, "--json")

    assert second.document["claim"] == first.document["claim"]


def test_again_makes_a_new_claim(ledger, alice, publish, claim, stolen, poor, monkeypatch):
    publish(alice)
    ledger.voting = (poor, 3)
    first = claim(alice, stolen, "--json")
    saved = unseal(
        alice.bundle.claim(bytes.fromhex(first.document["state"]["model_sha256"])).read_bytes(), origin=ORIGIN
    )
    monkeypatch.setattr("client.claiming.time.time", lambda: saved.message.time_s + 7)

    second = claim(alice, stolen, "--again", "--json")

    assert second.document["claim"] != first.document["claim"]


def test_a_second_certificate_does_not_replace_the_first(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 3)
    claim(alice, stolen)
    first = alice.bundle.certificate.read_bytes()
    stolen.write_bytes(b"another stolen model")

    second = claim(alice, stolen, "--json")

    assert alice.bundle.certificate.read_bytes() == first
    assert second.document["certificate"] != str(alice.bundle.certificate)


def test_one_node_down_does_not_stop_a_claim(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.nodes[1].down = True
    ledger.voting = (good, 3)

    assert claim(alice, stolen).code == 0


def test_without_a_quorum_of_nodes_nothing_is_revealed(ledger, alice, publish, claim, stolen):
    publish(alice)
    ledger.nodes[0].down = ledger.nodes[1].down = True

    failed = claim(alice, stolen, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (4, "unavailable")
    assert len(ledger.raw) == 2
    assert not any("POST" in request for request in ledger.nodes[2].requests[1:])


def test_an_invented_older_publication_is_not_believed(ledger, alice, publish, claim, stolen, good, wmreg):
    publish(alice)
    ledger.voting = (good, 3)
    digest = claim(alice, stolen, "--json").document["claim"]
    state = wmreg("status", digest, "--policy", ledger.policy_path, "--json").document
    invented = {"publication": "00" * 32, "owner": "11" * 32, "publication_index": 0}
    for node in ledger.nodes:
        node.answers[f"/v1/claims/{digest}"] = json.dumps(state | {"superseding": invented}).encode()

    found = wmreg("status", digest, "--policy", ledger.policy_path, "--json")

    assert (found.code, found.document["error"]["code"]) == (1, "not_found")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda a, b: a.bundle.evidence.write_bytes(b.bundle.evidence.read_bytes()), "info_mismatch"),
        (lambda a, b: a.bundle.watermark_key.write_bytes(b.bundle.watermark_key.read_bytes()), "key_not_bound"),
        (lambda a, b: a.key.write_bytes(b.key.read_bytes()), "not_the_publisher"),
        (lambda a, _b: a.bundle.publication.write_bytes(b"\x90"), "malformed"),
        (lambda a, _b: a.bundle.evidence.write_bytes(b"no safetensors"), "malformed"),
    ],
)
def test_files_that_do_not_fit_are_found_before_the_key_is_revealed(
    ledger, alice, bob, publish, claim, stolen, spoil, code
):
    publish(alice)
    spoil(alice, bob)

    failed = claim(alice, stolen, "--no-wait", "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, code)
    assert not ledger.nodes[0].blobs
    assert len(ledger.raw) == 2


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        ("no-such-file", [], "no-such-file"),
        ("http://example.com/m.safetensors", [], "https://"),
        ("https://example.com/m.safetensors", [], "--sha256"),
        ("https://example.com/m.safetensors", ["--sha256", "12"], "SHA-256"),
        ("blob:sha256:xyz", [], "SHA-256"),
    ],
)
def test_a_model_that_cannot_be_named_is_a_usage_error(ledger, alice, publish, claim, model, more, words):
    publish(alice)

    failed = claim(alice, model, *more)

    assert failed.code == 2
    assert words in failed.err
    assert failed.err.count("\n") == 1


def test_a_url_is_claimed_without_an_upload_of_the_model(ledger, alice, publish, claim):
    publish(alice)

    claimed = claim(alice, "https://example.com/m.safetensors", "--sha256", "ab" * 32, "--no-wait", "--json")

    assert claimed.code == 0
    assert list(ledger.nodes[0].blobs.values()) == [alice.bundle.evidence.read_bytes()]


def test_a_file_that_is_not_the_one_meant_is_refused(ledger, alice, publish, claim, stolen):
    publish(alice)

    failed = claim(alice, stolen, "--sha256", "00" * 32, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "hash_mismatch")


def test_an_unpublished_bundle_cannot_be_claimed_from(ledger, alice, claim, stolen):
    failed = claim(alice, stolen)

    assert failed.code == 2
    assert "wmreg publish" in failed.err


def test_a_lying_nodes_certificate_is_passed_over(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    claimed = claim(alice, stolen, "--no-wait", "--json")
    ledger.vote(bytes.fromhex(claimed.document["claim"]), good)
    for node in ledger.nodes[:2]:
        node.answers[f"/v1/certificates/{claimed.document['claim']}"] = b'{"format": "invented"}\n'

    won = claim(alice, stolen)

    assert won.code == 0
    verify_certificate(alice.bundle.certificate.read_bytes(), ledger.trust)


def test_nodes_that_are_some_votes_behind_are_asked_for_the_certificate_again(
    ledger, alice, publish, claim, stolen, good
):
    publish(alice)
    ledger.voting = (good, 3)
    ledger.certificates_late = 3

    assert claim(alice, stolen).code == 0


def test_a_verdict_without_a_certificate_that_holds_is_no_success(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    claimed = claim(alice, stolen, "--no-wait", "--json")
    ledger.vote(bytes.fromhex(claimed.document["claim"]), good)
    for node in ledger.nodes:
        node.answers[f"/v1/certificates/{claimed.document['claim']}"] = json.dumps({"format": "invented"}).encode()

    failed = claim(alice, stolen)

    assert failed.code == 1
    assert not alice.bundle.certificate.exists()


def test_a_saved_claim_is_named_by_the_hash_of_its_envelope(ledger, alice, publish, claim, stolen):
    publish(alice)

    claimed = claim(alice, stolen, "--no-wait", "--json")

    (saved,) = (alice.directory / "claims").iterdir()
    assert message_hash(saved.read_bytes()).hex() == claimed.document["claim"]
    assert saved.stat().st_mode & 0o777 == 0o600
