"""ML-DSA-44 cosignatures: the message is the specification's, what is not covered is refused, every forgery fails.

The specification publishes no vector for this type; the message is therefore built a second time here, with struct.
(The ML-DSA-44 signature in torchwood's cmd/litewitness/testdata/mldsa.txt was checked once, and holds.)
"""

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from damage import with_flipped_bit
from fakes import private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.checkpoint import Checkpoint
from registry.errors import MalformedError, RefusedError
from registry.note import (
    NOTE_BYTES_MAX,
    SIGNATURES_MAX,
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    cosign,
    sign,
    verify_signatures,
)
from registry.policy import MEMBERS_MAX
from registry.spelling import encode_base64

ORIGIN, NAME, TIME_S = "example.org/wmreg", "example.org/wmreg/node-1", 1_800_000_000
CHECKPOINT = Checkpoint(origin=ORIGIN, size=7, root=hashlib.sha256(b"root").digest())
TEXT = str(CHECKPOINT)


def ml_dsa_key(name):
    """The ML-DSA-44 key that belongs to a name, the same each time."""
    return MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(name.encode()).digest())


def verifier(name, *, seed=None):
    public_key = ml_dsa_key(seed or name).public_key().public_bytes_raw()
    return VerifierKey(name=name, type=KeyType.ML_DSA_COSIGNATURE, public_key=public_key)


KEY = verifier(NAME)
LINE = cosign(TEXT, name=NAME, private_key=ml_dsa_key(NAME), timestamp_s=TIME_S)


def refusal(note, keys=(KEY,)):
    with pytest.raises(RefusedError) as refused:
        verify_signatures(note, keys)
    return refused.value.code


def test_a_cosignature_verifies_and_tells_its_time():
    assert len(LINE.payload) == 8 + 2420
    [verified] = verify_signatures(Note.parse(str(Note(TEXT, (LINE,)))), [KEY])
    assert (verified.key, verified.timestamp_s) == (KEY, TIME_S)


def test_the_signed_message_is_the_structure_of_the_specification():
    message = b"subtree/v1\n\0" + struct.pack(
        f">B{len(NAME)}sQB{len(ORIGIN)}sQQ32s",
        len(NAME),
        NAME.encode(),
        TIME_S,
        len(ORIGIN),
        ORIGIN.encode(),
        0,
        7,
        CHECKPOINT.root,
    )
    MLDSA44PublicKey.from_public_bytes(KEY.public_key).verify(LINE.payload[8:], message)
    foreign = SignatureLine(NAME, KEY.key_id, LINE.payload[:8] + ml_dsa_key(NAME).sign(message))
    assert verify_signatures(Note(TEXT, (foreign,)), [KEY])[0].timestamp_s == TIME_S


def test_the_key_id_is_the_specifications():
    assert KEY.key_id == hashlib.sha256(NAME.encode() + b"\n\x06" + KEY.public_key).digest()[:4]


def test_a_key_prints_as_it_was_read():
    assert VerifierKey.parse(str(KEY)) == KEY


@pytest.mark.parametrize("length", [0, 32, 1311, 1313])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(MalformedError, match="1312"):
        VerifierKey(name=NAME, type=KeyType.ML_DSA_COSIGNATURE, public_key=bytes(length))
    with pytest.raises(MalformedError):
        VerifierKey.parse(f"{NAME}+00000000+{encode_base64(bytes([6]) + bytes(length))}")


def test_an_ml_dsa_key_under_an_ed25519_type_is_refused():
    for kind in (KeyType.ED25519, KeyType.COSIGNATURE):
        with pytest.raises(MalformedError, match="32"):
            VerifierKey(name=NAME, type=kind, public_key=KEY.public_key)


