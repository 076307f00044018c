"""Promises: an audit replays everything, believes nobody, can be resumed, names all that is wrong, and nothing else."""

import json
import time
from dataclasses import replace

import pytest
from damage import with_flipped_bit

from client.audit.mirror import Mirror
from registry import tiles
from registry.envelope import seal
from registry.messages import PolicyChange, Vote
from registry.verdict import Outcome

pytestmark = pytest.mark.long

START_S = 1_700_000_000


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


@pytest.fixture
def hourly(ledger):
    """A ledger whose entries were recorded and signed once an hour; the genesis before them."""
    genesis = ledger.raw.pop()
    ledger.replay = type(ledger.replay)()
    ledger.replay.take(genesis)
    ledger.raw.append(genesis)
    ledger.signed_s[1] = ledger.now_s()
    start_s = ledger.now_s() + 3600
    for hour in range(4):
        ledger.record(start_s + 3600 * hour, signed_s=start_s + 3600 * hour)
    return start_s + 4 * 3600


def codes(found) -> list[str]:
    return [finding["code"] for finding in found.document["findings"]]


def notes_asked(ledger) -> int:
    return sum(request.startswith("GET /v1/checkpoints/") for node in ledger.nodes for request in node.requests)


def test_a_good_ledger_is_summed_up(alice, publish, claim, ledger, audit, good):
    publish(alice)
    ledger.voting = (good, 3)
    claim(alice, alice.model)

    found = audit("--json")

    assert found.code == 0
    assert (found.document["size"], found.document["replayed"]) == (6, 6)
    assert found.document["entries"] == {"genesis": 1, "publish": 1, "claim": 1, "vote": 3}
    assert found.document["claims"] == {"VERIFIED": 1}
    assert [node["problem"] for node in found.document["nodes"]] == [None, None, None]
    assert (found.document["findings"], found.document["remarks"]) == ([], [])
    assert (found.document["sizes_attested"], found.document["sizes_not_attested"]) == (6, 0)


def test_a_node_that_is_down_is_reported_and_is_no_inconsistency(ledger, audit):
    ledger.nodes[2].down = True

    found = audit()

    assert found.code == 0
    assert found.out.count("agrees") == 2


def test_a_node_that_is_behind_is_no_inconsistency(ledger, audit, alice, publish):
    publish(alice)
    ledger.nodes[2].behind = 1

    found = audit("--json")

    assert found.code == 0
    assert [node["size"] for node in found.document["nodes"]] == [2, 2, 1]


def test_nodes_that_are_all_behind_what_was_seen_are_told_apart_from_a_rollback(ledger, audit, alice, publish):
    publish(alice)
    assert audit().code == 0
    for node in ledger.nodes:
        node.behind = 1
    rolled_back = audit("--json")
    ledger.nodes[0].down = ledger.nodes[1].down = True
    behind = audit("--json")

    assert (rolled_back.code, codes(rolled_back)) == (5, ["rolled_back"])
    assert (behind.code, codes(behind)) == (0, [])
    assert any("behind size 2" in remark for remark in behind.document["remarks"])


def test_a_mirror_is_audited_without_any_network(ledger, mirrored, audit):
    for node in ledger.nodes:
        node.down = True

    assert audit("--mirror", mirrored.directory, "--offline").code == 0


def test_a_mirror_is_resumed_and_full_bundles_are_fetched_once(tmp_path, ledger, make_party, publish, audit):
    ledger.grow(300)
    first = audit("--mirror", tmp_path / "mirror", "--json")
    publish(make_party("carol"))
    asked = notes_asked(ledger)

    second = audit("--mirror", tmp_path / "mirror", "--json")

    assert (first.document["bundles_fetched"], second.document["bundles_fetched"]) == (2, 1)
    assert second.document["size"] == 302
    assert notes_asked(ledger) - asked == 2 * 3  # each node's own at the last size, for comparison and for its time
    names = sorted(
        p.relative_to(tmp_path / "mirror").as_posix() for p in (tmp_path / "mirror").rglob("*") if p.is_file()
    )
    assert names == ["checkpoint", "checkpoints/000", "checkpoints/001", "tile/entries/000", "tile/entries/001.p/46"]


