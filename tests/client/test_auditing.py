"""Promises: an audit replays everything, believes nobody, can be resumed, and names the first thing that is wrong."""

import pytest

from client.mirror import Mirror
from registry import tiles


@pytest.fixture
def audit(wmreg, ledger):
    """Audit the ledger."""
    return lambda *more: wmreg("audit", "--policy", ledger.policy_path, *more)


@pytest.fixture
def mirrored(tmp_path, alice, publish, audit):
    """A mirror of a ledger with one publication."""
    publish(alice)
    assert audit("--mirror", tmp_path / "mirror").code == 0
    return Mirror(tmp_path / "mirror")


def test_a_good_ledger_is_summed_up(alice, publish, claim, ledger, audit, good):
    publish(alice)
    ledger.voting = (good, 3)
    claim(alice, alice.model)

    found = audit("--json")

    assert found.code == 0
    assert found.document["size"] == 6
    assert found.document["entries"] == {"genesis": 1, "publish": 1, "claim": 1, "vote": 3}
    assert found.document["claims"] == {"VERIFIED": 1}
    assert [node["problem"] for node in found.document["nodes"]] == [None, None, None]


def test_a_node_that_is_down_is_reported_and_is_no_inconsistency(ledger, audit):
    ledger.nodes[2].down = True

    found = audit()

    assert found.code == 0
    assert found.out.count("agrees") == 2


def test_a_mirror_is_audited_without_any_network(ledger, mirrored, audit):
    for node in ledger.nodes:
        node.down = True

    assert audit("--mirror", mirrored.directory, "--offline").code == 0


def test_a_mirror_is_resumed_and_full_bundles_are_fetched_once(tmp_path, ledger, make_party, publish, audit):
    ledger.grow(300)
    first = audit("--mirror", tmp_path / "mirror", "--json")
    publish(make_party("carol"))

    second = audit("--mirror", tmp_path / "mirror", "--json")

    assert (first.document["bundles_fetched"], second.document["bundles_fetched"]) == (2, 1)
    assert second.document["size"] == 302
    names = sorted(
        p.relative_to(tmp_path / "mirror").as_posix() for p in (tmp_path / "mirror").rglob("*") if p.is_file()
    )
    assert names == ["checkpoint", "tile/entries/000", "tile/entries/001.p/46"]


def test_every_flipped_byte_of_a_mirrored_entry_is_found(mirrored, audit, ledger):
    path = mirrored.bundle(0, 2)
    original = path.read_bytes()
    for position in range(0, len(original), 97):
        path.write_bytes(original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :])

        found = audit("--mirror", mirrored.directory, "--offline")

        assert found.code == 5, position
        assert found.out == ""
    path.write_bytes(original)
    assert audit("--mirror", mirrored.directory, "--offline").code == 0


def test_the_first_entry_that_breaks_the_rules_is_named(mirrored, audit):
    path = mirrored.bundle(0, 2)
    genesis, publication = tiles.parse_entry_bundle(path.read_bytes())
    path.write_bytes(tiles.entry_bundle([genesis, publication[:-9] + b"\x00" + publication[-8:]]))

    assert "entry 1" in audit("--mirror", mirrored.directory, "--offline").err


def test_a_missing_bundle_is_named(mirrored, audit):
    mirrored.bundle(0, 2).unlink()

    found = audit("--mirror", mirrored.directory, "--offline")

    assert found.code == 2
    assert "000.p/2" in found.err


def test_a_checkpoint_that_the_policy_does_not_vouch_for_is_not_trusted(mirrored, audit):
    lines = mirrored.checkpoint.read_text().splitlines(keepends=True)
    mirrored.checkpoint.write_text("".join([*lines[:4], lines[4]]))  # the text, and one signature of the log

    assert audit("--mirror", mirrored.directory, "--offline").code == 3


def test_a_ledger_that_rewrote_its_past_is_an_alarm(alice, publish, ledger, audit):
    publish(alice)
    ledger.forked_after = 0

    found = audit("--json")

    assert found.code == 5


def test_a_node_that_signed_another_past_is_named(alice, publish, ledger, audit):
    publish(alice)
    ledger.forked_after = 1
    forged = ledger.note(2, [ledger.nodes[1]])
    ledger.forked_after = None
    ledger.nodes[1].answers["/v1/checkpoints/2"] = forged.encode()

    found = audit()

    assert found.code == 5
    assert ledger.nodes[1].url in found.err


def test_an_audit_with_all_nodes_down_is_unavailable(ledger, audit):
    for node in ledger.nodes:
        node.down = True

    assert audit().code == 4
