"""Promised: the key decides triggers and labels; labels are uniform; any change of what is shown draws all anew."""

import hashlib
import hmac
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from wm.schemes.margin.draws import chosen_indices, labels_for
from wm.triggers import InputSpec, Normalisation

KEY, OTHER_KEY = bytes(range(32)), bytes(reversed(range(32)))
SPEC = InputSpec(3, 5, 4, Normalisation(("0.4914", "0.4822", "0.4465"), ("0.2470", "0.2435", "0.2616")))

CHOSEN = [89, 7, 156, 79, 96, 128, 106, 163]
LABELS = [9, 7, 6, 2, 4, 8, 2, 4, 9, 5, 2, 7, 6, 2, 0, 6, 8, 5, 5, 9, 4, 4, 7, 2]


def pixels(total: int) -> torch.Tensor:
    return torch.arange(total * 60).remainder(251).to(torch.uint8).reshape(total, 3, 5, 4)


def words(key: bytes, nonce: bytes, *, size_bytes: int) -> Iterator[int]:
    """Read the keystream word by word, as RFC 8439 counts its blocks."""
    for block in count():
        cipher = Cipher(ChaCha20(key, block.to_bytes(4, "little") + nonce), mode=None)
        stream = cipher.encryptor().update(bytes(64))
        yield from (int.from_bytes(stream[i : i + size_bytes], "big") for i in range(0, 64, size_bytes))


def labels_one_by_one(key: bytes, shown: torch.Tensor, classes: int) -> list[int]:
    digest = hashlib.sha256()
    for text in (b"3 x 5 x 4", b"0.4914", b"0.4822", b"0.4465", b"0.2470", b"0.2435", b"0.2616", b"%d" % len(shown)):
        digest.update(struct.pack(">I", len(text)) + text)
    digest.update(bytes(shown.flatten().tolist()))
    label_key = hmac.new(key, b"wmreg/mlb/v1" + digest.digest(), "sha256").digest()
    kept = (word for word in words(label_key, b"wmreg/mlb/v1", size_bytes=4) if word < 2**32 - 2**32 % classes)
    return [word % classes for word in islice(kept, len(shown))]


def test_the_draws_are_the_same_on_every_machine() -> None:
    assert chosen_indices(KEY, count=8, pool=180).tolist() == CHOSEN
    assert labels_for(KEY, pixels(24), SPEC, classes=10).tolist() == LABELS


@pytest.mark.parametrize("classes", [2, 10, 1000, 3 << 30, 1 << 32])
def test_labels_are_those_of_the_rule_followed_word_by_word(classes: int) -> None:
    assert labels_for(OTHER_KEY, pixels(50), SPEC, classes=classes).tolist() == labels_one_by_one(
        OTHER_KEY, pixels(50), classes
    )


def test_pictures_are_those_of_the_rule_followed_word_by_word() -> None:
    drawn = list(islice(words(OTHER_KEY, b"wmreg/mpx/v1", size_bytes=8), 100))
    assert chosen_indices(OTHER_KEY, count=30, pool=100).tolist() == sorted(range(100), key=drawn.__getitem__)[:30]


@given(st.binary(min_size=32, max_size=32), st.integers(0, 60), st.integers(0, 60))
def test_chosen_pictures_are_distinct_and_more_of_them_begin_with_the_same(key: bytes, few: int, more: int) -> None:
    chosen = chosen_indices(key, count=few, pool=few + more)
    everything = chosen_indices(key, count=few + more, pool=few + more).tolist()
    assert chosen.tolist() == everything[:few]
    assert sorted(everything) == list(range(few + more))


def test_more_pictures_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="cannot choose 11 of 10"):
        chosen_indices(KEY, count=11, pool=10)


@given(st.binary(min_size=32, max_size=32), st.integers(2, 1 << 32), st.integers(0, 40))
def test_labels_are_classes(key: bytes, classes: int, total: int) -> None:
    labels = labels_for(key, pixels(total), SPEC, classes=classes)
    assert labels.dtype == torch.int64
    assert labels.shape == (total,)
    assert bool(((labels >= 0) & (labels < classes)).all())


@pytest.mark.parametrize("classes", [3, 10, 3 << 30])
def test_labels_are_uniform_also_where_the_classes_do_not_divide_the_words(classes: int) -> None:
    labels = labels_for(KEY, pixels(3000), SPEC, classes=classes)
    cells = min(classes, 12)
    found = Counter((labels * cells // classes).tolist())
    assert chisquare([found[cell] for cell in range(cells)]).pvalue > 1e-3


def test_what_would_favour_the_lower_classes_is_skipped() -> None:
    words_taken_modulo = 1 / 2  # of the words, a third of 3 · 2^30 classes would get twice their share
    labels = labels_for(KEY, pixels(3000), SPEC, classes=3 << 30)
    assert float((labels < 1 << 30).float().mean()) < (1 / 3 + words_taken_modulo) / 2


def normalised(spec: InputSpec, **changed: tuple[str, ...]) -> InputSpec:
    return replace(spec, normalisation=replace(spec.normalisation, **changed))


def with_a_bit_turned(shown: torch.Tensor) -> torch.Tensor:
    turned = shown.clone()
    turned[-1, -1, -1, -1] ^= 1
    return turned


@pytest.mark.parametrize(
    "changed",
    [
        lambda shown, spec: (with_a_bit_turned(shown), spec),
        lambda shown, spec: (shown.flip(0), spec),
        lambda shown, spec: (shown.reshape(-1, 3, 4, 5), replace(spec, height=4, width=5)),
        lambda shown, spec: (shown, normalised(spec, mean=("0.4914", "0.4822", "0.4466"))),
        lambda shown, spec: (shown, normalised(spec, std=("0.2470", "0.2435", "0.26160"))),
    ],
    ids=["one bit of one pixel", "order", "shape", "mean", "spelling of a deviation"],
)
def test_an_owner_cannot_keep_labels_and_change_what_is_shown(changed) -> None:
    shown, spec = changed(pixels(200), SPEC)
    agreeing = int((labels_for(KEY, shown, spec, classes=10) == labels_for(KEY, pixels(200), SPEC, classes=10)).sum())
    assert agreeing < 45  # Binomial(200, 1/10): above it with a chance of 1e-7


def test_another_key_demands_other_labels() -> None:
    mine, others = (labels_for(key, pixels(200), SPEC, classes=10) for key in (KEY, OTHER_KEY))
    assert int((mine == others).sum()) < 45


def test_a_model_that_always_answers_one_class_matches_as_any_other_by_chance() -> None:
    counts = [
        int((labels_for(seed.to_bytes(32, "big"), pixels(50), SPEC, classes=5) == 2).sum()) for seed in range(300)
    ]
    assert sum(counts) / (300 * 50) == pytest.approx(1 / 5, abs=4 * (0.16 / 15_000) ** 0.5)


@pytest.mark.parametrize("classes", [1, (1 << 32) + 1])
def test_a_number_of_classes_out_of_range_is_refused(classes: int) -> None:
    with pytest.raises(ValueError, match="classes"):
        labels_for(KEY, pixels(1), SPEC, classes=classes)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        labels_for(KEY[:31], pixels(1), SPEC, classes=10)
    with pytest.raises(ValueError, match="32 bytes"):
        chosen_indices(KEY[:31], count=1, pool=2)
