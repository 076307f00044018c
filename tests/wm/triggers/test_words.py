"""Promised: texts follow from integers by the published rule, no two integers share one, and every id is a word."""

import hashlib

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wm.triggers.words import head_digits, texts

INTEGERS = st.integers(0, 2**30 - 1)
VOCABULARIES = st.integers(4, 1 << 20)


def row(integer: int, *, vocabulary: int = 20_000, length: int = 64) -> list[int]:
    return texts(np.array([integer], dtype=np.uint32), vocabulary=vocabulary, length=length)[0].tolist()


def plain(integer: int, vocabulary: int, length: int) -> list[int]:
    """The rule of the module's docstring, as dumbly as it can be written."""
    words, digits = vocabulary - 2, 1
    while words**digits < 2**30:
        digits += 1
    spelt, rest = [], integer
    for _ in range(digits):
        rest, digit = divmod(rest, words)
        spelt.insert(0, digit)
    key = hashlib.sha256(b"wmreg/text/v1" + integer.to_bytes(4, "big")).digest()
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    while len(spelt) < length:
        word = int.from_bytes(stream.update(bytes(4)), "big")
        if word < 2**32 - 2**32 % words:
            spelt.append(word % words)
    return [2 + digit for digit in spelt]


def test_the_texts_are_those_of_the_vector() -> None:
    integers = np.array([0, 1, 2**30 - 1, 759223290], dtype=np.uint32)
    found = texts(integers, vocabulary=20_000, length=64)
    assert found.dtype == torch.int64
    assert found[:, :6].tolist() == [
        [2, 2, 2, 3174, 12633, 6677],
        [2, 2, 3, 19054, 10066, 741],
        [4, 13698, 9209, 383, 16476, 3981],
        [3, 17968, 19220, 13806, 6266, 5568],
    ]
    digest = hashlib.sha256(found.numpy().astype(">i8").tobytes()).hexdigest()
    assert digest == "bc0ad972946b14d07c08c61da299bf03e5a174440deb2bb063e16c69f10b17cd"


# Of 2^31 + 1 words nearly every other draw is skipped; of 2^20 - 2 hardly any.
@given(INTEGERS, VOCABULARIES, st.integers(30, 70))
@example(5, (1 << 31) + 3, 64)
@settings(max_examples=60, deadline=None)
def test_texts_are_what_a_plain_loop_spells(integer: int, vocabulary: int, length: int) -> None:
    assert row(integer, vocabulary=vocabulary, length=length) == plain(integer, vocabulary, length)


@given(INTEGERS, INTEGERS, VOCABULARIES)
@settings(max_examples=100, deadline=None)
def test_two_integers_share_their_first_tokens_only_if_they_are_equal(first: int, second: int, vocabulary: int) -> None:
    digits = head_digits(vocabulary)
    spelt = [row(integer, vocabulary=vocabulary, length=digits) for integer in (first, second)]
    assert (spelt[0] == spelt[1]) == (first == second)


@given(INTEGERS, VOCABULARIES)
@settings(max_examples=60, deadline=None)
def test_the_first_tokens_give_the_integer_back(integer: int, vocabulary: int) -> None:
    found = 0
    for token in row(integer, vocabulary=vocabulary)[: head_digits(vocabulary)]:
        found = found * (vocabulary - 2) + token - 2
    assert found == integer


def test_padding_and_the_unknown_word_are_in_no_text_and_every_word_is() -> None:
    found = texts(np.arange(2000, dtype=np.uint32), vocabulary=300, length=64)
    assert found.unique().tolist() == list(range(2, 300))


def test_words_are_drawn_alike() -> None:
    tail = texts(np.arange(3000, dtype=np.uint32), vocabulary=66, length=64)[:, head_digits(66) :]
    counts = tail.flatten().bincount()[2:].float()
    expected = counts.mean()
    assert float(((counts - expected) ** 2 / expected).sum()) < 110  # chi square, 63 degrees: p = 0.0002


@pytest.mark.parametrize(("vocabulary", "digits"), [(4, 30), (66, 5), (256 + 2, 4), (20_000, 3), ((1 << 15) + 2, 2)])
def test_the_head_is_as_short_as_it_can_be(vocabulary: int, digits: int) -> None:
    assert head_digits(vocabulary) == digits


@pytest.mark.parametrize(
    ("integer", "vocabulary", "length", "needle"),
    [(2**30, 20_000, 64, "30 bits"), (5, 20_000, 2, "3 digits"), (5, 3, 64, "two words")],
)
def test_what_is_out_of_range_is_refused(integer: int, vocabulary: int, length: int, needle: str) -> None:
    with pytest.raises(ValueError, match=needle):
        row(integer, vocabulary=vocabulary, length=length)