def test_every_flipped_byte_of_a_mirrored_entry_is_found(mirrored, audit, ledger):
    path = mirrored.bundle(0, 2)
    original = path.read_bytes()
    for position in range(0, len(original), 97):
        path.write_bytes(with_flipped_bit(original, position))

        found = audit("--mirror", mirrored.directory, "--offline")

        assert found.code == 5, position
        assert "ALARM" in found.out
        assert "every one keeps the rules" not in found.out
    path.write_bytes(original)
    assert audit("--mirror", mirrored.directory, "--offline").code == 0


def test_a_damaged_copy_is_called_one_and_accuses_nobody(mirrored, audit):
    path = mirrored.bundle(0, 2)
    genesis, publication = tiles.parse_entry_bundle(path.read_bytes())
    damaged = with_flipped_bit(publication, -30)
    path.write_bytes(tiles.entry_bundle([genesis, damaged]))

    found = audit("--mirror", mirrored.directory, "--offline", "--json")

    assert codes(found) == ["entries"]
    assert "entry 1, which the rules refuse (bad_signature), accuses nobody" in found.document["findings"][0]["what"]
    assert "This copy is damaged" in found.document["findings"][0]["remedy"]
    assert (found.document["replayed"], found.document["refused"]) == (1, 1)
    assert ["not the log" in remark for remark in found.document["remarks"]] == [True]


def test_a_bundle_that_is_cut_off_is_named(mirrored, audit):
    path = mirrored.bundle(0, 2)
    path.write_bytes(path.read_bytes()[:-1])

    found = audit("--mirror", mirrored.directory, "--offline", "--json")

    assert (found.code, codes(found)) == (5, ["mirror"])
    assert str(path) in found.document["findings"][0]["what"]


def test_damaged_checkpoints_in_a_mirror_are_named_offline_and_fetched_again_online(mirrored, audit):
    path = mirrored.notes_path(0)
    raw = path.read_bytes()
    path.write_bytes(with_flipped_bit(raw, -20))

    offline = audit("--mirror", mirrored.directory, "--offline", "--json")
    online = audit("--mirror", mirrored.directory)

    assert (offline.code, codes(offline)) == (5, ["mirror"])
    assert online.code == 0
    assert audit("--mirror", mirrored.directory, "--offline").code == 0


def test_every_flipped_byte_of_a_mirrored_checkpoint_is_an_alarm_or_was_believed_by_nobody(mirrored, audit):
    path = mirrored.checkpoint
    original = path.read_bytes()
    for position in range(0, len(original), 7):
        path.write_bytes(with_flipped_bit(original, position))

        found = audit("--mirror", mirrored.directory, "--offline")

        if found.code == 0:  # the name or key ID of one signature: the others are a quorum
            assert "note: not checked" in found.out, position
            continue
        assert (found.code, found.err.count("\n"), str(path) in found.err) == (5, 1, True), (position, found.err)
    path.write_bytes(original)
    assert "not checked" not in audit("--mirror", mirrored.directory, "--offline").out


@pytest.mark.parametrize("part", [slice(0), slice(-9), slice(None, None, -1)])
def test_a_mirrored_checkpoint_that_is_no_checkpoint_is_an_alarm_that_names_the_remedy(mirrored, audit, part):
    mirrored.checkpoint.write_bytes(mirrored.checkpoint.read_bytes()[part])

    offline = audit("--mirror", mirrored.directory, "--offline")

    assert (offline.code, str(mirrored.checkpoint) in offline.err) == (5, True)
    assert "without --offline" in offline.err
    assert audit("--mirror", mirrored.directory).code == 0
    assert audit("--mirror", mirrored.directory, "--offline").code == 0


