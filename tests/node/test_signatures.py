"""Signatures are verified once, and only what was verified counts."""

import pytest
from fakes import private_key, public_key

from node import signatures
from node.signatures import VerifiedSignatures
from registry import signing

SIGNED = b"what was signed"
SIGNER, SIGNATURE = public_key("alice"), signing.sign(private_key("alice"), SIGNED)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was really verified."""
    seen: list[bytes] = []
    verify = signing.is_signed

    def counting(signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        seen.append(signed)
        return verify(signed, signer=signer, signature=signature)

    monkeypatch.setattr(signing, "is_signed", counting)
    return seen


def test_a_signature_that_held_is_not_verified_again(verifications: list[bytes]):
    known = VerifiedSignatures()
    assert [known.is_signed(SIGNED, signer=SIGNER, signature=SIGNATURE) for _ in range(3)] == [True] * 3
    assert verifications == [SIGNED]


@pytest.mark.parametrize("what", ["signed", "signer", "signature", "moved border"])
def test_any_other_byte_is_verified_anew_and_fails(verifications: list[bytes], what: str):
    known = VerifiedSignatures()
    assert known.is_signed(SIGNED, signer=SIGNER, signature=SIGNATURE)
    signed, signer, signature = {
        "signed": (SIGNED + b"!", SIGNER, SIGNATURE),
        "signer": (SIGNED, public_key("bob"), SIGNATURE),
        "signature": (SIGNED, SIGNER, SIGNATURE[:-1] + bytes([SIGNATURE[-1] ^ 1])),
        "moved border": (SIGNED, SIGNER + SIGNATURE[:1], SIGNATURE[1:]),
    }[what]
    assert not known.is_signed(signed, signer=signer, signature=signature)
    assert len(verifications) == 2


def test_what_did_not_hold_is_not_remembered(verifications: list[bytes]):
    known = VerifiedSignatures()
    assert [known.is_signed(b"else", signer=SIGNER, signature=SIGNATURE) for _ in range(2)] == [False] * 2
    assert len(verifications) == 2


def test_the_oldest_is_forgotten_first(verifications: list[bytes], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signatures, "REMEMBERED_MAX", 2)
    known = VerifiedSignatures()
    texts = [b"one", b"two", b"three"]
    for signed in (*texts, texts[2], texts[1], texts[0]):
        assert known.is_signed(signed, signer=SIGNER, signature=signing.sign(private_key("alice"), signed))
    assert verifications == [*texts, texts[0]]
