"""Promises: `wmreg node status` shows at once who answers, whether the trees agree, and how many more may fail."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.note import Note, sign
from registry.policy import Policy
from registry.trust import TrustPolicy


@pytest.fixture
def status(wmreg, ledger):
    """Ask for the state of all nodes."""
    return lambda *more: wmreg("node", "status", "--policy", ledger.policy_path, *more)


def test_a_whole_ledger_tolerates_one_failure(status):
    found = status()

    assert found.code == 0
    assert "1 more may fail" in found.out
    assert status("--json").document["tolerates"] == 1


def test_a_ledger_with_one_node_down_tolerates_none(ledger, status):
    ledger.nodes[1].down = True

    found = status("--json")

    assert found.code == 0
    assert [node["reachable"] for node in found.document["nodes"]] == [True, False, True]
    assert f"no other may fail, or the ledger stops, so bring back {ledger.nodes[1].url}" in status().out


def test_what_a_node_says_is_wrong_with_it_is_shown(ledger, status):
    ledger.nodes[1].answers["/v1/node"] = b'{"size": 1, "problems": {"voter": "the disk is\\n full", "x": 5}}'

    found = status().out

    assert f"{ledger.nodes[1].url}: voter: the disk is" in found
    assert f"{ledger.nodes[1].url}: x: 5" in found
    assert f"{ledger.nodes[0].url}: " not in found


def test_public_models_that_a_node_cannot_use_are_said_in_words(ledger, status):
    ledger.nodes[1].answers["/v1/node"] = b'{"size": 1, "verifier": {"unusable_public": {"resnet18": 2}}}'

    found = status()

    assert found.code == 0
    said = f"{ledger.nodes[1].url}: public models: 2 of its files for resnet18 did not fit the latest claim"
    assert said in " ".join(found.out.split())
    assert found.out.count("public models") == 1


@pytest.mark.parametrize("unusable", [b"null", b"[1]", b'"all"', b"7", b"{}"])
def test_a_node_that_tells_no_unusable_public_models_is_not_said_to_have_any(ledger, status, unusable):
    ledger.nodes[1].answers["/v1/node"] = b'{"size": 1, "verifier": {"unusable_public": %s}}' % unusable

    assert "public models" not in status().out


@pytest.mark.parametrize("problems", [b"null", b"[1]", b'"all"', b"7"])
def test_a_node_that_tells_its_problems_in_another_shape_is_not_believed_to_have_any(ledger, status, problems):
    ledger.nodes[1].answers["/v1/node"] = b'{"size": 1, "problems": %s}' % problems

    assert status().code == 0


def test_a_ledger_without_a_quorum_is_unavailable(ledger, status):
    ledger.nodes[1].down = ledger.nodes[2].down = True

    assert status().code == 4


def test_trees_are_compared_at_the_largest_size_that_a_quorum_has(ledger, status, alice, publish):
    publish(alice)
    ledger.nodes[0].behind = 1

    found = status("--json").document

    assert found["compared_size"] == 2
    assert [node["agrees"] for node in found["nodes"]] == [None, True, True]


@pytest.mark.parametrize("size", [b"0", b"-1", b"true", b'"9"', b"1e3", b"1" + b"0" * 30, b"1000000"])
def test_a_node_cannot_switch_the_comparison_off(ledger, status, alice, publish, size):
    publish(alice)
    ledger.forked_after = 1
    forged = ledger.note(2, [ledger.nodes[2]])
    ledger.forked_after = None
    ledger.nodes[0].answers["/v1/node"] = b'{"name": "node-1", "size": %s}' % size
    ledger.nodes[2].answers["/v1/checkpoints/2"] = forged.encode()

    assert status().code == 5


def test_a_note_of_another_size_says_nothing(ledger, status, alice, publish):
    publish(alice)
    ledger.nodes[1].answers["/v1/checkpoints/2"] = ledger.note(1, [ledger.nodes[1]]).encode()

    found = status("--json")

    assert found.code == 0
    assert [node["agrees"] for node in found.document["nodes"]] == [True, None, True]


def test_nodes_that_show_no_size_are_said_not_to_be_compared(ledger, status):
    for node in ledger.nodes:
        node.answers["/v1/node"] = b'{"size": 0}'

    assert "not compared" in status().out


def test_a_node_that_signed_another_tree_is_an_alarm(ledger, status, alice, publish):
    publish(alice)
    ledger.forked_after = 1
    forged = ledger.note(2, [ledger.nodes[2]])
    ledger.forked_after = None
    ledger.nodes[2].answers["/v1/checkpoints/2"] = forged.encode()

    found = status()

    assert found.code == 5
    assert "ALARM" in found.out
    assert ledger.nodes[2].url in found.out


def test_what_a_node_says_cannot_garble_the_terminal(ledger, status):
    ledger.nodes[0].answers["/v1/node"] = b'{"name": "\\u001b[2J", "size": 1, "raft": 5}'

    found = status()

    assert found.code == 0
    assert "\x1b" not in found.out


@pytest.fixture
def of_another(ledger, tmp_path):
    """A policy that trusts another ledger, with the URLs of this one's nodes."""
    members = [ledger._member(replace(node, **new_keys()), 7000 + i) for i, node in enumerate(ledger.nodes)]
    path = tmp_path / "other.txt"
    path.write_text(str(TrustPolicy.of(Policy(members=tuple(members), quorum=2), "a/b")))
    return path


