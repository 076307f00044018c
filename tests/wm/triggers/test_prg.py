"""Promised: a key gives the integers and labels of the specification's test vector, distinct and in range."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm.triggers.prg import distinct_integers, integer_bits, integers_below, keystream, label_bits

KEY = bytes(range(32))


def test_the_integers_are_those_of_the_vector() -> None:
    first = [759223290, 372989334, 654424743, 918791570, 228304043, 572894476, 486835903, 748370576]
    integers = distinct_integers(KEY, 600)
    assert integers[:8].tolist() == first
    assert integers[-1] == 533728213


def test_the_labels_are_those_of_the_vector() -> None:
    labels = label_bits(KEY, 600)
    assert "".join(str(int(bit)) for bit in labels[:32]) == "00001010000111010100110001000111"
    assert labels.sum() == 309


def test_all_together_hash_to_the_vector() -> None:
    joined = distinct_integers(KEY, 600).astype(">u4").tobytes() + label_bits(KEY, 600).astype(np.uint8).tobytes()
    assert hashlib.sha256(joined).hexdigest() == "7a0211e0e36254e1462e73f1e966e6d87969486688a9c882240e7b885d6561e0"


def test_another_key_gives_other_integers_and_labels() -> None:
    other = bytes([1]) + KEY[1:]
    assert not set(distinct_integers(KEY, 600).tolist()) & set(distinct_integers(other, 600).tolist())
    assert 200 < int((label_bits(KEY, 600) == label_bits(other, 600)).sum()) < 400


@pytest.mark.long
@given(key=st.binary(min_size=32, max_size=32), count=st.integers(2, 300))
@settings(max_examples=60, deadline=None)
def test_integers_are_what_a_plain_loop_finds(key: bytes, count: int) -> None:
    expected: list[int] = []
    stream = keystream(key, b"wmreg/int/v1", 4 * 40 * count)
    for start in range(0, len(stream), 4):
        word = int.from_bytes(stream[start : start + 4], "big") % (1 << integer_bits(count))
        if word not in expected and len(expected) < count:
            expected.append(word)
    assert distinct_integers(key, count).tolist() == expected


@pytest.mark.parametrize(("count", "bits"), [(2, 3), (512, 27), (513, 30), (600, 30), (1024, 30)])
def test_m_is_three_times_the_rounded_up_logarithm(count: int, bits: int) -> None:
    assert integer_bits(count) == bits


@pytest.mark.parametrize("count", [-1, 0, 1, 1025])
def test_a_count_that_does_not_fit_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="integers can be drawn"):
        distinct_integers(KEY, count)


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"x"])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        label_bits(key, 8)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**32), st.integers(0, 40))
def test_integers_below_a_bound_are_the_words_below_its_greatest_multiple(key: bytes, bound: int, count: int):
    nonce, fair = b"wmreg/tst/v1", 2**32 // bound * bound
    stream = keystream(key, nonce, 4 * 40 * (count + 1))
    words = [int.from_bytes(stream[at : at + 4], "big") for at in range(0, len(stream), 4)]
    assert integers_below(bound, key, nonce, count=count).tolist() == [w % bound for w in words if w < fair][:count]


@pytest.mark.parametrize("bound", [0, -1, 2**32 + 1])
def test_a_bound_that_words_do_not_reach_is_refused(bound: int):
    with pytest.raises(ValueError, match="2\\^32"):
        integers_below(bound, bytes(32), b"wmreg/tst/v1", count=1)
