"""Promises: the key is revealed only after every check; a verdict is explained; a win leaves a checked certificate."""
# ruff: noqa: PLR0917 -- pytest's fixtures are positional parameters

import asyncio
import hashlib
import itertools
import json
import time

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from client.api import open_ledger
from client.memory import Memory
from client.transport import Timing
from client.verdicts import ask_state, await_stragglers
from registry.certificate import verify_certificate
from registry.envelope import message_hash, unseal

pytestmark = pytest.mark.long

ORIGIN = "test.example/ledger"


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


def declare(bundle, base: bytes) -> None:
    """Let a bundle's evidence declare a base, and put that into the bundle."""
    with safe_open(bundle.evidence, "numpy") as file:
        metadata, head = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    info = json.loads(metadata["info"]) | {"base_sha256": hashlib.sha256(base).hexdigest()}
    metadata["info"] = json.dumps(info, sort_keys=True, separators=(",", ":"))
    bundle.evidence.write_bytes(safetensors.numpy.save(head, metadata=metadata))
    bundle.base.write_bytes(base)


def test_the_declared_base_is_uploaded_to_every_node(ledger, alice, publish, claim, stolen):
    base = alice.model.read_bytes()
    declare(alice.bundle, base)
    publish(alice)

    assert claim(alice, stolen, "--no-wait").code == 0

    files = [stolen.read_bytes(), alice.bundle.evidence.read_bytes(), base]
    for node in ledger.nodes:
        assert sorted(node.blobs.values()) == sorted(files)