def test_a_flipped_byte_of_mirrored_checkpoints_is_found_or_remarked_on(mirrored, audit):
    path = mirrored.notes_path(0)
    original = path.read_bytes()
    for position in range(0, len(original), 41):
        path.write_bytes(with_flipped_bit(original, position))

        found = audit("--mirror", mirrored.directory, "--offline", "--json")

        unchecked = [remark for remark in found.document["remarks"] if str(path) in remark]
        assert (found.code, bool(unchecked)) in {(5, False), (0, True)}, position


def test_a_missing_bundle_is_named(mirrored, audit):
    mirrored.bundle(0, 2).unlink()

    found = audit("--mirror", mirrored.directory, "--offline")

    assert found.code == 2
    assert "000.p/2" in found.err


def test_a_checkpoint_that_the_policy_does_not_vouch_for_is_not_trusted(mirrored, audit):
    lines = mirrored.checkpoint.read_text().splitlines(keepends=True)
    mirrored.checkpoint.write_text("".join([*lines[:4], lines[4]]))  # the text, and one signature of the log

    assert audit("--mirror", mirrored.directory, "--offline").code == 3


def test_a_vote_that_its_numbers_contradict_is_named_and_the_rest_is_compared(
    alice, publish, claim, ledger, audit, good
):
    publish(alice)
    claimed = claim(alice, alice.model, "--no-wait", "--json")
    vote = Vote(
        time_s=ledger.now_s(),
        claim=bytes.fromhex(claimed.document["claim"]),
        policy=ledger.replay.ledger.policy_hashes[-1],
        outcome=Outcome.REFUTED,
        reason="below_threshold",
        measurement=good,
        device="cpu",
        software="test",
    )
    ledger.force(seal(vote, origin=ledger.trust.origin, private_keys=[ledger.nodes[0].signing_key]))

    found = audit("--json")

    assert (found.code, codes(found)) == (5, ["contradictory_vote"])
    assert found.document["findings"][0]["where"] == "entry 3"
    assert "quorum" in found.document["findings"][0]["remedy"]
    assert (found.document["replayed"], found.document["size"]) == (3, 4)
    assert [node["problem"] for node in found.document["nodes"]] == [None, None, None]
    told = audit().out
    assert "of 4 entries, the first 3 keep the rules, entry 3 breaks them" in told
    assert told.count("contradictory_vote") == 1


def test_entries_behind_a_refused_one_are_said_to_be_unchecked(ledger, audit, alice):
    ledger.grow(2)
    change = PolicyChange(
        time_s=ledger.now_s(),
        previous=ledger.replay.ledger.policy_hashes[-1],
        policy=replace(ledger.replay.ledger.policy, claim_deadline_s=3600),
    )
    ledger.force(seal(change, origin=ledger.trust.origin, private_keys=[ledger.nodes[0].signing_key]))
    for _ in range(2):
        ledger.force(b"junk")

    found = audit("--json")

    assert codes(found) == ["no_quorum"]
    assert "nothing from it on" in found.document["findings"][0]["remedy"]
    assert "entry 3 breaks them, and the 2 behind it were not checked" in audit().out


@pytest.mark.parametrize("more", [0, 1, 300])
def test_a_rewritten_past_is_named_with_evidence_that_convicts(alice, publish, ledger, audit, wmreg, more):
    publish(alice)
    assert audit().code == 0
    ledger.rewrite(1)
    ledger.grow(more)

    found = audit("--json")

    assert (found.code, codes(found)) == (5, ["rewritten_past"])
    told = wmreg("verify", found.document["findings"][0]["evidence"], "--policy", ledger.policy_path, "--json")
    assert told.code == 5
    assert {signer["name"] for signer in told.document["convicted"]} >= {"node-1", "node-2", "node-3"}


def test_what_was_remembered_is_kept_when_the_past_was_rewritten(alice, publish, ledger, audit):
    publish(alice)
    assert audit().code == 0
    ledger.rewrite(1)
    ledger.grow(1)

    assert codes(audit("--json")) == codes(audit("--json")) == ["rewritten_past"]


