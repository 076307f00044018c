"""Files of past releases: what was proof once must stay proof (tests/vectors/golden, one folder for each format).

The folder of a new format is made once: `PYTHONPATH=.:tests python tests/registry/test_golden.py v2`.
"""

import json
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from damage import with_flipped_bit
from fakes import LedgerMaker, good_measurement, policy, replayed

from registry import intoto, merkle, tiles
from registry.binomial import HALF_PPM, MILLION
from registry.certificate import verify_certificate
from registry.checkpoint import Checkpoint
from registry.commitments import commit_further, open_further
from registry.equivocation import Equivocation, verify_equivocation
from registry.errors import MalformedError, RefusedError, RegistryError
from registry.note import KeyType, Note, VerifierKey, cosign
from registry.policy import Thresholds
from registry.receipt import Receipt, verify_receipt
from registry.trust import TrustPolicy
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, Statistic, judge

GOLDEN = Path(__file__).parents[1] / "vectors" / "golden"
RELEASES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


def plain(value):
    """A story as JSON, to be compared with the one that was kept."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def trust_of(release):
    return TrustPolicy.parse((release / "policy.txt").read_text())


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_certificate_of_every_release_still_tells_its_story(release):
    story = verify_certificate((release / "certificate.json").read_bytes(), trust_of(release))
    kept = json.loads((release / "story.json").read_text())
    assert {name: value for name, value in plain(story).items() if name in kept} == kept


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_receipt_of_every_release_still_holds(release):
    verified = verify_receipt(Receipt.parse((release / "receipt.tlog-proof").read_text()), trust_of(release))
    assert verified.signed.message.KIND == "publish"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_log_of_every_release_replays_to_its_checkpoint(release):
    checkpoint = Checkpoint.parse(Note.parse((release / "checkpoint").read_text()).text)
    state = replayed(tiles.parse_entry_bundle((release / "entries").read_bytes()))
    assert (state.size, state.root_at(state.size)) == (checkpoint.size, checkpoint.root)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_damaged_file_of_a_past_release_is_still_refused(release):
    raw = (release / "certificate.json").read_bytes()
    with pytest.raises(RegistryError):
        verify_certificate(raw.replace(b'"index": 1', b'"index": 2', 1), trust_of(release))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_certificate_of_a_further_watermark_still_tells_its_story(release):
    story = verify_certificate((release / "opening.certificate.json").read_bytes(), trust_of(release))
    kept = json.loads((release / "opening.story.json").read_text())
    assert {name: value for name, value in plain(story).items() if name in kept} == kept


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_statement_of_every_release_still_follows_from_its_certificate(release):
    raw, kept = (release / "certificate.json").read_bytes(), json.loads((release / "statement.json").read_text())
    made = json.loads(intoto.statement(verify_certificate(raw, trust_of(release)), raw))
    told, expected = (statement["predicate"].pop("story") for statement in (made, kept))
    assert made == kept
    assert {name: value for name, value in told.items() if name in expected} == expected


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_evidence_of_every_release_still_convicts(release):
    story = verify_equivocation((release / "equivocation.json").read_bytes(), trust_of(release))
    assert (story.smaller.size, story.larger.size) == (2, 3)
    assert len(story.convicted) == 2 * 4


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_votes_of_every_release_still_add_up_to_their_verdicts(release):
    ledger = replayed(tiles.parse_entry_bundle((release / "outcomes.entries").read_bytes())).ledger
    kept = json.loads((release / "outcomes.json").read_text())
    assert verdicts_of(ledger) == kept
    assert {outcome for outcome, _ in kept.values()} == set(Outcome) - {Outcome.INTACT, Outcome.TAMPERED}


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_votes_of_every_scheme_still_add_up_to_their_verdicts_and_certificates(release):
    replay = replayed(tiles.parse_entry_bundle((release / "schemes.entries").read_bytes()))
    kept = json.loads((release / "schemes.json").read_text())
    assert verdicts_of(replay.ledger) == kept
    assert {outcome for outcome, _ in kept.values()} == {Outcome.VERIFIED, Outcome.INTACT, Outcome.TAMPERED}
    for outcome in (Outcome.INTACT, Outcome.TAMPERED):
        raw = (release / f"{outcome.lower()}.certificate.json").read_bytes()
        story = verify_certificate(raw, trust_of(release))
        assert (story.outcome, story.statistics) == (outcome, (Statistic.INTEGRITY,))
        assert {vote.p_value for vote in story.votes} == {None}


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_an_ml_dsa_cosignature_of_every_release_still_counts(release):
    trust = TrustPolicy.parse((release / "ml-dsa.policy.txt").read_text())
    note = Note.parse((release / "ml-dsa.checkpoint").read_text())
    assert set(trust.check(note).times_s) == {"node-1-pq"}
    log, ml_dsa = note.signatures
    flipped = replace(ml_dsa, payload=with_flipped_bit(ml_dsa.payload))
    with pytest.raises(RefusedError):
        trust.check(replace(note, signatures=(log, flipped)))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["opening.certificate.json", "equivocation.json"])
def test_another_proof_of_a_past_release_is_refused_when_damaged(release, name):
    verify = verify_equivocation if name == "equivocation.json" else verify_certificate
    raw = (release / name).read_bytes()
    with pytest.raises(MalformedError):
        verify(raw.replace(b'"proof": [', b'"proof":  [', 1), trust_of(release))


def verdicts_of(ledger):
    verdicts = {claim.hex(): ledger.verdict(claim) for claim in ledger.claims()}
    return {claim: [verdict.outcome, verdict.reason] for claim, verdict in verdicts.items()}


def write_golden(release):
    """Make the files of the present format, with every kind of message in the log."""
    release.mkdir(parents=True)
    write_ledger(release)
    write_opening(release)
    write_statement(release)
    write_equivocation(release)
    write_outcomes(release)
    write_schemes(release)
    write_ml_dsa(release)


def write_opening(release):
    maker = LedgerMaker(4)
    reserve = [maker.committed("alice", number=number) for number in (1, 2, 3)]
    publication = maker.publish("alice", further=commit_further(reserve))
    message = replace(maker.claim_message("alice", publication, number=2), opening=open_further(reserve, 1))
    claim = maker.submit(maker.seal(message, "alice")).message_hash
    for node in (1, 2, 3):
        maker.vote(node, claim)
    write_certificate(release, "opening.", maker, claim)


def write_statement(release):
    raw = (release / "certificate.json").read_bytes()
    (release / "statement.json").write_bytes(intoto.statement(verify_certificate(raw, trust_of(release)), raw))


def write_equivocation(release):
    """Four nodes that signed a second entry, and then a third behind another second."""
    first, second = LedgerMaker(4), LedgerMaker(4)
    first.publish("alice")
    second.publish("bob"), second.publish("alice")
    proof = merkle.consistency_proof(2, 3, second.read_node)
    root = second.checkpoint(2).root
    evidence = Equivocation.of(str(first.note()), str(second.note()), root=root, proof=tuple(proof))
    (release / "equivocation.json").write_bytes(evidence.encode())


def write_outcomes(release):
    maker = LedgerMaker(3)
    publication = maker.publish("alice")
    said = [
        (Outcome.VERIFIED, "matched", good_measurement()),
        (Outcome.REFUTED, "below_threshold", good_measurement(300)),
        (Outcome.REFUTED, "head_mismatch", None),
        (Outcome.INCONCLUSIVE, "between_bounds", good_measurement(400)),
        (Outcome.UNVERIFIABLE, "unreachable", None),
    ]
    for number, (outcome, reason, measurement) in enumerate(said):
        claim = maker.claim("alice", publication, model=bytes([number]))
        for node in (1, 2):
            maker.vote(node, claim, outcome=outcome, reason=reason, measurement=measurement)
    (release / "outcomes.entries").write_bytes(tiles.entry_bundle(maker.entries))
    (release / "outcomes.json").write_text(json.dumps(verdicts_of(maker.ledger), indent=1, sort_keys=True) + "\n")


def write_schemes(release):
    """Votes on marks without a branch, and what a mark of integrity is certified by."""
    fresh = [ControlCounts(ControlKind.FRESH, 10, 85, 5)] * 8
    nulls = [ControlCounts(ControlKind.NULL, 10, 85, 5)] * 4
    tenth = MILLION // 10
    said = [
        measured(Statistic.CLASSES, 90, fresh, tenth),
        measured(Statistic.CALIBRATED, 90, fresh + nulls, 3 * tenth),
        measured(Statistic.SIGNS, 97, [ControlCounts(ControlKind.FRESH, 50, 50, 3)] * 8),
        measured(Statistic.INTEGRITY, 100, [], tenth),
        measured(Statistic.INTEGRITY, 99, [], tenth),
    ]
    maker = LedgerMaker(3)
    publication = maker.publish("alice")
    for number, measurement in enumerate(said):
        outcome, reason = judge(measurement, Thresholds())
        claim = maker.claim("alice", publication, model=bytes([number]))
        for node in (1, 2, 3):
            maker.vote(node, claim, outcome=outcome, reason=reason, measurement=measurement)
        if outcome is not Outcome.VERIFIED:
            (release / f"{outcome.lower()}.certificate.json").write_bytes(maker.certificate(claim).encode())
    (release / "schemes.entries").write_bytes(tiles.entry_bundle(maker.entries))
    (release / "schemes.json").write_text(json.dumps(verdicts_of(maker.ledger), indent=1, sort_keys=True) + "\n")


def measured(statistic, matched, controls, chance_ppm=HALF_PPM):
    return Measurement(matched=matched, total=100, statistic=statistic, chance_ppm=chance_ppm, controls=tuple(controls))


def write_ml_dsa(release):
    """A checkpoint that one node cosigned with ML-DSA alone; ML-DSA signatures may differ each time they are made."""
    maker, key = LedgerMaker(1), MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    name, [log] = f"{maker.origin}/node-1", maker.trust.logs
    public_key = key.public_key().public_bytes_raw()
    vkey = VerifierKey(name=name, type=KeyType.ML_DSA_COSIGNATURE, public_key=public_key)
    line = cosign(maker.note().text, name=name, private_key=key, timestamp_s=maker.now_s)
    (release / "ml-dsa.checkpoint").write_text(str(Note(maker.note().text, (maker.note().signatures[0], line))))
    (release / "ml-dsa.policy.txt").write_text(f"log {log.key}\nwitness node-1-pq {vkey}\nquorum node-1-pq\n")


def write_ledger(release):
    maker = LedgerMaker()
    publication = maker.publish("alice")
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    maker.rotate("alice", "alice-2")
    others = maker.publish("carol")
    claim = maker.submit(maker.seal(maker.claim_message("alice", publication), "alice-2")).message_hash
    for node in (1, 2, 3):
        maker.vote(node, claim)
    maker.challenge("carol", claim, others)
    maker.withdraw("carol", others)
    (release / "policy.txt").write_text(str(maker.trust))
    (release / "receipt.tlog-proof").write_text(str(maker.receipt(publication)))
    (release / "checkpoint").write_text(str(maker.note()))
    (release / "entries").write_bytes(tiles.entry_bundle(maker.entries))
    write_certificate(release, "", maker, claim)


def write_certificate(release, prefix, maker, claim):
    certificate = maker.certificate(claim).encode()
    (release / f"{prefix}certificate.json").write_bytes(certificate)
    story = plain(verify_certificate(certificate, maker.trust))
    (release / f"{prefix}story.json").write_text(json.dumps(story, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write_golden(GOLDEN / sys.argv[1])
