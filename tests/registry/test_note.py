"""Notes, keys and cosignatures are byte for byte those of other people's tools; forgeries are named and refused."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from damage import with_flipped_bit
from hypothesis import given
from hypothesis import strategies as st

from registry import merkle
from registry.checkpoint import Checkpoint, parse_decimal
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
from registry.signing import is_signed
from registry.spelling import decode_base64, encode_base64, is_key_name

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "note_vectors.json").read_text())
LOG_KEY = VerifierKey.parse(VECTORS["log_vkey"])
WITNESS_KEY = VerifierKey.parse(VECTORS["witness_vkey"])
EXAMPLE_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZX"
    "sYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def test_the_example_note_of_the_specification_verifies():
    verified = verify_signatures(Note.parse(EXAMPLE_NOTE), [VerifierKey.parse(EXAMPLE_VKEY)])
    assert [signature.key.name for signature in verified] == ["example.com/foo"]


@pytest.mark.parametrize("size", range(16))
def test_every_checkpoint_of_the_published_log_verifies_and_has_our_root(size):
    note = Note.parse(VECTORS["checkpoints"][size])
    entries = [merkle.leaf_hash(entry.encode()) for entry in VECTORS["entries"]]
    assert [signature.key for signature in verify_signatures(note, [LOG_KEY])] == [LOG_KEY]
    assert Checkpoint.parse(note.text).root == merkle.root(entries[:size])
    assert str(note) == VECTORS["checkpoints"][size]


def test_our_cosignature_is_the_published_one_byte_for_byte():
    witness = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["witness_seed_hex"]))
    published = Note.parse(VECTORS["cosigned_checkpoint"])
    line = cosign(published.text, name=WITNESS_KEY.name, private_key=witness, timestamp_s=VECTORS["cosign_time"])
    assert line == published.signatures[1]
    verified = verify_signatures(published, [LOG_KEY, WITNESS_KEY])
    assert [signature.timestamp_s for signature in verified] == [None, VECTORS["cosign_time"]]


@pytest.mark.parametrize("text", [VECTORS["log_vkey"], VECTORS["witness_vkey"], EXAMPLE_VKEY])
def test_a_key_prints_as_it_was_read(text):
    assert str(VerifierKey.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        EXAMPLE_VKEY.replace("530d903a", "530d903b"),
        EXAMPLE_VKEY.replace("530d903a", "530D903A"),
        EXAMPLE_VKEY.replace("example.com/foo", "example.com/fo"),
        EXAMPLE_VKEY.replace("example.com/foo", "example.com/ foo"),
        EXAMPLE_VKEY[:-4],
        EXAMPLE_VKEY + "A",
        EXAMPLE_VKEY.replace("+Aek", "+Bek"),
        EXAMPLE_VKEY.replace("+Aek", "+CQk"),
        EXAMPLE_VKEY.replace("+Aek", "+Bkk"),
        EXAMPLE_VKEY.replace("example.com/foo", "\ud800"),
    ],
)
def test_a_key_with_anything_wrong_is_refused(text):
    with pytest.raises(MalformedError):
        VerifierKey.parse(text)


@given(st.integers(0, len(EXAMPLE_NOTE) - 1), st.integers(1, 127))
def test_no_changed_character_leaves_the_note_verified(position, change):
    forged = EXAMPLE_NOTE[:position] + chr(ord(EXAMPLE_NOTE[position]) ^ change) + EXAMPLE_NOTE[position + 1 :]
    try:
        verified = verify_signatures(Note.parse(forged), [VerifierKey.parse(EXAMPLE_VKEY)])
    except (MalformedError, RefusedError):
        return
    assert verified == []


def test_a_known_key_whose_signature_fails_rejects_the_whole_note():
    note = Note.parse(VECTORS["cosigned_checkpoint"])
    log_line, line = note.signatures
    broken = with_flipped_bit(line.payload)
    forged = Note(note.text, (log_line, SignatureLine(line.name, line.key_id, broken)))
    with pytest.raises(RefusedError) as refused:
        verify_signatures(forged, [LOG_KEY, WITNESS_KEY])
    assert refused.value.code == "bad_signature"


def test_a_cosignature_moved_to_another_time_fails():
    note = Note.parse(VECTORS["cosigned_checkpoint"])
    line = note.signatures[1]
    earlier = (VECTORS["cosign_time"] - 1).to_bytes(8, "big") + line.payload[8:]
    with pytest.raises(RefusedError):
        verify_signatures(Note(note.text, (SignatureLine(line.name, line.key_id, earlier),)), [WITNESS_KEY])


def test_one_key_that_signs_twice_is_refused():
    note = Note.parse(VECTORS["cosigned_checkpoint"])
    with pytest.raises(RefusedError) as refused:
        verify_signatures(Note(note.text, (*note.signatures, note.signatures[1])), [WITNESS_KEY])
    assert refused.value.code == "duplicate_signature"


def test_signatures_of_unknown_keys_are_passed_over():
    assert verify_signatures(Note.parse(VECTORS["cosigned_checkpoint"]), []) == []


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\n— name AAAAAAA=",
        "text\n\n- name AAAAAAAA\n",
        "text\n\n— na+me AAAAAAAA\n",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAAAAAA\n",
        "text\n\n— name AAAAAAAB=\n",
        "text\r\n\n— name AAAAAAAA\n",
        "text\n\n— name AAAAAAAA\n\n",
        "te\0xt\n\n— name AAAAAAAA\n",
        "text\n\n" + "— name AAAAAAAA\n" * (SIGNATURES_MAX + 1),
        "t" * NOTE_BYTES_MAX + "\n\n— name AAAAAAAA\n",
        "\ud800\n\n— name AAAAAAAA\n",
    ],
)
def test_what_is_not_a_note_is_refused(raw):
    with pytest.raises(MalformedError):
        Note.parse(raw)


def test_the_last_empty_line_splits_text_from_signatures():
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    text = "one\n\ntwo\n"
    note = Note(text, (sign(text, name="a", private_key=key),))
    assert Note.parse(str(note)) == note


@given(st.binary(max_size=50))
def test_base64_has_one_spelling(raw):
    assert decode_base64(encode_base64(raw)) == raw


@pytest.mark.parametrize("text", ["A", "AB", "AA=", "AB==", "A A=", "AAA=\n", "AA-_", "AAAA====", "é==="])
def test_other_spellings_of_base64_are_refused(text):
    with pytest.raises(MalformedError):
        decode_base64(text)


@pytest.mark.parametrize(
    "digits", ["", " 3", "3 ", "+3", "-3", "03", "1_0", "٣", "3.0", "1e3", "18446744073709551616", "9" * 30]
)
def test_other_spellings_of_a_number_are_refused(digits):
    with pytest.raises(MalformedError):
        parse_decimal(digits)


def test_numbers_go_up_to_the_largest_size():
    assert [parse_decimal("0"), parse_decimal("18446744073709551615")] == [0, 2**64 - 1]


@pytest.mark.parametrize(
    "text",
    [
        "origin\n1\n",
        "origin\n1\n" + "A" * 43 + "=",
        "origin\n01\n" + "A" * 43 + "=\n",
        "origin\n1\n" + "A" * 40 + "\n",
        "ori gin\n1\n" + "A" * 43 + "=\n",
        "\n1\n" + "A" * 43 + "=\n",
        "origin\n1\n" + "A" * 43 + "=\nextension\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text):
    with pytest.raises(MalformedError):
        Checkpoint.parse(text)


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_a_time_that_a_cosignature_cannot_carry_is_the_callers_mistake(time_s):
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(ValueError, match="timestamp"):
        cosign("text\n", name="a", private_key=key, timestamp_s=time_s)


def test_a_key_of_the_wrong_length_or_name_cannot_be_made():
    with pytest.raises(MalformedError):
        VerifierKey(name="a", type=KeyType.ED25519, public_key=bytes(31))
    with pytest.raises(MalformedError):
        VerifierKey(name="a b", type=KeyType.ED25519, public_key=bytes(32))


def test_a_public_key_that_is_no_point_verifies_nothing():
    for public_key in (b"\xff" * 32, bytes([2]) + bytes(31)):
        assert not is_signed(b"text", signer=public_key, signature=bytes(64))


def test_which_characters_a_key_name_may_have():
    def is_allowed(character: str) -> bool:
        is_surrogate = "\ud800" <= character <= "\udfff"
        return not (character.isspace() or ord(character) < 0x20 or character == "+" or is_surrogate)

    assert not is_key_name("")
    for character in map(chr, [*range(0x3100), *range(0xD700, 0xE100), 0x10FFFF]):
        assert is_key_name(f"a{character}b") is is_allowed(character), hex(ord(character))


def test_control_characters_are_refused_in_a_note_but_for_the_newline():
    for code in (*range(0x0A), *range(0x0B, 0x20)):
        with pytest.raises(MalformedError, match="control character"):
            Note.parse(f"a text{chr(code)}\n\n— a {encode_base64(bytes(68))}\n")
    for character in "\n\x7f é":
        assert Note.parse(f"a text{character}b\n\n— a {encode_base64(bytes(68))}\n").text == f"a text{character}b\n"