def new_keys():
    return {name: Ed25519PrivateKey.generate() for name in ("signing_key", "note_key", "cosigner_key")}


def test_nodes_of_another_ledger_are_not_trusted_and_said_to_be_each(wmreg, ledger, of_another):
    why = f"a checkpoint of '{ledger.trust.origin}'; the policy trusts a/b"

    found = wmreg("node", "status", "--policy", of_another)

    assert found.code == 3
    assert "a/b: NOT TRUSTED; 3 of 3 nodes answer" in found.out
    for node in ledger.nodes:
        assert f"{node.url}: not trusted: {why}" in found.out
    document = wmreg("node", "status", "--policy", of_another, "--json").document
    assert [node["problem"] for node in document["nodes"]] == [why] * 3
    assert document["tolerates"] == 0


def test_one_node_of_another_ledger_is_no_help_and_no_harm(ledger, status):
    ledger.nodes[2].answers["/v1/checkpoints/1"] = signed_by_a_stranger(ledger)

    found = status()

    assert found.code == 0
    assert "no other may fail" in found.out
    assert f"{ledger.nodes[2].url}: not trusted: the checkpoint has no signature of a known log key" in found.out
    ledger.nodes[0].down = True
    assert status().code == 4


def signed_by_a_stranger(ledger):
    text = str(ledger.checkpoint(1))
    return str(Note(text, (sign(text, name=ledger.trust.origin, private_key=Ed25519PrivateKey.generate()),))).encode()


@pytest.mark.parametrize("verb", [("audit",), ("status", "ab" * 32)])
def test_a_policy_of_another_ledger_is_not_trusted_and_not_unavailable(wmreg, ledger, of_another, verb):
    found = wmreg(*verb, "--policy", of_another)

    assert found.code == 3
    assert f"a checkpoint of '{ledger.trust.origin}'; the policy trusts a/b" in found.err
    ledger.nodes[0].down = True
    assert wmreg(*verb, "--policy", of_another).code == 3


def test_nodes_that_are_down_or_cosigned_by_too_few_are_unavailable(wmreg, ledger):
    for node in ledger.nodes:
        node.answers["/checkpoint"] = ledger.note(1, [ledger.nodes[0]]).encode()
    assert wmreg("audit", "--policy", ledger.policy_path).code == 4
    for node in ledger.nodes:
        node.down = True
    assert wmreg("audit", "--policy", ledger.policy_path).code == 4


def test_a_policy_that_cannot_be_updated_names_each_node_that_does_not_answer(wmreg, ledger):
    for node in ledger.nodes:
        node.down = True

    found = wmreg("policy", "update", "--policy", ledger.policy_path)

    assert found.code == 4
    for node in ledger.nodes:
        assert f"{node.url}: " in found.err
