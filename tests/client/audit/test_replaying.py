"""Promises: many processes that verify signatures accept nothing that one would not, and name the same entry."""

import pytest
from damage import with_flipped_bit

from bench.ledger import signatures_of
from bench.ledger_maker import Ledgers, make_certificate, make_mirror
from client.audit import replaying, verifying
from client.audit.auditing import audit_mirror
from client.audit.replaying import replay_entries as replay_and_examine
from client.audit.verifying import Verifiers, are_signed
from client.evidence import EvidenceStore
from registry import signing
from registry.certificate import verify_certificate
from registry.encoding import decode, encode
from registry.trust import TrustPolicy

pytestmark = pytest.mark.long

ENTRIES = 600


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror of publications, claims and votes, and its policy."""
    return make_mirror(tmp_path_factory.mktemp("ledger"), ENTRIES)


def replay_entries(read, size):
    return replay_and_examine(read, size, lambda state: state)


@pytest.fixture
def parallel(monkeypatch):
    """Use worker processes for ledgers of any size, on a machine of any size, with many small batches."""
    monkeypatch.setattr(verifying, "_BATCH", 32)
    monkeypatch.setattr(verifying, "_IN_FLIGHT_PER_WORKER", 2)
    monkeypatch.setattr(replaying, "PARALLEL_ENTRIES_MIN", 1)
    monkeypatch.setattr(replaying, "_cores", lambda: 2)


def forged(entry: bytes, *, key_signature: bool) -> bytes:
    """An entry with one bit of a signature flipped."""
    envelope, recorded_s = decode(entry)
    content = decode(envelope)
    if key_signature:
        content["body"]["key_signature"] = _flipped(content["body"]["key_signature"])
    else:
        content["signatures"][0][1] = _flipped(content["signatures"][0][1])
    return encode([encode(content), recorded_s])


def _flipped(signature: bytes) -> bytes:
    return with_flipped_bit(signature)


def test_many_processes_come_to_the_state_that_one_comes_to(mirror, parallel, monkeypatch):
    entries = list(mirror[0].entries(ENTRIES))

    many = replay_entries(lambda: iter(entries), ENTRIES)
    monkeypatch.setattr(replaying, "PARALLEL_ENTRIES_MIN", 10**9)
    one = replay_entries(lambda: iter(entries), ENTRIES)

    assert many.refusal is one.refusal is None
    assert (many.kinds, many.recorded_s) == (one.kinds, one.recorded_s)
    assert many.root_at(ENTRIES) == one.root_at(ENTRIES)
    assert many.verdicts == one.verdicts
    assert [many.ledger.verdict(c) for c in many.ledger.claims()] == [
        one.ledger.verdict(c) for c in one.ledger.claims()
    ]


@pytest.mark.parametrize("index", [1, 300, ENTRIES - 1])
def test_many_processes_name_the_entry_whose_signature_does_not_hold(mirror, parallel, index):
    entries = list(mirror[0].entries(ENTRIES))
    entries[index] = forged(entries[index], key_signature=False)

    state = replay_entries(lambda: iter(entries), ENTRIES)

    assert (state.refusal.index, state.refusal.code) == (index, "bad_signature")
    assert (state.size, state.ledger.size) == (ENTRIES, index)


def test_what_is_examined_is_examined_again_when_a_signature_does_not_hold(mirror, parallel):
    entries = list(mirror[0].entries(ENTRIES))
    entries[-1] = forged(entries[-1], key_signature=False)  # the last one is verified behind the examination
    examined = []

    refusal = replay_and_examine(
        lambda: iter(entries), ENTRIES, lambda state: examined.append(state.size) or state.refusal
    )

    assert (refusal.index, refusal.code) == (ENTRIES - 1, "bad_signature")
    assert examined == [ENTRIES, ENTRIES]


def test_many_processes_name_the_first_of_several_bad_entries(mirror, parallel):
    entries = list(mirror[0].entries(ENTRIES))
    entries[400] = entries[20]
    entries[500] = forged(entries[500], key_signature=False)
    assert replay_entries(lambda: iter(entries), ENTRIES).refusal.code == "duplicate"

    entries[100] = forged(entries[100], key_signature=False)
    assert replay_entries(lambda: iter(entries), ENTRIES).refusal.index == 100


def test_a_binding_that_nobody_made_is_refused_by_many_processes(mirror, parallel):
    entries = list(mirror[0].entries(ENTRIES))
    claim = next(i for i, raw in enumerate(entries) if decode(decode(raw)[0])["kind"] == "claim")
    entries[claim] = forged(entries[claim], key_signature=True)

    assert replay_entries(lambda: iter(entries), ENTRIES).refusal.index == claim


def triples(count: int) -> list[tuple[bytes, bytes, bytes]]:
    ledgers = Ledgers()
    public = ledgers.owner.public_key().public_bytes_raw()
    return [(bytes([i]), public, signing.sign(ledgers.owner, bytes([i]))) for i in range(count)]


def test_a_batch_holds_only_when_each_of_its_signatures_does():
    batch = triples(3)

    assert are_signed(batch)
    for place in range(3):
        signed, signer, signature = batch[place]
        assert not are_signed([*batch[:place], (signed, signer, _flipped(signature)), *batch[place + 1 :]])


@pytest.mark.parametrize(("key_bytes", "signature_bytes"), [(31, 64), (32, 63), (33, 64), (32, 65)])
def test_nothing_of_another_length_holds(key_bytes, signature_bytes):
    ((signed, signer, signature),) = triples(1)
    with Verifiers(1) as verifiers:
        verifiers.is_signed(
            signed, signer=(signer + b"\0")[:key_bytes], signature=(signature + b"\0")[:signature_bytes]
        )
        assert not verifiers.all_hold()


def test_nothing_holds_when_a_worker_died():
    with Verifiers(1) as verifiers:
        verifiers._pool.submit(are_signed, []).result()
        for process in verifiers._pool._processes.values():
            process.kill()
            process.join()
        for signed, signer, signature in triples(3):
            assert verifiers.is_signed(signed, signer=signer, signature=signature)
        assert not verifiers.all_hold()
        assert verifiers.has_failed


def test_a_replay_goes_on_alone_when_its_workers_die(mirror, parallel, monkeypatch):
    monkeypatch.setattr(Verifiers, "all_hold", lambda _self: False)
    entries = list(mirror[0].entries(ENTRIES))

    assert replay_entries(lambda: iter(entries), ENTRIES).refusal is None


def test_the_benchs_ledger_has_no_findings_and_the_bench_verifies_all_its_signatures(mirror, tmp_path):
    directory, policy_path = mirror
    audit = audit_mirror(directory, TrustPolicy.parse(policy_path.read_text()), EvidenceStore(tmp_path))
    assert (audit.findings, audit.size, audit.replayed) == ([], ENTRIES, ENTRIES)
    assert audit.kinds == {"genesis": 1, "publish": 360, "claim": 60, "vote": 179}

    signatures = signatures_of(directory, ENTRIES)
    assert len(signatures) == 3 + 360 + 2 * 60 + 179  # all founders' on the genesis; a claim's and its key's
    assert all(
        signing.is_signed(signed, signer=signer, signature=signature) for signer, signature, signed in signatures
    )


def test_the_benchs_certificate_verifies():
    raw, trust = make_certificate()

    assert len(verify_certificate(raw, trust).votes) == 3