def test_a_time_of_zero_states_no_time():
    untimed = cosign(TEXT, name=NAME, private_key=ml_dsa_key(NAME), timestamp_s=0)
    assert verify_signatures(Note(TEXT, (untimed,)), [KEY])[0].timestamp_s is None
    ed25519 = cosign(TEXT, name=NAME, private_key=private_key("n"), timestamp_s=0)
    public_key = private_key("n").public_key().public_bytes_raw()
    plain = VerifierKey(name=NAME, type=KeyType.COSIGNATURE, public_key=public_key)
    assert verify_signatures(Note(TEXT, (ed25519,)), [plain])[0].timestamp_s == 0


OTHER_TEXTS = {
    "other size": str(Checkpoint(origin=ORIGIN, size=8, root=CHECKPOINT.root)),
    "half the size": str(Checkpoint(origin=ORIGIN, size=3, root=CHECKPOINT.root)),
    "size near 2^64": str(Checkpoint(origin=ORIGIN, size=2**64 - 1, root=CHECKPOINT.root)),
    "other root": str(Checkpoint(origin=ORIGIN, size=7, root=bytes(32))),
    "foreign origin": str(Checkpoint(origin="example.org/other", size=7, root=CHECKPOINT.root)),
}


@pytest.mark.parametrize("name", OTHER_TEXTS)
def test_a_cosignature_moved_to_another_checkpoint_fails(name):
    assert refusal(Note(OTHER_TEXTS[name], (LINE,))) == "bad_signature"


def with_payload(payload):
    return Note(TEXT, (SignatureLine(NAME, KEY.key_id, payload),))


FORGERIES = {
    "flipped bit": with_flipped_bit(LINE.payload),
    "flipped bit of the time": with_flipped_bit(LINE.payload, 7),
    "time beyond 63 bits": b"\xff" * 8 + LINE.payload[8:],
    "truncated": LINE.payload[:-1],
    "trailing byte": LINE.payload + b"\0",
    "time only": LINE.payload[:8],
    "cut off in the time": LINE.payload[:7],
    "no time": LINE.payload[8:],
    "an Ed25519 cosignature": cosign(TEXT, name=NAME, private_key=private_key("n"), timestamp_s=TIME_S).payload,
    "zeros": LINE.payload[:8] + bytes(2420),
    "cosignature/v1 message": LINE.payload[:8]
    + ml_dsa_key(NAME).sign(f"cosignature/v1\ntime {TIME_S}\n{TEXT}".encode()),
    "the plain text": LINE.payload[:8] + ml_dsa_key(NAME).sign(TEXT.encode()),
    "another key's": cosign(TEXT, name=NAME, private_key=ml_dsa_key("pirate"), timestamp_s=TIME_S).payload,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_cosignature_rejects_the_whole_note(name):
    assert refusal(with_payload(FORGERIES[name])) == "bad_signature"
    honest = sign(TEXT, name=ORIGIN, private_key=private_key("log"))
    log_key = VerifierKey(
        name=ORIGIN, type=KeyType.ED25519, public_key=private_key("log").public_key().public_bytes_raw()
    )
    forged = Note(TEXT, (honest, *with_payload(FORGERIES[name]).signatures))
    assert [signature.key for signature in verify_signatures(forged, [log_key])] == [log_key]
    assert refusal(forged, [log_key, KEY]) == "bad_signature"


def test_a_cosignature_commits_to_the_cosigners_name():
    other = verifier("example.org/wmreg/node-2", seed=NAME)
    renamed = SignatureLine(other.name, other.key_id, LINE.payload)
    assert refusal(Note(TEXT, (renamed,)), [other]) == "bad_signature"


def test_one_key_that_signs_twice_is_refused():
    again = cosign(TEXT, name=NAME, private_key=ml_dsa_key(NAME), timestamp_s=TIME_S + 1)
    assert refusal(Note(TEXT, (LINE, again))) == "duplicate_signature"


UNCOVERED = {
    "extension line": TEXT + "extension\n",
    "no checkpoint": "a text\n",
    "two lines": f"{ORIGIN}\n7\n",
    "other spelling of the size": TEXT.replace("\n7\n", "\n07\n"),
    "origin too long": str(Checkpoint(origin="o" * 256, size=7, root=CHECKPOINT.root)),
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_the_message_does_not_cover_cannot_be_cosigned(name):
    with pytest.raises(RefusedError) as refused:
        cosign(UNCOVERED[name], name=NAME, private_key=ml_dsa_key(NAME), timestamp_s=TIME_S)
    assert refused.value.code == "not_cosignable"
    assert refusal(Note(UNCOVERED[name], (LINE,))) == "not_cosignable"
    assert verify_signatures(Note(UNCOVERED[name], (LINE,)), []) == []


def test_names_and_origins_of_255_bytes_are_the_longest():
    text = str(Checkpoint(origin="ö" * 127 + "o", size=7, root=CHECKPOINT.root))
    line = cosign(text, name="n" * 255, private_key=ml_dsa_key("n"), timestamp_s=TIME_S)
    assert verify_signatures(Note(text, (line,)), [verifier("n" * 255, seed="n")])
    with pytest.raises(MalformedError, match="255"):
        cosign(text, name="n" * 256, private_key=ml_dsa_key("n"), timestamp_s=TIME_S)


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_a_time_that_a_cosignature_cannot_carry_is_the_callers_mistake(time_s):
    with pytest.raises(ValueError, match="timestamp"):
        cosign(TEXT, name=NAME, private_key=ml_dsa_key(NAME), timestamp_s=time_s)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters="+"), min_size=1)