@pytest.mark.parametrize("instead", [None, b"another file"])
def test_without_the_declared_base_no_key_is_revealed(ledger, alice, publish, claim, stolen, instead):
    declare(alice.bundle, alice.model.read_bytes())
    publish(alice)
    alice.bundle.base.unlink()
    if instead is not None:
        alice.bundle.base.write_bytes(instead)

    refused = claim(alice, stolen, "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "base_missing")
    assert hashlib.sha256(alice.model.read_bytes()).hexdigest() in refused.document["error"]["message"]
    assert [node.blobs for node in ledger.nodes] == [{}] * len(ledger.nodes)


def test_a_declared_base_that_no_node_can_read_reveals_no_key(ledger, alice, publish, claim, stolen):
    declare(alice.bundle, b"garbage")
    publish(alice)

    refused = claim(alice, stolen, "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "malformed"), refused.out
    assert [node.blobs for node in ledger.nodes] == [{}] * len(ledger.nodes)


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
    (path,) = (alice.directory / "claims").iterdir()
    saved = path.read_bytes()
    later_s = unseal(saved, origin=ORIGIN).message.time_s + 7
    monkeypatch.setattr("client.claiming.time.time", lambda: later_s)

    second = claim(alice, stolen, "--again", "--json")

    assert second.document["claim"] != first.document["claim"]
    assert saved in [kept.read_bytes() for kept in (alice.directory / "claims").iterdir()]
    assert message_hash(path.read_bytes()).hex() == second.document["claim"]


def test_claims_on_one_model_at_two_places_are_both_kept_and_sent_again(ledger, alice, publish, claim, monkeypatch):
    publish(alice)
    clock = itertools.count(int(time.time()))  # two claims of one second would be one message
    monkeypatch.setattr("client.claiming.time.time", lambda: next(clock))

    def claim_at(pointer):
        return claim(alice, pointer, "--sha256", "ab" * 32, "--no-wait", "--json").document["claim"]

    claims = [claim_at(f"https://example.com/{place}") for place in ("a", "b", "a", "b")]

    assert claims[:2] == claims[2:]
    assert len(set(claims)) == 2
    assert {message_hash(path.read_bytes()).hex() for path in (alice.directory / "claims").iterdir()} == set(claims)


def test_a_second_certificate_does_not_replace_the_first(ledger, alice, bob, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 3)
    claim(alice, stolen)
    first = alice.bundle.certificate.read_bytes()
    stolen.write_bytes(bob.model.read_bytes())

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


@pytest.fixture
def decided(ledger, alice, publish, claim, stolen, good):
    """A claim of Alice's that all nodes verified, its hash; her publication is entry 1, the claim entry 2."""
    publish(alice)
    ledger.voting = (good, 3)
    return claim(alice, stolen, "--json").document["claim"]


@pytest.fixture
def tell(wmreg, ledger):
    """Let nodes say other things of a claim than they should."""

    def lie(nodes, digest, **changes):
        state = ledger.state_of(digest)
        for node in nodes:
            node.answers[f"/v1/claims/{digest}"] = json.dumps(state | changes).encode()

    return lie


@pytest.fixture
def status(wmreg, ledger):
    """The state of a claim."""
    return lambda digest, *more: wmreg("status", digest, "--policy", ledger.policy_path, *more)


def invented(**changes):
    rival = {"publication": "00" * 32, "owner": "11" * 32, "publication_index": 0} | changes
    return {"superseded_by": "22" * 32, "superseding": rival}


@pytest.mark.parametrize(
    "lie",
    [
        {"outcome": "REFUTED", "reason": "below_threshold"},
        {"outcome": None, "reason": "open", "votes": []},
        {"outcome": "UNVERIFIABLE", "reason": "timeout"},
        invented(),
    ],
)
def test_one_lying_node_decides_nothing(ledger, decided, tell, status, claim, alice, stolen, lie):
    tell(ledger.nodes[:1], decided, **lie)

    assert status(decided, "--json").document["outcome"] == "VERIFIED"
    assert status(decided).code == 0
    assert claim(alice, stolen).code == 0


def test_one_node_that_calls_a_refuted_claim_verified_is_not_believed(
    ledger, alice, publish, claim, stolen, poor, tell, status
):
    publish(alice)
    ledger.voting = (poor, 3)
    digest = claim(alice, stolen, "--json").document["claim"]
    tell(ledger.nodes[:1], digest, outcome="VERIFIED", reason="matched")

    found = status(digest)

    assert found.code == 1
    assert "REFUTED" in found.out
    assert claim(alice, stolen).code == 1


def test_a_refusal_that_too_few_nodes_tell_is_unconfirmed(ledger, decided, tell, status, claim, alice, stolen):
    tell(ledger.nodes[:1], decided, outcome="REFUTED", reason="below_threshold")
    ledger.nodes[1].down = ledger.nodes[2].down = True

    found = status(decided, "--json")
    waited = claim(alice, stolen, "--timeout-s", 0)

    assert (found.code, found.document["confirmed"]) == (4, False)
    assert "unconfirmed" in found.document["explanation"]
    assert waited.code == 4


def test_a_claim_that_is_won_needs_one_honest_node_only(ledger, decided, status):
    ledger.nodes[0].down = ledger.nodes[1].down = True

    assert status(decided).code == 0


def test_a_refuted_claims_status_ends_with_1_and_an_open_ones_with_4(
    ledger, alice, publish, claim, stolen, poor, status
):
    publish(alice)
    digest = claim(alice, stolen, "--no-wait", "--json").document["claim"]
    before = status(digest).code
    ledger.vote(bytes.fromhex(digest), poor)

    assert (before, status(digest).code) == (4, 1)


def test_an_invented_older_publication_is_not_believed_whoever_tells_it(ledger, decided, tell, status):
    tell(ledger.nodes, decided, **invented())

    found = status(decided, "--json")

    assert (found.code, found.document["error"]["code"]) == (1, "not_found")


def test_a_younger_publication_supersedes_nothing_whoever_says_so(
    ledger, decided, bob, publish, claim, stolen, tell, status
):
    publish(bob)
    rival = claim(bob, stolen, "--no-wait", "--json").document["claim"]
    publication = message_hash(bob.bundle.publication.read_bytes()).hex()
    index = ledger.index_of(bytes.fromhex(publication))
    told = {"publication": publication, "owner": "11" * 32, "publication_index": index}
    tell(ledger.nodes, decided, superseded_by=rival, superseding=told)

    found = status(decided, "--json")

    assert (found.code, found.document["error"]["code"]) == (3, "not_superseding")


def test_an_older_publication_without_a_claim_on_this_model_supersedes_nothing(
    ledger, alice, bob, publish, claim, stolen, good, tell, status
):
    publish(bob)
    publish(alice)
    other = claim(bob, bob.model, "--no-wait", "--json").document["claim"]
    ledger.voting = (good, 3)
    digest = claim(alice, stolen, "--json").document["claim"]
    publication = message_hash(bob.bundle.publication.read_bytes()).hex()
    told = {"publication": publication, "owner": "11" * 32, "publication_index": 1}
    tell(ledger.nodes, digest, superseded_by=other, superseding=told)

    found = status(digest, "--json")

    assert (found.code, found.document["error"]["code"]) == (3, "not_superseding")


HOSTILE_STATES = [
    {"claim": "nonsense"},
    {"claim": "00" * 32},
    {"outcome": "WON"},
    {"outcome": 5},
    {"votes": 5},
    {"votes": ["a"]},
    {"votes": [{}]},
    {"superseding": "x"},
    {"superseding": {}},
    {"superseded_by": "00" * 32},
    {"model_sha256": "\ud800"},
    {"publication_index": -1},
    {"publication_index": 10**30},
]


@pytest.mark.parametrize("changes", HOSTILE_STATES)
def test_an_answer_that_is_no_state_of_the_claim_is_passed_over(ledger, decided, tell, status, changes):
    tell(ledger.nodes[:1], decided, **changes)
    honest = status(decided, "--json")
    tell(ledger.nodes, decided, **changes)
    hostile = status(decided)

    assert (honest.code, honest.document["claim"]) == (0, decided)
    assert hostile.code == 4
    assert hostile.err.count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"controls": 5},
        {"controls": ["a"]},
        {"controls": [{"matched": "many"}]},
        {"matched": "590"},
        {"total": 1e400},
        {"p_value": 3},
        {"device": ["cpu"]},
        {"member": None},
    ],
)
def test_a_vote_of_other_types_is_passed_over(ledger, decided, tell, status, changes):
    vote = ledger.state_of(decided)["votes"][0]
    tell(ledger.nodes[:1], decided, votes=[vote | changes])

    assert status(decided).code == 0
    assert len(status(decided, "--json").document["votes"]) == 3