def test_a_checkpoint_that_no_entries_hash_to_is_named(alice, publish, ledger, audit):
    publish(alice)
    ledger.forked_after = 0

    found = audit("--json")

    assert found.code == 5
    assert codes(found) == ["entries", "rewritten_past"]


def test_a_node_that_signed_another_past_is_named_with_evidence(alice, publish, ledger, audit, wmreg):
    publish(alice)
    ledger.forked_after = 1
    forged = ledger.note(2, [ledger.nodes[1]])
    ledger.forked_after = None
    ledger.nodes[1].answers["/v1/checkpoints/2"] = forged.encode()

    found = audit("--json")

    assert (found.code, codes(found)) == (5, ["fork"])
    assert found.document["findings"][0]["where"] == ledger.nodes[1].url
    assert [node["problem"] is None for node in found.document["nodes"]] == [True, False, True]
    told = wmreg("verify", found.document["findings"][0]["evidence"], "--policy", ledger.policy_path, "--json")
    assert {signer["name"] for signer in told.document["convicted"]} == {ledger.trust.origin, "node-2"}


@pytest.mark.parametrize("grown", [0, 3, 300])
def test_two_nodes_whose_checkpoints_cannot_be_of_one_log_are_a_fork(alice, publish, ledger, audit, wmreg, grown):
    publish(alice)
    ledger.forked_after = 1
    ledger.nodes[2].answers["/checkpoint"] = ledger.note(2).encode()
    ledger.forked_after = None
    ledger.grow(grown)

    found = audit("--json")

    assert found.code == 5
    assert codes(found) == ["fork"]
    assert found.document["findings"][0]["where"] == ledger.nodes[2].url
    told = wmreg("verify", found.document["findings"][0]["evidence"], "--policy", ledger.policy_path)
    assert told.code == 5
    assert "These keys signed both" in told.out


def test_an_old_size_that_a_node_signed_differently_is_a_fork(ledger, audit):
    ledger.grow(300)
    ledger.forked_after = 1
    ledger.nodes[0].answers["/v1/checkpoints/256"] = ledger.note(256, [ledger.nodes[0]]).encode()
    ledger.forked_after = None

    found = audit("--json")

    assert (found.code, codes(found)) == (5, ["fork"])
    assert found.document["findings"][0]["where"] == ledger.nodes[0].url


def test_a_checkpoint_whose_entries_nobody_gives_does_not_stop_the_audit(alice, publish, ledger, audit):
    publish(alice)
    ledger.nodes[1].answers["/checkpoint"] = _ahead(ledger, 9)

    found = audit("--json")

    assert (found.code, found.document["size"]) == (0, 2)
    assert any("size 9" in remark for remark in found.document["remarks"])


def _ahead(ledger, size: int) -> bytes:
    """A checkpoint that all nodes signed of entries that are gone."""
    kept = list(ledger.raw), ledger.replay
    ledger.grow(size - len(ledger.raw))
    note = ledger.note(size)
    ledger.raw[:], _ = kept
    ledger.replay = type(ledger.replay)()
    for raw in ledger.raw:
        ledger.replay.take(raw)
    return note.encode()


def test_entries_without_a_quorum_are_named(alice, publish, ledger, audit):
    publish(alice)
    ledger.nodes[1].answers["/v1/node"] = json.dumps({"size": 7}).encode()

    found = audit("--json")

    assert (found.code, codes(found)) == (5, ["not_cosigned"])
    assert found.document["findings"][0]["where"] == ledger.nodes[1].url


def test_entries_that_too_few_nodes_could_have_signed_yet_are_no_finding(alice, publish, ledger, audit):
    publish(alice)
    ledger.nodes[1].answers["/v1/node"] = json.dumps({"size": 7}).encode()
    ledger.nodes[0].down = ledger.nodes[2].down = True

    found = audit("--json")

    assert found.code == 0
    assert any("5 more entries" in remark for remark in found.document["remarks"])