@settings(max_examples=50, deadline=None)
@given(NAMES, NAMES, st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), st.integers(1, 2**63 - 1))
def test_any_checkpoint_can_be_cosigned_and_no_other_has_that_cosignature(origin, name, size, root, time_s):
    text = str(Checkpoint(origin=origin, size=size, root=root))
    line = cosign(text, name=name, private_key=ml_dsa_key("n"), timestamp_s=time_s)
    note, key = Note.parse(str(Note(text, (line,)))), verifier(name, seed="n")
    assert verify_signatures(note, [key])[0].timestamp_s == time_s
    other = str(Checkpoint(origin=origin, size=size ^ 1, root=root))
    assert refusal(Note(other, note.signatures), [key]) == "bad_signature"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(LINE.payload) * 8 - 1))
def test_no_flipped_bit_of_a_cosignature_verifies(bit):
    flipped = bytearray(LINE.payload)
    flipped[bit // 8] ^= 1 << bit % 8
    assert refusal(with_payload(bytes(flipped))) == "bad_signature"


def full_note(members, *, name_bytes=255):
    """A checkpoint with the three lines of each member, all names as long as they may be."""
    origin = "o" * name_bytes
    text = str(Checkpoint(origin=origin, size=2**64 - 1, root=bytes(32)))
    lines = []
    for number in range(members):
        name = str(number).rjust(name_bytes, "n")
        lines += [
            SignatureLine(origin, number.to_bytes(4, "big"), bytes(64)),
            SignatureLine(name, bytes(4), bytes(8 + 64)),
            SignatureLine(name, bytes(4), bytes(8 + 2420)),
        ]
    return str(Note(text, tuple(lines)))


def test_a_note_has_room_for_every_member_with_every_kind_of_signature():
    note = full_note(MEMBERS_MAX)
    assert len(Note.parse(note).signatures) == 3 * MEMBERS_MAX <= SIGNATURES_MAX
    assert len(note.encode()) == 131_236 <= NOTE_BYTES_MAX


def test_a_note_of_more_signatures_or_bytes_is_refused():
    with pytest.raises(MalformedError, match="signatures"):
        Note.parse(full_note(MEMBERS_MAX + 2, name_bytes=8))
    with pytest.raises(MalformedError) as refused:
        Note.parse(full_note(MEMBERS_MAX + 1))
    assert refused.value.code == "too_large"
