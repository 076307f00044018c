"""Whatever bytes come in: a parser answers or raises its own error, what it read it prints again, apply never raises.

Specimens are what an honest ledger made; they are flipped, cut, doubled and spliced. Messages are changed under a
signature that holds as well, so that the rules behind the signature are reached.
"""

import json
from dataclasses import replace

import pytest
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from damage import with_flipped_bit
from fakes import ORIGIN, LedgerMaker, policy, private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import merkle, signing, tiles
from registry.certificate import Certificate, verify_certificate
from registry.checkpoint import Checkpoint, parse_decimal
from registry.commitments import commit_further, open_further
from registry.encoding import decode, encode
from registry.entry import Entry
from registry.envelope import unseal
from registry.errors import ConsistencyError, InclusionError, MalformedError, RefusedError, RegistryError
from registry.evidence import parse_evidence
from registry.note import KeyType, Note, SignatureLine, VerifierKey, cosign
from registry.receipt import Receipt, verify_receipt
from registry.rules import Accepted, Duplicate, Ledger, Refused
from registry.spelling import decode_base64, encode_base64
from registry.trust import TrustPolicy

pytestmark = pytest.mark.long

np = pytest.importorskip("numpy")
FAST = settings(max_examples=120, deadline=None)

MAKER = LedgerMaker()
PUBLICATION = MAKER.publish("alice")
CLAIM = MAKER.claim("alice", PUBLICATION)
for node in (1, 2, 3):
    MAKER.vote(node, CLAIM)
RESERVE = [MAKER.committed("carol", number=number) for number in (1, 2, 3)]
CAROLS = MAKER.publish("carol", further=commit_further(RESERVE))
OPENED = replace(MAKER.claim_message("carol", CAROLS, number=2), opening=open_further(RESERVE, 1))
MAKER.challenge("carol", CLAIM, CAROLS)
MAKER.submit(MAKER.seal(OPENED, "carol"))
MAKER.withdraw("carol", CAROLS)
MAKER.rotate("carol", "carol-2")
MAKER.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")

ML_DSA = MLDSA44PrivateKey.from_seed_bytes(bytes(32))
ML_DSA_VKEY = VerifierKey(
    name=f"{ORIGIN}/pq", type=KeyType.ML_DSA_COSIGNATURE, public_key=ML_DSA.public_key().public_bytes_raw()
)
PQ_LINE = cosign(MAKER.note().text, name=ML_DSA_VKEY.name, private_key=ML_DSA, timestamp_s=MAKER.now_s)
NOTES = [str(MAKER.note()), str(MAKER.note(nodes=[2])), str(Note(MAKER.note().text, (PQ_LINE,)))]
VKEYS = [str(MAKER.trust.logs[0].key), str(MAKER.trust.witnesses[0].key), str(ML_DSA_VKEY)]
POLICIES = [str(MAKER.trust), f"# pq\n{MAKER.trust}".replace("group", f"witness pq {VKEYS[2]}\ngroup g any pq\ngroup")]
RECEIPTS = [str(MAKER.receipt(digest)) for digest in (PUBLICATION, CLAIM)]
CERTIFICATES = [MAKER.certificate(CLAIM).encode()]
ENTRIES = MAKER.entries
ENVELOPES = [Entry.decode(entry).envelope for entry in ENTRIES]
INFO = json.dumps({"layers": [1, 2], "scheme": "mtlsign"}, sort_keys=True, separators=(",", ":"))
EVIDENCE = safetensors.numpy.save(
    {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), np.float16)},
    metadata={"format": "wmreg-evidence/1", "salt": "5a" * 32, "info": INFO},
)


FULL_BUNDLE = tiles.entry_bundle([b"a"] * tiles.TILE_WIDTH)


def printed_policy(trust):
    """A policy file has many spellings; the printed one is read as the same policy and printed alike."""
    assert TrustPolicy.parse(str(trust)) == trust


BYTES = {
    "encoding": (decode, encode, ENTRIES + ENVELOPES),
    "entry": (Entry.decode, Entry.encode, ENTRIES),
    "certificate": (Certificate.decode, Certificate.encode, CERTIFICATES),
    "entry bundle": (tiles.parse_entry_bundle, tiles.entry_bundle, [tiles.entry_bundle(ENTRIES), FULL_BUNDLE]),
    "evidence": (parse_evidence, None, [EVIDENCE]),
}
TEXTS = {
    "note": (Note.parse, str, NOTES),
    "signature line": (SignatureLine.parse, str, [NOTES[0].splitlines()[-1], str(PQ_LINE)]),
    "checkpoint": (Checkpoint.parse, str, [str(MAKER.checkpoint(size)) for size in (1, 2, 6)]),
    "verifier key": (VerifierKey.parse, str, VKEYS),
    "trust policy": (TrustPolicy.parse, printed_policy, POLICIES),
    "receipt": (Receipt.parse, str, RECEIPTS),
    "tile path": (tiles.parse_tile_path, lambda read: tiles.tile_path(*read), ["x001/x234/067", "000", "x001/000.p/7"]),
    "decimal": (parse_decimal, str, ["0", "10", "18446744073709551615"]),
    "base64": (decode_base64, encode_base64, ["", "AA==", "AAA=", "AAAA"]),
}