def test_a_votes_words_cannot_garble_the_terminal(ledger, decided, tell, status):
    vote = ledger.state_of(decided)["votes"][0] | {"device": "\x1b[2J\x9b", "p_value": "\u202e1", "member": "a\nb"}
    tell(ledger.nodes, decided, votes=[vote])

    shown = status(decided).out

    assert "?[2J?" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_node_that_lags_does_not_undo_a_verdict(ledger, alice, publish, claim, stolen, good, tell, monkeypatch):
    publish(alice)
    ledger.voting = (good, 2)
    digest = claim(alice, stolen, "--json", "--stragglers-s", 0).document["claim"]
    asked = []

    async def remember():
        async with open_ledger(ledger.trust, Timing(patience_s=0.2)) as api:
            state = await ask_state(api, bytes.fromhex(digest))
            tell(ledger.nodes, digest, outcome=None, reason="open", votes=[])
            return await await_stragglers(api, state, timeout_s=1, on_change=asked.append)

    state = asyncio.run(remember())

    assert (state.outcome, len(state.votes)) == ("VERIFIED", 2)
    assert asked == []


def test_a_straggler_that_comes_is_shown(ledger, alice, publish, claim, stolen, good):
    publish(alice)
    ledger.voting = (good, 2)
    digest = claim(alice, stolen, "--json", "--stragglers-s", 0).document["claim"]

    async def remember():
        async with open_ledger(ledger.trust, Timing(patience_s=0.2)) as api:
            state = await ask_state(api, bytes.fromhex(digest))
            ledger.vote_of(ledger.nodes[2], bytes.fromhex(digest), good)
            return await await_stragglers(api, state, timeout_s=30, on_change=lambda _state: None)

    assert len(asyncio.run(remember()).votes) == 3


def test_a_saved_publication_that_is_not_recorded_reveals_nothing(ledger, alice, publish, claim, stolen):
    for node in ledger.nodes:
        node.refusals["POST"] = (503, "no_leader")
    assert publish(alice).code == 4
    for node in ledger.nodes:
        node.refusals.clear()

    failed = claim(alice, stolen, "--no-wait", "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "not_published")
    assert not any(node.blobs for node in ledger.nodes)
    assert len(ledger.raw) == 1


def test_a_publication_that_one_node_denies_is_looked_up_elsewhere(ledger, alice, publish, claim, stolen):
    publish(alice)
    ledger.nodes[0].behind = 1

    assert claim(alice, stolen, "--no-wait").code == 0


def test_too_few_nodes_to_prove_the_publication_reveal_nothing(ledger, alice, publish, claim, stolen):
    digest = publish(alice, "--json").document["message_hash"]
    for node in ledger.nodes[:2]:
        node.refusals[f"GET /v1/receipts/{digest}"] = (503, "busy")
    ledger.nodes[2].refusals[f"GET /v1/receipts/{digest}"] = (404, "not_found")

    failed = claim(alice, stolen, "--no-wait", "--json")

    assert (failed.code, failed.document["error"]["code"]) == (4, "unavailable")
    assert not any(node.blobs for node in ledger.nodes)


def test_a_ledger_with_another_past_than_the_publications_reveals_nothing(ledger, alice, bob, publish, claim, stolen):
    publish(alice)
    publish(bob)
    ledger.rewrite(2)
    ledger.grow(1)

    failed = claim(alice, stolen, "--no-wait", "--json")

    assert failed.code == 5
    assert not any(node.blobs for node in ledger.nodes)


def test_a_certificate_of_another_past_is_an_alarm(ledger, decided, status, alice):
    alice.bundle.certificate.unlink()
    memory = Memory(alice.directory.parent / "home" / "ledgers")
    other = ledger.note(ledger.size, root=bytes(32))
    memory.path(ORIGIN).write_text(other)
    for node in ledger.nodes:  # the checkpoints agree with the memory, the certificate does not
        node.answers["/checkpoint"] = other.encode()

    assert status(decided).code == 5


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
        (f"blob:sha256:{'AB' * 32}", [], "SHA-256"),
        (f"blob:sha256:{'ab' * 32}", ["--sha256", "junk"], "--sha256"),
        ("https://", ["--sha256", "ab" * 32], "https://host/path"),
        ("https://user@example.com/m", ["--sha256", "ab" * 32], "without a user"),
        ("https://user:pw@example.com/m", ["--sha256", "ab" * 32], "without a user"),
        ("https://example.com:99999/m", ["--sha256", "ab" * 32], "https://host/path"),
        ("https://example.com/" + "m" * 2048, ["--sha256", "ab" * 32], "2048"),
        ("https://example.com/a b", ["--sha256", "ab" * 32], "ASCII"),
        ("https://example.com/\u202em", ["--sha256", "ab" * 32], "ASCII"),
        ("file:///etc/passwd", ["--sha256", "ab" * 32], "https://"),
    ],
)
def test_a_model_that_cannot_be_named_is_a_usage_error(ledger, alice, publish, claim, model, more, words):
    publish(alice)

    failed = claim(alice, model, *more, "--no-wait")

    assert failed.code == 2
    assert words in failed.err
    assert failed.err.count("\n") == 1
    assert len(ledger.raw) == 2
    assert not any(node.blobs for node in ledger.nodes)


