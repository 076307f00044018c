"""Promises: every later tree continues the one that was seen; a fork or a rollback is an alarm, a lag is none."""

from dataclasses import replace

import pytest
from fakes import ORIGIN, member, policy

from client.errors import InvalidError
from client.memory import Memory, tile_width
from registry.note import Note
from registry.trust import TrustPolicy


@pytest.fixture
def memory(tmp_path):
    """What the command line of the tests remembers."""
    return Memory(tmp_path / "home" / "ledgers")


def test_the_last_checkpoint_is_remembered(ledger, alice, publish, memory):
    publish(alice)

    assert memory.recall(ledger.trust) == ledger.checkpoint(2)


def test_nothing_is_remembered_of_a_new_ledger(ledger, memory):
    assert memory.recall(ledger.trust) is None


@pytest.mark.parametrize("more", [1, 2, 3, 5, 300])
def test_a_ledger_that_grew_continues_what_was_seen(ledger, alice, bob, publish, memory, more):
    publish(alice)
    ledger.grow(more)

    assert publish(bob).code == 0
    assert memory.recall(ledger.trust).size == 3 + more


@pytest.mark.parametrize("more", [0, 1, 300])
def test_a_rewritten_past_is_an_alarm_and_the_evidence_is_kept(ledger, alice, bob, publish, memory, more):
    publish(alice)
    ledger.grow(more)
    seen = memory.path(ledger.trust.origin).read_text()
    ledger.rewrite(1)

    found = publish(bob, "--json")

    assert found.code == 5
    assert memory.path(ledger.trust.origin).read_text() == seen
    assert memory.path(ledger.trust.origin).with_suffix(".conflict.note").exists()
    assert not bob.bundle.receipt.exists()


def test_one_lying_nodes_tiles_raise_no_alarm(ledger, alice, bob, publish):
    publish(alice)
    for path in ("/tile/0/000.p/3", "/tile/0/000.p/4"):
        ledger.nodes[0].answers[path] = bytes(32 * int(path[-1]))

    assert publish(bob).code == 0


def test_a_quorum_that_lost_what_was_seen_is_an_alarm(ledger, alice, publish, claim, wmreg):
    publish(alice)
    claimed = claim(alice, alice.model, "--no-wait", "--json")
    ledger.nodes[0].down = True
    for node in ledger.nodes[1:]:
        node.behind = 1

    found = wmreg("status", claimed.document["claim"], "--policy", ledger.policy_path, "--json")

    assert found.code == 5
    assert found.document["error"]["code"] == "rolled_back"


def test_one_node_that_is_behind_is_no_alarm(ledger, alice, publish, claim, wmreg):
    publish(alice)
    claimed = claim(alice, alice.model, "--no-wait", "--json")
    ledger.nodes[0].down = ledger.nodes[1].down = True
    ledger.nodes[2].behind = 1

    found = wmreg("status", claimed.document["claim"], "--policy", ledger.policy_path, "--json")

    assert found.code == 4
    assert found.document["error"]["code"] == "behind"


def test_a_node_that_signed_another_tree_of_the_size_seen_is_an_alarm(ledger, alice, publish, claim, wmreg):
    publish(alice)
    claimed = claim(alice, alice.model, "--no-wait", "--json")
    for node in ledger.nodes:
        node.behind = 1
    ledger.forked_after = 2
    forged = ledger.note(3, [ledger.nodes[1]])
    ledger.forked_after = None
    ledger.nodes[1].answers["/v1/checkpoints/3"] = forged.encode()

    found = wmreg("status", claimed.document["claim"], "--policy", ledger.policy_path, "--json")

    assert (found.code, found.document["error"]["code"]) == (5, "fork")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff"])
def test_a_damaged_memory_is_named_and_not_overwritten(ledger, alice, publish, memory, content):
    memory.directory.mkdir(parents=True)
    memory.path(ledger.trust.origin).write_bytes(content)

    found = publish(alice)

    assert found.code in {1, 2}
    assert str(memory.path(ledger.trust.origin)) in found.err
    assert memory.path(ledger.trust.origin).read_bytes() == content