@st.composite
def mutated(draw, specimens):
    """One of the specimens after one to three accidents or attacks; bytes stay bytes, texts stay texts."""
    value = draw(st.sampled_from(specimens))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(value)))
        end = draw(st.integers(start, min(len(value), start + 40)))
        value = draw(st.sampled_from(ACCIDENTS))(draw, value, specimens, (start, end))
    return value


def flip(draw, value, _specimens, span):
    if not value or span[0] == len(value):
        return value
    if isinstance(value, bytes):
        return value[: span[0]] + bytes([value[span[0]] ^ 1 << draw(st.integers(0, 7))]) + value[span[0] + 1 :]
    return value[: span[0]] + draw(st.characters()) + value[span[0] + 1 :]


def truncate(_draw, value, _specimens, span):
    return value[: span[0]]


def cut(_draw, value, _specimens, span):
    return value[: span[0]] + value[span[1] :]


def insert(draw, value, _specimens, span):
    more = draw(st.binary(max_size=8) if isinstance(value, bytes) else st.text(st.characters(), max_size=8))
    return value[: span[0]] + more + value[span[0] :]


def duplicate(_draw, value, _specimens, span):
    return value[: span[1]] + value[span[0] : span[1]] + value[span[1] :]


def splice(draw, value, specimens, span):
    other = draw(st.sampled_from(specimens))
    return value[: span[0]] + other[draw(st.integers(0, len(other))) :]


ACCIDENTS = [flip, truncate, cut, insert, duplicate, splice]


def check(parse, print_again, raw):
    try:
        read = parse(raw)
    except MalformedError:
        return
    if print_again is printed_policy:
        printed_policy(read)
    elif print_again is not None:
        assert print_again(read) == raw


@pytest.mark.parametrize("name", BYTES)
def test_a_parser_of_bytes_answers_or_says_malformed(name):
    parse, print_again, specimens = BYTES[name]
    for specimen in specimens:
        assert parse(specimen) is not None

    @FAST
    @given(st.one_of(st.binary(max_size=200), mutated(specimens)))
    def fuzz(raw):
        check(parse, print_again, raw)

    fuzz()


@pytest.mark.parametrize("raw", [FULL_BUNDLE + b"\0\1a", FULL_BUNDLE[:-1], FULL_BUNDLE[:-2], b"\0", b"\0\0\0"])
def test_a_bundle_that_is_too_long_or_cut_off_is_malformed(raw):
    assert len(tiles.parse_entry_bundle(FULL_BUNDLE)) == tiles.TILE_WIDTH
    with pytest.raises(MalformedError):
        tiles.parse_entry_bundle(raw)


@pytest.mark.parametrize("name", TEXTS)
def test_a_parser_of_text_answers_or_says_malformed(name):
    parse, print_again, specimens = TEXTS[name]
    for specimen in specimens:
        assert parse(specimen) is not None

    @FAST
    @given(st.one_of(st.text(st.characters(), max_size=100), mutated(specimens)))
    def fuzz(raw):
        check(parse, print_again, raw)

    fuzz()


@FAST
@given(st.one_of(st.binary(max_size=200), mutated(ENVELOPES)))
def test_unsealing_anything_says_malformed_or_refused(raw):
    try:
        signed = unseal(raw, origin=ORIGIN)
    except (MalformedError, RefusedError):
        return
    assert raw in ENVELOPES
    assert signed.signers


@FAST
@given(mutated(NOTES))
def test_checking_a_changed_note_raises_only_the_registrys_errors(raw):
    try:
        trusted = MAKER.trust.check(Note.parse(raw))
    except RegistryError:
        return
    assert trusted.checkpoint == MAKER.checkpoint()


@FAST
@given(mutated(RECEIPTS))
def test_verifying_a_changed_receipt_raises_only_the_registrys_errors(raw):
    try:
        verified = verify_receipt(Receipt.parse(raw), MAKER.trust)
    except RegistryError:
        return
    assert verified.signed.hash in (PUBLICATION, CLAIM)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=4,
)


def paths(value, here=()):
    """Where in a nested value something could be changed."""
    yield here
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in steps:
        yield from paths(item, (*here, step))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


CONTENT = json.loads(CERTIFICATES[0])


@FAST
@given(st.sampled_from(list(paths(CONTENT))), JSON)
def test_a_certificate_with_another_value_anywhere_is_malformed(path, new):
    raw = json.dumps(replaced(CONTENT, path, new), sort_keys=True, indent=1).encode() + b"\n"
    if raw == CERTIFICATES[0]:
        return
    with pytest.raises(MalformedError):
        verify_certificate(raw, MAKER.trust)