def test_entries_that_are_cosigned_while_the_audit_runs_are_no_finding(alice, bob, publish, ledger, audit):
    publish(alice)
    early = ledger.note(2).encode()
    publish(bob)
    for node in ledger.nodes:
        node.answers["/checkpoint"] = early

    found = audit("--json")

    assert (found.code, codes(found)) == (0, [])


def test_entries_recorded_when_they_say_are_not_accused(hourly, audit):
    found = audit("--json")

    assert (found.code, found.document["sizes_attested"]) == (0, 5)


def test_a_backdated_entry_is_named(hourly, ledger, audit, tmp_path):
    index = ledger.record(hourly - 3 * 3600, signed_s=hourly)
    ledger.record(hourly + 3600, signed_s=hourly + 3600)

    found = audit("--mirror", tmp_path / "mirror", "--json")
    offline = audit("--mirror", tmp_path / "mirror", "--offline", "--json")

    assert (found.code, codes(found)) == (5, ["backdated"])
    assert found.document["findings"][0]["where"] == f"entry {index}"
    assert offline.document["findings"] == found.document["findings"]


def test_a_postdated_entry_is_named(hourly, ledger, audit):
    ledger.record(hourly + 7200, signed_s=hourly)

    assert codes(audit("--json")) == ["postdated"]


def test_entries_that_waited_for_a_quorum_are_not_accused(hourly, ledger, audit):
    for waited in range(3):
        ledger.record(hourly + waited, signed_s=hourly + 86400)

    assert audit().code == 0


