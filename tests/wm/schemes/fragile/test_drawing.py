"""Promised: labels are uniform and the same everywhere; latents are normal, and one endless sequence."""

import math

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given
from hypothesis import strategies as st

from wm.schemes.fragile.drawing import LABEL_NONCE, LATENT_NONCE, WEIGHT_NONCE, draw_labels, draw_latents, weight_seed
from wm.triggers.prg import INTEGER_NONCE
from wm.triggers.prg import LABEL_NONCE as BIT_NONCE

_KEY = bytes(range(32))
_key = st.binary(min_size=32, max_size=32)


@given(_key, st.integers(1, 300), st.integers(2, 1000))
def test_labels_are_those_of_a_plain_reference(key: bytes, count: int, classes: int) -> None:
    stream = Cipher(ChaCha20(key, bytes(4) + b"wmreg/fgl/v1"), mode=None).encryptor().update(bytes(16 * count + 400))
    words = (int.from_bytes(stream[i : i + 4], "big") for i in range(0, len(stream), 4))
    expected = [word % classes for word in words if word < 2**32 // classes * classes][:count]
    assert draw_labels(key, count=count, classes=classes).tolist() == expected


def test_labels_of_a_key_for_ever() -> None:
    assert draw_labels(_KEY, count=12, classes=10).tolist() == [2, 7, 5, 6, 6, 2, 5, 2, 9, 7, 3, 0]


def test_latents_are_standard_normal() -> None:
    drawn = draw_latents(_KEY, first=0, count=200, size=512)
    assert float(drawn.mean()) == pytest.approx(0, abs=4 / math.sqrt(drawn.numel()))
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert float((drawn.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)
    assert abs(float(torch.corrcoef(drawn[:, :2].T)[0, 1])) < 0.3


@given(st.integers(0, 20), st.integers(1, 20), st.integers(1, 9))
def test_latents_are_one_sequence(first: int, count: int, size: int) -> None:
    whole = draw_latents(_KEY, first=0, count=first + count, size=size)
    assert torch.equal(draw_latents(_KEY, first=first, count=count, size=size), whole[first:])


def test_every_purpose_has_its_own_nonce() -> None:
    nonces = {LABEL_NONCE, LATENT_NONCE, WEIGHT_NONCE, INTEGER_NONCE, BIT_NONCE}
    assert len(nonces) == 5
    assert {len(nonce) for nonce in nonces} == {12}
    assert len(weight_seed(_KEY)) == 32


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        draw_labels(bytes(31), count=1, classes=2)