def header(tensors, data=b""):
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + data


WEIGHT = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95 a pickle",
        b"PK\x03\x04 a zip file of torch",
        header({"w": WEIGHT}, bytes(4))[:20],
        header({"w": WEIGHT}, bytes(3)),
        header({"w": WEIGHT}, bytes(5)),
        header({"w": WEIGHT, "v": WEIGHT | {"data_offsets": [2, 4]}}, bytes(4)),
        header({"w": WEIGHT | {"data_offsets": [4, 0]}}, bytes(4)),
        header({"w": {"dtype": "U8"}}, bytes(4)),
        header({"__metadata__": {"format": "pt"}}),
        header([]),
        header({}),
        (2**60).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_file_that_no_node_could_verify_does_not_cost_the_key(ledger, alice, publish, claim, stolen, content):
    publish(alice)
    stolen.write_bytes(content)

    refused = claim(alice, stolen, "--no-wait", "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "malformed")
    assert not any(node.blobs for node in ledger.nodes)
    assert len(ledger.raw) == 2


def test_a_blob_of_another_hash_than_the_one_meant_is_refused(ledger, alice, publish, claim):
    publish(alice)

    failed = claim(alice, f"blob:sha256:{'ab' * 32}", "--sha256", "cd" * 32, "--json")

    assert (failed.code, failed.document["error"]["code"]) == (1, "hash_mismatch")


def test_a_blob_that_the_nodes_have_is_claimed_by_its_name(ledger, alice, publish, claim):
    publish(alice)

    assert claim(alice, f"blob:sha256:{'ab' * 32}", "--sha256", "ab" * 32, "--no-wait").code == 0


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


def with_tensors(path, tensors):
    path.write_bytes(safetensors.numpy.save(tensors))
    return path


@pytest.mark.parametrize(
    ("tensors", "needle"),
    [
        ({"features.0.weight": np.zeros((64, 3, 7, 7), dtype=np.float32)}, "lacks the tensors conv1.weight"),
        ({"conv1.weight": np.zeros((32, 3, 7, 7), dtype=np.float32)}, "other channels"),
        ({"conv1.weight": np.zeros((64, 3, 7, 7), dtype=np.int32)}, "torch.int32"),
        ({"conv1.weight": np.full((64, 3, 7, 7), np.nan, dtype=np.float32)}, "finite"),
    ],
)
def test_a_file_that_no_node_could_verify_reveals_no_key(alice, publish, claim, ledger, tmp_path, tensors, needle):
    publish(alice)

    refused = claim(alice, with_tensors(tmp_path / "other.safetensors", tensors), "--no-wait")

    assert (refused.code, refused.err.count("\n"), needle in refused.err) == (1, 1, True), refused.err
    assert "no key was revealed" in refused.err
    assert len(ledger.raw) == 2
    assert not any(node.blobs for node in ledger.nodes)
    assert list((alice.directory / "claims").glob("*")) == []


def test_a_model_with_another_classifier_is_claimed_all_the_same(alice, publish, claim, tmp_path):
    publish(alice)
    reused = {"conv1.weight": np.ones((64, 3, 7, 7), dtype=np.float32), "fc.weight": np.ones((2, 2), dtype=np.float32)}

    assert claim(alice, with_tensors(tmp_path / "reused.safetensors", reused), "--no-wait").code == 0