@pytest.mark.parametrize("size", [1, 2])
def test_a_memory_that_no_node_has_signed_is_a_damaged_file_and_accuses_nobody(
    ledger, alice, publish, memory, wmreg, size
):
    publish(alice)
    path = memory.path(ledger.trust.origin)
    signed = Note.parse(ledger.note(size, root=b"\x07" * 32))
    path.write_text(str(Note(signed.text, tuple(replace(line, name="a.stranger/log") for line in signed.signatures))))

    published = publish(alice)
    audited = wmreg("audit", "--mirror", memory.directory.with_name("copy"), "--policy", ledger.policy_path)
    verified = wmreg("verify", alice.bundle.receipt, "--policy", ledger.policy_path)

    for told in (published, audited):
        assert told.code == 1
        assert f"{path}: damaged (no node" in told.err
    assert (verified.code, "not compared with what was seen before" in verified.out) == (0, True)
    assert list(memory.directory.glob("*.conflict.note")) == list(memory.directory.glob("equivocation-*")) == []


def test_a_memory_whose_signature_does_not_hold_is_a_damaged_file(ledger, alice, bob, publish, memory):
    publish(alice)
    path = memory.path(ledger.trust.origin)
    path.write_text(path.read_text().replace("\n2\n", "\n1\n", 1))

    told = publish(bob)

    assert (told.code, str(path) in told.err, "damaged" in told.err) == (1, True, True)


@pytest.mark.parametrize(
    ("level", "number", "size", "width"),
    [(0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 256, 256), (0, 1, 256, 0), (0, 1, 300, 44), (1, 0, 255, 0), (1, 0, 600, 2)],
)
def test_a_tile_is_as_wide_as_the_tree_has_grown(level, number, size, width):
    assert tile_width(level, number, size) == width


def test_the_evidence_of_a_rewritten_past_convicts_by_itself(ledger, alice, bob, publish, memory, wmreg):
    publish(alice)
    ledger.rewrite(1)

    found = publish(bob)

    (evidence,) = memory.directory.glob("equivocation-*.json")
    assert found.code == 5
    assert str(evidence) in found.err
    told = wmreg("verify", evidence, "--policy", ledger.policy_path, "--json")
    assert told.code == 5
    assert {signer["name"] for signer in told.document["convicted"]} >= {"node-1", "node-2", "node-3"}


def test_tiles_that_prove_nothing_raise_an_alarm_without_false_evidence(ledger, alice, bob, publish, memory):
    publish(alice)
    for node in ledger.nodes:
        for path in ("/tile/0/000.p/3", "/tile/0/000.p/4"):
            node.answers[path] = bytes(32 * int(path[-1]))

    assert publish(bob).code == 5
    assert list(memory.directory.glob("equivocation-*.json")) == []


@pytest.fixture
def later(ledger) -> TrustPolicy:
    """The ledger's policy after all nodes have changed their keys."""
    return TrustPolicy.of(policy(), ledger.trust.origin)


def test_what_was_seen_is_known_again_after_all_nodes_have_changed_their_keys(ledger, alice, publish, memory, later):
    publish(alice)
    with pytest.raises(InvalidError, match="wmreg policy update"):
        memory.recall(later)

    memory.keep_keys(ledger.trust)

    assert memory.recall(later) == ledger.checkpoint(2)
    path = memory.path(ledger.trust.origin)
    path.write_text(path.read_text().replace("\n2\n", "\n1\n", 1))
    with pytest.raises(InvalidError, match="damaged"):
        memory.recall(later)


def test_the_keys_of_earlier_policies_are_kept_once_and_not_without_end(memory, monkeypatch):
    for _twice in range(2):
        memory.keep_keys(TrustPolicy.of(policy(1, 2, 3), ORIGIN))
    keys = memory.path(ORIGIN).with_suffix(".keys")
    assert len(keys.read_text().splitlines()) == 6

    monkeypatch.setattr("client.memory.EARLIER_KEYS_MAX", 8)
    memory.keep_keys(TrustPolicy.of(policy(4, 5, 6), ORIGIN))

    kept = keys.read_text().splitlines()
    assert len(kept) == 8
    assert kept[-1] == str(member("node-6").cosigner(ORIGIN))


def test_damaged_keys_of_earlier_policies_are_named(ledger, alice, bob, publish, memory):
    publish(alice)
    keys = memory.path(ledger.trust.origin).with_suffix(".keys")
    keys.write_text("no key\n")

    told = publish(bob)

    assert (told.code, f"{keys}: damaged" in told.err) == (1, True)