@FAST
@given(mutated(NOTES), st.integers(0, 2**70), st.lists(st.binary(max_size=33), max_size=5), mutated(ENTRIES))
def test_a_forged_certificate_raises_only_the_registrys_errors(note, index, proof, entry):
    certificate = MAKER.certificate(CLAIM)
    genesis, second, *rest = certificate.entries
    for forged in (
        type(second)(index=index, entry=second.entry, proof=second.proof),
        type(second)(index=second.index, entry=entry, proof=second.proof),
        type(second)(index=second.index, entry=second.entry, proof=tuple(proof)),
    ):
        entries = (genesis, forged, *rest)
        raw = Certificate(
            origin=ORIGIN, checkpoint_note=certificate.checkpoint_note, entries=entries, attestations=()
        ).encode()
        if forged == second:
            continue
        with pytest.raises(RegistryError):
            verify_certificate(raw, MAKER.trust)
    changed = Certificate(origin=ORIGIN, checkpoint_note=note, entries=certificate.entries, attestations=())
    try:
        verify_certificate(changed.encode(), MAKER.trust)
    except RegistryError:
        return
    assert note.startswith(MAKER.note().text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
    | st.binary(max_size=70)
    | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=4,
)


@FAST
@given(VALUES)
def test_any_canonical_value_is_refused_as_an_entry(value):
    ledger = Ledger()
    assert isinstance(ledger.apply(encode(value)), Refused)
    assert isinstance(ledger.apply(Entry(encode(value) or b"\0", 0).encode()), Refused)
    assert ledger.size == 0


def ledger_before(index):
    ledger = Ledger()
    for entry in ENTRIES[:index]:
        assert isinstance(ledger.apply(entry), Accepted)
    return ledger


def assert_unharmed(ledger, index, applied):
    """A refusal names its code and changes nothing: the genuine entry is still taken."""
    assert isinstance(applied, Accepted | Duplicate | Refused)
    if not isinstance(applied, Refused):
        return
    assert applied.code
    assert str(applied)
    assert ledger.size == index
    assert ledger.apply(ENTRIES[index]) == Accepted(index, applied_hash(index))


def applied_hash(index):
    return unseal(ENVELOPES[index], origin=ORIGIN).hash


@FAST
@given(st.integers(0, len(ENVELOPES) - 1), st.data())
def test_applying_anything_raises_nothing(index, data):
    ledger = ledger_before(index)
    raw = data.draw(st.one_of(st.binary(max_size=200), mutated(ENTRIES)))
    assert_unharmed(ledger, index, ledger.apply(raw))


NAMES = ["alice", "carol", "carol-2", *(f"node-{number}/signing" for number in (1, 2, 3, 4))]
PRIVATE_KEYS = {private_key(name).public_key().public_bytes_raw(): private_key(name) for name in NAMES}
SIGNERS = [
    [PRIVATE_KEYS[signer] for signer in unseal(envelope, origin=None if index == 0 else ORIGIN).signers]
    for index, envelope in enumerate(ENVELOPES)
]


def signed_envelope(index, kind, body):
    """An envelope around any body, with signatures that hold."""
    origin = body.get("origin") if kind == "genesis" else ORIGIN
    origin = origin if isinstance(origin, str) else ORIGIN
    statement = signing.statement("wmreg/v1/message", origin, [kind, body])
    signatures = sorted([k.public_key().public_bytes_raw(), signing.sign(k, statement)] for k in SIGNERS[index])
    return encode({"version": 1, "kind": kind, "body": body, "signatures": signatures})


BODIES = [decode(envelope)["body"] for envelope in ENVELOPES]
KINDS = [decode(envelope)["kind"] for envelope in ENVELOPES]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(ENVELOPES) - 1), st.data())
def test_applying_a_signed_message_with_any_field_changed_raises_nothing(index, data):
    path = data.draw(st.sampled_from([path for path in paths(BODIES[index]) if path]))
    body = replaced(BODIES[index], path, data.draw(VALUES))
    envelope = signed_envelope(index, KINDS[index], body)
    ledger, recorded_s = ledger_before(index), Entry.decode(ENTRIES[index]).recorded_s
    applied = ledger.apply(Entry(envelope, recorded_s).encode())
    assert_unharmed(ledger, index, applied)
    if isinstance(applied, Accepted):
        assert unseal(envelope, origin=None if index == 0 else ORIGIN).hash == applied.message_hash


def test_a_signed_message_with_no_field_changed_is_accepted():
    for index in range(len(ENVELOPES)):
        envelope = signed_envelope(index, KINDS[index], BODIES[index])
        recorded_s = Entry.decode(ENTRIES[index]).recorded_s
        assert isinstance(ledger_before(index).apply(Entry(envelope, recorded_s).encode()), Accepted)


SIZES = st.integers(0, 2**65) | st.sampled_from([0, 1, 2, 2**32, 2**63, 2**64 - 1, 2**64])
HASHES = st.binary(min_size=32, max_size=32)


@FAST
@given(SIZES, SIZES, st.lists(HASHES | st.binary(min_size=30, max_size=33), max_size=70), HASHES)
def test_no_invented_proof_is_accepted(first, second, proof, digest):
    other = with_flipped_bit(digest, 0)
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(digest, index=first, size=second, proof=proof, root=other)
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(old_size=first, old_root=digest, new_size=second, new_root=other, proof=proof)
