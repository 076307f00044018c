"""A message is read and verified once, and only what was verified counts."""

import pytest
from damage import with_flipped_bit
from nodeset import ORIGIN, publication

from node import unsealed
from node.unsealed import UnsealedMessages
from registry.envelope import SignedMessage, unseal
from registry.errors import RefusedError, RegistryError

ENVELOPES = [publication(number=number, time_s=1_800_000_000) for number in range(3)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The envelopes that were really read."""
    seen: list[bytes] = []

    def counting(envelope: bytes, *, origin: str | None) -> SignedMessage:
        seen.append(envelope)
        return unseal(envelope, origin=origin)

    monkeypatch.setattr(unsealed, "unseal", counting)
    return seen


def test_a_message_whose_signature_held_is_not_read_again(read: list[bytes]):
    known = UnsealedMessages()
    messages = [known.unseal(ENVELOPES[0], origin=ORIGIN) for _ in range(3)]
    assert messages == [unseal(ENVELOPES[0], origin=ORIGIN)] * 3
    assert read == [ENVELOPES[0]]


def test_any_other_byte_is_read_anew_and_refused(read: list[bytes]):
    known, envelope = UnsealedMessages(), ENVELOPES[0]
    known.unseal(envelope, origin=ORIGIN)
    for place in range(len(envelope)):
        with pytest.raises(RegistryError):
            known.unseal(with_flipped_bit(envelope, place), origin=ORIGIN)
    assert len(read) == 1 + len(envelope)


def test_a_message_for_one_ledger_is_none_for_another(read: list[bytes]):
    known = UnsealedMessages()
    known.unseal(ENVELOPES[0], origin=ORIGIN)
    for origin in ("another.example/log", None):
        with pytest.raises(RefusedError):
            known.unseal(ENVELOPES[0], origin=origin)
    assert len(read) == 3


def test_what_did_not_hold_is_not_remembered(read: list[bytes]):
    known = UnsealedMessages()
    forged = with_flipped_bit(ENVELOPES[0], -2)
    for _ in range(2):
        with pytest.raises(RegistryError):
            known.unseal(forged, origin=ORIGIN)
    assert read == [forged] * 2


@pytest.mark.parametrize(("limit", "most"), [("MESSAGES_MAX", 2), ("BYTES_MAX", len(ENVELOPES[1]) + len(ENVELOPES[2]))])
def test_the_oldest_is_forgotten_first(read: list[bytes], monkeypatch: pytest.MonkeyPatch, limit: str, most: int):
    monkeypatch.setattr(unsealed, limit, most)
    known = UnsealedMessages()
    for envelope in (*ENVELOPES, ENVELOPES[2], ENVELOPES[1], ENVELOPES[0]):
        known.unseal(envelope, origin=ORIGIN)
    assert read == [*ENVELOPES, ENVELOPES[0]]