def test_many_entries_that_waited_together_are_cleared_by_what_lies_behind_them(hourly, ledger, audit):
    for waited in range(600):  # only every 256th size is looked at, unless something seems wrong
        ledger.record(hourly + waited // 10, signed_s=hourly + 86400)
    ledger.record(hourly + 2 * 86400, signed_s=hourly + 2 * 86400)
    for later in range(300):
        ledger.record(hourly + 3 * 86400 + later, signed_s=hourly + 3 * 86400 + later)

    found = audit("--json")

    assert (found.code, codes(found)) == (0, [])


def test_one_backdated_entry_among_many_is_found_by_the_sizes_around_it(hourly, ledger, audit):
    for later in range(300):
        ledger.record(hourly + 600 * later, signed_s=hourly + 600 * later)
    index = ledger.record(hourly, signed_s=hourly + 600 * 300)
    for later in range(301, 600):
        ledger.record(hourly + 600 * later, signed_s=hourly + 600 * later)

    found = audit("--json")

    assert [finding["where"] for finding in found.document["findings"]] == [f"entry {index}"]
    assert codes(found) == ["backdated"]


@pytest.mark.parametrize("late_s", [-(10**7), 10**7])
def test_a_node_whose_clock_is_wrong_or_that_caught_up_late_accuses_nobody(hourly, ledger, audit, late_s):
    ledger.nodes[1].late_s = late_s

    assert audit().code == 0


@pytest.mark.parametrize("late_s", [-(10**7), 10**7])
def test_one_node_cannot_hide_a_backdated_entry(hourly, ledger, audit, late_s):
    ledger.record(hourly - 3 * 3600, signed_s=hourly)
    ledger.nodes[1].late_s = late_s

    assert codes(audit("--json")) == ["backdated"]


def test_a_node_that_caught_up_late_accuses_nobody_while_another_is_down(hourly, ledger, audit):
    ledger.nodes[1].late_s = 10**7
    ledger.nodes[2].answers |= {f"/v1/checkpoints/{size}": b"" for size in range(1, 6)}

    assert audit().code == 0


def test_times_that_no_quorum_attests_are_reported_and_are_no_finding(hourly, ledger, audit):
    for node in ledger.nodes[:2]:
        node.answers["/v1/checkpoints/3"] = b""

    found = audit("--json")

    assert (found.code, found.document["sizes_not_attested"]) == (0, 1)
    assert any("1 of 5 sizes" in remark for remark in found.document["remarks"])


def test_entries_that_nothing_clears_and_nothing_convicts_are_a_remark(hourly, ledger, audit):
    for waited in range(2):
        ledger.record(hourly + waited, signed_s=hourly + 86400)
    ledger.record(hourly + 86400 + 7200, signed_s=hourly + 86400 + 7200)
    for node in ledger.nodes[:2]:
        node.answers["/v1/checkpoints/7"] = b""

    found = audit("--json")

    assert (found.code, codes(found)) == (0, [])
    assert any("perhaps backdated" in remark for remark in found.document["remarks"])


def test_a_note_of_another_size_than_was_asked_for_is_passed_over(hourly, ledger, audit):
    ledger.nodes[0].answers["/v1/checkpoints/3"] = ledger.note(2).encode()

    assert audit("--json").document["sizes_not_attested"] == 0


def test_a_bad_cosignature_of_one_node_does_not_hide_the_times_of_the_others(hourly, ledger, audit):
    good = ledger.note(3, [ledger.nodes[0]])
    lines = good.splitlines(keepends=True)
    other = ledger.note(4, [ledger.nodes[0]]).splitlines(keepends=True)
    ledger.nodes[0].answers["/v1/checkpoints/3"] = "".join([*lines[:5], other[5]]).encode()

    assert audit("--json").document["sizes_not_attested"] == 0


def test_a_node_that_does_not_answer_is_not_asked_for_every_size(ledger, audit):
    ledger.grow(200)
    ledger.nodes[0].down = True

    assert audit().code == 0
    assert sum("/v1/checkpoints/" in request for request in ledger.nodes[0].requests) < 100


def test_the_report_is_written_once(alice, publish, ledger, audit, tmp_path):
    publish(alice)
    ledger.nodes[1].answers["/v1/node"] = json.dumps({"size": 7}).encode()

    found = audit("--report", tmp_path / "report.json", "--json")
    again = audit("--report", tmp_path / "report.json")

    assert found.code == 5
    assert json.loads((tmp_path / "report.json").read_text()) == found.document
    assert again.code == 2
    assert "report.json" in again.err


def test_every_finding_says_what_to_do_and_where_the_evidence_is(alice, publish, ledger, audit, tmp_path):
    publish(alice)
    assert audit().code == 0
    ledger.rewrite(1)

    found = audit("--evidence", tmp_path / "evidence")

    (evidence,) = (tmp_path / "evidence").iterdir()
    assert "FINDING 1" in found.out
    assert "ask the operators" in found.out
    assert str(evidence) in found.out


def test_an_audit_with_all_nodes_down_is_unavailable(ledger, audit):
    for node in ledger.nodes:
        node.down = True

    assert audit().code == 4


def test_a_mirrored_checkpoint_that_is_larger_than_the_mirror_is_a_remark(mirrored, ledger, audit):
    ledger.grow(3)
    mirrored.store_notes(0, [*mirrored.notes(0), ledger.note(5)])

    found = audit("--mirror", mirrored.directory, "--offline", "--json")

    assert found.code == 0
    assert any("a quorum signed 5 entries, and this copy has only 2" in remark for remark in found.document["remarks"])


def test_a_mirror_without_entries_is_checked(mirrored, ledger, audit):
    mirrored.store_checkpoint(ledger.note(0))

    found = audit("--mirror", mirrored.directory, "--offline", "--json")

    assert (found.code, found.document["size"], found.document["findings"]) == (0, 0, [])


def test_an_audit_waits_for_a_quorum_that_does_not_answer_once(wmreg, ledger):
    ledger.nodes[1].down = ledger.nodes[2].down = True
    ledger.nodes[0].answers["/checkpoint"] = ledger.note(1).encode()
    begun_s = time.monotonic()

    found = wmreg("audit", "--policy", ledger.policy_path, "--patience-s", 2)

    assert found.code == 0
    assert time.monotonic() - begun_s < 4
